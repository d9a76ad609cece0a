"""Exams to probabilities, from a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from mrknee.errors import MrkneeError
from mrknee.exams import ExamFolder, Exams, Findings, Plane
from mrknee.networks.checkpoint import load_checkpoint
from mrknee.networks.reader import Reader, device_here
from mrknee.scoring.calibration import Calibration
from mrknee.scoring.operating_point import OperatingPoint
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
        reader: preparation and network, on the device, in evaluation mode.
        calibration: fitted on exams it was not trained on; None where none was.
        operating_points: finding -> its thresholds on calibrated probabilities, fixed on those
            same exams; empty where none was.
        provenance: data, recipe, seed, versions, as training noted them.

    Raises:
        MrkneeError: there is no model, or its files are damaged.
    """

    def __init__(self, model: Path) -> None:
        folder = model / "best" if (model / "best").is_dir() else model
        checkpoint = load_checkpoint(folder)
        preparation = Preparation(**checkpoint.preparation)
        self.reader = Reader(preparation, checkpoint.network).to(device_here()).eval()
        self.findings = Findings(checkpoint.network.findings)
        self.provenance: Mapping[str, Any] = checkpoint.provenance
        fitted = checkpoint.decisions.get("calibration")
        self.calibration = None if fitted is None else Calibration.from_dict(fitted)
        self.operating_points: Mapping[str, tuple[OperatingPoint, ...]] = {
            finding: tuple(OperatingPoint.from_dict(point) for point in points)
            for finding, points in checkpoint.decisions.get("operating_points", {}).items()
        }

    def calibrate(
        self, probabilities: Float[np.ndarray, "exams findings"]
    ) -> Float[np.ndarray, "exams findings"]:
        """The network's own probabilities, calibrated; unchanged where nothing was fitted."""
        if self.calibration is None:
            return probabilities
        return self.calibration.apply(self.findings, probabilities)

    def predict(self, exams: Exams) -> Predictions:
        """Reads exams.

        Args:
            exams: an ExamFolder, or any other row of exams.

        Returns:
            One calibrated probability an exam and finding, 0 to 1, in the exams' order.

        Raises:
            MrkneeError: an exam's files can't be used.
        """
        dataset = ExamDataset(exams, self.reader.preparation)
        loader = load_batches(dataset, range(len(exams)), BATCH_EXAMS)
        ids, probabilities = self.reader.read(loader, len(exams))
        return Predictions(ids, self.findings, self.calibrate(probabilities))


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
