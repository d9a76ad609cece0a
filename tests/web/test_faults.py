"""Faults of the service's own: one form, nothing of the exam, the place on standard error."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mrknee.errors import MrkneeError
from mrknee.exams import Exams
from mrknee.inference.onnx_model import OnnxModel
from mrknee.scoring.predictions import Predictions
from mrknee.web.app import create_app
from mrknee.web.desk import Desk
from mrknee.web.service import Service
from tests.web.client import KIND, exam_form, random_exam

Message = dict[str, Any]


class Failing(OnnxModel):
    """A model that fails at any exam."""

    def __init__(self, file: Path, fault: Exception) -> None:
        super().__init__(file)
        self.fault = fault

    def predict(self, exams: Exams) -> Predictions:  # noqa: ARG002
        """Fails."""
        raise self.fault


def ask(service: Service) -> tuple[int, bytes]:
    """What a service says to an exam, without a server between."""
    answers: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": exam_form(random_exam(1)), "more_body": False}

    async def send(message: Message) -> None:
        answers.append(message)

    headers = [(b"content-type", KIND.encode())]
    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": headers, "query_string": b""}  # fmt: skip # noqa: E501
    with suppress(ValueError):  # starlette raises it on, for the server's log (`serving` drops it)
        asyncio.run(create_app(service)(scope, receive, send))  # type: ignore[arg-type]
    return answers[0]["status"], answers[1]["body"]


@pytest.mark.parametrize(
    ("fault", "what", "said"),
    [
        (ValueError("DOE^JANE"), "fault of its own", "ValueError while answering"),
        (MrkneeError("the model is odd", file="/srv/secret", found="x"), "the model is odd", "/srv/secret"),  # noqa: E501
    ],
)  # fmt: skip
def test_a_fault_of_the_service_is_told_without_its_insides(
    onnx_file: Path, capsys: pytest.CaptureFixture[str], fault: Exception, what: str, said: str
) -> None:
    """500, in words; the place in the code on standard error, without an unknown error's text."""
    status, body = ask(Service(Failing(onnx_file, fault), "m"))
    assert status == 500
    told: Mapping[str, Any] = json.loads(body)["error"]
    assert what in told["what"]
    assert told["field"] is None
    for inside in (b"DOE", b"/srv", b"Traceback", b".py"):
        assert inside not in body
    errors = capsys.readouterr().err
    assert said in errors
    assert "test_faults.py:" in errors
    assert "DOE" not in errors


def test_a_fault_gives_the_place_back() -> None:
    """Whatever happens to an exam, its place is free afterwards."""
    desk = Desk()
    for _ in range(50):
        with pytest.raises(ValueError, match="odd"), desk.place():
            raise ValueError("odd")
    with desk.place():
        assert asyncio.run(desk.read(lambda: 7)) == 7
