"""Exams to probabilities, from a run folder."""

from __future__ import annotations

from pathlib import Path

from mrknee.errors import MrkneeError
from mrknee.exams import ExamFolder, Exams, Findings, Plane
from mrknee.networks.checkpoint import load_checkpoint
from mrknee.networks.reader import Reader, device_here
from mrknee.scoring.predictions import Predictions
from mrknee.tensors.batches import ExamDataset, load_batches
from mrknee.tensors.preparation import Preparation

BATCH_EXAMS = 4
"""Exams read together; the result for an exam doesn't depend on it."""


class Predictor:
    """A trained model, ready to read exams.

    Args:
        model: a run folder (its best epoch is taken), or a folder with `model.json` such as
            `RUN/last`.

    Attributes:
        findings: what it reads, in order.

    Raises:
        MrkneeError: there is no model, or its files are damaged.
    """

    def __init__(self, model: Path) -> None:
        folder = model / "best" if (model / "best").is_dir() else model
        checkpoint = load_checkpoint(folder)
        preparation = Preparation(**checkpoint.preparation)
        self._reader = Reader(preparation, checkpoint.network).to(device_here())
        self.findings = Findings(checkpoint.network.findings)

    def predict(self, exams: Exams) -> Predictions:
        """Reads exams.

        Args:
            exams: an ExamFolder, or any other row of exams.

        Returns:
            One probability an exam and finding, 0 to 1, in the exams' order.

        Raises:
            MrkneeError: an exam's files can't be used.
        """
        dataset = ExamDataset(exams, self._reader.preparation)
        loader = load_batches(dataset, range(len(exams)), BATCH_EXAMS)
        ids, probabilities = self._reader.read(loader, len(exams))
        return Predictions(ids, self.findings, probabilities)


def open_exams(path: Path, split: str, *, allow_missing_plane: bool = False) -> ExamFolder:
    """Opens a data set's split, or a folder that holds the plane folders itself.

    Args:
        path: `DATA` with `DATA/<split>/axial/...`, or a folder with `axial/...`.
        split: which split of a data set.
        allow_missing_plane: let exams through that lack one or two planes.

    Raises:
        MrkneeError: neither is there, or an exam lacks a plane.
    """
    if any((path / plane).is_dir() for plane in Plane):
        return ExamFolder(path, allow_missing_plane=allow_missing_plane)
    if (path / split).is_dir():
        return ExamFolder(path / split, allow_missing_plane=allow_missing_plane)
    raise MrkneeError(
        "there are no exams here",
        file=path,
        expected=f"a data set with a folder {split}/, or the folders axial/, coronal/, sagittal/",
        found="no such folder" if not path.exists() else "neither",
    )
