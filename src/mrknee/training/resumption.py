"""What an interrupted run left, and how a later start takes it up so that no trace remains.

The state lies in one file, `resume/last.ckpt`, that is replaced whole. Everything else in the run
folder is either written again by the steps that follow it, or cut back to what the state knows.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from mrknee.errors import MrkneeError
from mrknee.files import clear_half_written, whole_file

RESUME = Path("resume", "last.ckpt")

_PARTS = ("best", "last", "resume", "epochs/*")


@dataclass
class Done:
    """How far a run has come.

    Attributes:
        epoch: how many epochs are done.
        batches: how many batches of the next one are.
        log_bytes: how long log.txt was.
        rows: the metrics of the epochs that are done.
    """

    epoch: int = 0
    batches: int = 0
    log_bytes: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def read_done(out: Path) -> Done | None:
    """How far the run in this folder has come; None where nothing was saved."""
    if not (out / RESUME).exists():
        return None
    try:
        saved: Mapping[str, Any] = torch.load(
            out / RESUME, map_location="cpu", weights_only=True, mmap=True
        )
        return Done(**saved["callbacks"]["RunRecord"])
    except Exception as fault:  # a broken file can raise anything, and it is the file's fault
        raise MrkneeError(
            "the state to resume from can't be read",
            file=out / RESUME,
            expected="the state that training saved: tensors and plain values, nothing else",
            found=f"{type(fault).__name__}: {str(fault).splitlines()[0] if str(fault) else ''}",
            advice="restore the file, or start a new run",
        ) from fault


def go_back(out: Path, done: Done) -> None:
    """Cuts the log back to what is done, and clears away files that were being written."""
    log = out / "log.txt"
    if log.exists() and log.stat().st_size > done.log_bytes:
        os.truncate(log, done.log_bytes)
    if not done.rows:
        (out / "metrics.csv").unlink(missing_ok=True)
    (out / "scorecard.json").unlink(missing_ok=True)
    for folder in (out, *(folder for part in _PARTS for folder in out.glob(part))):
        clear_half_written(folder)


class WholeCheckpoints(TorchCheckpointIO):
    """Writes the state beside its place first; Lightning's own would leave half of it in /tmp."""

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | Path,
        storage_options: Any = None,  # noqa: ANN401, ARG002  # Lightning's
    ) -> None:
        """Replaces the file at `path` whole."""
        with whole_file(Path(path)) as beside, beside.open("wb") as file:
            told = _Told(file)
            try:
                torch.save(checkpoint, cast(IO[bytes], told))
            except RuntimeError as error:  # torch calls a full disk "unexpected pos"
                raise told.fault or error from None


class _Told:
    """A file that remembers why writing to it failed."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.fault: OSError | None = None

    def write(self, content: bytes | memoryview) -> int:
        """As any file's."""
        try:
            return self.file.write(content)
        except OSError as fault:
            self.fault = fault
            raise

    def flush(self) -> None:
        """As any file's."""
        self.file.flush()
