"""Platt scaling, and the shift of probabilities to another prevalence."""

import json
import re

import numpy as np
import pytest
from scipy.optimize import approx_fprime, minimize
from scipy.special import expit, logit
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, roc_auc_score

from mrknee.errors import MrkneeError
from mrknee.metrics.calibration import (
    LOGIT_EPS,
    MIN_SLOPE,
    Calibration,
    fit_calibration,
    shift_prevalence,
)


def simulated(
    exams: int, *, prevalence_logit: float = 0.0, slope: float = 1.0, shift: float = 0.0, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns labels (exams, 1) drawn from true probabilities, and distorted probabilities."""
    rng = np.random.default_rng(seed)
    true = rng.normal(prevalence_logit, 1.5, size=(exams, 1))
    labels = (rng.random(true.shape) < expit(true)).astype(float)
    return labels, expit(slope * true + shift)


def fit_one(labels: np.ndarray, p: np.ndarray) -> Calibration:
    """Fits the calibration of one finding."""
    return fit_calibration(["acl"], labels, p)


def calibrated_by_sklearn(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Returns probabilities calibrated by scikit-learn, with a frozen classifier."""
    classifier = LogisticRegression().fit([[-1.0], [1.0]], [0, 1])
    classifier.coef_, classifier.intercept_ = np.array([[1.0]]), np.array([0.0])
    calibrated = CalibratedClassifierCV(FrozenEstimator(classifier), method="sigmoid")
    # one fold with all exams: a frozen classifier is calibrated on all data
    calibrated.fit(logits[:, np.newaxis], labels)
    result: np.ndarray = calibrated.predict_proba(logits[:, np.newaxis])[:, 1]
    return result


@pytest.mark.parametrize("seed", range(3))
def test_platt_equals_sklearn(seed: int) -> None:
    """Calibrated probabilities equal those of scikit-learn's sigmoid method."""
    labels, p = simulated(150, slope=2.0, shift=1.0, seed=seed)
    found = fit_one(labels, p).apply(["acl"], p)[:, 0]
    assert found == pytest.approx(calibrated_by_sklearn(labels[:, 0], logit(p[:, 0])), abs=2e-4)


def test_fit_is_the_optimum() -> None:
    """Another optimiser, applied to the unscaled problem, finds no better fit."""
    labels, p = simulated(80, slope=3.0, shift=2.0, seed=4)
    y, x = labels[:, 0], logit(p[:, 0])
    targets = np.where(y == 1, (y.sum() + 1) / (y.sum() + 2), 1 / ((1 - y).sum() + 2))

    def loss(line: np.ndarray) -> float:
        z = line[0] * x + line[1]
        return float((np.logaddexp(0, z) - targets * z).mean())

    found = fit_one(labels, p)
    ours = np.array([found.slopes["acl"], found.intercepts["acl"]])
    best = minimize(loss, [0.5, 0.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-14})
    assert loss(ours) <= best.fun + 1e-10
    assert np.abs(approx_fprime(ours, loss, 1e-6)).max() < 1e-4


def test_platt_corrects_class_weights() -> None:
    """Calibration corrects the distortion by training with pos_weight = neg / pos."""
    labels, true = simulated(4000, prevalence_logit=-4.0, seed=0)
    share = labels.mean()
    weighted = expit(logit(true) + np.log((1 - share) / share))
    assert weighted.mean() > 4 * share  # far too high, as stated in the docstring of the module
    fitting, rest = slice(0, 2000), slice(2000, None)
    found = fit_one(labels[fitting], weighted[fitting]).apply(["acl"], weighted[rest])
    assert found.mean() == pytest.approx(labels[rest].mean(), rel=0.15)
    best = brier_score_loss(labels[rest, 0], true[rest, 0])
    assert brier_score_loss(labels[rest, 0], found[:, 0]) == pytest.approx(best, rel=0.02)


@pytest.mark.parametrize("exams", [2, 40])
def test_separated_classes_keep_a_finite_slope(exams: int) -> None:
    """Perfectly separated classes, without a maximum likelihood, give finite numbers."""
    labels = np.repeat([[0.0], [1.0]], exams // 2, axis=0)
    p = np.clip(labels, 0.2, 0.8)
    found = fit_one(labels, p)
    assert 0 < found.slopes["acl"] < 10
    calibrated = found.apply(["acl"], p)
    # Platt's targets are reached: (P + 1) / (P + 2)
    assert calibrated.max() == pytest.approx((exams / 2 + 1) / (exams / 2 + 2), abs=1e-5)
    assert not found.reasons


def test_certain_probabilities_are_fitted() -> None:
    """Probabilities of exactly 0 and 1, one of them wrong, give finite numbers."""
    labels = np.array([[0.0], [0.0], [1.0], [1.0], [0.0]])
    p = np.array([[0.0], [0.0], [1.0], [1.0], [1.0]])
    found = fit_one(labels, p)
    calibrated = found.apply(["acl"], p)
    assert np.isfinite([found.slopes["acl"], found.intercepts["acl"]]).all()
    assert ((calibrated > 0) & (calibrated < 1)).all()
    assert 0 < found.slopes["acl"] < 1


def test_misleading_probabilities_keep_their_order() -> None:
    """A negative slope is replaced by the smallest one, with a reason; the AUC is unchanged."""
    labels, p = simulated(200, seed=1)
    found = fit_one(labels, 1 - p)
    assert found.slopes["acl"] == pytest.approx(MIN_SLOPE)
    assert "slope limited to 0.01" in found.reasons["acl"]
    before = roc_auc_score(labels, 1 - p)
    assert before < 0.5
    assert roc_auc_score(labels, found.apply(["acl"], 1 - p)) == before
    # nearly constant at the prevalence, as expected
    assert found.apply(["acl"], 1 - p).mean() == pytest.approx(labels.mean(), abs=0.01)


def test_ranking_does_not_change() -> None:
    """Calibration preserves the order of exams, including ties."""
    labels, p = simulated(300, slope=2.0, shift=1.0, seed=2)
    p = p.astype(np.float32).round(2).clip(1e-6)
    calibrated = fit_one(labels, p).apply(["acl"], p)
    assert (
        np.unique(p, return_inverse=True)[1] == np.unique(calibrated, return_inverse=True)[1]
    ).all()


@pytest.mark.parametrize(
    ("labels", "p", "reason"),
    [
        ([1.0, 1.0, np.nan], [0.2, 0.6, 0.1], "one class only: 2 of 2 are positive"),
        ([0.0], [0.3], "one class only: 0 of 1 are positive"),
        ([np.nan, np.nan], [0.2, 0.6], "no exam has a known label"),
        ([0.0, 1.0], [0.5, 0.5], "0.5|same probability"),
    ],
)
def test_unfitted_findings_are_unchanged(labels: list[float], p: list[float], reason: str) -> None:
    """One class, no label or equal probabilities: slope 1, intercept 0 and a reason."""
    column = np.array(p)[:, np.newaxis]
    found = fit_one(np.array(labels)[:, np.newaxis], column)
    assert (found.slopes["acl"], found.intercepts["acl"]) == (1, 0)
    assert np.isnan(found.prevalences["acl"])
    assert found.exams["acl"] == np.isfinite(labels).sum()
    assert re.search(reason, found.reasons["acl"])
    assert found.apply(["acl"], column) == pytest.approx(column, abs=1e-9)


def test_findings_are_calibrated_separately() -> None:
    """Findings are fitted separately, on their known labels, and applied by name."""
    acl, p_acl = simulated(100, shift=2.0, seed=5)
    tear, p_tear = simulated(100, slope=3.0, seed=6)
    acl[:9] = np.nan
    both = fit_calibration(["acl", "meniscus"], np.hstack([acl, tear]), np.hstack([p_acl, p_tear]))
    alone = fit_one(acl, p_acl)
    assert both.slopes["acl"] == alone.slopes["acl"]
    assert both.exams == {"acl": 91, "meniscus": 100}
    assert both.prevalences["acl"] == np.nanmean(acl)
    swapped = both.apply(["meniscus", "acl"], np.hstack([p_tear, p_acl]))
    assert (swapped[:, 1:] == alone.apply(["acl"], p_acl)).all()


def test_calibrated_probabilities_are_inside_0_and_1() -> None:
    """Probabilities of 0 and 1 become larger than 0 and smaller than 1."""
    same = Calibration("platt", {"acl": 1.0}, {"acl": 0.0}, {"acl": 0.5}, {"acl": 10})
    found = same.apply(["acl"], np.array([[0.0], [1.0], [0.3]]))[:, 0]
    assert found == pytest.approx([LOGIT_EPS, 1 - LOGIT_EPS, 0.3], rel=1e-6)
    assert found[1] < 1


def test_unknown_finding_is_rejected() -> None:
    """A finding without a calibration raises an error that names it."""
    labels, p = simulated(50, seed=0)
    with pytest.raises(MrkneeError, match=r"no calibration[\s\S]*effusion"):
        fit_one(labels, p).apply(["effusion"], p)


def test_invalid_probability_is_rejected() -> None:
    """Fitting and applying raise an error for probabilities outside 0 to 1."""
    labels, p = simulated(50, seed=0)
    fitted = fit_one(labels, p)
    with pytest.raises(MrkneeError, match="not between 0 and 1"):
        fit_one(labels, p + 1)
    with pytest.raises(MrkneeError, match="not between 0 and 1"):
        fitted.apply(["acl"], -p)


def test_calibration_survives_json() -> None:
    """A calibration is unchanged by a JSON round trip, including unfitted findings."""
    labels, p = simulated(60, seed=0)
    found = fit_calibration(
        ["acl", "meniscus"],
        np.hstack([labels, np.ones_like(labels)]),
        np.hstack([p, p]),
    )
    content = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    back = Calibration.from_dict(content)
    assert back.to_dict() == found.to_dict()
    assert np.isnan(back.prevalences["meniscus"])
    assert (back.apply(["acl"], p) == found.apply(["acl"], p)).all()
    clean = fit_one(labels, p)
    assert Calibration.from_dict(clean.to_dict()) == clean


def test_temperature_of_an_earlier_version_is_read() -> None:
    """A temperature (intercept 0), as fitted by earlier versions, is read and applied."""
    content = {**fit_one(*simulated(60, seed=0)).to_dict(), "method": "temperature"}
    content |= {"slopes": {"acl": 0.5}, "intercepts": {"acl": 0.0}}
    found = Calibration.from_dict(content)
    assert found.method == "temperature"
    assert found.apply(["acl"], np.array([[0.8]]))[0, 0] == pytest.approx(expit(0.5 * logit(0.8)))


@pytest.mark.parametrize(
    "change",
    [
        {"slopes": {"acl": -1.0}},
        {"slopes": {"acl": 0.0}},
        {"slopes": {}},
        {"slopes": {"acl": "steep"}},
        {"method": "isotonic"},
        {"exams": None},
    ],
)
def test_invalid_calibration_is_rejected(change: dict[str, object]) -> None:
    """A calibration with an invalid slope, method or missing field raises an error."""
    labels, p = simulated(60, seed=0)
    with pytest.raises(MrkneeError, match="a calibration can't be"):
        Calibration.from_dict({**fit_one(labels, p).to_dict(), **change})


def test_shift_of_prevalence_is_bayes() -> None:
    """Shifted probabilities equal those counted in the other population."""
    # 30 of 100 exams with the finding look like this, 10 of 100 without it
    before, after = 0.18, 0.45
    probability = np.array([0.3 * q / (0.3 * q + 0.1 * (1 - q)) for q in (before, after)])
    assert shift_prevalence(probability[:1], before, after) == pytest.approx(
        probability[1:], abs=1e-12
    )


def test_shift_is_reversible() -> None:
    """A shift to another prevalence and back changes nothing; 0 and 1 stay unchanged."""
    p = np.array([[0.0, 1e-9, 0.2], [0.7, 1 - 1e-9, 1.0]])
    shifted = shift_prevalence(p, 0.18, 0.45)
    assert shift_prevalence(shifted, 0.45, 0.18) == pytest.approx(p, abs=1e-12)
    assert shifted[0, 0] == 0
    assert shifted[1, 2] == 1
    assert (shifted[0, 1:] > p[0, 1:]).all()
    assert shift_prevalence(p, 0.3, 0.3) == pytest.approx(p)


def test_shift_corrects_a_change_of_prevalence() -> None:
    """Shifted probabilities are calibrated on a sample with more positives."""
    labels, p = simulated(60_000, prevalence_logit=-2.0, seed=0)
    y, p = labels[:, 0], p[:, 0]
    before, after = y.mean(), 0.45
    keep = np.random.default_rng(1).random(len(y)) < np.where(
        y == 1, 1, before / (1 - before) * (1 - after) / after
    )
    assert y[keep].mean() == pytest.approx(after, abs=0.01)
    assert p[keep].mean() < 0.4
    assert shift_prevalence(p[keep], before, after).mean() == pytest.approx(after, abs=0.01)


@pytest.mark.parametrize(("before", "after"), [(0.0, 0.5), (0.5, 1.0)])
def test_shift_from_or_to_0_or_1_is_rejected(before: float, after: float) -> None:
    """A prevalence of 0 or 1 raises an error."""
    with pytest.raises(MrkneeError, match="above 0 and below 1"):
        shift_prevalence(np.array([0.3]), before, after)
