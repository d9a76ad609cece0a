"""Malformed DICOM, NIfTI and zip files, each the source of one import."""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from tests.hostile.case import PICKLE, Case, content
from tests.sources.clinical.hospital import PROTOCOL, enhanced, item, write

Change = Callable[[Dataset], object]

SCAN = replace(PROTOCOL[0], pixel=2.5)
STACK = np.random.default_rng(0).integers(0, 4000, (4, 64, 64)).astype(np.uint16)


def series() -> Dataset:
    """Returns a series in one file."""
    return enhanced(STACK, SCAN)


def written(dataset: Dataset, syntax: pydicom.uid.UID = ExplicitVRLittleEndian) -> bytes:
    """Returns the bytes of the data set's file."""
    with tempfile.TemporaryDirectory() as folder:
        return write(dataset, Path(folder, "a.dcm"), syntax).read_bytes()


def volume() -> bytes:
    """Returns a NIfTI file."""
    values = STACK.transpose(1, 2, 0).astype(np.int16)
    return bytes(nibabel.Nifti1Image(values, np.diag([2.5, 2.5, 4.0, 1.0])).to_bytes())


GOOD_DICOM = written(series())
GOOD_NIFTI = volume()


def small_dicom() -> bytes:
    """Returns a DICOM file of a few kilobytes, from which fuzzing starts."""
    return written(enhanced(STACK[:, :16, :16], SCAN))


def small_nifti() -> bytes:
    """Returns a NIfTI file of a few kilobytes, from which fuzzing starts."""
    values = STACK[:, :16, :16].astype(np.int16)
    return bytes(nibabel.Nifti1Image(values, np.diag([2.5, 2.5, 4.0, 1.0])).to_bytes())


def cases() -> Iterator[Case]:
    """Yields all cases."""
    yield from _dicom_files()
    yield from _dicom_elements()
    yield from _dicom_streams()
    yield from _nifti()
    yield from _zips()
    yield from _folders()


def _dicom(name: str, data: bytes, message: str = "") -> Case:
    return Case("import", f"DICOM, {name}", content(data, ".dcm"), message)


def element(group: int, number: int, kind: bytes, value: bytes, length: int | None = None) -> bytes:
    """Returns an element in explicit little endian, of a VR with a 32-bit length."""
    size = len(value) if length is None else length
    return struct.pack("<HH2sHI", group, number, kind, 0, size) + value


def _dicom_files() -> Iterator[Case]:
    """Yields truncated and corrupted files."""
    dataset = pydicom.dcmread(io.BytesIO(GOOD_DICOM))
    starts = [one.file_tell for one in dataset if one.file_tell] if len(dataset) else []
    pixels = (
        GOOD_DICOM.rindex(STACK[0].tobytes()[:16])
        if STACK[0].tobytes()[:16] in (GOOD_DICOM)
        else len(GOOD_DICOM) // 2
    )
    places = {0, 4, 127, 128, 130, 132, 136, 144, 200, 300, *starts[::4], pixels, pixels + 999}
    for place in sorted(places | {len(GOOD_DICOM) - 1}):
        yield _dicom(f"cut at byte {place}", GOOD_DICOM[:place])
    yield _dicom("wrong magic", GOOD_DICOM[:128] + b"DICX" + GOOD_DICOM[132:])
    yield _dicom("zeros after the magic", GOOD_DICOM[:132] + bytes(5000))
    yield _dicom("ones after the magic", GOOD_DICOM[:132] + b"\xff" * 5000)
    yield _dicom("a pickle", PICKLE)
    yield _dicom("a pickle after the magic", GOOD_DICOM[:132] + PICKLE)
    meta = GOOD_DICOM[: GOOD_DICOM.index(b"\x08\x00", 140)]
    deep = element(8, 0x1140, b"SQ", b"", 0xFFFFFFFF)
    inside = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    yield _dicom("nested sequences", meta + (deep + inside) * 5000)
    yield _dicom("nested functional groups", meta + _groups(3000))
    yield _dicom("a length of 4 GB", meta + element(8, 0x1030, b"OB", b"knee", 0xFFFFFFF0))
    yield _dicom("an unknown VR", meta + element(8, 0x1030, b"ZZ", b"knee"))
    yield _dicom("pixels of undefined length", meta + element(0x7FE0, 0x10, b"OB", b"", 0xFFFFFFFF))
    head = written(series(), DeflatedExplicitVRLittleEndian)
    start = 144 + struct.unpack("<I", head[140:144])[0]

    def bomb(path: Path) -> None:
        packer = zlib.compressobj(1, zlib.DEFLATED, -15)
        first = element(0x7FE0, 0x10, b"OB", b"", 300 * 2**20)
        parts = [packer.compress(part) for part in (first, *[bytes(2**20)] * 300)]
        path.write_bytes(head[:start] + b"".join(parts) + packer.flush())

    yield Case("import", "DICOM, a deflate bomb", bomb)
    yield _dicom("deflated and cut", head[: len(head) // 2])
    yield _dicom("deflated nonsense", head[:start] + b"\xff" * 1000)


def _groups(depth: int) -> bytes:
    one = element(0x5200, 0x9230, b"SQ", b"", 0xFFFFFFFF)
    return (one + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)) * depth


def _dicom_elements() -> Iterator[Case]:
    """Yields files with wrong or missing elements of the header."""
    changes: dict[str, Change] = {}

    def header(name: str, **elements: Any) -> None:  # noqa: ANN401  # an element's value
        def change(dataset: Dataset) -> None:
            for keyword, value in elements.items():
                if value is None:
                    delattr(dataset, keyword)
                else:
                    setattr(dataset, keyword, value)

        changes[name] = change

    header("65,535 rows and columns", Rows=65535, Columns=65535)
    header("no rows", Rows=0)
    header("rows of another size", Rows=63)
    header("rows missing", Rows=None)
    header("2 * 10^9 frames", NumberOfFrames=2_000_000_000)
    header("19,000 frames", NumberOfFrames=19_000)
    header("a negative number of frames", NumberOfFrames=-4)
    header("one frame too many", NumberOfFrames=5)
    header("7 bits", BitsAllocated=7, BitsStored=7)
    header("64 bits", BitsAllocated=64, BitsStored=64)
    header("99 bits stored", BitsStored=99)
    header("three samples", SamplesPerPixel=3, PhotometricInterpretation="RGB")
    header("an unknown photometric interpretation", PhotometricInterpretation="SEPIA")
    header("no pixels", PixelData=None)
    header("only padding", PixelPaddingValue=0, PixelPaddingRangeLimit=65535)
    header("a mosaic", ImageType=["ORIGINAL", "PRIMARY", "MOSAIC"])
    header("a secondary capture", SOPClassUID="1.2.840.10008.5.1.4.1.1.7")
    header("a document", SOPClassUID="1.2.840.10008.5.1.4.1.1.104.1")
    header("another modality", Modality="CT")
    header("another body part", BodyPartExamined="BRAIN", StudyDescription="BRAIN")
    for keyword, values in {
        "ImagePositionPatient": (["nan"] * 3, ["inf"] * 3, []),
        "ImageOrientationPatient": (["nan"] * 6, ["0"] * 6, ["1", "0", "0", "1", "0", "0"], []),
        "PixelSpacing": (["nan"] * 2, ["0", "0"], ["-1", "1"], ["1e30", "1e30"], []),
    }.items():
        for value in values:
            changes[f"{keyword} {value}"] = partial(_everywhere, keyword=keyword, value=value)
    for slope in ("1e300", "-1e300"):
        changes[f"a slope of {slope}"] = partial(_rescaled, slope=slope)
    for name, change in changes.items():
        dataset = series()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's, that such values aren't allowed
            change(dataset)
            data = written(dataset)
        yield _dicom(name, data)


def _everywhere(dataset: Dataset, keyword: str, value: object) -> None:
    for one in dataset.iterall():
        if one.keyword == keyword:
            one.value = value
    for group in dataset.PerFrameFunctionalGroupsSequence:
        for part in group:
            if keyword in part.value[0]:
                setattr(part.value[0], keyword, value)


def _rescaled(dataset: Dataset, slope: str) -> None:
    transformation = item(RescaleSlope=slope, RescaleIntercept="0", RescaleType="US")
    shared = dataset.SharedFunctionalGroupsSequence[0]
    shared.PixelValueTransformationSequence = pydicom.Sequence([transformation])


def _dicom_streams() -> Iterator[Case]:
    """Yields compressed pixels that contradict the header."""
    for name, syntax in (("RLE", RLELossless), ("JPEG 2000", JPEG2000Lossless)):
        whole = written(series(), syntax)
        first = whole.rindex(b"\xfe\xff\x00\xe0") + 8
        yield _dicom(f"{name}, cut", whole[: first + 50])
        yield _dicom(f"{name}, zeros", whole[:first] + bytes(len(whole) - first))
        yield _dicom(f"{name}, noise", whole[:first] + (b"\xa5\x5a\x00\xff" * 20_000))
    stream = bytearray(written(series(), JPEG2000Lossless))
    place = stream.index(b"\xff\x4f\xff\x51") + 8
    stream[place : place + 8] = struct.pack(">II", 60_000, 60_000)
    yield _dicom("a stream of 60,000 x 60,000", bytes(stream))
    raw = written(series())
    syntax_bytes = b"1.2.840.10008.1.2.1\0"
    for name, other in (
        ("an unknown transfer syntax", b"1.2.840.10008.9.9.9\0"),
        ("uncompressed pixels declared as JPEG-LS", b"1.2.840.10008.1.2.4.80"[:20]),
        ("a transfer syntax that is a path", b"../../../etc/passwd\0"),
    ):
        yield _dicom(name, raw.replace(syntax_bytes, other, 1))


def _nifti() -> Iterator[Case]:
    def case(name: str, data: bytes, suffix: str = "_axial.nii", message: str = "") -> Case:
        return Case("import", f"NIfTI, {name}", content(data, suffix), message)

    for place in (0, 3, 4, 40, 347, 348, 351, 352, 353, len(GOOD_NIFTI) // 2, len(GOOD_NIFTI) - 1):
        yield case(f"cut at byte {place}", GOOD_NIFTI[:place])
    packed = gzip.compress(GOOD_NIFTI)
    for place in (2, 10, len(packed) // 2):
        yield case(f"packed and cut at byte {place}", packed[:place], "_axial.nii.gz")
    yield case("packed nonsense", packed[:12] + b"\xff" * 1000, "_axial.nii.gz")
    yield case("a pickle", PICKLE)
    yield case("zeros", bytes(1000))
    yield case("no plane in the name", GOOD_NIFTI, "_knee.nii")

    def changed(place: int, form: str, *values: float) -> bytes:
        data = bytearray(GOOD_NIFTI)
        struct.pack_into("<" + form, data, place, *values)
        return bytes(data)

    sides = {
        "10^12 voxels": (3, 10_000, 10_000, 10_000, 1, 1, 1, 1),
        "seven dimensions of 32,767": (7, *[32_767] * 7),
        "a negative side": (3, 64, -64, 4, 1, 1, 1, 1),
        "no slice": (3, 64, 64, 0, 1, 1, 1, 1),
        "nine dimensions": (9, 64, 64, 4, 1, 1, 1, 1),
        "minus one dimension": (-1, 64, 64, 4, 1, 1, 1, 1),
        "two dimensions": (2, 64, 64, 1, 1, 1, 1, 1),
        "several volumes": (4, 64, 64, 2, 2, 1, 1, 1),
    }
    for name, shape in sides.items():
        yield case(name, changed(40, "8h", *shape))
    for kind in (0, 1, 32, 128, 1536, 1792, 2304, 9999, -1):
        yield case(f"type {kind}", changed(70, "h", kind))
    for offset in (-5.0, 1e30, float("nan"), float("inf"), 60_000.0):
        yield case(f"voxels at {offset}", changed(108, "f", offset))
    for slope in (3e38, -3e38):  # NaN and infinity mean "none" in NIfTI
        yield case(f"a slope of {slope}", changed(112, "2f", slope, slope))
    nowhere = bytearray(GOOD_NIFTI)
    struct.pack_into("<2h", nowhere, 252, 0, 0)
    yield case("no position in the patient", bytes(nowhere))
    for value in (float("nan"), float("inf"), 0.0, 1e30):
        yield case(f"an affine of {value}", changed(280, "12f", *[value] * 12))
    values = np.full((8, 8, 4), np.nan, np.float32)
    yield case("voxels of NaN", bytes(nibabel.Nifti1Image(values, np.eye(4)).to_bytes()))
    much = changed(40, "8h", 3, 400, 500, 490, 1, 1, 1, 1)
    yield case("98 million voxels in 33 kB", much)
    yield case("98 million voxels in 20 kB, packed", gzip.compress(much), "_axial.nii.gz")


def zipped(*members: tuple[zipfile.ZipInfo | str, bytes], kind: int = zipfile.ZIP_STORED) -> bytes:
    """Returns a zip with these members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


def on_several_disks(archive: bytes) -> bytes:
    """Returns a zip that states that its 64-bit directory is on five disks."""
    end = archive.rindex(b"PK\x05\x06")
    return archive[:end] + struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 5) + archive[end:]


def _zips() -> Iterator[Case]:
    def case(name: str, data: bytes, message: str = "") -> Case:
        return Case("import", f"zip, {name}", content(data, ".zip"), message)

    good = zipped(("a.dcm", GOOD_DICOM))
    directory = good.rindex(b"PK\x01\x02")
    end = good.rindex(b"PK\x05\x06")
    for place in (0, 4, 30, directory, directory + 20, end, end + 10, len(good) - 1):
        yield case(f"cut at byte {place}", good[:place])
    for name in (
        "../escaped.dcm",
        "a/../../escaped.dcm",
        "/etc/escaped.dcm",
        "..\\escaped.dcm",
        "C:\\escaped.dcm",
    ):
        yield case(f"a member {name}", zipped((name, GOOD_DICOM)), "outside itself")
    link = zipfile.ZipInfo("link.dcm")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    yield case("a symbolic link", zipped((link, b"/etc/passwd")), "links")

    def bomb(path: Path) -> None:
        data = zipped(("a.dcm", bytes(80 * 2**20)), kind=zipfile.ZIP_DEFLATED)
        path.with_name(path.name + ".zip").write_bytes(data)

    yield Case("import", "zip, a bomb", bomb, "too large when unpacked")
    lied = bytearray(zipped(("a.dcm", GOOD_DICOM + bytes(2**20)), kind=zipfile.ZIP_DEFLATED))
    place = lied.rindex(b"PK\x01\x02") + 24
    lied[place : place + 4] = struct.pack("<I", 100)
    yield case("a member larger than stated", bytes(lied))
    for name, at, value in (
        ("encrypted", 8, b"\x01\x00"),
        ("packed in an unknown way", 10, b"\x63\x00"),
        ("4 GB stated", 20, b"\xff\xff\xff\xfe\xff\xff\xff\xfe"),
        ("a wrong checksum", 16, b"\xde\xad\xbe\xef"),
    ):
        data = bytearray(good)
        data[directory + at : directory + at + len(value)] = value
        yield case(name, bytes(data))
    spoilt = bytearray(good)
    spoilt[0:4] = b"XXXX"
    yield case("no header before the member", bytes(spoilt))
    yield case("no member", zipped())
    yield case("a pickle in it", zipped(("a.dcm", PICKLE)))
    yield case("text", b"PK is no zip")
    yield case("on several disks", on_several_disks(good))
    nameless = bytearray(good)
    nameless[directory + 28 : directory + 30] = bytes(2)  # the rest of the name is "extra"
    nameless[directory + 30 : directory + 32] = struct.pack("<H", len("a.dcm"))
    other = bytearray(good)
    other[6:8] = struct.pack("<H", 0x800)  # its first header states that its name is UTF-8
    other[30:35] = b"a\xd2\x9b\x9c\x92"
    yield case("a name that is not text", bytes(other))
    for kind in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        packed = zipped(("a.dcm", GOOD_DICOM), kind=kind)
        yield case(f"packed by method {kind}", packed, "unsupported compression")
    yield case("a member without a name", bytes(nameless))


def _folders() -> Iterator[Case]:
    def case(name: str, make: Callable[[Path], object]) -> Case:
        def write_folder(path: Path) -> None:
            path.mkdir()
            make(path)

        return Case("import", f"folder, {name}", write_folder)

    yield case("empty", lambda _: None)
    yield case("a pipe", lambda path: os.mkfifo(path / "a.dcm"))
    yield case("an endless device", lambda path: (path / "a.dcm").symlink_to("/dev/zero"))
    yield case("a link to itself", lambda path: (path / "a.dcm").symlink_to("a.dcm"))
    yield case("a link to its own folder", lambda path: (path / "b").symlink_to(path))
    yield case("pickles", lambda path: (path / "a.dcm").write_bytes(PICKLE))
    yield case("a DICOMDIR alone", lambda path: (path / "DICOMDIR").write_bytes(_directory()))
    yield Case("import", "a pipe", lambda path: os.mkfifo(path))
    yield Case("import", "missing source", lambda _: None, "doesn't exist")


def _directory() -> bytes:
    """Returns a DICOMDIR whose only record leads outside its folder."""
    dataset = Dataset()
    dataset.SOPClassUID = "1.2.840.10008.1.3.10"
    dataset.SOPInstanceUID = "1.2.3"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, that such names aren't allowed
        record = item(DirectoryRecordType="IMAGE", ReferencedFileID=["..", "..", "etc", "passwd"])
        dataset.DirectoryRecordSequence = pydicom.Sequence([record])
        return written(dataset)
