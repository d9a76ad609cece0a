"""Request bodies being received: limits on their number, size and rate.

A body occupies no place in the request queue until it has been received completely, so slow
clients don't block others. Bodies are spooled to unnamed temporary files, which the system removes
at the latest when the process ends.
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
from mrknee.server.limits import ServiceLimits
from mrknee.server.refusal import RefusalError, busy
from mrknee.server.request_queue import RETRY_SECONDS

MAX_ARRIVING, MAX_PER_ADDRESS = 64, 32
"""Maximum number of bodies received at once: in total, and per client address."""

LEAST_RATE, GRACE_SECONDS = 10_000, 5.0
"""Minimum mean rate of a body in bytes per second, and the time before it applies. At this rate a
small exam of 0.5 MB is received within the default of a minute, and a client must keep sending to
occupy one of the `MAX_ARRIVING` places."""

SETTLED_SECONDS = 0.5
"""Minimum age of an upload that is aborted in favour of another: its rate must be known."""

_BUFFER = 262_144  # bytes collected per write, so that small parts don't cost a system call each


@dataclass(eq=False)
class _Arrival:
    """One body being received.

    Attributes:
        address: address of the client.
        began: start, by the clock of the event loop.
        limit: time limit of the transfer.
        seconds: maximum duration of the transfer.
        received: bytes received so far.
        given_up: whether the upload was aborted in favour of another.
        buffer: bytes that have not been written yet.
    """

    address: str
    began: float
    limit: asyncio.Timeout
    seconds: float
    received: int = 0
    given_up: bool = False
    buffer: bytearray = field(default_factory=bytearray)

    def deadline(self) -> float:
        slowest = self.began + GRACE_SECONDS + self.received / LEAST_RATE
        return min(slowest, self.began + self.seconds)


class Arrivals:
    """The bodies being received; used from one event loop.

    If a limit is reached, the upload with the lowest mean rate is aborted in favour of the new one.
    Only uploads older than `SETTLED_SECONDS` are aborted; if the limit per address is reached, only
    those of the same address.

    Args:
        limits: limits of the service.
    """

    def __init__(self, limits: ServiceLimits) -> None:
        self.limits = limits
        self._all: list[_Arrival] = []

    @property
    def count(self) -> int:
        """Number of bodies being received."""
        return len(self._all)

    @property
    def received(self) -> int:
        """Number of bytes received of these bodies."""
        return sum(one.received for one in self._all)

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[BinaryIO]:
        """Receives a request body; its file is removed when the context ends.

        Yields:
            The complete body, as a file open at its beginning.

        Raises:
            RefusalError: the body is too large or too slow, or too many are being received.
            ClientDisconnect: the client disconnected.
        """
        address = request.client.host if request.client else ""
        with TemporaryFile(buffering=0) as file:
            try:
                async with asyncio.timeout(None) as limit:
                    began = asyncio.get_running_loop().time()
                    arrival = _Arrival(address, began, limit, self.limits.upload_seconds)
                    self._admit(arrival)
                    try:
                        await self._receive(request, arrival, file)
                    finally:
                        self._remove(arrival)
            except TimeoutError:
                raise self._timeout_refusal(arrival) from None
            file.seek(0)
            yield file

    def _admit(self, arrival: _Arrival) -> None:
        own = [one for one in self._all if one.address == arrival.address]
        if len(own) >= MAX_PER_ADDRESS:
            self._abort_slowest(own, f"at most {MAX_PER_ADDRESS} uploads at once from one address")
        elif len(self._all) >= MAX_ARRIVING:
            self._abort_slowest(self._all, f"at most {MAX_ARRIVING} uploads at once")
        arrival.limit.reschedule(arrival.deadline())
        self._all.append(arrival)

    def _remove(self, arrival: _Arrival) -> None:
        if not arrival.given_up:
            self._all.remove(arrival)

    def _abort_slowest(self, among: list[_Arrival], expected: str) -> None:
        now = asyncio.get_running_loop().time()
        settled = [
            one for one in among if now - one.began >= SETTLED_SECONDS and not one.limit.expired()
        ]
        if not settled:
            raise busy("too many uploads are in progress", expected, RETRY_SECONDS)
        slowest = min(settled, key=lambda one: one.received / (now - one.began))
        self._remove(slowest)
        slowest.given_up = True
        slowest.limit.reschedule(now)

    async def _receive(self, request: Request, arrival: _Arrival, file: BinaryIO) -> None:
        async for part in parts_of(request):
            if arrival.given_up:
                raise TimeoutError
            if arrival.received + len(part) > self.limits.body_bytes:
                raise too_large(self.limits)
            while self.received + len(part) > self.limits.arriving_bytes:
                others = [one for one in self._all if one is not arrival]
                at_most = f"at most {self.limits.arriving_bytes:,} bytes of uploads"
                self._abort_slowest(others, at_most)
            arrival.received += len(part)
            arrival.limit.reschedule(arrival.deadline())
            arrival.buffer += part
            if len(arrival.buffer) >= _BUFFER:
                await _write(file, arrival.buffer)
        await _write(file, arrival.buffer)

    def _timeout_refusal(self, arrival: _Arrival) -> RefusalError:
        if arrival.given_up:
            return busy(
                "the upload was aborted in favour of faster ones",
                f"at most {MAX_ARRIVING} uploads at once, {MAX_PER_ADDRESS} from one address",
                RETRY_SECONDS,
            )
        fault = RequestError(
            "the upload took too long",
            code="timeout",
            expected=f"at most {self.limits.upload_seconds} seconds, and {LEAST_RATE:,} bytes per "
            f"second after the first {GRACE_SECONDS:g} seconds",
        )
        return RefusalError(408, fault)


async def parts_of(request: Request) -> AsyncIterator[bytes]:
    """Yields the parts of a request's body as they arrive.

    Raises:
        ClientDisconnect: the client disconnected.
    """
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        yield message.get("body", b"")
        if not message.get("more_body"):
            return


async def _write(file: BinaryIO, buffer: bytearray) -> None:
    """Writes the buffer in a thread, because the disk may block, and clears the buffer."""

    def write_all() -> None:
        left = memoryview(bytes(buffer))
        while left:
            left = left[file.write(left) :]

    writing = asyncio.create_task(asyncio.to_thread(write_all))
    try:
        await asyncio.shield(writing)
    finally:
        if not writing.done():  # cancelled: the file must not be closed during the write
            await asyncio.wait({writing})
    buffer.clear()


def too_large(limits: ServiceLimits) -> RefusalError:
    """Returns a 413 refusal for a body of more than the service accepts."""
    fault = RequestError(
        "the upload is too large",
        code="too-large",
        expected=f"at most {limits.body_bytes:,} bytes",
        advice="send stacks of uint8, as in MRNet",
    )
    return RefusalError(413, fault)
