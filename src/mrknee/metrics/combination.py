"""Combination of several networks' probabilities of one finding by logistic regression.

N. Bien et al., "Deep-learning-assisted diagnosis for knee magnetic resonance imaging" (PLOS
Medicine 2018) combine the networks of the three planes in this way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import expit

from mrknee.errors import DataError
from mrknee.exams import Findings
from mrknee.metrics.predictions import Predictions, check_same_exams, reorder


@dataclass(frozen=True)
class Combination:
    """A logistic regression on the probabilities of several networks.

    Attributes:
        finding: the finding that all networks predict.
        weights: one weight per network, in the order in which it was fitted.
        intercept: the intercept.
        exams: number of exams it was fitted on.
    """

    finding: str
    weights: tuple[float, ...]
    intercept: float
    exams: int

    def apply(self, tables: Sequence[Predictions]) -> Predictions:
        """Combines predictions.

        Args:
            tables: predictions of the same exams by each network, in the order of the weights.

        Returns:
            sigmoid(sum of weight * probability + intercept) per exam, in the order of the first
            table.

        Raises:
            DataError: the tables contain different exams.
        """
        logits = _inputs(self.finding, tables) @ np.array(self.weights) + self.intercept
        return Predictions(tables[0].ids, Findings([self.finding]), expit(logits)[:, None])

    def to_dict(self) -> dict[str, Any]:
        """Returns the content for a JSON file."""
        return {**asdict(self), "weights": list(self.weights)}


def fit_combination(
    finding: str, tables: Sequence[Predictions], labels: Float[np.ndarray, " exams"]
) -> Combination:
    """Fits a logistic regression on the probabilities of several networks.

    It has scikit-learn's default penalty (half the squared norm of the weights, C = 1), because
    predictions of exams that networks were trained on often separate the classes, and weights would
    then grow without limit. The paper doesn't state a penalty.

    Args:
        finding: the finding.
        tables: predictions of the same exams by each network.
        labels: 1, 0 or NaN (unknown: left out), in the order of the first table.

    Raises:
        DataError: the tables contain different exams, or the labels have only one class.
    """
    from sklearn.linear_model import LogisticRegression  # slow to import

    inputs, known = _inputs(finding, tables), np.isfinite(labels)
    classes = set(labels[known].tolist())
    if classes != {0.0, 1.0}:
        raise DataError(
            f"networks of {finding} can't be combined",
            code="no-labels",
            expected="exams with and without the finding",
            found=f"labels {sorted(classes)}",
        )
    fitted = LogisticRegression(tol=1e-8, max_iter=1000).fit(inputs[known], labels[known])
    weights = tuple(map(float, fitted.coef_[0]))
    return Combination(finding, weights, float(fitted.intercept_[0]), int(known.sum()))


def _inputs(finding: str, tables: Sequence[Predictions]) -> Float[np.ndarray, "exams networks"]:
    """Returns the probabilities of one finding, exams in the order of the first table."""
    check_same_exams(tables, [f"network {i}" for i in range(1, len(tables) + 1)])
    one = Findings([finding])
    return np.hstack([reorder(table, tables[0].ids, one).probabilities for table in tables])
