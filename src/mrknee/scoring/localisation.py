"""Does the heat lie where the lesion is? Against what chance would reach for that lesion's size.

Three questions to one exam's heat map of one finding: does the hottest slice hold the lesion, does
the hottest pixel fall into it (the pointing game: J. Zhang et al., "Top-down neural attention by
excitation backprop", ECCV 2016; here with a tolerance of 0 pixels), and how much of the positive
heat lies inside it. A large lesion is hit without knowing anything, so each number comes beside its
chance: of a slice, or of a pixel that the network sees, drawn blindly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64

from mrknee.errors import DataError
from mrknee.scoring.proportions import Proportion, wilson

REPLICATES = 2000
"""Bootstrap replicates: enough for a 2.5 % tail of 50 replicates."""


@dataclass(frozen=True)
class Localisation:
    """One exam, one finding: where the heat is, and what chance would do.

    Attributes:
        slice_hit: the hottest slice (largest sum of its heat) holds lesion pixels.
        slice_chance: share of slices that hold lesion pixels.
        pointing_hit: the hottest pixel (see `hottest_pixel`) is a lesion pixel.
        pointing_chance: share of the seen pixels that are lesion, 0 to 1: also the share of
            evenly spread heat that would lie inside.
        heat_inside: share of the positive heat that lies inside the lesion, 0 to 1; NaN where
            there is no positive heat.
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
    """Holds one finding's heat against its lesion, in one plane or in several together.

    Several planes together are one map: the hottest slice and pixel are those of any plane.

    Args:
        heats: by plane, the signed heat (slices, rows, cols).
        lesions: by plane, where the lesion is, in the same grid. Slices hold a lesion, and pixels
            are lesion, only where the network sees them.
        seen: by plane, (rows, cols) the pixels that the network sees. No other can be hottest, so
            chance is counted among these.

    Raises:
        MrkneeError: heat and lesion differ in shape, or there is no lesion pixel that is seen.
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
    """Slice, row and column of the hottest pixel that is seen.

    A coarse map is flat beyond the centres of its outermost cells, so that many pixels share the
    largest heat: of those in the first such slice, the one nearest to their middle is taken.
    """
    values = np.where(seen, heat, -np.inf)
    index = int(values.max(axis=(1, 2)).argmax())
    tied = np.argwhere(values[index] == values[index].max())
    row, col = tied[((tied - tied.mean(axis=0)) ** 2).sum(axis=1).argmin()]
    return index, int(row), int(col)


@dataclass(frozen=True)
class HitRate:
    """How often something was hit, against chance.

    Attributes:
        observed: hits of exams, with Wilson's 95 % interval.
        chance: the mean of the exams' own chances, 0 to 1; NaN without exams.
        p: how likely blind draws would hit at least as often, each exam with its own chance
            (exact, Poisson-binomial; one-sided); NaN without exams.
    """

    observed: Proportion
    chance: float
    p: float


@dataclass(frozen=True)
class HeatShare:
    """How much of the positive heat lies inside the lesion, against evenly spread heat.

    Attributes:
        n: exams that have positive heat.
        left_out: exams that have none, and so no share.
        inside: mean share of positive heat inside, 0 to 1; NaN when n is 0.
        even: mean share of evenly spread heat, of the same exams; NaN when n is 0.
        difference: inside - even.
        low: lower end of the difference's 95 % interval, from resampling exams; NaN when n < 2.
        high: its upper end.
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
    """One finding's localisation over exams; see `HitRate` and `HeatShare`."""

    slices: HitRate
    pointing: HitRate
    heat: HeatShare


def summarise(exams: Sequence[Localisation], *, seed: int = 0) -> LocalisationScore:
    """Sums up exams.

    Args:
        exams: one entry an exam.
        seed: of the resampling.
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
    """One map against several random ones, on the same exams.

    Attributes:
        n: exams.
        left_out: exams in which a map has no value.
        random: mean over exams and random maps; NaN without exams.
        lowest: the lowest mean of any one of the random maps.
        highest: the highest.
        difference: the map's mean - `random`.
        low: lower end of the difference's 95 % interval, from resampling exams; it doesn't
            reckon with which random maps were drawn. NaN when n < 2.
        high: its upper end.
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
    """Holds a map's value against those of random maps, exam by exam.

    Args:
        own: the map's value in each exam, such as hit (1) or not (0), or a share of heat; NaN
            where it has none.
        random: the same of each random map.
        seed: of the resampling.
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
    """Hits against blind draws, each with its own chance.

    The number of hits of blind draws is Poisson-binomial; its distribution is built exam by exam.

    Args:
        hits: whether each exam was hit.
        chances: what each exam's chance is, 0 to 1.
    """
    observed = wilson(sum(hits), len(hits))
    if not hits:
        return HitRate(observed, math.nan, math.nan)
    counts = np.ones(1)  # counts[k]: how likely k hits are
    for chance in chances:
        counts = np.convolve(counts, [1 - chance, chance])
    return HitRate(observed, float(np.mean(chances)), float(min(counts[sum(hits) :].sum(), 1.0)))


def mean_interval(
    values: Float64[np.ndarray, " exams"], *, seed: int = 0
) -> tuple[float, float, float]:
    """A mean with its 95 % interval: exams drawn with replacement, percentiles of the means.

    Returns:
        Mean, lower and upper end; NaN for what can't be had (no exam; no interval of one exam).
    """
    if len(values) == 0:
        return math.nan, math.nan, math.nan
    if len(values) == 1:
        return float(values[0]), math.nan, math.nan
    rng = np.random.default_rng(seed)
    means = values[rng.integers(len(values), size=(REPLICATES, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)
