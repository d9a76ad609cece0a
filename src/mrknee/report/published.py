"""What others have stated for MRNet's three findings, to stand beside a result, never as one.

Sources:

- N. Bien et al., "Deep-learning-assisted diagnosis for knee magnetic resonance imaging:
  Development and retrospective validation of MRNet", PLoS Medicine 15 (2018) e1002699: AUCs with
  95 % intervals on 120 exams that were never published (the hidden test set).
- General radiologists and Bien's model at its threshold, on the same 120 exams: sensitivity and
  specificity as later works quote them from that paper. These are secondary values, not read in
  the paper itself.
- LearnOpenCV, "MRNet - The Multi-Task Approach" (2020): AUCs as stated in the post, the best epoch
  chosen on the 120 validation exams it is stated for. No interval is given, and the trio nearly
  equals single-finding models published two days before the multi-task one.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

from mrknee.exams import MRNET_FINDINGS

BIEN = "Bien 2018"
POST = "the post"
MEAN = "mean"


@dataclass(frozen=True)
class PublishedAuc:
    """An AUC somebody stated.

    Attributes:
        source: a short name for plots.
        finding: the finding's name, or "mean" for the mean of the three.
        value: the AUC, 0.5 to 1.
        low: lower end of its 95 % interval; NaN where none is stated.
        high: upper end; NaN where none is stated.
        n: exams it was scored on.
        exams: which exams those were.
        model: what was scored.
        standing: how far it can be relied on.
    """

    source: str
    finding: str
    value: float
    low: float
    high: float
    n: int
    exams: str
    model: str
    standing: str


@dataclass(frozen=True)
class PublishedReading:
    """Sensitivity and specificity somebody stated: one point of a ROC plot.

    Attributes:
        reader: who read.
        finding: the finding's name.
        sensitivity: 0 to 1.
        specificity: 0 to 1.
        n: exams read.
    """

    reader: str
    finding: str
    sensitivity: float
    specificity: float
    n: int


_HIDDEN = "MRNet's 120 hidden test exams"
_VALID = "MRNet's 120 validation exams"


def _bien(finding: str, value: float, low: float, high: float) -> PublishedAuc:
    return PublishedAuc(
        BIEN, finding, value, low, high, 120, _HIDDEN, "9 networks and 3 regressions", "published"
    )


def _post(finding: str, value: float) -> PublishedAuc:
    return PublishedAuc(
        POST,
        finding,
        value,
        nan,
        nan,
        120,
        _VALID + ", the best of 50 epochs chosen on them",
        "one multi-task network",
        "as stated in the post, optimistic, not reproduced",
    )


AUCS = (
    _bien("abnormal", 0.937, 0.895, 0.980),
    _bien("acl", 0.965, 0.938, 0.993),
    _bien("meniscus", 0.847, 0.780, 0.914),
    _post("abnormal", 0.939),
    _post("acl", 0.9599),
    _post("meniscus", 0.783),
    _post(MEAN, 0.8943),
)
"""Stated AUCs; Bien et al. state no mean."""

RADIOLOGISTS = "general radiologists"
MODEL = "Bien's model at its threshold"

READINGS = (
    PublishedReading(RADIOLOGISTS, "abnormal", 0.905, 0.844, 120),
    PublishedReading(RADIOLOGISTS, "acl", 0.906, 0.933, 120),
    PublishedReading(RADIOLOGISTS, "meniscus", 0.820, 0.882, 120),
    PublishedReading(MODEL, "abnormal", 0.879, 0.714, 120),
    PublishedReading(MODEL, "acl", 0.759, 0.968, 120),
    PublishedReading(MODEL, "meniscus", 0.710, 0.741, 120),
)
"""Readings of the hidden test exams, from secondary sources; no interval was found."""


def aucs_of(finding: str) -> tuple[PublishedAuc, ...]:
    """The AUCs stated for a finding; none for a finding that isn't MRNet's."""
    return tuple(one for one in AUCS if one.finding == finding and finding in MRNET_FINDINGS)


def means_of(findings: tuple[str, ...]) -> tuple[PublishedAuc, ...]:
    """The mean AUCs stated for just these findings; none but for MRNet's three."""
    return tuple(one for one in AUCS if one.finding == MEAN and findings == MRNET_FINDINGS)


def readings_of(finding: str) -> tuple[PublishedReading, ...]:
    """The readings stated for a finding; none for a finding that isn't MRNet's."""
    return tuple(one for one in READINGS if one.finding == finding)
