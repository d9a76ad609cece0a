"""Evaluation after the last epoch: calibration, operating points, and scores on valid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mrknee.exams import Dataset, Findings, Remark, cut_labels, has_soft
from mrknee.exams.plausibility import notes_on, remarks_on, sizes_from
from mrknee.metrics.calibration import Calibration, fit_calibration
from mrknee.metrics.decisions import Decisions
from mrknee.metrics.operating_point import OperatingPoint, at_sensitivity, youden
from mrknee.metrics.predictions import Predictions, write_remarks
from mrknee.metrics.scorecard import Scorecard, score
from mrknee.models.checkpoint import load_checkpoint, save_checkpoint
from mrknee.models.feature_cache import FeatureCache
from mrknee.models.prediction import device_here, predict_batches, prediction_batches
from mrknee.run_folder import RunFolder
from mrknee.training.distributed import Processes, gather
from mrknee.training.parts import Parts
from mrknee.training.recipe import Recipe
from mrknee.transforms.batches import ExamDataset
from mrknee.transforms.preparation import Preparation

OPTIMISTIC = "optimistic: the epoch was selected on these exams"
FITTED = "optimistic: calibration and operating points were fitted on these exams"

SOFT = "soft labels count as present from 0.5 on, in calibration, operating points and scores"


def predict_best(
    out: Path, parts: Parts, recipe: Recipe, processes: Processes
) -> dict[str, Predictions]:
    """Predicts the inner exams and valid with the network of the best epoch.

    The exams are divided among the processes; all processes get all predictions. With
    `feature_cache`, stored feature maps are used as in training.

    Returns:
        inner, valid -> uncalibrated predictions, in the order of the data set; without inner if the
        epoch was selected on valid, without valid if it is missing or has no labels.
    """
    best = load_checkpoint(RunFolder(out).best)
    network = best.network.to(device_here())
    findings = Findings(best.network.findings)
    preparation, cache = Preparation.of(recipe.preparation), None
    if recipe.feature_cache is not None:
        cache = FeatureCache(recipe.feature_cache, network, preparation)

    def predict(exams: Dataset, positions: Sequence[int], part: str) -> Predictions:
        own_positions = positions[processes.rank :: processes.world_size]
        ids: tuple[str, ...] = ()
        probabilities = np.zeros((0, len(findings)))
        if own_positions:
            batches = prediction_batches(
                ExamDataset(exams, preparation), own_positions, recipe.workers
            )
            ids, probabilities = predict_batches(
                network,
                preparation,
                batches,
                len(own_positions),
                f"predicting {part}",
                cache,
            )
        rows: dict[str, np.ndarray] = {}
        for part_ids, part_rows in gather((ids, probabilities)):
            rows.update(zip(part_ids, part_rows, strict=True))
        ordered = tuple(exams.ids[position] for position in positions)
        return Predictions(ordered, findings, np.stack([rows[exam_id] for exam_id in ordered]))

    raw: dict[str, Predictions] = {}
    if recipe.selection.part == "inner":
        raw["inner"] = predict(parts.selection, parts.selection_positions, "inner")
    if parts.valid is not None and parts.scores_valid:
        raw["valid"] = predict(parts.valid, range(len(parts.valid)), "valid")
    return raw


def evaluate_best(
    out: Path, parts: Parts, recipe: Recipe, raw: Mapping[str, Predictions]
) -> Scorecard:
    """Fits calibration and operating points on the inner exams, then scores valid.

    Both are saved with the weights of the best epoch. If the epoch was selected on valid, there are
    no inner exams, and nothing is fitted. Predictions are written to the run folder.

    Args:
        out: the run folder; holds the best epoch in `best/`.
        parts: the exams of each part.
        recipe: the run's settings.
        raw: predictions from `predict_best`.

    Returns:
        The scorecard on valid, or on the inner exams if valid is missing or has no labels.
    """
    best = load_checkpoint(RunFolder(out).best)
    findings = Findings(best.network.findings)
    calibration: Calibration | None = None
    points: dict[str, tuple[OperatingPoint, ...]] = {}

    def write(raw: Predictions, part: str) -> Mapping[str, Sequence[Remark]]:
        calibrated = raw.probabilities
        if calibration is not None:
            calibrated = calibration.apply(findings, raw.probabilities)
        file = RunFolder(out).predictions(part)
        Predictions(raw.ids, findings, calibrated).write(file)
        exams = parts.selection if part == "inner" else parts.valid
        assert exams is not None  # noqa: S101  # raw holds its predictions
        positions = parts.selection_positions if part == "inner" else range(len(exams))
        remarks = remarks_on(exams, positions, sizes_from(best.provenance.get("stack_sizes")))
        write_remarks(file, remarks)
        return remarks

    def score_part(
        labels: Float[np.ndarray, "exams findings"],
        part: str,
        remarks: Mapping[str, Sequence[Remark]],
    ) -> Scorecard:
        notes = [] if part == "valid" and recipe.selection.part == "inner" else [OPTIMISTIC]
        if calibration is not None:
            notes += [f"{name}: {reason}" for name, reason in calibration.reasons.items()]
        if part == "inner":
            notes += [FITTED, "valid was not scored: it is missing or has no labels"]
        if recipe.fold is not None:
            notes.append(f"valid: fold {recipe.fold} of {recipe.folds} of the split train")
        if has_soft(labels):
            notes.append(SOFT)
        return score(
            findings,
            cut_labels(labels),
            # score the predictions as written
            Predictions.read(RunFolder(out).predictions(part)).probabilities,
            split=part,
            notes=[*notes, *notes_on(remarks, len(labels))],
            operating_points=points,
            calibration=calibration,
        )

    if "inner" in raw:
        labels = parts.selection.labels[list(parts.selection_positions)]
        calibration, points = fit_decisions(raw["inner"], cut_labels(labels), recipe)
        decisions = Decisions(calibration, points).to_dict()
        save_checkpoint(
            RunFolder(out).best, best.network, best.preparation, best.provenance, decisions
        )
        remarks = write(raw["inner"], "inner")
        if "valid" not in raw:
            return score_part(labels, "inner", remarks)
    assert parts.valid is not None  # noqa: S101  # raw holds its predictions
    return score_part(parts.valid.labels, "valid", write(raw["valid"], "valid"))


def fit_decisions(
    raw: Predictions, labels: Float[np.ndarray, "exams findings"], recipe: Recipe
) -> tuple[Calibration | None, dict[str, tuple[OperatingPoint, ...]]]:
    """Fits the calibration, and two operating points per finding on calibrated probabilities.

    Args:
        raw: uncalibrated predictions of exams that the network was not trained on.
        labels: labels of these exams: 1, 0 or NaN.
        recipe: states whether to calibrate, and the sensitivity of the second point.

    Returns:
        The calibration, None if the recipe turns it off; and finding -> Youden's point, and the
        point of the stated sensitivity.
    """
    calibration, probabilities = None, raw.probabilities
    if recipe.calibration != "none":
        calibration = fit_calibration(raw.findings, labels, raw.probabilities)
        probabilities = calibration.apply(raw.findings, raw.probabilities)
    points: dict[str, tuple[OperatingPoint, ...]] = {
        name: (
            youden(labels[:, i], probabilities[:, i]),
            at_sensitivity(labels[:, i], probabilities[:, i], recipe.sensitivity),
        )
        for i, name in enumerate(raw.findings)
    }
    return calibration, points
