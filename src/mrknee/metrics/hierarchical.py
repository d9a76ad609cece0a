"""AUCs of networks trained with several seeds: intervals and tests over exams and seeds together.

Each seed's network predicts the same exams, so seeds and exams are crossed random factors, as
readers and cases are in studies of several readers of the same cases. The variance is that of
Obuchowski and Rockette; a seed takes the place of a reader, and a recipe that of a modality:

- N. A. Obuchowski, H. E. Rockette, "Hypothesis testing of diagnostic accuracy for multiple readers
  and multiple tests: an ANOVA approach with dependent observations", Communications in Statistics -
  Simulation and Computation 24 (1995) 285-308.
- S. L. Hillis, "A marginal-mean ANOVA approach for analyzing multireader multicase radiological
  imaging data", Statistics in Medicine 33 (2014) 330-360.

Let d_j be the difference of two recipes' AUCs with seed j (or the AUC of one recipe), j = 1..r; S^2
the sample variance of the d_j; C the mean covariance of d_j and d_k, j != k, that is due to the
same exams; v the variance of the mean of the d_j that is due to the exams, for these networks. Then

    variance of the mean of d:   V = S^2 / r + max(C, 0)
    quantile:                    q = (S^2 / r * t + max(C, 0) * z) / V
    half width of the interval:  max(q * sqrt(V), z * sqrt(v))

with the quantiles t of Student's distribution with r - 1 degrees of freedom and z of the standard
normal distribution. In the notation of the papers S^2 = 2 MS(TR) and C = 2 (Cov2 - Cov3) for a
difference, and S^2 = MS(R), C = Cov2 for one recipe. S^2 contains the variation of training and the
part of the exams' variation that differs between seeds; C is what more seeds don't reduce. The
interval is for the mean over all seeds and exams that could have been drawn, not for one network.

The quantile q is that of Cochran and Cox for a sum of two variances of which one is estimated with
few degrees of freedom: W. G. Cochran, "Approximate significance levels of the Behrens-Fisher test",
Biometrics 20 (1964) 191-195. Hillis takes the t quantile with V^2 / ((S^2 / r)^2 / (r - 1)) degrees
of freedom, which was found good for five readers and more (Academic Radiology 19 (2012) 1518-1528).
With three seeds it is too liberal (see below): where S^2 is small by chance, the degrees of freedom
become large, and the interval is narrow for two reasons. The lower limit z * sqrt(v), DeLong's
interval of the mean of these networks, is there for the same reason: S^2 is smaller than what the
exams alone make of it only by chance.

The covariances are DeLong's, computed from each exam's influence on the AUC (`placements`), so they
hold for the mean over findings too, whose AUCs share exams: the influences are averaged over the
findings. Exams of one group (`groups.csv`, for example of one patient) are not independent; their
influences are added first, as in N. A. Obuchowski, "Nonparametric analysis of clustered ROC curve
data", Biometrics 53 (1997) 567-578.

The interval of an AUC is computed on the logit scale, so it stays between 0 and 1; that of a
difference is not. The test of a difference rejects 0 where the interval leaves it out.

Limits. With 3 seeds, S^2 has two degrees of freedom: where seeds vary more than exams, intervals
are wide (t is 4.3) and 5 seeds (2.8) are worth much more than 3. What all seeds share (the training
exams, the choice of the recipe) is not in the interval.

Own simulation, `benchmarks/experiment_intervals.py` (three correlated findings, AUC 0.85, SD over
seeds 0 to 0.03, 120 to 1000 exams, 600 draws per case; docs/background/intervals.md has the table):
with 3 seeds, the test rejects a true null hypothesis at the 5 % level in 1.5 to 5.8 % of draws, at
the 1 % level in 0 to 1.5 %; with Hillis' quantile in 5.3 to 9.2 % and 1.2 to 5.2 %. With 5 seeds:
2.5 to 5.7 % and 0 to 1.8 %; 4.3 to 7.0 % and 0.7 to 3.2 %. Intervals of differences and of AUCs
cover in 94.5 to 98.2 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Float64

from mrknee.errors import DataError
from mrknee.metrics.discrimination import (
    DELONG_MIN_CLASS,
    NEWCOMBE,
    Z_95,
    check_not_nan,
    known_labels,
    newcombe_interval,
    no_auc_reason,
    placements,
    separation_bound,
)

CROSSED = "Obuchowski-Rockette, Cochran's quantile"
SMALLEST_P = 1e-20
"""Smaller p values are given as this one: what they mean depends on the distribution's far tail."""

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
        smallest_fold: positive and negative exams of the fold with the smallest class; None without
            folds.
    """

    aucs: Float64[np.ndarray, " seeds"]
    influences: Float64[np.ndarray, "seeds exams"]
    n_positive: int
    n_negative: int
    smallest_fold: tuple[int, int] | None = None

    @property
    def fewest(self) -> tuple[int, int]:
        """Positive and negative exams: all, or those of the fold with the smallest class."""
        return self.smallest_fold or (self.n_positive, self.n_negative)

    @property
    def has_auc(self) -> bool:
        """Whether there is an AUC (in each fold)."""
        return 0 not in self.fewest

    @property
    def reason(self) -> str | None:
        """Why there is no AUC, or no covariance; None if there are both."""
        positive, negative = self.fewest
        place = "" if self.smallest_fold is None else "in a fold: "
        if not (positive and negative):
            return place + no_auc_reason(positive, negative)
        if min(positive, negative) < 2:
            return f"{place}fewer than two exams of a class: {positive}, {negative}"
        return None

    @property
    def few(self) -> bool:
        """Whether a class has so few exams that DeLong's covariance is too small."""
        return min(self.fewest) < DELONG_MIN_CLASS


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
    check_not_nan(scores)
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
            for the reason in `reason`.
        sd: standard deviation over seeds; NaN with one seed.
        exam_se: standard error due to the exams alone, which more seeds don't reduce.
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
    smallest = min(each, key=lambda one: min(one.fewest))
    return replace(
        smallest,
        aucs=np.mean([one.aucs for one in each], axis=0),
        influences=np.mean([one.influences for one in each], axis=0),
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
        None if len(each) == 1 else min((one.fewest for one in each), key=min),
    )


def auc_over_seeds(one: SeedAucs, groups: Sequence[int] | None = None) -> Estimate:
    """Estimates the AUC of a recipe, with an interval over exams and seeds (logit scale).

    Args:
        one: the AUCs of the recipe's seeds, of a finding or of the mean over findings.
        groups: the number of each exam's group; None if all exams are independent.
    """
    found = _estimate(one.aucs, one.influences, one.reason, groups, one.few)
    if math.isnan(found.low):
        return found
    if not 0 < found.value < 1:  # with every seed, where DeLong's variance is zero
        low, high = newcombe_interval(found.value, one.n_positive, one.n_negative)
        bound = separation_bound(one.n_positive, one.n_negative)
        ends = (min(low, bound), 1.0) if found.value == 1 else (0.0, max(high, 1 - bound))
        return replace(found, low=ends[0], high=ends[1], p=math.nan, method=NEWCOMBE)
    centre = math.log(found.value / (1 - found.value))
    half = (found.high - found.value) / (found.value * (1 - found.value))
    low, high = (1 / (1 + math.exp(-end)) for end in (centre - half, centre + half))
    return replace(found, low=low, high=high, p=math.nan)


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
    return replace(found, low=max(-1.0, found.low), high=min(1.0, found.high))


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
        return Estimate(value, nan, nan, nan, sd, nan, seeds, "none", reason)
    covariance = _covariance(influences, groups)
    fixed = float(covariance.mean())  # of the mean of these networks
    own, shared = 0.0, fixed
    if r > 1:
        own = sd**2 / r
        shared = max(0.0, float(covariance.sum() - np.trace(covariance)) / (r * (r - 1)))
    if max(own + shared, fixed) < 1e-24:  # rounding noise of placements
        p, why = (1.0, None) if abs(value) < 1e-12 else (nan, "exams and seeds show no variation")
        return Estimate(value, value, value, nan if r == 1 else p, sd, 0.0, seeds, "none", why)
    why = None
    if few:
        why = f"a class has fewer than {DELONG_MIN_CLASS} exams: the interval may be too narrow"
    if r == 1:
        half = Z_95 * math.sqrt(fixed)
        return Estimate(
            value, value - half, value + half, nan, sd, math.sqrt(fixed), seeds, ONE_SEED, why
        )
    half = _half_width(0.05, own, shared, fixed, r)
    p = nan if few else _p(abs(value), own, shared, fixed, r)
    return Estimate(
        value, value - half, value + half, p, sd, math.sqrt(shared), seeds, CROSSED, why
    )


def _half_width(level: float, own: float, shared: float, fixed: float, seeds: int) -> float:
    """Computes half the width of the interval with coverage 1 - level; see the module.

    Args:
        level: above 0, below 1.
        own: S^2 / r.
        shared: max(C, 0).
        fixed: v.
        seeds: r, at least 2.
    """
    from scipy.special import ndtri, stdtrit  # scipy.stats is slow to import

    z = -float(ndtri(level / 2))
    t = -float(stdtrit(seeds - 1, level / 2)) if own > 0 else 0.0
    both = own + shared
    of_both = (own * t + shared * z) / math.sqrt(both) if both > 0 else 0.0
    return max(of_both, z * math.sqrt(fixed))


def _p(distance: float, own: float, shared: float, fixed: float, seeds: int) -> float:
    """Returns the level at which half the width of the interval equals the distance from 0."""
    from scipy.optimize import brentq

    def excess(log_level: float) -> float:
        return _half_width(math.exp(log_level), own, shared, fixed, seeds) - distance

    lowest, highest = math.log(SMALLEST_P), -1e-9
    if excess(highest) >= 0:
        return 1.0
    return math.exp(brentq(excess, lowest, highest)) if excess(lowest) > 0 else SMALLEST_P


def _covariance(
    influences: Float64[np.ndarray, "seeds exams"], groups: Sequence[int] | None
) -> Float64[np.ndarray, "seeds seeds"]:
    if groups is not None:
        summed = np.zeros((len(influences), max(groups) + 1))
        np.add.at(summed.T, list(groups), influences.T)
        influences = summed
    products: Float64[np.ndarray, "seeds seeds"] = influences @ influences.T
    return products
