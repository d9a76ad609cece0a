from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from mrknee import check_dataset
from mrknee.errors import DataError
from mrknee.exams import cut_labels, has_soft, label_files, open_dataset, read_labels, write_labels

SOFT = {"0000": 0.25, "0001": 1.0, "0002": 0.0, "0003": 0.5, "0004": 1 / 3, "0005": float("nan")}


def test_soft_labels_are_written_and_read(tmp_path: Path) -> None:
    """Soft labels are written with nine digits, 0 and 1 without decimals."""
    file = write_labels(tmp_path, "train", "acl", SOFT)
    assert file.read_text() == "0000,0.25\n0001,1\n0002,0\n0003,0.5\n0004,0.333333333\n0005,\n"
    read = read_labels(file, soft=True)
    np.testing.assert_allclose(list(read.values()), list(SOFT.values()), atol=1e-9)


@pytest.mark.parametrize("written", ["0.5", ".5", "5e-1", "0.50", "1.0", "0.", "1E0", "1e-9"])
def test_soft_labels_are_numbers_from_0_to_1(tmp_path: Path, written: str) -> None:
    """The usual notations of decimal numbers are accepted as soft labels."""
    (tmp_path / "train-acl.csv").write_text(f"0000,{written}\n")
    assert read_labels(tmp_path / "train-acl.csv", soft=True) == {"0000": float(written)}


@pytest.mark.parametrize(
    "written", ["1.01", "-0.1", "2", "nan", "inf", "0_1", "50%", "yes", "+0.5"]
)
def test_invalid_labels_are_refused_even_if_soft_labels_are_allowed(
    tmp_path: Path, written: str
) -> None:
    """The error states the valid range."""
    (tmp_path / "train-acl.csv").write_text(f"0000,{written}\n")
    with pytest.raises(DataError, match="neither a number from 0 to 1") as error:
        read_labels(tmp_path / "train-acl.csv", soft=True)
    assert error.value.code == "label-value"
    assert "between them" in (error.value.expected or "")


def test_a_data_set_accepts_soft_labels_only_if_allowed(toy: Path) -> None:
    """By default soft labels are an error that names the setting."""
    labels = read_labels(toy / "train-acl.csv") | {"0000": 0.7}
    write_labels(toy, "train", "acl", labels)
    with pytest.raises(DataError, match="neither 0 nor 1") as error:
        open_dataset(toy, split="train")
    assert "soft_labels" in (error.value.advice or "")
    data = open_dataset(toy, split="train", soft_labels=True)
    assert data[0].labels["acl"] == data.labels[0, 1] == 0.7


def test_files_of_a_split_with_a_longer_name_are_not_read(toy: Path) -> None:
    """`valid-external-acl.csv` belongs to `valid-external`, if there is such a folder."""
    shutil.copytree(toy / "valid", toy / "valid-external")
    for file in toy.glob("valid-*.csv"):
        shutil.copy(file, toy / file.name.replace("valid-", "valid-external-"))
    for split in ("valid", "valid-external"):
        assert list(open_dataset(toy, split).findings or ()) == ["abnormal", "acl", "meniscus"]
    shutil.rmtree(toy / "valid-external")
    assert "external-acl" in label_files(toy / "valid")


def test_the_case_of_a_suffix_is_ignored(toy: Path) -> None:
    """As that of stacks is; tables and stacks in a wrong place are reported in any case."""
    (toy / "train-acl.csv").rename(toy / "train-acl.CSV")
    assert "acl" in (open_dataset(toy, "train").findings or ())
    (toy / "labels.CSV").write_text("")
    shutil.copy(next((toy / "train").rglob("*.npy")), toy / "stray.NPY")
    extra = {p.file for p in check_dataset(toy).problems if p.code == "extra-file"}
    assert extra == {"labels.CSV", "stray.NPY"}


def test_labels_are_cut_at_one_half() -> None:
    """0, 1 and NaN are unchanged; soft labels are rounded at 0.5."""
    labels = np.array([[0, 1, np.nan], [0.5, 0.49, 1e-9]])
    np.testing.assert_array_equal(cut_labels(labels), [[0, 1, np.nan], [1, 0, 0]])
    assert has_soft(labels)
    assert not has_soft(labels[0])
