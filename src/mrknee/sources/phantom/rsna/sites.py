"""Sites with their scanners, languages, habits and patients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mrknee.sources.phantom.rsna.findings import FINDINGS

SITES = 20
"""Number of sites; participants name 16 to 22."""
SITE_SPREAD = 0.45
"""SD of a finding's log-odds between sites. Scanners then predict findings a little, as in the real
set, where such a prediction fails on other sites."""

# Manufacturer's name as written in headers, share of the studies, models with their field strength.
# Siemens' share is stated by participants; the others, and the models, are our choice.
VENDORS: Mapping[str, tuple[float, tuple[tuple[str, float], ...]]] = {
    "SIEMENS": (
        0.30,
        (("Aera", 1.5), ("Avanto", 1.5), ("Skyra", 3.0), ("Verio", 3.0), ("Espree", 1.5)),
    ),
    "Siemens Healthineers": (
        0.14,
        (("MAGNETOM Sola", 1.5), ("MAGNETOM Altea", 1.5), ("MAGNETOM Vida", 3.0)),
    ),
    "GE MEDICAL SYSTEMS": (
        0.27,
        (
            ("Signa HDxt", 1.5),
            ("Optima MR450w", 1.5),
            ("SIGNA Artist", 1.5),
            ("DISCOVERY MR750", 3.0),
            ("SIGNA Pioneer", 3.0),
        ),
    ),
    "Philips Medical Systems": (0.12, (("Achieva", 1.5), ("Intera", 1.5), ("Ingenia", 3.0))),
    "Philips Healthcare": (0.06, (("Ingenia Ambition X", 1.5), ("Ingenia Elition X", 3.0))),
    "TOSHIBA": (0.03, (("Vantage Titan", 1.5),)),
    "CANON_MEC": (0.03, (("Vantage Orian", 1.5), ("Vantage Galan 3T", 3.0))),
    "FUJIFILM Healthcare Corporation": (0.03, (("ECHELON Smart", 1.5),)),
    "Hitachi Medical Corporation": (0.02, (("ECHELON Oval", 1.5),)),
}

LANGUAGES: Mapping[str, float] = {
    "en": 39, "es": 16, "tr": 12, "hr": 9, "el": 7, "de": 6, "bg": 5, "nl": 3, "fr": 2,
}  # fmt: skip
"""Percentage of the reports in each language."""

MHZ_PER_TESLA = 42.577
"""Larmor frequency of hydrogen."""


@dataclass(frozen=True)
class Scanner:
    """One scanner.

    Attributes:
        manufacturer, model: as in headers.
        tesla: field strength.
        mhz: imaging frequency; that of a study differs by some Hz.
        brightness: typical maximum of a series' grey values.
        edges: edges of its images in pixels at full size, one per plane: axial, coronal, sagittal.
    """

    manufacturer: str
    model: str
    tesla: float
    mhz: float
    brightness: float
    edges: tuple[int, int, int]


@dataclass(frozen=True)
class Site:
    """One site.

    Attributes:
        language: of its reports.
        weight: share of the studies.
        scanners: its scanners.
        odds: finding -> shift of its log-odds among the site's patients.
        naming: how its series are named, an index into the styles.
        t1_coronal: share of coronal series without fat suppression that are T1-weighted.
        tags_side: share of studies with the tag Laterality.
        shared_report: share of reports that state no finding as present and are one of the site's
            standard texts.
    """

    language: str
    weight: float
    scanners: tuple[Scanner, ...]
    odds: Mapping[str, float]
    naming: int
    t1_coronal: float
    tags_side: float
    shared_report: float


def draw_sites(rng: np.random.Generator) -> tuple[Site, ...]:
    """Draws the sites of a data set. Languages have their share of the studies."""
    sites: list[Site] = []
    counts = _sites_per_language()
    for language, count in counts.items():
        parts = rng.dirichlet([3.0] * count) * LANGUAGES[language] / sum(LANGUAGES.values())
        for part in parts:
            tags = float(np.clip(rng.choice((0.1, 0.5, 0.9)) + rng.normal(0, 0.05), 0, 1))
            sites.append(
                Site(
                    language=language,
                    weight=float(part),
                    scanners=tuple(_draw_scanner(rng) for _ in range(int(rng.integers(3, 13)))),
                    odds={name: float(rng.normal(0.0, SITE_SPREAD)) for name in FINDINGS},
                    naming=int(rng.integers(4)),
                    t1_coronal=float(rng.choice((0.7, 0.9, 1.0))),
                    tags_side=tags,
                    shared_report=0.95 if language == "tr" and part == max(parts) else 0.6,
                )
            )
    return tuple(sites)


def _sites_per_language() -> dict[str, int]:
    """Divides the sites among languages by their share, at least one each."""
    counts = dict.fromkeys(LANGUAGES, 1)
    while sum(counts.values()) < SITES:
        counts[max(counts, key=lambda one: LANGUAGES[one] / (counts[one] + 1))] += 1
    return counts


def _draw_scanner(rng: np.random.Generator) -> Scanner:
    shares = np.array([share for share, _ in VENDORS.values()])
    manufacturer = list(VENDORS)[int(rng.choice(len(VENDORS), p=shares / shares.sum()))]
    models = VENDORS[manufacturer][1]
    # 1.5 T has 62 % of the studies; most vendors' lists hold about that share of models.
    model, tesla = models[int(rng.integers(len(models)))]
    typical = {"S": 1100.0, "G": 4200.0, "P": 2600.0}.get(manufacturer[0], 2000.0)
    edges = rng.choice((256, 320, 384, 448, 512, 512, 512, 512, 560, 640, 1024), 3)
    return Scanner(
        manufacturer=manufacturer,
        model=model,
        tesla=tesla,
        mhz=float(tesla * MHZ_PER_TESLA + rng.uniform(-0.25, 0.0)),
        brightness=float(np.clip(typical * rng.lognormal(0.0, 0.35), 800.0, 8000.0)),
        edges=(int(edges[0]), int(edges[1]), int(edges[2])),
    )
