"""Intervals over exams and seeds, compared with other computations and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from jaxtyping import Float
from scipy.special import ndtr, ndtri
from scipy.stats import norm
from scipy.stats import t as student

from mrknee.errors import DataError
from mrknee.metrics.discrimination import DELONG_MIN_CLASS, auc, delong_covariance
from mrknee.metrics.hierarchical import (
    ONE_SEED,
    auc_over_seeds,
    difference_over_seeds,
    mean_over_findings,
    mean_over_folds,
    seed_aucs,
)
from mrknee.metrics.paired_tests import paired_delong

LABELS = np.repeat([1.0, 0.0], [40, 60])


def scores(
    rng: np.random.Generator, seeds: int, labels: Float[np.ndarray, " exams"] = LABELS
) -> Float[np.ndarray, "seeds exams"]:
    """Returns scores of an arm: noise per exam and per network, and a separation per seed."""
    own = rng.normal(size=(seeds, len(labels)))
    apart = 1.2 + 0.3 * rng.normal(size=(seeds, 1))
    noise = np.sqrt(0.5) * (rng.normal(size=len(labels)) + own)
    drawn: Float[np.ndarray, "seeds exams"] = noise + apart * labels
    return drawn


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_variance_is_that_of_obuchowski_and_rockette(seeds: int) -> None:
    """It equals that from mean squares and the covariances of all AUCs (`delong_covariance`)."""
    rng = np.random.default_rng(seeds)
    first, second = scores(rng, seeds), scores(rng, seeds)
    found = difference_over_seeds(seed_aucs(LABELS, first), seed_aucs(LABELS, second))
    both = delong_covariance(LABELS, np.concatenate([first, second]))
    table = both.aucs.reshape(2, seeds)
    residuals = (
        table - table.mean(axis=1, keepdims=True) - table.mean(axis=0, keepdims=True) + table.mean()
    )
    ms_tr = (residuals**2).sum() / (seeds - 1)
    blocks = both.covariance.reshape(2, seeds, 2, seeds)
    different = ~np.eye(seeds, dtype=bool)
    cov2 = np.mean([blocks[i, :, i][different].mean() for i in range(2)])
    cov3 = np.mean([blocks[i, :, 1 - i][different].mean() for i in range(2)])
    own, shared = 2 * ms_tr / seeds, 2 * max(cov2 - cov3, 0)
    fixed = sum(blocks[i, :, j].mean() * (1 if i == j else -1) for i in range(2) for j in range(2))

    def half(level: float) -> float:
        t, z = student.isf(level / 2, seeds - 1), norm.isf(level / 2)
        quantile = (own * t + shared * z) / (own + shared)
        return float(max(quantile * np.sqrt(own + shared), z * np.sqrt(fixed)))

    assert found.value == pytest.approx(table[1].mean() - table[0].mean())
    assert found.sd == pytest.approx(np.std(table[1] - table[0], ddof=1))
    assert found.exam_se == pytest.approx(np.sqrt(shared))
    assert found.high - found.value == pytest.approx(half(0.05), rel=1e-9)
    assert half(found.p) == pytest.approx(abs(found.value), rel=1e-6)
    assert (found.p < 0.05) == (not found.low <= 0 <= found.high)


def test_one_seed_has_delongs_interval_and_no_test() -> None:
    """With one seed, the interval is over exams only, and its method states this."""
    rng = np.random.default_rng(0)
    first, second = scores(rng, 1), scores(rng, 1)
    found = difference_over_seeds(seed_aucs(LABELS, first), seed_aucs(LABELS, second))
    expected = paired_delong(LABELS, first[0], second[0])
    assert found.value == pytest.approx(expected.difference)
    assert found.high - found.value == pytest.approx(1.96 * np.sqrt(expected.variance), rel=1e-3)
    assert math.isnan(found.p)
    assert math.isnan(found.sd)
    assert found.method == ONE_SEED
    one = auc_over_seeds(seed_aucs(LABELS, first))
    alone = auc(LABELS, first[0])
    assert (one.low, one.high) == pytest.approx((alone.low, alone.high))


def test_seeds_without_effect_give_the_interval_over_exams() -> None:
    """If all seeds give equal networks, the result is DeLong's test of one of them."""
    rng = np.random.default_rng(1)
    first, second = (np.repeat(scores(rng, 1), 4, axis=0) for _ in range(2))
    found = difference_over_seeds(seed_aucs(LABELS, first), seed_aucs(LABELS, second))
    expected = paired_delong(LABELS, first[0], second[0])
    assert found.sd == 0
    assert found.p == pytest.approx(expected.p, rel=1e-6)


def test_exams_of_one_group_count_as_one() -> None:
    """Duplicated exams in one group give about the interval of single exams, no narrower one."""
    rng = np.random.default_rng(2)
    once = scores(rng, 3), scores(rng, 3)
    twice = [np.concatenate([one, one], axis=1) for one in once]
    labels, groups = np.concatenate([LABELS, LABELS]), [*range(100), *range(100)]
    first, second = (seed_aucs(LABELS, one) for one in once)
    expected = difference_over_seeds(first, second)
    first, second = (seed_aucs(labels, one) for one in twice)
    grouped, apart = (difference_over_seeds(first, second, one) for one in (groups, None))
    assert grouped.exam_se == pytest.approx(expected.exam_se, rel=0.02)
    assert apart.exam_se == pytest.approx(expected.exam_se / np.sqrt(2), rel=0.02)


def test_the_mean_over_findings_includes_their_covariance() -> None:
    """The mean of a finding with itself has its interval; that of independent ones a narrower."""
    rng = np.random.default_rng(3)
    one = seed_aucs(LABELS, np.repeat(scores(rng, 1), 2, axis=0))
    other = seed_aucs(rng.permutation(LABELS), np.repeat(scores(rng, 1), 2, axis=0))
    assert auc_over_seeds(mean_over_findings([one, one])) == auc_over_seeds(one)
    mean = auc_over_seeds(mean_over_findings([one, other]))
    both = auc_over_seeds(one).exam_se, auc_over_seeds(other).exam_se
    assert mean.exam_se == pytest.approx(np.hypot(*both) / 2, rel=0.15)


def test_the_mean_over_folds_adds_independent_exams() -> None:
    """For two folds: mean of the AUCs, half the root of the sum of squared standard errors."""
    rng = np.random.default_rng(4)
    one, other = (seed_aucs(LABELS, np.repeat(scores(rng, 1), 2, axis=0)) for _ in range(2))
    mean = auc_over_seeds(mean_over_folds([one, other]))
    apart = auc_over_seeds(one), auc_over_seeds(other)
    assert mean.value == pytest.approx((apart[0].value + apart[1].value) / 2)
    assert mean.exam_se == pytest.approx(np.hypot(apart[0].exam_se, apart[1].exam_se) / 2)


@pytest.mark.parametrize("positive", [0, 1, 2])
def test_a_fold_with_few_exams_of_a_class_has_no_test(positive: int) -> None:
    """The numbers of one fold decide, although there are enough exams in all folds together."""
    rng = np.random.default_rng(9)
    few = np.repeat([1.0, 0.0], [positive, 100 - positive])
    folds = [(labels, scores(rng, 3), scores(rng, 3)) for labels in (LABELS, few)]
    one, other = (
        mean_over_folds([seed_aucs(fold[0], fold[arm]) for fold in folds]) for arm in (1, 2)
    )
    assert (one.n_positive, one.fewest) == (40 + positive, (positive, 100 - positive))
    found = difference_over_seeds(one, other)
    assert math.isnan(found.p)
    assert found.reason is not None
    assert math.isnan(found.low) == (positive < 2)
    assert math.isnan(mean_over_findings([one, other]).aucs[0]) == (positive == 0)
    assert mean_over_findings([one, other]).fewest == one.fewest


def test_one_seed_has_the_reasons_of_several() -> None:
    """Equal scores have no variation; with few exams of a class, the interval may be too narrow."""
    constant = auc_over_seeds(seed_aucs(LABELS, np.full((1, len(LABELS)), 0.5)))
    assert constant.reason == "exams and seeds show no variation"
    few = np.repeat([1.0, 0.0], [3, 40])
    found = auc_over_seeds(seed_aucs(few, scores(np.random.default_rng(0), 1, few)))
    assert "fewer than" in (found.reason or "")
    assert found.low < found.value < found.high


def test_unknown_labels_have_no_influence() -> None:
    """Exams without a label have no effect."""
    rng = np.random.default_rng(5)
    given = scores(rng, 3)
    more = np.concatenate([given, rng.normal(size=(3, 7))], axis=1)
    labels = np.concatenate([LABELS, np.full(7, np.nan)])
    assert auc_over_seeds(seed_aucs(labels, more)) == auc_over_seeds(seed_aucs(LABELS, given))


def test_missing_results_have_a_reason() -> None:
    """One class, one or few exams of a class, and identical networks give a stated reason."""
    rng = np.random.default_rng(6)
    given = scores(rng, 3)
    none = auc_over_seeds(seed_aucs(np.ones(100), given))
    assert math.isnan(none.value)
    assert none.reason is not None
    assert "one class only" in none.reason
    single = auc_over_seeds(seed_aucs(np.eye(100)[0], given))
    assert not math.isnan(single.value)
    assert math.isnan(single.low)
    assert single.reason is not None
    few = np.repeat([1.0, 0.0], [DELONG_MIN_CLASS - 1, 101 - DELONG_MIN_CLASS])
    other = scores(rng, 3)
    found = difference_over_seeds(seed_aucs(few, given), seed_aucs(few, other))
    assert math.isnan(found.p)
    assert not math.isnan(found.low)
    assert "fewer than 10" in str(found.reason)
    same = difference_over_seeds(seed_aucs(LABELS, given), seed_aucs(LABELS, given))
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)


@pytest.mark.parametrize("sign", [1, -1])
def test_separated_classes_have_an_interval(sign: int) -> None:
    """AUCs of 1 or 0 with all seeds: the interval of one such AUC, which has a width."""
    given = np.repeat(sign * LABELS[np.newaxis], 3, axis=0)
    found, alone = auc_over_seeds(seed_aucs(LABELS, given)), auc(LABELS, given[0])
    assert (found.low, found.high) == (alone.low, alone.high)


def test_refusals() -> None:
    """A NaN score and arms with different numbers of seeds are refused."""
    rng = np.random.default_rng(7)
    with pytest.raises(DataError, match="a score is NaN"):
        seed_aucs(LABELS, np.full((2, 100), np.nan))
    with pytest.raises(DataError, match="can't be compared"):
        difference_over_seeds(seed_aucs(LABELS, scores(rng, 2)), seed_aucs(LABELS, scores(rng, 3)))


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "seed_sd"), [(3, 0.02), (5, 0.01)])
@pytest.mark.usefixtures("unchecked")
def test_the_test_keeps_its_level_and_the_interval_covers(seeds: int, seed_sd: float) -> None:
    """Part of benchmarks/experiment_intervals.py: equal arms, and AUCs of 0.8 and 0.9."""
    rng = np.random.default_rng(8)
    draws, rejected, covered, covered_auc = 300, 0, 0, 0
    for _ in range(draws):
        shared = np.sqrt(0.4) * rng.normal(size=len(LABELS))

        def arm(value: float, shared: Float[np.ndarray, " exams"] = shared) -> tuple:  # type: ignore[type-arg]
            apart = np.sqrt(2) * ndtri(value)
            sd = seed_sd * np.sqrt(4 * np.pi) * np.exp(apart**2 / 4)
            own = np.sqrt(0.2) * rng.normal(size=len(LABELS))
            noise = shared + own + np.sqrt(0.4) * rng.normal(size=(seeds, len(LABELS)))
            drawn = noise + (apart + sd * rng.normal(size=(seeds, 1))) * LABELS
            return seed_aucs(LABELS, drawn), float(ndtr(apart / np.sqrt(2 + sd**2)))

        (first, truth), (equal, _), (better, more) = arm(0.8), arm(0.8), arm(0.9)
        rejected += difference_over_seeds(first, equal).p < 0.05
        found, one = difference_over_seeds(first, better), auc_over_seeds(better)
        covered += found.low <= more - truth <= found.high
        covered_auc += one.low <= more <= one.high
    # 5 % of 300 draws are 15, with a standard deviation of 3.8: limits are 2.6 of them away
    assert rejected <= 25
    assert draws - covered <= 25
    assert draws - covered_auc <= 25
