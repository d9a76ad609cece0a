"""AUCs of networks trained with several seeds: intervals and tests over exams and seeds together.

Each seed's network predicts the same exams, so seeds and exams are crossed random factors, as
readers and cases are in studies of several readers of the same cases (multi-reader multi-case). The
analysis is that of Obuchowski and Rockette with the degrees of freedom of Hillis; a seed takes the
place of a reader, and a recipe that of a modality:

- N. A. Obuchowski, H. E. Rockette, "Hypothesis testing of diagnostic accuracy for multiple readers
  and multiple tests: an ANOVA approach with dependent observations", Communications in Statistics -
  Simulation and Computation 24 (1995) 285-308.
- S. L. Hillis, "A comparison of denominator degrees of freedom methods for multiple observer ROC
  analysis", Statistics in Medicine 26 (2007) 596-619.
- S. L. Hillis, "A marginal-mean ANOVA approach for analyzing multireader multicase radiological
  imaging data", Statistics in Medicine 33 (2014) 330-360.

For two recipes (and for one) their formulas reduce to the following. d_j is the difference of the
two AUCs with seed j (or the AUC of one recipe), j = 1..r; S^2 the sample variance of the d_j; C the
mean covariance of d_j and d_k, j != k, that is due to both being computed from the same exams:

    variance of the mean of d:  V = S^2 / r + max(C, 0)
    degrees of freedom:         V^2 / ((S^2 / r)^2 / (r - 1))
    interval:                   mean of d +- t quantile * sqrt(V)

In the notation of the papers S^2 = 2 MS(TR) and C = 2 (Cov2 - Cov3) for a difference, and
S^2 = MS(R), C = Cov2 for one recipe. S^2 contains the variation of training and the part of the
exams' variation that differs between seeds; C is what more seeds don't reduce. The interval is for
the mean over all seeds and all exams that could have been drawn, not for one network.

The covariance C is DeLong's, computed from each exam's influence on the AUC (`placements`), so it
holds for the mean over findings too, whose AUCs share exams: the influences are averaged over the
findings. Exams of one group (`groups.csv`, for example of one patient) are not independent; their
influences are added first, as in N. A. Obuchowski, "Nonparametric analysis of clustered ROC curve
data", Biometrics 53 (1997) 567-578.

The interval of an AUC is computed on the logit scale, so it stays between 0 and 1; that of a
difference is not.

Limits. With 3 seeds, S^2 has two degrees of freedom: where seeds vary more than exams, intervals
are wide (t quantile up to 4.3) and 5 seeds are worth much more than 3. A percentile bootstrap over
seeds and exams is no way out: with 3 seeds it reproduces two thirds of S^2, and has no wider tails.
What all seeds share (the training exams, the chosen recipe) is not in the interval.

Own simulation, `benchmarks/experiment_intervals.py`: see the table in docs/background/intervals.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

from mrknee.errors import DataError
from mrknee.metrics.discrimination import (
    DELONG_MIN_CLASS,
    Z_95,
    known_labels,
    no_auc_reason,
    placements,
    refuse_nan,
)

CROSSED = "Obuchowski-Rockette, Hillis' degrees of freedom"
ONE_SEED = "exams only, because there is one seed"


@dataclass(frozen=True)
class SeedAucs:
    """The AUCs of one finding with several seeds, and how each exam influences them.

    Attributes:
        aucs: (seeds,), 0 to 1; NaN with one class only.
        influences: (seeds, exams); the sum over exams of products of two rows is DeLong's
            covariance of the two AUCs. 0 for exams without a label; NaN with fewer than two exams
            in a class.
        n_positive: exams with label 1.
        n_negative: exams with label 0.
    """

    aucs: Float64[np.ndarray, " seeds"]
    influences: Float64[np.ndarray, "seeds exams"]
    n_positive: int
    n_negative: int

    @property
    def reason(self) -> str | None:
        """Why there is no AUC, or no covariance; None if there are both."""
        if not (self.n_positive and self.n_negative):
            return no_auc_reason(self.n_positive, self.n_negative)
        if min(self.n_positive, self.n_negative) < 2:
            return f"fewer than two exams of a class: {self.n_positive}, {self.n_negative}"
        return None

    @property
    def few(self) -> bool:
        """Whether a class has so few exams that DeLong's covariance is too small."""
        return min(self.n_positive, self.n_negative) < DELONG_MIN_CLASS


def seed_aucs(
    labels: Float[np.ndarray, " exams"], scores: Float[np.ndarray, "seeds exams"]
) -> SeedAucs:
    """Computes the AUC of each seed's scores, and each exam's influence on it.

    Args:
        labels: 1 positive, 0 negative, NaN unknown: the exam is excluded.
        scores: one row per seed; larger means more likely positive; only ranks matter.

    Raises:
        DataError: a score is NaN, or a label is not 0, 1 or NaN.
    """
    refuse_nan(scores)
    known = known_labels(labels)
    positive = labels[known] == 1
    m, n = int(positive.sum()), int((~positive).sum())
    influences = np.zeros(scores.shape)
    if m == 0 or n == 0:
        return SeedAucs(np.full(len(scores), np.nan), influences + np.nan, m, n)
    placed = placements(positive, scores[:, known])
    aucs = np.clip(placed[:, positive].mean(axis=1), 0.0, 1.0)
    if m < 2 or n < 2:
        return SeedAucs(aucs, influences + np.nan, m, n)
    # each class's sum of squares is then its sample variance divided by its number of exams
    scale = np.where(positive, math.sqrt(m * (m - 1)), math.sqrt(n * (n - 1)))
    influences[:, known] = (placed - aucs[:, np.newaxis]) / scale
    return SeedAucs(aucs, influences, m, n)


@dataclass(frozen=True)
class Estimate:
    """The mean over seeds of an AUC or of a difference, with its 95 % interval.

    Attributes:
        value: the mean over seeds; NaN if there is none.
        low: lower end of the interval, or NaN.
        high: upper end of the interval, or NaN.
        p: two-sided p of the hypothesis that a difference is 0; NaN for an AUC, with one seed, or
            if `reason` says so.
        sd: standard deviation over seeds; NaN with one seed.
        exam_se: standard error due to the exams alone, which more seeds don't reduce.
        df: degrees of freedom of the interval and the test; infinite with one seed.
        seeds: the value with each seed.
        method: method of the interval, or "none".
        reason: why a number is NaN or why the interval may be too narrow; None otherwise.
    """

    value: float
    low: float
    high: float
    p: float
    sd: float
    exam_se: float
    df: float
    seeds: tuple[float, ...]
    method: str
    reason: str | None = None


def mean_over_findings(each: Sequence[SeedAucs]) -> SeedAucs:
    """Returns the mean AUC over findings of the same exams, with its influences.

    Args:
        each: at least one; findings without an AUC must be left out before.

    Returns:
        The mean; the numbers of exams are those of the finding with the smallest class.
    """
    fewest = min(each, key=lambda one: min(one.n_positive, one.n_negative))
    return SeedAucs(
        np.mean([one.aucs for one in each], axis=0),
        np.mean([one.influences for one in each], axis=0),
        fewest.n_positive,
        fewest.n_negative,
    )


def mean_over_folds(each: Sequence[SeedAucs]) -> SeedAucs:
    """Returns the mean AUC over folds, which are different exams, with its influences.

    Args:
        each: at least one; its influences are those of the exams of the first fold, then of the
            next.

    Returns:
        The mean; the numbers of exams are sums over the folds. It is NaN if a fold has no AUC.
    """
    return SeedAucs(
        np.mean([one.aucs for one in each], axis=0),
        np.concatenate([one.influences for one in each], axis=1) / len(each),
        sum(one.n_positive for one in each),
        sum(one.n_negative for one in each),
    )


def auc_over_seeds(one: SeedAucs, groups: Sequence[int] | None = None) -> Estimate:
    """Estimates the AUC of a recipe, with an interval over exams and seeds (logit scale).

    Args:
        one: the AUCs of the recipe's seeds, of a finding or of the mean over findings.
        groups: the number of each exam's group; None if all exams are independent.
    """
    found = _estimate(one.aucs, one.influences, one.reason, groups, one.few)
    inside = 0 < found.value < 1
    if math.isnan(found.low) or not inside:
        if found.reason is None and not inside:
            why = "the classes are separated without a fault, where the variance is zero"
            return _without_interval(found, why)
        return found
    centre = math.log(found.value / (1 - found.value))
    half = (found.high - found.value) / (found.value * (1 - found.value))
    low, high = (1 / (1 + math.exp(-end)) for end in (centre - half, centre + half))
    return Estimate(**{**vars(found), "low": low, "high": high, "p": math.nan})


def difference_over_seeds(
    first: SeedAucs, second: SeedAucs, groups: Sequence[int] | None = None
) -> Estimate:
    """Estimates the difference of two recipes' AUCs, second - first, over exams and seeds.

    Args:
        first: the AUCs of the first recipe.
        second: the AUCs of the second recipe: the same exams, and the same seeds in the same order.
        groups: the number of each exam's group; None if all exams are independent.

    Raises:
        DataError: the numbers of seeds or exams differ.
    """
    if first.influences.shape != second.influences.shape:
        raise DataError(
            "two recipes can't be compared",
            code="compare",
            expected="the same seeds and the same exams for both",
            found=f"(seeds, exams) {first.influences.shape} and {second.influences.shape}",
        )
    found = _estimate(
        second.aucs - first.aucs,
        second.influences - first.influences,
        first.reason or second.reason,
        groups,
        first.few or second.few,
    )
    if math.isnan(found.low):
        return found
    return Estimate(**{**vars(found), "low": max(-1.0, found.low), "high": min(1.0, found.high)})


def _estimate(
    values: Float64[np.ndarray, " seeds"],
    influences: Float64[np.ndarray, "seeds exams"],
    reason: str | None,
    groups: Sequence[int] | None,
    few: bool,
) -> Estimate:
    """Computes the interval of the mean of `values` and the test of 0; see the module."""
    nan, r = math.nan, len(values)
    value, seeds = float(values.mean()), tuple(float(one) for one in values)
    sd = float(values.std(ddof=1)) if r > 1 else nan
    if reason is not None:
        return Estimate(value, nan, nan, nan, sd, nan, nan, seeds, "none", reason)
    covariance = _covariance(influences, groups)
    if r == 1:
        exams = float(covariance[0, 0])
        half, method = Z_95 * math.sqrt(exams), ONE_SEED
        return Estimate(
            value, value - half, value + half, nan, sd, math.sqrt(exams), math.inf, seeds, method
        )
    exams = max(0.0, float(covariance.sum() - np.trace(covariance)) / (r * (r - 1)))
    training = sd**2 / r
    variance = training + exams
    if variance < 1e-24:  # rounding noise of placements
        p, why = (1.0, None) if abs(value) < 1e-12 else (nan, "exams and seeds show no variation")
        return Estimate(value, value, value, p, sd, 0.0, nan, seeds, "none", why)
    from scipy.special import stdtr, stdtrit  # as scipy.stats.t, which is slow to import

    df = math.inf if training < 1e-24 else variance**2 / (training**2 / (r - 1))
    quantile = Z_95 if math.isinf(df) else float(stdtrit(df, 0.975))
    half = quantile * math.sqrt(variance)
    t = -abs(value) / math.sqrt(variance)
    p = 2 * float(stdtr(min(df, 1e9), t))
    why = None
    if few:
        p = nan
        why = f"a class has fewer than {DELONG_MIN_CLASS} exams: the interval may be too narrow"
    return Estimate(
        value, value - half, value + half, p, sd, math.sqrt(exams), df, seeds, CROSSED, why
    )


def _covariance(
    influences: Float64[np.ndarray, "seeds exams"], groups: Sequence[int] | None
) -> Float64[np.ndarray, "seeds seeds"]:
    if groups is not None:
        summed = np.zeros((len(influences), max(groups) + 1))
        np.add.at(summed.T, list(groups), influences.T)
        influences = summed
    products: Float64[np.ndarray, "seeds seeds"] = influences @ influences.T
    return products


def _without_interval(found: Estimate, why: str) -> Estimate:
    nan = math.nan
    return Estimate(
        **{**vars(found), "low": nan, "high": nan, "p": nan, "method": "none", "reason": why}
    )
