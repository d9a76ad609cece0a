"""Calibration of an experiment's arms."""

from __future__ import annotations

import numpy as np
import pytest
from jaxtyping import Float

from mrknee.metrics.arm_calibration import COLUMNS, calibration_rows
from mrknee.metrics.folds import Fold
from mrknee.metrics.reliability import brier, reliability

EXAMS = 400


def fold(seed: int = 0) -> Fold:
    """Returns calibrated probabilities (`right`, three seeds) and too certain ones (`sure`)."""
    random = np.random.default_rng(seed)
    chances = random.uniform(0.2, 0.8, size=(3, EXAMS))
    labels = (random.random(EXAMS) < chances.mean(axis=0)).astype(float)
    labels[:5] = np.nan
    sure = np.where(chances > 0.5, 0.99, 0.01)
    return Fold(
        {"acl": labels, "meniscus": 1 - labels, "acl within abnormal": labels},
        {
            "right": {"acl": chances, "meniscus": 1 - chances, "acl within abnormal": chances},
            "sure": {"acl": sure[:1]},
        },
        tuple(range(EXAMS)),
        ("acl within abnormal",),
    )


def rows(*folds: Fold) -> dict[tuple[str, str], dict[str, str]]:
    """Returns the rows by arm and finding."""
    found = calibration_rows(folds, ["right", "sure"])
    return {(row[0], row[1]): dict(zip(COLUMNS, row, strict=True)) for row in found}


def measured(one: Fold, arm: str) -> Float[np.ndarray, "seeds 3"]:
    """Returns the measures of each seed's probabilities of an ACL tear."""
    labels = one.labels["acl"]
    found = []
    for own in one.scores[arm]["acl"]:
        diagram = reliability(labels, own)
        found.append([brier(labels, own).value, diagram.ece, diagram.ece_if_calibrated])
    return np.array(found)


def test_rows_are_means_over_seeds() -> None:
    """Values, SDs and empty cells; findings within another one have no row."""
    found = rows(fold())
    assert list(found) == [("right", "acl"), ("right", "meniscus"), ("sure", "acl")]
    each = measured(fold(), "right")
    row = found["right", "acl"]
    for column, name in enumerate(("brier", "ece", "ece_if_calibrated")):
        assert float(row[name]) == pytest.approx(each[:, column].mean(), abs=1e-4)
    for column, name in enumerate(("brier_sd", "ece_sd")):
        assert float(row[name]) == pytest.approx(each[:, column].std(ddof=1), abs=1e-4)
    assert (found["sure", "acl"]["brier_sd"], found["sure", "acl"]["ece_sd"]) == ("", "")


def test_too_certain_probabilities_are_seen() -> None:
    """Their Brier score and calibration error are higher, and the error is more than chance."""
    found = rows(fold())
    right, sure = found["right", "acl"], found["sure", "acl"]
    assert float(sure["brier"]) > float(right["brier"]) + 0.1
    assert float(sure["ece"]) > 3 * float(sure["ece_if_calibrated"])
    assert float(right["ece"]) < 3 * float(right["ece_if_calibrated"])


def test_folds_are_averaged() -> None:
    """With two folds, values are means of theirs."""
    both = rows(fold(0), fold(1))["right", "acl"]
    means = (measured(fold(0), "right") + measured(fold(1), "right")) / 2
    assert float(both["brier"]) == pytest.approx(means[:, 0].mean(), abs=1e-4)
    assert float(both["ece"]) == pytest.approx(means[:, 1].mean(), abs=1e-4)


def test_findings_without_labels_in_a_fold_are_left_out() -> None:
    """As in the comparison of AUCs, which are means over all folds."""
    first, second = fold(0), fold(1)
    labels = {name: one for name, one in second.labels.items() if name != "meniscus"}
    scores = {
        arm: {name: one for name, one in own.items() if name != "meniscus"}
        for arm, own in second.scores.items()
    }
    found = rows(first, Fold(labels, scores, second.groups, second.within))
    assert list(found) == [("right", "acl"), ("sure", "acl")]
