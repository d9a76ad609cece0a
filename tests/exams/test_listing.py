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
    """Exams of all planes in a folder."""
    for exam_id in ids:
        for plane in PLANES:
            write_stack(folder, plane, exam_id, STACK)
    return folder


def test_endings_and_folders_in_upper_case_are_read(tmp_path: Path) -> None:
    """`Axial/0001.NPY` is the axial stack of 0001."""
    write_exams(tmp_path, "0000", "0001")
    (tmp_path / "axial" / "0001.npy").rename(tmp_path / "axial" / "0001.NPY")
    (tmp_path / "axial").rename(tmp_path / "Axial")
    exams = Dataset(tmp_path)
    assert exams.ids == ("0000", "0001")
    assert exams.unread == ()
    assert exams[1].stacks[Plane.AXIAL].shape == STACK.shape
    assert open_dataset(tmp_path, "valid").ids == exams.ids


def test_every_file_is_read_or_listed(tmp_path: Path) -> None:
    """Archives, compressed and hidden stacks, texts and folders by synonyms are not passed over."""
    folder = write_exams(tmp_path, "0000", "0000 (1)")
    odd = ["axial/0001.npz", "axial/0002.npy.gz", "axial/.0003.npy", "axial/._0004.npy"]
    odd += ["coronal/notes.txt", "coronal/0005.npy.tmp", "coronal/0006"]
    for name in odd:
        (folder / name).write_bytes(b"")
    (folder / "sag").mkdir()
    (folder / "AXIAL").mkdir()
    for name in ("axial/.DS_Store", "axial/._0000.npy"):  # what macOS leaves
        (folder / name).write_bytes(b"")
    exams = Dataset(folder)
    assert exams.ids == ("0000", "0000 (1)")
    found = {file.relative_to(folder).as_posix() for file in exams.unread}
    assert found == {*odd, "sag", "AXIAL"}


def test_what_is_not_read_is_one_line(tmp_path: Path) -> None:
    """Many files are counted, and the first are named."""
    text = unread_text([tmp_path / f"{number}.npz" for number in range(9)])
    assert text.startswith("9 files are not read")
    assert "0.npz" in text
    assert text.endswith("and 4 more")
    assert "\n" not in text


def test_two_files_of_one_stack_are_refused(tmp_path: Path) -> None:
    """`0001.npy` beside `0001.NPY`: neither is taken by chance."""
    folder = write_exams(tmp_path, "0001")
    (folder / "axial" / "0001.NPY").write_bytes((folder / "axial" / "0001.npy").read_bytes())
    with pytest.raises(MrkneeError, match="one exam's") as error:
        list_stacks(folder, MRNET_SERIES)
    assert error.value.exam == "0001"


@pytest.mark.parametrize(("files", "labels"), [("NFD", "NFC"), ("NFC", "NFD"), ("NFD", "NFD")])
def test_accents_are_joined_however_they_are_stored(
    tmp_path: Path, files: str, labels: str
) -> None:
    """File names that macOS decomposed and labels that were typed are one id."""
    exam_id = "M\u00fcller-3"
    stored = {form: unicodedata.normalize(form, exam_id) for form in ("NFC", "NFD")}
    write_exams(tmp_path / "train", stored[files])
    write_labels(tmp_path, "train", "acl", {stored[labels]: 1.0})
    exams = Dataset.of_split(tmp_path, "train")
    assert exams.ids == (exam_id,)
    assert exams.labels.tolist() == [[1.0]]
    assert exams[0].id == exam_id


def test_two_names_that_look_the_same_are_refused(tmp_path: Path) -> None:
    """Files that differ in how an accent is stored only are told apart in ASCII, and refused."""
    forms = [unicodedata.normalize(form, "M\u00fcller") for form in ("NFC", "NFD")]
    write_exams(tmp_path, *forms)
    with pytest.raises(MrkneeError, match="one exam's") as error:
        Dataset(tmp_path)
    assert "\\xfc" in (error.value.found or "")
    assert "\\u0308" in (error.value.found or "")


def test_the_folder_meant_is_named(tmp_path: Path) -> None:
    """One folder too high, two too high, one too deep, two too deep."""
    data = tmp_path / "a" / "MRNet-v1.0" / "MRNet-v1.0"
    write_exams(data / "train", "0000")
    write_exams(data / "valid", "0001")
    for given in (data.parent, data.parent.parent):
        assert folder_meant(given, data_set=True) == f"name the folder {data}"
        with pytest.raises(MrkneeError) as error:
            open_dataset(given, "valid")
        assert error.value.advice == f"name the folder {data}"
        with pytest.raises(MrkneeError) as error:
            Dataset.of_split(given, "train")
        assert error.value.advice == f"name the folder {data}"
    for given in (data / "train", data / "train" / "axial"):
        assert folder_meant(given, data_set=True) == f"name the folder {data}"
    train = data / "train"
    assert folder_meant(train / "axial", data_set=False) == f"name the folder {train}"


def test_an_archive_is_to_be_unpacked(tmp_path: Path) -> None:
    """A folder with nothing but a zip, and the zip itself."""
    archive = tmp_path / "data" / "MRNet-v1.0.zip"
    archive.parent.mkdir()
    archive.write_bytes(b"PK")
    for given in (archive.parent, archive):
        assert "unpack" in (folder_meant(given, data_set=True) or "")
        with pytest.raises(MrkneeError) as error:
            open_dataset(given, "valid")
        assert str(archive) in (error.value.advice or "")


def test_nothing_near_gives_no_advice(tmp_path: Path) -> None:
    """An empty folder far from any exam."""
    folder = tmp_path / "a" / "b" / "c"
    folder.mkdir(parents=True)
    assert folder_meant(folder, data_set=False) is None


def write_splits(data: Path, *splits: str) -> Path:
    """A data set with these splits, of one exam each."""
    for split in splits:
        write_exams(data / split, "0")
    return data


@pytest.mark.parametrize(
    ("splits", "wanted", "advice"),
    [
        (("train", "val"), "valid", "rename the folder {}/val to valid"),
        (("Train", "Valid"), "train", "rename the folder {}/Train to train"),
        (("train",), "valid", "add the folder valid/; the splits that are there: train"),
    ],
)
def test_another_split_is_never_advised(
    tmp_path: Path, splits: tuple[str, ...], wanted: str, advice: str
) -> None:
    """A data set that lacks a split isn't entered: its other exams would be read in their place."""
    data = write_splits(tmp_path, *splits)
    assert folder_meant(data, data_set=False, split=wanted) == advice.format(data)
    assert folder_meant(data, data_set=True, split=wanted) == advice.format(data)


def test_a_packed_split_is_to_be_unpacked(tmp_path: Path) -> None:
    """`train.zip` beside a folder valid/ is the split that is missing."""
    data = write_splits(tmp_path, "valid")
    (data / "train.zip").write_bytes(b"PK")
    assert folder_meant(data, data_set=True, split="train") == f"unpack {data / 'train.zip'}"


def test_stacks_beside_the_series_folders_are_listed(tmp_path: Path) -> None:
    """Loose stacks, and folders with stacks whose names are no plane's; other things are not."""
    data = write_splits(tmp_path, "valid") / "valid"
    np.save(data / "7.npy", STACK)
    (data / "coronal").rename(data / "Coronal_PD")
    (data / "notes").mkdir()
    (data / "import.json").write_text("{}")
    assert [file.name for file in list_stacks(data, MRNET_SERIES).unread] == ["7.npy", "Coronal_PD"]
    with pytest.raises(MrkneeError, match="lacks the series coronal") as error:
        Dataset(data)
    assert "Coronal_PD" in (error.value.found or "")
