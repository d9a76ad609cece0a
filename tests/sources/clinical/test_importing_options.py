"""Options of `mrknee import`: usual series, crop in mm, canonical sides, groups of scanners."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid

from mrknee.cli import main
from mrknee.errors import SettingsError
from mrknee.exams import (
    USUAL_SERIES,
    Dataset,
    Exam,
    ExamSide,
    Plane,
    read_groups,
    read_series,
    read_sides,
)
from mrknee.sources.clinical.importing import import_exams
from tests.sources.clinical.hospital import (
    PROTOCOL,
    ROOT,
    Scan,
    export_series,
    export_study,
    knee,
    screenshot,
)


def study_of(folder: Path, name: str, *, mirrored: bool = False, **changes: Any) -> None:  # noqa: ANN401
    """Writes a study of MRNet's series; `changes` are elements, or the centre."""
    centre = changes.pop("centre", (0.0, 0.0, 0.0))
    for scan in PROTOCOL:
        stack = knee()[scan.plane][:, ::2, ::2].astype(np.uint16) * 16
        if mirrored:
            stack = stack[::-1] if scan.plane is Plane.SAGITTAL else stack[:, :, ::-1]
        elements = {**scan.elements, **changes}
        placed = replace(scan, centre=centre, pixel=1.25, elements=elements)
        export_series(folder, placed, stack, study=name)


def test_the_usual_series_are_declared_and_chosen(tmp_path: Path) -> None:
    """`--series default`: six series by plane and contrast, whatever T2 or PD they are."""
    scans = [
        Scan(Plane.SAGITTAL, 1, "SAG PD FS"),
        Scan(Plane.CORONAL, 2, "COR T2 FS", 70.0, 4000.0),
        Scan(Plane.CORONAL, 3, "COR T1 FS", 12.0, 600.0),
        Scan(Plane.CORONAL, 4, "COR T1", 12.0, 600.0),
        Scan(Plane.SAGITTAL, 5, "SAG T1", 12.0, 600.0),
        Scan(Plane.SAGITTAL, 6, "SAG PD"),
        Scan(Plane.AXIAL, 7, "AX T2 FS", 70.0, 4000.0),
    ]
    export_study(tmp_path / "in", scans=scans)
    out = tmp_path / "out"
    assert main(["import", str(tmp_path / "in"), str(out), "--series", "default"]) == 0
    assert read_series(out) == USUAL_SERIES
    exam = json.loads((out / "import.json").read_text())["exams"]["0000"]
    chosen = {name: plane["series"] for name, plane in exam["planes"].items()}
    assert chosen == {
        "sagittal_fs": "s1",
        "coronal_fs": "s2",  # not T1 with fat suppression, which shows no oedema
        "axial_fs": "s7",
        "sagittal_nofs": "s6",
        "coronal_t1": "s4",
        "sagittal_t1": "s5",
    }


def test_mrnets_series_can_be_named(tmp_path: Path) -> None:
    """`--series mrnet` is the same as no option."""
    export_study(tmp_path / "in")
    for name, options in {"one": [], "two": ["--series", "mrnet"]}.items():
        assert main(["import", str(tmp_path / "in"), str(tmp_path / name), *options]) == 0
    one, two = ((tmp_path / name / "import.json").read_text() for name in ("one", "two"))
    assert one == two


def test_a_crop_gives_all_exams_one_scale(tmp_path: Path) -> None:
    """Fields of 160 and 192 mm become windows of 140 mm: pixels of the same size."""
    for name, pixel in {"near": 0.625, "far": 0.75}.items():
        scans = [replace(scan, pixel=pixel) for scan in PROTOCOL]
        export_study(tmp_path / "in", name, scans)
    found = import_exams(tmp_path / "in", tmp_path / "out", crop_mm=140.0, size=112)
    for exam in found.exams.values():
        assert {plane["pixel_mm"] for plane in exam["planes"].values()} == {1.25}
    assert {exam.stacks["axial"].shape for exam in Dataset(tmp_path / "out")} == {(11, 112, 112)}


@pytest.mark.parametrize("options", [{"crop_mm": 20.0}, {"crop_mm": float("nan")}, {"size": 16}])
def test_a_window_that_cant_be_used_is_refused(options: dict[str, Any], tmp_path: Path) -> None:
    """Widths below 60 or above 300 mm, and sizes below 64 or above 1024."""
    with pytest.raises(SettingsError) as caught:
        import_exams(tmp_path, tmp_path / "out", **options)
    assert caught.value.code == "range"


def test_right_knees_are_mirrored_to_left_ones(tmp_path: Path) -> None:
    """A right knee's stacks equal those of its left twin, also in memory; without a side, as is."""
    study_of(tmp_path / "left", "left", Laterality="L")
    study_of(tmp_path / "right", "right", Laterality="R", mirrored=True)
    study_of(tmp_path / "neither", "neither", mirrored=True)
    stacks = {}
    for name, side in {"left": "left", "right": "right", "neither": None}.items():
        out = tmp_path / f"{name} out"
        import_exams(tmp_path / name, out, sides="left")
        assert read_sides(out) == {"0000": ExamSide(side, side == "right")}  # type: ignore[arg-type]
        (exam,) = Dataset(out)
        stacks[name] = exam.stacks
        read = Exam.from_dicom(tmp_path / name, sides="left")
        assert all(np.array_equal(stack, exam.stacks[n]) for n, stack in read.stacks.items())
    for name, stack in stacks["left"].items():
        assert np.array_equal(stack, stacks["right"][name])
        assert not np.array_equal(stack, stacks["neither"][name])


def test_as_imaged_nothing_is_mirrored(tmp_path: Path) -> None:
    """Without the option, a right knee stays one, and there is no table of sides."""
    study_of(tmp_path / "in", "right", Laterality="R")
    found = import_exams(tmp_path / "in", tmp_path / "out")
    assert not found.exams["0000"]["mirrored"]
    assert read_sides(tmp_path / "out") is None


@pytest.mark.parametrize(
    ("changes", "as_imaged", "canonical"),
    [
        ({"Laterality": "R", "centre": (60.0, 0.0, 0.0)}, None, "right"),
        ({"Laterality": "R", "StudyDescription": "left knee"}, None, "right"),
        ({"StudyDescription": "left knee", "centre": (-60.0, 0.0, 0.0)}, None, "left"),
        ({"centre": (30.0, 0.0, 0.0)}, None, "left"),
        ({"centre": (19.0, 0.0, 0.0)}, None, None),
        ({"centre": (45.0, 0.0, 0.0)}, "left", "left"),
    ],
)
def test_for_canonical_sides_the_first_statement_counts(
    changes: dict[str, Any], as_imaged: str | None, canonical: str | None, tmp_path: Path
) -> None:
    """Header, words, position beyond 20 mm; otherwise contradictions make the side unknown."""
    study_of(tmp_path / "in", "study", **changes)
    plain = import_exams(tmp_path / "in", tmp_path / "a").exams["0000"]
    mirrored = import_exams(tmp_path / "in", tmp_path / "b", sides="left").exams["0000"]
    assert (plain["side"], mirrored["side"]) == (as_imaged, canonical)


def test_scanners_are_numbered_groups(tmp_path: Path) -> None:
    """A serial number, or model and frequency, tell scanners apart; the table has numbers only."""
    scanners: dict[str, dict[str, Any]] = {
        "a": {"DeviceSerialNumber": "S1", "ImagingFrequency": 63.1},
        "b": {"DeviceSerialNumber": "S1", "ImagingFrequency": 63.2},
        "c": {"ManufacturerModelName": "Avanto", "ImagingFrequency": 63.684},
        "d": {"ManufacturerModelName": "Avanto", "ImagingFrequency": 63.6839},
        "e": {},
    }
    for name, elements in scanners.items():
        study_of(tmp_path / "in", name, **elements)
    keep_map = tmp_path / "map.json"
    import_exams(tmp_path / "in", tmp_path / "out", scanner_groups=True, keep_map=keep_map)
    names = {generate_uid(ROOT, [name]): name for name in scanners}
    studies = json.loads(keep_map.read_text())
    groups = read_groups(tmp_path / "out")
    assert groups is not None
    of = {names[studies[i]["StudyInstanceUID"]]: group for i, group in groups.items()}
    assert of.keys() == set("abcd")
    assert of["a"] == of["b"] != of["c"] == of["d"]
    assert set(of.values()) == {"group 1", "group 2"}


def test_a_refused_series_does_not_name_the_scanner(tmp_path: Path) -> None:
    """A screenshot of a workstation is the first series of two studies of different scanners."""
    for name in "ab":
        study_of(tmp_path / "in" / name, name, DeviceSerialNumber=name)
        path = screenshot(tmp_path / "in" / name, name)
        shown = dcmread(path)
        shown.SeriesNumber, shown.DeviceSerialNumber = 1, "workstation"
        shown.save_as(path)
    import_exams(tmp_path / "in", tmp_path / "out", scanner_groups=True)
    groups = read_groups(tmp_path / "out")
    assert groups is not None
    assert len(set(groups.values())) == 2


def test_one_known_scanner_among_unknown_ones_is_a_group(tmp_path: Path) -> None:
    """Exams without a group are independent of it, so the table says more than none would."""
    for name, serial in (("a", "S1"), ("b", "S1"), ("c", "")):
        study_of(tmp_path / "in", name, DeviceSerialNumber=serial)
    import_exams(tmp_path / "in", tmp_path / "out", scanner_groups=True)
    assert sorted((read_groups(tmp_path / "out") or {}).values()) == ["group 1"] * 2


def test_exams_of_one_scanner_are_no_groups(tmp_path: Path) -> None:
    """If all are of one scanner, there is no table: an inner split needs two groups."""
    for name in "ab":
        study_of(tmp_path / "in", name, DeviceSerialNumber="S1")
    import_exams(tmp_path / "in", tmp_path / "out", scanner_groups=True)
    assert read_groups(tmp_path / "out") is None
