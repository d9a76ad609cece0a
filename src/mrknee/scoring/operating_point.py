"""Operating points: a threshold that turns a probability into yes or no, and how good that is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from mrknee.scoring.proportions import Proportion


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold for one finding, and how it was chosen.

    Attributes:
        rule: "Youden" or, for example, "sensitivity >= 0.90".
        threshold: an exam is called positive if its probability is at least this; 0 to 1, or NaN.
        n_positive: exams with the finding among those it was fixed on.
        n_negative: exams without it among those it was fixed on.
        reason: why there is no threshold, or None when there is one.
    """

    rule: str
    threshold: float
    n_positive: int
    n_negative: int
    reason: str | None = None


@dataclass(frozen=True)
class AtPrevalence:
    """What a call would be worth where the finding is as common as stated.

    Attributes:
        prevalence: the stated share of exams with the finding, above 0 and below 1.
        ppv: positive predictive value, from sensitivity and specificity; 0 to 1, or NaN.
        ppv_low: lower end of its 95 % interval, or NaN.
        ppv_high: upper end of its 95 % interval, or NaN.
        npv: negative predictive value, from sensitivity and specificity; 0 to 1, or NaN.
        npv_low: lower end of its 95 % interval, or NaN.
        npv_high: upper end of its 95 % interval, or NaN.
        n_positive: exams the sensitivity is from.
        n_negative: exams the specificity is from.
        reason: why a value is NaN, or None when none is.
    """

    prevalence: float
    ppv: float
    ppv_low: float
    ppv_high: float
    npv: float
    npv_low: float
    npv_high: float
    n_positive: int
    n_negative: int
    reason: str | None = None


@dataclass(frozen=True)
class OperatingScore:
    """How good an operating point is on exams it was not fixed on.

    Attributes:
        point: the operating point.
        tp: exams with the finding that were called positive.
        fp: exams without it that were called positive.
        fn: exams with it that were called negative.
        tn: exams without it that were called negative. All four are 0 if there is no threshold.
        sensitivity: tp of the exams with the finding.
        specificity: tn of the exams without it.
        ppv: tp of the exams called positive, at the prevalence of the exams scored.
        npv: tn of the exams called negative, at the prevalence of the exams scored.
        at_prevalence: PPV and NPV at a stated prevalence, or None if none was stated.
    """

    point: OperatingPoint
    tp: int
    fp: int
    fn: int
    tn: int
    sensitivity: Proportion
    specificity: Proportion
    ppv: Proportion
    npv: Proportion
    at_prevalence: AtPrevalence | None = None
