"""Exams to probabilities, from a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from mrknee.exams import Exam, Exams, Findings, Inspected, as_exams
from mrknee.exams.plausibility import sizes_from
from mrknee.inference.decisions import calibration_of, operating_points_of
from mrknee.inference.explanation import Explanation, Method
from mrknee.networks.checkpoint import load_checkpoint
from mrknee.networks.reader import Reader, device_here
from mrknee.scoring.predictions import Predictions
from mrknee.tensors.batches import ExamDataset, load_batches
from mrknee.tensors.preparation import Preparation
from mrknee.tensors.settings import known_settings

BATCH_EXAMS = 4
"""Exams read together, at most; the result for an exam doesn't depend on it."""

BATCH_SLICES = 200
"""Slices read together, at most, all planes counted; an exam that has more is read by itself.

It bounds memory whatever exams come together; two of MRNet's (94 slices on average) fit.
"""


class Predictor:
    """A trained model, ready to read exams.

    Args:
        model: a run folder (its best epoch is taken), or a folder with `model.json` such as
            `RUN/last`.

    Attributes:
        findings: what it reads, in order.
        reader: preparation and network, on the device, in evaluation mode.
        preparation: how a stack becomes input; the reader does it.
        calibration: fitted on exams it was not trained on; None where none was.
        operating_points: finding -> its thresholds on calibrated probabilities, fixed on those
            same exams; empty where none was.
        provenance: data, recipe, seed, versions, as training noted them.
        decisions: calibration and operating points as the model's file states them.
        folder: where its files are.

    Raises:
        MrkneeError: there is no model, or its files are damaged.
    """

    def __init__(self, model: str | Path) -> None:
        model = Path(model)
        self.folder = model / "best" if (model / "best").is_dir() else model
        checkpoint = load_checkpoint(self.folder)
        self.preparation = Preparation(**known_settings(checkpoint.preparation))
        self.reader = Reader(self.preparation, checkpoint.network).to(device_here()).eval()
        self.findings = Findings(checkpoint.network.findings)
        self.provenance: Mapping[str, Any] = checkpoint.provenance
        self.decisions: Mapping[str, Any] = checkpoint.decisions
        self.calibration = calibration_of(self.decisions)
        self.operating_points = operating_points_of(self.decisions)
        self.calibrate(np.full((1, len(self.findings)), 0.5))  # refuses that of other findings

    def calibrate(
        self, probabilities: Float[np.ndarray, "exams findings"]
    ) -> Float[np.ndarray, "exams findings"]:
        """The network's own probabilities, calibrated; unchanged where nothing was fitted."""
        if self.calibration is None:
            return probabilities
        return self.calibration.apply(self.findings, probabilities)

    def predict(self, exams: Exams | Exam) -> Predictions:
        """Reads exams.

        Args:
            exams: an ExamFolder, any other row of exams, or a single exam.

        Returns:
            One calibrated probability an exam and finding, 0 to 1, in the exams' order, with
            remarks on exams that are odd.

        Raises:
            MrkneeError: an exam's files can't be used, or there are no exams.
        """
        inspected = Inspected(as_exams(exams), sizes_from(self.provenance.get("stack_sizes")))
        dataset = ExamDataset(inspected, self.reader.preparation)
        loader = load_batches(
            dataset, range(len(inspected)), BATCH_EXAMS, batch_slices=BATCH_SLICES
        )
        ids, probabilities = self.reader.read(loader, len(inspected))
        calibrated = self.calibrate(probabilities)
        return Predictions(ids, self.findings, calibrated, inspected.remarks())

    def explain(self, exam: Exam, *, method: Method | None = None) -> Explanation:
        """Takes the logits of one exam apart; see `decomposition.explain`."""
        from mrknee.inference.decomposition import explain  # it imports this file

        return explain(self, exam, method=method)


def limit_threads(threads: int) -> None:
    """Says how many processor threads torch computes with, in the whole process."""
    torch.set_num_threads(threads)
