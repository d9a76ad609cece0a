"""Incomplete exports: lost files, headers, slices and positions are reported."""

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

from mrknee.checks.check import check
from mrknee.exams import PLANES, Dataset, Plane
from mrknee.sources.clinical import scanning
from mrknee.sources.clinical.importing import Imported, import_exams
from mrknee.sources.clinical.scanning import scan_source
from tests.sources.clinical.hospital import PROTOCOL, export_series, item, knee, write
from tests.sources.clinical.test_importing import record, run, zip_of

SMALL = tuple(replace(scan, pixel=2.5) for scan in PROTOCOL)


def export(folder: Path, study: str = "study", brighter: int = 0) -> Path:
    """Writes a small study with a folder per plane: 11 slices of 64 x 64."""
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
    """A complete small study."""
    return export(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def whole(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Its stacks."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert import_exams(plain, out, workers=1).complete
    return stacks(out)


@pytest.fixture
def source(plain: Path, tmp_path: Path) -> Path:
    """A copy of the study that tests may damage."""
    return Path(shutil.copytree(plain, tmp_path / "in"))


def imported(source: Path, out: Path, **options: Any) -> Imported:  # noqa: ANN401
    """Imports in this process."""
    return import_exams(source, out, workers=1, **options)


def to_nowhere(path: Path) -> None:
    """Replaces the file by a broken link."""
    path.unlink()
    path.symlink_to("/nowhere")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: path.write_bytes(bytes(5000)), "zeros"),
        (lambda path: path.write_text("<html>not found</html>"), "its beginning is damaged"),
        (lambda path: path.write_bytes(b"\xa5\x5a\x91" * 999), "its beginning is damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:300]), "truncated in its header"),
        (to_nowhere, "broken link"),
    ],
    ids=["empty", "zeros", "text", "noise", "cut", "link"],
)
def test_a_lost_slice_is_reported_at_any_position(
    source: Path, tmp_path: Path, spoil: Callable[[Path], object], why: str
) -> None:
    """A lost first slice, which leaves no gap, and one inside are counted with the reason."""
    paths = files_of(source, Plane.SAGITTAL)
    spoil(paths[0])
    spoil(paths[5])
    found = imported(source, tmp_path / "out", keep_map=tmp_path / "map")
    assert not found.complete
    ((reason, count),) = found.unreadable.items()
    assert why in reason
    assert count == 2
    content = record(tmp_path / "out")
    assert content["files"]["unreadable"] == 2
    assert content["exams"]["0000"]["incomplete"] == [
        "sagittal: 1 of 10 slices are missing between the first and the last",
        "unreadable or missing files in the folders of its images: 2",
    ]
    assert "incomplete: sagittal" in found.table()
    left = json.loads((tmp_path / "map").read_text())["left out"]
    assert set(left) == {str(paths[0]), str(paths[5])}


def test_a_plane_of_empty_files_is_reported(source: Path, tmp_path: Path) -> None:
    """All files of a folder of empty files are counted as unreadable."""
    for path in files_of(source, Plane.AXIAL):
        path.write_bytes(b"")
    found = imported(source, tmp_path / "out", allow_missing_plane=True)
    assert not found.complete
    assert sum(found.unreadable.values()) == 11


def test_documents_next_to_images_are_ignored(source: Path, tmp_path: Path) -> None:
    """An import with notes, pictures and an empty DICOMDIR is complete."""
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
def test_files_without_preamble_or_meta_information_are_read(
    source: Path, tmp_path: Path, whole: dict[str, bytes], head_off: Callable[[Path], bytes]
) -> None:
    """Without preamble, magic or meta information the pixels are the same."""
    for path in files_of(source, Plane.AXIAL):
        path.write_bytes(head_off(path))
    assert imported(source, tmp_path / "out").complete
    assert stacks(tmp_path / "out") == whole


def without_class(path: Path) -> None:
    """Removes the SOP class from the file."""
    file = pydicom.dcmread(path)
    del file.SOPClassUID, file.file_meta.MediaStorageSOPClassUID
    file.save_as(path)


def test_files_without_a_class_are_read(
    source: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    """SOPClassUID isn't needed if everything else is present."""
    for path in source.rglob("IM*"):
        without_class(path)
    assert imported(source, tmp_path / "out").complete
    assert stacks(tmp_path / "out") == whole


def test_slices_without_a_position_are_reported(source: Path, tmp_path: Path) -> None:
    """An exam with an image without position is incomplete."""
    path = files_of(source, Plane.CORONAL)[0]
    file = pydicom.dcmread(path)
    del file.ImagePositionPatient
    file.save_as(path)
    found = imported(source, tmp_path / "out")
    assert not found.complete
    (line,) = found.exams["0000"]["incomplete"]
    assert line == "coronal: 1 of its series' images have no position: left out"


def test_a_damaged_series_is_reported_if_another_replaces_it(source: Path, tmp_path: Path) -> None:
    """If the best series can't be read, the exam is imported but incomplete."""
    stack = knee()[Plane.SAGITTAL][:, ::4, ::4].astype(np.uint16)
    damaged = export_series(source, replace(SMALL[0], number=8), stack, study="study")
    damaged[3].write_bytes(damaged[3].read_bytes()[:-1000])
    found = imported(source, tmp_path / "out")
    assert found.exams["0000"]["imported"]
    assert not found.complete
    (line,) = found.exams["0000"]["incomplete"]
    assert "can't be used" in line
    assert "truncated" in line


def test_a_damaged_plane_is_reported_if_planes_may_be_missing(source: Path, tmp_path: Path) -> None:
    """With --allow-missing-plane, a damaged series still makes an exam incomplete."""
    path = files_of(source, Plane.SAGITTAL)[3]
    path.write_bytes(path.read_bytes()[:-1000])
    found = imported(source, tmp_path / "out", allow_missing_plane=True)
    assert found.exams["0000"]["missing"] == ["sagittal"]
    (line,) = found.exams["0000"]["incomplete"]
    assert line.startswith("sagittal: s1 can't be used: an image is truncated")
    assert not found.complete


def test_files_missing_from_a_dicomdir_are_reported(source: Path, tmp_path: Path) -> None:
    """A missing last slice leaves no gap but is reported if the DICOMDIR lists it."""
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
    assert "listed in the DICOMDIR" in found.table()


def gzipped(source: Path, _: Path) -> Path:
    """Compresses every file separately."""
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
    """Gzipped files, a zip in a zip and a compressed tar give the same stacks."""
    assert imported(pack(source, tmp_path), tmp_path / "out").complete
    assert stacks(tmp_path / "out") == whole


@pytest.mark.slow
def test_formats_that_are_not_read_are_named(source: Path, tmp_path: Path) -> None:
    """The command reports unsupported formats with advice and status 1, but no file names."""
    for name in ("petronella.7z", "petronella.rar", "petronella.mgz", "petronella.nrrd"):
        (source / name).write_bytes(b"\xa5\x5a\x91\xff" * 99)
    done = run(source, tmp_path / "out")
    assert done.returncode == 1
    for ending in (".7z", ".rar", ".mgz", ".nrrd"):
        assert f"({ending})" in done.stdout
    assert "unpack it yourself" in done.stdout
    assert "convert it to .nii.gz" in done.stdout
    assert "petronella" not in (done.stdout + done.stderr).lower()


def test_padding_is_not_tissue_in_an_import(
    source: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    """A padded border at the lowest value doesn't change the grey values of tissue."""
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
    """`check` accepts a folder without splits and labels and finds a fault in it."""
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
    """Runs an import that is interrupted while it reads an exam."""
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


def test_an_import_resumes_with_the_same_files_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An import resumed after its source was replaced contains only the new pixels."""
    old, new = tmp_path / "old", tmp_path / "new"
    for study in ("one", "two"):
        export(old, study)
        export(new, study, brighter=7)
    for path in files_of(new, Plane.SAGITTAL):  # a black corner, with the same header
        path.write_bytes(path.read_bytes()[:-2000] + bytes(2000))
    killed(old, tmp_path / "out", monkeypatch, after=1)
    assert len(stacks(tmp_path / "out")) == 3
    imported(new, tmp_path / "out")
    imported(new, tmp_path / "fresh")
    assert stacks(tmp_path / "out") == stacks(tmp_path / "fresh")
    assert record(tmp_path / "out") == record(tmp_path / "fresh")


def test_a_finished_import_of_other_files_is_unchanged(source: Path, tmp_path: Path) -> None:
    """The same study with one changed pixel is refused, and the folder stays unchanged."""
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


def test_a_damaged_series_is_read_again_after_repair(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The digest covers files that could not be read, so that repaired ones are read again."""
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


@pytest.mark.slow
def test_headers_are_the_same_when_several_processes_read_them(
    plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source of many files is scanned in chunks by worker processes, with the same result."""
    alone = scan_source(plain, 2)
    monkeypatch.setattr(scanning, "CHUNK", 20)
    monkeypatch.setattr(scanning, "MANY_FILES", 30)
    assert vars(scan_source(plain, 2)) == vars(alone)
    assert len(alone.images) == 33
