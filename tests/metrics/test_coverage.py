"""Coverage of the 95 % intervals, by simulation with fixed seeds."""

import numpy as np
import pytest
from scipy.special import ndtri

from mrknee.metrics.discrimination import auc
from mrknee.metrics.paired_tests import difference_interval, have_same_ranking, paired_delong
from mrknee.metrics.resampling import bootstrap_differences, mean_auc

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unchecked")]

DRAWS = 400
# Coverage is a share of 400 draws: its own standard error is 0.011, so 0.92 is 2.7 below 0.95.
MIN_COVERAGE = 0.92


def coverage(
    truth: float, positives: int, negatives: int, *, exponential: bool, seed: int
) -> float:
    """Returns the share of simulated samples whose interval contains the true AUC."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([1.0, 0.0], [positives, negatives])
    hits = 0
    for _ in range(DRAWS):
        if exponential:
            scores = rng.exponential(size=len(labels))
            scores[positives:] *= (1 - truth) / truth
        else:
            scores = rng.normal(size=len(labels)) + np.sqrt(2) * ndtri(truth) * labels
        found = auc(labels, scores)
        hits += found.low <= truth <= found.high
    return hits / DRAWS


@pytest.mark.parametrize("truth", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("exponential", [False, True])
def test_interval_covers_with_mrnets_numbers(truth: float, exponential: bool) -> None:
    """Coverage is nominal for 54 positives and 66 negatives (MRNet's ACL, valid)."""
    assert coverage(truth, 54, 66, exponential=exponential, seed=1) >= MIN_COVERAGE


@pytest.mark.parametrize(("positives", "negatives"), [(1, 1), (2, 40), (5, 5), (5, 100)])
@pytest.mark.parametrize("truth", [0.5, 0.9])
def test_interval_covers_with_few_exams(positives: int, negatives: int, truth: float) -> None:
    """For few exams of a class, where DeLong's interval fails, the replacement covers."""
    assert coverage(truth, positives, negatives, exponential=False, seed=2) >= MIN_COVERAGE


def test_interval_of_four_exams_covers_less() -> None:
    """For two positives and two negatives, coverage is only about 0.87: few AUCs are possible."""
    assert 0.84 <= coverage(0.9, 2, 2, exponential=False, seed=2) <= MIN_COVERAGE


@pytest.mark.parametrize("truth", [0.7, 0.9])
def test_mean_covers(truth: float) -> None:
    """The interval of the mean covers for correlated scores and labels, as in MRNet."""
    patterns = [[0, 0, 0], [1, 0, 0], [1, 0, 1], [1, 1, 0], [1, 1, 1]]
    labels = np.repeat(np.array(patterns, dtype=float), [25, 20, 21, 23, 31], axis=0)
    rng = np.random.default_rng(3)
    hits = 0
    draws = 200
    for draw in range(draws):
        noise = np.sqrt(0.6) * rng.normal(size=labels.shape)
        shared = np.sqrt(0.4) * rng.normal(size=(len(labels), 1))
        scores = labels * np.sqrt(2) * ndtri(truth) + noise + shared
        found = mean_auc(["abnormal", "acl", "meniscus"], labels, scores, seed=draw, replicates=500)
        hits += found.low <= truth <= found.high
    # A percentile interval is slightly narrow, and 200 draws have a standard error of 0.015.
    assert hits / draws >= 0.9


@pytest.mark.parametrize(
    ("positives", "negatives", "first", "second", "together"),
    [
        (54, 66, 0.95, 0.9, 0.9),
        (54, 66, 0.99, 0.9, 0.0),
        (10, 50, 0.99, 0.9, 0.0),
        (5, 50, 0.8, 0.8, 0.5),
    ],
)
def test_difference_covers(
    positives: int, negatives: int, first: float, second: float, together: float
) -> None:
    """The interval of the difference covers: high, unequal AUCs, similar models, few exams."""
    rng = np.random.default_rng(4)
    labels = np.repeat([1.0, 0.0], [positives, negatives])
    truth, hits = second - first, 0
    for _ in range(DRAWS):
        one, other = rng.normal(size=(2, len(labels)))
        noise = one, together * one + np.sqrt(1 - together**2) * other
        pair = [
            z + np.sqrt(2) * ndtri(a) * labels for z, a in zip(noise, (first, second), strict=True)
        ]
        test = paired_delong(labels, *pair)
        low, high, _ = difference_interval(
            auc(labels, pair[0]),
            auc(labels, pair[1]),
            test.correlation,
            same_ranking=have_same_ranking(labels, *pair),
        )
        hits += low <= truth <= high
    # 10 and 50 exams, AUCs of 0.99 and 0.9: 0.90 to 0.93 (`paired_tests` lists worse cases)
    assert hits / DRAWS >= (0.9 if positives == 10 else MIN_COVERAGE)


def test_mean_difference_covers() -> None:
    """The bootstrap interval of the mean difference covers for unequal, correlated models."""
    patterns = [[0, 0, 0], [1, 0, 0], [1, 0, 1], [1, 1, 0], [1, 1, 1]]
    labels = np.repeat(np.array(patterns, dtype=float), [25, 20, 21, 23, 31], axis=0)
    rng = np.random.default_rng(6)
    hits, draws = 0, 100
    for draw in range(draws):
        shared = np.sqrt(0.5) * rng.normal(size=labels.shape)
        pair = [
            labels * np.sqrt(2) * ndtri(a) + shared + np.sqrt(0.5) * rng.normal(size=labels.shape)
            for a in (0.93, 0.87)
        ]
        means = bootstrap_differences(labels, *pair, seed=draw, replicates=300).mean(axis=1)
        low, high = np.quantile(means, [0.025, 0.975])
        hits += low <= 0.87 - 0.93 <= high
    # As for the mean AUC: slightly narrow, and 100 draws have a standard error of 0.022.
    assert hits / draws >= 0.89
