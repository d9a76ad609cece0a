"""Load test of the service: 1 to 32 clients, with and without 8 slow ones.

python benchmarks/serving_load.py MODEL [--seconds 15] [--clients 1 4 8 32] [--slices 61]

Starts `mrknee serve MODEL` at 127.0.0.1 and sends exams of MRNet's size (3 x SLICES slices of
256 x 256, smooth noise) to /predict. Each client sends the next exam when it has received an
answer; after a 503 it waits for the time stated in Retry-After. Slow clients send the beginning of
an exam, then one byte per second, and reconnect when they are disconnected.

Prints a table: numbers of answers and refusals, exams per second, median and 95th percentile of
the duration of answered requests, and the longest duration of /health, which is requested ten
times per second.
"""

from __future__ import annotations

import argparse
import io
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path

import numpy as np

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


class Load:
    """Clients of one service, for a limited time.

    Args:
        port: port of the service on 127.0.0.1.
        body: body of the requests of normal clients.
        seconds: time in seconds after which no new request is sent.
    """

    def __init__(self, port: int, body: bytes, seconds: float) -> None:
        self._port, self._body = port, body
        self._until = time.monotonic() + seconds
        self.answered: list[float] = []
        self.refused = 0
        self.health: list[float] = []

    @property
    def _on(self) -> bool:
        return time.monotonic() < self._until

    def honest(self) -> None:
        """Runs a normal client, which sends one request after another."""
        while self._on:
            began = time.monotonic()
            connection = HTTPConnection("127.0.0.1", self._port, timeout=300)
            try:
                connection.request("POST", "/predict", self._body, {"Content-Type": KIND})
                answer = connection.getresponse()
                answer.read()
                if answer.status == 200:
                    self.answered.append(time.monotonic() - began)
                    continue
                pause = float(answer.headers.get("Retry-After", "1"))
            except OSError:
                pause = 1.0
            finally:
                connection.close()
            self.refused += 1
            time.sleep(pause)

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


def main() -> None:
    """Starts the service, runs the load tests and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 8, 32])
    parser.add_argument("--slices", type=int, default=61)
    given = parser.parse_args()
    body = exam_body(given.slices)
    command = [sys.executable, "-m", "mrknee", "serve", str(given.model), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603
    assert process.stdout is not None
    port = int(process.stdout.readline().strip().rpartition(":")[2])
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    print(f"{os.cpu_count()} cores, load before {load}; {len(body) / 1e6:.1f} MB per exam")
    print("| clients | slow ones | answered | refused | exams/s | median s | 95 % s | /health s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    try:
        for clients in given.clients:
            for slow in (0, SLOW):
                one = Load(port, body, given.seconds)
                began = time.monotonic()
                one.run(clients, slow)
                took = time.monotonic() - began
                half, most = np.quantile(one.answered or [np.nan], (0.5, 0.95))
                print(
                    f"| {clients} | {slow} | {len(one.answered)} | {one.refused} "
                    f"| {len(one.answered) / took:.2f} | {half:.2f} | {most:.2f} "
                    f"| {max(one.health):.2f} |",
                    flush=True,
                )
    finally:
        process.terminate()
        process.wait(300)


if __name__ == "__main__":
    main()
