"""Choice of thresholds, and their performance."""

import json

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, roc_curve

from mrknee.errors import MrkneeError
from mrknee.metrics.operating_point import (
    YOUDEN,
    OperatingPoint,
    at_sensitivity,
    predictive_values,
    score_operating_point,
    youden,
)
from mrknee.metrics.proportions import wilson


def simulated(
    exams: int = 120, *, seed: int = 0, decimals: int = 12
) -> tuple[np.ndarray, np.ndarray]:
    """Returns labels and informative probabilities; few decimals create ties."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(exams) < 0.4).astype(float)
    labels[:2] = [0, 1]
    return labels, (1 / (1 + np.exp(-rng.normal(size=exams) - 2 * labels + 1))).round(decimals)


@pytest.mark.parametrize("decimals", [1, 12])
@pytest.mark.parametrize("seed", range(5))
def test_youden_is_the_best_of_the_roc_curve(seed: int, decimals: int) -> None:
    """No threshold of scikit-learn's ROC curve has a larger sensitivity + specificity."""
    labels, p = simulated(seed=seed, decimals=decimals)
    fpr, tpr, _ = roc_curve(labels, p, drop_intermediate=False)
    found = score_operating_point(youden(labels, p), labels, p)
    best = found.sensitivity.value + found.specificity.value - 1
    assert best == pytest.approx((tpr - fpr).max(), abs=1e-12)


@pytest.mark.parametrize("at_least", [0.5, 0.9, 0.95, 1.0])
@pytest.mark.parametrize("decimals", [1, 12])
def test_sensitivity_is_reached_with_the_best_specificity(at_least: float, decimals: int) -> None:
    """The sensitivity is reached, and no other such threshold is more specific."""
    labels, p = simulated(seed=3, decimals=decimals)
    fpr, tpr, _ = roc_curve(labels, p, drop_intermediate=False)
    found = score_operating_point(at_sensitivity(labels, p, at_least), labels, p)
    assert found.sensitivity.value >= at_least
    assert found.specificity.value == pytest.approx(1 - fpr[tpr >= at_least].min(), abs=1e-12)


def test_sensitivity_is_reached_exactly() -> None:
    """Nine of ten positives reach a sensitivity of 0.90, in spite of binary rounding."""
    labels = np.array([1.0] * 10 + [0.0] * 10)
    p = np.concatenate([np.arange(10), np.arange(10)]) / 10
    assert at_sensitivity(labels, p, 0.9).threshold == pytest.approx(0.05)
    assert at_sensitivity(labels, p, 0.7).threshold == pytest.approx(0.25)


def test_thresholds_lie_halfway() -> None:
    """A threshold is halfway between two neighbouring probabilities, not equal to one."""
    labels, p = np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.1, 0.2, 0.6, 0.8])
    for point in (youden(labels, p), at_sensitivity(labels, p, 1.0)):
        assert point.threshold == pytest.approx(0.4)
        assert (point.n_positive, point.n_negative, point.reason) == (2, 2, None)


def test_of_equally_good_thresholds_the_most_sensitive_is_chosen() -> None:
    """Of several equally good thresholds by Youden's rule the lowest is chosen."""
    labels, p = np.array([0.0, 1.0, 0.0, 1.0]), np.array([0.1, 0.3, 0.5, 0.7])
    assert youden(labels, p).threshold == pytest.approx(0.2)  # 0.6 is as good


def test_threshold_between_neighbouring_floats() -> None:
    """Between two neighbouring floating-point numbers the upper one is the threshold."""
    low = 0.3
    high = float(np.nextafter(low, 1))
    found = youden(np.array([0.0, 1.0]), np.array([low, high]))
    assert found.threshold == high


def test_an_exam_at_the_threshold_is_positive() -> None:
    """An exam whose probability equals the threshold is positive."""
    point = OperatingPoint(YOUDEN, 0.5, 1, 1)
    found = score_operating_point(point, np.array([1.0, 0.0]), np.array([0.5, 0.5]))
    assert (found.tp, found.fp, found.fn, found.tn) == (1, 1, 0, 0)


@pytest.mark.parametrize(
    ("labels", "p"),
    [
        (np.array([1.0, 0.0, 1.0, 0.0]), np.full(4, 0.3)),  # uninformative
        (np.array([1.0, 1.0, 0.0, 0.0]), np.array([0.1, 0.2, 0.6, 0.8])),  # inverted
    ],
)
def test_useless_probabilities_have_threshold_0(labels: np.ndarray, p: np.ndarray) -> None:
    """For uninformative or inverted probabilities the threshold is 0."""
    for point in (youden(labels, p), at_sensitivity(labels, p, 1.0)):
        assert point.threshold == 0
        found = score_operating_point(point, labels, p)
        assert (found.sensitivity.value, found.specificity.value) == (1, 0)


@pytest.mark.parametrize("label", [0.0, 1.0, np.nan])
def test_one_class_has_no_threshold(label: float) -> None:
    """With one class or no label the threshold is NaN with a reason, and all counts are 0."""
    labels, p = simulated()
    for point in (youden(np.full(3, label), p[:3]), at_sensitivity(np.full(3, label), p[:3], 0.9)):
        assert np.isnan(point.threshold)
        assert point.reason is not None
        assert "one class only" in point.reason or "no exam" in point.reason
        found = score_operating_point(point, labels, p, prevalence=0.3)
        assert (found.tp, found.fp, found.fn, found.tn) == (0, 0, 0, 0)
        assert np.isnan(found.sensitivity.value)
        assert found.at_prevalence is not None
        assert np.isnan(found.at_prevalence.ppv)
        assert found.at_prevalence.reason == "no exams"


def test_unknown_labels_are_excluded() -> None:
    """Exams without a known label change neither the threshold nor the counts."""
    labels, p = simulated()
    more = np.concatenate([labels, [np.nan] * 3]), np.concatenate([p, [0.01, 0.5, 0.99]])
    assert youden(*more) == youden(labels, p)
    assert at_sensitivity(*more, 0.9) == at_sensitivity(labels, p, 0.9)
    assert score_operating_point(youden(labels, p), *more) == score_operating_point(
        youden(labels, p), labels, p
    )


def test_name_of_the_rule() -> None:
    """The name of the rule states the requested sensitivity."""
    labels, p = simulated()
    assert at_sensitivity(labels, p, 0.9).rule == "sensitivity >= 0.90"
    assert at_sensitivity(labels, p, 0.975).rule == "sensitivity >= 0.975"
    assert youden(labels, p).rule == "Youden"


@pytest.mark.parametrize("at_least", [0.0, -0.5, 1.01, np.nan])
def test_invalid_sensitivity_is_rejected(at_least: float) -> None:
    """A sensitivity outside 0 to 1, or of 0, raises an error."""
    labels, p = simulated()
    with pytest.raises(MrkneeError, match="above 0, at most 1"):
        at_sensitivity(labels, p, at_least)


@pytest.mark.parametrize("seed", range(3))
def test_counts_equal_sklearn(seed: int) -> None:
    """The counts equal scikit-learn's confusion matrix; proportions have Wilson's interval."""
    labels, p = simulated(seed=seed)
    point = youden(*simulated(seed=seed + 10))
    found = score_operating_point(point, labels, p)
    (tn, fp), (fn, tp) = confusion_matrix(labels, p >= point.threshold).tolist()
    assert (found.tp, found.fp, found.fn, found.tn) == (tp, fp, fn, tn)
    assert found.sensitivity == wilson(tp, tp + fn)
    assert found.specificity == wilson(tn, tn + fp)
    assert found.ppv == wilson(tp, tp + fp)
    assert found.npv == wilson(tn, tn + fn)
    assert found.at_prevalence is None


@pytest.mark.parametrize(("label", "sensitivity", "specificity"), [(1.0, 1, 0), (0.0, 0, 1)])
def test_one_exam_is_scored(label: float, sensitivity: int, specificity: int) -> None:
    """With one exam, the proportion of its class has n = 1 and that of the other class n = 0."""
    found = score_operating_point(
        OperatingPoint(YOUDEN, 0.5, 9, 9), np.array([label]), np.array([0.7])
    )
    assert (found.sensitivity.n, found.specificity.n) == (sensitivity, specificity)
    assert np.isnan(found.specificity.value) == (label == 1)


def test_predictive_values_at_the_prevalence_of_the_exams_are_the_counts() -> None:
    """At the prevalence of the exams, PPV and NPV equal those counted."""
    found = predictive_values(47, 13, 7, 53, 54 / 120)
    assert found.ppv == pytest.approx(47 / 60)
    assert found.npv == pytest.approx(53 / 60)
    assert found.ppv_low < found.ppv < found.ppv_high
    assert found.npv_low < found.npv < found.npv_high
    assert (found.n_positive, found.n_negative, found.reason) == (54, 66, None)


def test_predictive_values_depend_on_the_prevalence() -> None:
    """At a lower prevalence the PPV is lower and the NPV higher."""
    rare, common = (predictive_values(47, 13, 7, 53, q) for q in (0.05, 0.45))
    assert rare.ppv < 0.25 < common.ppv
    assert rare.npv > 0.98 > common.npv


def test_interval_is_mercaldos_by_hand() -> None:
    """The logit intervals of PPV and NPV agree with the formulas of the paper."""
    se, sp, m, n, q = 0.8, 0.9, 50, 100, 0.1
    found = predictive_values(40, 10, 10, 90, q)
    ppv = se * q / (se * q + (1 - sp) * (1 - q))
    spread = 1.959964 * np.sqrt((1 - se) / se / m + sp / (1 - sp) / n)
    odds = ppv / (1 - ppv) * np.exp([-spread, spread])
    assert [found.ppv_low, found.ppv_high] == pytest.approx(odds / (1 + odds), abs=1e-6)
    npv = sp * (1 - q) / (sp * (1 - q) + (1 - se) * q)
    spread = 1.959964 * np.sqrt(se / (1 - se) / m + (1 - sp) / sp / n)
    odds = npv / (1 - npv) * np.exp([-spread, spread])
    assert [found.npv_low, found.npv_high] == pytest.approx(odds / (1 + odds), abs=1e-6)


@pytest.mark.parametrize(
    ("se", "sp", "q"), [(0.85, 0.8, 0.18), (0.95, 0.9, 0.05), (0.99, 0.6, 0.5)]
)
def test_interval_covers(se: float, sp: float, q: float) -> None:
    """With MRNet's numbers both intervals contain the true values in about 95 % of samples."""
    rng = np.random.default_rng(0)
    m, n, draws = 54, 66, 1000
    truth = se * q / (se * q + (1 - sp) * (1 - q)), sp * (1 - q) / (sp * (1 - q) + (1 - se) * q)
    hits = np.zeros(2)
    for tp, tn in zip(rng.binomial(m, se, draws), rng.binomial(n, sp, draws), strict=True):
        found = predictive_values(int(tp), int(n - tn), int(m - tp), int(tn), q)
        hits += [
            found.ppv_low <= truth[0] <= found.ppv_high,
            found.npv_low <= truth[1] <= found.npv_high,
        ]
    assert (hits / draws >= 0.93).all()


@pytest.mark.parametrize("tp", [0, 3, 5])
@pytest.mark.parametrize("tn", [0, 4, 7])
def test_intervals_of_0_and_1_have_a_width(tp: int, tn: int) -> None:
    """A sensitivity or specificity of 0 or 1 gives an interval of positive width, or a reason."""
    found = predictive_values(tp, 7 - tn, 5 - tp, tn, 0.2)
    for value, low, high, called in (
        (found.ppv, found.ppv_low, found.ppv_high, tp + 7 - tn),
        (found.npv, found.npv_low, found.npv_high, 5 - tp + tn),
    ):
        if called == 0:
            assert np.isnan([value, low, high]).all()
            assert found.reason is not None
        else:
            assert 0 <= low <= value <= high <= 1
            assert high - low > 0.01


def test_perfect_predictions_have_an_interval() -> None:
    """Without errors PPV and NPV are 1, and their intervals extend below 1."""
    found = predictive_values(5, 0, 0, 7, 0.2)
    assert (found.ppv, found.ppv_high, found.npv, found.npv_high) == (1, 1, 1, 1)
    assert found.ppv_low < 0.6
    assert found.npv_low < 0.95


def test_predictive_values_of_one_class_are_nan() -> None:
    """Without exams of a class, PPV and NPV at a stated prevalence are NaN."""
    found = predictive_values(3, 0, 2, 0, 0.2)
    assert np.isnan([found.ppv, found.npv]).all()
    assert found.reason == "one class only: 5 positive, 0 negative"


@pytest.mark.parametrize(
    "point", [OperatingPoint(YOUDEN, 0.25, 3, 4), youden(np.ones(2), np.ones(2))]
)
def test_point_survives_json(point: OperatingPoint) -> None:
    """An operating point is unchanged by a JSON round trip, also without a threshold."""
    content = json.loads(json.dumps(point.to_dict(), allow_nan=False))
    back = OperatingPoint.from_dict(content)
    assert back.to_dict() == point.to_dict()
    assert np.isnan(back.threshold) == np.isnan(point.threshold)


@pytest.mark.parametrize("change", [{"threshold": "high"}, {"n_positive": None}])
def test_invalid_point_is_rejected(change: dict[str, object]) -> None:
    """An operating point with an invalid field raises an error."""
    content = {**OperatingPoint(YOUDEN, 0.25, 3, 4).to_dict(), **change}
    with pytest.raises(MrkneeError, match="an operating point can't be read"):
        OperatingPoint.from_dict(content)
    with pytest.raises(MrkneeError, match="an operating point can't be read"):
        OperatingPoint.from_dict({"rule": YOUDEN})
