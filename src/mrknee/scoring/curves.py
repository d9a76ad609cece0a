"""Curves for the report: ROC with its band, precision-recall with average precision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64


@dataclass(frozen=True)
class Roc:
    """The ROC curve of one finding, from (0, 0) to (1, 1).

    Attributes:
        fpr: float64 (points,): false positive rate, 1 - specificity; rising. Empty without a curve.
        tpr: float64 (points,): true positive rate, sensitivity; rising.
        thresholds: float64 (points,): an exam is positive if its score is at least this; falling,
            the first infinite.
        n_positive: exams with label 1.
        n_negative: exams with label 0.
        reason: why there is no curve, or None when there is one.
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
        low: float64 (grid,): lower end of the sensitivity's interval at that false positive rate.
        high: float64 (grid,): its upper end.
        method: how the band was made; "none" without one.
        reason: why there is no band, or None when there is one.
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
        prevalence: share of positive exams: what scores that know nothing reach; NaN like value.
        n_positive: exams with label 1.
        n_negative: exams with label 0.
        method: how the interval was made; "none" without one.
        reason: why there is no value, or None when there is one.
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
        recall: float64 (points,): sensitivity, falling from 1 to 0. Empty without a curve.
        precision: float64 (points,): positive predictive value; the last is 1, by convention.
        average_precision: 0 to 1, or NaN.
        low: lower end of its 95 % interval, or NaN.
        high: upper end of its 95 % interval, or NaN.
        prevalence: share of positive exams: the precision of scores that know nothing.
        n_positive: exams with label 1.
        n_negative: exams with label 0.
        reason: why there is no curve, or None when there is one.
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
