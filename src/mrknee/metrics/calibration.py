"""Calibration of probabilities: of the exams given 0.3, three in ten should have the finding.

`fit_calibration` fits Platt scaling. A network trained with class weights (pos_weight = negatives /
positives, as in the reference) learns probabilities as if both classes were equally common, far too
high for a rare finding. Platt's intercept corrects this; the tests show it on simulated data.

`shift_prevalence` shifts probabilities to another prevalence. `mrknee.metrics.reliability` measures
how well probabilities are calibrated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Float64
from scipy.special import expit, logit

from mrknee.errors import ModelError
from mrknee.metrics.json_values import checked_count, checked_number, to_json_values
from mrknee.metrics.proportions import check_prevalence, check_probabilities, known_pairs

Method = Literal["platt", "temperature"]

LOGIT_EPS = 1e-12
"""Probabilities are clipped to this distance from 0 and 1, so that logits are within +-27.6. A
32-bit sigmoid reaches 1 at a logit of 17, so clipping creates ties only among exams close to 0."""

MIN_SLOPE = 0.01
"""The smallest slope: nearly flat, but exams keep their order."""


@dataclass(frozen=True)
class Calibration:
    """A linear calibration of a network's probabilities on the logit scale, for each finding.

    calibrated = expit(slope * logit(p) + intercept). Slopes are positive, so that the ranking of
    exams and the AUC don't change.

    Attributes:
        method: "platt"; or "temperature" (intercept 0), which earlier versions fitted.
        slopes: finding -> slope on the logit scale, > 0; 1 if it could not be fitted.
        intercepts: finding -> intercept on the logit scale; 0 if it could not be fitted.
        prevalences: finding -> share of positive exams among those it was fitted on, above 0 and
            below 1; NaN if it could not be fitted.
        exams: finding -> number of exams with a known label.
        reasons: finding -> why it could not be fitted, or why its slope is the smallest allowed;
            findings fitted normally are absent.
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

    def apply(
        self, findings: Sequence[str], probabilities: Float[np.ndarray, "exams findings"]
    ) -> Float64[np.ndarray, "exams findings"]:
        """Calibrates probabilities.

        Args:
            findings: names of the findings, one per column.
            probabilities: output of the network, 0 to 1.

        Returns:
            Calibrated probabilities, above 0 and below 1. Probabilities of a finding that could not
            be fitted are unchanged, except for clipping by `LOGIT_EPS`.

        Raises:
            MrkneeError: the calibration lacks a finding, or a probability is NaN or outside 0 to 1.
        """
        missing = [name for name in findings if name not in self.slopes]
        if missing:
            raise ModelError(
                "a finding has no calibration",
                code="calibration",
                expected=f"one of {', '.join(self.slopes)}",
                found=", ".join(missing),
            )
        slopes = np.array([self.slopes[name] for name in findings])
        intercepts = np.array([self.intercepts[name] for name in findings])
        calibrated: Float64[np.ndarray, "exams findings"]
        calibrated = expit(slopes * _logits(probabilities) + intercepts)
        return calibrated

    def to_dict(self) -> dict[str, Any]:
        """Returns a JSON-compatible dict; a prevalence of NaN becomes None."""
        content: dict[str, Any] = to_json_values(self)
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Calibration:
        """Creates a calibration from the output of `to_dict`.

        Raises:
            MrkneeError: a field is missing or invalid.
        """
        try:
            calibration = cls(
                method=content["method"],
                slopes={name: checked_number(one) for name, one in content["slopes"].items()},
                intercepts={
                    name: checked_number(one) for name, one in content["intercepts"].items()
                },
                prevalences={
                    name: math.nan if one is None else checked_number(one)
                    for name, one in content["prevalences"].items()
                },
                exams={name: checked_count(one) for name, one in content["exams"].items()},
                reasons={name: str(one) for name, one in content["reasons"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(
                "a calibration can't be read",
                code="calibration",
                expected="a calibration written by mrknee",
                found=f"{type(error).__name__}: {error}",
            ) from None
        names = calibration.slopes.keys()
        valid = all(0 < slope < math.inf for slope in calibration.slopes.values())
        others = calibration.intercepts, calibration.prevalences, calibration.exams
        complete = all(names == other.keys() for other in others)
        if not valid or not complete or calibration.method not in ("platt", "temperature"):
            raise ModelError(
                "a calibration can't be used",
                code="calibration",
                expected="platt (or temperature), and a slope above 0 for every finding",
                found=f"{calibration.method}, slopes {dict(calibration.slopes)}",
            )
        return calibration


def fit_calibration(
    findings: Sequence[str],
    labels: Float[np.ndarray, "exams findings"],
    probabilities: Float[np.ndarray, "exams findings"],
) -> Calibration:
    """Fits slope and intercept of each finding on exams that the network was not trained on.

    Maximum likelihood with the targets of J. Platt, "Probabilistic outputs for support vector
    machines" (Advances in Large Margin Classifiers, 1999): (P + 1) / (P + 2) for the P positive
    exams and 1 / (N + 2) for the N negative ones instead of 1 and 0. They keep the slope finite
    if the classes are perfectly separated. Slopes are at least `MIN_SLOPE`.

    Args:
        findings: names of the findings, one per column.
        labels: 1 present, 0 absent, NaN unknown: excluded.
        probabilities: 0 to 1.

    Returns:
        The calibration; a finding with only one class, or with the same probability for all exams,
        has slope 1, intercept 0 and a reason.

    Raises:
        MrkneeError: a label is not 0, 1 or NaN, or a probability is NaN or outside 0 to 1.
    """
    slopes, intercepts, prevalences, exams, reasons = {}, {}, {}, {}, {}
    for i, name in enumerate(findings):
        known, p = known_pairs(labels[:, i], probabilities[:, i])
        slope, intercept, prevalence = 1.0, 0.0, math.nan
        reason = _why_not_fitted(known, p)
        if reason is None:
            slope, intercept, reason = _fit(known, _logits(p))
            prevalence = float(known.mean())
        slopes[name], intercepts[name], prevalences[name] = slope, intercept, prevalence
        exams[name] = len(known)
        if reason is not None:
            reasons[name] = reason
    return Calibration("platt", slopes, intercepts, prevalences, exams, reasons)


def shift_prevalence(
    probabilities: Float[np.ndarray, "*shape"], before: float, after: float
) -> Float64[np.ndarray, "*shape"]:
    """Shifts calibrated probabilities to another prevalence of the finding.

    Bayes' rule with another prior: odds times (after / (1 - after)) / (before / (1 - before)). M.
    Saerens, P. Latinne, C. Decaestecker, "Adjusting the outputs of a classifier to new a priori
    probabilities", Neural Computation 14 (2002) 21-41, equation 2.4. It is valid if only the
    prevalence changes, not the appearance of exams with and without the finding. MRNet's ACL tears:
    18 % of the training exams, 45 % of the validation exams.

    Args:
        probabilities: 0 to 1, calibrated at `before`.
        before: prevalence at which the probabilities are calibrated; above 0, below 1.
        after: prevalence to shift the probabilities to; above 0, below 1.

    Returns:
        The shifted probabilities.

    Raises:
        MrkneeError: a prevalence is not between 0 and 1, or a probability is NaN or outside.
    """
    check_prevalence(before)
    check_prevalence(after)
    check_probabilities(probabilities)
    p = probabilities.astype(np.float64)
    present, absent = p * (after / before), (1 - p) * ((1 - after) / (1 - before))
    shifted: Float64[np.ndarray, "*shape"] = present / (present + absent)
    return shifted


def _logits(probabilities: Float[np.ndarray, "*shape"]) -> Float64[np.ndarray, "*shape"]:
    check_probabilities(probabilities)
    logits: Float64[np.ndarray, "*shape"]
    logits = logit(np.clip(probabilities.astype(np.float64), LOGIT_EPS, 1 - LOGIT_EPS))
    return logits


def _why_not_fitted(
    labels: Float64[np.ndarray, " exams"], p: Float64[np.ndarray, " exams"]
) -> str | None:
    positives = int(labels.sum())
    if len(labels) == 0:
        return "not calibrated: no exam has a known label"
    if positives in (0, len(labels)):
        return f"not calibrated: one class only: {positives} of {len(labels)} are positive"
    if np.ptp(p) == 0:
        return f"not calibrated: all {len(labels)} exams have the same probability"
    return None


def _fit(
    labels: Float64[np.ndarray, " exams"], logits: Float64[np.ndarray, " exams"]
) -> tuple[float, float, str | None]:
    """Returns slope, intercept, and a reason if the slope is limited by `MIN_SLOPE`."""
    positives = labels.sum()
    negatives = len(labels) - positives
    targets = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    # centred and scaled, so that one tolerance suits logits of any spread
    centre = logits.mean()
    scale = np.sqrt(((logits - centre) ** 2).mean())
    x = (logits - centre) / scale

    def loss(parameters: Float64[np.ndarray, " 2"]) -> tuple[float, Float64[np.ndarray, " 2"]]:
        z = parameters[0] * x + parameters[1]
        excess = expit(z) - targets
        value = float((np.logaddexp(0, z) - targets * z).mean())
        return value, np.array([(excess * x).mean(), excess.mean()])

    from scipy.optimize import minimize  # slow to import, and needed only for fitting

    min_slope = MIN_SLOPE * scale
    result = minimize(
        loss,
        [max(1.0, min_slope), 0.0],
        jac=True,
        method="L-BFGS-B",
        bounds=[(min_slope, None), (None, None)],
        options={"ftol": 1e-15, "gtol": 1e-10},
    )
    slope = max(MIN_SLOPE, float(result.x[0] / scale))
    intercept = float(result.x[1] - slope * centre)
    if slope > MIN_SLOPE * (1 + 1e-9):
        return slope, intercept, None
    reason = (
        f"the finding is hardly more frequent at higher probabilities in these {len(labels)} "
        f"exams: slope limited to {MIN_SLOPE}"
    )
    return slope, intercept, reason
