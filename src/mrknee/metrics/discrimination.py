"""Area under the ROC curve (AUC) with its 95 % interval; covariance of several models' AUCs.

DeLong's covariance is computed from placements in O(n log n), as in X. Sun, W. Xu, "Fast
implementation of DeLong's algorithm for comparing the areas under correlated receiver operating
characteristic curves", IEEE Signal Processing Letters 21 (2014) 1389-1393, but with one sort per
model instead of three (`benchmarks/scoring_speed.py`).

In three cases DeLong's variance is unusable and Newcombe's interval replaces it: R. G. Newcombe,
"Confidence intervals for an effect size measure based on the Mann-Whitney statistic. Part 2:
asymptotic methods and evaluation", Statistics in Medicine 25 (2006) 559-573, method 5.

- The classes are perfectly separated (AUC 0 or 1): the variance is zero for every n.
- All scores are equal: the variance is zero as well.
- The smaller class has fewer than ten exams: the variance estimate is poor or undefined.

For few, perfectly separated exams, Newcombe's interval is too narrow as well (one exam in each
class: 0.21 to 1); `separation_bound` widens it. With two exams in each class the interval covers an
AUC of 0.9 in only 87 % of samples, because few different AUCs are possible.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from scipy.special import expit, gammaln, logit, ndtri

from mrknee.errors import DataError

Z_95 = float(ndtri(0.975))
"""Standard normal quantile of a two-sided 95 % interval."""

DELONG_MIN_CLASS = 10
"""Smallest size of the smaller class for which DeLong's interval is used.

Own simulation (three score distributions, AUC 0.5 to 0.98, 1000 draws per case): with 100
negatives, DeLong's 95 % interval covers the true AUC in 84 % of draws with 2 positives, 90 % with 5
and 92 % with 10; Newcombe's in 95 to 96 % with each. `tests/metrics/test_coverage.py` repeats a
part.
"""

DELONG = "DeLong, logit scale"
NEWCOMBE = "Newcombe 2006, method 5"


@dataclass(frozen=True)
class Auc:
    """The AUC of one finding, with its 95 % interval.

    Attributes:
        value: probability that a positive exam scores higher than a negative one, ties counting
            one half; 0 to 1, or NaN if it can't be computed.
        low: lower end of the interval, 0 to `value`, or NaN.
        high: upper end of the interval, `value` to 1, or NaN. Never equal to `low`.
        n_positive: exams with label 1.
        n_negative: exams with label 0.
        method: method of the interval: `DELONG`, or `NEWCOMBE` and the cause; "none" if none.
        reason: why there is no AUC, or None if there is one.
    """

    value: float
    low: float
    high: float
    n_positive: int
    n_negative: int
    method: str
    reason: str | None = None


@dataclass(frozen=True)
class DeLong:
    """The AUCs of several models on the same exams, and their covariance.

    Attributes:
        aucs: float64 (models,), 0 to 1; NaN with one class only.
        covariance: float64 (models, models), covariance of the estimated AUCs; NaN with fewer
            than two exams in a class.
        n_positive: exams with label 1.
        n_negative: exams with label 0.
    """

    aucs: Float64[np.ndarray, " models"]
    covariance: Float64[np.ndarray, "models models"]
    n_positive: int
    n_negative: int


def known_labels(labels: Float[np.ndarray, " exams"]) -> Bool[np.ndarray, " exams"]:
    """Returns which labels are known, after validating all.

    Args:
        labels: 1 present, 0 absent, NaN unknown.

    Returns:
        False where the label is NaN.

    Raises:
        MrkneeError: a label is not 0, 1 or NaN.
    """
    known: Bool[np.ndarray, " exams"] = ~np.isnan(labels)
    invalid = known & (labels != 0) & (labels != 1)
    if invalid.any():
        raise DataError(
            "a label is invalid",
            code="label-value",
            expected="0, 1 or NaN (unknown)",
            found=f"{labels[invalid][0]} at position {int(np.flatnonzero(invalid)[0])}",
        )
    return known


def step_starts(ranked: Float[np.ndarray, " exams"]) -> Int64[np.ndarray, " steps"]:
    """Returns the index of the first exam of each ROC step; exams of equal score form one step.

    Args:
        ranked: sorted scores, at least one.
    """
    return np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))


def placements(
    positive: Bool[np.ndarray, " exams"], scores: Float[np.ndarray, "models exams"]
) -> Float64[np.ndarray, "models exams"]:
    """Computes each exam's share of correctly ranked pairs with exams of the other class.

    Args:
        positive: whether each exam is positive; both classes must occur.
        scores: one row per model; no NaN.

    Returns:
        Shares, 0 to 1, ties counting one half: for a positive exam, of the negatives below it; for
        a negative exam, of the positives above it. The mean over either class is the AUC.
    """
    m, n = int(positive.sum()), int((~positive).sum())
    shares = np.empty(scores.shape)
    for model, row in enumerate(scores):
        order = np.argsort(row)
        ranked_positive, starts = positive[order], step_starts(row[order])
        step = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(row)))
        positives = np.add.reduceat(ranked_positive.astype(np.float64), starts)
        negatives = np.add.reduceat((~ranked_positive).astype(np.float64), starts)
        below = (np.cumsum(negatives) - negatives / 2) / n
        above = (m - np.cumsum(positives) + positives / 2) / m
        shares[model, order] = np.where(ranked_positive, below[step], above[step])
    return shares


def delong_covariance(
    labels: Float[np.ndarray, " exams"], scores: Float[np.ndarray, "models exams"]
) -> DeLong:
    """Computes several models' AUCs on the same exams with DeLong's covariance (Sun & Xu 2014).

    Args:
        labels: 1 positive, 0 negative, NaN unknown: the exam is excluded.
        scores: one row per model; larger means more likely positive; any scale, only ranks matter.

    Returns:
        The AUCs and their covariance.

    Raises:
        MrkneeError: a score is NaN, or a label is not 0, 1 or NaN.
    """
    check_not_nan(scores)
    known = known_labels(labels)
    positive = labels[known] == 1
    usable = scores[:, known]
    m, n = int(positive.sum()), int((~positive).sum())
    models = len(usable)
    if m == 0 or n == 0:
        return DeLong(np.full(models, np.nan), np.full((models, models), np.nan), m, n)
    shares = placements(positive, usable)
    of_positives, of_negatives = shares[:, positive], shares[:, ~positive]
    aucs = np.clip(of_positives.mean(axis=1), 0.0, 1.0)
    if m < 2 or n < 2:
        covariance = np.full((models, models), np.nan)
    else:
        covariance = np.atleast_2d(np.cov(of_positives)) / m
        covariance = covariance + np.atleast_2d(np.cov(of_negatives)) / n
    return DeLong(aucs, covariance, m, n)


def auc(labels: Float[np.ndarray, " exams"], scores: Float[np.ndarray, " exams"]) -> Auc:
    """Computes the AUC with its 95 % interval.

    The interval is DeLong's on the logit scale, so it stays within 0 and 1; if DeLong's variance
    is unusable (see the module) it is Newcombe's, as `method` states.

    Args:
        labels: 1 positive, 0 negative, NaN unknown: the exam is excluded.
        scores: larger means more likely positive; any scale, only ranks matter.

    Returns:
        The AUC; NaN with a reason if the known labels contain only one class or none.

    Raises:
        MrkneeError: a score is NaN, or a label is not 0, 1 or NaN.
    """
    delong = delong_covariance(labels, scores[np.newaxis])
    m, n = delong.n_positive, delong.n_negative
    value, variance = float(delong.aucs[0]), float(delong.covariance[0, 0])
    if m == 0 or n == 0:
        reason = no_auc_reason(m, n)
        return Auc(value, np.nan, np.nan, m, n, "none", reason)
    cause = _why_not_delong(value, _all_equal(labels, scores), m, n)
    if cause is not None:
        low, high = newcombe_interval(value, m, n)
        if value == 1:
            low = min(low, separation_bound(m, n))
        elif value == 0:
            high = max(high, 1 - separation_bound(m, n))
        return Auc(value, low, high, m, n, f"{NEWCOMBE} ({cause})")
    # Delta method: d logit(A) = dA / (A (1 - A)).
    half = Z_95 * np.sqrt(variance) / (value * (1 - value))
    centre = logit(value)
    return Auc(value, float(expit(centre - half)), float(expit(centre + half)), m, n, DELONG)


def newcombe_interval(value: float, n_positive: int, n_negative: int) -> tuple[float, float]:
    """Computes Newcombe's 95 % score interval of an AUC (2006, method 5).

    The interval contains all AUCs t with |value - t| <= z sqrt(V(t)), where V is Hanley and
    McNeil's variance under exponential scores (Radiology 143 (1982) 29-36) with the mean class size
    in both places:
    V(t) = t (1 - t) [1 + s (1 - t) / (2 - t) + s t / (1 + t)] / (m n), s = (m + n) / 2 - 1.
    With one exam in each class it is Wilson's interval of one trial.

    Args:
        value: the AUC, 0 to 1.
        n_positive: m, at least 1.
        n_negative: n, at least 1.

    Returns:
        Lower and upper end, 0 <= low <= value <= high <= 1, low < high.
    """
    from scipy.optimize import brentq  # slow to import, and not needed to predict

    spread = (n_positive + n_negative) / 2 - 1

    def excess(t: float) -> float:
        shape = 1 + spread * ((1 - t) / (2 - t) + t / (1 + t))
        return (value - t) ** 2 - Z_95**2 * t * (1 - t) * shape / (n_positive * n_negative)

    # At t = value the excess is negative, but zero if value is 0 or 1: start just inside.
    inside = min(max(value, 1e-12), 1 - 1e-12)
    low = 0.0 if value == 0 else float(brentq(excess, 0.0, inside))
    high = 1.0 if value == 1 else float(brentq(excess, inside, 1.0))
    return low, high


def separation_bound(n_positive: int, n_negative: int) -> float:
    """Computes the true AUC at which 2.5 % of samples of this size are perfectly separated.

    Exact for exponential scores, Hanley and McNeil's model: with rates 1 and r = AUC / (1 - AUC)
    all n negatives lie below all m positives with probability prod over j = 1..n of
    j / (j + m / r), since the smallest of the remaining exams must be a negative each time. The
    smaller of this bound and the bound with the classes exchanged is returned.

    Args:
        n_positive: m, at least 1.
        n_negative: n, at least 1.

    Returns:
        A lower bound of the AUC, above 0 and below 1; 0.025 with one exam in each class.
    """
    from scipy.optimize import brentq  # see above

    def excess(r_log: float, m: int, n: int) -> float:
        share = m / np.exp(r_log)
        log_probability = gammaln(n + 1) + gammaln(1 + share) - gammaln(n + 1 + share)
        return float(log_probability - np.log(0.025))

    sizes = (n_positive, n_negative)
    # the bracket contains every bound: AUCs of 1e-9 to 1 - 1e-9.
    return float(
        min(expit(brentq(excess, -20.0, 20.0, args=pair)) for pair in (sizes, sizes[::-1]))
    )


def check_not_nan(scores: Float[np.ndarray, "models exams"]) -> None:
    """Raises MrkneeError if a score is NaN, stating the position of the first."""
    nan = np.isnan(scores).any(axis=0)
    if nan.any():
        raise DataError(
            "a score is NaN",
            code="score-nan",
            expected="a number for every exam",
            found=f"NaN for {int(nan.sum())} of {nan.size} exams, first at position "
            f"{int(np.flatnonzero(nan)[0])}",
        )


def no_auc_reason(n_positive: int, n_negative: int) -> str:
    """Returns why there is no AUC with these numbers of exams, one of which is 0."""
    if n_positive + n_negative == 0:
        return "no exam has a known label"
    return f"one class only: {n_positive} positive, {n_negative} negative"


def _all_equal(labels: Float[np.ndarray, " exams"], scores: Float[np.ndarray, " exams"]) -> bool:
    known = scores[~np.isnan(labels)]
    return bool((known == known[0]).all())


def _why_not_delong(value: float, all_equal: bool, m: int, n: int) -> str | None:
    """Returns why DeLong's interval is not used, or None if it is."""
    if value in (0.0, 1.0):
        return "the classes are perfectly separated, so DeLong's variance is zero"
    if all_equal:
        return "all scores are equal, so DeLong's variance is zero"
    if min(m, n) < DELONG_MIN_CLASS:
        return f"the smaller class has fewer than {DELONG_MIN_CLASS} exams"
    return None
