"""Published results for MRNet's three findings, shown next to the model's results.

Sources:

- N. Bien et al., "Deep-learning-assisted diagnosis for knee magnetic resonance imaging:
  Development and retrospective validation of MRNet", PLoS Medicine 15 (2018) e1002699: AUCs with
  95 % intervals on 120 exams that were never published (the hidden test set).
- General radiologists and Bien's model at its threshold, on the same 120 exams: sensitivity and
  specificity as quoted from that paper by later works. These are secondary values, not taken from
  the paper itself.
- LearnOpenCV, "MRNet - The Multi-Task Approach" (2020): AUCs as stated in the post, the best epoch
  selected on the same 120 validation exams. No intervals are given. The three AUCs nearly equal
  those of single-finding models published two days before the multi-task model.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

from mrknee.exams import MRNET_FINDINGS

BIEN = "Bien 2018"
POST = "LearnOpenCV"
MEAN = "mean"


@dataclass(frozen=True)
class PublishedAuc:
    """A published AUC.

    Attributes:
        source: short name for plots.
        finding: name of the finding, or "mean" for the mean of the three.
        value: the AUC, 0.5 to 1.
        low: lower limit of its 95 % interval; NaN if none is stated.
        high: upper limit; NaN if none is stated.
        n: number of exams.
        exams: description of the exams.
        model: description of the model.
        note: reliability of the value.
    """

    source: str
    finding: str
    value: float
    low: float
    high: float
    n: int
    exams: str
    model: str
    note: str


@dataclass(frozen=True)
class PublishedReading:
    """Published sensitivity and specificity: one point of a ROC plot.

    Attributes:
        reader: radiologists or model.
        finding: name of the finding.
        sensitivity: 0 to 1.
        specificity: 0 to 1.
        n: number of exams.
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
        _VALID + ", the best of 50 epochs selected on them",
        "one multi-task network",
        "as stated in the blog post, optimistic, not reproduced",
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
"""Published AUCs; Bien et al. state no mean."""

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
    """Returns the published AUCs of a finding; empty for findings other than MRNet's."""
    return tuple(one for one in AUCS if one.finding == finding and finding in MRNET_FINDINGS)


def means_of(findings: tuple[str, ...]) -> tuple[PublishedAuc, ...]:
    """Returns the published mean AUCs of exactly these findings; empty unless MRNet's three."""
    return tuple(one for one in AUCS if one.finding == MEAN and findings == MRNET_FINDINGS)


def readings_of(finding: str) -> tuple[PublishedReading, ...]:
    """Returns the published readings of a finding; empty for findings other than MRNet's."""
    return tuple(one for one in READINGS if one.finding == finding)
