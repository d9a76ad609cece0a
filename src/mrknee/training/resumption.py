"""What an interrupted run left, and how a later start takes it up so that no trace remains.

The state lies in one file, `resume/last.ckpt`, that is replaced whole. Everything else in the run
folder is either written again by the steps that follow it, or cut back to what the state knows.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from mrknee.files import whole_file

RESUME = Path("resume", "last.ckpt")

_PARTS = ("", "best", "last", "resume", "epochs/*")
_HALF_WRITTEN = re.compile(r"\..+\.\d+")  # what `whole_file` writes to


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
    saved: Mapping[str, Any] = torch.load(
        out / RESUME, map_location="cpu", weights_only=True, mmap=True
    )
    return Done(**saved["callbacks"]["RunRecord"])


def go_back(out: Path, done: Done) -> None:
    """Cuts the log back to what is done, and clears away files that were being written."""
    log = out / "log.txt"
    if log.exists() and log.stat().st_size > done.log_bytes:
        os.truncate(log, done.log_bytes)
    if not done.rows:
        (out / "metrics.csv").unlink(missing_ok=True)
    (out / "scorecard.json").unlink(missing_ok=True)
    for part in _PARTS:
        for file in out.glob(f"{part}/.*" if part else ".*"):
            if _HALF_WRITTEN.fullmatch(file.name):
                file.unlink()


class WholeCheckpoints(TorchCheckpointIO):
    """Writes the state beside its place first; Lightning's own would leave half of it in /tmp."""

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | Path,
        storage_options: Any = None,  # noqa: ANN401, ARG002  # Lightning's
    ) -> None:
        """Replaces the file at `path` whole."""
        with whole_file(Path(path)) as beside:
            torch.save(checkpoint, beside)
