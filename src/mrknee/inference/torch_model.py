"""A trained model in a run folder, computed by torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from scipy.special import expit
from torch import Tensor

from mrknee.errors import ModelError
from mrknee.exams import Exam, Exams
from mrknee.inference.model import Contributions, SingleModel
from mrknee.networks.checkpoint import load_checkpoint
from mrknee.networks.prediction import device_here, predict_batches
from mrknee.run_folder import MODEL_FILE, RunFolder
from mrknee.settings import stated_settings
from mrknee.tensors.batches import ExamDataset, frame_exam, join, load_batches
from mrknee.tensors.preparation import Preparation
from mrknee.untrusted import read_json

BATCH_EXAMS = 4
"""Exams read together, at most; the result for an exam doesn't depend on it."""

BATCH_SLICES = 200
"""Slices read together, at most, all series counted; an exam that has more is read by itself.

It bounds memory whatever exams come together; two of MRNet's (94 slices on average) fit.
"""


class TorchModel(SingleModel):
    """A trained model in a run folder.

    Args:
        path: a run folder (its best epoch is taken), or a folder with `model.json` such as
            `RUN/last`.

    Attributes:
        network: on the GPU where there is one, in evaluation mode.
        preparation: how a stack becomes its input.
        folder: where the model's files are.

    Raises:
        ModelError: there is no model, its files are damaged or don't belong together, or it is
            another run's than the folder's.
    """

    preparation: Preparation

    def __init__(self, path: str | Path) -> None:
        self.folder = RunFolder.model_in(path)
        checkpoint = load_checkpoint(self.folder)
        _refuse_another_run(self.folder, checkpoint.provenance)
        self.network = checkpoint.network.to(device_here()).eval()
        super().__init__(
            findings=self.network.findings,
            series=self.network.series,
            preparation=stated_settings(Preparation, checkpoint.preparation),
            provenance=checkpoint.provenance,
            decisions=checkpoint.decisions,
            notes=checkpoint.notes,
        )

    def _probabilities(
        self, exams: Exams
    ) -> tuple[tuple[str, ...], Float64[np.ndarray, "exams findings"]]:
        dataset = ExamDataset(exams, self.preparation)
        batches = load_batches(dataset, range(len(exams)), BATCH_EXAMS, batch_slices=BATCH_SLICES)
        ids, raw = predict_batches(self.network, self.preparation, batches, len(exams))
        return ids, self._calibrated(raw)

    def _contributions(self, exam: Exam) -> Contributions:
        """The exam is encoded once: logits and maps come from the same feature maps."""
        network = self.network.eval()
        device = next(network.parameters()).device
        batch = join([frame_exam(exam, self.preparation)]).to(device)
        slices = batch.prepared(self.preparation)
        with torch.no_grad():
            maps = {name: network.encode(name, slices[name]) for name in exam.stacks}
            reading = network.read(maps)
            parts = network.contributions(maps, reading)
        logits = _numpy(reading.logits[0]).astype(np.float64)
        return Contributions(
            logits=logits,
            bias=_numpy(network.head.bias).astype(np.float64),
            probabilities=self._calibrated(expit(logits[None]))[0],
            native={name: _numpy(part).astype(np.float32) for name, part in parts.items()},
            attention_fixed=network.attends,
        )

    def _calibrated(
        self, probabilities: Float[np.ndarray, "exams findings"]
    ) -> Float[np.ndarray, "exams findings"]:
        """The network's own probabilities, calibrated; unchanged where nothing was fitted."""
        calibration = self.decisions.calibration
        if calibration is None:
            return probabilities
        return calibration.apply(self.findings, probabilities)


def _numpy(tensor: Tensor) -> Float[np.ndarray, ...]:
    return np.asarray(tensor.detach().cpu().numpy())


def _refuse_another_run(folder: Path, provenance: Mapping[str, Any]) -> None:
    """Refuses `best`, `last` or `epochs/*` of another run than the one whose folder it lies in.

    Training notes in environment.json which run each start belongs to; a folder that lies
    elsewhere, or of an earlier version, has no such note.
    """
    file = RunFolder.around(folder).environment
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
