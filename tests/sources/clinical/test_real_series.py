"""Real series: a knee in big endian, the same knee as NIfTI, one slice, and a brain."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mrknee.exams import Dataset, Plane
from mrknee.sources.clinical.importing import import_exams

DATA = Path(os.environ.get("MRKNEE_DATA", Path(__file__).resolve().parents[4] / "shared" / "data"))
KNEE = "knee_sag_t2_1echo_dicom_pymskt_MIT.zip"
NIFTI = "knee_sag_t2_pymskt_MIT.nii.gz"
SLICE = "DICOM_KNEE_pyvista_vtkdata.dcm"
BRAIN = "brain_t1_384slices_dicom_datalad_PDDL.zip"


def real(name: str) -> Path:
    """A real file, or a skipped test."""
    if not (DATA / name).exists():
        pytest.skip(f"no {name} in ../shared/data or $MRKNEE_DATA")
    return DATA / name


def test_a_real_knee(tmp_path: Path) -> None:
    """A real knee gives 24 slices from right to left, with the front at the left."""
    imported = import_exams(real(KNEE), tmp_path, allow_missing_plane=True)
    exam = imported.exams["0000"]
    assert imported.complete
    assert exam["side"] == "right"
    about = exam["planes"]["sagittal"]
    assert (about["slices"], about["pixel_mm"], about["spacing_mm"]) == (24, 0.625, 4.0)
    (row,) = exam["candidates"]
    assert (row["weighting"], row["fat_saturated"], row["angle_deg"]) == ("PD", False, 8.42)
    (found,) = Dataset(tmp_path, allow_missing_plane=True)
    stack = found.stacks[Plane.SAGITTAL]
    assert stack.shape == (24, 256, 256)
    # the joint's row and column in this series, located by eye, are 146 and 131
    assert abs(about["joint"][0] - 146) < 12
    assert abs(about["joint"][1] - 131) < 15
    # the air in front of a knee is closer than the air behind it
    assert stack[12, 100:160, :30].mean() < 0.3 * stack[12, 100:160, 200:230].mean()


def test_the_same_as_nifti_gives_the_same_stack(tmp_path: Path) -> None:
    """The same series as DICOM and as NIfTI gives equal stacks."""
    import_exams(real(KNEE), tmp_path / "dicom", allow_missing_plane=True)
    import_exams(real(NIFTI), tmp_path / "nifti", allow_missing_plane=True)
    one, other = (
        Dataset(tmp_path / kind, allow_missing_plane=True)[0].stacks[Plane.SAGITTAL]
        for kind in ("dicom", "nifti")
    )
    np.testing.assert_array_equal(one, other)


def test_one_slice_of_512_pixels(tmp_path: Path) -> None:
    """A single slice is a stack of one; its side is given in Italian."""
    imported = import_exams(real(SLICE), tmp_path, allow_missing_plane=True)
    assert imported.exams["0000"]["side"] == "right"
    (found,) = Dataset(tmp_path, allow_missing_plane=True)
    stack = found.stacks[Plane.SAGITTAL]
    assert stack.shape == (1, 256, 256)
    assert (stack.min(), stack.max()) == (0, 255)


def test_a_brain_is_refused(tmp_path: Path) -> None:
    """For a refused brain, only the reason is written."""
    source = tmp_path / "some.zip"
    with zipfile.ZipFile(real(BRAIN)) as whole, zipfile.ZipFile(source, "w") as part:
        for name in whole.namelist()[::12]:
            part.writestr(name, whole.read(name))
    imported = import_exams(source, tmp_path / "out", allow_missing_plane=True)
    assert not imported.exams["0000"]["imported"]
    assert "derived from other images" in str(imported.exams["0000"]["reason"])
    assert "the headers don't state that this is a knee" in imported.exams["0000"]["warnings"]
    assert [file.name for file in (tmp_path / "out").rglob("*")] == ["import.json"]
