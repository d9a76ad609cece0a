"""Running out of memory: an error with advice, or a report at the next start.

Linux kills a process that uses too much memory with SIGKILL, so it can't print an error. Therefore
the run folder contains a marker, `.running`, while a start of the run is active. A marker left over
shows the next start that the last one was killed.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mrknee.errors import MrkneeError, PlatformError
from mrknee.files import write_text
from mrknee.run_folder import RunFolder
from mrknee.training.recipe import Recipe
from mrknee.untrusted import read_json

_OUT_OF_MEMORY = re.compile(
    r"can't allocate memory|out of memory|bad_alloc|cannot allocate memory|"
    r"std::length_error|could not create a memory object",
    re.IGNORECASE,
)
"""Messages of RuntimeErrors from torch, CUDA, oneDNN and C++ when memory ran out."""

_WORKER_KILLED = re.compile(
    r"DataLoader worker \(pid.*\) (is killed by signal|exited unexpectedly)"
)
"""Message of torch when the system has killed a worker process of a data loader."""


def memory_advice(recipe: Recipe) -> str:
    """Returns advice: settings that reduce memory, most effective first, with current values."""
    advice = []
    if recipe.network.batchnorm == "frozen":
        slices = recipe.slices_at_once
        if slices == 0 or slices > 4:
            advice.append(f"--slices_at_once 4 (is {slices or '0, all'})")
        elif slices == -1:
            advice.append("--slices_at_once 2 (is -1, automatic)")
    if recipe.batch_exams > 1:
        advice.append(
            f"--batch_exams 1 with --accumulate {recipe.batch_exams * recipe.accumulate} "
            f"(is {recipe.batch_exams} with {recipe.accumulate}) for the same optimizer steps"
        )
    if recipe.workers != 0:
        advice.append(f"--workers 0 (is {recipe.workers})")
    advice.append(f"a smaller network.encoder (is {recipe.network.encoder})")
    return "reduce memory use with " + ", or ".join(advice) + "; or use a machine with more memory"


@contextmanager
def convert_memory_errors(recipe: Recipe) -> Iterator[None]:
    """Converts out-of-memory errors of Python, torch and CUDA to one error with advice.

    Raises:
        MrkneeError: memory ran out, or the system killed a process that reads exams.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        text = str(error)
        if isinstance(error, RuntimeError) and (match := _WORKER_KILLED.search(text)):
            raise PlatformError(
                "the system killed a process that reads exams, most likely because memory ran out",
                code="memory",
                found=text[match.start() :].splitlines()[0],
                advice=memory_advice(recipe),
            ) from error
        if not is_out_of_memory(error):
            raise
        raise PlatformError(
            "memory ran out during training",
            code="memory",
            found=next((line for line in text.splitlines() if _OUT_OF_MEMORY.search(line)), None)
            or type(error).__name__,
            advice=memory_advice(recipe),
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an error means that memory ran out; torch has no single type for that."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error)) is not None
    )


def oom_kills() -> int | None:
    """Returns how many processes the kernel has killed for lack of memory; None if unknown."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)


def _boot_id() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


@contextmanager
def running_marker(out: Path) -> Iterator[None]:
    """Keeps the marker in the run folder inside the `with` block.

    Errors and Ctrl-C remove the marker too. It is left over after SIGKILL, a crash or a power loss.
    """
    marker = {"process": os.getpid(), "boot": _boot_id(), "kills": oom_kills()}
    write_text(RunFolder(out).marker, json.dumps(marker) + "\n")
    try:
        yield
    finally:
        RunFolder(out).marker.unlink(missing_ok=True)


def describe_last_kill(out: Path, recipe: Recipe) -> str | None:
    """Describes how the last start of this run was killed; None if it wasn't."""
    if not RunFolder(out).marker.exists():
        return None
    cause = "most likely because memory ran out"
    try:
        marker: Any = read_json(RunFolder(out).marker, "marker of a running start")
        same_boot, before, now = marker["boot"] == _boot_id(), marker["kills"], oom_kills()
        if not same_boot:
            cause = "most likely because the machine went down: it has been restarted since"
        elif type(before) is int and now is not None:
            if now > before:
                cause = (
                    "because memory ran out: the kernel has killed processes for this reason since"
                )
            else:
                cause += (
                    " (or by SIGKILL from elsewhere: the kernel reports no kill for lack of memory)"
                )
    except (MrkneeError, KeyError, TypeError):  # a broken marker still means: it was killed
        pass
    advice = memory_advice(recipe)
    return f"the last start of this run was killed, {cause}. If memory ran out, {advice}"
