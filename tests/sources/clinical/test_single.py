"""`Exam.from_dicom`: one study as an exam, without writing anything."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mrknee.errors import DataError
from mrknee.exams import PLANES, Dataset, Exam, Plane
from mrknee.sources.clinical.importing import import_exams
from tests.sources.clinical.hospital import PROTOCOL, export_study


def test_the_exam_equals_an_imported_one(tmp_path: Path) -> None:
    """`from_dicom` gives the stacks of an import under the caller's id and writes nothing."""
    source = export_study(tmp_path / "study")
    before = sorted(tmp_path.rglob("*"))
    exam = Exam.from_dicom(str(source), id="mine")
    assert sorted(tmp_path.rglob("*")) == before
    import_exams(source, tmp_path / "out")
    (imported,) = Dataset(tmp_path / "out")
    assert exam.id == "mine"
    for plane in PLANES:
        assert np.array_equal(exam.stacks[plane], imported.stacks[plane])


def test_what_is_incomplete_becomes_a_remark(tmp_path: Path) -> None:
    """Unreadable files are remarked as `mrknee import` reports them."""
    source = export_study(tmp_path / "study")
    for file in sorted(source.rglob("*sagittal/*"))[:3]:
        file.write_bytes(file.read_bytes()[:600])
    texts = [remark.text for remark in Exam.from_dicom(source).remarks]
    (record,) = import_exams(source, tmp_path / "out").exams.values()
    assert record["incomplete"]
    assert set(record["incomplete"]) < set(texts)
    assert texts[-1].startswith("a DICOM file is truncated")
    assert texts[-1].endswith("(files: 3)")


def test_two_studies_are_not_one_exam(tmp_path: Path) -> None:
    """Two studies are an error that states their number."""
    export_study(tmp_path / "both" / "a", "study-a")
    export_study(tmp_path / "both" / "b", "study-b")
    with pytest.raises(DataError) as caught:
        Exam.from_dicom(tmp_path / "both")
    assert (caught.value.code, caught.value.found) == ("not-one-study", "2 studies or knees")


def test_a_study_without_a_plane_is_refused_unless_allowed(tmp_path: Path) -> None:
    """A study without a plane is refused with the reason; if allowed, it has the others."""
    scans = [scan for scan in PROTOCOL if scan.plane is not Plane.AXIAL]
    source = export_study(tmp_path / "study", scans=scans)
    with pytest.raises(DataError, match="no series for the plane axial") as caught:
        Exam.from_dicom(source)
    assert caught.value.code == "study-refused"
    exam = Exam.from_dicom(source, allow_missing_plane=True)
    assert list(exam.stacks) == [Plane.CORONAL, Plane.SAGITTAL]
