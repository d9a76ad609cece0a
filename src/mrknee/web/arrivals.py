"""Bodies on their way in: how many, how large, how fast; whole ones go on to the desk.

A body that arrives takes no place in the queue, so slow clients keep nobody out of it. Bodies are
spooled to files without a name, which end with the process at the latest.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from tempfile import TemporaryFile
from typing import BinaryIO

from starlette.requests import ClientDisconnect, Request

from mrknee.errors import RequestError
from mrknee.web.desk import RETRY_SECONDS
from mrknee.web.refusal import RefusalError, busy

MAX_BODY_BYTES = 100_000_000
"""A request's body. MRNet's largest exam (3 planes of 61 slices of 256 x 256) has 12 MB in bytes,
96 MB in float64."""

MAX_ARRIVING, MAX_PER_ADDRESS = 64, 32
"""Bodies that arrive at once: from all clients, and from one address."""

MAX_ARRIVING_BYTES = 800_000_000
"""Bytes of all bodies that are arriving: eight of the largest."""

UPLOAD_SECONDS = 60.0
"""How long a body may take to arrive."""

LEAST_RATE, GRACE_SECONDS = 10_000, 5.0
"""Bytes per second that a body must have come with on average, from the fifth second on. A small
exam of 0.5 MB fits into `UPLOAD_SECONDS` at this rate; a client that holds a place of
`MAX_ARRIVING` has to send that much."""

SETTLED_SECONDS = 0.5
"""A body that began so long ago may be given up for another: its rate is known."""

_BUFFER = 262_144  # collected before it is written, so that small parts cost no system call each


@dataclass(eq=False)
class _Arrival:
    """One body: from whom, since when, how much so far, and the time limit it is under."""

    address: str
    began: float
    limit: asyncio.Timeout
    received: int = 0
    given_up: bool = False
    buffer: bytearray = field(default_factory=bytearray)

    def deadline(self) -> float:
        slowest = self.began + GRACE_SECONDS + self.received / LEAST_RATE
        return min(slowest, self.began + UPLOAD_SECONDS)


class Arrivals:
    """The bodies that are arriving; used from one event loop.

    Where there is no room for another, the one that has come slowest is given up for it: at least
    `SETTLED_SECONDS` after its beginning, and of the same address where that has too many.
    """

    def __init__(self) -> None:
        self._all: list[_Arrival] = []

    @property
    def count(self) -> int:
        """How many bodies are arriving."""
        return len(self._all)

    @property
    def received(self) -> int:
        """Bytes of them that are here."""
        return sum(one.received for one in self._all)

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[BinaryIO]:
        """Receives a request's body; it is gone when the context ends.

        Yields:
            The whole body, as a file open at its beginning.

        Raises:
            RefusalError: it is too large or too slow, or there is no room for it.
            ClientDisconnect: the client went away.
        """
        address = request.client.host if request.client else ""
        with TemporaryFile(buffering=0) as file:
            try:
                async with asyncio.timeout(None) as limit:
                    arrival = _Arrival(address, asyncio.get_running_loop().time(), limit)
                    self._admit(arrival)
                    try:
                        await self._receive(request, arrival, file)
                    finally:
                        self._leave(arrival)
            except TimeoutError:
                raise self._too_slow(arrival) from None
            file.seek(0)
            yield file

    def _admit(self, arrival: _Arrival) -> None:
        own = [one for one in self._all if one.address == arrival.address]
        if len(own) >= MAX_PER_ADDRESS:
            self._make_room(own, f"at most {MAX_PER_ADDRESS} uploads at once from one address")
        elif len(self._all) >= MAX_ARRIVING:
            self._make_room(self._all, f"at most {MAX_ARRIVING} uploads at once")
        arrival.limit.reschedule(arrival.deadline())
        self._all.append(arrival)

    def _leave(self, arrival: _Arrival) -> None:
        if not arrival.given_up:
            self._all.remove(arrival)

    def _make_room(self, among: list[_Arrival], expected: str) -> None:
        now = asyncio.get_running_loop().time()
        settled = [one for one in among if now - one.began >= SETTLED_SECONDS]
        if not settled:
            raise busy("the service receives as many uploads as it can", expected, RETRY_SECONDS)
        slowest = min(settled, key=lambda one: one.received / (now - one.began))
        self._leave(slowest)
        slowest.given_up = True
        slowest.limit.reschedule(now)

    async def _receive(self, request: Request, arrival: _Arrival, file: BinaryIO) -> None:
        async for part in _parts(request):
            if arrival.given_up:
                raise TimeoutError
            if arrival.received + len(part) > MAX_BODY_BYTES:
                raise too_large()
            while self.received + len(part) > MAX_ARRIVING_BYTES:
                others = [one for one in self._all if one is not arrival]
                self._make_room(others, f"at most {MAX_ARRIVING_BYTES:,} bytes of uploads")
            arrival.received += len(part)
            arrival.limit.reschedule(arrival.deadline())
            arrival.buffer += part
            if len(arrival.buffer) >= _BUFFER:
                await _write(file, arrival.buffer)
        await _write(file, arrival.buffer)

    def _too_slow(self, arrival: _Arrival) -> RefusalError:
        if arrival.given_up:
            return busy(
                "the upload was given up in favour of faster ones",
                f"at most {MAX_ARRIVING} uploads at once, {MAX_PER_ADDRESS} from one address",
                RETRY_SECONDS,
            )
        fault = RequestError(
            "the exam took too long to arrive",
            code="timeout",
            expected=f"at most {UPLOAD_SECONDS:g} seconds, and {LEAST_RATE:,} bytes per second "
            f"from the first {GRACE_SECONDS:g} seconds on",
        )
        return RefusalError(408, fault)


async def _parts(request: Request) -> AsyncIterator[bytes]:
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        yield message.get("body", b"")
        if not message.get("more_body"):
            return


async def _write(file: BinaryIO, buffer: bytearray) -> None:
    """Writes the buffer in a thread, because a disk may stall, and empties it."""

    def write_all() -> None:
        left = memoryview(bytes(buffer))
        while left:
            left = left[file.write(left) :]

    writing = asyncio.create_task(asyncio.to_thread(write_all))
    try:
        await asyncio.shield(writing)
    finally:
        if not writing.done():  # given up: the file may be closed only when nobody writes to it
            await asyncio.wait({writing})
    buffer.clear()


def too_large() -> RefusalError:
    """413, for a body of more than `MAX_BODY_BYTES`."""
    fault = RequestError(
        "the upload is too large",
        code="too-large",
        expected=f"at most {MAX_BODY_BYTES:,} bytes",
        advice="send stacks of uint8, as MRNet has them",
    )
    return RefusalError(413, fault)
