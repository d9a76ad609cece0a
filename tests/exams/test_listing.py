from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest

from mrknee.errors import MrkneeError
from mrknee.exams import (
    MRNET_SERIES,
    PLANES,
    Dataset,
    Plane,
    open_dataset,
    write_labels,
    write_stack,
)
from mrknee.exams.listing import folder_meant, list_stacks, unread_text

STACK = np.ones((2, 3, 4), dtype=np.uint8)


def write_exams(folder: Path, *ids: str) -> Path:
    """Writes exams with all planes into a folder."""
    for exam_id in ids:
        for plane in PLANES:
            write_stack(folder, plane, exam_id, STACK)
    return folder


def test_endings_and_folders_in_upper_case_are_read(tmp_path: Path) -> None:
    """`Axial/0001.NPY` is the axial stack of exam 0001."""
    write_exams(tmp_path, "0000", "0001")
    (tmp_path / "axial" / "0001.npy").rename(tmp_path / "axial" / "0001.NPY")
    (tmp_path / "axial").rename(tmp_path / "Axial")
    exams = Dataset(tmp_path)
    assert exams.ids == ("0000", "0001")
    assert exams.unread == ()
    assert exams[1].stacks[Plane.AXIAL].shape == STACK.shape
    assert open_dataset(tmp_path, "valid").ids == exams.ids


def test_every_file_is_read_or_listed(tmp_path: Path) -> None:
    """Archives, compressed and hidden stacks, text files and folders of synonyms are listed."""
    folder = write_exams(tmp_path, "0000", "0000 (1)")
    odd = ["axial/0001.npz", "axial/0002.npy.gz", "axial/.0003.npy", "axial/._0004.npy"]
    odd += ["coronal/notes.txt", "coronal/0005.npy.tmp", "coronal/0006"]
    for name in odd:
        (folder / name).write_bytes(b"")
    (folder / "sag").mkdir()
    (folder / "AXIAL").mkdir()
    for name in ("axial/.DS_Store", "axial/._0000.npy"):  # written by macOS
        (folder / name).write_bytes(b"")
    exams = Dataset(folder)
    assert exams.ids == ("0000", "0000 (1)")
    found = {file.relative_to(folder).as_posix() for file in exams.unread}
    assert found == {*odd, "sag", "AXIAL"}


def test_unread_files_are_summarised_in_one_line(tmp_path: Path) -> None:
    """The text counts the files and names the first ones."""
    text = unread_text([tmp_path / f"{number}.npz" for number in range(9)])
    assert text.startswith("9 files are not read")
    assert "0.npz" in text
    assert text.endswith("and 4 more")
    assert "\n" not in text


def test_two_files_of_one_stack_are_refused(tmp_path: Path) -> None:
    """`0001.npy` and `0001.NPY` in one folder are refused."""
    folder = write_exams(tmp_path, "0001")
    (folder / "axial" / "0001.NPY").write_bytes((folder / "axial" / "0001.npy").read_bytes())
    with pytest.raises(MrkneeError, match="belong to one exam") as error:
        list_stacks(folder, MRNET_SERIES)
    assert error.value.exam == "0001"


@pytest.mark.parametrize(("files", "labels"), [("NFD", "NFC"), ("NFC", "NFD"), ("NFD", "NFD")])
def test_accents_are_joined_however_they_are_stored(
    tmp_path: Path, files: str, labels: str
) -> None:
    """Decomposed file names (macOS) and composed labels are joined as one id."""
    exam_id = "M\u00fcller-3"
    stored = {form: unicodedata.normalize(form, exam_id) for form in ("NFC", "NFD")}
    write_exams(tmp_path / "train", stored[files])
    write_labels(tmp_path, "train", "acl", {stored[labels]: 1.0})
    exams = Dataset.of_split(tmp_path, "train")
    assert exams.ids == (exam_id,)
    assert exams.labels.tolist() == [[1.0]]
    assert exams[0].id == exam_id


def test_two_names_that_look_the_same_are_refused(tmp_path: Path) -> None:
    """File names that differ only in Unicode form are refused, and shown in ASCII."""
    forms = [unicodedata.normalize(form, "M\u00fcller") for form in ("NFC", "NFD")]
    write_exams(tmp_path, *forms)
    with pytest.raises(MrkneeError, match="belong to one exam") as error:
        Dataset(tmp_path)
    assert "\\xfc" in (error.value.found or "")
    assert "\\u0308" in (error.value.found or "")


def test_the_intended_folder_is_suggested(tmp_path: Path) -> None:
    """The data set is found from one or two levels above and below."""
    data = tmp_path / "a" / "MRNet-v1.0" / "MRNet-v1.0"
    write_exams(data / "train", "0000")
    write_exams(data / "valid", "0001")
    for given in (data.parent, data.parent.parent):
        assert folder_meant(given, data_set=True) == f"use the folder {data}"
        with pytest.raises(MrkneeError) as error:
            open_dataset(given, "valid")
        assert error.value.advice == f"use the folder {data}"
        with pytest.raises(MrkneeError) as error:
            Dataset.of_split(given, "train")
        assert error.value.advice == f"use the folder {data}"
    for given in (data / "train", data / "train" / "axial"):
        assert folder_meant(given, data_set=True) == f"use the folder {data}"
    train = data / "train"
    assert folder_meant(train / "axial", data_set=False) == f"use the folder {train}"


def test_the_advice_for_an_archive_is_to_unpack_it(tmp_path: Path) -> None:
    """The advice is given for a folder that contains only a zip, and for the zip itself."""
    archive = tmp_path / "data" / "MRNet-v1.0.zip"
    archive.parent.mkdir()
    archive.write_bytes(b"PK")
    for given in (archive.parent, archive):
        assert "unpack" in (folder_meant(given, data_set=True) or "")
        with pytest.raises(MrkneeError) as error:
            open_dataset(given, "valid")
        assert str(archive) in (error.value.advice or "")


def test_an_empty_folder_gives_no_advice(tmp_path: Path) -> None:
    """There is no advice if no exam is near."""
    folder = tmp_path / "a" / "b" / "c"
    folder.mkdir(parents=True)
    assert folder_meant(folder, data_set=False) is None


def write_splits(data: Path, *splits: str) -> Path:
    """Writes a data set with these splits, of one exam each."""
    for split in splits:
        write_exams(data / split, "0")
    return data


@pytest.mark.parametrize(
    ("splits", "wanted", "advice"),
    [
        (("train", "val"), "valid", "rename the folder {}/val to valid"),
        (("Train", "Valid"), "train", "rename the folder {}/Train to train"),
        (("train",), "valid", "add the folder valid/; existing splits: train"),
    ],
)
def test_another_split_is_never_suggested(
    tmp_path: Path, splits: tuple[str, ...], wanted: str, advice: str
) -> None:
    """The advice for a missing split never leads to reading the exams of another split."""
    data = write_splits(tmp_path, *splits)
    assert folder_meant(data, data_set=False, split=wanted) == advice.format(data)
    assert folder_meant(data, data_set=True, split=wanted) == advice.format(data)


def test_a_packed_split_is_found(tmp_path: Path) -> None:
    """The advice for a missing split is to unpack `train.zip`."""
    data = write_splits(tmp_path, "valid")
    (data / "train.zip").write_bytes(b"PK")
    assert folder_meant(data, data_set=True, split="train") == f"unpack {data / 'train.zip'}"


def test_stacks_next_to_the_folders_of_series_are_listed(tmp_path: Path) -> None:
    """Stacks, and folders with stacks, that are in no folder of a series are listed as unread."""
    data = write_splits(tmp_path, "valid") / "valid"
    np.save(data / "7.npy", STACK)
    (data / "coronal").rename(data / "Coronal_PD")
    (data / "notes").mkdir()
    (data / "import.json").write_text("{}")
    assert [file.name for file in list_stacks(data, MRNET_SERIES).unread] == ["7.npy", "Coronal_PD"]
    with pytest.raises(MrkneeError, match="lacks the series coronal") as error:
        Dataset(data)
    assert "Coronal_PD" in (error.value.found or "")
