"""What any trained model does, a run folder's or an ONNX file's; importing it imports no torch."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from mrknee.errors import ModelError, MrkneeWarning, SettingsError
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
        ('abnormal', 'acl', 'meniscus')
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
    from mrknee.inference.predictor import Predictor, limit_threads

    if threads is not None:
        limit_threads(threads)
    return Predictor(path)


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


def uncalibrated(decisions: Mapping[str, Any], findings: Sequence[str]) -> dict[str, str]:
    """Which findings' probabilities are the network's own, because nothing could be fitted.

    Args:
        decisions: a model's, in plain form.
        findings: the model's.

    Returns:
        Finding -> why it is not calibrated; a finding that is calibrated is not in it.
    """
    if "members" in decisions:  # an ensemble's: a mean is calibrated only where all members are
        each = [uncalibrated(one, findings) for one in decisions["members"]]
        return {name: why for one in reversed(each) for name, why in one.items()}
    fitted = decisions.get("calibration")
    if fitted is None:
        return dict.fromkeys(findings, "not calibrated: training fitted no calibration")
    prevalences, reasons = fitted["prevalences"], fitted["reasons"]
    return {
        name: reasons.get(name, "not calibrated")
        for name in findings
        if prevalences.get(name) is None
    }
