"""Proportions with Wilson's 95 % interval; validation of probabilities and prevalences.

E. B. Wilson, "Probable inference, the law of succession, and statistical inference", Journal of
the American Statistical Association 22 (1927) 209-212. Unlike Wald's interval, it stays within 0
and 1 and has a positive width for proportions of 0 and 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

from mrknee.errors import DataError, SettingsError
from mrknee.metrics.discrimination import Z_95, known_labels


@dataclass(frozen=True)
class Proportion:
    """A proportion of exams, with Wilson's 95 % interval.

    Attributes:
        count: number of exams with the property, 0 to `n`.
        n: total number of exams.
        value: count / n, 0 to 1; NaN if n is 0.
        low: lower end of the interval, 0 to `value`, or NaN.
        high: upper end of the interval, `value` to 1, or NaN. Never equal to `low`.
    """

    count: int
    n: int
    value: float
    low: float
    high: float


def wilson(count: int, n: int) -> Proportion:
    """Computes the proportion count / n with Wilson's 95 % interval.

    Args:
        count: 0 to `n`.
        n: 0 or more; for 0, the proportion and both ends are NaN.

    Raises:
        MrkneeError: `count` is negative or larger than `n`.
    """
    if not 0 <= count <= n:
        raise SettingsError(
            "a proportion can't be computed",
            code="range",
            expected="a count from 0 to n",
            found=f"{count} of {n}",
        )
    if n == 0:
        return Proportion(count, n, math.nan, math.nan, math.nan)
    low, high = wilson_interval(np.array([count / n]), n)
    return Proportion(count, n, count / n, float(low[0]), float(high[0]))


def wilson_interval(
    means: Float[np.ndarray, " means"], n: int
) -> tuple[Float64[np.ndarray, " means"], Float64[np.ndarray, " means"]]:
    """Computes Wilson's 95 % interval of means of n values between 0 and 1.

    The variance of such a mean m is at most that of a proportion, m (1 - m) / n, so the interval is
    conservative for means that are not proportions.

    Args:
        means: the means, 0 to 1.
        n: number of values in each mean; at least 1.

    Returns:
        The lower and the upper ends.
    """
    m = means.astype(np.float64)
    centre = (m + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
    half = Z_95 / (1 + Z_95**2 / n) * np.sqrt(m * (1 - m) / n + (Z_95 / (2 * n)) ** 2)
    # exact, where the formula is subject to rounding
    low = np.where(m == 0, 0.0, np.clip(centre - half, 0.0, m))
    high = np.where(m == 1, 1.0, np.clip(centre + half, m, 1.0))
    return low, high


def known_pairs(
    labels: Float[np.ndarray, " exams"], probabilities: Float[np.ndarray, " exams"]
) -> tuple[Float64[np.ndarray, " known"], Float64[np.ndarray, " known"]]:
    """Returns the known labels and their probabilities.

    Raises:
        MrkneeError: a label is not 0, 1 or NaN, or a probability is NaN or outside 0 to 1.
    """
    check_probabilities(probabilities)
    known = known_labels(labels)
    return labels[known].astype(np.float64), probabilities[known].astype(np.float64)


def check_probabilities(probabilities: Float[np.ndarray, "*shape"]) -> None:
    """Checks that all probabilities are between 0 and 1.

    Raises:
        MrkneeError: a probability is NaN or outside 0 to 1.
    """
    outside = ~((probabilities >= 0) & (probabilities <= 1))
    if outside.any():
        raise DataError(
            "a probability is not between 0 and 1",
            code="probability",
            expected="0 to 1",
            found=f"{probabilities[outside][0]} ({int(outside.sum())} of {outside.size} values)",
        )


def check_prevalence(prevalence: float) -> None:
    """Checks that a prevalence is above 0 and below 1.

    Raises:
        MrkneeError: it is not.
    """
    if not 0 < prevalence < 1:
        raise SettingsError(
            "a prevalence is out of range",
            code="range",
            expected="above 0 and below 1",
            found=f"{prevalence}",
        )
