"""The permutation test of two models' AUCs: what if each exam's two readings had changed places?

Under the null hypothesis an exam's two scores, each as its rank among its own model's scores, can
be exchanged without changing their joint distribution; the statistic is the difference of the AUCs:
A. I. Bandos, H. E. Rockette, D. Gur, "A permutation test sensitive to differences in areas for
comparing ROC curves from a paired design", Statistics in Medicine 24 (2005) 2873-2893.

The difference after any exchange is a sum over the exams of +-weight: whether a positive beats a
negative depends on both exams' exchanges, but the part that depends on both together is the same
for both models and falls out of the difference. An exam's weight is how many more ranks of the
other class, both models' taken together, its second rank wins against than its first. So a
replicate costs one product, and the whole-number weights let the distribution over all 2^exams
exchanges be counted out exactly.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from scipy.special import ndtr

from mrknee.scoring.discrimination import known_labels, refuse_nan
from mrknee.scoring.resampling import in_portions

REPLICATES = 10_000
"""Random exchanges where not all are counted: a p of 0.05 has a standard error of 0.002."""

EXACT_STEPS = 100_000_000
"""Exams x sum of weights up to which all exchanges are counted: about 0.1 s, some 500 exams."""

NORMAL_BELOW = 1e-3
"""Excess kurtosis of the sum, -2 sum w^4 / (sum w^2)^2, nearer to 0 than which the sum is taken as
normal (Bandos 2005's asymptotic form; thousands of exams). The first term left out, Edgeworth's,
changes p by less than 0.0001 then, a twentieth of the random exchanges' standard error."""

EXACT = "all exchanges, exact"
NORMAL = "all exchanges, normal approximation"


def exchange_weights(
    labels: Float[np.ndarray, " exams"],
    first: Float[np.ndarray, " exams"],
    second: Float[np.ndarray, " exams"],
) -> Int64[np.ndarray, " exams"]:
    """What each exam adds to the difference of the AUCs; exchanging its scores turns the sign.

    Args:
        labels: 1 positive, 0 negative, NaN not known; both classes are there.
        first: the first model's scores; larger means more likely positive; only ranks matter.
        second: the second model's.

    Returns:
        Whole numbers; their sum divided by 4 x positives x negatives is AUC(second) - AUC(first).
        0 where the label is not known.

    Raises:
        MrkneeError: a score is NaN, or a label is not 0, 1 or NaN.
    """
    from scipy.stats import rankdata  # slow to import, and only a comparison needs it

    refuse_nan(np.stack([first, second]))
    known = known_labels(labels)
    ranks = np.stack([rankdata(first[known]), rankdata(second[known])])
    positive = labels[known] == 1
    weights = np.empty(int(known.sum()), dtype=np.int64)
    weights[positive] = _lead(ranks, positive)
    # A negative exam's rank counts against its model.
    weights[~positive] = -_lead(ranks, ~positive)
    everywhere = np.zeros(len(labels), dtype=np.int64)
    everywhere[known] = weights
    return everywhere


def exchange_p(
    weights: Float64[np.ndarray, " exams"] | Int64[np.ndarray, " exams"],
    *,
    seed: int = 0,
    replicates: int = REPLICATES,
) -> tuple[float, str]:
    """The two-sided p of the sum of the weights, if each weight's sign could as well be the other.

    Args:
        weights: `exchange_weights` of one finding; or, for a mean over findings, the mean of each
            finding's weights divided by its own 4 x positives x negatives: whole exams are
            exchanged.
        seed: of the random exchanges.
        replicates: how many random exchanges, where not all are counted.

    Returns:
        p, and how it was found: all exchanges counted (whole-number weights of not too many
        exams), or (1 + as extreme) / (1 + replicates), or the normal approximation (weights of
        thousands of exams). 1 when all weights are zero.
    """
    moving = np.abs(weights[weights != 0])
    if len(moving) == 0:
        return 1.0, EXACT
    if np.issubdtype(weights.dtype, np.integer) and len(moving) * moving.sum() <= EXACT_STEPS:
        return _exact(np.sort(moving).astype(np.int64), int(abs(weights.sum()))), EXACT
    values = moving.astype(np.float64)
    spread = float((values**2).sum())
    if 2 * float((values**4).sum()) < NORMAL_BELOW * spread**2:
        return float(2 * ndtr(-abs(float(weights.sum())) / np.sqrt(spread))), NORMAL
    rng = np.random.default_rng(seed)
    # Sums of the same numbers in another order differ by rounding.
    least = abs(float(weights.sum())) - 1e-12 * float(values.sum())
    extreme = 0
    for count in in_portions(replicates, len(values)):
        kept = rng.integers(0, 2, size=(count, len(values)), dtype=np.int8)
        sums = 2 * (kept @ values) - values.sum()
        extreme += int((np.abs(sums) >= least).sum())
    return (1 + extreme) / (1 + replicates), f"{replicates} random exchanges"


def _lead(
    ranks: Float64[np.ndarray, "models known"], own: Bool[np.ndarray, " known"]
) -> Int64[np.ndarray, " own"]:
    """How many of the other class's ranks the second model's rank beats more, a tie one of two."""
    others = np.sort(ranks[:, ~own].reshape(-1))
    won = np.searchsorted(others, ranks[:, own]) + np.searchsorted(others, ranks[:, own], "right")
    lead: Int64[np.ndarray, " own"] = (won[1] - won[0]).astype(np.int64)
    return lead


def _exact(weights: Int64[np.ndarray, " moving"], observed: int) -> float:
    """P(|sum of +-weight| >= observed) over all signs.

    The weights with sign + add up to u, so the sum is 2 u - total; `share[u]` is the share of the
    sign patterns with that u, built up weight by weight.

    Args:
        weights: above 0, ascending: so the array stays short for long.
        observed: the sum whose p is wanted, 0 or more, to one divisor with the weights.
    """
    unit = int(np.gcd.reduce(weights))
    weights = weights // unit
    observed //= unit
    share = np.ones(1)
    for weight in weights.tolist():
        longer = np.zeros(len(share) + weight)
        longer[: len(share)] = share
        longer[weight:] += share
        share = longer / 2
    sums = 2 * np.arange(len(share)) - int(weights.sum())
    return float(min(1.0, share[np.abs(sums) >= observed].sum()))
