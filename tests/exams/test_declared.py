"""Data sets that declare their series: six series in three planes, and a single series."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from mrknee.errors import DataError
from mrknee.exams import (
    Dataset,
    Plane,
    Series,
    SeriesList,
    open_dataset,
    write_labels,
    write_series,
    write_stack,
)
from mrknee.exams.listing import folder_meant, list_stacks
from tests.exams.test_series import SIX


def write_six(root: Path) -> Path:
    """Writes two splits of three exams with six series; exam N lacks the series at position N."""
    write_series(root, SIX)
    for split, first in (("train", 0), ("valid", 3)):
        for number in range(first, first + 3):
            for position, name in enumerate(SIX.names):
                if position != number:
                    stack = np.full((2 + position, 3, 4), number, np.uint8)
                    write_stack(root / split, name, f"{number}", stack, among=SIX)
        write_labels(root, split, "acl", {f"{n}": float(n % 2) for n in range(first, first + 3)})
    return root


def test_six_series_are_read_each_from_its_folder(tmp_path: Path) -> None:
    """Exams have the existing series in declared order, and know all declared series."""
    data = open_dataset(write_six(tmp_path), split="train", allow_missing_plane=True)
    assert data.series == SIX
    exam = data["1"]
    assert exam.series == SIX
    assert tuple(exam.stacks) == tuple(name for name in SIX.names if name != "sag_t1")
    assert [len(stack) for stack in exam.stacks.values()] == [2, 4, 5, 6, 7]
    assert data.series_of(1) == tuple(exam.stacks)
    assert data.shapes(1) == {name: stack.shape for name, stack in exam.stacks.items()}
    assert data.labels.tolist() == [[0], [1], [0]]


def test_a_missing_series_is_an_error_that_names_it(tmp_path: Path) -> None:
    """The error names the file, the exam and the number of incomplete exams."""
    with pytest.raises(DataError, match="lacks the series sag_pd_fs") as error:
        open_dataset(write_six(tmp_path), split="train")
    assert error.value.exam == "0"
    assert error.value.file == str(tmp_path / "train" / "sag_pd_fs" / "0.npy")
    assert "3 of 3 exams lack a series" in (error.value.found or "")


def test_folders_of_planes_are_not_read_if_other_series_are_declared(tmp_path: Path) -> None:
    """`sagittal/` is not a declared series here: it is listed as unread."""
    write_six(tmp_path)
    write_stack(tmp_path / "train", "sagittal", "0", np.ones((1, 3, 4), np.uint8))
    data = open_dataset(tmp_path, split="train", allow_missing_plane=True)
    assert [path.name for path in data.unread] == ["sagittal"]
    assert "sagittal" not in data["0"].stacks


def test_folders_in_upper_case_are_the_series(tmp_path: Path) -> None:
    """`SAG_T1/0.NPY` is read as the series `sag_t1` of exam `0`."""
    folder = write_six(tmp_path) / "train"
    (folder / "sag_t1").rename(folder / "SAG_T1")
    (folder / "SAG_T1" / "0.npy").rename(folder / "SAG_T1" / "0.NPY")
    data = open_dataset(tmp_path, split="train", allow_missing_plane=True)
    assert "sag_t1" in data["0"].stacks
    assert data.unread == ()


def test_series_csv_is_found_in_the_folder_or_its_parent(tmp_path: Path) -> None:
    """A split's folder uses the file in its parent, and a folder with its own file uses that."""
    write_six(tmp_path / "data")
    split = tmp_path / "data" / "valid"
    assert Dataset(split, allow_missing_plane=True).series == SIX
    inside = shutil.copytree(split, tmp_path / "elsewhere" / "exams")
    with pytest.raises(DataError, match="contains no exams"):  # MRNet's series without the file
        Dataset(inside)
    write_series(inside, SIX)
    assert open_dataset(inside, allow_missing_plane=True).series == SIX


def test_one_series_alone_is_a_data_set(tmp_path: Path) -> None:
    """With only `sagittal` declared, exams are complete, and folders of other planes are unread."""
    one = SeriesList([Series("sagittal", "sagittal")])
    write_series(tmp_path, one)
    for split, exam_id in (("train", "0"), ("valid", "1")):
        for name in ("sagittal", "axial"):
            write_stack(tmp_path / split, name, exam_id, np.ones((2, 3, 4), np.uint8))
    data = open_dataset(tmp_path, split="train")
    assert (data.series, tuple(data["0"].stacks)) == (one, ("sagittal",))
    assert [path.name for path in data.unread] == ["axial"]
    with pytest.raises(DataError, match="name of a series is unknown"):
        write_stack(tmp_path, "axial", "0", np.ones((2, 3, 4), np.uint8), among=one)


def test_series_of_one_plane_keep_their_own_plane(tmp_path: Path) -> None:
    """Several series may share a plane, which the exam states per series."""
    exam = open_dataset(write_six(tmp_path), split="train", allow_missing_plane=True)[0]
    assert [exam.series.planes[name] for name in ("sag_t1", "ax_gre")] == [
        Plane.SAGITTAL,
        Plane.AXIAL,
    ]


@pytest.mark.parametrize("where", ["", "train"])
def test_an_invalid_series_csv_is_an_error_of_every_reader(tmp_path: Path, where: str) -> None:
    """A folder with an invalid `series.csv` is never read with MRNet's series instead."""
    (write_six(tmp_path) / where / "series.csv").write_text("name\nsag\n")
    for given in (tmp_path, tmp_path / "train"):
        with pytest.raises(DataError) as error:
            open_dataset(given, split="train")
        assert error.value.code == "declaration"
        assert error.value.file == str(tmp_path / where / "series.csv")


def test_the_data_set_is_suggested_for_the_folder_of_a_declared_series(tmp_path: Path) -> None:
    """A path that is one level too deep is recognised by the declared names too."""
    data = write_six(tmp_path / "data")
    assert folder_meant(data / "train" / "sag_t1", data_set=True) == f"use the folder {data}"
    assert list_stacks(data / "train", SIX).unread == ()
