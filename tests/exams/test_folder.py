from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mrknee.errors import DataError, MrkneeError
from mrknee.exams import (
    PLANES,
    Dataset,
    Plane,
    open_dataset,
    read_labels,
    write_labels,
    write_stack,
)
from tests.conftest import write_toy_dataset

STACK = np.ones((2, 3, 4), dtype=np.uint8)


def write_exam(root: Path, exam_id: str, split: str = "train") -> None:
    """Writes an exam with all planes."""
    for plane in PLANES:
        write_stack(root / split, plane, exam_id, STACK)


def test_a_written_data_set_is_read(toy: Path) -> None:
    """Ids, labels and pixels are read as they were written."""
    exams = Dataset.of_split(toy, "train")
    assert exams.ids == tuple(f"{i:04d}" for i in range(12))
    assert exams.findings == ("abnormal", "acl", "meniscus")
    assert exams.labels.shape == (12, 3)
    exam = exams[5]
    assert exam.labels == {"abnormal": 1.0, "acl": 0.0, "meniscus": 1.0}
    on_disk = np.load(toy / "train" / "coronal" / "0005.npy")
    assert np.array_equal(exam.stacks[Plane.CORONAL], on_disk)


def test_ids_of_a_split_may_start_anywhere(toy: Path) -> None:
    """A split is read whatever the ids of its exams are."""
    assert Dataset.of_split(toy, "valid").ids[0] == "0012"


@pytest.mark.parametrize("count", [1, 12])
def test_any_number_of_findings_is_discovered(tmp_path: Path, count: int) -> None:
    """Each label file becomes a finding, whether there is one or twelve."""
    names = [f"finding{i:02d}" for i in range(count)]
    root = write_toy_dataset(tmp_path, 3, 1, findings=names)
    assert Dataset.of_split(root, "train").findings == tuple(names)


def test_labels_are_joined_by_id_not_by_row(tmp_path: Path) -> None:
    """Shuffling the lines of a label file changes nothing (the reference joins by row)."""
    for exam_id in ("0000", "0001", "0002"):
        write_exam(tmp_path, exam_id)
    write_labels(tmp_path, "train", "acl", {"0002": 1.0, "0000": 0.0, "0001": 1.0})
    write_labels(tmp_path, "train", "meniscus", {"0001": 0.0, "0002": 0.0, "0000": 1.0})
    labels = Dataset.of_split(tmp_path, "train").labels
    assert labels.tolist() == [[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]


def test_a_missing_label_is_unknown(tmp_path: Path) -> None:
    """An empty label and a missing line are NaN, never 0."""
    for exam_id in ("0000", "0001", "0002"):
        write_exam(tmp_path, exam_id)
    (tmp_path / "train-acl.csv").write_text("0000,1\n0001,\n")
    labels = Dataset.of_split(tmp_path, "train").labels[:, 0]
    assert labels[0] == 1
    assert np.isnan(labels[1:]).all()


def test_findings_can_be_chosen(toy: Path) -> None:
    """Only the requested findings are read; one without a label file is an error."""
    assert Dataset.of_split(toy, "train", findings=["acl"]).labels.shape == (12, 1)
    with pytest.raises(MrkneeError, match="cyst"):
        Dataset.of_split(toy, "train", findings=["cyst"])


def test_findings_of_a_folder_without_labels_cant_be_chosen(toy: Path) -> None:
    """A folder of series has no label files; the error names none."""
    with pytest.raises(DataError) as error:
        open_dataset(toy / "valid", findings=["acl"])
    assert error.value.code == "no-labels"
    assert "None" not in str(error.value)


def test_a_folder_without_labels_is_read(toy: Path) -> None:
    """Exams can be read without label files."""
    exams = Dataset(toy / "train")
    assert exams.findings is None
    assert exams[0].labels == {}


def test_exams_may_have_any_number_and_size_of_slices(tmp_path: Path) -> None:
    """One slice, one pixel and planes of different sizes are accepted."""
    for plane, shape in zip(PLANES, [(1, 1, 1), (61, 5, 9), (2, 300, 7)], strict=True):
        write_stack(tmp_path / "train", plane, "0000", np.ones(shape, dtype=np.uint8))
    exam = Dataset(tmp_path / "train")[0]
    assert [exam.stacks[p].shape for p in PLANES] == [(1, 1, 1), (61, 5, 9), (2, 300, 7)]


def test_a_missing_plane_is_an_error_by_default(toy: Path) -> None:
    """The error names the file and the exam; incomplete exams can be allowed explicitly."""
    missing = toy / "train" / "sagittal" / "0003.npy"
    missing.unlink()
    with pytest.raises(MrkneeError, match="sagittal") as error:
        Dataset.of_split(toy, "train")
    assert error.value.file == str(missing)
    assert error.value.exam == "0003"
    exams = Dataset.of_split(toy, "train", allow_missing_plane=True)
    assert tuple(exams[3].stacks) == (Plane.AXIAL, Plane.CORONAL)


def test_an_unknown_id_in_the_labels_is_an_error(toy: Path) -> None:
    """`0` is not `0000`: ids are text, and unknown ids are refused."""
    with (toy / "train-acl.csv").open("a") as file:
        file.write("0,1\n")
    with pytest.raises(MrkneeError, match="doesn't exist") as error:
        Dataset.of_split(toy, "train")
    assert error.value.exam == "0"
    assert error.value.file == str(toy / "train-acl.csv")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0000,1\n0000,1\n", "two labels"),
        ("0000,2\n", "neither 0 nor 1"),
        ("0000,0.5\n", "neither 0 nor 1"),
        ("0000,1.01\n", "neither 0 nor 1"),
        ("id,label\n0000,1\n", "neither 0 nor 1"),
        ("0000,nan\n", "neither 0 nor 1"),
        ("0000\n", "invalid line"),
        ("0000,1,1\n", "invalid line"),
        (",1\n", "invalid line"),
    ],
)
def test_a_bad_label_file_is_refused(tmp_path: Path, text: str, words: str) -> None:
    """A duplicate id, an invalid label, a header or a malformed line is an error with its line."""
    path = tmp_path / "train-acl.csv"
    path.write_text(text)
    with pytest.raises(MrkneeError, match=words) as error:
        read_labels(path)
    assert error.value.file == str(path)
    assert "line" in (error.value.found or "")


def test_labels_may_be_decimal_numbers(tmp_path: Path) -> None:
    """0 and 1 are accepted as pandas writes them in a column with missing values."""
    path = tmp_path / "train-acl.csv"
    path.write_text("0000,0.0\n0001,1.0\n0002,\n0003,1.\n0004,0.000\n")
    labels = read_labels(str(path))
    assert [labels[f"000{i}"] for i in (0, 1, 3, 4)] == [0, 1, 1, 0]
    assert np.isnan(labels["0002"])


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("exam,acl\n0000,1\n", "delete the header line"),
        ("exam,acl\n0000,1.0\n0001,\n", "delete the header line"),
        ("0000,0.5\n0001,1\n", "soft_labels"),
        ("0000,5\n0001,1\n", None),  # a label, whatever it means
        ("0000,l\n0001,1\n", None),  # the letter
        ("anna,positiv\nberta,negativ\n", None),
        ("exam,acl\n", None),  # nothing below it says that it is a header
        ("0000,1\nexam,acl\n0001,1\n", None),  # not the first line
        ("Anna,yes\nBerta,1\n", "write 1"),
        ("0000,No\n0001,1\n", "write 0"),
        ("0000,NaN\n0001,1\n", "write nothing"),
    ],
)
def test_advice_to_delete_a_header_is_given_only_if_it_is_certain(
    tmp_path: Path, text: str, advice: str | None
) -> None:
    """Following the advice never deletes a label."""
    path = tmp_path / "train-acl.csv"
    path.write_text(text)
    with pytest.raises(MrkneeError, match="neither 0 nor 1") as error:
        read_labels(path)
    if advice is None:
        assert error.value.advice is None
    else:
        assert advice in (error.value.advice or "")


def test_the_case_of_a_label_files_name_is_ignored(tmp_path: Path) -> None:
    """`train-ACL.csv` belongs to acl; together with `train-acl.csv` it is refused."""
    write_exam(tmp_path, "0000")
    (tmp_path / "train-ACL.csv").write_text("0000,1\n")
    exams = Dataset.of_split(str(tmp_path), "train", findings=["Acl"])
    assert exams[0].labels == {"acl": 1.0}
    (tmp_path / "train-acl.csv").write_text("0000,1\n")
    with pytest.raises(MrkneeError, match="two label files"):
        Dataset.of_split(tmp_path, "train")


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("130", "leading zeros"),
        ("0130.npy", "a file suffix"),
        ("130.0", "resembles"),
        ("train/0130", "a folder's name"),
        ("'0130", "quotation marks"),
    ],
)
def test_the_error_says_how_ids_differ(tmp_path: Path, written: str, reason: str) -> None:
    """The error names both ids, how they differ, and the label file."""
    write_exam(tmp_path, "0130")
    (tmp_path / "train-acl.csv").write_text(f"{written},1\n")
    with pytest.raises(MrkneeError, match="doesn't exist") as error:
        Dataset.of_split(tmp_path, "train")
    assert error.value.file == str(tmp_path / "train-acl.csv")
    assert reason in (error.value.found or "")
    assert "resembles '0130'" in (error.value.found or "")


def test_line_endings_and_a_byte_order_mark_do_not_matter(tmp_path: Path) -> None:
    """Label files written by spreadsheet programs are read."""
    path = tmp_path / "train-acl.csv"
    path.write_bytes("\ufeff0000,1\r\n0001, 0 \r\n\r\n".encode())
    assert read_labels(path) == {"0000": 1.0, "0001": 0.0}


def test_any_id_that_a_csv_can_hold_is_read(tmp_path: Path) -> None:
    """Ids with a comma or a quotation mark are read as they were written."""
    labels = {"knee, left": 1.0, 'the "other" one': 0.0, "0001": 1.0}
    assert read_labels(write_labels(tmp_path, "train", "acl", labels)) == labels


def test_binary_labels_are_refused(tmp_path: Path) -> None:
    """A file that isn't text is a `MrkneeError`."""
    path = tmp_path / "train-acl.csv"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(MrkneeError, match="not text"):
        read_labels(path)


@pytest.mark.parametrize("make", [False, True], ids=["no folder", "empty folder"])
def test_no_exams_is_an_error(tmp_path: Path, make: bool) -> None:
    """The error for an empty or missing folder states what was expected."""
    folder = tmp_path / "train"
    if make:
        folder.mkdir()
    with pytest.raises(MrkneeError, match="axial"):
        Dataset(folder)


def test_the_error_for_an_unknown_split_lists_the_folders(toy: Path) -> None:
    """`val` is not `valid`: the error lists the folders of the data set."""
    with pytest.raises(MrkneeError, match="valid"):
        Dataset.of_split(toy, "val")


def test_labels_of_a_finding_may_be_missing_if_allowed(toy: Path) -> None:
    """By default a missing label file is refused; if allowed, the finding's labels are unknown."""
    (toy / "valid-acl.csv").unlink()
    with pytest.raises(MrkneeError, match="there are no labels for 'acl'"):
        Dataset.of_split(toy, "valid", findings=["abnormal", "acl"])
    folder = Dataset.of_split(toy, "valid", findings=["abnormal", "acl"], allow_missing_labels=True)
    assert folder.findings == ("abnormal", "acl")
    assert np.isnan(folder.labels[:, 1]).all()
    assert not np.isnan(folder.labels[:, 0]).any()


@pytest.mark.parametrize("line", ["0000;1", "0000\t1", "0000 1"])
def test_another_separator_is_named(tmp_path: Path, line: str) -> None:
    """For other separators the advice says to use a comma."""
    file = tmp_path / "train-acl.csv"
    file.write_text(f"{line}\n")
    with pytest.raises(MrkneeError, match="invalid line") as error:
        read_labels(file)
    assert error.value.advice == "separate id and label with a comma"
