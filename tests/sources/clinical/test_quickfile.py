"""Quick reading of headers and pixels: equal to pydicom's, or left to pydicom."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from mrknee.errors import DataError, MrkneeError
from mrknee.exams import Plane
from mrknee.sources.clinical import header, pixels
from mrknee.sources.clinical.dicomfile import parse, untrusted
from mrknee.sources.clinical.header import Image, read_header
from mrknee.sources.clinical.locate import Location
from mrknee.sources.clinical.pixels import read_volume
from mrknee.sources.clinical.quickfile import read_quickly
from mrknee.sources.clinical.series import sort_into_series
from tests.sources.clinical.hospital import Scan, datasets, item, set_pixels, write

SCAN = Scan(Plane.AXIAL, 3, "AX PD FS", 30.0, 3000.0, {"ScanOptions": ["FS", "PFP"]})
RNG = np.random.default_rng(0)


def stack(top: int = 4000, count: int = 3) -> np.ndarray:
    """Noise below a value."""
    return RNG.integers(0, top, (count, 64, 64)).astype(np.uint16)


def one(**elements: Any) -> Dataset:  # noqa: ANN401
    """A slice with other elements."""
    (dataset, *_) = datasets(stack(), SCAN)
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def quick(path: Path) -> bool:
    """Whether a header is read without pydicom."""
    with path.open("rb") as file:
        found = read_quickly(file, header._WANTED)
        assert file.tell() == 0
    return found is not None


def both(path: Path) -> tuple[str, str]:
    """A file's headers as they are read and by pydicom, or the errors, as text.

    The first is without the place of the pixels.
    """
    with path.open("rb") as file:

        def fast() -> list[Image]:
            return [replace(image, pixels=None) for image in read_header(file, Location(path))]

        def slow() -> list[Image]:
            file.seek(0)
            with untrusted():
                return header._images(parse(file, header.TAGS), Location(path))

        return outcome(fast), outcome(slow)


def outcome(read: Callable[[], list[Image]]) -> str:
    """What a function returns or raises, as text."""
    try:
        return repr(read())
    except DataError as error:
        return error.what


ORDINARY: dict[str, dict[str, Any]] = {
    "as it is": {},
    "side": {"Laterality": "R", "ImageLaterality": ""},
    "spaces": {"SeriesDescription": "  knee ", "PatientID": "A B ", "BodyPartExamined": " "},
    "numbers": {"EchoTime": "1.5e1", "ImagingFrequency": "63.68", "MagneticFieldStrength": "+1.5"},
    "several values": {"ImageType": ["DERIVED", "SECONDARY", "", "MPR"], "EchoNumbers": [1, 2]},
    "empty": {"EchoTime": None, "PatientName": "", "ImageType": [], "SourceImageSequence": []},
    "other sequence": {"RequestAttributesSequence": Items([item(RequestedProcedureID="1")])},
    "padding": {"PixelPaddingValue": 0},
}


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("name", ORDINARY)
def test_an_ordinary_header_is_read_as_by_pydicom(name: str, syntax: UID, tmp_path: Path) -> None:
    """The same values of all attributes, without pydicom."""
    path = write(one(**ORDINARY[name]), tmp_path / "file", syntax)
    assert quick(path)
    fast, slow = both(path)
    assert fast == slow


def test_a_compressed_file_has_an_ordinary_header(tmp_path: Path) -> None:
    """Its header is read quickly, its pixels are decoded."""
    path = write(one(), tmp_path / "file", JPEG2000Lossless)
    assert quick(path)
    with path.open("rb") as file:
        (image,) = read_header(file, Location(path))
    assert image.pixels is None


@pytest.mark.parametrize(
    ("elements", "syntax"),
    [
        ({}, ExplicitVRBigEndian),
        ({}, RLELossless),
        ({"SpecificCharacterSet": "ISO_IR 192", "SeriesDescription": "кнее"}, None),
        ({"PatientName": "A^B=C"}, None),
        ({"SourceImageSequence": Items([item(ReferencedSOPInstanceUID="1.2")])}, None),
    ],
)
def test_an_unusual_header_is_left_to_pydicom(
    elements: dict[str, Any], syntax: UID | None, tmp_path: Path
) -> None:
    """Other transfer syntaxes and characters, and sequences."""
    path = write(one(**elements), tmp_path / "file", syntax or ExplicitVRLittleEndian)
    assert not quick(path)
    fast, slow = both(path)
    assert fast == slow


def test_damaged_headers_are_read_as_by_pydicom(tmp_path: Path) -> None:
    """Whatever byte is changed, and wherever the file ends: equal to pydicom, or left to it."""
    content = write(one(), tmp_path / "file").read_bytes()
    start = content.index(b"\x28\x00\x10\x00US") - 600
    path = tmp_path / "damaged"
    read = 0
    for place in range(start, start + 620):
        for value in (0, 0xFF, content[place] ^ 1):
            path.write_bytes(content[:place] + bytes([value]) + content[place + 1 :])
            if quick(path):
                fast, slow = both(path)
                assert fast == slow
                read += 1
        path.write_bytes(content[:place])
        assert not quick(path)
    assert read > 500


def volume(folder: Path, values: np.ndarray, **elements: Any) -> np.ndarray:  # noqa: ANN401
    """The values of a series that is written and read."""
    images = []
    for index, dataset in enumerate(datasets(values, SCAN)):
        for keyword, value in elements.items():
            setattr(dataset, keyword, value)
        path = write(dataset, folder / f"{index}")
        with path.open("rb") as file:
            images += read_header(file, Location(path))
    (series,) = sort_into_series(images)
    return read_volume(series).values


@pytest.mark.parametrize(
    "elements",
    [
        {},
        {"BitsStored": 12, "HighBit": 11},
        {"RescaleSlope": "2.5", "RescaleIntercept": "-10"},
        {"PixelPaddingValue": 0},
        {"BitsStored": 8, "HighBit": 7},  # values beyond the stored bits are masked
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"PixelRepresentation": 1},
        {"BitsStored": 12, "HighBit": 15},
    ],
)
def test_values_are_those_of_the_parsed_file(
    elements: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values that are copied from the file equal those by pydicom, or are left to it."""
    values = stack()
    fast = volume(tmp_path / "a", values, **elements)
    monkeypatch.setattr(pixels, "_plain_values", lambda *_: None)
    slow = volume(tmp_path / "b", values, **elements)
    assert np.array_equal(fast, slow, equal_nan=True)


def test_padding_of_65535_is_found(tmp_path: Path) -> None:
    """The largest value far from all others is padding, although the header doesn't state it."""
    values = stack(500)
    values[:, :3] = 65535
    assert np.isnan(volume(tmp_path, values)[:, :3]).all()


def test_a_file_that_changes_between_header_and_pixels_is_refused(tmp_path: Path) -> None:
    """A file that was truncated, or whose pixels moved, isn't read at the old place."""
    paths = [write(d, tmp_path / f"{i}") for i, d in enumerate(datasets(stack(), SCAN))]
    images = []
    for path in paths:
        with path.open("rb") as file:
            images += read_header(file, Location(path))
    (series,) = sort_into_series(images)
    whole = paths[1].read_bytes()
    paths[1].write_bytes(whole[:-100])
    with pytest.raises(MrkneeError, match="truncated"):
        read_volume(series)
    other = one(SeriesDescription="a longer name")
    set_pixels(other, stack()[0][:32])
    write(other, paths[1])
    with pytest.raises(MrkneeError, match="changed"):
        read_volume(series)


def test_a_header_of_more_than_64_kb_is_read(tmp_path: Path) -> None:
    """Large private elements before the pixels."""
    dataset = one()
    block = dataset.private_block(0x0029, "VENDOR", create=True)
    block.add_new(0x01, "OB", bytes(90_000))
    path = write(dataset, tmp_path / "file")
    assert quick(path)
    fast, slow = both(path)
    assert fast == slow
    assert read_quickly(io.BytesIO(path.read_bytes()[:80_000]), header._WANTED) is None
