"""What can't be seen from outside: faults of the service's own, and one exam at a time."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp

from mrknee.errors import ModelError
from mrknee.exams import Exam, Exams
from mrknee.inference.onnx_model import OnnxModel
from mrknee.scoring.predictions import Predictions
from mrknee.web.app import create_app
from mrknee.web.desk import PLACES, Desk
from mrknee.web.service import Service
from tests.web.client import KIND, exam_form, random_exam

Message = dict[str, Any]


class Failing(OnnxModel):
    """A model that fails at any exam."""

    def __init__(self, file: Path, fault: Exception) -> None:
        super().__init__(file)
        self.fault = fault

    def predict(self, exams: Exams | Exam) -> Predictions:  # noqa: ARG002
        """Fails."""
        raise self.fault


async def ask(
    app: ASGIApp, method: str, path: str, leaves: asyncio.Event | None = None
) -> tuple[int, bytes]:
    """What an app says to an exam, without a server between; the client may leave meanwhile."""
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
    with suppress(ValueError):  # starlette raises it on, for the server's log (`serving` drops it)
        await app(scope, receive, send)  # type: ignore[arg-type]
    return answers[0]["status"], answers[1]["body"]


@pytest.mark.parametrize(
    ("fault", "what", "said"),
    [
        (ValueError("DOE^JANE"), "fault of its own", "ValueError while answering"),
        (ModelError("the model is odd", code="odd", file="/srv/secret", found="x"), "the model is odd", "/srv/secret"),  # noqa: E501
    ],
)  # fmt: skip
def test_a_fault_of_the_service_is_told_without_its_insides(
    onnx_file: Path, capsys: pytest.CaptureFixture[str], fault: Exception, what: str, said: str
) -> None:
    """500, in words; the place in the code on standard error, without an unknown error's text."""
    app = create_app(Service(Failing(onnx_file, fault), "m"))
    status, body = asyncio.run(ask(app, "POST", "/predict"))
    assert status == 500
    told: Mapping[str, Any] = json.loads(body)["error"]
    assert what in told["what"]
    assert told["field"] is None
    for inside in (b"DOE", b"/srv", b"Traceback", b".py"):
        assert inside not in body
    errors = capsys.readouterr().err
    assert said in errors
    assert "test_inside.py:" in errors
    assert "DOE" not in errors


class Patient(OnnxModel):
    """A model that reads when it is allowed to, and counts how many read at once."""

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


def test_one_exam_is_read_at_a_time_and_health_answers_meanwhile(onnx_file: Path) -> None:
    """Three exams are there and the first is being read: /health says ok; never two are read."""
    model = Patient(onnx_file)
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


def test_a_full_queue_says_come_again_and_is_not_ready(onnx_file: Path) -> None:
    """With as many whole exams as there are places: 503, /ready too, and /health answers."""
    model = Patient(onnx_file)
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


def test_work_for_clients_that_have_gone_is_dropped(onnx_file: Path) -> None:
    """One is read, one waits and leaves, one waits: two are read, and no place stays taken."""
    model = Patient(onnx_file)
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


def test_a_client_that_leaves_while_its_exam_is_unpacked_gets_nothing_computed() -> None:
    """The work is told before it computes, and its place is free afterwards."""
    desk = Desk()
    told = threading.Event()

    def work(gone: threading.Event) -> None:
        told.set()
        assert gone.wait(60)

    async def leave() -> None:
        assert await asyncio.to_thread(told.wait, 60)

    async def meet() -> None:
        with desk.place():
            await desk.read(work, leave())

    with pytest.raises(ClientDisconnect):
        asyncio.run(meet())
    assert desk.taken == 0


def test_a_fault_gives_the_place_back() -> None:
    """Whatever happens to an exam, its place is free afterwards."""
    desk = Desk()
    for _ in range(50):
        with pytest.raises(ValueError, match="odd"), desk.place():
            raise ValueError("odd")
    with desk.place():
        assert asyncio.run(desk.read(lambda _: 7, asyncio.sleep(60))) == 7
