"""Mean AUC over findings, and bootstrap of AUCs and of their differences.

The AUCs of the findings are correlated because the findings share exams; drawing exams with all
their findings preserves the correlation. Exams are drawn with replacement within strata of equal
labels, so that a replicate has the same classes, and combinations of classes, as the data. The
interval is the percentile interval: J. Carpenter, J. Bithell, "Bootstrap confidence intervals:
when, which, what?", Statistics in Medicine 19 (2000) 1141-1164.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int

from mrknee.metrics.discrimination import DELONG, Auc, auc, known_labels, step_starts

REPLICATES = 2000
"""Number of bootstrap replicates: a 2.5 % tail contains 50."""

FEW_REPLICATES = 1000
"""Replicates for curves and calibration errors: a 2.5 % tail contains 25, enough for 3 digits."""

MIN_STRATUM = 5
"""Minimum size of a stratum. Resampling a stratum of k exams reproduces (k - 1) / k of its variance
(none if k = 1), so rarer label patterns are pooled in one common stratum."""

_MAX_CELLS = 1_000_000  # replicates x exams in one block: 8 MB per array

BOOTSTRAP = "stratified bootstrap, percentile"
MEAN_OF_ENDS = "mean of the findings' interval ends, conservative"


@dataclass(frozen=True)
class MeanAuc:
    """The mean AUC over the findings that have one, with its 95 % interval.

    Attributes:
        value: the mean, 0 to 1; NaN if no finding has an AUC.
        low: lower end of the interval, or NaN.
        high: upper end of the interval, or NaN.
        findings: the findings included in the mean.
        left_out: the findings that have no AUC.
        method: method of the interval: `BOOTSTRAP`, `MEAN_OF_ENDS` and the cause, or "none".
        reason: why there is no mean, or None if there is one.
    """

    value: float
    low: float
    high: float
    findings: tuple[str, ...]
    left_out: tuple[str, ...]
    method: str
    reason: str | None = None


def mean_auc(
    findings: Sequence[str],
    labels: Float[np.ndarray, "exams findings"],
    scores: Float[np.ndarray, "exams findings"],
    *,
    seed: int = 0,
    replicates: int = REPLICATES,
) -> MeanAuc:
    """Computes the mean of the findings' AUCs, with its 95 % interval.

    The interval is the percentile interval of the stratified bootstrap. For a finding whose AUC
    has no valid DeLong interval (perfectly separated, all scores equal, few exams of a class),
    resampling would give an interval that is too narrow or of zero width. If there is such a
    finding, the interval extends from the mean of the findings' lower ends to the mean of their
    upper ends, which is correct for perfectly correlated AUCs and too wide otherwise.

    Args:
        findings: names of the findings, one per column.
        labels: 1 present, 0 absent, NaN unknown.
        scores: larger means more likely present.
        seed: seed of the resampling; the same seed gives the same interval.
        replicates: number of replicates.

    Returns:
        The mean; NaN with a reason if no finding has an AUC.

    Raises:
        MrkneeError: a score is NaN, or a label is not 0, 1 or NaN.
    """
    aucs = {name: auc(labels[:, i], scores[:, i]) for i, name in enumerate(findings)}
    used = tuple(name for name, one in aucs.items() if one.reason is None)
    left_out = tuple(name for name in aucs if name not in used)
    if not used:
        nan = float("nan")
        return MeanAuc(nan, nan, nan, (), left_out, "none", "no finding has an AUC")
    value = float(np.mean([aucs[name].value for name in used]))
    special = [name for name in used if aucs[name].method != DELONG]
    if special:
        method = f"{MEAN_OF_ENDS} ({', '.join(special)}: resampling underestimates the variance)"
        low, high = _mean_of_ends([aucs[name] for name in used])
        return MeanAuc(value, low, high, used, left_out, method)
    columns = [i for i, name in enumerate(findings) if name in used]
    draws = bootstrap_aucs(labels[:, columns], scores[:, columns], seed=seed, replicates=replicates)
    means = draws.mean(axis=1)
    low, high = np.quantile(means[~np.isnan(means)], [0.025, 0.975])
    return MeanAuc(value, float(low), float(high), used, left_out, BOOTSTRAP)


def draw_counts(
    strata: Sequence[Int[np.ndarray, " _"]], replicates: int, rng: np.random.Generator
) -> Iterator[Float64[np.ndarray, "block exams"]]:
    """Yields how often each exam is drawn in each replicate, in blocks of replicates.

    Args:
        strata: indices of the exams of each stratum; each exam is in exactly one stratum. Strata
            keep their size in every replicate.
        replicates: total number of replicates.
        rng: random number generator.
    """
    exams = sum(map(len, strata))
    for size in block_sizes(replicates, exams):
        counts = np.empty((size, exams))
        for members in strata:
            k = len(members)
            counts[:, members] = rng.multinomial(k, np.full(k, 1 / k), size=size)
        yield counts


def block_sizes(replicates: int, exams: int) -> Iterator[int]:
    """Yields the sizes of blocks of replicates that limit memory use."""
    largest = max(1, _MAX_CELLS // exams)
    for start in range(0, replicates, largest):
        yield min(largest, replicates - start)


def bootstrap_aucs(
    labels: Float[np.ndarray, "exams findings"],
    scores: Float[np.ndarray, "exams findings"],
    *,
    seed: int,
    replicates: int,
) -> Float64[np.ndarray, "replicates findings"]:
    """Computes AUCs of exams drawn with replacement, the same exams for all findings.

    Args:
        labels: 1 present, 0 absent, NaN unknown; each finding must have both classes.
        scores: larger means more likely present.
        seed: seed of the resampling.
        replicates: number of replicates.

    Returns:
        One row per replicate. NaN if a replicate has only one class of a finding, which is possible
        only if all exams of a class are in the stratum of rare label patterns.
    """
    known_labels(labels.reshape(-1))
    rng = np.random.default_rng(seed)
    stratum = label_strata(labels)
    strata = [np.flatnonzero(stratum == one) for one in np.unique(stratum)]
    blocks = []
    for counts in draw_counts(strata, replicates, rng):
        blocks.append(
            np.stack(
                [_weighted_auc(labels[:, f], scores[:, f], counts) for f in range(labels.shape[1])],
                axis=1,
            )
        )
    return np.concatenate(blocks)


def bootstrap_differences(
    labels: Float[np.ndarray, "exams findings"],
    first: Float[np.ndarray, "exams findings"],
    second: Float[np.ndarray, "exams findings"],
    *,
    seed: int,
    replicates: int = REPLICATES,
) -> Float64[np.ndarray, "replicates findings"]:
    """Computes differences of two models' AUCs, for both models on the same drawn exams.

    Args:
        labels: 1 present, 0 absent, NaN unknown; each finding must have both classes.
        first: scores of the first model; larger means more likely present.
        second: scores of the second model.
        seed: seed of the resampling.
        replicates: number of replicates.

    Returns:
        AUC(second) - AUC(first), -1 to 1; NaN as in `bootstrap_aucs`.
    """
    # the two models as adjacent columns: repeating the labels' columns doesn't change the strata
    aucs = bootstrap_aucs(
        np.hstack([labels, labels]), np.hstack([first, second]), seed=seed, replicates=replicates
    )
    of_first, of_second = np.hsplit(aucs, 2)
    differences: Float64[np.ndarray, "replicates findings"] = of_second - of_first
    return differences


def label_strata(labels: Float[np.ndarray, "exams findings"]) -> Int[np.ndarray, " exams"]:
    """Assigns exams to strata by their labels for all findings; NaN is a separate value.

    Args:
        labels: 1 present, 0 absent, NaN unknown.

    Returns:
        The number of each exam's stratum; patterns with fewer than `MIN_STRATUM` exams share one.
    """
    pattern = np.zeros(len(labels), dtype=np.int64)
    # one finding at a time: for 200,000 exams, a tenth of the time of np.unique over rows
    for value in (np.nan_to_num(labels, nan=-1.0).astype(np.int64) + 1).T:
        _, pattern = np.unique(3 * pattern + value, return_inverse=True)
    rare = np.bincount(pattern)[pattern] < MIN_STRATUM
    return np.where(rare, pattern.max() + 1, pattern)


def _weighted_auc(
    labels: Float[np.ndarray, " exams"],
    scores: Float[np.ndarray, " exams"],
    counts: Float64[np.ndarray, "replicates exams"],
) -> Float64[np.ndarray, " replicates"]:
    """Computes the AUC of each replicate from how often each exam is drawn, sorting only once."""
    known = ~np.isnan(labels)
    order = np.flatnonzero(known)[np.argsort(scores[known], kind="stable")]
    starts = step_starts(scores[order])
    weights, positive = counts[:, order], labels[order]
    pos = np.add.reduceat(weights * positive, starts, axis=1)
    neg = np.add.reduceat(weights * (1 - positive), starts, axis=1)
    below = np.cumsum(neg, axis=1) - neg / 2
    pairs = pos.sum(axis=1) * neg.sum(axis=1)
    wins = (pos * below).sum(axis=1)
    aucs = np.full(len(pairs), np.nan)
    np.divide(wins, pairs, out=aucs, where=pairs > 0)
    return aucs


def _mean_of_ends(aucs: Sequence[Auc]) -> tuple[float, float]:
    return (
        float(np.mean([one.low for one in aucs])),
        float(np.mean([one.high for one in aucs])),
    )
