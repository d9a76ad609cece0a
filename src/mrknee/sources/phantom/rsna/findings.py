"""The twelve findings: how often they occur, and together with which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, logit

from mrknee.exams import RSNA_2026_FINDINGS

FINDINGS = tuple(RSNA_2026_FINDINGS)


@dataclass(frozen=True)
class Presentation:
    """A reason for an examination, with the findings that come with it.

    Attributes:
        name: name.
        weight: share of the studies.
        chances: probability of each finding in the order of FINDINGS; that of synovitis is given
            an effusion.
    """

    name: str
    weight: float
    chances: tuple[float, ...]


# How findings occur together, chosen by us after the mechanisms of injury: twisting tears ACL and
# menisci and bruises both bones; a blow bruises or breaks bone; degeneration comes with meniscal
# tears, cartilage loss and cysts; synovitis only with an effusion (27 of 35 in experts' labels).
# fmt: off
PRESENTATIONS = (
    #             acl   mcl   menisci     cartilage loss    eff.  syn.  cyst  cont. fract.
    Presentation("minor", 0.38, (
                 0.01, 0.01, 0.08, 0.04, 0.01, 0.01, 0.06, 0.08, 0.30, 0.04, 0.03, 0.01)),
    Presentation("twist", 0.22, (
                 0.62, 0.20, 0.35, 0.34, 0.03, 0.03, 0.08, 0.65, 0.60, 0.06, 0.55, 0.08)),
    Presentation("blow", 0.10, (
                 0.05, 0.08, 0.08, 0.06, 0.03, 0.03, 0.08, 0.55, 0.50, 0.04, 0.70, 0.45)),
    Presentation("degeneration", 0.22, (
                 0.03, 0.01, 0.62, 0.22, 0.50, 0.26, 0.50, 0.55, 0.80, 0.28, 0.12, 0.03)),
    Presentation("meniscus", 0.08, (
                 0.04, 0.02, 0.75, 0.32, 0.08, 0.05, 0.15, 0.40, 0.60, 0.16, 0.08, 0.01)),
)
# fmt: on

REPORTED: Mapping[str, float] = MappingProxyType(
    dict(zip(FINDINGS, (18, 6, 30, 16, 13, 8, 18, 38, 22, 11, 21, 7), strict=True))
)
"""Percentage of training studies with a finding. The reference states the share of reports that
mention four: ACL 21, lateral meniscus 16, synovitis 13 (most reports are silent about it),
fracture 7. The other shares are about half of those in the experts' labels, which are enriched."""

EXPERTS: Mapping[str, float] = MappingProxyType(
    {
        name: 100 * count / 58
        for name, count in zip(
            FINDINGS, (24, 9, 26, 23, 15, 11, 21, 35, 27, 12, 19, 18), strict=True
        )
    }
)
"""Percentage of the 58 studies with experts' labels that have a finding, as counted by several
participants."""


@cache
def _shifts(enriched: bool) -> tuple[float, ...]:
    """Returns the shift of each finding's log-odds that gives the wanted percentages."""
    wanted = EXPERTS if enriched else REPORTED
    chances = np.array([one.chances for one in PRESENTATIONS])
    weights = np.array([one.weight for one in PRESENTATIONS])
    shifts: list[float] = []
    for index, name in enumerate(FINDINGS):
        share = weights
        if name == "synovitis":
            before = FINDINGS.index("effusion")
            share = weights * expit(logit(chances[:, before]) + shifts[before])
        odds, target = logit(chances[:, index]), wanted[name] / 100

        def excess(
            shift: float, odds: np.ndarray = odds, share: np.ndarray = share, target: float = target
        ) -> float:
            return float(share @ expit(odds + shift)) - target

        shifts.append(float(brentq(excess, -8.0, 8.0)))
    return tuple(shifts)


def draw_findings(
    rng: np.random.Generator, *, enriched: bool, odds: Mapping[str, float]
) -> tuple[str, frozenset[str]]:
    """Draws the presentation and the findings of one study.

    Args:
        rng: random stream.
        enriched: as frequent as in the experts' labels, not as in the reports.
        odds: finding -> additional shift of its log-odds, as of a site with other patients.

    Returns:
        The name of the presentation, and the findings that are present.
    """
    weights = [one.weight for one in PRESENTATIONS]
    presentation = PRESENTATIONS[int(rng.choice(len(PRESENTATIONS), p=weights))]
    present: set[str] = set()
    for name, chance, shift in zip(FINDINGS, presentation.chances, _shifts(enriched), strict=True):
        drawn = rng.random() < expit(logit(chance) + shift + odds.get(name, 0.0))
        if drawn and (name != "synovitis" or "effusion" in present):
            present.add(name)
    return presentation.name, frozenset(present)
