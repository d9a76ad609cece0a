"""The application without a server: internal errors, and the request queue."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp

from mrknee.errors import DataError, ModelError, MrkneeError
from mrknee.exams import Exam, Exams
from mrknee.inference.onnx_model import OnnxModel
from mrknee.metrics.predictions import Predictions
from mrknee.server.app import create_app
from mrknee.server.audit import AuditLog
from mrknee.server.exam_uploads import ExamUploads, Uploaded
from mrknee.server.limits import DEFAULT_LIMITS
from mrknee.server.request_queue import RequestQueue
from mrknee.server.service import Service
from tests.server.client import KIND, exam_form, random_exam

PLACES = DEFAULT_LIMITS.max_waiting

Message = dict[str, Any]


class Failing(OnnxModel):
    """A model that fails for every exam."""

    def __init__(self, file: Path, fault: Exception) -> None:
        super().__init__(file)
        self.fault = fault

    def predict(self, exams: Exams | Exam) -> Predictions:  # noqa: ARG002
        """Raises the given exception."""
        raise self.fault


async def ask(
    app: ASGIApp, method: str, path: str, leaves: asyncio.Event | None = None
) -> tuple[int, bytes]:
    """Sends an exam to an application directly and returns status and body.

    The client disconnects when `leaves` is set.
    """
    answers: list[Message] = []
    sent = False

    async def receive() -> Message:
        nonlocal sent
        if sent:
            await (leaves or asyncio.Event()).wait()
            return {"type": "http.disconnect"}
        sent = True
        return {"type": "http.request", "body": exam_form(random_exam(1)), "more_body": False}

    async def send(message: Message) -> None:
        answers.append(message)

    headers = [(b"content-type", KIND.encode())]
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": headers,
        "query_string": b"",
    }
    with suppress(ValueError):  # starlette re-raises it for the server's log
        await app(scope, receive, send)  # type: ignore[arg-type]
    return answers[0]["status"], answers[1]["body"]


@pytest.mark.parametrize(
    ("fault", "what", "printed"),
    [
        (ValueError("DOE^JANE"), "internal error of the service", "ValueError while answering"),
        (ModelError("the model is odd", code="odd", file="/srv/secret", found="x"), "the model is odd", "/srv/secret"),  # noqa: E501
    ],
)  # fmt: skip
def test_internal_errors_are_reported_without_internals(
    onnx_file: Path, capsys: pytest.CaptureFixture[str], fault: Exception, what: str, printed: str
) -> None:
    """The response is a plain 500; standard error has the place in the code, not the message."""
    app = create_app(Service(Failing(onnx_file, fault), "m"))
    status, body = asyncio.run(ask(app, "POST", "/predict"))
    assert status == 500
    reported: Mapping[str, Any] = json.loads(body)["error"]
    assert what in reported["what"]
    assert reported["field"] is None
    for inside in (b"DOE", b"/srv", b"Traceback", b".py"):
        assert inside not in body
    errors = capsys.readouterr().err
    assert printed in errors
    assert "test_inside.py:" in errors
    assert "DOE" not in errors


class WaitingModel(OnnxModel):
    """A model that waits for permission, and counts concurrent predictions."""

    def __init__(self, file: Path) -> None:
        super().__init__(file)
        self.begun, self.allowed = threading.Event(), threading.Event()
        self.reading: list[int] = [0]
        self.most = 0

    def predict(self, exams: Exams | Exam) -> Predictions:
        """Waits for permission."""
        self.reading.append(1)
        self.most = max(self.most, sum(self.reading))
        self.begun.set()
        assert self.allowed.wait(60)
        self.reading.append(-1)
        return super().predict(exams)


def test_one_exam_is_processed_at_a_time_while_health_responds(onnx_file: Path) -> None:
    """With three exams queued, /health responds, and no two exams are processed at once."""
    model = WaitingModel(onnx_file)
    app = create_app(Service(model, "m"))

    async def meet() -> list[tuple[int, bytes]]:
        exams = [asyncio.create_task(ask(app, "POST", "/predict")) for _ in range(3)]
        assert await asyncio.to_thread(model.begun.wait, 60)
        assert await ask(app, "GET", "/health") == (200, b'{"status":"ok"}')
        assert not any(exam.done() for exam in exams)
        model.allowed.set()
        return await asyncio.gather(*exams)

    answers = asyncio.run(meet())
    assert [status for status, _ in answers] == [200, 200, 200]
    numbers = [json.loads(body)["findings"] for _, body in answers]
    assert numbers[0] == numbers[1] == numbers[2]
    assert model.most == 1


def test_a_full_queue_refuses_exams_and_is_not_ready(onnx_file: Path) -> None:
    """With a full queue, /predict and /ready return 503, and /health responds."""
    model = WaitingModel(onnx_file)
    app = create_app(Service(model, "m"))

    async def meet() -> None:
        assert await ask(app, "GET", "/ready") == (200, b'{"status":"ready"}')
        exams = [asyncio.create_task(ask(app, "POST", "/predict")) for _ in range(PLACES)]
        assert await asyncio.to_thread(model.begun.wait, 60)
        for _ in range(1000):
            if (await ask(app, "GET", "/ready"))[0] == 503:
                break
            await asyncio.sleep(0.01)
        status, body = await ask(app, "POST", "/predict")
        assert status == 503
        assert "again in 2 seconds" in json.loads(body)["error"]["advice"]
        assert await ask(app, "GET", "/health") == (200, b'{"status":"ok"}')
        model.allowed.set()
        assert [status for status, _ in await asyncio.gather(*exams)] == [200] * PLACES
        assert (await ask(app, "GET", "/ready"))[0] == 200

    asyncio.run(meet())


def test_exams_of_disconnected_clients_are_not_processed(onnx_file: Path) -> None:
    """An exam whose client disconnects while it waits is removed from the queue."""
    model = WaitingModel(onnx_file)
    app = create_app(Service(model, "m"))

    async def meet() -> None:
        leaves = asyncio.Event()
        first = asyncio.create_task(ask(app, "POST", "/predict"))
        assert await asyncio.to_thread(model.begun.wait, 60)
        second = asyncio.create_task(ask(app, "POST", "/predict", leaves))
        await asyncio.sleep(0.2)
        third = asyncio.create_task(ask(app, "POST", "/predict"))
        await asyncio.sleep(0.2)
        leaves.set()
        assert (await second)[0] == 499
        model.allowed.set()
        assert (await first)[0] == (await third)[0] == 200
        assert model.reading.count(1) == 2
        _, counted = await ask(app, "GET", "/metrics")
        assert b"mrknee_exams 0.0" in counted
        assert b'mrknee_requests_total{path="/predict",status="499"} 1.0' in counted

    asyncio.run(meet())


def test_uploads_that_wait_are_limited(onnx_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond `max_waiting` they are refused; those of clients that left are not read."""
    app = create_app(Service(OnnxModel(onnx_file), "m"))
    begun, allowed = threading.Event(), threading.Event()
    read_form, count = ExamUploads._read_form, 0

    def read(self: ExamUploads, body: BinaryIO, kind: str, archive: Path) -> Uploaded | None:
        nonlocal count
        count += 1
        begun.set()
        assert allowed.wait(60)
        return read_form(self, body, kind, archive)

    monkeypatch.setattr(ExamUploads, "_read_form", read)

    async def meet() -> None:
        leaves = asyncio.Event()
        first = asyncio.create_task(ask(app, "POST", "/api/v1/uploads"))
        assert await asyncio.to_thread(begun.wait, 60)
        others = [
            asyncio.create_task(ask(app, "POST", "/api/v1/uploads", leaves))
            for _ in range(PLACES - 1)
        ]
        await asyncio.sleep(0.2)
        status, body = await ask(app, "POST", "/api/v1/uploads")
        assert (status, json.loads(body)["code"]) == (503, "busy")
        leaves.set()
        allowed.set()
        assert (await first)[0] == 201
        assert {(await other)[0] for other in others} == {499}
        assert (await ask(app, "POST", "/api/v1/uploads"))[0] == 201
        assert count == 2

    asyncio.run(meet())


def test_cancelled_exams_are_recorded(onnx_file: Path, tmp_path: Path) -> None:
    """At a second signal, exams in the queue get 503, and a line in the audit log."""
    model, log = WaitingModel(onnx_file), tmp_path / "audit.jsonl"
    app = create_app(Service(model, "m"), audit_log=AuditLog(log))

    async def meet() -> None:
        exam = asyncio.create_task(ask(app, "POST", "/predict"))
        assert await asyncio.to_thread(model.begun.wait, 60)
        exam.cancel()
        with pytest.raises(asyncio.CancelledError):
            await exam
        model.allowed.set()

    asyncio.run(meet())
    (line,) = log.read_text().splitlines()
    assert json.loads(line)["status"] == 503


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (DataError("the exam has no series of the model", code="missing-plane"), 422),
        (ModelError("this network has no exact explanation", code="no-explanation"), 409),
        (ModelError("the maps can't be averaged", code="ensemble"), 409),
    ],
)
def test_what_the_model_refuses_is_no_internal_error(
    onnx_file: Path, capsys: pytest.CaptureFixture[str], fault: MrkneeError, status: int
) -> None:
    """Input that it can't use, and explanations that it can't give."""
    app = create_app(Service(Failing(onnx_file, fault), "m"))
    assert asyncio.run(ask(app, "POST", "/predict"))[0] == status
    assert capsys.readouterr().err == ""


def test_running_work_is_notified_of_a_disconnect() -> None:
    """The work's event is set when the client disconnects, and its place is free afterwards."""
    queue = RequestQueue(PLACES)
    started = threading.Event()

    def work(abandoned: threading.Event) -> None:
        started.set()
        assert abandoned.wait(60)

    async def leave() -> None:
        assert await asyncio.to_thread(started.wait, 60)

    async def meet() -> None:
        with queue.place():
            await queue.process(work, leave())

    with pytest.raises(ClientDisconnect):
        asyncio.run(meet())
    assert queue.taken == 0


def test_an_exception_frees_the_place() -> None:
    """A place in the queue is free again after an exception."""
    queue = RequestQueue(PLACES)
    for _ in range(50):
        with pytest.raises(ValueError, match="odd"), queue.place():
            raise ValueError("odd")
    with queue.place():
        assert asyncio.run(queue.process(lambda _: 7, asyncio.sleep(60))) == 7
