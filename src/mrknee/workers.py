"""Parallel processing in single-threaded worker processes."""

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

_THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def ignore_interrupts(_: int = 0) -> None:
    """Ignores Ctrl-C, which the parent process handles; for torch's `worker_init_fn`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def cores() -> int:
    """Returns the number of cores that this process may use, or of all cores if unknown."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def map_in_processes(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int
) -> Iterator[Result]:
    """Calls `function` once per task in worker processes; yields results as they complete.

    The processes are new interpreters (spawn) with one BLAS thread each, so that sums don't depend
    on the machine. Scripts must call this under ``if __name__ == "__main__":``.

    Args:
        function: a function at module level.
        tasks: arguments of the calls; tasks and results are pickled.
        workers: maximum number of processes.

    Yields:
        Results, in any order.

    Raises:
        SettingsError: the number of processes is out of range.
    """
    PROCESSES.check("the number of processes", workers)
    if not tasks:
        return
    with (
        _single_threaded(),
        ProcessPoolExecutor(min(workers, len(tasks)), mp_context=get_context("spawn")) as pool,
    ):
        with _signals_blocked():
            futures = [pool.submit(function, task) for task in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def map_tasks(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    workers: int,
    *,
    isolated: bool = False,
) -> Iterator[Result]:
    """Calls `function` once per task, in this process if one worker suffices.

    Args:
        function: a function at module level.
        tasks: arguments of the calls.
        workers: maximum number of processes.
        isolated: always use worker processes, because a task might crash its process.
    """
    if min(workers, len(tasks)) < 2 and not isolated:
        yield from map(function, tasks)
    else:
        yield from map_in_processes(function, tasks, workers)


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Blocks SIGINT and SIGTERM; processes that are started meanwhile block them permanently.

    Both signals reach every process of a group. Only the parent handles them and ends the workers
    after their current task, so that no task is left half-done and no worker prints a traceback.
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
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
