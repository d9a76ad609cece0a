"""Load test of the service: 1 to 32 clients, with and without 8 slow ones.

    python benchmarks/serving_load.py MODEL [--seconds 60] [--clients 1 8 32] [--slices 61]
    python benchmarks/serving_load.py MODEL --exams 20

Starts `mrknee serve MODEL` at 127.0.0.1 and sends exams of MRNet's size (3 x SLICES slices of
256 x 256, smooth noise) to /predict. Each client sends the next exam when it has received an
answer; after a 429 or 503 it waits for the time stated in Retry-After. Slow clients send the
beginning of an exam, then one byte per second, and reconnect when they are disconnected.

With `--exams N`, clients open N exams of a work list instead, as the reading room's page does: the
list, the exam, its stacks, the explanation, and the heat maps of one finding. Each opening
counts as one answer.

Prints a table: numbers of answers, refusals (429, 503) and errors (everything else), answers per
second, median and 99th percentile of their duration, the longest duration of /health, which is
requested ten times per second, and the memory of the service (RSS) after the row.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from gzip import decompress as gunzip
from http.client import HTTPConnection
from pathlib import Path

import numpy as np

from mrknee.exams import PLANES, write_stack

SLOW = 8
EDGE = "edge"
KIND = f"multipart/form-data; boundary={EDGE}"


def exam_body(slices: int) -> bytes:
    """Returns the body of a form with three stacks."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(0)
    parts = []
    for plane in ("axial", "coronal", "sagittal"):
        noise = gaussian_filter(rng.normal(size=(slices, 256, 256)), (0, 3, 3))
        stack = ((noise - noise.min()) / (noise.max() - noise.min()) * 255).astype(np.uint8)
        file = io.BytesIO()
        np.save(file, stack)
        head = f'--{EDGE}\r\nContent-Disposition: form-data; name="{plane}"; filename="x"\r\n\r\n'
        parts.append(head.encode() + file.getvalue() + b"\r\n")
    return b"".join(parts) + f"--{EDGE}--\r\n".encode()


def write_exams(root: Path, count: int, shape: tuple[int, int, int]) -> None:
    """Writes exams of smooth noise to the split valid."""
    rng = np.random.default_rng(0)
    for number, plane in itertools.product(range(count), PLANES):
        coarse = rng.integers(0, 256, (shape[0], shape[1] // 8, shape[2] // 8))
        large = coarse.repeat(8, axis=1).repeat(8, axis=2) + rng.normal(0, 4, shape)
        write_stack(root / "valid", plane, f"{number:05d}", np.clip(large, 0, 255).astype(np.uint8))


def wait_until_scored(port: int) -> None:
    """Waits until the work list is scored."""
    while True:
        client = Client(port)
        progress = json.loads(client.ask("GET", "/api/v1/progress"))
        client.close()
        if progress["scored"] + progress["failed"] == progress["total"]:
            return
        time.sleep(1)


def upload(body: bytes, client: Client, _: int) -> None:
    """Sends an exam to /predict."""
    client.ask("POST", "/predict", body)


class RefusalError(Exception):
    """The service was busy."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"retry after {seconds:g} s")
        self.seconds = seconds


class Client:
    """A client with a connection per visit.

    Args:
        port: port of the service on 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=300)

    def ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Sends a request and returns the body of the answer.

        Raises:
            RefusalError: 429 or 503.
            OSError: any other status, or no answer.
        """
        headers = {} if body is None else {"Content-Type": KIND}
        headers["Accept-Encoding"] = "gzip"
        self._connection.request(method, path, body, headers)
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status in (429, 503):
            raise RefusalError(float(answer.headers["Retry-After"]))
        if answer.status != 200:
            raise OSError(f"status {answer.status} of {path}")
        return gunzip(content) if answer.headers.get("Content-Encoding") == "gzip" else content

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()


def open_exam(client: Client, number: int) -> None:
    """Requests what the page shows of an exam of the work list."""
    rows = json.loads(client.ask("GET", "/api/v1/exams?limit=100"))["exams"]
    place = "/api/v1/exams/" + rows[number % len(rows)]["key"]
    exam = json.loads(client.ask("GET", place))
    explanation = json.loads(client.ask("GET", place + "/explanation"))
    finding = next(iter(explanation["findings"]))
    for series in exam["series"]:
        client.ask("GET", f"/api/v1/stacks/{series['sha256']}")
        client.ask("GET", f"{place}/heat/{series['name']}/{finding}")


class Load:
    """Clients of one service, for a limited time.

    Args:
        port: port of the service on 127.0.0.1.
        body: body of an upload, which slow clients send slowly.
        seconds: time in seconds after which no new request is sent.
        visit: what a normal client does again and again, given the number of the visit.
    """

    def __init__(
        self, port: int, body: bytes, seconds: float, visit: Callable[[Client, int], object]
    ) -> None:
        self._port, self._body, self._visit = port, body, visit
        self._until = time.monotonic() + seconds
        self._numbers = itertools.count()
        self.answered: list[float] = []
        self.refused = 0
        self.errors: list[OSError] = []
        self.health: list[float] = []

    @property
    def _on(self) -> bool:
        return time.monotonic() < self._until

    def honest(self) -> None:
        """Runs a normal client, which makes one visit after another."""
        while self._on:
            began = time.monotonic()
            client = Client(self._port)
            try:
                self._visit(client, next(self._numbers))
                self.answered.append(time.monotonic() - began)
            except RefusalError as refusal:
                self.refused += 1
                time.sleep(refusal.seconds)
            except OSError as error:
                self.errors.append(error)
                time.sleep(1)
            finally:
                client.close()

    def slow(self) -> None:
        """Runs a slow client, which sends one byte per second."""
        head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {KIND}\r\n"
        begin = f"{head}Content-Length: {len(self._body)}\r\n\r\n".encode() + self._body[:200]
        while self._on:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self._port)) as sending:
                sending.sendall(begin)
                while self._on:
                    time.sleep(1)
                    sending.sendall(b"x")

    def watch(self) -> None:
        """Requests /health repeatedly and records the durations."""
        while self._on:
            began = time.monotonic()
            connection = HTTPConnection("127.0.0.1", self._port, timeout=300)
            connection.request("GET", "/health")
            assert connection.getresponse().read() == b'{"status":"ok"}'
            connection.close()
            self.health.append(time.monotonic() - began)
            time.sleep(0.1)

    def run(self, clients: int, slow: int) -> None:
        """Runs all clients concurrently until they have finished."""
        work = [self.watch] + [self.slow] * slow + [self.honest] * clients
        threads = [threading.Thread(target=one) for one in work]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def memory_mb(pid: int) -> float:
    """Returns the memory of a process, in MB (RSS)."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024


@contextmanager
def serving(model: Path, *words: str) -> Iterator[tuple[int, int]]:
    """Runs `mrknee serve` and yields its port and process."""
    command = [sys.executable, "-m", "mrknee", "serve", str(model), "--port", "0", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline().strip().rpartition(":")[2]), process.pid
    finally:
        process.terminate()
        process.wait(300)


def main() -> None:
    """Starts the service, runs the load tests and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--slices", type=int, default=61)
    parser.add_argument("--exams", type=int, help="open exams of a work list of this length")
    given = parser.parse_args()
    body = exam_body(given.slices)
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    with tempfile.TemporaryDirectory() as folder:
        words: list[str] = []
        visit: Callable[[Client, int], object] = partial(upload, body)
        if given.exams:
            write_exams(Path(folder) / "exams", given.exams, (given.slices, 256, 256))
            words, visit = ["--exams", str(Path(folder) / "exams")], open_exam
        with serving(given.model, *words) as (port, pid):
            if given.exams:
                wait_until_scored(port)
            print(f"{os.cpu_count()} cores, load before {load}; {len(body) / 1e6:.1f} MB per exam")
            print(
                "| clients | slow clients | answered | refused | errors | per s | median s |",
                end="",
            )
            print(" 99 % s | /health s | memory MB |")
            print("| " + " | ".join(["---"] * 10) + " |")
            for clients in given.clients:
                for slow in (0, SLOW):
                    one = Load(port, body, given.seconds, visit)
                    began = time.monotonic()
                    one.run(clients, slow)
                    took = time.monotonic() - began
                    half, most = np.quantile(one.answered or [np.nan], (0.5, 0.99))
                    print(
                        f"| {clients} | {slow} | {len(one.answered)} | {one.refused} "
                        f"| {len(one.errors)} | {len(one.answered) / took:.2f} | {half:.2f} "
                        f"| {most:.2f} | {max(one.health):.2f} | {memory_mb(pid):.0f} |",
                        flush=True,
                    )
                    for error in one.errors[:3]:
                        print(repr(error))


if __name__ == "__main__":
    main()
