"""A service in a separate process, and a client that can also violate the protocol."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPMessage
from pathlib import Path
from typing import Any

import numpy as np

from mrknee.exams import PLANES, Exam

BOUNDARY = "an-edge-between-parts"
KIND = f"multipart/form-data; boundary={BOUNDARY}"

NO_POINT = "no exam has the finding"

Part = tuple[str, str | None, bytes]
"""Field name, file name (None: a text field), and content."""


def npy(array: np.ndarray) -> bytes:
    """Returns an array as the bytes of a `.npy` file; objects are pickled."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def form(parts: Sequence[Part]) -> bytes:
    """Returns the body of a form, `multipart/form-data`."""
    lines = []
    for name, file, content in parts:
        called = "" if file is None else f'; filename="{file}"'
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{called}\r\n\r\n'
        lines.append(head.encode() + content + b"\r\n")
    return b"".join(lines) + f"--{BOUNDARY}--\r\n".encode()


def exam_form(exam: Exam) -> bytes:
    """Returns the form of an exam; the file names contain a patient's name."""
    return form([(p, f"DOE^JANE {p}.npy", npy(np.asarray(s))) for p, s in exam.stacks.items()])


@dataclass(frozen=True)
class Answer:
    """A response."""

    status: int
    headers: HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401  # JSON
        """The body, parsed."""
        assert self.headers["Content-Type"] == "application/json"
        return json.loads(self.body)

    @property
    def fault(self) -> dict[str, Any]:
        """The error, checked to have all its parts and to contain no internals of the service."""
        content = self.json
        assert set(content) == {"error"}
        assert set(content["error"]) == {"code", "what", "field", "expected", "found", "advice"}
        assert content["error"]["what"]
        for inside in (b"Traceback", b"/tmp", b"mrknee-", b"DOE"):
            assert inside not in self.body
        fault: dict[str, Any] = content["error"]
        return fault


class Served:
    """`mrknee serve MODEL --port 0`, with a separate folder for temporary files.

    Args:
        model: the model to serve.
        folder: contains its temporary files, its home folder and its standard error.
        words: additional arguments.
        environment: additional environment variables.
        before: Python code that its process runs first.
        at: the address in the line that it prints.
    """

    def __init__(
        self,
        model: Path,
        folder: Path,
        *words: str,
        environment: Mapping[str, str] | None = None,
        before: str = "",
        at: str = "127.0.0.1",
    ) -> None:
        self.temporary, self.home = folder / "temporary", folder / "home"
        for path in (self.temporary, self.home):
            path.mkdir(parents=True)
        self._stderr = folder / "stderr"
        program = f"import sys\n{before}\nfrom mrknee.cli import main\nsys.exit(main())"
        command = [sys.executable, "-W", "error", "-c", program, "serve", str(model), *words]
        own = {"TMPDIR": str(self.temporary), "HOME": str(self.home)}
        with self._stderr.open("wb") as stderr:
            self.process = subprocess.Popen(  # noqa: S603  # our own command
                [*command, "--port", "0"],
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env={**os.environ, **own, **(environment or {})},
            )
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline().strip()
        assert self.line.startswith(f"serving {model} at http://{at}:"), self.stderr
        self.port = int(self.line.rpartition(":")[2].partition("/")[0])

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        """Kills the process if a failed test left it running."""
        if self.process.poll() is None:
            self.process.kill()
            self.end()

    @property
    def stderr(self) -> str:
        """Its standard error."""
        return self._stderr.read_text()

    @property
    def left(self) -> list[Path]:
        """Files in its temporary folder and its home folder."""
        return [*self.temporary.rglob("*"), *self.home.rglob("*")]

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        kind: str = KIND,
        accept: str = "*/*",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Sends one request and waits for the response."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"Accept": accept, **(headers or {})}
        headers |= {"Content-Type": kind} if body is not None else {}
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return Answer(answer.status, answer.headers, content)

    def predict(self, exam: Exam) -> Answer:
        """Sends an exam to /predict."""
        return self.ask("POST", "/predict", exam_form(exam))

    def begin(self, body: bytes) -> Upload:
        """Sends the head of an upload and waits until the service asks for the body."""
        return Upload(self.port, body)

    def end(self, with_signal: signal.Signals = signal.SIGTERM) -> int:
        """Sends a signal, waits for the end, and returns the exit status."""
        self.process.send_signal(with_signal)
        status = self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status


class Upload:
    """A request to /predict whose head has been sent, but not its body."""

    def __init__(self, port: int, body: bytes) -> None:
        self._rest = body
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        head = (
            f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {KIND}\r\n"
            f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
        )
        self.socket.sendall(head.encode())
        self.reply = self.socket.recv(65536)

    @property
    def wanted(self) -> bool:
        """Whether the service asked for the body."""
        return self.reply.startswith(b"HTTP/1.1 100 ")

    def send(self, count: int | None = None) -> None:
        """Sends the given number of bytes of the body, or the rest."""
        part, self._rest = self._rest[:count], self._rest[len(self._rest[:count]) :]
        self.socket.sendall(part)

    def answer(self) -> bytes:
        """Reads until the connection is closed."""
        found = b""
        while more := self.socket.recv(65536):
            found += more
        self.socket.close()
        return found


def random_exam(seed: int, slices: Sequence[int] = (3, 4, 5)) -> Exam:
    """Returns an exam of noise of 48 x 56 pixels."""
    rng = np.random.default_rng(seed)
    stacks = {
        plane: rng.integers(0, 256, (count, 48, 56)).astype(np.uint8)
        for plane, count in zip(PLANES, slices, strict=True)
    }
    return Exam(f"{seed:04d}", stacks)
