"""Shares with their 95 % interval, Wilson's; and what may be a probability or a share at all.

E. B. Wilson, "Probable inference, the law of succession, and statistical inference", Journal of
the American Statistical Association 22 (1927) 209-212. Unlike the textbook's interval it stays
within 0 and 1 and has a width where the share is 0 or 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

from mrknee.errors import DataError, SettingsError
from mrknee.scoring.discrimination import Z_95, known_labels


@dataclass(frozen=True)
class Proportion:
    """A share of n exams, with Wilson's 95 % interval.

    Attributes:
        count: exams that have the property, 0 to `n`.
        n: exams looked at.
        value: count / n, 0 to 1; NaN when n is 0.
        low: lower end of the interval, 0 to `value`, or NaN.
        high: upper end of the interval, `value` to 1, or NaN. Never equal to `low`.
    """

    count: int
    n: int
    value: float
    low: float
    high: float


def wilson(count: int, n: int) -> Proportion:
    """The share count / n with Wilson's 95 % interval.

    Args:
        count: 0 to `n`.
        n: 0 or more; with 0 the share and both ends are NaN.

    Raises:
        MrkneeError: `count` is negative or larger than `n`.
    """
    if not 0 <= count <= n:
        raise SettingsError(
            "a share can't be taken",
            code="range",
            expected="a count from 0 to n",
            found=f"{count} of {n}",
        )
    if n == 0:
        return Proportion(count, n, math.nan, math.nan, math.nan)
    low, high = wilson_ends(np.array([count / n]), n)
    return Proportion(count, n, count / n, float(low[0]), float(high[0]))


def wilson_ends(
    shares: Float[np.ndarray, " shares"], n: int
) -> tuple[Float64[np.ndarray, " shares"], Float64[np.ndarray, " shares"]]:
    """Wilson's 95 % interval of any mean of n values that lie between 0 and 1.

    Such a mean m has at most a share's variance, m (1 - m) / n, so that for anything but a share
    the interval is conservative.

    Args:
        shares: the means, 0 to 1.
        n: of how many values; at least 1.

    Returns:
        The lower and the upper ends.
    """
    share = shares.astype(np.float64)
    centre = (share + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
    half = Z_95 / (1 + Z_95**2 / n) * np.sqrt(share * (1 - share) / n + (Z_95 / (2 * n)) ** 2)
    # Exact where the formula is so only up to rounding.
    low = np.where(share == 0, 0.0, np.clip(centre - half, 0.0, share))
    high = np.where(share == 1, 1.0, np.clip(centre + half, share, 1.0))
    return low, high


def known_pairs(
    labels: Float[np.ndarray, " exams"], probabilities: Float[np.ndarray, " exams"]
) -> tuple[Float64[np.ndarray, " known"], Float64[np.ndarray, " known"]]:
    """The known labels and their probabilities.

    Raises:
        MrkneeError: a label is not 0, 1 or NaN, or a probability is NaN or outside 0 to 1.
    """
    check_probabilities(probabilities)
    known = known_labels(labels)
    return labels[known].astype(np.float64), probabilities[known].astype(np.float64)


def check_probabilities(probabilities: Float[np.ndarray, "*shape"]) -> None:
    """Refuses what is not between 0 and 1.

    Raises:
        MrkneeError: a probability is NaN or outside 0 to 1.
    """
    outside = ~((probabilities >= 0) & (probabilities <= 1))
    if outside.any():
        raise DataError(
            "a probability is not between 0 and 1",
            code="probability",
            expected="0 to 1",
            found=f"{probabilities[outside][0]} ({int(outside.sum())} of {outside.size} are so)",
        )


def check_prevalence(prevalence: float) -> None:
    """Refuses a prevalence at which nothing is left to tell apart.

    Raises:
        MrkneeError: it is not above 0 and below 1.
    """
    if not 0 < prevalence < 1:
        raise SettingsError(
            "a prevalence can't be used",
            code="range",
            expected="above 0 and below 1",
            found=f"{prevalence}",
        )
