"""Localisation of heat in lesions: hits, chance levels and comparison with random maps."""

import math

import numpy as np
import pytest
from scipy.stats import binom

from mrknee.errors import MrkneeError
from mrknee.explanations.localisation import (
    Localisation,
    contrast,
    hit_rate,
    hottest_pixel,
    localise,
    mean_interval,
    summarise,
)

SHAPE = (4, 10, 12)
ALL_SEEN = np.ones(SHAPE[1:], dtype=bool)


def lesion_at(*where: slice) -> np.ndarray:
    """Returns a lesion that fills the given slices, rows and columns."""
    lesion = np.zeros(SHAPE, dtype=bool)
    lesion[where] = True
    return lesion


LESION = lesion_at(slice(1, 2), slice(2, 4), slice(3, 6))


def test_heat_on_the_lesion_hits_everything() -> None:
    """Heat equal to the lesion: both hits, all heat inside; chance is the lesion's share."""
    found = localise([LESION.astype(float)], [LESION], [ALL_SEEN])
    assert (found.slice_hit, found.pointing_hit, found.heat_inside) == (True, True, 1.0)
    assert found.slice_chance == 1 / 4
    assert found.pointing_chance == pytest.approx(6 / 480)


def test_heat_next_to_the_lesion_is_no_hit() -> None:
    """A hot spot one pixel outside the lesion is not a hit."""
    heat = np.zeros(SHAPE)
    heat[2, 2, 3] = 5.0
    found = localise([heat], [LESION], [ALL_SEEN])
    assert (found.slice_hit, found.pointing_hit, found.heat_inside) == (False, False, 0.0)
    heat = np.zeros(SHAPE)
    heat[1, 4, 3] = 5.0
    found = localise([heat], [LESION], [ALL_SEEN])
    assert (found.slice_hit, found.pointing_hit, found.heat_inside) == (True, False, 0.0)


def test_the_hottest_slice_need_not_hold_the_hottest_pixel() -> None:
    """Slices are ranked by their signed sum; pixels individually."""
    heat = np.full(SHAPE, 0.1)
    heat[1] = -0.1
    heat[1, 2, 3] = 2.0
    found = localise([heat], [LESION], [ALL_SEEN])
    assert (found.slice_hit, found.pointing_hit) == (False, True)


def test_the_middle_of_a_plateau_is_its_hottest_pixel() -> None:
    """Of equally hot pixels the central one is returned; unseen pixels are ignored."""
    heat = np.zeros(SHAPE)
    heat[2, 1:6, 3:8], heat[3, 0, 0] = 4.0, 9.0
    seen = ALL_SEEN.copy()
    seen[0] = False
    assert hottest_pixel(heat, seen) == (2, 3, 5)
    assert hottest_pixel(heat, ALL_SEEN) == (3, 0, 0)
    assert hottest_pixel(-np.ones(SHAPE), seen)[1] > 0


def test_negative_heat_is_ignored() -> None:
    """Negative heat is neither hottest nor included in the share of heat."""
    heat = np.zeros(SHAPE)
    heat[1, 2, 3], heat[0, 0, 0], heat[1, 3, 3] = -9.0, 3.0, 1.0
    assert localise([heat], [LESION], [ALL_SEEN]).heat_inside == pytest.approx(1 / 4)
    none = localise([-LESION.astype(float)], [LESION], [ALL_SEEN])
    assert math.isnan(none.heat_inside)
    assert not none.pointing_hit


def test_chance_levels_are_of_the_crop() -> None:
    """Pixels outside the crop, including lesion pixels, don't count for chance levels."""
    seen = ALL_SEEN.copy()
    seen[:, :6] = False
    lesion = LESION | lesion_at(slice(2, 4), slice(0, 1), slice(6, 7))
    found = localise([np.ones(SHAPE)], [lesion], [seen])
    assert found.slice_chance == 2 / 4
    assert found.pointing_chance == pytest.approx(2 / 240)
    with pytest.raises(MrkneeError, match="no lesion"):
        localise([np.ones(SHAPE)], [LESION], [seen])


def test_evenly_spread_heat_is_chance() -> None:
    """For uniform heat, the share inside the lesion is the lesion's share of the pixels."""
    found = localise([np.full(SHAPE, 0.3)], [LESION], [ALL_SEEN])
    assert found.heat_inside == pytest.approx(found.pointing_chance)


def test_planes_together_are_one_map() -> None:
    """Several planes, of any size, are treated as one map."""
    other = np.zeros((2, 5, 5))
    other[1] = 9.0
    empty = np.zeros((2, 5, 5), dtype=bool)
    window = np.ones((5, 5), dtype=bool)
    found = localise([LESION.astype(float), other], [LESION, empty], [ALL_SEEN, window])
    assert (found.slice_hit, found.pointing_hit) == (False, False)
    assert found.slice_chance == 1 / 6
    assert found.pointing_chance == pytest.approx(6 / 530)
    assert found.heat_inside == pytest.approx(6 / (6 + 225))


def test_shapes_that_differ_are_refused() -> None:
    """A mask of another shape raises an error instead of being broadcast."""
    with pytest.raises(MrkneeError, match="belong together"):
        localise([np.ones((4, 10, 11))], [LESION], [ALL_SEEN])


def test_equal_chances_are_binomial() -> None:
    """With equal chance levels, the exact p value is the upper tail of the binomial."""
    found = hit_rate([True] * 7 + [False] * 13, [0.2] * 20)
    assert found.p == pytest.approx(binom.sf(6, 20, 0.2), rel=1e-10)
    assert (found.observed.count, found.observed.n) == (7, 20)
    assert found.chance == pytest.approx(0.2)


def test_each_exam_has_its_own_chance() -> None:
    """With chance levels from 0.02 to 0.9, the p value agrees with a simulation."""
    rng = np.random.default_rng(0)
    chances = rng.uniform(0.02, 0.9, 15)
    counts = (rng.random((200_000, 15)) < chances).sum(axis=1)
    for hits in (4, 8, 12):
        found = hit_rate([True] * hits + [False] * (15 - hits), chances.tolist())
        assert found.p == pytest.approx((counts >= hits).mean(), abs=0.005)


def test_certain_hits_are_no_evidence() -> None:
    """If every slice contains the lesion, p is 1."""
    assert hit_rate([True] * 5, [1.0] * 5).p == 1.0
    assert hit_rate([True] * 5, [0.1] * 5).p == pytest.approx(1e-5)


def test_random_maps_are_at_chance_level() -> None:
    """For noise maps and 60 lesions, p is not small and the interval contains 0."""
    rng = np.random.default_rng(1)
    exams = [
        localise([rng.normal(size=SHAPE)], [np.roll(LESION, rng.integers(4), 0)], [ALL_SEEN])
        for _ in range(60)
    ]
    found = summarise(exams)
    assert found.slices.p > 0.05
    assert found.pointing.p > 0.05
    assert found.heat.low < 0 < found.heat.high


def test_maps_with_heat_on_the_lesion_are_above_chance() -> None:
    """For noise with some heat on the lesion, every measure is above chance."""
    rng = np.random.default_rng(2)
    exams = [
        localise([rng.normal(size=SHAPE) + 4 * LESION], [LESION], [ALL_SEEN]) for _ in range(40)
    ]
    found = summarise(exams)
    assert found.slices.p < 1e-6
    assert found.pointing.p < 1e-6
    assert found.heat.low > 0
    assert found.heat.n == 40
    assert found.heat.difference == pytest.approx(found.heat.inside - found.heat.even)


def test_exams_without_heat_are_counted() -> None:
    """Exams without heat count for hits, but not for shares, and their number is reported."""
    exams = [
        Localisation(True, 0.5, True, 0.1, 0.4),
        Localisation(False, 0.5, False, 0.1, math.nan),
    ]
    found = summarise(exams)
    assert (found.heat.n, found.heat.left_out, found.slices.observed.n) == (1, 1, 2)
    assert found.heat.inside == 0.4
    assert math.isnan(found.heat.low)
    nothing = summarise([])
    assert math.isnan(nothing.slices.p)
    assert math.isnan(nothing.heat.inside)


def test_the_interval_of_a_mean_is_the_normal_one() -> None:
    """The interval agrees with mean +- 1.96 standard errors of 200 normal values."""
    values = np.random.default_rng(3).normal(1, 2, 200)
    mean, low, high = mean_interval(values)
    half = 1.96 * values.std(ddof=1) / np.sqrt(200)
    assert mean == values.mean()
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.05)
    assert mean_interval(values, seed=1) == mean_interval(values, seed=1)


def test_a_map_is_compared_with_each_random_one() -> None:
    """Means of the random maps, paired difference and interval agree with hand calculation."""
    rng = np.random.default_rng(4)
    own, random = (rng.random(300) < 0.8).astype(float), (rng.random((3, 300)) < 0.3).astype(float)
    found = contrast(own, random)
    assert found.random == pytest.approx(random.mean())
    assert (found.lowest, found.highest) == (random.mean(1).min(), random.mean(1).max())
    paired = own - random.mean(axis=0)
    half = 1.96 * paired.std(ddof=1) / np.sqrt(300)
    assert found.difference == pytest.approx(paired.mean())
    ends = (paired.mean() - half, paired.mean() + half)
    assert (found.low, found.high) == pytest.approx(ends, abs=0.01)


def test_an_exam_without_a_value_is_excluded_from_the_contrast() -> None:
    """Exams without a value are excluded for all maps, and counted."""
    own, random = np.array([1.0, math.nan, 0.5]), np.array([[0.0, 0.0, math.nan]])
    found = contrast(own, random)
    assert (found.n, found.left_out, found.difference) == (1, 2, 1.0)
    assert math.isnan(found.low)
    nothing = contrast(own[1:2], random[:, 1:2])
    assert (nothing.n, nothing.left_out) == (0, 1)
    assert math.isnan(nothing.random)
