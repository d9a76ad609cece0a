"""Queue of exams: one is processed at a time, and the number of waiting exams is limited.

Bounds the memory and the waiting time of the service.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect

from mrknee.server.refusal import busy

RETRY_SECONDS = 2
"""`Retry-After` of refused exams and uploads: about the processing time of an exam on two cores."""

Answer = TypeVar("Answer")


class RequestQueue:
    """Processes exams one after the other in a separate thread.

    Used from one event loop, which is not blocked meanwhile.

    Args:
        places: maximum number of received exams: those waiting and the one being processed.
    """

    def __init__(self, places: int) -> None:
        self._places = self._free = places
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reading")
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def taken(self) -> int:
        """Number of exams that are waiting or being processed."""
        return self._places - self._free

    @property
    def full(self) -> bool:
        """Whether the queue accepts no further exam."""
        return self._free == 0

    def refuse_if_full(self) -> None:
        """Refuses a request before its body is received.

        Raises:
            RefusalError: the queue is full.
        """
        if self.full:
            expected = f"at most {self._places} exams waiting or being processed"
            raise busy("the queue of exams is full", expected, RETRY_SECONDS)

    @contextmanager
    def place(self) -> Iterator[None]:
        """Reserves a place for one exam that has been received completely.

        Raises:
            RefusalError: the queue is full.
        """
        self.refuse_if_full()
        self._take()
        try:
            yield
        finally:
            self._release()

    def _take(self) -> None:
        self._free -= 1
        self._idle.clear()

    def _release(self) -> None:
        self._free += 1
        if self._free == self._places:
            self._idle.set()

    def submit(self, work: Callable[[], Answer]) -> Future[Answer]:
        """Runs `work` after all earlier work; it has a place until it ends or is cancelled.

        Raises:
            RefusalError: the queue is full.
        """
        self.refuse_if_full()
        self._take()
        submitted = self._thread.submit(work)
        ended = asyncio.wrap_future(submitted)  # its callbacks run in the event loop
        ended.add_done_callback(lambda _: self._release())
        ended.add_done_callback(retrieve)
        return submitted

    async def process_when_idle(self, work: Callable[[], Answer]) -> Answer:
        """Runs `work` once no request waits or is processed; it takes no place.

        Requests that arrive meanwhile wait for this work at most.
        """
        await self._idle.wait()
        return await asyncio.wrap_future(self._thread.submit(work))

    async def process(
        self, work: Callable[[threading.Event], Answer], disconnected: Awaitable[None]
    ) -> Answer:
        """Runs `work` after all earlier work, unless the client disconnects.

        Args:
            work: receives an event that is set when the client disconnects; may return early then.
            disconnected: completes when the client disconnects.

        Raises:
            ClientDisconnect: the client disconnected. Work that had started has finished.
        """
        abandoned = threading.Event()
        submitted = self._thread.submit(work, abandoned)
        answer = asyncio.wrap_future(submitted)
        leaving: asyncio.Future[Any] = asyncio.ensure_future(disconnected)
        try:
            both: list[asyncio.Future[Any]] = [answer, leaving]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return answer.result()
            abandoned.set()
            if not submitted.cancel():
                await asyncio.wait({answer})
                retrieve(answer)
            raise ClientDisconnect
        finally:
            leaving.cancel()


def retrieve(answer: asyncio.Future[Any]) -> None:
    """Marks the exception of a future as retrieved, which asyncio would otherwise report."""
    if not answer.cancelled():
        answer.exception()
