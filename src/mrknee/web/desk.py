"""One exam at a time, and so many waiting: what bounds the service's memory and patience."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from mrknee.errors import MrkneeError
from mrknee.web.refusal import RefusalError

PLACES = 8
"""Exams in the house at once, at most: on their way in, waiting, and the one that is read."""

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

    @contextmanager
    def place(self) -> Iterator[None]:
        """Takes a place for one exam, before anything of it is received.

        Raises:
            RefusalError: none is free.
        """
        if self._free == 0:
            fault = MrkneeError(
                "the service has its hands full",
                expected=f"at most {PLACES} exams at once",
                advice=f"send it again in {RETRY_SECONDS} seconds",
            )
            raise RefusalError(503, fault, headers={"Retry-After": str(RETRY_SECONDS)})
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1

    async def read(self, work: Callable[[], Answer]) -> Answer:
        """Does the work when all that came before is done."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
