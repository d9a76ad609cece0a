"""Calibration: whether exams given 0.3 have the finding in 30 % of cases, and what to do if not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Float64

from mrknee.scoring.proportions import Proportion

Method = Literal["platt", "temperature"]


@dataclass(frozen=True)
class Calibration:
    """What turns a network's probabilities into calibrated ones, one line a finding.

    calibrated = expit(slope * logit(p) + intercept). A slope is always positive, so no ranking of
    exams, and no AUC, changes.

    Attributes:
        method: "platt" (slope and intercept) or "temperature" (slope 1 / T, intercept 0).
        slopes: finding -> slope on the logit scale, > 0; 1 where nothing could be fitted.
        intercepts: finding -> intercept on the logit scale; 0 where nothing could be fitted.
        prevalences: finding -> share of positive exams among those it was fitted on, above 0 and
            below 1; NaN where nothing could be fitted.
        exams: finding -> exams with a known label that it was fitted on.
        reasons: finding -> why it could not be fitted, or why its slope was held at the smallest
            allowed; a finding that was fitted as usual is not in it.
    """

    method: Method
    slopes: Mapping[str, float]
    intercepts: Mapping[str, float]
    prevalences: Mapping[str, float]
    exams: Mapping[str, int]
    reasons: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("slopes", "intercepts", "prevalences", "exams", "reasons"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))


@dataclass(frozen=True)
class Brier:
    """The Brier score of one finding: the mean squared difference of probability and label.

    Attributes:
        value: 0 (every label said with certainty) to 1; NaN when no label is known.
        low: lower end of the 95 % interval, or NaN.
        high: upper end of the 95 % interval, or NaN.
        reference: the Brier score of always saying the prevalence of these exams; NaN like value.
        n: exams with a known label.
        method: how the interval was made; "none" without one.
    """

    value: float
    low: float
    high: float
    reference: float
    n: int
    method: str


@dataclass(frozen=True)
class ReliabilityPoint:
    """One bin of a reliability diagram: what was said, and what was so.

    Attributes:
        low_edge: lower edge of the bin, a probability.
        high_edge: upper edge of the bin, itself in the bin.
        mean_probability: mean of the bin's probabilities.
        observed: share of the bin's exams that have the finding.
    """

    low_edge: float
    high_edge: float
    mean_probability: float
    observed: Proportion


@dataclass(frozen=True)
class Reliability:
    """The reliability diagram of one finding and its expected calibration error (ECE).

    Attributes:
        points: the bins that hold exams, by rising probability; empty when no label is known.
        ece: mean over exams of their bin's |mean probability - observed share|; 0 to 1, or NaN.
            Biased upwards: compare it with `ece_if_calibrated`, not with 0.
        ece_low: lower end of the 95 % interval, or NaN.
        ece_high: upper end of the 95 % interval, or NaN.
        ece_if_calibrated: the mean ECE that these probabilities would show in this many exams if
            every one of them were right: what the bias amounts to; NaN like `ece`.
        n: exams with a known label.
        binning: how the bins were made, in words.
        method: how the interval was made; "none" without one.
    """

    points: tuple[ReliabilityPoint, ...]
    ece: float
    ece_low: float
    ece_high: float
    ece_if_calibrated: float
    n: int
    binning: str
    method: str
