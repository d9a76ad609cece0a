"""Calibration of the arms of an experiment: Brier scores and calibration errors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from mrknee.metrics.folds import Fold
from mrknee.metrics.reliability import brier, reliability

COLUMNS = ("arm", "finding", "brier", "brier_sd", "ece", "ece_sd", "ece_if_calibrated")
"""Names of the columns of `calibration.csv`."""


def calibration_rows(folds: Sequence[Fold], arms: Sequence[str]) -> list[tuple[str, ...]]:
    """Computes how well the probabilities of each arm are calibrated.

    Args:
        folds: labels and probabilities; several folds are averaged.
        arms: names of the arms, in the order of the rows.

    Returns:
        A row of `COLUMNS` per arm and finding: the Brier score (`mrknee.metrics.reliability.brier`)
        and the expected calibration error (`reliability`), means over the seeds, with their SD over
        the seeds (empty for one seed), and the calibration error that perfectly calibrated
        probabilities would have. Findings within another one are left out, and those without
        labels in a fold.
    """
    rows = []
    for arm in arms:
        for finding in folds[0].scores[arm]:
            if finding in folds[0].within or not all(finding in fold.labels for fold in folds):
                continue
            values = np.mean(
                [
                    [_measures(fold, finding, own) for own in fold.scores[arm][finding]]
                    for fold in folds
                ],
                axis=0,
            )  # (seeds, 3)
            means = values.mean(axis=0)
            sds = values.std(axis=0, ddof=1) if len(values) > 1 else np.full(3, math.nan)
            numbers = (means[0], sds[0], means[1], sds[1], means[2])
            rows.append((arm, finding, *("" if math.isnan(x) else f"{x:.4f}" for x in numbers)))
    return rows


def _measures(
    fold: Fold, finding: str, scores: Float[np.ndarray, " exams"]
) -> tuple[float, float, float]:
    """Returns Brier score, calibration error and its expectation if calibrated."""
    labels = fold.labels[finding]
    diagram = reliability(labels, scores)
    return brier(labels, scores).value, diagram.ece, diagram.ece_if_calibrated
