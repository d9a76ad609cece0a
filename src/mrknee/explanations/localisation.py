"""Localisation: agreement of heat maps with known lesions, compared with chance.

For one exam and one finding, three measures: whether the hottest slice contains the lesion; whether
the hottest pixel is in the lesion (the pointing game: J. Zhang et al., "Top-down neural attention
by excitation backprop", ECCV 2016; here with a tolerance of 0 pixels); and which share of the
positive heat is inside the lesion. Since large lesions are easily hit, each measure is reported
together with its chance level: that of a random slice, or of a random pixel that the network sees.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64

from mrknee.errors import DataError
from mrknee.metrics.proportions import Proportion, wilson

REPLICATES = 2000
"""Number of bootstrap replicates: a 2.5 % tail contains 50."""


@dataclass(frozen=True)
class Localisation:
    """The localisation of one finding in one exam, with chance levels.

    Attributes:
        slice_hit: whether the hottest slice (largest sum of heat) contains lesion pixels.
        slice_chance: share of slices that contain lesion pixels.
        pointing_hit: whether the hottest pixel (see `hottest_pixel`) is a lesion pixel.
        pointing_chance: share of the seen pixels that are lesion pixels, 0 to 1; also the share of
            uniformly distributed heat inside the lesion.
        heat_inside: share of the positive heat inside the lesion, 0 to 1; NaN if there is no
            positive heat.
    """

    slice_hit: bool
    slice_chance: float
    pointing_hit: bool
    pointing_chance: float
    heat_inside: float


def localise(
    heats: Sequence[Float[np.ndarray, "_ _ _"]],
    lesions: Sequence[Bool[np.ndarray, "_ _ _"]],
    seen: Sequence[Bool[np.ndarray, "_ _"]],
) -> Localisation:
    """Compares the heat of one finding with its lesion, in one or several planes.

    Several planes are treated as one map: the hottest slice and pixel are those of all planes.

    Args:
        heats: signed heat per plane, (slices, rows, cols).
        lesions: lesion mask per plane, of the same shape. Lesion pixels that the network doesn't
            see are ignored.
        seen: pixels that the network sees, per plane, (rows, cols). Only these can be hottest, so
            chance levels refer to them.

    Returns:
        The three measures with their chance levels.

    Raises:
        MrkneeError: heat and lesion differ in shape, or no lesion pixel is seen.
    """
    for heat, lesion, window in zip(heats, lesions, seen, strict=True):
        if heat.shape != lesion.shape or heat.shape[1:] != window.shape:
            raise DataError(
                "heat and lesion don't belong together",
                code="shapes",
                expected="heat and lesion (slices, rows, cols), seen (rows, cols)",
                found=f"{heat.shape}, {lesion.shape}, {window.shape}",
            )
    inside = [lesion & window for lesion, window in zip(lesions, seen, strict=True)]
    if not any(lesion.any() for lesion in inside):
        raise DataError(
            "there is no lesion to be found",
            code="no-lesion",
            expected="a lesion pixel inside what the network sees",
        )
    scores = np.concatenate([heat.sum(axis=(1, 2), dtype=np.float64) for heat in heats])
    holds = np.concatenate([lesion.any(axis=(1, 2)) for lesion in inside])
    values = np.concatenate([h[:, w].ravel() for h, w in zip(heats, seen, strict=True)])
    hottest = max(range(len(heats)), key=lambda i: float(heats[i][:, seen[i]].max()))
    pixel = hottest_pixel(heats[hottest], seen[hottest])
    hits = np.concatenate([x[:, w].ravel() for x, w in zip(inside, seen, strict=True)])
    positive = np.maximum(values, 0).astype(np.float64)
    total = positive.sum()
    return Localisation(
        slice_hit=bool(holds[scores.argmax()]),
        slice_chance=float(holds.mean()),
        pointing_hit=bool(inside[hottest][pixel]),
        pointing_chance=float(hits.mean()),
        heat_inside=float(positive[hits].sum() / total) if total > 0 else math.nan,
    )


def hottest_pixel(
    heat: Float[np.ndarray, "slices rows cols"], seen: Bool[np.ndarray, "rows cols"]
) -> tuple[int, int, int]:
    """Returns slice, row and column of the hottest pixel that the network sees.

    An upsampled map is constant outside the centres of its outermost cells, so that many pixels can
    share the largest heat: of those in the first such slice, the one nearest to their mean position
    is returned.
    """
    values = np.where(seen, heat, -np.inf)
    index = int(values.max(axis=(1, 2)).argmax())
    tied = np.argwhere(values[index] == values[index].max())
    row, col = tied[((tied - tied.mean(axis=0)) ** 2).sum(axis=1).argmin()]
    return index, int(row), int(col)


@dataclass(frozen=True)
class HitRate:
    """The share of exams with a hit, compared with chance.

    Attributes:
        observed: share of exams with a hit, with Wilson's 95 % interval.
        chance: mean chance level of the exams, 0 to 1; NaN without exams.
        p: probability that random draws hit at least as often, given each exam's chance level
            (exact, Poisson-binomial; one-sided); NaN without exams.
    """

    observed: Proportion
    chance: float
    p: float


@dataclass(frozen=True)
class HeatShare:
    """The share of positive heat inside the lesion, compared with uniformly distributed heat.

    Attributes:
        n: number of exams with positive heat.
        left_out: number of exams without positive heat.
        inside: mean share of positive heat inside the lesion, 0 to 1; NaN if n is 0.
        even: mean share of uniformly distributed heat, for the same exams; NaN if n is 0.
        difference: inside - even.
        low: lower end of the 95 % interval of the difference, from resampling exams; NaN if n < 2.
        high: upper end of the interval.
    """

    n: int
    left_out: int
    inside: float
    even: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class LocalisationScore:
    """The localisation of one finding over several exams; see `HitRate` and `HeatShare`."""

    slices: HitRate
    pointing: HitRate
    heat: HeatShare


def summarise(exams: Sequence[Localisation], *, seed: int = 0) -> LocalisationScore:
    """Summarises the localisation over exams.

    Args:
        exams: one entry per exam.
        seed: seed of the resampling.
    """
    shares = np.array([exam.heat_inside for exam in exams], dtype=np.float64)
    even = np.array([exam.pointing_chance for exam in exams], dtype=np.float64)
    known = ~np.isnan(shares)
    difference, low, high = mean_interval(shares[known] - even[known], seed=seed)
    return LocalisationScore(
        slices=hit_rate([e.slice_hit for e in exams], [e.slice_chance for e in exams]),
        pointing=hit_rate([e.pointing_hit for e in exams], [e.pointing_chance for e in exams]),
        heat=HeatShare(
            n=int(known.sum()),
            left_out=int((~known).sum()),
            inside=float(shares[known].mean()) if known.any() else math.nan,
            even=float(even[known].mean()) if known.any() else math.nan,
            difference=difference,
            low=low,
            high=high,
        ),
    )


@dataclass(frozen=True)
class Contrast:
    """Comparison of one map with several random maps, on the same exams.

    Attributes:
        n: number of exams.
        left_out: number of exams excluded because a map has no value.
        random: mean over exams and random maps; NaN without exams.
        lowest: lowest mean of a single random map.
        highest: highest mean of a single random map.
        difference: mean of the map - `random`.
        low: lower end of the 95 % interval of the difference, from resampling exams; it doesn't
            include the variance due to the choice of random maps. NaN if n < 2.
        high: upper end of the interval.
    """

    n: int
    left_out: int
    random: float
    lowest: float
    highest: float
    difference: float
    low: float
    high: float


def contrast(
    own: Float[np.ndarray, " exams"], random: Float[np.ndarray, "maps exams"], *, seed: int = 0
) -> Contrast:
    """Compares the values of a map with those of random maps, paired by exam.

    Args:
        own: value of the map for each exam, such as hit (1) or not (0), or a share of heat; NaN if
            it has none.
        random: the same values for each random map.
        seed: seed of the resampling.
    """
    known = ~(np.isnan(own) | np.isnan(random).any(axis=0))
    n, left_out = int(known.sum()), int((~known).sum())
    if n == 0:
        return Contrast(0, left_out, *[math.nan] * 6)
    each = random[:, known].astype(np.float64)
    difference, low, high = mean_interval(own[known] - each.mean(axis=0), seed=seed)
    means = each.mean(axis=1)
    return Contrast(
        n, left_out, float(means.mean()), float(means.min()), float(means.max()),
        difference, low, high,
    )  # fmt: skip


def hit_rate(hits: Sequence[bool], chances: Sequence[float]) -> HitRate:
    """Compares hits with random draws.

    The number of hits of random draws has a Poisson-binomial distribution, computed exactly.

    Args:
        hits: whether each exam has a hit.
        chances: chance level of each exam, 0 to 1.
    """
    observed = wilson(sum(hits), len(hits))
    if not hits:
        return HitRate(observed, math.nan, math.nan)
    counts = np.ones(1)  # counts[k]: probability of k hits
    for chance in chances:
        counts = np.convolve(counts, [1 - chance, chance])
    return HitRate(observed, float(np.mean(chances)), float(min(counts[sum(hits) :].sum(), 1.0)))


def mean_interval(
    values: Float64[np.ndarray, " exams"], *, seed: int = 0
) -> tuple[float, float, float]:
    """Computes a mean with its 95 % interval, by the percentile bootstrap of exams.

    Returns:
        Mean, lower and upper end; NaN without exams, and for the ends with one exam only.
    """
    if len(values) == 0:
        return math.nan, math.nan, math.nan
    if len(values) == 1:
        return float(values[0]), math.nan, math.nan
    rng = np.random.default_rng(seed)
    means = values[rng.integers(len(values), size=(REPLICATES, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)
