"""A model in a run folder, computed by torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from scipy.special import expit
from torch import Tensor

from mrknee.errors import ModelError
from mrknee.exams import Exam, Exams
from mrknee.inference.ablation import AblatedPrediction, Ablation, nothing_left
from mrknee.inference.model import Contributions, SingleModel
from mrknee.models.checkpoint import load_checkpoint
from mrknee.models.feature_cache import FeatureCache
from mrknee.models.prediction import device_here, predict_batches, prediction_batches
from mrknee.run_folder import MODEL_FILE, RunFolder
from mrknee.settings import settings_from_model
from mrknee.transforms.batches import ExamDataset, frame_exam, join
from mrknee.transforms.preparation import Preparation
from mrknee.untrusted import read_json


class TorchModel(SingleModel):
    """A trained model in a run folder.

    Args:
        path: a run folder (its best epoch is used), or a folder with `model.json` such as
            `RUN/last`.

    Attributes:
        network: the network, in evaluation mode, on the GPU if there is one.
        preparation: preprocessing of the stacks.
        folder: folder of the model's files.

    Raises:
        ModelError: there is no model, its files are damaged or don't belong together, or the model
            belongs to another run than the folder.
    """

    preparation: Preparation

    def __init__(self, path: str | Path) -> None:
        self.folder = RunFolder.model_in(path)
        checkpoint = load_checkpoint(self.folder)
        _refuse_another_run(self.folder, checkpoint.provenance)
        self.network = checkpoint.network.to(device_here()).eval()
        self._feature_cache: FeatureCache | None = None
        super().__init__(
            findings=self.network.findings,
            series=self.network.series,
            preparation=settings_from_model(Preparation, checkpoint.preparation),
            provenance=checkpoint.provenance,
            decisions=checkpoint.decisions,
            notes=checkpoint.notes,
        )

    def use_feature_cache(self, folder: str | Path) -> None:
        """Makes `predict` store feature maps in a folder, and read those that are stored there.

        Probabilities then differ by the rounding of the stored maps to float16.

        Raises:
            SettingsError: a stage of an encoder was trained.
        """
        self._feature_cache = FeatureCache(folder, self.network, self.preparation)

    @property
    def explainable(self) -> bool:
        """Whether `explain` can decompose the logits."""
        return self.network.explainable

    def _probabilities(
        self, exams: Exams
    ) -> tuple[tuple[str, ...], Float64[np.ndarray, "exams findings"]]:
        dataset = ExamDataset(exams, self.preparation)
        batches = prediction_batches(dataset, range(len(exams)))
        ids, raw = predict_batches(
            self.network, self.preparation, batches, len(exams), cache=self._feature_cache
        )
        return ids, self.calibrated(raw)

    def _contributions(self, exam: Exam) -> Contributions:
        """Returns the contributions; logits and maps are computed from the same feature maps."""
        network = self.network.eval()
        maps = self._maps(exam)
        with torch.no_grad():
            reading = network.read(maps)
            parts = network.contributions(maps, reading)
        logits = _numpy(reading.logits[0]).astype(np.float64)
        return Contributions(
            logits=logits,
            bias=_numpy(network.head.bias).astype(np.float64),
            probabilities=self.calibrated(expit(logits[None]))[0],
            native={
                name: self._on_all_slices(_numpy(part), len(exam.stacks[name]))
                for name, part in parts.items()
            },
            attention_fixed=network.attends,
        )

    def _ablation(self, exam: Exam) -> Ablation:
        """Computes the feature maps of the exam once."""
        return _TorchAblation(self, exam, self._maps(exam))

    def _maps(self, exam: Exam) -> dict[str, Float[Tensor, "_ width map_rows map_cols"]]:
        """Returns the feature maps of the slices that are read of each series of the exam."""
        network = self.network.eval()
        device = next(network.parameters()).device
        batch = join([frame_exam(exam, self.preparation)]).to(device)
        slices = batch.prepared(self.preparation)
        with torch.no_grad():
            return {name: network.encode(name, slices[name]) for name in exam.stacks}

    def _on_all_slices(
        self, part: Float[np.ndarray, "findings read rows cols"], slices: int
    ) -> Float32[np.ndarray, "findings slices rows cols"]:
        """Puts the contributions of the slices that are read in their places; others are 0."""
        native = np.zeros((len(part), slices, *part.shape[2:]), dtype=np.float32)
        native[:, self.preparation.slices_read(slices)] = part
        return native

    def calibrated(
        self, probabilities: Float[np.ndarray, "exams findings"]
    ) -> Float[np.ndarray, "exams findings"]:
        """Returns calibrated probabilities; unchanged if no calibration was fitted."""
        calibration = self.decisions.calibration
        if calibration is None:
            return probabilities
        return calibration.apply(self.findings, probabilities)


class _TorchAblation(Ablation):
    """Feature maps of an exam, of which some are pooled."""

    def __init__(
        self, model: TorchModel, exam: Exam, maps: Mapping[str, Float[Tensor, "_ width _ _"]]
    ) -> None:
        self._model, self._maps, self.exam = model, maps, exam.id
        self.counts = {name: len(stack) for name, stack in exam.stacks.items()}
        self.origin = "features"
        self.size = sum(each.nbytes for each in maps.values())

    def without(
        self,
        series: Collection[str] = (),
        slices: Mapping[str, Collection[int]] = MappingProxyType({}),
    ) -> AblatedPrediction:
        """Predicts the exam without some series and slices."""
        kept = self.kept_slices(series, slices)
        maps = {}
        for name, indices in kept.items():
            read = self._model.preparation.slices_read(self.counts[name])
            wanted = set(indices)
            rows = [row for row, index in enumerate(read) if index in wanted]
            if rows:
                maps[name] = self._maps[name][rows]
        if not maps:
            raise nothing_left(self.exam)
        with torch.no_grad():
            logits = _numpy(self._model.network.read(maps).logits[0]).astype(np.float64)
        return AblatedPrediction(logits, self._model.calibrated(expit(logits[None]))[0])


def _numpy(tensor: Tensor) -> Float[np.ndarray, ...]:
    return np.asarray(tensor.detach().cpu().numpy())


def _refuse_another_run(folder: Path, provenance: Mapping[str, Any]) -> None:
    """Refuses `best`, `last` or `epochs/*` in the folder of another run.

    Training records the run in environment.json. Folders outside a run folder, and runs of earlier
    versions, do not have this entry and are accepted.
    """
    file = RunFolder.containing(folder).environment
    if not file.is_file():
        return
    starts = read_json(file, "list of starts", kind=ModelError)
    if not isinstance(starts, list) or not all(isinstance(start, dict) for start in starts):
        raise ModelError(
            "the list of starts can't be read",
            code="run-folder",
            file=file,
            expected="a list of the run's starts, as written by training",
            found=repr(starts),
            advice="copy the run again, or copy the model's folder elsewhere to use it alone",
        )
    run = starts[0].get("run") if starts else None  # the same for all starts
    if run is not None and provenance.get("run") != run:
        raise ModelError(
            "the model belongs to another run than its folder",
            code="another-run",
            file=folder / MODEL_FILE,
            expected=f"a model of the run {str(run)[:16]}, as recorded in {file}",
            found=f"a model of the run {str(provenance.get('run', 'unknown'))[:16]}",
            advice="copy the run again, or copy the model's folder elsewhere to use it alone",
        )


def limit_threads(threads: int) -> None:
    """Sets torch's number of CPU threads for the complete process."""
    torch.set_num_threads(threads)
