"""Small folders in the form of RSNA's data set of 2026, for tests."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from mrknee.exams import RSNA_2026_FINDINGS, Plane
from tests.sources.clinical.hospital import ROOT, Scan, datasets, knee, write

TITLES = tuple(RSNA_2026_FINDINGS.values())
LEFT, RIGHT, MIDDLE = (80.0, 0.0, 0.0), (-80.0, 0.0, 0.0), (5.0, 0.0, 0.0)
"""Centres of stacks in the scanner."""

FS = {"ScanOptions": "FS", "StudyDescription": None}
NO_FS = {"ScanOptions": "PFP", "StudyDescription": None}
SCANS = {
    "sagittal_fs": Scan(Plane.SAGITTAL, 1, "Dummy", 30.0, 3000.0, FS),
    "coronal_fs": Scan(Plane.CORONAL, 2, "Dummy", 30.0, 3000.0, FS),
    "axial_fs": Scan(Plane.AXIAL, 3, "Dummy", 30.0, 3000.0, FS),
    "sagittal_nofs": Scan(Plane.SAGITTAL, 4, "Dummy", 30.0, 3000.0, NO_FS),
    "coronal_t1": Scan(Plane.CORONAL, 5, "Dummy", 12.0, 600.0, NO_FS),
    "sagittal_t1": Scan(Plane.SAGITTAL, 6, "Dummy", 12.0, 600.0, NO_FS),
}
"""One scan per series that an import chooses."""


def scan_of(
    name: str,
    number: int | None = None,
    centre: tuple[float, float, float] = LEFT,
    **changes: Any,  # noqa: ANN401
) -> Scan:
    """A scan for a series, with other elements and geometry.

    Args:
        name: the series, as in `SCANS`.
        number: SeriesNumber; that of `SCANS` if not given.
        centre: centre of the stack in the scanner.
        changes: elements by keyword.
    """
    scan = SCANS[name]
    elements = {**scan.elements, **changes}
    if elements["ScanOptions"] is None:
        del elements["ScanOptions"]
    number = number or scan.number
    return replace(scan, number=number, pixel=1.25, centre=centre, elements=elements)


def stack_of(scan: Scan, *, mirrored: bool = False) -> np.ndarray:
    """The phantom's stack in the scan's plane, uint16 (11, 128, 128)."""
    stack = knee()[scan.plane][:, ::2, ::2].astype(np.uint16) * 16
    if mirrored:
        stack = stack[::-1] if scan.plane is Plane.SAGITTAL else stack[:, :, ::-1]
    return stack


@dataclass
class Study:
    """A study and its lines in the tables.

    Attributes:
        name: seed of its UIDs.
        scans: its series.
        labels: experts' labels by title; empty if there are none.
        report: its report.
        test: whether it belongs to `test.csv`.
        mirrored: whether to mirror the images.
        flags: series number -> Fat_Suppression, where it differs from the header.
        planes: series number -> Anatomical_Plane, where it differs.
        syntax: transfer syntax of the files.
    """

    name: str
    scans: Sequence[Scan]
    labels: Mapping[str, int] = field(default_factory=dict)
    report: str = ""
    test: bool = False
    mirrored: bool = False
    flags: Mapping[int, str] = field(default_factory=dict)
    planes: Mapping[int, str] = field(default_factory=dict)
    syntax: UID = ExplicitVRLittleEndian

    @property
    def uid(self) -> str:
        """StudyInstanceUID."""
        return str(generate_uid(ROOT, [self.name]))

    def series(self, scan: Scan) -> str:
        """SeriesInstanceUID of a scan."""
        return str(generate_uid(ROOT, [f"{self.name} {scan.number}"]))

    @property
    def part(self) -> str:
        """Name of the tables."""
        return "test" if self.test else "train"


def write_competition(root: Path, studies: Iterable[Study], *, images: bool = True) -> Path:
    """Writes tables and, if asked for, images."""
    studies = list(studies)
    root.mkdir(parents=True, exist_ok=True)
    for part in ("train", "test"):
        mine = [study for study in studies if study.part == part]
        rows = [["StudyInstanceUID", "Report", *TITLES]]
        for study in mine:
            labels = [study.labels.get(title, "") for title in TITLES]
            rows.append([study.uid, study.report, *map(str, labels)])
        if part == "test":
            rows = [row[:1] for row in rows]
        _write(root / f"{part}.csv", rows)
        _write(root / f"{part}_series.csv", [_SERIES, *(row for s in mine for row in _rows(s))])
        (root / f"{part}_series").mkdir(exist_ok=True)
    for study in studies if images else ():
        write_images(root, study)
    return root


_SERIES = [
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "Fluid_Sensitive",
    "Fat_Suppression",
    "Anatomical_Plane",
]


def _rows(study: Study) -> list[list[str]]:
    rows = []
    for scan in study.scans:
        header = str(int(scan.elements.get("ScanOptions") == "FS"))
        flag = study.flags.get(scan.number, header)
        plane = study.planes.get(scan.number, str(scan.plane).title())
        rows.append([study.uid, study.series(scan), flag, flag, plane])
    return rows


def write_images(root: Path, study: Study) -> Path:
    """Writes a study's files, named by random UIDs."""
    folder = root / f"{study.part}_series" / study.uid
    for scan in study.scans:
        stack = stack_of(scan, mirrored=study.mirrored)
        for dataset in datasets(stack, scan, study.name):
            name = generate_uid(ROOT, [f"file {dataset.SOPInstanceUID}"])
            write(dataset, folder / study.series(scan) / f"{name}.dcm", study.syntax)
    return folder


def _write(file: Path, rows: Iterable[Iterable[str]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as opened:
        csv.writer(opened).writerows(rows)
