"""What an export has lost is told: files, heads, slices, positions; and what it hides in."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.filebase import DicomIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence as Items

from mrknee.checkup.check import check
from mrknee.exams import PLANES, Dataset, Plane
from mrknee.sources.clinical.importing import Imported, import_exams
from tests.sources.clinical.hospital import PROTOCOL, export_series, item, knee, write
from tests.sources.clinical.test_importing import record, run, zip_of

SMALL = tuple(replace(scan, pixel=2.5) for scan in PROTOCOL)


def export(folder: Path, study: str = "study", brighter: int = 0) -> Path:
    """A small study, its planes in folders of their own: 11 slices of 64 x 64."""
    for scan in SMALL:
        stack = knee()[scan.plane][:, ::4, ::4].astype(np.uint16) * 16 + brighter
        export_series(folder, scan, stack, study=study)
    return folder


def files_of(folder: Path, plane: Plane) -> list[Path]:
    """A plane's files in the order of their slices."""
    found = [path for path in folder.rglob("IM*") if path.parent.name.endswith(plane)]
    return sorted(found, key=lambda path: pydicom.dcmread(path).InstanceNumber)


def stacks(out: Path) -> dict[str, bytes]:
    """Every stack's bytes."""
    return {str(file.relative_to(out)): file.read_bytes() for file in sorted(out.rglob("*.npy"))}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small study that has lost nothing."""
    return export(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def whole(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Its stacks."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert import_exams(plain, out, workers=1).complete
    return stacks(out)


@pytest.fixture
def source(plain: Path, tmp_path: Path) -> Path:
    """A copy of it, to be spoilt."""
    return Path(shutil.copytree(plain, tmp_path / "in"))


def imported(source: Path, out: Path, **options: Any) -> Imported:  # noqa: ANN401
    """The import, in this process."""
    return import_exams(source, out, workers=1, **options)


def to_nowhere(path: Path) -> None:
    """The file becomes a link that leads nowhere."""
    path.unlink()
    path.symlink_to("/nowhere")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: path.write_bytes(bytes(5000)), "zeros"),
        (lambda path: path.write_text("<html>not found</html>"), "lost its head"),
        (lambda path: path.write_bytes(b"\xa5\x5a\x91" * 999), "lost its head"),
        (lambda path: path.write_bytes(path.read_bytes()[:300]), "cut off in its header"),
        (to_nowhere, "leads nowhere"),
    ],
    ids=["empty", "zeros", "text", "noise", "cut", "link"],
)
def test_a_lost_slice_is_told_wherever_it_lay(
    source: Path, tmp_path: Path, spoil: Callable[[Path], object], why: str
) -> None:
    """The first slice, whose loss leaves no hole, and one inside: counted, named, status 1."""
    paths = files_of(source, Plane.SAGITTAL)
    spoil(paths[0])
    spoil(paths[5])
    found = imported(source, tmp_path / "out", keep_map=tmp_path / "map")
    assert not found.complete
    ((reason, count),) = found.unreadable.items()
    assert why in reason
    assert count == 2
    said = record(tmp_path / "out")
    assert said["files"]["unreadable"] == 2
    assert said["exams"]["0000"]["incomplete"] == [
        "sagittal: 1 of 10 slices are missing between the first and the last",
        "files in the folders of its images that can't be read or are missing: 2",
    ]
    assert "incomplete: sagittal" in found.table()
    left = json.loads((tmp_path / "map").read_text())["left out"]
    assert set(left) == {str(paths[0]), str(paths[5])}


def test_a_plane_of_which_every_file_is_empty_is_told(source: Path, tmp_path: Path) -> None:
    """A folder of nothing but empty files was a series."""
    for path in files_of(source, Plane.AXIAL):
        path.write_bytes(b"")
    found = imported(source, tmp_path / "out", allow_missing_plane=True)
    assert not found.complete
    assert sum(found.unreadable.values()) == 11


def test_documents_beside_images_are_no_loss(source: Path, tmp_path: Path) -> None:
    """Notes, pictures and a DICOMDIR without content leave the import complete."""
    folder = files_of(source, Plane.AXIAL)[0].parent
    (folder / "README").write_text("exported by a scanner")
    (folder / "DICOMDIR").touch()
    (folder / "preview.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    found = imported(source, tmp_path / "out")
    assert found.complete
    assert record(tmp_path / "out")["files"]["other"] == 3


def bare(path: Path, implicit: bool, little: bool = True) -> bytes:
    """A file's dataset alone, without preamble and meta information."""
    dataset = pydicom.dcmread(path)
    if not little:
        values = np.frombuffer(dataset.PixelData, "<u2")
        dataset.PixelData = values.astype(">u2").tobytes()
    buffer = io.BytesIO()
    stream = DicomIO(buffer)
    stream.is_little_endian, stream.is_implicit_VR = little, implicit
    write_dataset(stream, dataset)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "head_off",
    [
        lambda path: path.read_bytes()[132:],
        lambda path: path.read_bytes()[128:],
        lambda path: bytes(128) + path.read_bytes()[132:],
        lambda path: bare(path, implicit=True),
        lambda path: bare(path, implicit=False),
        lambda path: bare(path, implicit=False, little=False),
        lambda path: bytes(128) + b"DICM" + bare(path, implicit=True),
        lambda path: bytes(128) + bare(path, implicit=False),
    ],
    ids=[
        *("no preamble", "magic first", "no magic", "bare implicit", "bare explicit"),
        *("bare big endian", "no meta", "preamble alone"),
    ],
)
def test_files_without_their_head_are_read(
    source: Path, tmp_path: Path, whole: dict[str, bytes], head_off: Callable[[Path], bytes]
) -> None:
    """Whatever of preamble, magic and meta information is gone, the pixels are the same."""
    for path in files_of(source, Plane.AXIAL):
        path.write_bytes(head_off(path))
    assert imported(source, tmp_path / "out").complete
    assert stacks(tmp_path / "out") == whole


def without_class(path: Path) -> None:
    """The file doesn't say what kind of object it is, nowhere."""
    file = pydicom.dcmread(path)
    del file.SOPClassUID, file.file_meta.MediaStorageSOPClassUID
    file.save_as(path)


def test_files_without_a_class_are_read(
    source: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    """SOPClassUID isn't needed where everything else is there."""
    for path in source.rglob("IM*"):
        without_class(path)
    assert imported(source, tmp_path / "out").complete
    assert stacks(tmp_path / "out") == whole


def test_slices_without_a_position_are_told(source: Path, tmp_path: Path) -> None:
    """They can't be placed; what is left of their series is marked, and the status is 1."""
    path = files_of(source, Plane.CORONAL)[0]
    file = pydicom.dcmread(path)
    del file.ImagePositionPatient
    file.save_as(path)
    found = imported(source, tmp_path / "out")
    assert not found.complete
    (said,) = found.exams["0000"]["incomplete"]
    assert said == "coronal: 1 of its series' images lie nowhere by their headers: left out"


def test_a_damaged_series_is_told_though_another_stands_in(source: Path, tmp_path: Path) -> None:
    """The series that should have been taken can't be read: status 1, and the exam is there."""
    stack = knee()[Plane.SAGITTAL][:, ::4, ::4].astype(np.uint16)
    damaged = export_series(source, replace(SMALL[0], number=8), stack, study="study")
    damaged[3].write_bytes(damaged[3].read_bytes()[:-1000])
    found = imported(source, tmp_path / "out")
    assert found.exams["0000"]["imported"]
    assert not found.complete
    (said,) = found.exams["0000"]["incomplete"]
    assert "can't be used" in said
    assert "cut off" in said


def test_a_damaged_plane_is_told_though_planes_may_be_missing(source: Path, tmp_path: Path) -> None:
    """--allow-missing-plane is for planes that were not acquired: damage still gives status 1."""
    path = files_of(source, Plane.SAGITTAL)[3]
    path.write_bytes(path.read_bytes()[:-1000])
    found = imported(source, tmp_path / "out", allow_missing_plane=True)
    assert found.exams["0000"]["missing"] == ["sagittal"]
    (said,) = found.exams["0000"]["incomplete"]
    assert said.startswith("sagittal: s1 can't be used: an image is cut off")
    assert not found.complete


def test_what_a_dicomdir_lists_and_is_not_there_is_told(source: Path, tmp_path: Path) -> None:
    """The last slice of a series was not copied: no hole tells it, but the DICOMDIR does."""
    dataset = pydicom.Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.1.3.10", "1.2.3"
    records: list[pydicom.Dataset] = []
    for path in sorted(source.rglob("IM*")):
        relative = path.relative_to(source)
        shutil.move(path, source / f"{len(records):04d}")
        uid = pydicom.dcmread(source / f"{len(records):04d}").SOPInstanceUID
        name = ["DISC", *relative.parts[-1:]] if len(records) % 2 else [f"{len(records):04d}"]
        record_ = item(DirectoryRecordType="IMAGE", ReferencedFileID=name)
        record_.ReferencedSOPInstanceUIDInFile = uid
        records.append(record_)
    dataset.DirectoryRecordSequence = Items([item(DirectoryRecordType="PATIENT"), *records])
    write(dataset, source / "DICOMDIR")
    assert imported(source, tmp_path / "a").complete
    (source / "0032").unlink()
    found = imported(source, tmp_path / "b")
    assert not found.complete
    assert record(tmp_path / "b")["files"]["missing"] == 1
    assert "DICOMDIR lists" in found.table()


def gzipped(source: Path, _: Path) -> Path:
    """Every file packed by itself."""
    for path in source.rglob("IM*"):
        path.with_name(f"{path.name}.dcm.gz").write_bytes(gzip.compress(path.read_bytes(), 1))
        path.unlink()
    return source


def zip_in_zip(source: Path, folder: Path) -> Path:
    """A zip of a zip."""
    (folder / "z").mkdir()
    zip_of(source, folder / "z" / "study.zip")
    return zip_of(folder / "z", folder / "outer.zip")


def packed_tar(source: Path, folder: Path) -> Path:
    """A packed tar in a folder."""
    (folder / "t").mkdir()
    with tarfile.open(folder / "t" / "study.tar.gz", "w:gz", compresslevel=1) as archive:
        archive.add(source, "study")
    return folder / "t"


@pytest.mark.parametrize("pack", [gzipped, zip_in_zip, packed_tar])
def test_packed_studies_give_the_same_stacks(
    source: Path, tmp_path: Path, whole: dict[str, bytes], pack: Callable[[Path, Path], Path]
) -> None:
    """Gzipped files, a zip in a zip, a packed tar."""
    assert imported(pack(source, tmp_path), tmp_path / "out").complete
    assert stacks(tmp_path / "out") == whole


def test_formats_that_are_not_read_are_named(source: Path, tmp_path: Path) -> None:
    """By the command, with what to do, and status 1; never by the names of their files."""
    for name in ("petronella.7z", "petronella.rar", "petronella.mgz", "petronella.nrrd"):
        (source / name).write_bytes(b"\xa5\x5a\x91\xff" * 99)
    done = run(source, tmp_path / "out")
    assert done.returncode == 1
    for ending in (".7z", ".rar", ".mgz", ".nrrd"):
        assert f"({ending})" in done.stdout
    assert "unpack it yourself" in done.stdout
    assert "convert it to .nii.gz" in done.stdout
    assert "petronella" not in (done.stdout + done.stderr).lower()


def test_padding_is_no_tissue_in_a_whole_import(
    source: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    """A padded border at the lowest value leaves the grey values of the tissue as they are."""
    for path in files_of(source, Plane.AXIAL):
        file = pydicom.dcmread(path)
        pixels = file.pixel_array.astype(np.int16)
        pixels[:, :4] = -32768
        file.PixelData, file.PixelRepresentation = pixels.tobytes(), 1
        file.add_new("PixelPaddingValue", "SS", -32768)
        file.save_as(path)
    assert imported(source, tmp_path / "out").complete
    found = np.load(tmp_path / "out" / "axial" / "0000.npy").astype(int)
    plain = np.load(io.BytesIO(whole["axial/0000.npy"])).astype(int)
    inner = np.s_[:, :, 64:192]
    assert abs(found[inner].mean() - plain[inner].mean()) < 6


def test_check_reads_what_import_wrote(source: Path, tmp_path: Path) -> None:
    """A folder without splits and labels is checked; a fault in it is found."""
    imported(source, tmp_path / "out")
    found = check(tmp_path / "out")
    assert found.problems == ()
    assert found.splits["out"].exams == 1
    assert set(found.splits["out"].slices) == set(PLANES)
    stack = tmp_path / "out" / "axial" / "0000.npy"
    stack.write_bytes(stack.read_bytes()[:-1])
    (tmp_path / "out" / "axial" / "note.txt").write_text("x")
    problems = check(tmp_path / "out").problems
    assert {problem.file for problem in problems} == {
        "out/axial/0000.npy",
        "out/axial/note.txt",
    }


def killed(source: Path, out: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """An import that is ended while it reads an exam."""
    from mrknee.sources.clinical import importing
    from mrknee.sources.clinical.study import read_study as read

    count = 0

    def interrupted(*words: Any, **options: Any) -> object:  # noqa: ANN401
        nonlocal count
        count += 1
        if count > after:
            raise KeyboardInterrupt
        return read(*words, **options)

    with monkeypatch.context() as patch:
        patch.setattr(importing, "read_study", interrupted)
        with pytest.raises(KeyboardInterrupt):
            imported(source, out)


def test_an_import_goes_on_with_the_same_files_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed, its source replaced by other pixels, started again: all of it is the new one's."""
    old, new = tmp_path / "old", tmp_path / "new"
    for study in ("one", "two"):
        export(old, study)
        export(new, study, brighter=7)
    for path in files_of(new, Plane.SAGITTAL):  # a black corner, behind the same header
        path.write_bytes(path.read_bytes()[:-2000] + bytes(2000))
    killed(old, tmp_path / "out", monkeypatch, after=1)
    assert len(stacks(tmp_path / "out")) == 3
    imported(new, tmp_path / "out")
    imported(new, tmp_path / "fresh")
    assert stacks(tmp_path / "out") == stacks(tmp_path / "fresh")
    assert record(tmp_path / "out") == record(tmp_path / "fresh")


def test_a_finished_import_of_other_files_is_left_alone(source: Path, tmp_path: Path) -> None:
    """The same study with one other pixel: refused, and nothing of the folder changes."""
    imported(source, tmp_path / "out")
    before = stacks(tmp_path / "out"), record(tmp_path / "out")
    imported(source, tmp_path / "out")
    path = files_of(source, Plane.SAGITTAL)[4]
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(Exception, match="finished import of other files"):
        imported(source, tmp_path / "out", keep_map=tmp_path / "map")
    assert (stacks(tmp_path / "out"), record(tmp_path / "out")) == before
    assert not (tmp_path / "map").exists()


def test_a_series_that_was_damaged_is_read_again_once_it_is_whole(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be read belongs to the content too: repaired, it is tried again."""
    export(source, "another")
    paths = files_of(source, Plane.SAGITTAL)
    good = {path: path.read_bytes() for path in paths}
    for path in paths:
        path.write_bytes(good[path][:-100])
    killed(source, tmp_path / "out", monkeypatch, after=1)
    for path, content in good.items():
        path.write_bytes(content)
    assert imported(source, tmp_path / "out").complete
    assert len(list(Dataset(tmp_path / "out"))) == 2
