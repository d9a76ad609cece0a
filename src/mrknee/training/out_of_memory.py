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
from mrknee.files import whole_file
from mrknee.run_folder import RunFolder
from mrknee.training.recipe import Recipe
from mrknee.untrusted import read_json

_SHORT = re.compile(
    r"can't allocate memory|out of memory|bad_alloc|cannot allocate memory|"
    r"std::length_error|could not create a memory object",
    re.IGNORECASE,
)
"""Messages of RuntimeErrors from torch, CUDA, oneDNN and C++ when memory ran out."""

_WORKER = re.compile(r"DataLoader worker \(pid.*\) (is killed by signal|exited unexpectedly)")
"""Message of torch when the system has killed a worker process of a data loader."""


def memory_advice(recipe: Recipe) -> str:
    """Returns advice: settings that reduce memory, most effective first, with current values."""
    advice = []
    if recipe.network.batchnorm == "frozen":
        few = recipe.slices_at_once
        if few == 0 or few > 4:
            advice.append(f"--slices_at_once 4 (is {few or '0, all'})")
        elif few == -1:
            advice.append("--slices_at_once 2 (is -1, automatic)")
    if recipe.batch_exams > 1:
        advice.append(
            f"--batch_exams 1 with --accumulate {recipe.batch_exams * recipe.accumulate} "
            f"(is {recipe.batch_exams} with {recipe.accumulate}), which makes the same steps"
        )
    if recipe.workers != 0:
        advice.append(f"--workers 0 (is {recipe.workers})")
    advice.append(f"a smaller network.encoder (is {recipe.network.encoder})")
    return "lower what is held at once: " + ", or ".join(advice) + "; or use more memory"


@contextmanager
def convert_memory_errors(recipe: Recipe) -> Iterator[None]:
    """Converts out-of-memory errors of Python, torch and CUDA to one error with advice.

    Raises:
        MrkneeError: memory ran out, or the system killed a process that reads exams.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as fault:
        text = str(fault)
        if isinstance(fault, RuntimeError) and (ended := _WORKER.search(text)):
            raise PlatformError(
                "a process that reads exams was ended by the system, most likely for lack of "
                "memory",
                code="memory",
                found=text[ended.start() :].splitlines()[0],
                advice=memory_advice(recipe),
            ) from fault
        if not is_out_of_memory(fault):
            raise
        raise PlatformError(
            "memory ran out while training",
            code="memory",
            found=next((line for line in text.splitlines() if _SHORT.search(line)), None)
            or type(fault).__name__,
            advice=memory_advice(recipe),
        ) from fault


def is_out_of_memory(fault: BaseException) -> bool:
    """Returns whether an error means that memory ran out; torch has no single type for that."""
    if isinstance(fault, OSError):
        return fault.errno == errno.ENOMEM
    return isinstance(fault, MemoryError) or (
        isinstance(fault, RuntimeError) and _SHORT.search(str(fault)) is not None
    )


def oom_kills() -> int | None:
    """Returns how many processes the kernel has killed for lack of memory; None if unknown."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)


def _boot() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


@contextmanager
def running_marker(out: Path) -> Iterator[None]:
    """Keeps the marker in the run folder inside the `with` block.

    Errors and Ctrl-C remove the marker too. It is left over after SIGKILL, a crash or a power loss.
    """
    marker = {"process": os.getpid(), "boot": _boot(), "kills": oom_kills()}
    with whole_file(RunFolder(out).marker) as beside:
        beside.write_text(json.dumps(marker) + "\n")
    try:
        yield
    finally:
        RunFolder(out).marker.unlink(missing_ok=True)


def describe_last_kill(out: Path, recipe: Recipe) -> str | None:
    """Describes how the last start of this run was killed; None if it wasn't."""
    if not RunFolder(out).marker.exists():
        return None
    cause = "most likely for lack of memory"
    try:
        marker: Any = read_json(RunFolder(out).marker, "marker of a running start")
        same_boot, before, now = marker["boot"] == _boot(), marker["kills"], oom_kills()
        if not same_boot:
            cause = "most likely because the machine went down: it has been started since"
        elif type(before) is int and now is not None:
            if now > before:
                cause = "for lack of memory: the kernel has ended processes for that since"
            else:
                cause += " (or by a SIGKILL from elsewhere: the kernel has counted no such end)"
    except (MrkneeError, KeyError, TypeError):  # a broken marker still means: it was killed
        pass
    return (
        f"the last start of this run was ended without a word, {cause}. If it was memory, "
        + memory_advice(recipe)
    )
