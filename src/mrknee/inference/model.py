"""What any trained model does, a run folder's or an ONNX file's; importing it imports no torch."""

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
    Exam,
    Exams,
    Findings,
    Inspected,
    SeriesList,
    StackSizes,
    as_exams,
    remarks_of,
)
from mrknee.exams.axes import shape_of
from mrknee.exams.exam import refuse_no_exam
from mrknee.exams.plausibility import sizes_from
from mrknee.inference.explanation import Explanation
from mrknee.inference.runtimes import NO_LIMITS, Limits, RuntimeName
from mrknee.inference.trained_series import TrainedSeries, as_read, left_out
from mrknee.networks.description import trained_series
from mrknee.ranges import THREADS
from mrknee.scoring.predictions import Predictions
from mrknee.tensors.settings import PreparationSettings

if TYPE_CHECKING:
    from mrknee.scoring.decisions import Decisions


@dataclass(frozen=True)
class Contributions:
    """What a model computes to explain an exam; the parts of `Explanation` of the same names."""

    logits: Float64[np.ndarray, " findings"]
    bias: Float64[np.ndarray, " findings"]
    probabilities: Float64[np.ndarray, " findings"]
    native: Mapping[str, Float32[np.ndarray, "findings _ _ _"]]
    attention_fixed: bool


class Model(ABC):
    """A trained model: preparation, network, calibration and thresholds, and where it comes from.

    `load_model` opens one.

    Attributes:
        findings: what it reads, in order.
        series: the series of its exams, in order.
        trained: those that it was trained on; an exam's others are left out.
        preparation: how a stack becomes input.
        provenance: data, recipe, seed, versions, as training noted them.
        notes: what whoever uses it should know, as sentences.
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
        self.notes = (*notes, *left_out(series, self.trained))

    @cached_property
    def decisions(self) -> Decisions:
        """The calibration, and the thresholds on calibrated probabilities."""
        from mrknee.scoring.decisions import Decisions  # it imports scipy

        return Decisions.from_dict(self._decisions)

    @property
    def titles(self) -> Mapping[str, str]:
        """Finding -> its title, for those that the data set of its training declared one of."""
        titles: Mapping[str, str] = self.provenance.get("titles", {})
        return titles

    @property
    def uncalibrated(self) -> dict[str, str]:
        """Finding -> why its probability is the network's own; calibrated ones are not in it."""
        fitted = self._decisions.get("calibration")
        if fitted is None:
            return dict.fromkeys(self.findings, "not calibrated: training fitted no calibration")
        prevalences, reasons = fitted["prevalences"], fitted["reasons"]
        return {
            name: reasons.get(name, "not calibrated")
            for name in self.findings
            if prevalences.get(name) is None
        }

    @abstractmethod
    def predict(self, exams: Exams | Exam) -> Predictions:
        """Reads exams.

        Args:
            exams: a data set, any other row of exams, or a single exam.

        Returns:
            One calibrated probability per exam and finding, 0 to 1, in the exams' order, with
            remarks on exams that are odd.

        Raises:
            DataError: an exam's files can't be used, or there are no exams.
        """

    @abstractmethod
    def explain(self, exam: Exam) -> Explanation:
        """Takes the logits of one exam apart.

        Args:
            exam: the exam; series it lacks are missing from the result.

        Raises:
            DataError: it has no series that the model was trained on.
        """

    def __repr__(self) -> str:
        data = self.provenance.get("data")
        return (
            f"{type(self).__name__}({', '.join(self.findings)} from {', '.join(self.trained.names)}"
            + (f"; trained on {data}" if data else "")
            + ")"
        )


class SingleModel(Model):
    """A model that is not an ensemble: one network, however it is computed."""

    def predict(self, exams: Exams | Exam) -> Predictions:
        """Reads exams; see `Model.predict`."""
        read = TrainedSeries(as_exams(exams), self.series, self.trained)
        inspected = Inspected(read, self._sizes)
        ids, probabilities = self._probabilities(inspected)
        return Predictions(ids, self.findings, probabilities, inspected.remarks())

    def explain(self, exam: Exam) -> Explanation:
        """Takes the logits of one exam apart; see `Model.explain`."""
        refuse_no_exam(exam)
        exam = as_read(exam, self.series, self.trained)
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

    @abstractmethod
    def _probabilities(
        self, exams: Exams
    ) -> tuple[tuple[str, ...], Float64[np.ndarray, "exams findings"]]:
        """Ids and calibrated probabilities of exams that have the model's series."""

    @abstractmethod
    def _contributions(self, exam: Exam) -> Contributions:
        """The parts of the logits of an exam that has the model's series."""

    @cached_property
    def _sizes(self) -> Mapping[str, StackSizes]:
        return sizes_from(self.provenance.get("stack_sizes"))


AnyModel = TypeVar("AnyModel", bound=Model)


ModelPaths = str | PathLike[str] | Sequence[str | PathLike[str]]
"""A run folder or an exported file, or several of them, which are an ensemble."""


def load_model(
    *paths: ModelPaths,
    threads: int | None = None,
    runtime: RuntimeName | None = None,
    limits: Limits = NO_LIMITS,
) -> Model:
    """Loads a trained model, whichever way it is stored; warns of what its user should know.

    Args:
        paths: a run folder, or the file that `mrknee export` wrote. Several, also as one list, are
            an ensemble: its probabilities are the means of the members' calibrated ones
            (`mrknee.inference.ensemble`).
        threads: processor threads to compute with; None leaves it to the library.
        runtime: what computes an exported file; None takes ONNX Runtime.
        limits: what computing one exam may take. They hold for an exported file only: its graph
            may be anybody's, a run folder's network is one that mrknee builds.

    Returns:
        The model: `model.predict(exams)`, `model.explain(exam)`, `model.findings`.

    Raises:
        MrkneeError: there is no model, its files are damaged, `threads` is out of range, or a
            runtime is given for a run folder, or is not installed; or several are given whose
            findings differ, or one of them twice.

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
        return noted(models[0])
    from mrknee.inference.ensemble import Ensemble  # it imports this file

    return noted(Ensemble(models, [str(file) for file in files]))


def _load(path: Path, *, threads: int | None, runtime: RuntimeName | None, limits: Limits) -> Model:
    if path.is_file() or path.suffix == ".onnx":
        from mrknee.inference.onnx_model import OnnxModel

        return OnnxModel(path, threads=threads, runtime=runtime or "onnxruntime", limits=limits)
    if runtime is not None:
        raise SettingsError(
            "a run folder is computed by torch, whatever runtime is given",
            code="runtime",
            file=path,
            expected="an ONNX file that `mrknee export` wrote",
            found=f"a run folder, and the runtime {runtime}",
            advice="export the model first, or leave the runtime out",
        )
    from mrknee.inference.torch_model import TorchModel, limit_threads

    if threads is not None:
        limit_threads(threads)
    return TorchModel(path)


def paths_of(*models: ModelPaths) -> tuple[Path, ...]:
    """The paths of one model or of an ensemble's members, in the order given.

    Raises:
        ModelError: there is none, or one is there twice, which would count twice in the mean.
    """
    paths: list[Path] = []
    for one in models:
        paths += [Path(one)] if isinstance(one, str | PathLike) else map(Path, one)
    twice = [path for i, path in enumerate(paths) if path.resolve() in _resolved(paths[:i])]
    if not paths or twice:
        raise ModelError(
            "a model is named twice" if twice else "no model is named",
            code="ensemble",
            file=twice[0] if twice else None,
            expected="one model, or several different ones, which are an ensemble",
            found=", ".join(map(str, paths)) or "none",
        )
    return tuple(paths)


def _resolved(paths: Sequence[Path]) -> set[Path]:
    return {path.resolve() for path in paths}


def name_of(models: ModelPaths) -> str:
    """What a model is called on pages: its folder's or file's name; several with + between.

    Members whose names are the same are called by the folder above, too.
    """
    paths = [path.resolve() for path in paths_of(models)]
    names = [path.name for path in paths]
    if len(set(names)) < len(names):
        names = ["/".join(path.parts[-2:]) for path in paths]
    return " + ".join(names)


def noted(model: AnyModel) -> AnyModel:
    """The model as it is; its notes are given as warnings."""
    for note in model.notes:
        warnings.warn(note, MrkneeWarning, stacklevel=3)
    return model
