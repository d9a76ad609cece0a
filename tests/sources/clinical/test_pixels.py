"""Decoding of grey values from every transfer syntax and pixel format."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from mrknee.errors import MrkneeError
from mrknee.exams import Plane
from mrknee.sources.clinical import pixels
from mrknee.sources.clinical.geometry import Volume, upright
from mrknee.sources.clinical.header import read_header
from mrknee.sources.clinical.locate import Location
from mrknee.sources.clinical.pixels import read_volume
from mrknee.sources.clinical.series import Series, sort_into_series
from tests.sources.clinical.hospital import (
    PROTOCOL,
    Scan,
    datasets,
    enhanced,
    knee,
    set_pixels,
    write,
)

SYNTAXES = {
    "implicit": ImplicitVRLittleEndian,
    "explicit": ExplicitVRLittleEndian,
    "big endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "RLE": RLELossless,
    "JPEG lossless": JPEGLossless,
    "JPEG lossless SV1": JPEGLosslessSV1,
    "JPEG-LS": JPEGLSLossless,
    "JPEG 2000": JPEG2000Lossless,
}
SAGITTAL = PROTOCOL[0]


def volume_of(found: list[Dataset], folder: Path, syntax: UID = ExplicitVRLittleEndian) -> Volume:
    """The upright volume of one series, written and read back."""
    (series,) = series_of(found, folder, syntax)
    assert series.plane is not None
    return upright(read_volume(series), series.plane[0])


def series_of(
    found: list[Dataset], folder: Path, syntax: UID = ExplicitVRLittleEndian
) -> list[Series]:
    """Datasets written, and their headers read back."""
    images = []
    for index, dataset in enumerate(found):
        path = write(dataset, folder / f"{index}.dcm", syntax)
        with path.open("rb") as file:
            images += read_header(file, Location(path))
    return sort_into_series(images)


@pytest.mark.parametrize("kind", ["u2", "i2", "u1"])
@pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=SYNTAXES)
def test_every_transfer_syntax_gives_the_same_values(
    tmp_path: Path, syntax: UID, kind: str
) -> None:
    """Signed, unsigned and 8-bit values are read exactly as written."""
    stack = knee()[Plane.SAGITTAL][:3].astype(kind)
    if kind != "u1":
        stack = stack * 64 - (8000 if kind == "i2" else 0)
    found = volume_of(datasets(stack.astype(kind), SAGITTAL), tmp_path, syntax)
    np.testing.assert_array_equal(found.values, stack)


@pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=SYNTAXES)
def test_an_enhanced_file_gives_the_same_values(tmp_path: Path, syntax: UID) -> None:
    """The shuffled frames of an enhanced multi-frame file are sorted."""
    stack = knee()[Plane.SAGITTAL][:4].astype(np.uint16) * 16
    found = volume_of([enhanced(stack, SAGITTAL)], tmp_path, syntax)
    np.testing.assert_array_equal(found.values, stack)


def changed(stack: np.ndarray, **elements: object) -> list[Dataset]:
    """A series with these elements in each header."""
    return datasets(stack, replace(SAGITTAL, elements=elements))


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    """MONOCHROME1 values are inverted within the range of the bits."""
    stack = knee()[Plane.SAGITTAL][:2].astype(np.uint16) * 16
    found = changed(
        4095 - stack, PhotometricInterpretation="MONOCHROME1", BitsStored=12, HighBit=11
    )
    np.testing.assert_array_equal(volume_of(found, tmp_path).values, stack)


def test_monochrome1_of_signed_values_is_inverted(tmp_path: Path) -> None:
    """Signed MONOCHROME1 values are mirrored at -1/2."""
    stack = knee()[Plane.SAGITTAL][:2].astype(np.int16) * 16 - 2048
    found = changed(-1 - stack, PhotometricInterpretation="MONOCHROME1", BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(volume_of(found, tmp_path).values, stack)


def test_each_slice_is_rescaled_by_its_own_factors(tmp_path: Path) -> None:
    """Slope and intercept that differ between slices are applied per slice."""
    stack = knee()[Plane.SAGITTAL][:3].astype(np.uint16) * 12
    found = datasets(stack, SAGITTAL)
    for index, dataset in enumerate(found):
        dataset.RescaleSlope, dataset.RescaleIntercept = str(1 + index), str(-10 * index)
        set_pixels(dataset, np.rint((stack[index] + 10.0 * index) / (1 + index)).astype(np.uint16))
    values = volume_of(found, tmp_path).values
    assert np.abs(values - stack).max() <= 1.5


def test_windows_are_ignored(tmp_path: Path) -> None:
    """A window that differs between slices changes nothing."""
    stack = knee()[Plane.SAGITTAL][:3].astype(np.uint16)
    found = datasets(stack, SAGITTAL)
    for index, dataset in enumerate(found):
        dataset.WindowCenter, dataset.WindowWidth = str(20 * index + 5), str(10)
    np.testing.assert_array_equal(volume_of(found, tmp_path).values, stack)


@pytest.mark.parametrize("kind", ["u2", "i2"])
def test_only_the_stored_bits_count(tmp_path: Path, kind: str) -> None:
    """Of 12 bits stored in 16, higher bits are ignored, and the sign is bit 11."""
    stack = knee()[Plane.SAGITTAL][:2].astype(kind) * 8 - (1000 if kind == "i2" else 0)
    dirty = (stack.astype(np.uint16) & 0x0FFF) | 0x5000
    found = changed(dirty.astype(kind), BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(volume_of(found, tmp_path).values, stack)


def test_one_slice_is_a_stack(tmp_path: Path) -> None:
    """A series of one image gives a stack of one."""
    stack = knee()[Plane.CORONAL][:1]
    found = volume_of(datasets(stack, Scan(Plane.CORONAL)), tmp_path)
    np.testing.assert_array_equal(found.values, stack)


def test_truncated_pixels_are_refused(tmp_path: Path) -> None:
    """A file with fewer bytes than its rows and columns need is refused."""
    found = datasets(knee()[Plane.SAGITTAL][:2], SAGITTAL)
    found[1].PixelData = found[1].PixelData[:-100]
    with pytest.raises(MrkneeError, match="truncated"):
        volume_of(found, tmp_path)


@pytest.mark.parametrize("name", ["JPEG lossless SV1", "JPEG-LS", "JPEG 2000"])
def test_a_stream_of_another_size_is_refused_before_it_is_decoded(
    tmp_path: Path, name: str
) -> None:
    """A compressed image that states another size than the header never reaches a decoder."""
    paths = [
        write(dataset, tmp_path / f"{index}.dcm", SYNTAXES[name])
        for index, dataset in enumerate(datasets(knee()[Plane.SAGITTAL][:2], SAGITTAL))
    ]
    content = paths[0].read_bytes()
    place = content.index((256).to_bytes(2, "little"), content.index(b"\x28\x00\x10\x00"))
    paths[0].write_bytes(content[:place] + (255).to_bytes(2, "little") + content[place + 2 :])
    with paths[0].open("rb") as file:
        (series,) = sort_into_series(read_header(file, Location(paths[0])))
    with pytest.raises(MrkneeError, match="another size than its header states"):
        read_volume(series)


@pytest.mark.parametrize("name", ["JPEG lossless SV1", "JPEG-LS", "JPEG 2000", "RLE"])
def test_a_damaged_stream_is_refused(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """A truncated or garbled compressed image is refused."""
    (series,) = series_of(datasets(knee()[Plane.SAGITTAL][:1], SAGITTAL), tmp_path, SYNTAXES[name])
    path = tmp_path / "0.dcm"
    whole = path.read_bytes()
    end = whole.rindex(b"\xfe\xff\xdd\xe0")
    middle = (whole.index(b"\xe0\x7f\x10\x00") + end) // 2
    garbled = whole[:middle] + b"\xff\x90\xff\xd9" * 50 + whole[middle + 200 :]
    broken = [whole[:middle], whole[:middle] + bytes(end - middle) + whole[end:]]
    if name != "JPEG 2000":  # any bytes are a valid arithmetic code, so damage can't be detected
        broken.append(garbled)
    for content in broken:
        path.write_bytes(content)
        with pytest.raises(MrkneeError) as error:
            read_volume(series)
        assert str(tmp_path) not in str(error.value)
    assert capfd.readouterr().err == ""
    path.write_bytes(whole)
    read_volume(series)


@pytest.mark.parametrize("pad", [b"\0", b"\xff", b" ", b"\0\xff \xff" * 5, b"\xff" * 300])
@pytest.mark.parametrize("name", ["JPEG lossless SV1", "JPEG-LS", "JPEG 2000"])
def test_padding_after_a_stream_is_ignored(tmp_path: Path, name: str, pad: bytes) -> None:
    """A stream padded by 00, FF, spaces or more gives the same image."""
    stack = knee()[Plane.SAGITTAL][:1, 96:160, 96:160].astype(np.uint16)
    path = write(datasets(stack, SAGITTAL)[0], tmp_path / "0.dcm", SYNTAXES[name])
    file = pydicom.dcmread(path)
    stream = next(generate_frames(file.PixelData, number_of_frames=1))
    ended = stream[: stream.rindex(b"\xff\xd9") + 2]
    file.PixelData = encapsulate([ended + pad + b"\xff" * ((len(ended) + len(pad)) % 2)])
    file.save_as(path)
    with path.open("rb") as opened:
        (series,) = sort_into_series(read_header(opened, Location(path)))
    np.testing.assert_array_equal(read_volume(series).values, stack)


def test_padded_frames_of_one_file_are_separate(tmp_path: Path) -> None:
    """A multi-frame file with padded frames and an extended offset table is read correctly."""
    stack = knee()[Plane.SAGITTAL][:3, 96:160, 96:160].astype(np.uint16)
    path = write(enhanced(stack, SAGITTAL), tmp_path / "0.dcm", JPEGLSLossless)
    plain = read_volume(_series_in(path)).values
    file = pydicom.dcmread(path)
    frames = list(generate_frames(file.PixelData, number_of_frames=3))
    padded = [frame[: frame.rindex(b"\xff\xd9") + 2] + b" " * 5 for frame in frames]
    padded = [frame + b" " * (len(frame) % 2) for frame in padded]
    file.PixelData, offsets, lengths = encapsulate_extended(padded)
    file.ExtendedOffsetTable, file.ExtendedOffsetTableLengths = offsets, lengths
    file.save_as(path)
    np.testing.assert_array_equal(read_volume(_series_in(path)).values, plain)


def _series_in(path: Path) -> Series:
    with path.open("rb") as opened:
        (series,) = sort_into_series(read_header(opened, Location(path)))
    return series


def test_if_one_decoder_fails_the_next_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If Pillow fails on JPEG-LS, the next decoder gives the values."""
    stack = knee()[Plane.SAGITTAL][:1, 96:160, 96:160].astype(np.uint16)
    (series,) = series_of(datasets(stack, SAGITTAL), tmp_path, JPEGLSLossless)
    monkeypatch.setitem(pixels.PLUGINS, JPEGLSLossless, ("pillow", "gdcm"))
    np.testing.assert_array_equal(read_volume(series).values, stack)
    monkeypatch.setitem(pixels.PLUGINS, JPEGLSLossless, ("pillow",))
    with pytest.raises(MrkneeError, match="can't be read"):
        read_volume(series)


def test_every_listed_decoder_is_installed() -> None:
    """All decoders that are tried for a transfer syntax are installed with the package."""
    for syntax, names in pixels.PLUGINS.items():
        assert set(names) <= set(get_decoder(UID(syntax)).available_plugins)


@pytest.mark.parametrize("bits", [0, 1, 17, 127, 255])
def test_impossible_bits_never_reach_a_decoder(tmp_path: Path, bits: int) -> None:
    """A JPEG of more than 16 bits, which would crash gdcm and the process, is refused before.

    Found by fuzzing.
    """
    (series,) = series_of(
        datasets(knee()[Plane.SAGITTAL][:1].astype(np.uint16), SAGITTAL), tmp_path, JPEGLosslessSV1
    )
    content = bytearray((tmp_path / "0.dcm").read_bytes())
    content[content.index(b"\xff\xc3\x00\x0b") + 4] = bits
    (tmp_path / "0.dcm").write_bytes(content)
    with pytest.raises(MrkneeError, match="more bits than its header states"):
        read_volume(series)


def test_a_gap_between_markers_never_reaches_a_decoder(tmp_path: Path) -> None:
    """Bytes between the segments of a JPEG's header, which would crash gdcm, are refused.

    Found by fuzzing.
    """
    (series,) = series_of(
        datasets(knee()[Plane.SAGITTAL][:1].astype(np.uint16), SAGITTAL), tmp_path, JPEGLosslessSV1
    )
    content = (tmp_path / "0.dcm").read_bytes()
    place = content.index(b"\xff\xc4")
    shorter = content[: place + 2] + b"\x00\x03" + content[place + 4 :]
    (tmp_path / "0.dcm").write_bytes(shorter)
    with pytest.raises(MrkneeError, match="found: no size"):
        read_volume(series)


def test_fewer_frames_than_promised_are_refused(tmp_path: Path) -> None:
    """A compressed multi-frame file that lacks frames is refused."""
    (series,) = series_of([enhanced(knee()[Plane.SAGITTAL][:3], SAGITTAL)], tmp_path, RLELossless)
    promised = replace(series, images=tuple(replace(one, frames=4) for one in series.images))
    with pytest.raises(MrkneeError, match="fewer images than its header states"):
        read_volume(promised)
