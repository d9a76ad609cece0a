"""One exam at a time, and so many waiting: what bounds the service's memory and waiting times."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect

from mrknee.web.refusal import busy

PLACES = 8
"""Whole exams at once, at most: waiting, and the one that is read."""

RETRY_SECONDS = 2
"""When one that was turned away may come again: about what an exam takes on two cores."""

Answer = TypeVar("Answer")


class Desk:
    """Where exams are read, in a thread of its own, one after the other.

    Used from one event loop, which goes on answering meanwhile.
    """

    def __init__(self) -> None:
        self._free = PLACES
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reading")

    @property
    def taken(self) -> int:
        """How many exams are waiting or being read."""
        return PLACES - self._free

    @property
    def full(self) -> bool:
        """Whether no exam can be taken now."""
        return self._free == 0

    def refuse_if_full(self) -> None:
        """Turns a request away before its body is received.

        Raises:
            RefusalError: no place is free.
        """
        if self.full:
            expected = f"at most {PLACES} exams waiting and being read"
            raise busy("the service has as many exams as it can take", expected, RETRY_SECONDS)

    @contextmanager
    def place(self) -> Iterator[None]:
        """Takes a place for one exam, all of which has been received.

        Raises:
            RefusalError: none is free.
        """
        self.refuse_if_full()
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1

    async def read(
        self, work: Callable[[threading.Event], Answer], gone: Awaitable[None]
    ) -> Answer:
        """Does the work when all that came before is done, unless the client goes away.

        Args:
            work: gets an event that is set once the client has gone; it may end early then.
            gone: done once the client has gone.

        Raises:
            ClientDisconnect: the client went away. Work that has begun is over.
        """
        ended = threading.Event()
        began = self._thread.submit(work, ended)
        answer = asyncio.wrap_future(began)
        leaving: asyncio.Future[Any] = asyncio.ensure_future(gone)
        try:
            both: list[asyncio.Future[Any]] = [answer, leaving]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return answer.result()
            ended.set()
            if not began.cancel():
                await asyncio.wait({answer})
                answer.exception()  # nobody wants it
            raise ClientDisconnect
        finally:
            leaving.cancel()
