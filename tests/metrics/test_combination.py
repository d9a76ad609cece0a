"""Combination of networks by logistic regression."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from mrknee.errors import DataError
from mrknee.exams import Findings
from mrknee.metrics.combination import fit_combination
from mrknee.metrics.predictions import Predictions

IDS = tuple(f"{i:02d}" for i in range(40))
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 2, 40).astype(float)


def table(strength: float, ids: tuple[str, ...] = IDS) -> Predictions:
    """Returns probabilities that are related to the labels."""
    logits = strength * (LABELS - 0.5) + RNG.normal(size=40)
    return Predictions(ids, Findings(["acl"]), expit(logits)[:, None])


TABLES = [table(2.0), table(0.5), table(0.0)]


def test_it_is_the_penalised_maximum_of_the_likelihood() -> None:
    """Weights minimise the log loss plus half their squared norm; the intercept is free."""
    found = fit_combination("acl", TABLES, LABELS)
    x = np.hstack([one.probabilities for one in TABLES])

    def loss(parameters: np.ndarray) -> float:
        z = x @ parameters[:3] + parameters[3]
        return float((np.logaddexp(0, z) - LABELS * z).sum() + (parameters[:3] ** 2).sum() / 2)

    expected = minimize(loss, np.zeros(4), tol=1e-12).x
    np.testing.assert_allclose([*found.weights, found.intercept], expected, atol=1e-4)
    assert found.exams == 40
    assert found.weights[0] > abs(found.weights[2])
    combined = found.apply(TABLES)
    np.testing.assert_allclose(combined["acl"], expit(x @ expected[:3] + expected[3]), atol=1e-4)


def test_exams_in_another_order_and_unknown_labels_have_no_effect() -> None:
    """Tables are joined by id, and exams with an unknown label are left out."""
    order = list(reversed(range(40)))
    turned = Predictions(
        tuple(IDS[i] for i in order), Findings(["acl"]), TABLES[1].probabilities[order]
    )
    expected = fit_combination("acl", TABLES, LABELS)
    found = fit_combination("acl", [TABLES[0], turned, TABLES[2]], LABELS)
    np.testing.assert_allclose(found.weights, expected.weights, atol=1e-8)
    labels = LABELS.copy()
    labels[:5] = np.nan
    assert fit_combination("acl", TABLES, labels).exams == 35


def test_separable_classes_have_finite_weights() -> None:
    """Predictions of exams that networks were trained on may be perfect."""
    perfect = Predictions(IDS, Findings(["acl"]), LABELS[:, None])
    assert np.isfinite(fit_combination("acl", [perfect] * 3, LABELS).weights).all()


def test_what_cannot_be_fitted_is_refused() -> None:
    """One class only, and tables of different exams."""
    with pytest.raises(DataError, match="can't be combined"):
        fit_combination("acl", TABLES, np.ones(40))
    other = Predictions(IDS[1:], Findings(["acl"]), TABLES[0].probabilities[1:])
    with pytest.raises(DataError, match="different exams"):
        fit_combination("acl", [TABLES[0], other], LABELS)
