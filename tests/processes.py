"""Processes forked from one that has imported the package and its libraries.

A new interpreter takes some seconds of processor time for these imports. Otherwise the processes
are like those of a user: annotations aren't checked, warnings are no errors, and files are synced.
Only the timing before a training is limited, as in the tests' own processes (`briefly_timed`).
Tests of imports, and of a signal while they run, start an interpreter of their own.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from subprocess import CompletedProcess
from tempfile import TemporaryDirectory

from tests.conftest import limit_timing

PROCESSES = multiprocessing.get_context("forkserver")
# not onnxruntime and OpenVINO, which start threads
PROCESSES.set_forkserver_preload(
    [
        "mrknee.training.run",
        "mrknee.training.arguments",
        "mrknee.library",
        "mrknee.sources.clinical.importing",
        "timm",
        # imported by every training, or by the files of tests that start one
        "scipy.stats",
        "sklearn.metrics",
        "tensorboard.backend.event_processing.event_accumulator",
        "torch.utils.tensorboard",
        "tests.conftest",
    ]
)


def start(
    function: Callable[..., object],
    *arguments: object,
    stdout: Path | str = os.devnull,
    stderr: Path | str = os.devnull,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> BaseProcess:
    """Starts a process that calls a function.

    Args:
        function: a function at module level.
        arguments: its arguments, which are pickled.
        stdout: file that its standard output is appended to.
        stderr: file that its standard error is appended to.
        folder: its working directory.
        environment: variables to set in its environment.
    """
    files = str(stdout), str(stderr)
    place = None if folder is None else str(folder)
    process = PROCESSES.Process(
        target=_call, args=(function, arguments, files, place, dict(environment or {}))
    )
    process.start()
    return process


def until(condition: Callable[[], bool], *processes: BaseProcess) -> None:
    """Waits until a condition holds, and fails if one of the processes ends before."""
    while not condition():
        assert all(process.is_alive() for process in processes)
        time.sleep(0.002)


def _call(
    function: Callable[..., object],
    arguments: tuple[object, ...],
    files: tuple[str, str],
    folder: str | None,
    environment: dict[str, str],
) -> None:
    """Redirects the output of this process and calls the function."""
    for number, file in enumerate(files, start=1):
        opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    if folder is not None:
        os.chdir(folder)
    os.environ.update(environment)
    limit_timing()
    function(*arguments)


def mrknee(*words: object) -> None:
    """Runs `mrknee ...` in this process and ends it with the exit status."""
    from mrknee.__main__ import main

    sys.argv = ["mrknee", *map(str, words)]
    sys.exit(main())


def run(
    function: Callable[..., object], *arguments: object, folder: Path | None = None
) -> CompletedProcess[str]:
    """Calls a function in a process; returns its exit status and its output."""
    with TemporaryDirectory() as here:
        out, err = Path(here, "out"), Path(here, "err")
        process = start(function, *arguments, stdout=out, stderr=err, folder=folder)
        try:
            process.join()
        finally:
            process.kill()
        assert process.exitcode is not None
        return CompletedProcess(
            list(map(str, arguments)), process.exitcode, out.read_text(), err.read_text()
        )


def run_mrknee(*words: object, folder: Path | None = None) -> CompletedProcess[str]:
    """Runs `mrknee ...` in a process; returns its exit status and its output."""
    return run(mrknee, *words, folder=folder)
