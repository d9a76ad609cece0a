"""ROC curve with its confidence band; precision-recall curve with average precision.

The points of the curves equal those of scikit-learn; they are computed here because importing
scikit-learn takes seconds. Band and interval come from exams drawn with replacement within each
class; many replicates are computed at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from mrknee.metrics.discrimination import DELONG_MIN_CLASS, auc, step_starts
from mrknee.metrics.proportions import wilson_interval
from mrknee.metrics.resampling import FEW_REPLICATES, draw_counts

GRID = 101
"""Number of points of the band: every hundredth of the false positive rate."""

BAND = "bootstrap within classes, pointwise, extended to Wilson's interval of the sensitivity"
WITHIN_CLASSES = "bootstrap within classes, percentile"
WILSON = "Wilson's, treated as a proportion of the smaller class"


@dataclass(frozen=True)
class Roc:
    """The ROC curve of one finding, from (0, 0) to (1, 1).

    Attributes:
        fpr: float64 (points,): false positive rate, 1 - specificity; ascending. Empty without a
            curve.
        tpr: float64 (points,): true positive rate, sensitivity; ascending.
        thresholds: float64 (points,): smallest score that is called positive; descending, the
            first is infinite.
        n_positive: exams with label 1.
        n_negative: exams with label 0.
        reason: why there is no curve, or None if there is one.
    """

    fpr: Float64[np.ndarray, " points"]
    tpr: Float64[np.ndarray, " points"]
    thresholds: Float64[np.ndarray, " points"]
    n_positive: int
    n_negative: int
    reason: str | None = None


@dataclass(frozen=True)
class RocBand:
    """The pointwise 95 % band of a ROC curve.

    Attributes:
        fpr: float64 (grid,): 0 to 1 in equal steps. Empty without a band.
        low: float64 (grid,): lower limit of the sensitivity at each false positive rate.
        high: float64 (grid,): upper limit of the sensitivity.
        method: method of the band; "none" without one.
        reason: why there is no band, or None if there is one.
    """

    fpr: Float64[np.ndarray, " grid"]
    low: Float64[np.ndarray, " grid"]
    high: Float64[np.ndarray, " grid"]
    method: str
    reason: str | None = None


@dataclass(frozen=True)
class AveragePrecision:
    """The average precision of one finding, with its 95 % interval.

    Attributes:
        value: mean of the precision over the steps of recall; 0 to 1, or NaN.
        low: lower end of the interval, or NaN.
        high: upper end of the interval, or NaN.
        prevalence: share of positive exams: the value of uninformative scores; NaN like `value`.
        n_positive: exams with label 1.
        n_negative: exams with label 0.
        method: method of the interval; "none" without one.
        reason: why there is no value, or None if there is one.
    """

    value: float
    low: float
    high: float
    prevalence: float
    n_positive: int
    n_negative: int
    method: str
    reason: str | None = None


@dataclass(frozen=True)
class PrecisionRecall:
    """The precision-recall curve of one finding.

    Attributes:
        recall: float64 (points,): sensitivity, descending from 1 to 0. Empty without a curve.
        precision: float64 (points,): positive predictive value; the last is 1, by convention.
        average_precision: 0 to 1, or NaN.
        low: lower end of its 95 % interval, or NaN.
        high: upper end of its 95 % interval, or NaN.
        prevalence: share of positive exams: the precision of uninformative scores.
        n_positive: exams with label 1.
        n_negative: exams with label 0.
        reason: why there is no curve, or None if there is one.
    """

    recall: Float64[np.ndarray, " points"]
    precision: Float64[np.ndarray, " points"]
    average_precision: float
    low: float
    high: float
    prevalence: float
    n_positive: int
    n_negative: int
    reason: str | None = None


def roc(labels: Float[np.ndarray, " exams"], scores: Float[np.ndarray, " exams"]) -> Roc:
    """Computes the ROC curve, with the points of scikit-learn's `roc_curve`: its corners.

    Args:
        labels: 1 present, 0 absent, NaN unknown: excluded.
        scores: larger means more likely present; finite.

    Returns:
        The curve; empty, with a reason, if the known labels contain only one class or none.

    Raises:
        MrkneeError: a score is NaN, or a label is not 0, 1 or NaN.
    """
    area = auc(labels, scores)
    if area.reason is not None:
        empty = np.empty(0)
        return Roc(empty, empty, empty, area.n_positive, area.n_negative, area.reason)
    hits, false_alarms, _ = (counts[0] for counts in _counts(labels, scores))
    thresholds = np.unique(scores[~np.isnan(labels)]).astype(np.float64)[::-1]
    bends = (np.diff(hits, 2) != 0) | (np.diff(false_alarms, 2) != 0)
    corner = np.concatenate([[True], bends, [True]])[-len(hits) :]
    return Roc(
        fpr=np.append(0.0, false_alarms[corner] / area.n_negative),
        tpr=np.append(0.0, hits[corner] / area.n_positive),
        thresholds=np.append(np.inf, thresholds[corner]),
        n_positive=area.n_positive,
        n_negative=area.n_negative,
    )


def roc_band(
    labels: Float[np.ndarray, " exams"], scores: Float[np.ndarray, " exams"], *, seed: int
) -> RocBand:
    """Computes the pointwise 95 % band of the sensitivity for each false positive rate.

    Exams are resampled within each class; the limits are the 2.5 and 97.5 % quantiles of the
    replicates' sensitivities (vertical averaging: S. Macskassy, F. Provost, "Confidence bands for
    ROC curves: methods and an empirical study", ROCAI 2004). Resampling underestimates the variance
    where the curve is at 0 or 1. The sensitivity at a false positive rate is at least as uncertain
    as that at a known threshold, so the band is extended to contain Wilson's interval. Pointwise:
    in 95 % of samples the band contains the true curve at one given false positive rate, not the
    complete curve. Near a false positive rate of 0 it depends on the few negative exams with the
    highest scores and is too narrow.

    Args:
        labels: 1 present, 0 absent, NaN unknown: excluded.
        scores: larger means more likely present; finite.
        seed: seed of the resampling.

    Returns:
        The band; empty, with a reason, if the known labels contain only one class or none.

    Raises:
        MrkneeError: a score is NaN, or a label is not 0, 1 or NaN.
    """
    curve = roc(labels, scores)
    if curve.reason is not None:
        empty = np.empty(0)
        return RocBand(empty, empty, empty, "none", curve.reason)
    grid = np.linspace(0, 1, GRID)
    sensitivities = np.concatenate(
        [_sensitivities_at(grid, *counts) for counts in _resampled_counts(labels, scores, seed)]
    )
    low, high = np.quantile(sensitivities, [0.025, 0.975], axis=0)
    sensitivity = np.interp(grid, curve.fpr, curve.tpr)
    wilson_low, wilson_high = wilson_interval(sensitivity, curve.n_positive)
    return RocBand(grid, np.minimum(low, wilson_low), np.maximum(high, wilson_high), BAND)


def average_precision(
    labels: Float[np.ndarray, " exams"], scores: Float[np.ndarray, " exams"], *, seed: int = 0
) -> AveragePrecision:
    """Computes the average precision, as defined by scikit-learn, with its 95 % interval.

    The interval is the percentile interval of exams resampled within each class. If resampling
    underestimates the variance (perfect ranking, all scores equal, a class of fewer than
    `DELONG_MIN_CLASS` exams), it is Wilson's interval, treating the value as a proportion: K. Boyd,
    K. Eng, C. Page, "Area under the precision-recall curve", ECML PKDD 2013, use a binomial
    interval with the number of positive exams; here the size of the smaller class is used, so that
    few negatives widen the interval as well.

    Args:
        labels: 1 present, 0 absent, NaN unknown: excluded.
        scores: larger means more likely present; finite.
        seed: seed of the resampling.

    Returns:
        The value; NaN, with a reason, if the known labels contain only one class or none.

    Raises:
        MrkneeError: a score is NaN, or a label is not 0, 1 or NaN.
    """
    area = auc(labels, scores)
    m, n = area.n_positive, area.n_negative
    if area.reason is not None:
        nan = math.nan
        return AveragePrecision(nan, nan, nan, nan, m, n, "none", area.reason)
    known = ~np.isnan(labels)
    value = float(_average_precisions(*_counts(labels, scores))[0])
    prevalence = m / (m + n)
    if min(m, n) < DELONG_MIN_CLASS or area.value in (0.0, 1.0) or np.ptp(scores[known]) == 0:
        low, high = wilson_interval(np.array([value]), min(m, n))
        return AveragePrecision(value, float(low[0]), float(high[0]), prevalence, m, n, WILSON)
    values = np.concatenate(
        [_average_precisions(*counts) for counts in _resampled_counts(labels, scores, seed)]
    )
    ends = np.quantile(values, [0.025, 0.975])
    return AveragePrecision(value, float(ends[0]), float(ends[1]), prevalence, m, n, WITHIN_CLASSES)


def precision_recall(
    labels: Float[np.ndarray, " exams"], scores: Float[np.ndarray, " exams"], *, seed: int = 0
) -> PrecisionRecall:
    """Computes the precision-recall curve, with the average precision and its interval.

    The points are those of scikit-learn's `precision_recall_curve`.

    Args:
        labels: 1 present, 0 absent, NaN unknown: excluded.
        scores: larger means more likely present; finite.
        seed: seed of the resampling.

    Returns:
        The curve; empty, with a reason, if the known labels contain only one class or none.

    Raises:
        MrkneeError: a score is NaN, or a label is not 0, 1 or NaN.
    """
    area = average_precision(labels, scores, seed=seed)
    recall, precision = np.empty(0), np.empty(0)
    if area.reason is None:
        hits, false_alarms, _ = (counts[0] for counts in _counts(labels, scores))
        precision = np.append((hits / (hits + false_alarms))[::-1], 1.0)
        recall = np.append((hits / area.n_positive)[::-1], 0.0)
    return PrecisionRecall(
        recall,
        precision,
        area.value,
        area.low,
        area.high,
        area.prevalence,
        area.n_positive,
        area.n_negative,
        area.reason,
    )


Counts = tuple[
    Float64[np.ndarray, "replicates steps"],
    Float64[np.ndarray, "replicates steps"],
    Float64[np.ndarray, "replicates steps"],
]
"""At each distinct score, descending: positives and negatives at or above it, positives at it."""


def _sensitivities_at(
    rates: Float64[np.ndarray, " rates"],
    hits: Float64[np.ndarray, "replicates steps"],
    false_alarms: Float64[np.ndarray, "replicates steps"],
    _: Float64[np.ndarray, "replicates steps"],
) -> Float64[np.ndarray, "replicates rates"]:
    """Computes the sensitivities at these false positive rates from `Counts`."""
    zero = np.zeros((len(hits), 1))
    fpr = np.hstack([zero, false_alarms / false_alarms[:, -1:]])
    tpr = np.hstack([zero, hits / hits[:, -1:]])
    # at a repeated false positive rate, np.interp uses the last, highest sensitivity
    return np.stack([np.interp(rates, x, y) for x, y in zip(fpr, tpr, strict=True)])


def _average_precisions(
    hits: Float64[np.ndarray, "replicates steps"],
    false_alarms: Float64[np.ndarray, "replicates steps"],
    at_score: Float64[np.ndarray, "replicates steps"],
) -> Float64[np.ndarray, " replicates"]:
    """Computes the mean of the precision over the positives from `Counts`."""
    called = hits + false_alarms
    precision = np.divide(hits, called, out=np.zeros_like(hits), where=called > 0)
    average: Float64[np.ndarray, " replicates"] = (at_score * precision).sum(axis=1) / hits[:, -1]
    return average


def _counts(labels: Float[np.ndarray, " exams"], scores: Float[np.ndarray, " exams"]) -> Counts:
    """Returns the counts of the exams themselves, as one replicate."""
    positive, starts = _ranked(labels, scores)
    return _cumulative(np.ones((1, len(positive))), positive, starts)


def _resampled_counts(
    labels: Float[np.ndarray, " exams"], scores: Float[np.ndarray, " exams"], seed: int
) -> Iterator[Counts]:
    """Yields counts of exams drawn with replacement within each class, in blocks of replicates."""
    positive, starts = _ranked(labels, scores)
    classes = [np.flatnonzero(positive), np.flatnonzero(~positive)]
    for times in draw_counts(classes, FEW_REPLICATES, np.random.default_rng(seed)):
        yield _cumulative(times, positive, starts)


def _cumulative(
    times: Float64[np.ndarray, "replicates known"],
    positive: Bool[np.ndarray, " known"],
    starts: Int64[np.ndarray, " steps"],
) -> Counts:
    """Returns the counts if each exam occurs the given number of times."""
    positives, negatives = (
        np.add.reduceat(times * members, starts, axis=1) for members in (positive, ~positive)
    )
    return np.cumsum(positives, axis=1), np.cumsum(negatives, axis=1), positives


def _ranked(
    labels: Float[np.ndarray, " exams"], scores: Float[np.ndarray, " exams"]
) -> tuple[Bool[np.ndarray, " known"], Int64[np.ndarray, " steps"]]:
    """Returns which labelled exams are positive, by descending score, and each score's start."""
    known = ~np.isnan(labels)
    order = np.flatnonzero(known)[np.argsort(-scores[known], kind="stable")]
    return labels[order] == 1, step_starts(scores[order])
