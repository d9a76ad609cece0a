"""The audit log: one line per exam, on the disk before the response, without pixels."""

from __future__ import annotations

import json
import os
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from mrknee import __version__
from mrknee.errors import MrkneeError
from mrknee.server.audit import AuditLog, Record
from mrknee.server.serving import digest_of
from tests.processes import run_mrknee
from tests.server.client import Served, exam_form, form, npy, random_exam


def record(number: int) -> Record:
    """Returns a record with a distinct request id."""
    return Record(f"r{number}", "/predict", "0" * 64, __version__)


def lines(file: Path) -> list[dict[str, object]]:
    """Returns the records of a log."""
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_each_exam_is_recorded(onnx_file: Path, tmp_path: Path) -> None:
    """Predictions, explanations and refusals are recorded, also after the file was renamed."""
    log = tmp_path / "audit.jsonl"
    exam = random_exam(1)
    with Served(onnx_file, tmp_path / "served", "--audit-log", str(log)) as service:
        answer = service.ask("POST", "/predict", exam_form(exam), headers={"X-Request-ID": "one"})
        [first] = lines(log)
        service.ask("POST", "/explain", exam_form(exam), accept="text/html")
        log.rename(tmp_path / "audit.jsonl.1")  # what logrotate does
        service.ask("POST", "/predict", form([]))
        service.ask("GET", "/model")
        assert service.end() == 0
    assert log.stat().st_mode & 0o777 == 0o600
    _, second = lines(tmp_path / "audit.jsonl.1")
    [third] = lines(log)
    digests = {str(p): sha256(npy(np.asarray(s))).hexdigest() for p, s in exam.stacks.items()}
    found = {n: one["probability"] for n, one in answer.json["findings"].items()}
    time = first.pop("time")
    assert isinstance(time, str)
    assert time.endswith("+00:00")
    assert first == {
        "request_id": "one", "path": "/predict", "model_digest": digest_of(onnx_file),
        "mrknee": __version__, "status": 200, "fault": None, "input": digests, "result": found,
        "remarks": [one["code"] for one in answer.json["remarks"]],
    }  # fmt: skip
    assert (second["path"], second["status"], second["result"]) == ("/explain", 200, found)
    assert (third["status"], third["fault"]) == (422, "the exam lacks a series")
    assert third["result"] == third["input"] == {}
    assert "DOE" not in log.read_text()


def test_an_answer_that_cannot_be_recorded_is_not_sent(onnx_file: Path, tmp_path: Path) -> None:
    """While the log's folder is missing, exams are answered with 500."""
    folder = tmp_path / "log"
    folder.mkdir()
    log = folder / "audit.jsonl"
    with Served(onnx_file, tmp_path / "served", "--audit-log", str(log)) as service:
        folder.rename(tmp_path / "away")
        assert service.predict(random_exam(1)).status == 500
        (tmp_path / "away").rename(folder)
        assert service.predict(random_exam(1)).status == 200
        assert service.end() == 0
    assert len(lines(log)) == 1


def test_an_incomplete_line_does_not_affect_the_next_one(tmp_path: Path) -> None:
    """After a power failure the next record begins on a new line."""
    log = tmp_path / "audit.jsonl"
    AuditLog(log).write(record(1))
    whole = log.read_bytes()
    log.write_bytes(whole + whole[:20])
    AuditLog(log).write(record(2))
    first, cut, second = log.read_text().splitlines()
    assert (json.loads(first)["request_id"], json.loads(second)["request_id"]) == ("r1", "r2")
    assert cut == whole[:20].decode()


@pytest.mark.parametrize("content", [b"\x08\x07onnx", b'{\n "findings": []}', b"# notes\n"])
def test_a_file_that_is_not_an_audit_log_is_not_changed(tmp_path: Path, content: bytes) -> None:
    """A model, its JSON and a text file are refused and stay unchanged."""
    file = tmp_path / "file"
    file.write_bytes(content)
    with pytest.raises(MrkneeError, match="is not an audit log"):
        AuditLog(file)
    assert file.read_bytes() == content


def test_the_model_is_not_accepted_as_audit_log(onnx_file: Path) -> None:
    """Giving the model as audit log is one clear error and leaves the model unchanged."""
    before = digest_of(onnx_file)
    done = run_mrknee("serve", onnx_file, "--port", "0", "--audit-log", onnx_file)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("mrknee serve: the file is not an audit log")
    assert digest_of(onnx_file) == before


def test_an_impossible_path_is_refused(tmp_path: Path) -> None:
    """A folder and a path in a missing folder are refused, and nothing is created."""
    with pytest.raises(MrkneeError, match="is not a regular file"):
        AuditLog(tmp_path)
    with pytest.raises(FileNotFoundError):
        AuditLog(tmp_path / "no" / "log")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["folder", "pipe", "link", "gone"])
def test_a_replacement_of_the_log_is_not_written_to(
    onnx_file: Path, tmp_path: Path, kind: str
) -> None:
    """If the log is replaced during service, the error names it; standard error has its path."""
    log, other = tmp_path / "logs" / "audit.jsonl", tmp_path / "other.txt"
    log.parent.mkdir()
    other.write_text("something else\n")
    with Served(onnx_file, tmp_path / "served", "--audit-log", str(log)) as service:
        log.unlink()
        if kind == "folder":
            log.mkdir()
        elif kind == "pipe":
            os.mkfifo(log)
        elif kind == "link":
            log.symlink_to(other)
        else:
            log.parent.rmdir()
        answer = service.ask("POST", "/predict", exam_form(random_exam(1)))
        assert (answer.status, "audit log" in answer.fault["what"]) == (500, True)
        assert service.ask("GET", "/health").status == 200
        assert service.end() == 0
        assert str(log) in service.stderr
        assert "site-packages" not in service.stderr
    assert other.read_text() == "something else\n"
