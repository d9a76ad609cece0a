"""Interface and loading of trained models; importing this module does not import torch."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from jaxtyping import Float32, Float64

from mrknee.errors import ModelError, MrkneeWarning, SettingsError
from mrknee.exams import (
    Dataset,
    Exam,
    Exams,
    Findings,
    Inspected,
    SeriesList,
    StackSizes,
    as_exams,
    has_canonical_sides,
    remarks_of,
)
from mrknee.exams.axes import shape_of
from mrknee.exams.exam import refuse_no_exam
from mrknee.exams.plausibility import sizes_from
from mrknee.exams.sides import SIDES_FILE
from mrknee.explanations.explanation import Explanation
from mrknee.files import is_file
from mrknee.inference.ablation import Ablation
from mrknee.inference.runtimes import NO_LIMITS, Limits, RuntimeName
from mrknee.inference.trained_series import TrainedSeries, note_on_untrained, select_trained
from mrknee.metrics.predictions import Predictions
from mrknee.models.description import trained_series
from mrknee.ranges import THREADS
from mrknee.run_folder import ensemble_members
from mrknee.transforms.settings import PreparationSettings

if TYPE_CHECKING:
    from mrknee.metrics.decisions import Decisions


@dataclass(frozen=True)
class Contributions:
    """Values that a model computes to explain an exam; see `Explanation` for their meaning."""

    logits: Float64[np.ndarray, " findings"]
    bias: Float64[np.ndarray, " findings"]
    probabilities: Float64[np.ndarray, " findings"]
    native: Mapping[str, Float32[np.ndarray, "findings _ _ _"]]
    attention_fixed: bool


class Model(ABC):
    """A trained model: preparation, network, calibration, thresholds and provenance.

    Loaded with `load_model`.

    Attributes:
        findings: the predicted findings, in order.
        series: the input series, in order.
        trained: the series that the model was trained on; other series of an exam are ignored.
        preparation: preprocessing of the stacks.
        provenance: data, recipe, seed and versions, as recorded by training.
        notes: warnings for users of the model, as sentences.
    """

    def __init__(
        self,
        *,
        findings: Sequence[str],
        series: SeriesList,
        preparation: PreparationSettings,
        provenance: Mapping[str, Any],
        decisions: Mapping[str, Any],
        notes: tuple[str, ...] = (),
    ) -> None:
        self.findings = Findings(findings)
        self.series = series
        self.trained = trained_series(series, provenance)
        self.preparation = preparation
        self.provenance = provenance
        self._decisions = decisions
        self.notes = (*notes, *note_on_untrained(series, self.trained))

    @cached_property
    def decisions(self) -> Decisions:
        """Calibration, and thresholds on calibrated probabilities."""
        from mrknee.metrics.decisions import Decisions  # imports scipy

        return Decisions.from_dict(self._decisions)

    @property
    def titles(self) -> Mapping[str, str]:
        """Finding -> title, if declared by the training data set."""
        titles: Mapping[str, str] = self.provenance.get("titles", {})
        return titles

    @property
    def uncalibrated(self) -> dict[str, str]:
        """Uncalibrated finding -> reason."""
        fitted = self._decisions.get("calibration")
        if fitted is None:
            return dict.fromkeys(self.findings, "not calibrated: training fitted no calibration")
        prevalences, reasons = fitted["prevalences"], fitted["reasons"]
        return {
            name: reasons.get(name, "not calibrated")
            for name in self.findings
            if prevalences.get(name) is None
        }

    @property
    def explainable(self) -> bool:
        """Whether `explain` can decompose the logits."""
        return True

    @abstractmethod
    def predict(self, exams: Exams | Exam) -> Predictions:
        """Predicts exams.

        Args:
            exams: a data set, another sequence of exams, or a single exam.

        Returns:
            One calibrated probability per exam and finding, 0 to 1, in the order of the exams,
            with remarks on unusual exams.

        Raises:
            DataError: the files of an exam can't be used, or there are no exams.
        """

    @abstractmethod
    def explain(self, exam: Exam) -> Explanation:
        """Decomposes the logits of one exam.

        Args:
            exam: the exam; missing series are missing from the result.

        Raises:
            DataError: the exam has no series that the model was trained on.
            ModelError: the model has no exact explanation.
        """

    @abstractmethod
    def ablation(self, exam: Exam) -> Ablation:
        """Prepares predictions of an exam without some of its series or slices.

        Args:
            exam: the exam.

        Returns:
            The ablation, whose `without(series, slices)` predicts without these: names of series,
            and indices of slices per series.

        Raises:
            DataError: the exam has no series that the model was trained on.
        """

    def __repr__(self) -> str:
        data = self.provenance.get("data")
        return (
            f"{type(self).__name__}({', '.join(self.findings)} from {', '.join(self.trained.names)}"
            + (f"; trained on {data}" if data else "")
            + ")"
        )


class SingleModel(Model):
    """A model of one network, as opposed to an ensemble."""

    def predict(self, exams: Exams | Exam) -> Predictions:
        """Predicts exams; see `Model.predict`."""
        if isinstance(exams, Dataset) and self.provenance.get("canonical_sides"):
            warn_of_other_sides(exams)
        read = TrainedSeries(as_exams(exams), self.series, self.trained)
        inspected = Inspected(read, self._sizes)
        ids, probabilities = self._probabilities(inspected)
        return Predictions(ids, self.findings, probabilities, inspected.remarks())

    def explain(self, exam: Exam) -> Explanation:
        """Decomposes the logits of one exam; see `Model.explain`."""
        refuse_no_exam(exam)
        exam = select_trained(exam, self.series, self.trained)
        found = self._contributions(exam)
        return Explanation(
            exam=exam.id,
            findings=tuple(self.findings),
            logits=found.logits,
            bias=found.bias,
            probabilities=found.probabilities,
            native=MappingProxyType(dict(found.native)),
            shapes=MappingProxyType({n: shape_of(s) for n, s in exam.stacks.items()}),
            preparation=self.preparation,
            attention_fixed=found.attention_fixed,
            remarks=remarks_of(exam, self._sizes),
            uncalibrated=self.uncalibrated,
            series=self.series,
            stacks=exam.stacks,
            titles=self.titles,
        )

    def ablation(self, exam: Exam) -> Ablation:
        """Prepares predictions without parts of an exam; see `Model.ablation`."""
        refuse_no_exam(exam)
        return self._ablation(select_trained(exam, self.series, self.trained))

    @abstractmethod
    def _ablation(self, exam: Exam) -> Ablation:
        """Prepares an exam with the model's series."""

    @abstractmethod
    def _probabilities(
        self, exams: Exams
    ) -> tuple[tuple[str, ...], Float64[np.ndarray, "exams findings"]]:
        """Returns ids and calibrated probabilities of exams with the model's series."""

    @abstractmethod
    def _contributions(self, exam: Exam) -> Contributions:
        """Returns the decomposition of the logits of an exam with the model's series."""

    @cached_property
    def _sizes(self) -> Mapping[str, StackSizes]:
        return sizes_from(self.provenance.get("stack_sizes"))


def warn_of_other_sides(exams: Dataset) -> None:
    """Warns if not all knees look like left ones, for models that were trained on such knees."""
    if not has_canonical_sides(exams.root):
        warnings.warn(
            "the model was trained on knees that all look like left ones, and "
            f"{exams.root / SIDES_FILE} doesn't say so of these: import them with --sides left",
            MrkneeWarning,
            stacklevel=3,
        )


AnyModel = TypeVar("AnyModel", bound=Model)


ModelPaths = str | PathLike[str] | Sequence[str | PathLike[str]]
"""A run folder, an exported file, or a folder with the runs of several folds or seeds; several of
them form an ensemble."""


def load_model(
    *paths: ModelPaths,
    threads: int | None = None,
    runtime: RuntimeName | None = None,
    limits: Limits = NO_LIMITS,
) -> Model:
    """Loads a trained model or an ensemble; issues the model's notes as warnings.

    Args:
        paths: a run folder, a file written by `mrknee export`, or a folder with the runs of several
            folds or seeds. Several models, also as one list, form an ensemble, whose probabilities
            are the means of the members' calibrated probabilities (`mrknee.inference.ensemble`).
        threads: number of CPU threads; None: the default of the library.
        runtime: runtime of an exported file; None: ONNX Runtime.
        limits: limits of time and memory per exam. They apply to exported files only, whose graph
            may come from anywhere, whereas the network of a run folder is built by mrknee.

    Returns:
        The model: `model.predict(exams)`, `model.explain(exam)`, `model.findings`.

    Raises:
        MrkneeError: there is no model, its files are damaged, `threads` is out of range, a runtime
            is given for a run folder or is not installed, the findings of several models differ,
            or a model is given twice.

    Example:
        >>> import mrknee
        >>> model = mrknee.load_model("runs/first")
        >>> table = model.predict(mrknee.open_dataset("knees", split="valid"))
        >>> table["acl"].shape
        (6,)
        >>> both = mrknee.load_model("runs/first", "runs/second")
        >>> both.findings
        Findings(abnormal, acl, meniscus)
    """
    if threads is not None:
        THREADS.check("the number of threads", threads)
    files = paths_of(*paths)
    models = [_load(file, threads=threads, runtime=runtime, limits=limits) for file in files]
    if len(models) == 1:
        return with_warnings(models[0])
    from mrknee.inference.ensemble import Ensemble  # circular import

    return with_warnings(Ensemble(models, [str(file) for file in files]))


def _load(path: Path, *, threads: int | None, runtime: RuntimeName | None, limits: Limits) -> Model:
    if is_file(path) or path.suffix == ".onnx":
        from mrknee.inference.onnx_model import OnnxModel

        return OnnxModel(path, threads=threads, runtime=runtime or "onnxruntime", limits=limits)
    if runtime is not None:
        raise SettingsError(
            "a run folder is always computed by torch, so no runtime can be chosen",
            code="runtime",
            file=path,
            expected="an ONNX file written by `mrknee export`",
            found=f"a run folder, and the runtime {runtime}",
            advice="export the model first, or omit the runtime",
        )
    from mrknee.inference.torch_model import TorchModel, limit_threads

    if threads is not None:
        limit_threads(threads)
    return TorchModel(path)


def paths_of(*models: ModelPaths) -> tuple[Path, ...]:
    """Returns the paths of one model or of an ensemble's members, in the given order.

    A folder with the runs of several folds or seeds stands for these runs.

    Raises:
        ModelError: there is no path, or one is given twice and would have twice the weight; or the
            list of an ensemble's members can't be read.
    """
    paths = [member for path in _given(*models) for member in ensemble_members(path) or [path]]
    twice = [path for i, path in enumerate(paths) if path.resolve() in _resolved(paths[:i])]
    if not paths or twice:
        raise ModelError(
            "a model is given twice" if twice else "no model is given",
            code="ensemble",
            file=twice[0] if twice else None,
            expected="one model, or several different ones, which form an ensemble",
            found=", ".join(map(str, paths)) or "none",
        )
    return tuple(paths)


def _given(*models: ModelPaths) -> list[Path]:
    """Returns the paths of models as they were given, without those of an ensemble's members."""
    paths: list[Path] = []
    for one in models:
        paths += [Path(one)] if isinstance(one, str | PathLike) else map(Path, one)
    return paths


def _resolved(paths: Sequence[Path]) -> set[Path]:
    return {path.resolve() for path in paths}


def name_of(models: ModelPaths) -> str:
    """Returns the display name of a model: the names of its folders or files, joined by " + ".

    If members have the same name, their parent folders are included.
    """
    paths_of(models)  # refuses the same
    paths = [path.resolve() for path in _given(models)]
    names = [path.name for path in paths]
    if len(set(names)) < len(names):
        names = ["/".join(path.parts[-2:]) for path in paths]
    return " + ".join(names)


def with_warnings(model: AnyModel) -> AnyModel:
    """Issues the notes of a model as warnings, and returns the model."""
    for note in model.notes:
        warnings.warn(note, MrkneeWarning, stacklevel=3)
    return model
