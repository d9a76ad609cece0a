"""Checks of data sets that declare their series."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mrknee.checks.check import check
from mrknee.checks.layout import check_layout, listings_of, series_of_splits, split_names
from mrknee.checks.table import table
from mrknee.errors import DataError
from mrknee.exams import PLANES, Series, SeriesList, read_labels, write_labels, write_series

SIX = SeriesList(
    Series(f"{plane[:3]}_{contrast}", plane, weighting)
    for plane in PLANES
    for contrast, weighting in (("pd", "PD"), ("t1", "T1"))
)


@pytest.fixture
def six(knees: Path) -> Path:
    """Seven phantoms with two series per plane: the second is darker, its slices reversed."""
    write_series(knees, SIX)
    for file in [*knees.glob("train/*/000[4-9].npy"), *knees.glob("valid/*/0013.npy")]:
        file.unlink()
    for split, ids in (("train", range(4)), ("valid", range(10, 13))):
        for plane in PLANES:
            first, second = (knees / split / f"{plane[:3]}_{kind}" for kind in ("pd", "t1"))
            (knees / split / plane).rename(first)
            second.mkdir()
            for file in first.iterdir():
                np.save(second / file.name, np.load(file)[::-1] // 2)
        for finding in ("abnormal", "acl", "meniscus"):
            labels = read_labels(knees / f"{split}-{finding}.csv")
            write_labels(knees, split, finding, {f"{i:04d}": labels[f"{i:04d}"] for i in ids})
    return knees


def layout(root: Path) -> list[tuple[str, str]]:
    """Returns codes and files of the problems of the layout."""
    splits = split_names(root)
    series, problems = series_of_splits(root, splits)
    listings, unlisted = listings_of(root, splits, series)
    _, misplaced = check_layout(root, listings, series)
    return [(p.code, p.file) for p in [*problems, *unlisted, *misplaced]]


def test_each_fault_is_reported_by_its_series(six: Path) -> None:
    """Missing series, copies and stacks of another plane are reported per declared series."""
    (six / "train" / "cor_t1" / "0001.npy").unlink()
    shutil.copy(six / "train" / "axi_pd" / "0002.npy", six / "train" / "axi_t1" / "0002.npy")
    shutil.copy(six / "train" / "sag_t1" / "0003.npy", six / "valid" / "sag_t1" / "0012.npy")
    np.save(
        six / "train" / "sag_t1" / "0001.npy", np.load(six / "train" / "axi_t1" / "0001.npy")[1:]
    )
    checkup = check(six)
    assert {(p.code, p.file) for p in checkup.problems} == {
        ("missing-plane", "train/cor_t1/0001.npy"),
        ("copy-planes", "train/axi_t1/0002.npy"),
        ("copy-across", "valid/sag_t1/0012.npy"),
        ("other-plane", "train/sag_t1/0001.npy"),
    }
    (misplaced,) = (p for p in checkup.problems if p.code == "other-plane")
    assert misplaced.text.startswith("looks axial")
    assert json.loads(checkup.to_json())["pairs"][0]["series"] == {"sag_t1": 0.0}
    assert tuple(checkup.splits["train"].slices) == SIX.names
    assert "sag_t1" in table(checkup)


def test_exams_may_lack_series_if_that_is_allowed(six: Path) -> None:
    """`--allow-missing-plane`: a missing series is no problem, other problems are reported."""
    (six / "train" / "cor_t1" / "0001.npy").unlink()
    (six / "extra.csv").write_text("")
    codes = [
        {p.code for p in check(six, allow_missing_plane=one).problems} for one in (False, True)
    ]
    assert codes[0] - codes[1] == {"missing-plane"}
    assert "extra-file" in codes[1]


def test_the_layout_of_six_series_has_no_problem(six: Path) -> None:
    """`series.csv` isn't an unrecognised file, and no series is missing."""
    assert layout(six) == []


def test_folders_of_other_names_are_reported(six: Path) -> None:
    """`sagittal/` is not recognised if the data set declares other series."""
    shutil.copytree(six / "train" / "sag_pd", six / "train" / "sagittal")
    assert layout(six) == [("extra-file", "train/sagittal")]


def test_one_series_alone_is_checked(knees: Path) -> None:
    """With only sagittal declared, nothing is missing, and planes aren't compared."""
    write_series(knees, SeriesList([Series("sagittal", "sagittal")]))
    for split in ("train", "valid"):
        for plane in ("axial", "coronal"):
            shutil.rmtree(knees / split / plane)
    checkup = check(knees)
    assert checkup.problems == ()
    assert list(checkup.splits["valid"].slices) == ["sagittal"]
    assert not checkup.planes_compared


def test_a_folder_with_the_series_inside_is_checked(six: Path) -> None:
    """`series.csv` may be in the folder or its parent, and isn't an unrecognised file."""
    assert check(six / "valid").problems == ()
    (six / "series.csv").rename(six / "valid" / "series.csv")
    assert check(six / "valid").problems == ()


def test_series_csv_above_the_data_set_is_ignored(knees: Path) -> None:
    """The declaration of another data set, one folder above, has no effect."""
    write_series(knees.parent, SIX)
    assert layout(knees) == []


def test_a_split_that_declares_other_series_is_reported(six: Path) -> None:
    """Two equal declarations are accepted; different ones are reported."""
    write_series(six / "valid", SIX)
    assert layout(six) == []
    write_series(six / "valid", SIX.only(SIX.names[:2]))
    assert [p for p in layout(six) if p[0] != "extra-file"] == [("series-differ", "valid/")]


@pytest.mark.parametrize("where", ["", "train"])
def test_an_invalid_series_csv_is_one_error(six: Path, where: str) -> None:
    """Without valid series nothing else can be checked."""
    (six / where / "series.csv").write_text("name,plane\nSag PD,sagittal\n")
    with pytest.raises(DataError) as error:
        check(six)
    assert (error.value.code, error.value.file) == ("series", str(six / where / "series.csv"))
