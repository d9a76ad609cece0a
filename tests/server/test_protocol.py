"""Limits of connections: slow, malformed, numerous and disconnected clients on real sockets."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import h11
import pytest

from mrknee.server.limits import DEFAULT_LIMITS
from mrknee.server.protocol import FREE_PARTS, MEAN_PART_BYTES, CheckedConnection
from tests.server.client import KIND, Served, exam_form, random_exam

pytestmark = pytest.mark.slow

POST = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {KIND}\r\n"


@contextmanager
def connected(served: Served) -> Iterator[socket.socket]:
    """Opens a separate connection."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=60) as connection:
        yield connection


def read_all(connection: socket.socket) -> bytes:
    """Reads until the connection is closed."""
    found = b""
    while more := connection.recv(65536):
        found += more
    return found


def refused(answer: bytes) -> tuple[int, str]:
    """Returns status and `found` of an error response, and checks its documented format."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"\r\nconnection: close" in head.lower()
    assert b"\r\nx-request-id: " in head.lower()
    assert b"\r\ncache-control: no-store" in head.lower()
    fault = json.loads(body)["error"]
    assert set(fault) == {"code", "what", "field", "expected", "found", "advice"}
    return int(head.split()[1]), fault["found"]


@pytest.mark.parametrize(
    ("sent", "found"),
    [
        (POST + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", "both Content-Length and"),  # noqa: E501
        (POST + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", "both Content-Length and"),  # noqa: E501
        (POST.replace("HTTP/1.1", "HTTP/1.0") + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.0"),  # noqa: E501
        (POST + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", "Content-Length"),
        (POST + "Content-Length: -1\r\n\r\n", "Content-Length"),
        (POST + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "Transfer-Encoding"),
        (POST + "Transfer-Encoding: chunked\r\n\r\nhello\r\n", ""),
        (POST + "Transfer-Encoding : chunked\r\n\r\n", ""),
        ("GET /health HTTP/1.1\r\n\r\n", "Host"),
        ("GET /health HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", "Host"),
        ("GET\r\n\r\n", ""),
        ("\x16\x03\x01\x02\x00\x01", ""),
        ("GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + "x" * 70_000, "too long"),
        ("GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + "x" * 33_000 + "\r\n\r\n", "32,768"),
        ("GET /health HTTP/1.1\r\nHost: localhost\r\n" + "X: x\r\n" * 9_000 + "\r\n", "32,768"),
    ],
)  # fmt: skip
def test_malformed_http_closes_the_connection(served: Served, sent: str, found: str) -> None:
    """One error response is sent, then the connection is closed; the rest is not parsed."""
    with connected(served) as connection:
        connection.sendall(sent.encode("latin-1"))
        answer = read_all(connection)
    assert answer.count(b"HTTP/1.1 ") == 1
    status, reason = refused(answer)
    assert status in (400, 431, 501)
    assert found.lower() in reason.lower()
    assert "bytearray" not in reason


def test_many_tiny_chunks_are_refused_early(served: Served) -> None:
    """Of 20,000 chunks of one byte, the connection accepts the free thousand."""
    with connected(served) as connection:
        connection.sendall(f"{POST}Transfer-Encoding: chunked\r\n\r\n".encode())
        connection.sendall(b"1\r\nx\r\n" * 20_000)
        status, found = refused(read_all(connection))
    assert status == 400
    assert "parts" in found


@pytest.mark.parametrize(("size", "whole"), [(1, False), (MEAN_PART_BYTES // 2, False), (MEAN_PART_BYTES, True)])  # fmt: skip # noqa: E501
def test_parts_are_limited_by_their_mean_size(size: int, whole: bool) -> None:
    """The mean size is limited after the free parts, separately for each request."""
    connection = CheckedConnection()
    for _ in range(2 if whole else 1):
        connection.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert isinstance(connection.next_event(), h11.Request)
        chunk = b"%x\r\n%s\r\n" % (size, b"x" * size)
        count = 0
        try:
            for count in range(300 * FREE_PARTS):  # checked below
                connection.receive_data(chunk)
                assert isinstance(connection.next_event(), h11.Data)
                if whole and count > 2 * FREE_PARTS:
                    break
        except h11.RemoteProtocolError:
            assert not whole
        assert count >= FREE_PARTS
        if not whole:
            return
        connection.receive_data(b"0\r\n\r\n")
        assert isinstance(connection.next_event(), h11.EndOfMessage)
        connection.send(h11.Response(status_code=204, headers=[]))
        connection.send(h11.EndOfMessage())
        connection.start_next_cycle()


def test_slow_uploads_do_not_block_others(served: Served) -> None:
    """Exams are accepted while forty slow clients are uploading."""
    head = f"{POST}Content-Length: 90000000\r\n\r\n".encode() + exam_form(random_exam(1))[:200]
    with ExitStack() as stack:
        slow = [stack.enter_context(connected(served)) for _ in range(40)]
        for connection in slow:
            connection.sendall(head)
        deadline = time.monotonic() + 60
        while served.predict(random_exam(1)).status != 200:  # until the slowest may be given up
            assert time.monotonic() < deadline
        for _ in range(10):
            assert served.predict(random_exam(1)).status == 200
        given_up = slow[0].recv(65536)
        assert given_up.startswith((b"HTTP/1.1 503", b"HTTP/1.1 408"))


@pytest.fixture(scope="module")
def hasty(onnx_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service with short time limits."""
    patch = (
        "from mrknee.server import protocol, arrivals\n"
        "protocol.HEAD_SECONDS = protocol.SEND_SECONDS = 1.0\n"
        "arrivals.GRACE_SECONDS = 1.0\n"
    )
    with Served(onnx_file, tmp_path_factory.mktemp("hasty"), before=patch) as service:
        yield service


def test_slow_clients_are_disconnected(hasty: Served) -> None:
    """Heads, bodies, the rest of refused bodies and idle connections have time limits."""
    with ExitStack() as stack:
        idle, head, body, refused_body = (stack.enter_context(connected(hasty)) for _ in range(4))
        head.sendall(b"GET /health HTT")
        body.sendall(f"{POST}Content-Length: 90000000\r\n\r\n--".encode())
        wrong = POST.replace("multipart", "other")
        refused_body.sendall(f"{wrong}Content-Length: 90000000\r\n\r\n--".encode())
        assert refused_body.recv(65536).startswith(b"HTTP/1.1 415")
        assert refused(read_all(head)) == (408, "a head that takes longer than 1 seconds")
        assert body.recv(65536).startswith(b"HTTP/1.1 408")
        for connection in (idle, refused_body):
            with suppress(ConnectionResetError):
                read_all(connection)


def test_clients_that_do_not_read_are_disconnected(hasty: Served) -> None:
    """A client that sends requests and never reads is disconnected after the time limit."""
    with connected(hasty) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        asked = b"GET /model HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1_000_000
        with pytest.raises(ConnectionError):
            connection.sendall(asked)
    assert hasty.ask("GET", "/health").status == 200


def test_health_responds_with_any_number_of_connections(served: Served) -> None:
    """Above the limit, each new connection replaces the one that has waited longest."""
    with ExitStack() as stack:
        many = [
            stack.enter_context(connected(served))
            for _ in range(DEFAULT_LIMITS.max_connections + 20)
        ]
        for connection in many:
            with suppress(OSError):  # ended already
                connection.sendall(b"GET /he")
        for _ in range(3):
            assert served.ask("GET", "/health").status == 200
            assert served.predict(random_exam(1)).status == 200
        counted = served.ask("GET", "/metrics").body.decode()
        [open_now] = [x for x in counted.splitlines() if x.startswith("mrknee_connections ")]
        assert float(open_now.split()[1]) <= DEFAULT_LIMITS.max_connections
        with suppress(ConnectionResetError):
            assert many[0].recv(10) == b""


def test_a_body_is_limited_by_minimum_rate_and_maximum_time() -> None:
    """The deadline grows with the bytes received, up to the maximum time."""
    from mrknee.server import arrivals

    async def arrive() -> arrivals._Arrival:
        limit, seconds = asyncio.timeout(None), DEFAULT_LIMITS.upload_seconds
        return arrivals._Arrival("", began=100.0, limit=limit, seconds=seconds)

    arrival = asyncio.run(arrive())
    assert arrival.deadline() == 100.0 + arrivals.GRACE_SECONDS
    arrival.received = 5 * arrivals.LEAST_RATE
    assert arrival.deadline() == 100.0 + arrivals.GRACE_SECONDS + 5
    arrival.received = DEFAULT_LIMITS.body_bytes
    assert arrival.deadline() == 100.0 + DEFAULT_LIMITS.upload_seconds
