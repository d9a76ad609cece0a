"""Work on all cores: fresh processes of one thread each, results as they are done."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context
from typing import TypeVar

from mrknee.ranges import PROCESSES

Task = TypeVar("Task")
Result = TypeVar("Result")

ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def ignore_interrupts(_: int = 0) -> None:
    """Leaves Ctrl-C to the process that started this one; for torch's `worker_init_fn`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def cores() -> int:
    """Cores this process may use; not every system can tell, and then all there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def each(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int
) -> Iterator[Result]:
    """Calls `function` once a task, in processes of their own; yields results as they are done.

    The processes are fresh interpreters (spawn): with one BLAS thread each, sums don't depend on
    the machine. A script calls this under ``if __name__ == "__main__":``.

    Args:
        function: a module's function.
        tasks: what it is called with; tasks and results are pickled.
        workers: how many processes at most.

    Yields:
        Results, in no order.

    Raises:
        MrkneeError: the number of processes is out of range.
    """
    PROCESSES.check("the number of processes", workers)
    if not tasks:
        return
    with (
        _single_threaded(),
        ProcessPoolExecutor(min(workers, len(tasks)), mp_context=get_context("spawn")) as pool,
    ):
        with _signals_held():
            futures = [pool.submit(function, task) for task in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def each_or_here(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    workers: int,
    *,
    isolated: bool = False,
) -> Iterator[Result]:
    """As `each`; but in this process, in order, where there is nothing to share.

    Args:
        function: a module's function.
        tasks: what it is called with.
        workers: how many processes at most.
        isolated: never in this process, which a task might bring down.
    """
    if min(workers, len(tasks)) < 2 and not isolated:
        yield from map(function, tasks)
    else:
        yield from each(function, tasks, workers)


@contextmanager
def _signals_held() -> Iterator[None]:
    """Holds Ctrl-C and SIGTERM back; processes started meanwhile hold them back for good.

    Both reach every process of a group. The one that started the others ends them, after the task
    that each is at: none is left half-done, and none shows a traceback of its own.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _single_threaded() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
