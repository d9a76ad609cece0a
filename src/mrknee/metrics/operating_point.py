"""Operating points: thresholds for probabilities, and their sensitivity, specificity, PPV and NPV.

A threshold is fixed on one set of exams (`youden`, `at_sensitivity`) and scored on another
(`score_operating_point`). An exam is called positive if its probability is at least the threshold.
Thresholds lie halfway between the probabilities of two neighbouring exams, since with a threshold
equal to an exam's probability, rounding could change the call. The lowest candidate is 0, which
calls every exam positive.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int
from scipy.special import expit, logit

from mrknee.errors import ModelError, SettingsError
from mrknee.metrics.discrimination import Z_95
from mrknee.metrics.json_values import checked_count, checked_number, to_json_values
from mrknee.metrics.proportions import Proportion, check_prevalence, known_pairs, wilson

YOUDEN = "Youden"
"""Name of the rule by W. J. Youden, "Index for rating diagnostic tests", Cancer 3 (1950) 32-35."""


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold for one finding, and the rule that chose it.

    Attributes:
        rule: "Youden" or, for example, "sensitivity >= 0.90".
        threshold: smallest probability that is called positive; 0 to 1, or NaN.
        n_positive: number of exams with the finding that the threshold was fixed on.
        n_negative: number of exams without the finding that the threshold was fixed on.
        reason: why there is no threshold, or None if there is one.
    """

    rule: str
    threshold: float
    n_positive: int
    n_negative: int
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns a JSON-compatible dict; a threshold of NaN becomes None."""
        content: dict[str, Any] = to_json_values(self)
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> OperatingPoint:
        """Creates an operating point from the output of `to_dict`.

        Raises:
            MrkneeError: a field is missing or invalid.
        """
        try:
            threshold, reason = content["threshold"], content["reason"]
            return cls(
                rule=str(content["rule"]),
                threshold=math.nan if threshold is None else checked_number(threshold, 0, 1),
                n_positive=checked_count(content["n_positive"]),
                n_negative=checked_count(content["n_negative"]),
                reason=None if reason is None else str(reason),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                "an operating point can't be read",
                code="operating-points",
                expected="an operating point written by mrknee",
                found=f"{type(error).__name__}: {error}",
            ) from None


@dataclass(frozen=True)
class PredictiveValues:
    """PPV and NPV at a stated prevalence of the finding.

    Attributes:
        prevalence: the stated share of exams with the finding, above 0 and below 1.
        ppv: positive predictive value, from sensitivity and specificity; 0 to 1, or NaN.
        ppv_low: lower end of its 95 % interval, or NaN.
        ppv_high: upper end of its 95 % interval, or NaN.
        npv: negative predictive value, from sensitivity and specificity; 0 to 1, or NaN.
        npv_low: lower end of its 95 % interval, or NaN.
        npv_high: upper end of its 95 % interval, or NaN.
        n_positive: number of exams that the sensitivity was measured on.
        n_negative: number of exams that the specificity was measured on.
        reason: why a value is NaN, or None if none is.
    """

    prevalence: float
    ppv: float
    ppv_low: float
    ppv_high: float
    npv: float
    npv_low: float
    npv_high: float
    n_positive: int
    n_negative: int
    reason: str | None = None


@dataclass(frozen=True)
class OperatingScore:
    """The performance of an operating point on exams that it was not fixed on.

    Attributes:
        point: the operating point.
        tp: true positives; all four counts are 0 if there is no threshold.
        fp: false positives.
        fn: false negatives.
        tn: true negatives.
        sensitivity: tp / (tp + fn).
        specificity: tn / (fp + tn).
        ppv: tp / (tp + fp), at the prevalence of the exams scored.
        npv: tn / (fn + tn), at the prevalence of the exams scored.
        at_prevalence: PPV and NPV at a stated prevalence, or None if none was stated.
    """

    point: OperatingPoint
    tp: int
    fp: int
    fn: int
    tn: int
    sensitivity: Proportion
    specificity: Proportion
    ppv: Proportion
    npv: Proportion
    at_prevalence: PredictiveValues | None = None


def youden(
    labels: Float[np.ndarray, " exams"], probabilities: Float[np.ndarray, " exams"]
) -> OperatingPoint:
    """Chooses the threshold with the largest sensitivity + specificity.

    Of several equally good thresholds the lowest, most sensitive one is chosen, so as to miss fewer
    tears.

    Args:
        labels: 1 present, 0 absent, NaN unknown: excluded.
        probabilities: 0 to 1, calibrated like those that the threshold will be applied to.

    Returns:
        The operating point; with only one class, its threshold is NaN and a reason is given.

    Raises:
        MrkneeError: a label is not 0, 1 or NaN, or a probability is NaN or outside 0 to 1.
    """
    candidates = _Thresholds.of(labels, probabilities)
    m, n = candidates.n_positive, candidates.n_negative
    reason = _missing_class(m, n)
    if reason is not None:
        return OperatingPoint(YOUDEN, math.nan, m, n, reason)
    # in integers, so that ties are exact: J m n = tp n - fp m
    best = int(np.argmax(candidates.tp * n - candidates.fp * m))
    return OperatingPoint(YOUDEN, float(candidates.thresholds[best]), m, n)


def at_sensitivity(
    labels: Float[np.ndarray, " exams"],
    probabilities: Float[np.ndarray, " exams"],
    at_least: float,
) -> OperatingPoint:
    """Chooses the largest (most specific) threshold that reaches a given sensitivity.

    The sensitivity is measured on these exams; on other exams it is as likely lower as higher.

    Args:
        labels: 1 present, 0 absent, NaN unknown: excluded.
        probabilities: 0 to 1, calibrated like those that the threshold will be applied to.
        at_least: the sensitivity to reach; above 0, at most 1.

    Returns:
        The operating point; with only one class, its threshold is NaN and a reason is given.

    Raises:
        MrkneeError: `at_least` is out of range, a label is not 0, 1 or NaN, or a probability is
            NaN or outside 0 to 1.
    """
    if not 0 < at_least <= 1:
        raise SettingsError(
            "a sensitivity is out of range",
            code="range",
            expected="above 0, at most 1",
            found=f"{at_least}",
        )
    digits = f"{at_least:.2f}"
    rule = f"sensitivity >= {digits if float(digits) == at_least else at_least}"
    candidates = _Thresholds.of(labels, probabilities)
    m, n = candidates.n_positive, candidates.n_negative
    reason = _missing_class(m, n)
    if reason is not None:
        return OperatingPoint(rule, math.nan, m, n, reason)
    # tp decreases as the threshold increases; at threshold 0 all positives are called
    reached = np.flatnonzero(candidates.tp / m >= at_least)
    return OperatingPoint(rule, float(candidates.thresholds[reached[-1]]), m, n)


def score_operating_point(
    point: OperatingPoint,
    labels: Float[np.ndarray, " exams"],
    probabilities: Float[np.ndarray, " exams"],
    *,
    prevalence: float | None = None,
) -> OperatingScore:
    """Scores an operating point.

    Args:
        point: the operating point, fixed on other exams.
        labels: 1 present, 0 absent, NaN unknown: excluded.
        probabilities: 0 to 1, calibrated like those that the point was fixed on.
        prevalence: above 0, below 1: PPV and NPV are computed for this prevalence as well.

    Raises:
        MrkneeError: the prevalence is out of range, a label is not 0, 1 or NaN, or a probability
            is NaN or outside 0 to 1.
    """
    known, p = known_pairs(labels, probabilities)
    if math.isnan(point.threshold):
        known, p = known[:0], p[:0]
    called, present = p >= point.threshold, known == 1
    tp, fp = int((called & present).sum()), int((called & ~present).sum())
    fn, tn = int((~called & present).sum()), int((~called & ~present).sum())
    return OperatingScore(
        point=point,
        tp=tp,
        fp=fp,
        fn=fn,
        tn=tn,
        sensitivity=wilson(tp, tp + fn),
        specificity=wilson(tn, fp + tn),
        ppv=wilson(tp, tp + fp),
        npv=wilson(tn, fn + tn),
        at_prevalence=None if prevalence is None else predictive_values(tp, fp, fn, tn, prevalence),
    )


def predictive_values(tp: int, fp: int, fn: int, tn: int, prevalence: float) -> PredictiveValues:
    """Computes PPV and NPV at a stated prevalence from sensitivity and specificity (Bayes' rule).

    The 95 % intervals are on the logit scale: N. D. Mercaldo, K. F. Lau, X. H. Zhou, "Confidence
    intervals for predictive values with an emphasis to case-control studies", Statistics in
    Medicine 26 (2007) 2170-2183. If sensitivity or specificity is 0 or 1, the variance of the
    logit is undefined; their adjusted interval is used instead, with z^2 / 2 exams added to each
    cell (as in A. Agresti and B. A. Coull, The American Statistician 52 (1998) 119-126), extended
    to contain the unadjusted value.

    Args:
        tp: true positives.
        fp: false positives.
        fn: false negatives.
        tn: true negatives.
        prevalence: the stated share of exams with the finding; above 0, below 1.

    Raises:
        MrkneeError: the prevalence is out of range.
    """
    check_prevalence(prevalence)
    m, n = tp + fn, fp + tn
    nan = math.nan
    missing = _missing_class(m, n)
    if missing is not None:
        return PredictiveValues(prevalence, nan, nan, nan, nan, nan, nan, m, n, missing)
    # the NPV is the PPV with classes and calls exchanged
    ppv = _value_with_interval(tp / m, fp / n, m, n, prevalence)
    npv = _value_with_interval(tn / n, fn / m, n, m, 1 - prevalence)
    reason = None
    if tp + fp == 0:
        reason = "no exam is called positive, so there is no PPV"
    elif fn + tn == 0:
        reason = "no exam is called negative, so there is no NPV"
    return PredictiveValues(prevalence, *ppv, *npv, m, n, reason)


@dataclass(frozen=True)
class _Thresholds:
    """All candidate thresholds, ascending from 0, and the positives that each calls."""

    thresholds: Float64[np.ndarray, " thresholds"]
    tp: Int[np.ndarray, " thresholds"]
    fp: Int[np.ndarray, " thresholds"]
    n_positive: int
    n_negative: int

    @classmethod
    def of(
        cls, labels: Float[np.ndarray, " exams"], probabilities: Float[np.ndarray, " exams"]
    ) -> _Thresholds:
        known, p = known_pairs(labels, probabilities)
        steps = np.unique(p)
        halfway = (steps[:-1] + steps[1:]) / 2
        # if no float lies between two neighbours, the upper one separates them
        halfway = np.where(halfway > steps[:-1], halfway, steps[1:])
        thresholds = np.concatenate([[0.0], halfway])
        positive, negative = np.sort(p[known == 1]), np.sort(p[known == 0])
        return cls(
            thresholds,
            len(positive) - np.searchsorted(positive, thresholds),
            len(negative) - np.searchsorted(negative, thresholds),
            len(positive),
            len(negative),
        )


def _missing_class(m: int, n: int) -> str | None:
    """Returns why a threshold can't be chosen or scored, or None if both classes have exams."""
    if m + n == 0:
        return "no exams"
    if m == 0 or n == 0:
        return f"one class only: {m} positive, {n} negative"
    return None


def _value_with_interval(
    tpr: float, fpr: float, m: int, n: int, prevalence: float
) -> tuple[float, float, float]:
    """Computes the PPV and its interval from sensitivity (of m) and 1 - specificity (of n)."""
    true_positives, false_positives = tpr * prevalence, fpr * (1 - prevalence)
    if true_positives + false_positives == 0:
        return math.nan, math.nan, math.nan
    value = true_positives / (true_positives + false_positives)
    if 0 < tpr < 1 and 0 < fpr < 1:
        centre, variance = _logit_value(tpr, fpr, m, n, prevalence)
    else:
        z2 = Z_95**2
        adjusted = (tpr * m + z2 / 2) / (m + z2), (fpr * n + z2 / 2) / (n + z2)
        centre, variance = _logit_value(*adjusted, m + z2, n + z2, prevalence)
    half = Z_95 * math.sqrt(variance)
    low, high = float(expit(centre - half)), float(expit(centre + half))
    return value, min(low, value), max(high, value)


def _logit_value(
    tpr: float, fpr: float, m: float, n: float, prevalence: float
) -> tuple[float, float]:
    """Computes the logit of the predictive value and its variance by the delta method."""
    centre = math.log(tpr / fpr) + float(logit(prevalence))
    return centre, (1 - tpr) / (tpr * m) + (1 - fpr) / (fpr * n)
