"""Series of a study: which planes and contrasts, and how each is acquired.

Frequencies are those of the real training set as counted by participants: of 4,407 studies all have
an axial series with fat suppression, 94.2 % a sagittal and 96.4 % a coronal one; without fat
suppression 96.8 % have a sagittal, 77.3 % a coronal and 19.4 % an axial series. Studies have 3 to
14 series, 5.5 on average.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from mrknee.exams.series import Weighting
from mrknee.sources.phantom.rsna.sites import Scanner, Site
from mrknee.sources.phantom.scanner import (
    GRE_FLIP_DEGREES,
    PLANES,
    TIMING,
    Acquisition,
    PlaneName,
)

FULL_EDGE = 512
"""Median edge of an image in pixels."""
MOST_SERIES = 14
FAT_SUPPRESSED = {"axial": 1.0, "sagittal": 0.942, "coronal": 0.964}
"""Share of the studies with a fat-suppressed series of a plane."""
NOT_SUPPRESSED = {"axial": 0.194, "sagittal": 0.968, "coronal": 0.773}
"""Share of the studies with a series of a plane without fat suppression."""
REPEATS = {"axial": 0.14, "sagittal": 0.33, "coronal": 0.22}
"""Mean number of further series of a plane, with the fat suppression of one that the study has:
24,371 series less one for each plane and contrast."""
WEIGHTS_SUPPRESSED: dict[Weighting, float] = {"PD": 0.784, "T2": 0.210, "T1": 0.006}
"""Weighting with fat suppression: 10,922, 2,926 and 84 series."""
WEIGHTS: dict[str, dict[Weighting, float]] = {
    "sagittal": {"PD": 0.43, "T1": 0.39, "T2": 0.17, "GRE": 0.01},
    "coronal": {"T1": 0.88, "PD": 0.06, "T2": 0.05, "GRE": 0.01},
    "axial": {"T2": 0.45, "T1": 0.25, "PD": 0.20, "GRE": 0.10},
}
"""Weighting without fat suppression per plane; together 2,724 PD, 5,299 T1, 2,188 T2 and 226
gradient echoes. The division among planes is our choice; a site's habits replace that of coronal
T1."""
THREE_D, SPARSE = 0.02, 0.02
"""Share of PD, T2 and gradient-echo series that are 3-D with many thin slices, and of other series
with few thick ones: the 99th percentile has 160 slices, the fewest 11, the most 320."""
MAX_SPACING = 7.0
"""Largest distance of slices (mm) to which a lower number of slices spreads them; series of knees
with more than 8 mm are taken for localisers by `mrknee import`."""
THREE_D_REPETITION = (1200, 1800)
"""Range of TR of a 3-D spin echo, ms."""
PIXEL_MM = (0.14, 0.70)
"""Range of the pixel spacing at full size, mm."""
COVERED_MM = {"axial": 112.0, "coronal": 100.0, "sagittal": 104.0}
"""Mean extent of the slices, mm."""
SUPPRESSED_LEFT = (0.03, 0.2)
"""Range of the share of fat's signal that suppression leaves."""
SHADING = 1.6
"""SD of the coefficients of the coils' sensitivity; MRNet's layout has 1."""
USUAL_FIELD_MM = 152.5
"""Field of view to which the phantom's matrix and noise refer."""


@dataclass(frozen=True)
class PlannedSeries:
    """One series to acquire.

    Attributes:
        plane, weighting, fat_suppressed: contrast.
        three_d: whether it is a 3-D acquisition with thin slices.
        acquisition: how it is acquired.
        edge: rows and columns of its images.
        peak: grey value of its brightest voxels.
        reversed: whether slices are numbered from left, back or below, not from the other end.
        other_knee: whether it shows the study's second knee.
    """

    plane: PlaneName
    weighting: Weighting
    fat_suppressed: bool
    three_d: bool
    acquisition: Acquisition
    edge: int
    peak: float
    reversed: bool
    other_knee: bool = False


def draw_series(
    rng: np.random.Generator,
    site: Site,
    scanner: Scanner,
    *,
    size: int,
    slice_factor: float,
    two_knees: bool,
) -> tuple[PlannedSeries, ...]:
    """Draws the series of a study. Nothing depends on the findings.

    Args:
        rng: random stream.
        site: whose habits are followed.
        scanner: whose images they are.
        size: median edge of the images in pixels.
        slice_factor: factor on the numbers of slices.
        two_knees: whether a second knee is examined with a fat-suppressed series in each plane.
    """
    wanted = [(plane, True) for plane in PLANES if rng.random() < FAT_SUPPRESSED[plane]]
    wanted += [(plane, False) for plane in PLANES if rng.random() < NOT_SUPPRESSED[plane]]
    for plane in PLANES:
        if (plane, True) not in wanted and (plane, False) not in wanted:
            wanted.append((plane, False))  # every study has all planes
    for plane in PLANES:
        further = int(rng.poisson(REPEATS[plane]))
        present = [one for one in wanted if one[0] == plane]
        wanted += [present[int(rng.integers(len(present)))] for _ in range(further)]
    taken: list[tuple[PlaneName, bool, Weighting]] = []
    for plane, fat_suppressed in wanted[:MOST_SERIES]:
        weights = _weights(site, plane, fat_suppressed)
        weighting = _choose(rng, weights)
        if (plane, fat_suppressed, weighting) in taken and rng.random() < 0.6:
            # most further series have another contrast; the others repeat a spoilt one
            weighting = _choose(rng, weights)
        taken.append((plane, fat_suppressed, weighting))
    order = rng.permutation(len(taken))
    planned = []
    for index in order:
        plane, fat_suppressed, weighting = taken[index]
        planned.append(
            _draw_one(rng, scanner, plane, fat_suppressed, weighting, size, slice_factor)
        )
    if two_knees:
        usual: list[Weighting] = ["PD", "PD", "T2"]
        second = [
            replace(_draw_one(rng, scanner, plane, True, what, size, slice_factor), other_knee=True)
            for plane, what in zip(PLANES, usual, strict=True)
        ]
        planned = planned[: MOST_SERIES - len(second)] + second
    return tuple(planned)


def _weights(site: Site, plane: PlaneName, fat_suppressed: bool) -> dict[Weighting, float]:
    if fat_suppressed:
        return WEIGHTS_SUPPRESSED
    weights = dict(WEIGHTS[plane])
    if plane == "coronal":
        rest = (1.0 - site.t1_coronal) / (1.0 - weights["T1"])
        weights = {
            name: site.t1_coronal if name == "T1" else share * rest
            for name, share in weights.items()
        }
    return weights


def _choose(rng: np.random.Generator, weights: dict[Weighting, float]) -> Weighting:
    shares = np.array(list(weights.values()))
    return list(weights)[int(rng.choice(len(weights), p=shares / shares.sum()))]


def _draw_one(
    rng: np.random.Generator,
    scanner: Scanner,
    plane: PlaneName,
    fat_suppressed: bool,
    weighting: Weighting,
    size: int,
    slice_factor: float,
) -> PlannedSeries:
    """Draws the acquisition of one series."""
    three_d = bool(rng.random() < THREE_D) and weighting in ("PD", "T2", "GRE")
    covered = COVERED_MM[plane] * float(rng.uniform(0.88, 1.15))
    if three_d:
        spacing = float(rng.uniform(0.35, 0.9))
    elif rng.random() < SPARSE:
        spacing = float(rng.uniform(5.5, 9.0))
    else:
        spacing = float(np.clip(rng.normal(3.4, 0.4), 2.2, 5.5))
    count = max(3, round(max(11, covered / spacing) * slice_factor))
    if slice_factor < 1:
        extent = max(11 * spacing, covered)
        count = max(count, math.ceil(extent / max(spacing, MAX_SPACING)))
        spacing = extent / count
    gap = 1.0 if three_d else float(rng.uniform(0.8, 1.0))
    repetition, echo = TIMING[weighting]
    if three_d and weighting != "GRE":
        repetition = THREE_D_REPETITION
    edge = scanner.edges[PLANES.index(plane)]
    if three_d:
        edge = min(edge, 512)
    field = float(np.clip(rng.normal(160.0, 17.0), 128.0, 210.0))
    field = float(np.clip(field, PIXEL_MM[0] * edge, PIXEL_MM[1] * edge))
    acquisition = Acquisition(
        plane=plane,
        slices=count,
        spacing=spacing,
        thickness=spacing * gap,
        field_of_view=field,
        centre=_centre(rng),
        matrix=(int(rng.choice((288, 320, 352, 384))), int(rng.choice((192, 224, 256)))),
        repetition_ms=float(rng.uniform(*repetition)),
        echo_ms=float(rng.uniform(*echo)),
        fat_left=float(rng.uniform(*SUPPRESSED_LEFT)) if fat_suppressed else 1.0,
        noise=float(rng.uniform(0.010, 0.030)) / (scanner.tesla / 2.0),
        shading=tuple(float(value) for value in rng.normal(0.0, SHADING, 9)),
        window=(99.9, 1.0),
        flip_degrees=float(rng.uniform(*GRE_FLIP_DEGREES)) if weighting == "GRE" else None,
        fov_factor=field / USUAL_FIELD_MM,
    )
    return PlannedSeries(
        plane=plane,
        weighting=weighting,
        fat_suppressed=fat_suppressed,
        three_d=three_d,
        acquisition=acquisition,
        edge=max(32, 8 * round(edge * size / FULL_EDGE / 8)),
        peak=float(np.clip(scanner.brightness * rng.lognormal(0.0, 0.25), 690.0, 8736.0)),
        reversed=bool(rng.random() < 0.5),
    )


def _centre(rng: np.random.Generator) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in rng.normal(0.0, 3.0, 3))
    return x, y, z
