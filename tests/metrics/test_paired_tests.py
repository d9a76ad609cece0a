"""Two models on the same exams: DeLong's test, MOVER interval, Holm's correction."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests  # type: ignore[import-untyped]

from mrknee.errors import MrkneeError
from mrknee.metrics.discrimination import auc, delong_covariance
from mrknee.metrics.paired_tests import difference_interval, have_same_ranking, holm, paired_delong

with warnings.catch_warnings():
    # the package causes warnings of its dependencies on import
    warnings.simplefilter("ignore")
    from MLstatkit import Delong_test


def draw(seed: int, positives: int, negatives: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns labels and correlated scores of two models."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat([1.0, 0.0], [positives, negatives]))
    shared = rng.normal(size=len(labels))
    first, second = (
        labels * shift + 0.7 * shared + 0.7 * rng.normal(size=len(labels)) for shift in (1.0, 1.6)
    )
    return labels, first, second


def interval(labels: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[float, float, str]:
    """Computes the interval of the difference from labels and scores."""
    test = paired_delong(labels, first, second)
    same = have_same_ranking(labels, first, second)
    return difference_interval(
        auc(labels, first), auc(labels, second), test.correlation, same_ranking=same
    )


@pytest.mark.parametrize("decimals", [0, 1, 15])
@pytest.mark.parametrize(("positives", "negatives"), [(2, 2), (3, 40), (30, 60), (300, 500)])
def test_z_and_p_equal_mlstatkit(decimals: int, positives: int, negatives: int) -> None:
    """AUCs, z and p equal those of the package MLstatkit, with many ties, some and none."""
    compared = 0
    for seed in range(10):
        labels, first, second = draw(seed, positives, negatives)
        first, second = first.round(decimals), second.round(decimals)
        ours = paired_delong(labels, first, second)
        if not ours.variance > 0:
            continue  # without a variance the package divides by zero; see below
        z, p, _, _, auc_first, auc_second, _ = Delong_test(labels, first, second)
        assert (ours.first, ours.second) == pytest.approx((auc_first, auc_second), abs=1e-12)
        assert abs(ours.z) == pytest.approx(abs(z), rel=1e-8)
        assert ours.p == pytest.approx(p, rel=1e-7, abs=1e-15)
        assert math.copysign(1, ours.z) == math.copysign(1, ours.second - ours.first)
        compared += 1
    assert compared >= 5


@pytest.mark.parametrize("decimals", [0, 15])
def test_variance_equals_that_of_the_covariance(decimals: int) -> None:
    """The variance equals v11 + v22 - 2 v12 of DeLong's covariance."""
    labels, first, second = draw(3, 40, 70)
    first, second = first.round(decimals), second.round(decimals)
    covariance = delong_covariance(labels, np.stack([first, second])).covariance
    test = paired_delong(labels, first, second)
    contrast = np.array([-1.0, 1.0])
    assert test.variance == pytest.approx(contrast @ covariance @ contrast, rel=1e-10)
    assert test.correlation == pytest.approx(
        covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]), rel=1e-10
    )


@pytest.mark.parametrize("decimals", [0, 1, 15])
def test_identical_models_have_p_one(decimals: int) -> None:
    """For a model and a rank-preserving transformation of it, p is 1, with a reason."""
    labels, first, _ = draw(0, 30, 50)
    first = first.round(decimals)
    test = paired_delong(labels, first, np.exp(first / 3))
    assert (test.difference, test.variance, test.z, test.p) == (0, 0, 0, 1)
    assert test.reason is not None
    assert "same pairs" in test.reason


def test_two_perfect_models_have_p_one() -> None:
    """For two perfect models in different orders p is 1, where another package gives 0."""
    labels = np.repeat([1.0, 0.0], [20, 30])
    rng = np.random.default_rng(0)
    first, second = labels + rng.random(50) / 2, labels + rng.random(50) / 2
    assert not have_same_ranking(labels, first, second)
    test = paired_delong(labels, first, second)
    assert (test.first, test.second, test.p) == (1, 1, 1)
    low, high, method = interval(labels, first, second)
    assert low < -0.01 < 0.01 < high
    assert "taken as 0" in method


@pytest.mark.parametrize("worse", ["opposite", "constant"])
def test_no_variance_but_a_difference_has_no_p(worse: str) -> None:
    """A perfect model against its opposite, or against constant scores: p is NaN."""
    labels = np.repeat([1.0, 0.0], [12, 15])
    first = 1 - labels if worse == "opposite" else np.full(27, 0.5)
    test = paired_delong(labels, first, labels)
    assert test.difference == (1.0 if worse == "opposite" else 0.5)
    assert math.isnan(test.p)
    assert math.isnan(test.z)
    assert test.reason is not None
    assert "variance is zero" in test.reason
    low, high, _ = interval(labels, first, labels)
    assert 0 < low < test.difference <= high <= 1


@pytest.mark.parametrize("labels", [[1.0, 1.0], [0.0], [np.nan, 0.0], [np.nan]])
def test_one_class_has_no_difference(labels: list[float]) -> None:
    """With one class or none every number is NaN, with a reason."""
    given_labels, scores = np.array(labels), np.linspace(0, 1, len(labels))
    test = paired_delong(given_labels, scores, scores[::-1])
    assert np.isnan([test.first, test.second, test.difference, test.z, test.p]).all()
    assert test.reason is not None
    assert np.isnan(interval(given_labels, scores, scores[::-1])[:2]).all()


def test_one_exam_of_a_class_has_a_difference_and_no_p() -> None:
    """With one positive exam there is a difference with an interval, but no p."""
    labels = np.array([1.0, 0.0, 0.0, 0.0])
    first, second = np.array([0.5, 0.1, 0.6, 0.7]), np.array([0.5, 0.1, 0.2, 0.3])
    test = paired_delong(labels, first, second)
    assert test.difference == pytest.approx(2 / 3)
    assert math.isnan(test.p)
    assert test.reason is not None
    assert "two exams of each class" in test.reason
    low, high, _ = interval(labels, first, second)
    assert -1 <= low < test.difference < high <= 1


def test_interval_is_movers_by_hand() -> None:
    """The ends equal the formula of Zou 2007 with DeLong's correlation."""
    labels, first, second = draw(1, 40, 60)
    one, two = auc(labels, first), auc(labels, second)
    r = paired_delong(labels, first, second).correlation
    d = two.value - one.value
    below = [(two.value - two.low), (one.high - one.value)]
    above = [(two.high - two.value), (one.value - one.low)]
    low, high, method = interval(labels, first, second)
    assert low == pytest.approx(
        d - np.sqrt(below[0] ** 2 + below[1] ** 2 - 2 * r * below[0] * below[1])
    )
    assert high == pytest.approx(
        d + np.sqrt(above[0] ** 2 + above[1] ** 2 - 2 * r * above[0] * above[1])
    )
    assert f"{r:.2f}" in method


def test_interval_is_near_walds_for_many_exams() -> None:
    """For many exams and moderate AUCs, MOVER and Wald's interval agree."""
    labels, first, second = draw(2, 1500, 2000)
    test = paired_delong(labels, first, second)
    half = 1.96 * math.sqrt(test.variance)
    low, high, _ = interval(labels, first, second)
    assert (low, high) == pytest.approx((test.difference - half, test.difference + half), abs=2e-3)


def test_identical_rankings_have_no_interval() -> None:
    """For identical rankings the interval is 0 to 0, and its method says "none"."""
    labels, first, _ = draw(4, 30, 30)
    low, high, method = interval(labels, first, 2 * first)
    assert (low, high) == (0, 0)
    assert method.startswith("none")
    assert "identically" in method


@pytest.mark.parametrize(("positives", "negatives"), [(1, 1), (2, 9), (9, 50), (40, 40)])
def test_few_or_separated_exams_have_a_positive_width(positives: int, negatives: int) -> None:
    """Few exams ranked identically, or two perfect models, have a positive width."""
    labels = np.repeat([1.0, 0.0], [positives, negatives])
    low, high, _ = interval(labels, labels, labels)
    assert -1 <= low < 0 < high <= 1
    some = np.linspace(0, 1, len(labels))
    if positives < 10:
        low, high, _ = interval(labels, some, some)
        assert -1 <= low < high <= 1


scores_of = st.lists(st.integers(0, 6), min_size=1, max_size=25)


@settings(max_examples=150, deadline=None, database=None)
@given(st.data())
def test_small_samples_give_valid_results(data: st.DataObject) -> None:
    """For arbitrary small samples: NaN has a reason, ends are ordered, p is valid."""
    first = np.array(data.draw(scores_of), dtype=float)
    n = len(first)
    second = np.array(data.draw(st.lists(st.integers(0, 6), min_size=n, max_size=n)), dtype=float)
    labels = np.array(
        data.draw(st.lists(st.sampled_from([0.0, 1.0, np.nan]), min_size=n, max_size=n))
    )
    test = paired_delong(labels, first, second)
    low, high, method = interval(labels, first, second)
    assert math.isnan(test.p) <= (test.reason is not None)
    assert math.isnan(test.p) or 0 <= test.p <= 1
    if math.isnan(test.difference):
        assert math.isnan(low)
        assert math.isnan(high)
        return
    assert -1 <= low <= test.difference <= high <= 1
    assert low < high or method.startswith("none")
    swapped = paired_delong(labels, second, first)
    assert swapped.difference == pytest.approx(-test.difference, abs=1e-12)
    assert swapped.p == pytest.approx(test.p, nan_ok=True)
    mirrored = interval(labels, second, first)
    assert (mirrored[0], mirrored[1]) == pytest.approx((-high, -low), abs=1e-9)


def test_unknown_labels_are_excluded() -> None:
    """Exams without a known label change nothing."""
    labels, first, second = draw(5, 20, 30)
    with_unknown = paired_delong(
        np.append(labels, np.nan), np.append(first, 9.0), np.append(second, -9.0)
    )
    assert with_unknown == paired_delong(labels, first, second)


def test_nan_score_is_rejected() -> None:
    """A NaN of either model raises an error."""
    with pytest.raises(MrkneeError, match="a score is NaN"):
        paired_delong(np.array([0.0, 1.0]), np.array([0.1, 0.2]), np.array([0.1, np.nan]))


def test_holm_equals_statsmodels() -> None:
    """The corrected p values equal those of the package statsmodels, also with ties."""
    rng = np.random.default_rng(0)
    for tests in (1, 2, 3, 9):
        for decimals in (1, 3):
            p = (rng.random(tests) ** 3).round(decimals)
            assert holm(p) == pytest.approx(multipletests(p, method="holm")[1], abs=1e-12)


def test_holm_by_hand() -> None:
    """The smallest of three p is multiplied by 3, the next by 2; the order is kept."""
    assert holm(np.array([0.04, 0.01, 0.03])) == pytest.approx([0.06, 0.03, 0.06])


def test_holm_ignores_missing_tests() -> None:
    """A NaN stays NaN and doesn't count as a test."""
    found = holm(np.array([np.nan, 0.02, 0.5]))
    assert math.isnan(found[0])
    assert found[1:] == pytest.approx([0.04, 0.5])
