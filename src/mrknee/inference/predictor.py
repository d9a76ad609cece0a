"""Exams to probabilities, from a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from mrknee.errors import ModelError
from mrknee.exams import Exam, Exams, Findings, Inspected, as_exams
from mrknee.exams.plausibility import sizes_from
from mrknee.inference.decisions import calibration_of, operating_points_of
from mrknee.inference.explanation import Explanation, Method
from mrknee.inference.planes import TrainedPlanes, left_out, only
from mrknee.networks.checkpoint import MODEL_FILE, load_checkpoint
from mrknee.networks.description import trained_planes
from mrknee.networks.reader import Reader, device_here
from mrknee.scoring.predictions import Predictions
from mrknee.tensors.batches import ExamDataset, load_batches
from mrknee.tensors.preparation import Preparation
from mrknee.tensors.settings import known_settings
from mrknee.untrusted import read_json

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
        planes: the planes it was trained on; an exam's others are left out.
        notes: what whoever uses it should know, as sentences.
        reader: preparation and network, on the device, in evaluation mode.
        preparation: how a stack becomes input; the reader does it.
        calibration: fitted on exams it was not trained on; None where none was.
        operating_points: finding -> its thresholds on calibrated probabilities, fixed on those
            same exams; empty where none was.
        provenance: data, recipe, seed, versions, as training noted them.
        decisions: calibration and operating points as the model's file states them.
        folder: where its files are.

    Raises:
        MrkneeError: there is no model, its files are damaged or don't belong together, or it is
            another run's than the folder's.
    """

    def __init__(self, model: str | Path) -> None:
        model = Path(model)
        self.folder = model / "best" if (model / "best").is_dir() else model
        checkpoint = load_checkpoint(self.folder)
        _refuse_another_run(self.folder, checkpoint.provenance)
        self.preparation = Preparation(**known_settings(checkpoint.preparation))
        self.reader = Reader(self.preparation, checkpoint.network).to(device_here()).eval()
        self.findings = Findings(checkpoint.network.findings)
        self.provenance: Mapping[str, Any] = checkpoint.provenance
        self.decisions: Mapping[str, Any] = checkpoint.decisions
        self.calibration = calibration_of(self.decisions)
        self.operating_points = operating_points_of(self.decisions)
        self.planes = trained_planes(self.provenance)
        self.notes = (*checkpoint.notes, *left_out(self.planes))

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
            exams: a Dataset, any other row of exams, or a single exam.

        Returns:
            One calibrated probability an exam and finding, 0 to 1, in the exams' order, with
            remarks on exams that are odd.

        Raises:
            MrkneeError: an exam's files can't be used, or there are no exams.
        """
        inspected = Inspected(
            TrainedPlanes(as_exams(exams), self.planes),
            sizes_from(self.provenance.get("stack_sizes")),
        )
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

        return explain(self, only(exam, self.planes), method=method)


def _refuse_another_run(folder: Path, provenance: Mapping[str, Any]) -> None:
    """Refuses `best`, `last` or `epochs/*` of another run than the one whose folder it lies in.

    Training notes in environment.json which run each start belongs to; a folder that lies
    elsewhere, or of an earlier version, has no such note.
    """
    above = folder.resolve().parent
    file = (above.parent if above.name == "epochs" else above) / "environment.json"
    if not file.is_file():
        return
    starts = read_json(file, "list of starts", kind=ModelError)
    if not isinstance(starts, list) or not all(isinstance(start, dict) for start in starts):
        raise ModelError(
            "the list of starts can't be read",
            code="run-folder",
            file=file,
            expected="a list of the run's starts, as training wrote it",
            found=repr(starts),
            advice="copy the run again, or copy the model's folder elsewhere to use it alone",
        )
    run = starts[0].get("run") if starts else None  # that of all starts
    if run is not None and provenance.get("run") != run:
        raise ModelError(
            "the model is another run's than the folder it lies in",
            code="another-run",
            file=folder / MODEL_FILE,
            expected=f"a model of the run {str(run)[:16]}, as {file} says",
            found=f"a model of the run {str(provenance.get('run', 'not noted'))[:16]}",
            advice="copy the run again, or copy the model's folder elsewhere to use it alone",
        )


def limit_threads(threads: int) -> None:
    """Says how many processor threads torch computes with, in the whole process."""
    torch.set_num_threads(threads)
