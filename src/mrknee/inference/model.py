"""What any trained model does, a run folder's or an ONNX file's; importing it imports no torch."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from jaxtyping import Float32, Float64

from mrknee.errors import DataError, MrkneeWarning, SettingsError
from mrknee.exams import (
    Exam,
    ExamFolder,
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
from mrknee.exams.listing import declared_series, folder_meant, series_folders, what_is_there
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
        read = TrainedSeries(as_exams(exams), self.series, self.trained)
        inspected = Inspected(read, self._sizes)
        ids, probabilities = self._probabilities(inspected)
        return Predictions(ids, self.findings, probabilities, inspected.remarks())

    def explain(self, exam: Exam) -> Explanation:
        """Takes the logits of one exam apart.

        Args:
            exam: the exam; series it lacks are missing from the result.

        Raises:
            DataError: it has no series that the model was trained on.
        """
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

    def __repr__(self) -> str:
        data = self.provenance.get("data")
        return (
            f"{type(self).__name__}({', '.join(self.findings)} from {', '.join(self.trained.names)}"
            + (f"; trained on {data}" if data else "")
            + ")"
        )


AnyModel = TypeVar("AnyModel", bound=Model)


def load_model(
    path: str | Path,
    *,
    threads: int | None = None,
    runtime: RuntimeName | None = None,
    limits: Limits = NO_LIMITS,
) -> Model:
    """Loads a trained model, whichever way it is stored; warns of what its user should know.

    Args:
        path: a run folder, or the file that `mrknee export` wrote.
        threads: processor threads to compute with; None leaves it to the library.
        runtime: what computes an exported file; None takes ONNX Runtime.
        limits: what computing one exam may take. They hold for an exported file only: its graph
            may be anybody's, a run folder's network is one that mrknee builds.

    Raises:
        MrkneeError: there is no model, its files are damaged, `threads` is out of range, or a
            runtime is given for a run folder, or is not installed.

    Example:
        >>> import mrknee
        >>> model = mrknee.load_model("runs/first")  # doctest: +SKIP
        >>> table = model.predict(mrknee.open_dataset("MRNet-v1.0"))  # doctest: +SKIP
        >>> table["acl"]  # doctest: +SKIP
    """
    path = Path(path)
    if threads is not None:
        THREADS.check("the number of threads", threads)
    if path.is_file() or path.suffix == ".onnx":
        from mrknee.inference.onnx_model import OnnxModel

        file = OnnxModel(path, threads=threads, runtime=runtime or "onnxruntime", limits=limits)
        return noted(file)
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
    return noted(TorchModel(path))


def noted(model: AnyModel) -> AnyModel:
    """The model as it is; its notes are given as warnings."""
    for note in model.notes:
        warnings.warn(note, MrkneeWarning, stacklevel=3)
    return model


def open_exams(
    path: str | Path, split: str, *, allow_missing_plane: bool = False, axes: str | None = None
) -> ExamFolder:
    """Opens a data set's split, or a folder that holds the series' folders itself.

    Args:
        path: `DATA` with `DATA/<split>/axial/...`, or a folder with `axial/...`.
        split: which split of a data set.
        allow_missing_plane: let exams through that lack series.
        axes: the order of the files' axes, as for `ExamFolder`.

    Raises:
        MrkneeError: neither is there, an exam lacks a series, or the stacks' shapes say that their
            axes are in another order.
    """
    path = Path(path)
    inside = path if series_folders(path) else path / split
    if not series_folders(inside):
        raise DataError(
            "there are no exams here",
            code="no-exams",
            file=path,
            expected=f"a data set with a folder {split}/, or the folders "
            + ", ".join(f"{name}/" for name in declared_series(path).names),
            found=what_is_there(path),
            advice=folder_meant(path, data_set=False, split=split),
        )
    folder = ExamFolder(inside, allow_missing_plane=allow_missing_plane, axes=axes)
    folder.refuse_other_axes()
    return folder
