"""Brier score, reliability diagram, expected calibration error."""

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from mrknee.errors import MrkneeError
from mrknee.metrics.calibration import shift_prevalence
from mrknee.metrics.proportions import wilson, wilson_interval
from mrknee.metrics.reliability import BOUND, Reliability, brier, reliability


def simulated(
    exams: int = 120, *, shift: float = 0.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns labels drawn from true probabilities, shifted probabilities, and the true ones."""
    rng = np.random.default_rng(seed)
    true = expit(rng.normal(-0.5, 1.5, size=exams))
    labels = (rng.random(exams) < true).astype(float)
    return labels, expit(logit(true) + shift), true


@pytest.mark.parametrize("decimals", [1, 12])
@pytest.mark.parametrize("exams", [1, 7, 30, 120, 1000])
def test_brier_equals_sklearn(exams: int, decimals: int) -> None:
    """Brier score and reference equal scikit-learn's, also with ties and with one exam."""
    labels, p, _ = simulated(exams)
    p = p.round(decimals)
    found = brier(labels, p)
    assert found.value == pytest.approx(brier_score_loss(labels, p, pos_label=1), abs=1e-12)
    always = np.full(exams, labels.mean())
    assert found.reference == pytest.approx(brier_score_loss(labels, always, pos_label=1))
    assert found.n == exams
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.low < found.high


@pytest.mark.slow
@pytest.mark.parametrize("exams", [20, 120])
@pytest.mark.usefixtures("unchecked")
def test_brier_interval_covers(exams: int) -> None:
    """The interval contains the true score in nearly 95 % of samples."""
    _, p, true = simulated(400_000, shift=0.5)
    truth = float((true * (1 - p) ** 2 + (1 - true) * p**2).mean())
    hits = 0
    for draw in range(200):
        labels, p, _ = simulated(exams, shift=0.5, seed=draw)
        found = brier(labels, p)
        hits += found.low <= truth <= found.high
    # A percentile interval is slightly narrow, and 200 draws have a standard error of 0.015.
    assert hits / 200 >= 0.89


@pytest.mark.parametrize("decimals", [1, 12])
@pytest.mark.parametrize("exams", [100, 120, 1000])
def test_points_equal_sklearn(exams: int, decimals: int) -> None:
    """With ten bins the points equal scikit-learn's calibration curve, also with ties."""
    labels, p, _ = simulated(exams)
    p = p.round(decimals)
    observed, mean = calibration_curve(labels, p, n_bins=10, strategy="quantile")
    points = reliability(labels, p).points
    assert [one.observed.value for one in points] == pytest.approx(observed)
    assert [one.mean_probability for one in points] == pytest.approx(mean)


def test_points_contain_every_exam_once() -> None:
    """Bins have equal numbers of exams, means between their edges, and Wilson's interval."""
    labels, p, _ = simulated(120)
    found = reliability(labels, p)
    assert [one.observed.n for one in found.points] == [12] * 10
    assert sum(one.observed.count for one in found.points) == labels.sum()
    for one in found.points:
        assert one.low_edge <= one.mean_probability <= one.high_edge
        assert one.observed == wilson(one.observed.count, one.observed.n)
    assert found.points[0].low_edge == p.min()
    assert found.points[-1].high_edge == p.max()
    assert found.binning == "10 bins of equal mass (quantiles)"


@pytest.mark.parametrize(("exams", "bins"), [(1, 1), (19, 1), (35, 3), (99, 9), (5000, 10)])
def test_few_exams_have_few_bins(exams: int, bins: int) -> None:
    """There are at most ten bins, and fewer if they would contain fewer than ten exams."""
    labels, p, _ = simulated(exams)
    found = reliability(labels, p)
    assert len(found.points) == bins
    assert found.binning.startswith(f"{bins} bin")


def test_ece_is_the_points() -> None:
    """The ECE is the mean distance of the bins from the diagonal, weighted by exams."""
    labels, p, _ = simulated(120, shift=1.0)
    found = reliability(labels, p)
    distances = [abs(one.mean_probability - one.observed.value) for one in found.points]
    assert found.ece == pytest.approx(np.average(distances, weights=[12] * 10))
    assert found.ece_low < found.ece < found.ece_high
    assert found.n == 120


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0.0, 1.0])
@pytest.mark.usefixtures("unchecked")
def test_ece_if_calibrated_is_the_expected_ece(shift: float) -> None:
    """`ece_if_calibrated` is the mean ECE of labels drawn from the probabilities themselves."""
    _, p, _ = simulated(120, shift=shift)
    rng = np.random.default_rng(1)
    drawn = [reliability((rng.random(120) < p).astype(float), p).ece for _ in range(60)]
    found = reliability((rng.random(120) < p).astype(float), p).ece_if_calibrated
    assert found == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / np.sqrt(60))
    assert found > 0.05  # the bias stated in the docstring


@pytest.mark.slow
@pytest.mark.parametrize("exams", [12, 120])
@pytest.mark.parametrize("shift", [0.0, 0.5, 1.0])
@pytest.mark.usefixtures("unchecked")
def test_ece_interval_covers(exams: int, shift: float) -> None:
    """The interval contains the true calibration error in about 95 % of samples or more."""
    hits = 0
    for draw in range(100):
        labels, p, true = simulated(exams, shift=shift, seed=1000 + draw)
        found = reliability(labels, p)
        members = [(p >= one.low_edge) & (p <= one.high_edge) for one in found.points]
        off = [abs((p - true)[inside].mean()) for inside in members]
        truth = np.average(off, weights=[inside.sum() for inside in members])
        hits += found.ece_low <= truth <= found.ece_high
    assert hits / 100 >= 0.9


def test_known_errors_are_measured() -> None:
    """Probabilities that are all 0.2 too high have an ECE of 0.2, and correct ones of 0."""
    labels = np.tile([1.0, 0.0, 0.0, 0.0, 0.0], 40)
    off = reliability(labels, np.full(200, 0.4))
    assert off.ece == pytest.approx(0.2)
    assert off.ece_low > 0.1
    right = reliability(labels, np.full(200, 0.2))
    assert right.ece == pytest.approx(0, abs=1e-12)
    assert right.ece_high < 0.1
    assert len(right.points) == 1


@pytest.mark.parametrize(
    ("labels", "p"),
    [
        ([1.0], [0.7]),
        ([0.0, 1.0], [0.0, 1.0]),
        ([0.0] * 50 + [1.0] * 50, [0.0] * 50 + [1.0] * 50),
        ([1.0] * 30, [0.9] * 30),
        ([0.0] * 30, list(np.linspace(0.1, 0.11, 30))),
        ([1.0] + [0.0] * 60, [0.3] + [0.02] * 60),
    ],
)
def test_intervals_have_a_width_where_resampling_fails(labels: list[float], p: list[float]) -> None:
    """Where resampling fails, the replacement interval has positive width and is named."""
    y, q = np.array(labels), np.array(p)
    score, found = brier(y, q), reliability(y, q)
    assert score.method == BOUND
    low, high = wilson_interval(np.array([score.value]), len(y))
    assert (score.low, score.high) == (low[0], high[0])
    assert score.high - score.low > 0.01
    assert found.method == BOUND
    assert found.ece_low == 0
    assert found.ece_high >= wilson(0, len(y)).high
    assert found.ece <= found.ece_high <= 1


def draw_at_prevalence(
    share: float, prevalence: float, exams: int, *, shift: float = 0.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Draws labels with the given share, and probabilities calibrated at another prevalence.

    Exams with and without the finding score N(2, 1) and N(0, 1); `shift` is added to all logits.
    """
    rng = np.random.default_rng(seed)
    labels = (rng.random(exams) < share).astype(float)
    here = expit(2 * rng.normal(2 * labels, 1) - 2 + logit(share))
    return labels, expit(logit(shift_prevalence(here, share, prevalence)) + shift)


def true_scores(prevalence: float, shift: float) -> tuple[float, float]:
    """Computes Brier score and ECE of 400,000 exams at the prevalence; all errors have one sign."""
    labels, p = draw_at_prevalence(prevalence, prevalence, 400_000, shift=shift, seed=1)
    right = expit(logit(p) - shift)
    return float(((p - labels) ** 2).mean()), float(abs((p - right).mean()))


@pytest.mark.slow
@pytest.mark.parametrize("prevalence", [0.1, 0.8])
@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_stated_prevalence_gives_the_scores_at_that_prevalence(
    shift: float, prevalence: float
) -> None:
    """Weighted exams give the Brier score and ECE of exams drawn at the stated prevalence."""
    found = draw_at_prevalence(0.45, prevalence, 8000, shift=shift)
    score, ece = true_scores(prevalence, shift)
    assert brier(*found, prevalence=prevalence).value == pytest.approx(score, abs=0.006)
    assert brier(*found, prevalence=prevalence).reference == prevalence * (1 - prevalence)
    assert reliability(*found, prevalence=prevalence).ece == pytest.approx(ece, abs=0.012)


def test_prevalence_of_the_exams_changes_no_number() -> None:
    """Stating the share of positives of the exams themselves changes no number."""
    labels, p, _ = simulated(120, shift=0.5)
    share = float(labels.mean())
    unweighted, stated = reliability(labels, p), reliability(labels, p, prevalence=share)
    assert brier(labels, p, prevalence=share).value == pytest.approx(brier(labels, p).value)
    assert stated.ece == pytest.approx(unweighted.ece)
    assert stated.ece_if_calibrated == pytest.approx(unweighted.ece_if_calibrated)
    for one, other in zip(stated.points, unweighted.points, strict=True):
        assert one.mean_probability == pytest.approx(other.mean_probability)
        ends = one.observed.value, one.observed.low, one.observed.high
        assert ends == pytest.approx(
            (other.observed.value, other.observed.low, other.observed.high)
        )


def test_weighted_points_are_the_weighted_exams() -> None:
    """Mean, share and ECE contribution of a bin are those of its weighted exams."""
    labels, p = draw_at_prevalence(0.45, 0.18, 120, shift=0.5)
    found = reliability(labels, p, prevalence=0.18)
    weights = np.where(labels == 1, 0.18 / labels.sum(), 0.82 / (1 - labels).sum())
    ece = 0.0
    for one in found.points:
        inside = (p > one.low_edge) & (p <= one.high_edge) | (p == p.min()) & (
            one.low_edge == p.min()
        )
        mean, share = (np.average(v[inside], weights=weights[inside]) for v in (p, labels))
        assert (one.mean_probability, one.observed.value) == pytest.approx((mean, share))
        assert (one.observed.count, one.observed.n) == (labels[inside].sum(), inside.sum())
        assert one.observed.low <= share <= one.observed.high
        ece += weights[inside].sum() * abs(mean - share)
    assert found.ece == pytest.approx(ece)
    assert found.binning == "10 bins of equal numbers of exams (quantiles)"


@pytest.mark.slow
@pytest.mark.parametrize("exams", [60, 120])
@pytest.mark.parametrize("shift", [0.0, 0.7])
@pytest.mark.usefixtures("unchecked")
def test_weighted_intervals_cover(exams: int, shift: float) -> None:
    """Both weighted intervals contain the true value in nearly 95 % of samples or more."""
    truth, ece = true_scores(0.18, shift)
    hits = np.zeros(2)
    for draw in range(100):
        labels, p = draw_at_prevalence(0.45, 0.18, exams, shift=shift, seed=2000 + draw)
        score = brier(labels, p, prevalence=0.18)
        found = reliability(labels, p, prevalence=0.18)
        hits += [score.low <= truth <= score.high, found.ece_low <= ece <= found.ece_high]
    assert (hits / 100 >= 0.88).all()


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
def test_ece_if_calibrated_at_a_stated_prevalence() -> None:
    """`ece_if_calibrated` is the mean weighted ECE of correct probabilities there."""
    eces, expected = np.array(
        [
            (found.ece, found.ece_if_calibrated)
            for draw in range(60)
            for found in [
                reliability(*draw_at_prevalence(0.45, 0.18, 120, seed=draw), prevalence=0.18)
            ]
        ]
    ).T
    assert expected.mean() == pytest.approx(eces.mean(), abs=4 * eces.std() / np.sqrt(60))
    assert expected.mean() > 0.03


def test_few_weighted_exams_have_a_wide_bound() -> None:
    """Three positives with a total weight of 45 % count as fewer than seven exams."""
    labels, p = np.repeat([1.0, 0.0], [3, 97]), np.repeat([0.4, 0.3], [3, 97])
    score, found = brier(labels, p, prevalence=0.45), reliability(labels, p, prevalence=0.45)
    assert (score.method, found.method) == (BOUND, BOUND)
    low, high = wilson_interval(np.array([score.value]), 6)
    assert (score.low, score.high) == (low[0], high[0])
    assert found.ece_high > 0.7


def test_one_class_has_no_weights() -> None:
    """With one class only, there are no numbers at a stated prevalence."""
    labels, p = np.ones(20), np.linspace(0.5, 0.9, 20)
    assert np.isnan(brier(labels, p, prevalence=0.3).value)
    found = reliability(labels, p, prevalence=0.3)
    assert np.isnan([found.ece, found.ece_low, found.ece_high, found.ece_if_calibrated]).all()
    assert found.binning == "one class only: 20 positive, 0 negative"
    assert brier(labels, p).value < 0.2
    with pytest.raises(MrkneeError, match="a prevalence is out of range"):
        brier(labels, p, prevalence=1.0)


def test_unknown_labels_are_excluded() -> None:
    """Exams without a known label change only the count; without any, all is NaN."""
    labels, p, _ = simulated(60)
    more = np.concatenate([labels, [np.nan] * 9]), np.concatenate([p, np.full(9, 0.99)])
    assert brier(*more) == brier(labels, p)
    assert reliability(*more) == reliability(labels, p)
    none = np.full(3, np.nan), np.full(3, 0.5)
    score, found = brier(*none), reliability(*none)
    assert np.isnan([score.value, score.low, score.high, score.reference]).all()
    assert np.isnan([found.ece, found.ece_low, found.ece_high, found.ece_if_calibrated]).all()
    assert (found.points, found.n, found.method) == ((), 0, "none")
    assert found.binning == "no exam has a known label"


def test_the_seed_determines_the_intervals() -> None:
    """The same seed gives the same intervals; another seed gives similar ones."""
    labels, p, _ = simulated()

    def ends(found: Reliability) -> list[float]:
        return [found.ece_low, found.ece_high, found.ece_if_calibrated]

    assert reliability(labels, p, seed=1) == reliability(labels, p, seed=1)
    assert brier(labels, p, seed=1) == brier(labels, p, seed=1)
    assert ends(reliability(labels, p, seed=1)) != ends(reliability(labels, p, seed=2))
    assert ends(reliability(labels, p, seed=1)) == pytest.approx(
        ends(reliability(labels, p, seed=2)), abs=0.02
    )


def test_invalid_input_is_rejected() -> None:
    """An invalid label or probability raises an error."""
    labels, p, _ = simulated()
    with pytest.raises(MrkneeError, match="not between 0 and 1"):
        brier(labels, p + 0.5)
    with pytest.raises(MrkneeError, match="a label is invalid"):
        reliability(labels + 0.5, p)
