"""Notes on an exam's planes in its record."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from mrknee.exams import Plane
from mrknee.sources.clinical.importing import import_exams
from tests.sources.clinical.hospital import PROTOCOL, Scan, export_series, export_study, knee


def test_planes_of_several_frames_of_reference_are_noted(tmp_path: Path) -> None:
    """Planes of two frames of reference give a note unless a side is stated."""
    for name, laterality in (("unknown", {}), ("known", {"Laterality": "R"})):
        scans = [
            replace(scan, elements={**scan.elements, **laterality, "FrameOfReferenceUID": f"1.{k}"})
            for k, scan in enumerate(PROTOCOL)
        ]
        export_study(tmp_path / name, name, scans)
        (exam,) = import_exams(tmp_path / name, tmp_path / f"{name} out").exams.values()
        noted = [note for note in exam["warnings"] if "frames of reference" in note]
        assert len(noted) == (name == "unknown")


def test_a_plane_of_few_slices_is_noted(tmp_path: Path) -> None:
    """A stack of fewer slices than a knee needs is imported with a note."""
    sagittal = PROTOCOL[0]
    export_series(tmp_path / "in", sagittal, knee()[Plane.SAGITTAL][:4].astype(np.uint16))
    imported = import_exams(tmp_path / "in", tmp_path / "out", allow_missing_plane=True)
    assert "sagittal: only 4 slices" in imported.exams["0000"]["warnings"]


def test_a_turned_image_is_noted(tmp_path: Path) -> None:
    """A rotation of more than 30 degrees within the plane is noted; the image is unchanged."""
    for degrees, noted in ((20.0, False), (38.0, True)):
        angle = np.radians(degrees)
        along = [0.0, np.cos(angle), -np.sin(angle)]
        down = [0.0, -np.sin(angle), -np.cos(angle)]
        elements = {"ImageOrientationPatient": [f"{x:.6f}" for x in along + down]}
        scan = Scan(Plane.SAGITTAL, 2, "SAG T2 FS", 60.0, 4000.0, elements)
        export_series(tmp_path / f"{degrees}", scan)
        out = tmp_path / f"out {degrees}"
        imported = import_exams(tmp_path / f"{degrees}", out, allow_missing_plane=True)
        note = "sagittal: rotated by 38 degrees within its plane"
        assert (note in imported.exams["0000"]["warnings"]) is noted
