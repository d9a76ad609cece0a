"""AUC, interval and DeLong's covariance, against other implementations and by hand."""

import warnings
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.metrics import roc_auc_score

from mrknee.errors import MrkneeError
from mrknee.metrics.discrimination import (
    DELONG,
    NEWCOMBE,
    Z_95,
    Auc,
    auc,
    delong_covariance,
    newcombe_interval,
    separation_bound,
)

with warnings.catch_warnings():
    # both packages cause warnings of their dependencies on import
    warnings.simplefilter("ignore")
    from confidenceinterval.delong import delong_roc_variance
    from MLstatkit import Delong_test


def draw(
    seed: int, positives: int, negatives: int, shift: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Returns shuffled labels and normal scores, shifted upwards for positives."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat([1.0, 0.0], [positives, negatives]))
    return labels, rng.normal(size=len(labels)) + shift * labels


def by_pairs(labels: np.ndarray, scores: np.ndarray) -> float:
    """Computes the AUC by definition: the share of pairs in which the positive wins."""
    pairs = product(scores[labels == 1], scores[labels == 0])
    return float(np.mean([1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs]))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("decimals", [0, 1, 15])
def test_auc_equals_sklearn(seed: int, decimals: int) -> None:
    """The AUC equals scikit-learn's, with many ties, some and none."""
    labels, scores = draw(seed, 3 + 5 * seed, 40)
    scores = scores.round(decimals)
    assert auc(labels, scores).value == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


@pytest.mark.parametrize("labels", [p for p in product([0.0, 1.0], repeat=4) if 0 < sum(p) < 4])
def test_auc_is_the_share_of_correctly_ranked_pairs(labels: tuple[float, ...]) -> None:
    """The AUC is the share of correctly ranked pairs, for all labels and ties of four exams."""
    for scores in product([0.0, 0.5, 1.0], repeat=4):
        found = auc(np.array(labels), np.array(scores))
        assert found.value == pytest.approx(by_pairs(np.array(labels), np.array(scores)), abs=1e-12)
        assert 0 <= found.low <= found.value <= found.high <= 1
        assert found.low < found.high


@pytest.mark.parametrize("decimals", [0, 1, 15])
def test_variance_equals_confidenceinterval(decimals: int) -> None:
    """The variance equals that of the package confidenceinterval, which uses float32."""
    for seed in range(10):
        labels, scores = draw(seed, 25, 95)
        scores = scores.round(decimals)
        value, variance = delong_roc_variance(labels.astype(int), scores)
        ours = delong_covariance(labels, scores[np.newaxis])
        assert ours.aucs[0] == pytest.approx(float(value), abs=1e-5)
        assert ours.covariance[0, 0] == pytest.approx(float(variance), rel=1e-3)


@pytest.mark.parametrize("decimals", [0, 1, 15])
def test_covariance_equals_mlstatkit(decimals: int) -> None:
    """AUCs of two models, and z of their difference, equal those of the package MLstatkit."""
    for seed in range(10):
        labels, first = draw(seed, 30, 60)
        second = (0.5 * first + draw(seed + 100, 30, 60)[1]).round(decimals)
        first = first.round(decimals)
        z, _, _, _, auc_first, auc_second, info = Delong_test(labels, first, second)
        assert info["method"] == "delong"
        both = delong_covariance(labels, np.stack([first, second]))
        contrast = np.array([-1.0, 1.0])
        ours = contrast @ both.aucs / np.sqrt(contrast @ both.covariance @ contrast)
        assert both.aucs == pytest.approx([auc_first, auc_second], abs=1e-12)
        assert ours == pytest.approx(z, rel=1e-9)


def test_covariance_is_delongs_definition() -> None:
    """The covariance of three models equals DeLong's definition, computed pair by pair."""
    labels, _ = draw(0, 7, 11)
    scores = np.random.default_rng(1).integers(0, 6, size=(3, 18)).astype(float)
    positive, negative = scores[:, labels == 1], scores[:, labels == 0]
    wins = (positive[:, :, None] > negative[:, None]) + 0.5 * (
        positive[:, :, None] == negative[:, None]
    )
    expected = np.cov(wins.mean(axis=2)) / 7 + np.cov(wins.mean(axis=1)) / 11
    assert delong_covariance(labels, scores).covariance == pytest.approx(expected, abs=1e-12)


def test_identical_models_have_no_variance_of_their_difference() -> None:
    """A model and its copy have equal variances, and their difference has variance zero."""
    labels, scores = draw(3, 30, 50)
    covariance = delong_covariance(labels, np.stack([scores, scores])).covariance
    assert covariance == pytest.approx(np.full((2, 2), covariance[0, 0]), abs=1e-15)


def test_interval_is_delongs_on_the_logit_scale() -> None:
    """With enough exams the interval is expit(logit(AUC) +- 1.96 standard errors)."""
    labels, scores = draw(5, 25, 95, shift=2.0)
    found = auc(labels, scores)
    error = np.sqrt(delong_covariance(labels, scores[np.newaxis]).covariance[0, 0])
    half = 1.959964 * error / (found.value * (1 - found.value))
    assert found.low == pytest.approx(expit(logit(found.value) - half), abs=1e-6)
    assert found.high == pytest.approx(expit(logit(found.value) + half), abs=1e-6)
    assert found.method == DELONG
    assert (found.n_positive, found.n_negative, found.reason) == (25, 95, None)


@pytest.mark.parametrize("labels", [[1.0, 1.0], [0.0], [np.nan, 0.0, 0.0], [np.nan], []])
def test_one_class_has_a_reason_instead_of_an_auc(labels: list[float]) -> None:
    """With one class or none, AUC and interval are NaN and a reason is given."""
    found = auc(np.array(labels), np.linspace(0, 1, len(labels)))
    assert np.isnan([found.value, found.low, found.high]).all()
    assert found.reason is not None
    assert ("one class only" in found.reason) == (not np.isnan(labels).all())
    assert found.method == "none"


@pytest.mark.parametrize(("positives", "negatives"), [(1, 1), (1, 30), (2, 2), (60, 60), (25, 95)])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_separation_has_an_interval_of_positive_width(
    positives: int, negatives: int, sign: float
) -> None:
    """A perfect model and its opposite have an interval of positive width."""
    labels = np.repeat([1.0, 0.0], [positives, negatives])
    found = auc(labels, sign * labels)
    assert found.value == (sign > 0)
    assert 0.01 < found.high - found.low < 1
    assert found.method.startswith(NEWCOMBE)
    assert "separated" in found.method


def test_separation_is_rare_below_the_interval() -> None:
    """At the lower end of a perfect model's interval at most 2.5 % of samples are separated."""
    rng = np.random.default_rng(0)
    for m, n in product([1, 2, 5, 20], [1, 3, 20]):
        labels = np.repeat([1.0, 0.0], [m, n])
        low = auc(labels, labels).low
        negatives = rng.exponential(size=(20_000, n)) * (1 - low) / low
        separated = rng.exponential(size=(20_000, m)).min(axis=1) > negatives.max(axis=1)
        assert separated.mean() < 0.025 + 4 * np.sqrt(0.025 * 0.975 / 20_000)


def test_separation_bound_of_two_exams_is_exact() -> None:
    """For one positive above one negative, the bound is that of one success in one trial."""
    assert separation_bound(1, 1) == pytest.approx(0.025, abs=1e-9)


def test_newcombes_interval_of_two_exams_is_wilsons() -> None:
    """With one exam in each class Newcombe's interval is Wilson's for one trial."""
    low, high = newcombe_interval(1.0, 1, 1)
    assert low == pytest.approx(1 / (1 + Z_95**2), abs=1e-9)
    assert high == 1.0


@pytest.mark.parametrize("value", [0.0, 0.03, 0.5, 0.871, 1.0])
def test_newcombes_interval_is_symmetric(value: float) -> None:
    """Exchanging the classes mirrors the interval."""
    low, high = newcombe_interval(value, 9, 41)
    assert newcombe_interval(1 - value, 9, 41) == pytest.approx((1 - high, 1 - low), abs=1e-9)


def test_constant_scores_are_chance_with_an_interval() -> None:
    """Constant scores have AUC 0.5 and an interval of positive width."""
    labels, scores = draw(0, 60, 60)
    found = auc(labels, np.full_like(scores, 0.3))
    assert found.value == 0.5
    assert found.low == pytest.approx(1 - found.high)
    assert 0.1 < found.high - found.low < 0.3
    assert "equal" in found.method


def test_few_exams_of_a_class_have_newcombes_interval() -> None:
    """With fewer than ten exams of a class the interval is Newcombe's, else DeLong's."""
    assert "fewer than 10" in auc(*draw(1, 9, 100)).method
    assert auc(*draw(1, 10, 100)).method == DELONG


def equal_aucs(first: Auc, second: Auc) -> bool:
    """Compares two AUCs up to rounding."""
    numbers = [np.array([one.value, one.low, one.high]) for one in (first, second)]
    rest = [(one.n_positive, one.n_negative, one.method) for one in (first, second)]
    return np.allclose(numbers[0], numbers[1], rtol=0, atol=1e-9) and rest[0] == rest[1]


@pytest.mark.parametrize(
    "change",
    [
        lambda s: 3 * s - 7,
        np.exp,
        lambda s: s.astype(np.float32).astype(np.float64),
        lambda s: np.where(s == s.max(), np.inf, s),
    ],
)
def test_only_ranks_matter(change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Increasing transformations of the scores change neither AUC nor interval."""
    labels, scores = draw(7, 20, 30)
    assert equal_aucs(auc(labels, scores), auc(labels, change(scores)))


def test_order_of_exams_does_not_matter() -> None:
    """Shuffling the exams changes nothing."""
    labels, scores = draw(8, 20, 30)
    order = np.random.default_rng(0).permutation(50)
    assert equal_aucs(auc(labels, scores), auc(labels[order], scores[order]))


def test_exchanging_the_classes_mirrors_the_auc() -> None:
    """Exchanging the classes gives one minus the AUC, and mirrored ends."""
    labels, scores = draw(9, 20, 30)
    one, mirrored = auc(labels, scores), auc(1 - labels, scores)
    assert (mirrored.value, mirrored.low, mirrored.high) == pytest.approx(
        (1 - one.value, 1 - one.high, 1 - one.low)
    )


def test_unknown_labels_are_excluded() -> None:
    """Exams without a known label change nothing, whatever their score."""
    labels, scores = draw(10, 20, 30)
    more_labels = np.concatenate([labels, np.full(5, np.nan)])
    more_scores = np.concatenate([scores, [-9.0, 9.0, 0.0, 0.1, 0.2]])
    assert auc(labels, scores) == auc(more_labels, more_scores)


def test_nan_score_is_rejected() -> None:
    """A score of NaN raises an error with its position, even if the label is unknown."""
    for label in (1.0, np.nan):
        with pytest.raises(MrkneeError, match=r"a score is NaN[\s\S]*position 1"):
            auc(np.array([0.0, label]), np.array([0.5, np.nan]))


@pytest.mark.parametrize("label", [2.0, -1.0, 0.5, np.inf])
def test_other_labels_are_rejected(label: float) -> None:
    """A label other than 0, 1 and NaN raises an error."""
    with pytest.raises(MrkneeError, match="a label is invalid"):
        auc(np.array([0.0, 1.0, label]), np.array([0.1, 0.2, 0.3]))


def test_covariance_without_two_exams_of_a_class_is_nan() -> None:
    """With one exam of a class the AUC is defined and the covariance is NaN."""
    found = delong_covariance(np.array([1.0, 0.0, 0.0]), np.array([[0.5, 0.4, 0.6]]))
    assert found.aucs[0] == 0.5
    assert np.isnan(found.covariance).all()
