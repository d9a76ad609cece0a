"""Measures of calibration: Brier score, reliability diagram, expected calibration error (ECE).

With a stated prevalence, the measures are estimated for a population in which this share of exams
has the finding, and in which exams with and without the finding look as they do here: exams with
the finding have the weight prevalence / (share of these exams), those without it (1 - prevalence) /
(1 - share). Probabilities that were shifted to a prevalence (`calibration.shift_prevalence`) must
be evaluated in this way: on the unweighted exams, even correct ones would appear miscalibrated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64

from mrknee.metrics.calibration import shift_prevalence
from mrknee.metrics.discrimination import no_auc_reason
from mrknee.metrics.proportions import (
    Proportion,
    check_prevalence,
    known_pairs,
    wilson,
    wilson_interval,
)
from mrknee.metrics.resampling import (
    FEW_REPLICATES,
    MIN_STRATUM,
    block_sizes,
    draw_counts,
)

BINS = 10
"""Maximum number of bins of the diagram, as is usual (C. Guo et al., ICML 2017, use 15)."""

EXAMS_PER_BIN = 10
"""The number of bins is reduced if they would contain fewer exams than this: with 10, Wilson's
interval of a bin is already +-0.26 wide."""

BRIER_BOOTSTRAP = "bootstrap of exams, percentile"
ECE_BOOTSTRAP = "bootstrap of exams in fixed bins, conservative"
BOUND = "Wilson's for a mean of values between 0 and 1, conservative"


@dataclass(frozen=True)
class Brier:
    """The Brier score of one finding: the mean squared difference between probability and label.

    Attributes:
        value: 0 (perfect and certain) to 1; NaN if no label is known, or if a prevalence was stated
            and there is only one class.
        low: lower end of the 95 % interval, or NaN.
        high: upper end of the 95 % interval, or NaN.
        reference: the Brier score of always predicting the prevalence (of these exams, or the
            stated one); NaN like `value`.
        n: number of exams with a known label.
        method: method of the interval; "none" without one.
    """

    value: float
    low: float
    high: float
    reference: float
    n: int
    method: str


@dataclass(frozen=True)
class ReliabilityPoint:
    """One bin of a reliability diagram: mean predicted probability and observed proportion.

    Attributes:
        low_edge: lower edge of the bin, a probability.
        high_edge: upper edge of the bin, inclusive.
        mean_probability: mean probability in the bin, weighted if a prevalence was stated.
        observed: share of exams in the bin that have the finding. If a prevalence was stated,
            `count` and `n` are unweighted; the share and its interval are weighted.
    """

    low_edge: float
    high_edge: float
    mean_probability: float
    observed: Proportion


@dataclass(frozen=True)
class Reliability:
    """The reliability diagram of one finding and its expected calibration error (ECE).

    Attributes:
        points: the non-empty bins, by ascending probability; empty if there is no ECE.
        ece: mean over exams of |mean probability - observed share| of the exam's bin; 0 to 1, or
            NaN like `Brier.value`. Biased upwards: compare with `ece_if_calibrated`, not with 0.
        ece_low: lower end of the 95 % interval, or NaN.
        ece_high: upper end of the 95 % interval, or NaN.
        ece_if_calibrated: expected ECE of these probabilities in this number of exams if they were
            perfectly calibrated, that is, the bias; NaN like `ece`.
        n: number of exams with a known label.
        binning: description of the bins.
        method: method of the interval; "none" without one.
    """

    points: tuple[ReliabilityPoint, ...]
    ece: float
    ece_low: float
    ece_high: float
    ece_if_calibrated: float
    n: int
    binning: str
    method: str


def brier(
    labels: Float[np.ndarray, " exams"],
    probabilities: Float[np.ndarray, " exams"],
    *,
    prevalence: float | None = None,
    seed: int = 0,
) -> Brier:
    """Computes the Brier score with its 95 % interval.

    The interval is the percentile interval of resampled exams. If resampling can't estimate the
    variance (a class of fewer than `MIN_STRATUM` exams, or all errors equal), it is `BOUND`:
    Wilson's interval, treating the score as a proportion, which is conservative.

    With a stated prevalence, exams are resampled within each class, because the shares of the
    classes are fixed then.

    Args:
        labels: 1 present, 0 absent, NaN unknown: excluded.
        probabilities: 0 to 1.
        prevalence: share of exams with the finding in the population of interest, above 0 and below
            1; None: these exams, unweighted.
        seed: seed of the resampling.

    Raises:
        MrkneeError: a label is not 0, 1 or NaN, a probability is NaN or outside 0 to 1, or the
            prevalence is out of range.
    """
    known, p = known_pairs(labels, probabilities)
    n = len(known)
    if _missing_class(known, prevalence) is not None:
        return Brier(math.nan, math.nan, math.nan, math.nan, n, "none")
    weights = _weights(known, prevalence)
    squared = (p - known) ** 2
    value = min(1.0, float(weights @ squared))
    share = float(known.mean()) if prevalence is None else prevalence
    reference = share * (1 - share)
    if _has_small_class(known) or np.ptp(squared) == 0:
        low, high = wilson_interval(np.array([value]), _effective_exams(weights))
        return Brier(value, float(low[0]), float(high[0]), reference, n, BOUND)
    replicates = _resampled_counts(known, prevalence, np.random.default_rng(seed))
    draws = np.concatenate([counts @ (weights * squared) for counts in replicates])
    ends = np.quantile(draws, [0.025, 0.975])
    return Brier(value, float(ends[0]), min(1.0, float(ends[1])), reference, n, BRIER_BOOTSTRAP)


def reliability(
    labels: Float[np.ndarray, " exams"],
    probabilities: Float[np.ndarray, " exams"],
    *,
    prevalence: float | None = None,
    seed: int = 0,
) -> Reliability:
    """Computes the reliability diagram and the expected calibration error (ECE).

    There are `BINS` bins, or fewer, so that each would contain `EXAMS_PER_BIN` exams. Bins contain
    equal numbers of exams: edges are quantiles of the probabilities, as in scikit-learn's
    `calibration_curve(strategy="quantile")`; equal probabilities share a bin.

    The ECE is biased upwards, because random deviations of the bins' shares add up. In 120 exams
    with perfectly calibrated probabilities it is about 0.09. `ece_if_calibrated` is this bias for
    the given probabilities, from simulated labels. A percentile interval of resampled exams would
    repeat the bias (own simulation: never covers if the true error is 0). The lower end is
    therefore ECE - q, where q is the 97.5 % quantile of the summed distances between the bins of
    the replicates and of the sample: since the ECE is a sum of absolute values, it can't be further
    from the true one than that sum. The upper end is the 97.5 % quantile of the replicates' ECE. In
    18 simulated cases of 10 to 1000 exams this covers the true error in 94 to 100 %. If exams can't
    be resampled (see `brier`), the interval extends from 0 to Wilson's upper end for the mean
    |probability - label|, which no ECE exceeds.

    Args:
        labels: 1 present, 0 absent, NaN unknown: excluded.
        probabilities: 0 to 1.
        prevalence: share of exams with the finding in the population of interest, above 0 and below
            1; None: these exams, unweighted.
        seed: seed of the resampling.

    Raises:
        MrkneeError: a label is not 0, 1 or NaN, a probability is NaN or outside 0 to 1, or the
            prevalence is out of range.
    """
    known, p = known_pairs(labels, probabilities)
    n = len(known)
    reason = _missing_class(known, prevalence)
    if reason is not None:
        nan = math.nan
        return Reliability((), nan, nan, nan, nan, n, reason, "none")
    bins = min(BINS, max(1, n // EXAMS_PER_BIN))
    edges = np.quantile(p, np.linspace(0, 1, bins + 1))
    bin_of = np.searchsorted(edges[1:-1], p)
    occupied = np.unique(bin_of)
    points = tuple(
        _point(known, p, bin_of == b, (edges[b], edges[b + 1]), prevalence) for b in occupied
    )
    mass = "equal mass" if prevalence is None else "equal numbers of exams"
    binning = f"{len(occupied)} bin{'s' * (len(occupied) > 1)} of {mass} (quantiles)"
    one_hot = (bin_of[:, np.newaxis] == occupied).astype(np.float64)
    weights = _weights(known, prevalence)
    ece = float(np.abs((weights * (p - known)) @ one_hot).sum())
    low, high, method = _ece_interval(known, p, one_hot, prevalence, seed)
    expected = _expected_ece(known, p, one_hot, prevalence, np.random.default_rng(seed))
    return Reliability(points, ece, low, high, expected, n, binning, method)


def _missing_class(labels: Float64[np.ndarray, " exams"], prevalence: float | None) -> str | None:
    """Returns why these known labels can't be scored, or None."""
    if prevalence is not None:
        check_prevalence(prevalence)
    positives = int(labels.sum())
    negatives = len(labels) - positives
    missing = len(labels) == 0 if prevalence is None else 0 in (positives, negatives)
    return no_auc_reason(positives, negatives) if missing else None


def _weights(
    labels: Float64[np.ndarray, " exams"], prevalence: float | None
) -> Float64[np.ndarray, " exams"]:
    """Returns the weights of the exams, with sum 1."""
    n = len(labels)
    if prevalence is None:
        return np.full(n, 1 / n)
    present, absent = _class_weights(labels, prevalence)
    return np.where(labels == 1, present, absent)


def _class_weights(labels: Float64[np.ndarray, " exams"], prevalence: float) -> tuple[float, float]:
    """Returns the weight of an exam with the finding, and of one without."""
    positives = float(labels.sum())
    return prevalence / positives, (1 - prevalence) / (len(labels) - positives)


def _effective_exams(weights: Float64[np.ndarray, " exams"]) -> int:
    """Returns a lower bound of the effective number of exams.

    A weighted mean m of values from 0 to 1 has at most the variance max(weights) m (1 - m): each
    value v contributes at most weight^2 v (1 - v), and v (1 - v) is concave.
    """
    return max(1, int(1 / weights.max() + 1e-9))  # for equal weights 1 / n: n, not n - 1


def _has_small_class(labels: Float64[np.ndarray, " exams"]) -> bool:
    """Returns whether a class has too few exams to be resampled."""
    positives = int(labels.sum())
    return min(positives, len(labels) - positives) < MIN_STRATUM


def _resampled_counts(
    labels: Float64[np.ndarray, " exams"], prevalence: float | None, rng: np.random.Generator
) -> Iterator[Float64[np.ndarray, "replicates exams"]]:
    """Yields how often each exam is drawn in each of `FEW_REPLICATES` replicates, in blocks.

    With a stated prevalence, exams are drawn within each class; otherwise from all exams.
    """
    strata = [np.arange(len(labels))]
    if prevalence is not None:
        strata = [np.flatnonzero(labels == label) for label in (0, 1)]
    return draw_counts(strata, FEW_REPLICATES, rng)


def _point(
    labels: Float64[np.ndarray, " exams"],
    p: Float64[np.ndarray, " exams"],
    inside: Bool[np.ndarray, " exams"],
    edges: tuple[float, float],
    prevalence: float | None,
) -> ReliabilityPoint:
    low_edge, high_edge = (float(edge) for edge in edges)
    weights = _weights(labels, prevalence)[inside]
    mean = float(np.average(p[inside], weights=weights))
    observed = wilson(int(labels[inside].sum()), int(inside.sum()))
    if prevalence is not None:
        # weighting multiplies the odds of the share and of the ends of its interval
        ends = np.array([observed.value, observed.low, observed.high])
        value, low, high = shift_prevalence(ends, float(labels.mean()), prevalence).tolist()
        observed = Proportion(observed.count, observed.n, value, low, high)
    return ReliabilityPoint(low_edge, high_edge, mean, observed)


def _ece_interval(
    labels: Float64[np.ndarray, " exams"],
    p: Float64[np.ndarray, " exams"],
    one_hot: Float64[np.ndarray, "exams bins"],
    prevalence: float | None,
    seed: int,
) -> tuple[float, float, str]:
    errors, weights = p - labels, _weights(labels, prevalence)
    if _has_small_class(labels) or np.ptp(errors) == 0:
        mean = min(1.0, float(weights @ np.abs(errors)))
        _, upper = wilson_interval(np.array([mean]), _effective_exams(weights))
        return 0.0, float(upper[0]), BOUND
    # (exams, bins): contribution of each exam to the difference of its bin
    parts = (weights * errors)[:, np.newaxis] * one_hot
    sample = parts.sum(axis=0)
    replicates = _resampled_counts(labels, prevalence, np.random.default_rng(seed))
    drawn = np.concatenate([counts @ parts for counts in replicates])
    ece = np.abs(sample).sum()
    distance = np.quantile(np.abs(drawn - sample).sum(axis=1), 0.975)
    high = max(ece, np.quantile(np.abs(drawn).sum(axis=1), 0.975))
    return float(max(0.0, ece - distance)), float(min(1.0, high)), ECE_BOOTSTRAP


def _expected_ece(
    labels: Float64[np.ndarray, " exams"],
    p: Float64[np.ndarray, " exams"],
    one_hot: Float64[np.ndarray, "exams bins"],
    prevalence: float | None,
    rng: np.random.Generator,
) -> float:
    """Simulates the mean ECE for perfect calibration, at the stated prevalence if there is one.

    In that case labels are drawn with the probabilities shifted to the prevalence of these exams.
    """
    n = len(p)
    present = absent = 1 / n
    label_p = p
    if prevalence is not None:
        present, absent = _class_weights(labels, prevalence)
        label_p = shift_prevalence(p, prevalence, float(labels.mean()))
    total = 0.0
    for count in block_sizes(FEW_REPLICATES, n):
        drawn = rng.random((count, n)) < label_p
        weighted = np.where(drawn, present, absent) * (p - drawn)
        total += float(np.abs(weighted @ one_hot).sum())
    return total / FEW_REPLICATES
