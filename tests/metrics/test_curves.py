"""ROC curve and its band, precision-recall curve and average precision."""

import numpy as np
import pytest
from scipy.special import ndtr, ndtri
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_curve

from mrknee.errors import MrkneeError
from mrknee.metrics.curves import (
    WILSON,
    WITHIN_CLASSES,
    _resampled_counts,
    average_precision,
    precision_recall,
    roc,
    roc_band,
)
from mrknee.metrics.discrimination import auc
from mrknee.metrics.proportions import wilson


def simulated(
    exams: int = 120, *, seed: int = 0, decimals: int = 12
) -> tuple[np.ndarray, np.ndarray]:
    """Returns labels and informative scores; few decimals create ties."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(exams) < 0.45).astype(float)
    labels[:2] = [0, 1]
    return labels, (rng.normal(size=exams) + 1.5 * labels).round(decimals)


SEPARATED = np.repeat([0.0, 1.0], 20), np.repeat([0.1, 0.9], 20)
REVERSED = np.repeat([1.0, 0.0], 20), np.repeat([0.1, 0.9], 20)
EQUAL = np.repeat([0.0, 1.0], 20), np.full(40, 0.3)
TWO = np.array([0.0, 1.0]), np.array([0.4, 0.6])
DEGENERATE = [SEPARATED, REVERSED, EQUAL, TWO]


@pytest.mark.parametrize(
    ("labels", "scores"), [*DEGENERATE, simulated(), simulated(decimals=0), simulated(3, seed=2)]
)
def test_points_equal_sklearn(labels: np.ndarray, scores: np.ndarray) -> None:
    """ROC and precision-recall points and average precision equal scikit-learn's."""
    found, curve = roc(labels, scores), precision_recall(labels, scores)
    for ours, theirs in zip(
        (found.fpr, found.tpr, found.thresholds), roc_curve(labels, scores), strict=True
    ):
        assert ours == pytest.approx(theirs)
    precision, recall, _ = precision_recall_curve(labels, scores)
    assert curve.precision == pytest.approx(precision)
    assert curve.recall == pytest.approx(recall)
    assert curve.average_precision == pytest.approx(average_precision_score(labels, scores))
    assert curve.prevalence == labels.mean()
    assert (found.n_positive, found.n_negative) == (curve.n_positive, curve.n_negative)
    assert (found.n_positive, found.n_negative) == (labels.sum(), (1 - labels).sum())


@pytest.mark.parametrize("decimals", [0, 12])
def test_area_under_the_points_is_the_auc(decimals: int) -> None:
    """The area under the ROC points by the trapezoidal rule is the AUC, also with ties."""
    labels, scores = simulated(decimals=decimals)
    found = roc(labels, scores)
    assert np.trapezoid(found.tpr, found.fpr) == pytest.approx(auc(labels, scores).value)


@pytest.mark.parametrize("decimals", [0, 12])
def test_replicates_equal_sklearn_on_the_drawn_exams(decimals: int) -> None:
    """Each replicate is scikit-learn's curve of the drawn exams, with class sizes kept."""
    labels, scores = simulated(60, decimals=decimals)
    [(hits, false_alarms, drawn)] = _resampled_counts(labels, scores, 3)
    assert (hits[:, -1] == labels.sum()).all()
    assert (false_alarms[:, -1] == (1 - labels).sum()).all()
    steps = np.unique(scores)[::-1]
    for row in range(5):
        positives = np.diff(hits[row], prepend=0).astype(int)
        negatives = np.diff(false_alarms[row], prepend=0).astype(int)
        assert (positives == drawn[row]).all()
        # exams keep their class
        assert set(steps[positives > 0]) <= set(scores[labels == 1])
        assert set(steps[negatives > 0]) <= set(scores[labels == 0])
        written_out = np.concatenate([np.repeat(steps, positives), np.repeat(steps, negatives)])
        classes = np.repeat([1, 0], [positives.sum(), negatives.sum()])
        expected = average_precision_score(classes, written_out)
        called = np.maximum(hits[row] + false_alarms[row], 1)
        found = (drawn[row] * hits[row] / called).sum() / hits[row, -1]
        assert found == pytest.approx(expected)


def test_band_contains_the_curve() -> None:
    """The band contains the curve, is within 0 and 1 and has positive width nearly everywhere."""
    labels, scores = simulated()
    curve, band = roc(labels, scores), roc_band(labels, scores, seed=0)
    sensitivity = np.interp(band.fpr, curve.fpr, curve.tpr)
    assert (band.fpr[0], band.fpr[-1]) == (0, 1)
    assert (
        (band.low >= 0) & (band.low <= sensitivity) & (sensitivity <= band.high) & (band.high <= 1)
    ).all()
    assert (band.high - band.low > 0.04).all()


@pytest.mark.parametrize(("labels", "scores"), DEGENERATE)
def test_band_has_a_width_where_resampling_fails(labels: np.ndarray, scores: np.ndarray) -> None:
    """Where resampling shows no variance, the band is at least as wide as Wilson's interval."""
    curve, band = roc(labels, scores), roc_band(labels, scores, seed=0)
    least = wilson(0, curve.n_positive).high
    assert (band.high - band.low >= least - 1e-9).all()


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
def test_band_covers_pointwise() -> None:
    """With MRNet's numbers the band contains the true sensitivity in about 95 % of samples."""
    labels = np.repeat([1.0, 0.0], [54, 66])
    points = np.array([10, 20, 40, 70])
    truth = ndtr(1.5 + ndtri(points / 100))
    hits = np.zeros(4)
    rng = np.random.default_rng(0)
    for draw in range(100):
        band = roc_band(labels, rng.normal(size=120) + 1.5 * labels, seed=draw)
        hits += (band.low[points] <= truth) & (truth <= band.high[points])
    assert (hits / 100 >= 0.9).all()


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
def test_average_precision_interval_covers() -> None:
    """With MRNet's numbers the interval of the average precision has about nominal coverage."""
    rng = np.random.default_rng(1)
    labels = np.repeat([1.0, 0.0], [54, 66])
    many = np.repeat(labels, 2000)
    truth = average_precision_score(many, rng.normal(size=len(many)) + 1.5 * many)
    hits = 0
    for draw in range(200):
        found = average_precision(labels, rng.normal(size=120) + 1.5 * labels, seed=draw)
        assert found.method == WITHIN_CLASSES
        hits += found.low <= truth <= found.high
    # A percentile interval is slightly narrow, and 200 draws have a standard error of 0.015.
    assert hits / 200 >= 0.89


@pytest.mark.parametrize(("labels", "scores"), [*DEGENERATE, simulated(12), simulated(15, seed=4)])
def test_average_precision_interval_has_a_width_where_resampling_fails(
    labels: np.ndarray, scores: np.ndarray
) -> None:
    """Where resampling fails, the interval is Wilson's, as its method states."""
    found = average_precision(labels, scores)
    assert found.method == WILSON
    assert found.low <= found.value <= found.high
    assert found.high - found.low > 0.1


@pytest.mark.parametrize("label", [0.0, 1.0, np.nan])
@pytest.mark.parametrize("exams", [1, 9])
def test_one_class_has_no_curve(label: float, exams: int) -> None:
    """With one class, or no label, arrays are empty, numbers NaN, and a reason is given."""
    labels, scores = np.full(exams, label), np.linspace(0, 1, exams)
    found, band, curve = (
        roc(labels, scores),
        roc_band(labels, scores, seed=0),
        precision_recall(labels, scores),
    )
    reason = auc(labels, scores).reason
    assert reason is not None
    assert found.reason == band.reason == curve.reason == reason
    for array in (found.fpr, found.tpr, found.thresholds, band.fpr, band.low, curve.recall):
        assert len(array) == 0
    assert np.isnan([curve.average_precision, curve.low, curve.high, curve.prevalence]).all()


def test_unknown_labels_are_excluded() -> None:
    """Exams without a known label change neither curves nor intervals."""
    labels, scores = simulated()
    more = np.concatenate([labels, [np.nan] * 5]), np.concatenate([scores, np.linspace(-9, 9, 5)])
    assert (roc(*more).tpr == roc(labels, scores).tpr).all()
    assert (roc_band(*more, seed=2).low == roc_band(labels, scores, seed=2).low).all()
    assert average_precision(*more) == average_precision(labels, scores)
    assert (precision_recall(*more).precision == precision_recall(labels, scores).precision).all()


def test_the_seed_determines_the_interval() -> None:
    """The same seed gives the same interval; another seed gives a similar one."""
    labels, scores = simulated()
    first, other = (average_precision(labels, scores, seed=seed) for seed in (0, 1))
    assert average_precision(labels, scores, seed=0) == first
    assert other.low != first.low
    assert other.low == pytest.approx(first.low, abs=0.02)


def test_nan_scores_are_rejected() -> None:
    """A score of NaN raises an error."""
    labels, scores = simulated()
    scores[3] = np.nan
    for function in (roc, average_precision, precision_recall):
        with pytest.raises(MrkneeError, match="a score is NaN"):
            function(labels, scores)
