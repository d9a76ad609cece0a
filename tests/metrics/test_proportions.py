"""Proportions and Wilson's interval."""

import numpy as np
import pytest
from scipy.stats import binomtest

from mrknee.errors import MrkneeError
from mrknee.metrics.proportions import (
    check_prevalence,
    check_probabilities,
    known_pairs,
    wilson,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("count", "n"), [(0, 1), (1, 1), (0, 7), (7, 7), (47, 54), (1, 1000), (60, 120)]
)
def test_interval_equals_scipy(count: int, n: int) -> None:
    """Value and ends equal scipy's Wilson interval, also at 0 and 1 and for one exam."""
    found = wilson(count, n)
    expected = binomtest(count, n).proportion_ci(0.95, method="wilson")
    assert found.value == count / n
    assert (found.count, found.n) == (count, n)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.low < found.high


def test_proportion_of_no_exams_is_nan() -> None:
    """A proportion of no exams has neither value nor interval."""
    found = wilson(0, 0)
    assert (found.count, found.n) == (0, 0)
    assert np.isnan([found.value, found.low, found.high]).all()


@pytest.mark.parametrize(("count", "n"), [(-1, 5), (6, 5), (1, 0)])
def test_invalid_count_is_rejected(count: int, n: int) -> None:
    """A count outside 0 to n raises an error that states it."""
    with pytest.raises(MrkneeError, match=f"{count} of {n}"):
        wilson(count, n)


def test_interval_of_a_mean_covers() -> None:
    """For means of values between 0 and 1, the interval covers in at least 95 %."""
    rng = np.random.default_rng(0)
    means = rng.beta(0.5, 2.0, size=(2000, 30)).mean(axis=1)
    low, high = wilson_interval(means, 30)
    assert ((low <= 0.2) & (high >= 0.2)).mean() >= 0.95


def test_unknown_labels_are_excluded() -> None:
    """Exams without a known label are dropped, from labels and probabilities alike."""
    labels, p = known_pairs(np.array([1.0, np.nan, 0.0]), np.array([0.2, 0.3, 0.4]))
    assert labels.tolist() == [1, 0]
    assert p.tolist() == [0.2, 0.4]


@pytest.mark.parametrize("value", [-0.01, 1.01, np.nan, np.inf])
def test_invalid_probability_is_rejected(value: float) -> None:
    """Probabilities outside 0 to 1 raise an error that states how many there are."""
    with pytest.raises(MrkneeError, match="1 of 2 values"):
        check_probabilities(np.array([0.5, value]))


@pytest.mark.parametrize("value", [0.0, 1.0, -0.2, 1.3, np.nan])
def test_invalid_prevalence_is_rejected(value: float) -> None:
    """A prevalence of 0 or 1, or outside, raises an error."""
    with pytest.raises(MrkneeError, match="above 0 and below 1"):
        check_prevalence(value)
