"""One synthetic study: drawn completely, then rendered and written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8, UInt16
from scipy.spatial.transform import Rotation

from mrknee.sources.phantom.anatomy import Anatomy, draw_anatomy
from mrknee.sources.phantom.exam import COARSEST, FINEST, lesion_mask, paint
from mrknee.sources.phantom.lesions import Lesion
from mrknee.sources.phantom.rsna.dicom import Header, Syntax, describe, draw_uid, write_series
from mrknee.sources.phantom.rsna.findings import FINDINGS, draw_findings
from mrknee.sources.phantom.rsna.lesions import draw_study_lesions, finding_of
from mrknee.sources.phantom.rsna.protocols import PlannedSeries, draw_series
from mrknee.sources.phantom.rsna.reports import Statement, draw_statements, write_report
from mrknee.sources.phantom.rsna.sites import Scanner, Site
from mrknee.sources.phantom.scanner import Protocol, measure
from mrknee.sources.phantom.shapes import Canvas, Grid

Split = Literal["train", "test"]
Masks = dict[str, UInt8[np.ndarray, "slices rows cols"]]
"""Finding -> mask in a series' grid."""

TWO_KNEES = 0.006
"""Share of studies with both knees: 25 of 4,407."""
OTHER_BODY_PARTS = ("LIVER", "ADRENAL", "SPINE", "ANKLE", "HIP", "SHOULDER")
WRONG_BODY_PART = 0.055
"""Share of studies whose BodyPartExamined names another part: 11 of 200 sampled."""
DUMMY_DESCRIPTION = 0.118
"""Share of series with the description "Dummy"."""
UNSTATED_SUPPRESSION = 0.05
"""Share of fat-suppressed series with a water excitation that ScanOptions don't state; chosen by
us."""
WATER_WORDS = ("we", "IDEAL", "SMART")
WRONG_FLAG = 0.027
"""Share of series whose flags contradict the fat suppression of the header."""
CORRUPT = 0.01
"""Share of studies with a series of truncated files. Two of 4,407 are known; here they are more
frequent, so that a small set has some."""
OTHER_SYNTAX: dict[Syntax, float] = {"implicit": 0.10, "jpeg": 0.05, "jpeg2000": 0.05}
"""Share of test studies in another transfer syntax than explicit little endian. The documentation
announces them, the training set has none."""
STANDARD_TEXTS = 2
"""Number of standard texts of a site."""
KNEE_MM, CENTRED = (55.0, 110.0), 0.15
"""Range of a knee's distance from the table's middle, and share of the studies in which the table
was moved so that the knee is at the middle."""
WRONG_SIDE = 0.02
"""Share of the other studies in which the knee lies on the other side of the table's middle."""
CANVAS_MM = (172.0, 164.0, 160.0)
"""Least extent (z, y, x) of the painted volume."""


@dataclass(frozen=True)
class StudySeries:
    """One series of a study with its identifiers and faults.

    Attributes:
        uid: SeriesInstanceUID.
        planned: what is acquired.
        description: SeriesDescription.
        stated: whether ScanOptions state a fat suppression.
        fluid_sensitive, fat_suppression: the flags of the table of series.
        corrupt: whether some of its files are truncated.
    """

    uid: str
    planned: PlannedSeries
    description: str
    stated: bool
    fluid_sensitive: bool
    fat_suppression: bool
    corrupt: bool = False


@dataclass(frozen=True)
class Study:
    """A study, drawn but not rendered.

    Attributes:
        split: train or test.
        header: what its files have in common; `header.study` is the StudyInstanceUID.
        site: index of its site.
        presentation: reason for the examination.
        present, lesser: findings, and absent findings of which there is a lesser lesion.
        knee: anatomy of the knee that is examined.
        lesions: its lesions.
        other_knee: anatomy of a second knee without lesions, or None.
        series: the series, in the order of acquisition.
        statements, report: what the report states, and its text.
        syntax: transfer syntax of the files.
        seeds: streams of noise and instances' UIDs.
    """

    split: Split
    header: Header
    site: int
    presentation: str
    present: frozenset[str]
    lesser: frozenset[str]
    knee: Anatomy
    lesions: tuple[Lesion, ...]
    other_knee: Anatomy | None
    series: tuple[StudySeries, ...]
    statements: dict[str, Statement]
    report: str
    syntax: Syntax
    seeds: tuple[np.random.SeedSequence, np.random.SeedSequence]

    @property
    def uid(self) -> str:
        """StudyInstanceUID."""
        return self.header.study


def draw_study(
    seed: int,
    split: Split,
    index: int,
    sites: tuple[Site, ...],
    *,
    enriched: bool,
    size: int,
    slice_factor: float,
) -> Study:
    """Draws one study.

    Anatomy, findings, protocol, headers and report have separate random streams: none of them
    depends on how another is drawn.

    Args:
        seed: of the data set.
        split: train or test.
        index: number of the study within the split.
        sites: of the data set.
        enriched: whether findings are as frequent as in the experts' labels.
        size: median edge of the images in pixels.
        slice_factor: factor on the numbers of slices.
    """
    root = np.random.SeedSequence((seed, 0 if split == "train" else 1, index))
    *streams, noise, instances = root.spawn(7)
    of_knee, of_lesions, of_protocol, of_header, of_report = map(np.random.default_rng, streams)
    weights = np.array([site.weight for site in sites])
    number = int(of_header.choice(len(sites), p=weights / weights.sum()))
    site = sites[number]
    scanner = site.scanners[int(of_header.integers(len(site.scanners)))]
    # Test patients are drawn without the sites' differences: what scanners tell about findings in
    # the training set doesn't hold in the test set, as in the real one.
    odds = site.odds if split == "train" else {}
    presentation, present = draw_findings(of_lesions, enriched=enriched, odds=odds)
    lesions, lesser = draw_study_lesions(of_lesions, present)
    knee = draw_anatomy(of_knee)
    for name, amount in zip(
        ("medial_meniscus", "lateral_meniscus"), knee.degeneration, strict=True
    ):
        if amount and name not in present:
            lesser |= {name}
    two = bool(of_header.random() < TWO_KNEES)
    planned = draw_series(
        of_protocol, site, scanner, size=size, slice_factor=slice_factor, two_knees=two
    )
    header = _draw_header(of_header, site, scanner, right=knee.right, two_knees=two)
    statements = draw_statements(of_report, present, lesser)
    shared = None
    if "present" not in statements.values() and of_report.random() < site.shared_report:
        shared = int(of_report.integers(STANDARD_TEXTS))
        statements = {name: "absent" for name in FINDINGS if name != "synovitis"}
    report = write_report(of_report, site.language, statements, right=knee.right, shared=shared)
    syntax: Syntax = "explicit"
    if split == "test":
        names: list[Syntax] = [*OTHER_SYNTAX, "explicit"]
        shares = [*OTHER_SYNTAX.values(), 1.0 - sum(OTHER_SYNTAX.values())]
        syntax = names[int(of_header.choice(len(names), p=shares))]
    return Study(
        split=split,
        header=header,
        site=number,
        presentation=presentation,
        present=present,
        lesser=lesser,
        knee=knee,
        lesions=lesions,
        other_knee=replace(draw_anatomy(of_knee), right=not knee.right) if two else None,
        series=_identify(of_header, site, planned, split),
        statements=statements,
        report=report,
        syntax=syntax,
        seeds=(noise, instances),
    )


def _draw_header(
    rng: np.random.Generator, site: Site, scanner: Scanner, *, right: bool, two_knees: bool
) -> Header:
    side = -1.0 if right else 1.0  # x points to the patient's left
    away = float(rng.uniform(*KNEE_MM))
    centred, wrong = rng.random(2)
    if not two_knees and centred < CENTRED:
        away = float(rng.uniform(-18.0, 18.0))
    elif not two_knees and wrong < WRONG_SIDE:
        away = -away
    angles = np.clip(rng.normal(0.0, 2.0, 3), -5.0, 5.0)
    origin = np.array([side * away, rng.normal(0.0, 15.0), rng.normal(0.0, 25.0)])
    wrong_part = rng.random() < WRONG_BODY_PART
    other = OTHER_BODY_PARTS[int(rng.integers(len(OTHER_BODY_PARTS)))]
    tagged = rng.random() < site.tags_side and not two_knees
    return Header(
        study=draw_uid(rng),
        patient=f"{int(rng.integers(10**9)):09d}",
        frame=draw_uid(rng),
        sex="F" if rng.random() < 0.5 else "M",
        body_part=other if wrong_part else "KNEE",
        laterality=("R" if right else "L") if tagged else "",
        scanner=scanner,
        mhz=scanner.mhz + float(rng.normal(0.0, 0.0004)),
        rotation=Rotation.from_euler("xyz", angles, degrees=True).as_matrix(),
        origin=origin,
    )


def _identify(
    rng: np.random.Generator, site: Site, planned: tuple[PlannedSeries, ...], split: Split
) -> tuple[StudySeries, ...]:
    """Gives series their identifiers, descriptions and flags; rarely one is corrupt."""
    series: list[StudySeries] = []
    for one in planned:
        dummy, unstated, flipped = rng.random(3)
        word = WATER_WORDS[int(rng.integers(len(WATER_WORDS)))]
        stated = bool(unstated >= UNSTATED_SUPPRESSION)
        suppression = None if stated else word
        description = describe(one, site.naming, suppression=suppression)
        flag = one.fat_suppressed != bool(flipped < WRONG_FLAG)
        # The flags are equal in the training set. The hosts warn that they may differ in the test
        # set, where the first one is of its own here.
        fluid = flag if split == "train" else one.fat_suppressed or one.weighting != "T1"
        series.append(
            StudySeries(
                uid=draw_uid(rng),
                planned=one,
                description="Dummy" if dummy < DUMMY_DESCRIPTION else description,
                stated=stated,
                fluid_sensitive=fluid,
                fat_suppression=flag,
            )
        )
    spoilt = int(rng.integers(len(series)))
    if rng.random() < CORRUPT:
        series[spoilt] = replace(series[spoilt], corrupt=True)
    return tuple(series)


def render_study(
    study: Study, size: int
) -> Iterator[tuple[StudySeries, UInt16[np.ndarray, "slices rows cols"], Masks]]:
    """Renders a study's series one by one.

    Args:
        study: what to render.
        size: median edge of the images, which decides how finely the knee is painted.

    Yields:
        A series, its grey values, and the masks of the findings that are present, all with slices
        in the phantom's order: from the patient's right, front or head.
    """
    noise = iter(study.seeds[0].spawn(len(study.series)))
    streams = {series.uid: np.random.default_rng(next(noise)) for series in study.series}
    for knee, lesions, other in (
        (study.knee, study.lesions, False),
        (study.other_knee, (), True),
    ):
        shown = [series for series in study.series if series.planned.other_knee == other]
        if knee is None or not shown:
            continue
        canvas = paint_study(knee, lesions, shown, study.header.scanner.tesla, size)
        for index, series in enumerate(shown):
            planned = series.planned
            brightest = max(signal[index] for signal in canvas.signals.values())
            magnitude = measure(
                canvas.volumes[index],
                canvas.grid,
                planned.acquisition,
                planned.edge,
                brightest,
                streams[series.uid],
            )
            magnitude *= planned.peak / float(magnitude.max())
            masks = {
                finding: lesion_mask(
                    canvas,
                    [lesion for lesion in lesions if finding_of(lesion) == finding],
                    planned.acquisition,
                    planned.edge,
                )
                for finding in FINDINGS
                if finding in study.present and not other
            }
            yield series, np.rint(magnitude).astype(np.uint16), masks


def paint_study(
    knee: Anatomy,
    lesions: tuple[Lesion, ...],
    series: list[StudySeries],
    tesla: float,
    size: int,
) -> Canvas:
    """Paints one knee in the contrast of each series."""
    largest = max(one.planned.acquisition.field_of_view for one in series)
    spacing = float(np.clip(FINEST * 256 / size, FINEST, COARSEST))
    extent = (max(CANVAS_MM[0], largest + 8.0), CANVAS_MM[1], CANVAS_MM[2])
    protocol = Protocol(tesla, {one.uid: one.planned.acquisition for one in series})
    canvas = Canvas(Grid(spacing, extent), protocol.signals())
    paint(canvas, knee, lesions)
    return canvas


def write_study(study: Study, size: int, folder: Path) -> dict[str, Masks]:
    """Renders a study and writes its DICOM files into `folder/<SeriesInstanceUID>/`.

    Returns:
        SeriesInstanceUID -> masks.
    """
    instances = np.random.default_rng(study.seeds[1])
    written: dict[str, Masks] = {}
    for series, pixels, masks in render_study(study, size):
        header = study.header
        if series.planned.other_knee:  # on the other side of the table
            header = replace(header, origin=header.origin * np.array([-1.0, 1.0, 1.0]))
        files = write_series(
            folder / series.uid,
            header,
            series.planned,
            series.uid,
            study.series.index(series) + 1,
            series.description,
            pixels,
            instances,
            options_state_suppression=series.stated,
            syntax=study.syntax,
        )
        if series.corrupt:
            for file in files[:: max(1, len(files) // 4)]:
                _truncate(file)
        written[series.uid] = masks
    return written


def _truncate(file: Path) -> None:
    """Removes the last 40 % of a file, as an interrupted copy does."""
    data = file.read_bytes()
    file.write_bytes(data[: int(0.6 * len(data))])
