"""NIfTI files named by their plane give the same stacks as DICOM."""

from __future__ import annotations

import json
import os
from pathlib import Path

import nibabel
import numpy as np
import pytest

from mrknee.errors import MrkneeError
from mrknee.exams import PLANES, Dataset, Exam, Plane
from mrknee.sources.clinical.importing import import_exams
from mrknee.sources.clinical.locate import Location
from mrknee.sources.clinical.nifti import read_grid, read_nifti
from tests.sources.clinical.hospital import (
    PROTOCOL,
    Scan,
    acquire,
    declared_knee,
    export_study,
    knee,
)
from tests.sources.six import SIX


def write_nifti(path: Path, scan: Scan, stack: np.ndarray) -> Path:
    """A scan as NIfTI: columns, rows and slices along i, j and k."""
    slices = acquire(stack, scan)
    axes = scan.axes[[0, 2, 1]] if scan.transposed else scan.axes
    to_ras = np.diag([-1.0, -1.0, 1.0])
    affine = np.eye(4)
    for column, (axis, size) in enumerate(
        ((axes[2], scan.pixel), (axes[1], scan.pixel), (axes[0], scan.spacing))
    ):
        affine[:3, column] = to_ras @ axis * size
    affine[:3, 3] = to_ras @ slices[0][1]
    volume = np.stack([pixels.T for pixels, _ in slices], axis=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.Nifti1Image(volume, affine).to_filename(path)
    return path


@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
def test_the_same_as_dicom(tmp_path: Path, ending: str) -> None:
    """A study as NIfTI gives the same stacks as DICOM, for any direction of its axes."""
    export_study(tmp_path / "dicom")
    for scan in PROTOCOL:
        odd = Scan(scan.plane, turned=(True, False, True), transposed=True)
        stack = knee()[scan.plane].astype(np.int16) * 16
        write_nifti(tmp_path / "nifti" / f"right_knee_{scan.plane}.{ending}", odd, stack)
    import_exams(tmp_path / "dicom", tmp_path / "a")
    imported = import_exams(tmp_path / "nifti", tmp_path / "b")
    assert imported.exams["0000"]["side"] == "right"
    (one,), (other,) = Dataset(tmp_path / "a"), Dataset(tmp_path / "b")
    for plane in PLANES:
        np.testing.assert_array_equal(one.stacks[plane], other.stacks[plane])


def test_rescale_is_applied(tmp_path: Path) -> None:
    """scl_slope and scl_inter are applied."""
    stack = knee()[Plane.CORONAL].astype(np.float32)[:, ::8, ::8]
    path = tmp_path / "cor.nii"
    image = nibabel.Nifti1Image(stack, np.diag([1.0, 1.0, 1.0, 1.0]))
    image.header.set_data_dtype(np.int16)
    image.header.set_slope_inter(0.5, -20)
    image.to_filename(path)
    found = read_nifti(Location(path), Plane.CORONAL)
    # nibabel's own reading; i runs to the right, k up
    theirs = np.asarray(nibabel.load(path).get_fdata()).transpose(1, 0, 2)  # type: ignore[attr-defined]
    np.testing.assert_allclose(found.values, theirs, atol=1e-4)
    assert found.values.min() < -10


def test_a_name_that_contradicts_the_geometry_is_refused(tmp_path: Path) -> None:
    """A coronal volume named sagittal is refused; an unnamed one is counted as unreadable."""
    write_nifti(tmp_path / "in" / "sag.nii", Scan(Plane.CORONAL), knee()[Plane.CORONAL])
    write_nifti(tmp_path / "in" / "cor.nii", Scan(Plane.CORONAL), knee()[Plane.CORONAL])
    write_nifti(tmp_path / "in" / "what.nii", Scan(Plane.CORONAL), knee()[Plane.CORONAL])
    imported = import_exams(tmp_path / "in", tmp_path / "out", allow_missing_plane=True)
    assert list(imported.exams["0000"]["planes"]) == ["coronal"]
    assert imported.unreadable == {"the name of a NIfTI file states no plane": 1}


@pytest.mark.parametrize(
    ("place", "content", "message"),
    [
        (0, b"\x00\x00\x00\x00", "can't be read"),
        (40, np.array([3, 30000, 30000, 30000], "<i2").tobytes(), "not a single volume"),
        (40, np.array([4, 9, 9, 9, 5], "<i2").tobytes(), "not a single volume"),
        (40, np.array([3, 999, 999, 90], "<i2").tobytes(), "truncated"),
        (40, np.array([3, -4, 9, 9], "<i2").tobytes(), "not a single volume"),
        (70, np.array([128], "<i2").tobytes(), "other than grey values"),
        (108, np.array([1e30], "<f4").tobytes(), "impossible offset"),
        (108, np.array([np.nan], "<f4").tobytes(), "can't be read|impossible offset"),
        (252, bytes(4), "its orientation"),
        (280, np.array([np.nan] * 4, "<f4").tobytes(), "its voxel size"),
    ],
)
def test_broken_headers_are_refused(
    tmp_path: Path, place: int, content: bytes, message: str
) -> None:
    """Sizes in a header are compared with the file before anything is allocated."""
    path = write_nifti(tmp_path / "sag.nii", Scan(Plane.SAGITTAL), knee()[Plane.SAGITTAL][:2])
    data = bytearray(path.read_bytes())
    data[place : place + len(content)] = content
    path.write_bytes(data)
    with pytest.raises(MrkneeError, match=message):
        read_nifti(Location(path), Plane.SAGITTAL)


def with_forms(path: Path, qform: np.ndarray, code: int = 1) -> Path:
    """A volume whose sform is what `write_nifti` writes and whose qform is another."""
    loaded = nibabel.load(path)
    values = loaded.get_fdata().astype(np.int16)  # type: ignore[attr-defined]
    image = nibabel.Nifti1Image(values, loaded.affine)  # type: ignore[attr-defined]
    image.set_sform(image.affine, 2)
    image.set_qform(qform @ image.affine, code)
    image.to_filename(path)
    return path


def turned(degrees: float, shift: float = 0.0) -> np.ndarray:
    """A rotation about the long axis of the body and a shift."""
    angle = np.radians(degrees)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[0, 3] = shift
    return matrix


@pytest.mark.parametrize(
    ("qform", "code", "outcome"),
    [
        (turned(180.0), 1, "contradict"),
        (turned(90.0), 1, "contradict"),
        (np.diag([1.3, 1.3, 1.3, 1.0]), 1, "contradict"),
        (turned(8.0), 1, "differ by 8 degrees"),
        (turned(0.0, 12.0), 1, "12 mm"),
        (turned(0.2, 0.1), 1, None),
        (turned(180.0), 0, None),  # a code of 0: there is no qform
    ],
)
def test_differences_between_sform_and_qform(
    tmp_path: Path, qform: np.ndarray, code: int, outcome: str | None
) -> None:
    """A contradiction between sform and qform is refused; a small difference is noted."""
    scan = Scan(Plane.SAGITTAL, centre=(0.0, 0.0, 0.0))
    path = write_nifti(tmp_path / "sag.nii", scan, knee()[Plane.SAGITTAL].astype(np.int16))
    location = Location(with_forms(path, qform, code))
    if outcome == "contradict":
        with pytest.raises(MrkneeError, match="contradict"):
            read_nifti(location, Plane.SAGITTAL)
        return
    grid = read_grid(location)
    assert len(grid.notes) == (outcome is not None)
    if outcome:
        assert outcome in grid.notes[0]
        assert "its sform is used" in grid.notes[0]


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_labels_are_not_an_image(tmp_path: Path, kind: type) -> None:
    """A volume of a few integers is a mask or labels, whatever its name."""
    stack = knee()[Plane.SAGITTAL]
    labels = np.digitize(stack, [20, 60, 90, 120, 160]).astype(kind)
    path = write_nifti(tmp_path / "sag.nii", Scan(Plane.SAGITTAL), labels)
    with pytest.raises(MrkneeError, match="mask or a label"):
        read_nifti(Location(path), Plane.SAGITTAL)
    write_nifti(path, Scan(Plane.SAGITTAL), (stack / 4).astype(kind))
    assert read_nifti(Location(path), Plane.SAGITTAL).values.max() > 40


def test_a_name_that_is_not_utf_8_is_imported(tmp_path: Path) -> None:
    """A file whose name isn't UTF-8 is imported; the map escapes the bytes of the name."""
    file = write_nifti(tmp_path / "in" / "cor.nii", Scan(Plane.CORONAL), knee()[Plane.CORONAL])
    name = os.fsdecode(b"kn\xe4e_cor.nii")
    file.rename(file.with_name(name))
    kept = tmp_path / "map.json"
    imported = import_exams(
        tmp_path / "in", tmp_path / "out", allow_missing_plane=True, keep_map=kept, workers=1
    )
    assert imported.complete
    (file_name,) = json.loads(kept.read_text())["0000"]["files"].values()
    assert file_name.endswith(name)


def test_names_determine_the_declared_series(tmp_path: Path) -> None:
    """Weighting and fat suppression of six files of one knee come from their names."""
    for name, (scan, stack) in declared_knee(SIX).items():
        write_nifti(tmp_path / "in" / f"knee_{name}.nii.gz", scan, stack)
    exam = Exam.from_nifti(tmp_path / "in", series=SIX)
    slices = {name: len(stack) for name, (_, stack) in declared_knee(SIX).items()}
    assert {name: len(stack) for name, stack in exam.stacks.items()} == slices
