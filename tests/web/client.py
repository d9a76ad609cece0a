"""A real service in a process of its own, and a client that can also misbehave."""

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
"""A field's name, its file's name (None: it is no file), and its content."""


def npy(array: np.ndarray) -> bytes:
    """An array as the bytes of a `.npy` file; objects are pickled."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def form(parts: Sequence[Part]) -> bytes:
    """A form's body, `multipart/form-data`."""
    lines = []
    for name, file, content in parts:
        called = "" if file is None else f'; filename="{file}"'
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{called}\r\n\r\n'
        lines.append(head.encode() + content + b"\r\n")
    return b"".join(lines) + f"--{BOUNDARY}--\r\n".encode()


def exam_form(exam: Exam) -> bytes:
    """An exam as a form with its planes' files, named as a patient's file might be."""
    return form([(p, f"DOE^JANE {p}.npy", npy(np.asarray(s))) for p, s in exam.stacks.items()])


@dataclass(frozen=True)
class Answer:
    """What came back."""

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
        """The fault told, which has all its parts and nothing of the service's insides."""
        content = self.json
        assert set(content) == {"error"}
        assert set(content["error"]) == {"code", "what", "field", "expected", "found", "advice"}
        assert content["error"]["what"]
        for inside in (b"Traceback", b"/tmp", b"mrknee-", b"DOE"):
            assert inside not in self.body
        fault: dict[str, Any] = content["error"]
        return fault


class Served:
    """`mrknee serve MODEL --port 0`, with a folder of its own for temporary files.

    Args:
        model: what to serve.
        folder: where its temporary files, its home and its messages are.
        words: further arguments.
        environment: further variables.
        before: Python that its process runs first.
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
        for made in (self.temporary, self.home):
            made.mkdir(parents=True)
        self._said = folder / "stderr"
        program = f"import sys\n{before}\nfrom mrknee.cli import main\nsys.exit(main())"
        command = [sys.executable, "-W", "error", "-c", program, "serve", str(model), *words]
        own = {"TMPDIR": str(self.temporary), "HOME": str(self.home)}
        with self._said.open("wb") as said:
            self.process = subprocess.Popen(  # noqa: S603  # our own command
                [*command, "--port", "0"],
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                env={**os.environ, **own, **(environment or {})},
            )
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline().strip()
        assert self.line.startswith(f"serving {model} at http://{at}:"), self.said
        self.port = int(self.line.rpartition(":")[2].partition("/")[0])

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        """Ends it hard where a test that failed left it running."""
        if self.process.poll() is None:
            self.process.kill()
            self.end()

    @property
    def said(self) -> str:
        """What it wrote to standard error."""
        return self._said.read_text()

    @property
    def left(self) -> list[Path]:
        """What lies in its temporary folder and its home."""
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
        """Sends one request and waits for the answer."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"Accept": accept, **(headers or {})}
        headers |= {"Content-Type": kind} if body is not None else {}
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return Answer(answer.status, answer.headers, content)

    def predict(self, exam: Exam) -> Answer:
        """Has an exam read."""
        return self.ask("POST", "/predict", exam_form(exam))

    def begin(self, body: bytes) -> Upload:
        """Announces an upload and waits until the service asks for it."""
        return Upload(self.port, body)

    def end(self, with_signal: signal.Signals = signal.SIGTERM) -> int:
        """Tells it to end; its exit status."""
        self.process.send_signal(with_signal)
        status = self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status


class Upload:
    """A request to /predict of which the service has the head and wants the body."""

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
        """Whether the service waits for the body."""
        return self.reply.startswith(b"HTTP/1.1 100 ")

    def send(self, count: int | None = None) -> None:
        """Sends so many bytes of the body, or all that is left."""
        part, self._rest = self._rest[:count], self._rest[len(self._rest[:count]) :]
        self.socket.sendall(part)

    def answer(self) -> bytes:
        """Reads to the end of the connection."""
        found = b""
        while more := self.socket.recv(65536):
            found += more
        self.socket.close()
        return found


def random_exam(seed: int, slices: Sequence[int] = (3, 4, 5)) -> Exam:
    """Noise of 48 x 56 pixels."""
    rng = np.random.default_rng(seed)
    stacks = {
        plane: rng.integers(0, 256, (count, 48, 56)).astype(np.uint8)
        for plane, count in zip(PLANES, slices, strict=True)
    }
    return Exam(f"{seed:04d}", stacks)
