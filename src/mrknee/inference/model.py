"""What any trained model does, a run folder's or an ONNX file's; importing it imports no torch."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from mrknee.errors import MrkneeWarning, SettingsError
from mrknee.exams import Exam, Exams, Findings, Plane
from mrknee.inference.explanation import Explanation, Method
from mrknee.inference.runtimes import NO_LIMITS, Limits, RuntimeName
from mrknee.ranges import THREADS
from mrknee.scoring.predictions import Predictions
from mrknee.tensors.settings import PreparationSettings


@runtime_checkable
class Model(Protocol):
    """A trained model, ready to read exams."""

    @property
    def findings(self) -> Findings:
        """What it reads, in order."""

    @property
    def planes(self) -> tuple[Plane, ...]:
        """The planes it was trained on; an exam's others are left out."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What whoever uses it should know, as sentences."""

    @property
    def preparation(self) -> PreparationSettings:
        """How a stack becomes input."""

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Data, recipe, seed, versions, as training noted them."""

    @property
    def decisions(self) -> Mapping[str, Any]:
        """Its calibration and operating points in plain form; see `mrknee.inference.decisions`."""

    def predict(self, exams: Exams | Exam) -> Predictions:
        """One calibrated probability an exam and finding, in the exams' order."""

    def explain(self, exam: Exam, *, method: Method | None = None) -> Explanation:
        """Takes the logits of one exam apart."""


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
    from mrknee.inference.predictor import Predictor, limit_threads

    if threads is not None:
        limit_threads(threads)
    return noted(Predictor(path))


def noted(model: AnyModel) -> AnyModel:
    """The model as it is; its notes are given as warnings."""
    for note in model.notes:
        warnings.warn(note, MrkneeWarning, stacklevel=3)
    return model


def uncalibrated(decisions: Mapping[str, Any], findings: Sequence[str]) -> dict[str, str]:
    """Which findings' probabilities are the network's own, because nothing could be fitted.

    Args:
        decisions: a model's, in plain form.
        findings: the model's.

    Returns:
        Finding -> why it is not calibrated; a finding that is calibrated is not in it.
    """
    fitted = decisions.get("calibration")
    if fitted is None:
        return dict.fromkeys(findings, "not calibrated: training fitted no calibration")
    prevalences, reasons = fitted["prevalences"], fitted["reasons"]
    return {
        name: reasons.get(name, "not calibrated")
        for name in findings
        if prevalences.get(name) is None
    }
