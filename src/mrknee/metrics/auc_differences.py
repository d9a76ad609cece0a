"""Difference of two models' AUCs on the same exams, for one finding and for the mean.

Combines the tests and intervals of `paired_tests` and `resampling`, and decides which are valid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from mrknee.metrics.discrimination import DELONG, Auc
from mrknee.metrics.paired_tests import (
    SAME_RANKING,
    difference_interval,
    have_same_ranking,
    paired_delong,
)
from mrknee.metrics.resampling import BOOTSTRAP, MEAN_OF_ENDS, bootstrap_differences


@dataclass(frozen=True)
class Difference:
    """The difference of two models' AUCs for one finding.

    Attributes:
        finding: name of the finding.
        first: name of the first model, the reference.
        second: name of the second model.
        n_positive: exams with label 1.
        n_negative: exams with label 0.
        first_auc: AUC of the first model, 0 to 1; NaN with one class only.
        second_auc: AUC of the second model.
        difference: second_auc - first_auc, -1 to 1.
        low: lower end of the 95 % interval of the difference.
        high: upper end. Equal to `low` only if `method` states that there is no interval.
        p_delong: two-sided p of DeLong's paired test. NaN if its variance is unusable: the
            interval of an AUC isn't DeLong's (few exams of a class, perfect separation).
        p_holm: p_delong after Holm's correction over all findings and models of the comparison.
        method: method of the interval.
        reason: why a number is NaN, or why p is 1 without a variance; None otherwise.
    """

    finding: str
    first: str
    second: str
    n_positive: int
    n_negative: int
    first_auc: float
    second_auc: float
    difference: float
    low: float
    high: float
    p_delong: float
    p_holm: float
    method: str
    reason: str | None = None

    @property
    def detection_limit(self) -> float:
        """The longer half of the interval, or NaN; smaller differences can't be detected here.

        A difference of exactly this size would be detected in about half of such samples.
        """
        return max(self.difference - self.low, self.high - self.difference)


@dataclass(frozen=True)
class MeanDifference:
    """The difference of two models' mean AUCs over the findings that have an AUC.

    Attributes:
        first: name of the first model, the reference.
        second: name of the second model.
        difference: second - first, -1 to 1; NaN if no finding has an AUC.
        low: lower end of the 95 % interval of the difference.
        high: upper end. Equal to `low` only if `method` states that there is no interval.
        findings: the findings included in the mean.
        method: method of the interval.
        reason: why the numbers are NaN, or None.
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    findings: tuple[str, ...]
    method: str
    reason: str | None = None

    @property
    def detection_limit(self) -> float:
        """The longer half of the interval, as in `Difference.detection_limit`."""
        return max(self.difference - self.low, self.high - self.difference)


def auc_difference(
    names: tuple[str, str],
    finding: str,
    labels: Float[np.ndarray, " exams"],
    scores: tuple[Float[np.ndarray, " exams"], Float[np.ndarray, " exams"]],
    aucs: tuple[Auc, Auc],
) -> Difference:
    """Compares two models' AUCs for one finding.

    `p_holm` of the result is NaN, because Holm's correction depends on the other tests.

    Args:
        names: names of the two models.
        finding: name of the finding.
        labels: 1 positive, 0 negative, NaN unknown: the exam is excluded.
        scores: scores of the two models; larger means more likely positive; only ranks matter.
        aucs: AUCs of the two models for these labels and scores, with their intervals.

    Raises:
        MrkneeError: a score is NaN, or a label is not 0, 1 or NaN.
    """
    test = paired_delong(labels, *scores)
    low, high, method = difference_interval(
        *aucs, test.correlation, same_ranking=have_same_ranking(labels, *scores)
    )
    p, reason = test.p, test.reason
    other_methods = [one.method for one in aucs if one.method != DELONG]
    if aucs[0].reason is None and other_methods:
        p, reason = (
            math.nan,
            f"no test, because an AUC's interval is not DeLong's: {other_methods[0]}",
        )
    return Difference(
        finding=finding,
        first=names[0],
        second=names[1],
        n_positive=test.n_positive,
        n_negative=test.n_negative,
        first_auc=test.first,
        second_auc=test.second,
        difference=test.difference,
        low=low,
        high=high,
        p_delong=p,
        p_holm=math.nan,
        method=method,
        reason=reason,
    )


def mean_auc_difference(
    differences: Sequence[Difference],
    labels: Float[np.ndarray, "exams findings"],
    first: Float[np.ndarray, "exams findings"],
    second: Float[np.ndarray, "exams findings"],
    *,
    seed: int = 0,
) -> MeanDifference:
    """Computes the mean difference over the findings that have an AUC.

    The interval is computed as for the mean AUC (`mean_auc`): by the stratified bootstrap, or, if
    resampling underestimates the variance of a finding, as the mean of the findings' interval ends.

    Args:
        differences: differences of two models, one per finding, in the order of the columns.
        labels: 1 present, 0 absent, NaN unknown.
        first: scores of the first model.
        second: scores of the second model.
        seed: seed of the resampling.
    """
    names = differences[0].first, differences[0].second
    columns = [i for i, one in enumerate(differences) if not math.isnan(one.difference)]
    used = [differences[i] for i in columns]
    if not used:
        nan = math.nan
        return MeanDifference(*names, nan, nan, nan, (), "none", "no finding has an AUC")
    value = float(np.mean([one.difference for one in used]))
    # DeLong's variance is unusable, or is zero because the models rank the same pairs correctly
    special = [one.finding for one in used if one.reason is not None and one.low < one.high]
    if all(one.low == one.high for one in used):
        low, high, method = value, value, f"none: {SAME_RANKING}"
    elif special:
        # where DeLong's variance is too small, resampling underestimates the variance as well
        low, high = float(np.mean([d.low for d in used])), float(np.mean([d.high for d in used]))
        method = f"{MEAN_OF_ENDS} ({', '.join(special)}: resampling underestimates the variance)"
    else:
        draws = bootstrap_differences(
            labels[:, columns], first[:, columns], second[:, columns], seed=seed
        ).mean(axis=1)
        low, high = (float(q) for q in np.quantile(draws[~np.isnan(draws)], [0.025, 0.975]))
        method = BOOTSTRAP
    return MeanDifference(*names, value, low, high, tuple(one.finding for one in used), method)
