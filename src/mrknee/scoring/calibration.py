"""Calibration: whether of the exams given 0.3 three in ten have the finding, and what to do if not.

Fitting: `fit_calibration`. A network trained with class weights (pos_weight = negatives /
positives, as in the reference) learns the probabilities of a world where both classes are equally
common, far too high for a rare finding. Platt's intercept takes that back. A temperature alone
can't: it only stretches the logits about 0, so that every exam stays on its side of 0.5; the tests
show both on simulated data. Platt is therefore the default of the recipes.

Another prevalence: `at_prevalence`. Looking: `brier`, `reliability`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Float64
from scipy.optimize import minimize
from scipy.special import expit, logit

from mrknee.errors import MrkneeError
from mrknee.scoring.discrimination import known_labels
from mrknee.scoring.proportions import Proportion, wilson, wilson_ends
from mrknee.scoring.resampling import REPLICATES

Method = Literal["platt", "temperature"]

LOGIT_EPS = 1e-12
"""Probabilities are held this far from 0 and 1 before the logit is taken: within +-27.6. A 32-bit
sigmoid reaches 1 at a logit of 17, so only exams that are all but 0 can become equal by it."""

MIN_SLOPE = 0.01
"""The smallest slope, a temperature of 100: all but flat, and exams keep their order."""

BINS = 10
"""Bins of the reliability diagram, the usual number (C. Guo et al., ICML 2017, use 15)."""

EXAMS_PER_BIN = 10
"""Fewer bins where they would hold fewer exams than this: at 10, Wilson's interval of a bin is
already +-0.26 wide."""

MIN_CLASS = 5
"""Exams of the smaller class from which on exams are resampled for an interval: with k of them a
bootstrap shows (k - 1) / k of their variance, as in `resampling.MIN_STRATUM`."""

BRIER_BOOTSTRAP = "bootstrap of exams, percentile"
ECE_BOOTSTRAP = "bootstrap of exams in fixed bins, conservative"
BOUND = "Wilson's of a mean between 0 and 1, conservative"

_CELLS_AT_ONCE = 4_000_000  # replicates x exams held in memory at once: 32 MB an array


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

    def apply(
        self, findings: Sequence[str], probabilities: Float[np.ndarray, "exams findings"]
    ) -> Float64[np.ndarray, "exams findings"]:
        """Calibrates probabilities.

        Args:
            findings: the findings' names, one a column.
            probabilities: 0 to 1, as the network gives them.

        Returns:
            Calibrated probabilities, above 0 and below 1; a finding that could not be fitted
            keeps its own (held off 0 and 1 by `LOGIT_EPS`).

        Raises:
            MrkneeError: a finding isn't in this calibration, or a probability is NaN or outside
                0 to 1.
        """
        lacking = [name for name in findings if name not in self.slopes]
        if lacking:
            raise MrkneeError(
                "a finding has no calibration",
                expected=f"one of {', '.join(self.slopes)}",
                found=", ".join(lacking),
            )
        slopes = np.array([self.slopes[name] for name in findings])
        intercepts = np.array([self.intercepts[name] for name in findings])
        calibrated: Float64[np.ndarray, "exams findings"]
        calibrated = expit(slopes * _logits(probabilities) + intercepts)
        return calibrated

    def to_dict(self) -> dict[str, Any]:
        """The calibration as JSON can hold it; a prevalence that is NaN is None."""
        return {
            "method": self.method,
            "slopes": dict(self.slopes),
            "intercepts": dict(self.intercepts),
            "prevalences": {
                name: None if math.isnan(one) else one for name, one in self.prevalences.items()
            },
            "exams": dict(self.exams),
            "reasons": dict(self.reasons),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Calibration:
        """Makes a calibration from what `to_dict` gave.

        Raises:
            MrkneeError: something is missing, or not what it should be.
        """
        try:
            found = cls(
                method=content["method"],
                slopes={name: float(one) for name, one in content["slopes"].items()},
                intercepts={name: float(one) for name, one in content["intercepts"].items()},
                prevalences={
                    name: math.nan if one is None else float(one)
                    for name, one in content["prevalences"].items()
                },
                exams={name: int(one) for name, one in content["exams"].items()},
                reasons={name: str(one) for name, one in content["reasons"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise MrkneeError(
                "a calibration can't be read",
                expected="what mrknee wrote",
                found=f"{type(error).__name__}: {error}",
            ) from None
        names = found.slopes.keys()
        odd = [name for name, slope in found.slopes.items() if not 0 < slope < math.inf]
        whole = names == found.intercepts.keys() == found.prevalences.keys() == found.exams.keys()
        if odd or not whole or found.method not in ("platt", "temperature"):
            raise MrkneeError(
                "a calibration can't be used",
                expected="platt or temperature, and for every finding a slope above 0",
                found=f"{found.method}, slopes {dict(found.slopes)}",
            )
        return found


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


def fit_calibration(
    findings: Sequence[str],
    labels: Float[np.ndarray, "exams findings"],
    probabilities: Float[np.ndarray, "exams findings"],
    *,
    method: Method,
) -> Calibration:
    """Fits slope and intercept of each finding on exams that the network was not trained on.

    Maximum likelihood with the targets of J. Platt, "Probabilistic outputs for support vector
    machines" (Advances in Large Margin Classifiers, 1999): (P + 1) / (P + 2) for the P positive
    exams and 1 / (N + 2) for the N negative ones in place of 1 and 0. They keep the slope finite
    where the classes are separated without a fault. The temperature (C. Guo et al., "On
    calibration of modern neural networks", ICML 2017) is fitted with the same targets, one number
    a finding. A slope below `MIN_SLOPE` is held there.

    Args:
        findings: the findings' names, one a column.
        labels: 1 present, 0 absent, NaN not known: left out.
        probabilities: 0 to 1.
        method: "platt" or "temperature".

    Returns:
        The calibration; a finding with one class only, or whose exams all have the same
        probability, keeps slope 1 and intercept 0, and its reason says so.

    Raises:
        MrkneeError: a label is not 0, 1 or NaN, or a probability is NaN or outside 0 to 1.
    """
    slopes, intercepts, prevalences, exams, reasons = {}, {}, {}, {}, {}
    for i, name in enumerate(findings):
        known, p = known_pairs(labels[:, i], probabilities[:, i])
        slope, intercept, prevalence = 1.0, 0.0, math.nan
        reason = _why_not_fitted(known, p, method)
        if reason is None:
            slope, intercept, reason = _fit(known, _logits(p), method)
            prevalence = float(known.mean())
        slopes[name], intercepts[name], prevalences[name] = slope, intercept, prevalence
        exams[name] = len(known)
        if reason is not None:
            reasons[name] = reason
    return Calibration(method, slopes, intercepts, prevalences, exams, reasons)


def at_prevalence(
    probabilities: Float[np.ndarray, "*shape"], before: float, after: float
) -> Float64[np.ndarray, "*shape"]:
    """Calibrated probabilities where the finding is more, or less, common.

    Bayes' rule with another prior: odds times (after / (1 - after)) / (before / (1 - before)). M.
    Saerens, P. Latinne, C. Decaestecker, "Adjusting the outputs of a classifier to new a priori
    probabilities", Neural Computation 14 (2002) 21-41, equation 2.4. It holds if only the
    prevalence changes, not how exams with and without the finding look. MRNet's ACL tears: 18 % of
    the training exams, 45 % of the validation exams.

    Args:
        probabilities: 0 to 1, calibrated at `before`.
        before: the share of exams with the finding where they are calibrated; above 0, below 1.
        after: the share where they are to be used; above 0, below 1.

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


def brier(
    labels: Float[np.ndarray, " exams"],
    probabilities: Float[np.ndarray, " exams"],
    *,
    seed: int = 0,
) -> Brier:
    """The Brier score with its 95 % interval.

    The interval is the percentile interval of resampled exams. Where they can't show how sure the
    score is (a class of fewer than `MIN_CLASS` exams, or all errors equal) it is `BOUND`: Wilson's
    with the score in a share's place, which is too wide rather than too narrow.

    Args:
        labels: 1 present, 0 absent, NaN not known: left out.
        probabilities: 0 to 1.
        seed: of the resampling.

    Raises:
        MrkneeError: a label is not 0, 1 or NaN, or a probability is NaN or outside 0 to 1.
    """
    known, p = known_pairs(labels, probabilities)
    n = len(known)
    if n == 0:
        return Brier(math.nan, math.nan, math.nan, math.nan, 0, "none")
    squared = (p - known) ** 2
    value, share = float(squared.mean()), float(known.mean())
    reference = share * (1 - share)
    if _few(known) or np.ptp(squared) == 0:
        low, high = wilson_ends(np.array([value]), n)
        return Brier(value, float(low[0]), float(high[0]), reference, n, BOUND)
    draws = np.concatenate(
        [(times @ squared) / n for times in _resampled(n, np.random.default_rng(seed))]
    )
    ends = np.quantile(draws, [0.025, 0.975])
    return Brier(value, float(ends[0]), float(ends[1]), reference, n, BRIER_BOOTSTRAP)


def reliability(
    labels: Float[np.ndarray, " exams"],
    probabilities: Float[np.ndarray, " exams"],
    *,
    seed: int = 0,
) -> Reliability:
    """The reliability diagram and the expected calibration error.

    Bins hold equally many exams (edges are quantiles of the probabilities, as scikit-learn's
    `calibration_curve(strategy="quantile")` takes them; equal probabilities share a bin): `BINS` of
    them, or fewer so that each would hold `EXAMS_PER_BIN`.

    The ECE is biased upwards: chance alone moves each bin's share, and the distances add up. In
    120 exams with perfect probabilities it is about 0.09. `ece_if_calibrated` is that number for
    these probabilities, from labels drawn with them. An interval by percentiles of resampled
    exams would repeat the bias (own simulation: never covers where the true error is 0), so its
    lower end is ECE - q, where q is the 97.5 % quantile of the summed distances between the
    replicates' bins and the sample's: since the ECE is a sum of absolute values, it can't be
    further from the true one than that sum. The upper end is the 97.5 % quantile of the
    replicates' ECE. In 18 simulated cases of 10 to 1000 exams this covers the true error in 94 to
    100 %. Where exams can't be resampled (see `brier`) it goes from 0 to Wilson's upper end of the
    mean |probability - label|, which no ECE exceeds.

    Args:
        labels: 1 present, 0 absent, NaN not known: left out.
        probabilities: 0 to 1.
        seed: of the resampling.

    Raises:
        MrkneeError: a label is not 0, 1 or NaN, or a probability is NaN or outside 0 to 1.
    """
    known, p = known_pairs(labels, probabilities)
    n = len(known)
    if n == 0:
        nan = math.nan
        return Reliability((), nan, nan, nan, nan, 0, "no exam has a known label", "none")
    bins = min(BINS, max(1, n // EXAMS_PER_BIN))
    edges = np.quantile(p, np.linspace(0, 1, bins + 1))
    inside = np.searchsorted(edges[1:-1], p)
    held = np.unique(inside)
    points = tuple(_point(known, p, inside == b, edges[b], edges[b + 1]) for b in held)
    binning = f"{len(held)} bin{'s' * (len(held) > 1)} of equal mass (quantiles)"
    # (exams, bins): what each exam adds to its bin's difference, per exam of the sample.
    one_hot = (inside[:, np.newaxis] == held) / n
    differences = (p - known) @ one_hot
    ece = float(np.abs(differences).sum())
    low, high, method = _ece_interval(known, p, one_hot, seed)
    by_chance = _ece_by_chance(p, one_hot, np.random.default_rng(seed))
    return Reliability(points, ece, low, high, by_chance, n, binning, method)


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
        raise MrkneeError(
            "a probability is not between 0 and 1",
            expected="0 to 1",
            found=f"{probabilities[outside][0]} ({int(outside.sum())} of {outside.size} are so)",
        )


def check_prevalence(prevalence: float) -> None:
    """Refuses a prevalence at which nothing is left to tell apart.

    Raises:
        MrkneeError: it is not above 0 and below 1.
    """
    if not 0 < prevalence < 1:
        raise MrkneeError(
            "a prevalence can't be used", expected="above 0 and below 1", found=f"{prevalence}"
        )


def _logits(probabilities: Float[np.ndarray, "*shape"]) -> Float64[np.ndarray, "*shape"]:
    check_probabilities(probabilities)
    held: Float64[np.ndarray, "*shape"]
    held = logit(np.clip(probabilities.astype(np.float64), LOGIT_EPS, 1 - LOGIT_EPS))
    return held


def _why_not_fitted(
    labels: Float64[np.ndarray, " exams"], p: Float64[np.ndarray, " exams"], method: Method
) -> str | None:
    positives = int(labels.sum())
    if len(labels) == 0:
        return "not calibrated: no exam has a known label"
    if positives in (0, len(labels)):
        return f"not calibrated: one class only: {positives} of {len(labels)} are positive"
    if method == "platt" and np.ptp(p) == 0:
        return f"not calibrated: all {len(labels)} exams have the same probability"
    if method == "temperature" and (p == 0.5).all():
        return f"not calibrated: all {len(labels)} probabilities are 0.5"
    return None


def _fit(
    labels: Float64[np.ndarray, " exams"], logits: Float64[np.ndarray, " exams"], method: Method
) -> tuple[float, float, str | None]:
    """Slope, intercept, and why the slope is not the best one, if it isn't."""
    positives = labels.sum()
    negatives = len(labels) - positives
    targets = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    # Centred and scaled, so that one tolerance fits logits of any spread.
    centre = logits.mean() if method == "platt" else 0.0
    scale = np.sqrt(((logits - centre) ** 2).mean())
    x = (logits - centre) / scale

    def loss(line: Float64[np.ndarray, " 2"]) -> tuple[float, Float64[np.ndarray, " 2"]]:
        z = line[0] * x + line[1]
        excess = expit(z) - targets
        value = float((np.logaddexp(0, z) - targets * z).mean())
        return value, np.array([(excess * x).mean(), excess.mean()])

    least = MIN_SLOPE * scale
    found = minimize(
        loss,
        [max(1.0, least), 0.0],
        jac=True,
        method="L-BFGS-B",
        bounds=[(least, None), (None, None) if method == "platt" else (0.0, 0.0)],
        options={"ftol": 1e-15, "gtol": 1e-10},
    )
    slope = max(MIN_SLOPE, float(found.x[0] / scale))
    intercept = float(found.x[1] - slope * centre)
    if slope > MIN_SLOPE * (1 + 1e-9):
        return slope, intercept, None
    reason = (
        f"higher probabilities hardly go with the finding in these {len(labels)} exams: "
        f"slope held at {MIN_SLOPE}"
    )
    return slope, intercept, reason


def _few(labels: Float64[np.ndarray, " exams"]) -> bool:
    positives = int(labels.sum())
    return min(positives, len(labels) - positives) < MIN_CLASS


def _resampled(
    n: int, rng: np.random.Generator
) -> Iterator[Float64[np.ndarray, "replicates exams"]]:
    """How often each of n exams is drawn, in `REPLICATES` replicates, some at a time."""
    at_once = max(1, _CELLS_AT_ONCE // n)
    for start in range(0, REPLICATES, at_once):
        size = min(at_once, REPLICATES - start)
        yield rng.multinomial(n, np.full(n, 1 / n), size=size).astype(np.float64)


def _point(
    labels: Float64[np.ndarray, " exams"],
    p: Float64[np.ndarray, " exams"],
    inside: np.ndarray,
    low_edge: float,
    high_edge: float,
) -> ReliabilityPoint:
    observed = wilson(int(labels[inside].sum()), int(inside.sum()))
    return ReliabilityPoint(float(low_edge), float(high_edge), float(p[inside].mean()), observed)


def _ece_interval(
    labels: Float64[np.ndarray, " exams"],
    p: Float64[np.ndarray, " exams"],
    one_hot: Float64[np.ndarray, "exams bins"],
    seed: int,
) -> tuple[float, float, str]:
    errors = p - labels
    if _few(labels) or np.ptp(errors) == 0:
        _, upper = wilson_ends(np.array([np.abs(errors).mean()]), len(labels))
        return 0.0, float(upper[0]), BOUND
    parts = errors[:, np.newaxis] * one_hot
    sample = parts.sum(axis=0)
    drawn = np.concatenate(
        [times @ parts for times in _resampled(len(labels), np.random.default_rng(seed))]
    )
    ece = np.abs(sample).sum()
    distance = np.quantile(np.abs(drawn - sample).sum(axis=1), 0.975)
    high = max(ece, np.quantile(np.abs(drawn).sum(axis=1), 0.975))
    return float(max(0.0, ece - distance)), float(min(1.0, high)), ECE_BOOTSTRAP


def _ece_by_chance(
    p: Float64[np.ndarray, " exams"],
    one_hot: Float64[np.ndarray, "exams bins"],
    rng: np.random.Generator,
) -> float:
    at_once = max(1, _CELLS_AT_ONCE // len(p))
    total = 0.0
    for start in range(0, REPLICATES, at_once):
        drawn = rng.random((min(at_once, REPLICATES - start), len(p))) < p
        total += float(np.abs((p - drawn) @ one_hot).sum())
    return total / REPLICATES
