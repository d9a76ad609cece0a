"""Saving and reading the state of a run, so that an interrupted run can be resumed exactly.

The state is one file, `resume/last.ckpt`, that is replaced atomically; the previous one is kept as
`resume/previous.ckpt`. All other files in the run folder are either written again by the steps
after the state, or cut back to their content at the time of the state.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import torch

from mrknee.errors import ModelError
from mrknee.files import atomic_write, remove_incomplete, sync, write_text
from mrknee.run_folder import RunFolder, metrics_text

_WRITTEN_FOLDERS = ("best", "last", "resume", "epochs/*")


@dataclass
class RunProgress:
    """Progress of a run.

    Attributes:
        epoch: number of finished epochs.
        batches: number of finished batches of the next epoch.
        log_bytes: size of log.txt, in bytes.
        rows: metrics of the finished epochs.
        settings: the complete recipe, including defaults; None in states of earlier versions.
        split: digest of split.csv; empty in states of earlier versions.
    """

    epoch: int = 0
    batches: int = 0
    log_bytes: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)
    settings: dict[str, Any] | None = None
    split: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Returns the progress as plain values."""
        return asdict(self)


def read_state(file: Path) -> tuple[RunProgress, dict[str, Any]]:
    """Reads a saved state: the progress of the run, and the state of the training loop.

    Raises:
        MrkneeError: the file is missing, damaged, or not a state saved by training.
    """
    try:
        with zipfile.ZipFile(file) as archive:  # torch doesn't verify the checksums
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"{damaged} is damaged")
        saved: Mapping[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        if "callbacks" in saved:
            raise ValueError("a state saved by an earlier version of mrknee")
        return RunProgress(**saved["done"]), dict(saved["loop"])
    except Exception as error:  # a broken file can raise any exception
        raise ModelError(
            "the state to resume from can't be read",
            code="resume-state",
            file=file,
            expected="a state saved by training: tensors and plain values only",
            found=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            advice="restore the file, or remove the folder resume/ to restart the run from its "
            "first epoch",
        ) from error


def roll_back(out: Path, progress: RunProgress, state: Path | None = None) -> None:
    """Restores the run folder to its content at the time of a state.

    The log is cut, the metrics are written again, and later files are removed: the scorecard, later
    states, and half-written files.

    Args:
        out: the run folder.
        progress: progress of the run in the state.
        state: file of the state; None if the run starts from the beginning.
    """
    for file in (RunFolder(out).state, RunFolder(out).previous_state):
        if file == state:
            break
        file.unlink(missing_ok=True)
    log = RunFolder(out).log
    if log.exists() and log.stat().st_size > progress.log_bytes:
        os.truncate(log, progress.log_bytes)
    if progress.rows:
        write_metrics(out, progress.rows)
    else:
        RunFolder(out).metrics.unlink(missing_ok=True)
    RunFolder(out).scorecard.unlink(missing_ok=True)
    for folder in (out, *(folder for pattern in _WRITTEN_FOLDERS for folder in out.glob(pattern))):
        remove_incomplete(folder)


def write_metrics(out: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Writes metrics.csv: one line per epoch."""
    write_text(RunFolder(out).metrics, metrics_text(rows))


def save_state(out: Path, progress: RunProgress, loop: Mapping[str, Any]) -> None:
    """Replaces the run's state atomically, and keeps the previous one.

    Args:
        out: the run folder.
        progress: progress of the run.
        loop: state of the training loop: tensors and plain values.
    """
    path = RunFolder(out).state
    with atomic_write(path) as temporary:
        with temporary.open("wb") as opened:
            file = _ErrorKeepingFile(opened)
            try:
                torch.save({"done": progress.to_dict(), "loop": loop}, cast(IO[bytes], file))
            except RuntimeError as error:  # torch reports a full disk as "unexpected pos"
                raise file.error or error from None
        sync([temporary])
        if path.exists():
            path.replace(RunFolder(out).previous_state)


class _ErrorKeepingFile:
    """A file that keeps the error if writing fails."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, content: bytes | memoryview) -> int:
        """Writes bytes; returns their number."""
        try:
            return self.file.write(content)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        """Flushes the file."""
        self.file.flush()
