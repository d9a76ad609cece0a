"""Mean AUC, and bootstrap of exams."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mrknee.errors import MrkneeError
from mrknee.metrics.discrimination import auc
from mrknee.metrics.paired_tests import paired_delong
from mrknee.metrics.resampling import (
    BOOTSTRAP,
    MEAN_OF_ENDS,
    MIN_STRATUM,
    _weighted_auc,
    bootstrap_aucs,
    bootstrap_differences,
    draw_counts,
    label_strata,
    mean_auc,
)

NAMES = ("abnormal", "acl", "meniscus")


def draw(seed: int, exams: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Returns labels of three findings and informative scores."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((exams, 3)) < [0.7, 0.45, 0.45]).astype(float)
    return labels, rng.normal(size=labels.shape) + 1.5 * labels


def strata_of(labels: np.ndarray) -> list[np.ndarray]:
    """Returns the indices of the exams of each stratum."""
    strata = label_strata(labels)
    return [np.flatnonzero(strata == one) for one in np.unique(strata)]


def test_mean_is_the_mean_of_sklearns_aucs() -> None:
    """The mean is the plain mean of the findings' AUCs and within its interval."""
    labels, scores = draw(0)
    found = mean_auc(NAMES, labels, scores)
    expected = np.mean([roc_auc_score(labels[:, i], scores[:, i]) for i in range(3)])
    assert found.value == pytest.approx(expected, abs=1e-12)
    assert found.low < found.value < found.high
    assert (found.findings, found.left_out, found.method) == (NAMES, (), BOOTSTRAP)
    assert found.reason is None


def test_weighted_auc_is_the_auc_of_repeated_exams() -> None:
    """The AUC of a replicate is scikit-learn's of the repeated exams, also with ties."""
    labels, scores = draw(1, 60)
    labels[:7, 1] = np.nan
    scores = scores.round(0)
    [counts] = draw_counts(strata_of(labels), 20, np.random.default_rng(0))
    found = _weighted_auc(labels[:, 1], scores[:, 1], counts)
    for row, value in zip(counts, found, strict=True):
        exams = np.repeat(np.arange(60), row.astype(int))
        exams = exams[~np.isnan(labels[exams, 1])]
        assert value == pytest.approx(roc_auc_score(labels[exams, 1], scores[exams, 1]), abs=1e-12)


def test_infinite_scores_tie() -> None:
    """Equal infinite scores form one step of the ROC curve, like any other tie."""
    labels, scores = np.array([1.0, 0.0, 0.0, 1.0]), np.array([np.inf, np.inf, 0.0, -np.inf])
    assert _weighted_auc(labels, scores, np.ones((1, 4)))[0] == auc(labels, scores).value


def test_each_replicate_keeps_the_label_patterns() -> None:
    """Each replicate has as many exams of each joint label pattern as the data."""
    labels, _ = draw(2, 200)
    strata = label_strata(labels)
    [counts] = draw_counts(strata_of(labels), 50, np.random.default_rng(1))
    for stratum in np.unique(strata):
        assert (counts[:, strata == stratum].sum(axis=1) == (strata == stratum).sum()).all()
    for pattern in np.unique(labels, axis=0):
        assert len(np.unique(strata[(labels == pattern).all(axis=1)])) == 1


def test_rare_patterns_share_a_stratum() -> None:
    """Label patterns of fewer than five exams are drawn together, so that they can vary."""
    labels = np.array([[0.0, 0.0]] * 8 + [[1.0, 1.0]] * MIN_STRATUM + [[1.0, 0.0], [np.nan, 1.0]])
    strata = label_strata(labels)
    assert len(np.unique(strata)) == 3
    assert strata[-1] == strata[-2]


def test_many_findings_do_not_shrink_the_interval() -> None:
    """Eight copies of a finding, each with two unknown labels, keep nearly its interval."""
    labels, scores = draw(3)
    one = mean_auc(["acl"], labels[:, 1:2], scores[:, 1:2])
    rng = np.random.default_rng(4)
    many_labels = np.repeat(labels[:, 1:2], 8, axis=1)
    for column in range(8):
        many_labels[rng.permutation(120)[:2], column] = np.nan
    many = mean_auc([f"f{i}" for i in range(8)], many_labels, np.repeat(scores[:, 1:2], 8, axis=1))
    assert many.high - many.low == pytest.approx(one.high - one.low, rel=0.15)


def test_interval_of_one_finding_is_near_delongs() -> None:
    """For one finding, bootstrap and DeLong's interval are similar."""
    labels, scores = draw(5, 400)
    mean, one = mean_auc(["acl"], labels[:, 1:2], scores[:, 1:2]), auc(labels[:, 1], scores[:, 1])
    assert (mean.low, mean.high) == pytest.approx((one.low, one.high), abs=0.01)


def test_exams_are_drawn_once_for_all_findings() -> None:
    """Two copies of a finding have equal AUCs in each replicate."""
    labels, scores = draw(6)
    twice = bootstrap_aucs(labels[:, [1, 1]], scores[:, [1, 1]], seed=0, replicates=100)
    assert (twice[:, 0] == twice[:, 1]).all()
    assert twice[:, 0].std() > 0


def test_seed_decides() -> None:
    """The same seed gives the same interval; another seed gives another."""
    labels, scores = draw(7)
    assert mean_auc(NAMES, labels, scores, seed=1) == mean_auc(NAMES, labels, scores, seed=1)
    assert mean_auc(NAMES, labels, scores, seed=1) != mean_auc(NAMES, labels, scores, seed=2)


def test_block_size_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicates computed in several blocks have the same spread as in one."""
    labels, scores = draw(8)
    one_block = bootstrap_aucs(labels, scores, seed=0, replicates=1000)
    monkeypatch.setattr("mrknee.metrics.resampling._MAX_CELLS", 120 * 7)
    blocks = bootstrap_aucs(labels, scores, seed=0, replicates=1000)
    assert blocks.shape == one_block.shape == (1000, 3)
    assert blocks.mean(axis=0) == pytest.approx(one_block.mean(axis=0), abs=0.005)
    assert blocks.std(axis=0) == pytest.approx(one_block.std(axis=0), rel=0.1)


def test_finding_of_one_class_is_excluded_and_listed() -> None:
    """Findings without an AUC are excluded from the mean and listed."""
    labels, scores = draw(9)
    labels[:, 0] = 1
    found = mean_auc(NAMES, labels, scores)
    alone = mean_auc(NAMES[1:], labels[:, 1:], scores[:, 1:])
    assert (found.findings, found.left_out) == (NAMES[1:], ("abnormal",))
    assert found.value == alone.value


def test_no_finding_has_an_auc() -> None:
    """Without any AUC the mean is NaN and a reason is given."""
    found = mean_auc(["a", "b"], np.array([[1.0, np.nan]]), np.array([[0.5, 0.5]]))
    assert np.isnan([found.value, found.low, found.high]).all()
    assert found.reason == "no finding has an AUC"
    assert found.left_out == ("a", "b")


def test_perfect_model_has_no_zero_width() -> None:
    """Where resampling shows no variance, the interval has positive width and is named."""
    labels, _ = draw(10)
    found = mean_auc(NAMES, labels, labels)
    ends = [auc(labels[:, i], labels[:, i]) for i in range(3)]
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(np.mean([one.low for one in ends]))
    assert found.low < 0.99
    assert found.method.startswith(MEAN_OF_ENDS)


def test_one_perfect_finding_widens_the_interval() -> None:
    """One finding for which resampling fails suffices for the conservative interval."""
    labels, scores = draw(11)
    scores[:, 1] = labels[:, 1]
    found = mean_auc(NAMES, labels, scores)
    assert "acl" in found.method
    assert "meniscus" not in found.method


def test_order_of_findings_does_not_matter() -> None:
    """The mean and its interval don't depend on the order of the findings."""
    labels, scores = draw(12)
    forward = mean_auc(NAMES, labels, scores)
    backward = mean_auc(NAMES[::-1], labels[:, ::-1], scores[:, ::-1])
    assert (backward.value, backward.low, backward.high) == pytest.approx(
        (forward.value, forward.low, forward.high), abs=0.005
    )


def test_invalid_input_is_rejected() -> None:
    """NaN scores and labels other than 0, 1 and NaN raise an error."""
    labels, scores = draw(13)
    broken = scores.copy()
    broken[3, 1] = np.nan
    with pytest.raises(MrkneeError, match="a score is NaN"):
        mean_auc(NAMES, labels, broken)
    with pytest.raises(MrkneeError, match="a label is invalid"):
        mean_auc(NAMES, labels + 1, scores)


def test_differences_are_of_the_same_exams() -> None:
    """Both models' AUCs in a replicate are of the same drawn exams."""
    labels, first = draw(14)
    second = first + np.random.default_rng(0).normal(size=first.shape)
    found = bootstrap_differences(labels, first, second, seed=3, replicates=50)
    separate = [bootstrap_aucs(labels, s, seed=3, replicates=50) for s in (first, second)]
    np.testing.assert_allclose(found, separate[1] - separate[0], atol=1e-12)
    assert (bootstrap_differences(labels, first, first, seed=3, replicates=50) == 0).all()


def test_spread_of_differences_is_delongs() -> None:
    """The standard deviation of bootstrapped differences is close to DeLong's error."""
    labels, first = draw(15, 400)
    second = first + 0.7 * np.random.default_rng(0).normal(size=first.shape)
    draws = bootstrap_differences(labels, first, second, seed=0)
    for i in range(3):
        error = np.sqrt(paired_delong(labels[:, i], first[:, i], second[:, i]).variance)
        assert draws[:, i].std() == pytest.approx(error, rel=0.1)
