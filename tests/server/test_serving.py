"""Start, limits and shutdown of the service."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from inspect import signature
from pathlib import Path

import numpy as np
import pytest

from mrknee.cli import main
from mrknee.commands import serve
from mrknee.inference.model import load_model
from mrknee.server.arrivals import MAX_PER_ADDRESS
from mrknee.server.limits import DEFAULT_LIMITS
from tests.hostile.test_full_disk import disk, fill  # noqa: F401  # a fixture
from tests.processes import run_mrknee
from tests.server.client import KIND, Served, exam_form, form, random_exam

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", ["onnx", "run"])
def test_parallel_exams_give_the_same_results(
    served: Served, lenient: Served, onnx_file: Path, run_folder: Path, kind: str
) -> None:
    """Four concurrent clients receive the probabilities of predict, to 1e-6."""
    service, model = (served, onnx_file) if kind == "onnx" else (lenient, run_folder)
    exams = [random_exam(seed, (1 + seed, 2 + seed % 3, 9)) for seed in range(12)]
    expected = load_model(model).predict(exams).probabilities
    assert (expected.std(axis=0) > 1e-4).all()
    with ThreadPoolExecutor(4) as clients:
        answers = list(clients.map(service.predict, exams))
    for answer, numbers in zip(answers, expected, strict=True):
        found = [one["probability"] for one in answer.json["findings"].values()]
        np.testing.assert_allclose(found, numbers, rtol=0, atol=1e-6)


def test_an_abandoned_upload_frees_its_place(served: Served) -> None:
    """After more clients than places disconnected during their uploads, the next is accepted."""
    body = exam_form(random_exam(1))
    for _ in range(MAX_PER_ADDRESS + 1):
        upload = served.begin(body)
        upload.send(1000)
        upload.socket.close()
    for _ in range(50):
        if served.predict(random_exam(1)).status == 200:
            break
    else:
        pytest.fail("no place became free")
    assert served.left == []


def test_a_body_without_content_length_is_limited(served: Served) -> None:
    """An endless chunked body is refused exactly at the limit."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=60) as connection:
        head = "POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
        connection.sendall(f"{head}Content-Type: multipart/form-data; boundary=b\r\n\r\n".encode())
        part = b'--b\r\nContent-Disposition: form-data; name="axial"; filename="a"\r\n\r\n'
        connection.sendall(b"%x\r\n%s\r\n" % (len(part), part))
        chunk = b"%x\r\n%s\r\n" % (1_000_000, bytes(1_000_000))
        for _ in range(DEFAULT_LIMITS.body_bytes // 1_000_000 - 1):
            connection.sendall(chunk)
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(60)
        connection.sendall(chunk)
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")
    assert served.left == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_running_upload_is_answered_before_shutdown(
    onnx_file: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """After a signal, a running upload is answered, new connections are refused; status 0."""
    with Served(onnx_file, tmp_path) as service:
        upload = service.begin(exam_form(random_exam(1)))
        upload.send(9000)
        service.process.send_signal(number)
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", service.port), timeout=60).close()
            except OSError:
                break
            time.sleep(0.05)
        else:
            pytest.fail("the service still listens")
        upload.send()
        answer = upload.answer()
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b'"findings"' in answer
        assert service.end(number) == 0
        assert (service.left, service.stderr) == ([], "")


def test_a_full_disk_is_reported_and_leaves_no_files(
    onnx_file: Path,
    disk: Path,  # noqa: F811
) -> None:
    """A full disk is answered with 507; with free space, the next exam is accepted."""
    large = exam_form(random_exam(1, (160, 160, 160)))
    with Served(onnx_file, disk) as service:
        filling = fill(disk, 500_000)
        answer = service.ask("POST", "/predict", large)
        assert answer.status == 507
        assert "no disk space left" in answer.fault["what"]
        assert service.left == []
        filling.unlink()
        assert service.predict(random_exam(1)).status == 200
        assert service.end() == 0
        assert (service.left, service.stderr) == ([], "")


def test_a_port_in_use_is_one_clear_error(onnx_file: Path) -> None:
    """A port in use gives exit status 1 and an empty standard output."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_mrknee("serve", onnx_file, "--port", port)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "can't listen on this address" in done.stderr
    assert f"port {port}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words", [["--port", "70000"], ["--host", "no-such-host.invalid"], ["--host", "192.0.2.1"]]
)
def test_an_impossible_address_is_one_clear_error(onnx_file: Path, words: list[str]) -> None:
    """Ports out of range, unknown hosts and addresses of other machines are refused."""
    done = run_mrknee("serve", onnx_file, *words)
    assert done.returncode == 1
    assert "can't listen on this address" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unreadable_model_is_reported_before_listening(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A file that is not a model and a missing file give exit status 1 and one error."""
    file = tmp_path / "model.onnx"
    file.write_bytes(b"no model")
    for model in (file, tmp_path / "nowhere"):
        assert main(["serve", str(model), "--port", "0"]) == 1
        output = capfd.readouterr()
        assert output.out == ""
        assert output.err.startswith("mrknee serve: ")
        assert "Traceback" not in output.err


LOADS_NO_TORCH = """
import os, signal, sys, threading, urllib.request
from mrknee.cli import main
from mrknee.server import serving
def ask(self, sockets=None):
    port = sockets[0].getsockname()[1]
    def client():
        for path in ("/", "/upload", "/predict", "/explain"):
            request = urllib.request.Request(f"http://127.0.0.1:{port}{path}")
            if path not in ("/", "/upload"):
                request.data = open(sys.argv[2], "rb").read()
                request.add_header("Content-Type", sys.argv[3])
                request.add_header("Accept", "text/html")
            with urllib.request.urlopen(request) as answer:
                print(path, answer.status, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
    threading.Thread(target=client).start()
    return run(self, sockets)
run, serving._Server.run = serving._Server.run, ask
status = main(["serve", sys.argv[1], "--port", "0"])
heavy = {"torch", "onnx", "sklearn", "timm"} & set(sys.modules)
sys.exit(status or (f"loaded {heavy}" if heavy else 0))
"""


def test_serving_an_exported_model_imports_no_torch(onnx_file: Path, tmp_path: Path) -> None:
    """In a separate process, all responses are computed without importing torch.

    No files are written to the home folder.
    """
    body = tmp_path / "body"
    body.write_bytes(exam_form(random_exam(1)))
    home = tmp_path / "home"
    home.mkdir()
    done = subprocess.run(  # noqa: S603  # our own command
        [sys.executable, "-c", LOADS_NO_TORCH, str(onnx_file), str(body), KIND],
        env={**os.environ, "HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1:] == ["/ 200", "/upload 200", "/predict 200", "/explain 200"]
    assert not list(home.iterdir())


WATCHED = """
import asyncio, os, sys
from pathlib import Path
from opentelemetry import _logs, metrics, trace
calls = []
class Watch:
    def __getattr__(self, name):
        return lambda *a, **k: calls.append(name)
trace.set_tracer_provider(Watch())
metrics.set_meter_provider(Watch())
_logs.set_logger_provider(Watch())
from mrknee.inference.model import load_model
from mrknee.server.app import create_app
from mrknee.server.service import Service
app = create_app(Service(load_model(Path(sys.argv[1])), "m"))
async def ask(path):
    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}
    async def send(message):
        if message["type"] == "http.response.start":
            print(path, message["status"])
    head = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": []}
    await app(head, receive, send)
for path in ("/", "/model", "/nothing"):
    asyncio.run(ask(path))
print("calls", calls)
"""


def test_no_telemetry_is_sent(onnx_file: Path, tmp_path: Path) -> None:
    """Requests are not reported to OpenTelemetry, even if it is configured.

    A service with environment variables for OpenTelemetry starts and connects to no collector.
    """
    command = [sys.executable, "-c", WATCHED, str(onnx_file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.splitlines() == ["/ 200", "/model 200", "/nothing 404", "calls []"]
    with socket.create_server(("127.0.0.1", 0)) as collector:
        address = f"http://127.0.0.1:{collector.getsockname()[1]}"
        asked = {"FASTAPI_OTEL_AUTO_CONFIGURE": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": address}
        with Served(onnx_file, tmp_path, environment=asked) as service:
            assert service.predict(random_exam(1)).status == 200
            assert service.ask("POST", "/predict", form([])).status == 422
            assert service.end() == 0
        collector.settimeout(0.2)
        with pytest.raises(TimeoutError):
            collector.accept()


def test_limits_are_settings(onnx_file: Path, tmp_path: Path) -> None:
    """They apply, and /model states those of a request."""
    words = ("--max-body-mb", "1", "--upload-seconds", "7", "--max-waiting", "2")
    with Served(onnx_file, tmp_path, *words, "--max-connections", "16") as service:
        stated = service.ask("GET", "/model").json["limits"]
        names = ("body_bytes", "upload_seconds", "exams_at_once")
        assert [stated[name] for name in names] == [1_000_000, 7, 2]
        answer = service.predict(random_exam(0, (200, 200, 200)))
        assert answer.status == 413
        assert answer.fault["expected"] == "at most 1,000,000 bytes"
        with ExitStack() as stack:
            for _ in range(40):
                stack.enter_context(socket.create_connection(("127.0.0.1", service.port)))
            assert service.ask("GET", "/health").status == 200
            counted = service.ask("GET", "/metrics").body.decode()
        [line] = [one for one in counted.splitlines() if one.startswith("mrknee_connections ")]
        assert float(line.split()[1]) <= 16
        assert service.end() == 0


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--max-body-mb", "0", "a whole number from 1 to 10,000"),
        ("--max-connections", "2", "a whole number from 8 to 10,000"),
        ("--import-memory-mb", "100", "a whole number from 1,024 to 1,048,576"),
    ],
)
def test_limits_out_of_range_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str, expected: str
) -> None:
    """The message names the option and its range."""
    assert main(["serve", str(tmp_path), option, value]) == 1
    text = capsys.readouterr().err
    assert option in text
    assert expected in text


def test_the_command_has_the_defaults_of_the_service() -> None:
    """The command line states them without importing the service."""
    parameters = signature(serve).parameters
    for name, value in asdict(DEFAULT_LIMITS).items():
        assert parameters[name].default == value, name
