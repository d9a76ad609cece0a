"""Stored bits, padding, and values beyond the stored bits."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import (
    JPEG2000,
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from mrknee.exams import Plane
from mrknee.sources.clinical.framing import BLACK, WHITE, frame
from mrknee.sources.clinical.geometry import Volume, upright
from mrknee.sources.clinical.header import read_header
from mrknee.sources.clinical.locate import Location
from mrknee.sources.clinical.pixels import read_volume
from mrknee.sources.clinical.series import sort_into_series
from tests.sources.clinical.hospital import PROTOCOL, datasets, knee, set_pixels, write
from tests.sources.clinical.test_pixels import volume_of

SAGITTAL = PROTOCOL[0]
SIDE = 64


def tissue() -> np.ndarray:
    """Three small slices of a knee: int64, 1 to some 2,300, no value 0."""
    part = knee()[Plane.SAGITTAL][:3, 64 : 64 + SIDE, 64 : 64 + SIDE]
    return part.astype(np.int64) * 9 + 1


def border() -> np.ndarray:
    """A mask of padding: everything outside a circle, and a stripe."""
    rows, cols = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    padded = np.broadcast_to(rows**2 + cols**2 > (SIDE / 2) ** 2, (3, SIDE, SIDE)).copy()
    padded[:, :, :9] = True
    return padded


def written(stack: np.ndarray, **elements: Any) -> list[Dataset]:  # noqa: ANN401
    """A series with these stored values and these elements."""
    found = datasets(stack, SAGITTAL)
    for dataset in found:
        for keyword, value in elements.items():
            setattr(dataset, keyword, value)
    return found


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize(
    ("kind", "value", "elements"),
    [
        ("i2", -32768, {"PixelPaddingValue": -32768}),
        ("i2", -2000, {"PixelPaddingValue": -2000, "RescaleSlope": "2", "RescaleIntercept": "7"}),
        ("u2", 0, {"PixelPaddingValue": 0}),
        ("u2", 65535, {"PixelPaddingValue": 65535}),
        ("u2", 4095, {"PixelPaddingValue": 4095, "BitsStored": 12, "HighBit": 11}),
        ("u2", 63536, {"PixelPaddingValue": 63536, "BitsStored": 12, "HighBit": 11}),
        ("u2", 900, {"PixelPaddingValue": 900}),
        ("u2", 3000, {"PixelPaddingValue": 2990, "PixelPaddingRangeLimit": 3010}),
        ("u2", 3000, {"PixelPaddingValue": 3010, "PixelPaddingRangeLimit": 2990}),
    ],
)
def test_padding_is_black_and_outside_the_percentiles(
    tmp_path: Path, syntax: UID, kind: str, value: int, elements: dict[str, Any]
) -> None:
    """Padding is black and excluded from percentiles: signed, rescaled, a value or a range."""
    stack, padded = tissue(), border()
    plain = volume_of(written(stack.astype(kind), **elements), tmp_path).values
    with_padding = np.where(padded, value, stack).astype(kind)
    volume = volume_of(written(with_padding, **elements), tmp_path, syntax)
    np.testing.assert_array_equal(np.isnan(volume.values), padded)
    np.testing.assert_array_equal(volume.values[~padded], plain[~padded])
    black, white = np.percentile(plain[~padded], (BLACK, WHITE))
    grey = np.rint(np.clip((plain - black) / (white - black), 0, 1) * 255)
    found = frame(volume, Plane.SAGITTAL).stack
    # framing enlarges 64 pixels to 256 and keeps the mean of tissue
    assert abs(found[found > 0].mean() - grey[~padded & (grey > 0)].mean()) < 12
    assert not found[:, 128, :20].any()


@pytest.mark.parametrize("value", [0, 4095])
def test_padding_of_inverted_images(tmp_path: Path, value: int) -> None:
    """Padding of MONOCHROME1 images is recognised at either end of the range."""
    stack, padded = 4095 - tissue(), border()
    elements = {
        "PhotometricInterpretation": "MONOCHROME1",
        "PixelPaddingValue": value,
        "BitsStored": 12,
        "HighBit": 11,
    }
    found = written(np.where(padded, value, stack).astype("u2"), **elements)
    values = volume_of(found, tmp_path).values
    np.testing.assert_array_equal(np.isnan(values), padded)
    np.testing.assert_array_equal(values[~padded], tissue()[~padded])


def test_tissue_with_the_value_of_padding_is_kept(tmp_path: Path) -> None:
    """A padding value within the range of tissue is padding only in regions at the edge."""
    stack = tissue()
    stack[:, 30:34, 30:40] = 900
    stack[:, :5] = 900
    values = volume_of(written(stack.astype("u2"), PixelPaddingValue=900), tmp_path).values
    assert np.isnan(values[:, :5]).all()
    assert (values[:, 30:34, 30:40] == 900).all()


def test_the_brightest_tissue_is_not_padding(tmp_path: Path) -> None:
    """Fluid saturated at the largest value is kept even if that value is declared as padding."""
    stack = np.minimum(tissue() * 4, 4000)
    stack[:, :5], stack[:, 50], stack[:, 30:34, 30:40] = 4095, 4000, 4095
    found = written(stack.astype("u2"), PixelPaddingValue=4095, BitsStored=12, HighBit=11)
    values = volume_of(found, tmp_path).values
    assert np.isnan(values[:, :5]).all()
    assert (values[:, 30:34, 30:40] == 4095).all()


@pytest.mark.parametrize("hole", [-32768, 32767])
def test_padding_far_from_tissue_counts_everywhere(tmp_path: Path, hole: int) -> None:
    """A value far from tissue is padding in the middle of an image too."""
    stack = tissue()
    stack[:, 30:34, 30:40] = hole
    values = volume_of(written(stack.astype("i2"), PixelPaddingValue=hole), tmp_path).values
    np.testing.assert_array_equal(np.isnan(values), stack == hole)


@pytest.mark.parametrize(
    ("kind", "value", "elements"),
    [
        ("i2", -32768, {}),
        ("i2", -32768, {"PixelPaddingValue": -2000}),
        ("u2", 65535, {}),
        ("i2", -500, {"PixelPaddingValue": -2000, "RescaleIntercept": -1500, "RescaleSlope": 1}),
    ],
)
def test_padding_that_is_declared_wrongly_or_not_at_all(
    tmp_path: Path, kind: str, value: int, elements: dict[str, Any]
) -> None:
    """Extreme 16-bit values far from others are padding, and so is a value after the rescale."""
    padded = border()
    found = written(np.where(padded, value, tissue()).astype(kind), **elements)
    np.testing.assert_array_equal(np.isnan(volume_of(found, tmp_path).values), padded)


def test_values_near_the_end_of_the_bits_are_tissue(tmp_path: Path) -> None:
    """If tissue reaches the end of the 16-bit range, nothing is padding."""
    stack = np.minimum(tissue() * 120, 65535)
    stack[:, 30:34, 30:40] = 65535
    assert not np.isnan(volume_of(written(stack.astype("u2")), tmp_path).values).any()


def test_padding_that_no_pixel_has_changes_nothing(tmp_path: Path) -> None:
    """A padding value that no pixel has, or an impossible one, changes no pixel."""
    stack = tissue().astype("u2")
    plain = volume_of(written(stack), tmp_path).values
    for value in (60000, 65535):
        found = volume_of(written(stack, PixelPaddingValue=value), tmp_path).values
        np.testing.assert_array_equal(found, plain)


def packed(pixels: np.ndarray, syntax: UID, **options: Any) -> Dataset:  # noqa: ANN401
    """One slice, compressed with 16 bits, whose header then states 12."""
    dataset = datasets(pixels[None], SAGITTAL)[0]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset(io.BytesIO(), dataset, b"\0" * 128, meta)
    file.compress(syntax, generate_instance_uid=False, **options)
    file.BitsStored, file.HighBit = 12, 11
    return file


def values_of(dataset: Dataset, folder: Path) -> np.ndarray:
    """The real values of one slice of a file."""
    path = folder / "a.dcm"
    dcmwrite(path, dataset, enforce_file_format=True)
    with path.open("rb") as file:
        (series,) = sort_into_series(read_header(file, Location(path)))
    volume: Volume = upright(read_volume(series), Plane.SAGITTAL)
    values: np.ndarray = volume.values[0]
    return values


@pytest.mark.parametrize(
    ("syntax", "options"),
    [(JPEG2000, {"j2k_cr": [12]}), (JPEGLSNearLossless, {"jls_error": 40})],
)
def test_lossy_overshoot_is_clipped(tmp_path: Path, syntax: UID, options: dict[str, Any]) -> None:
    """Values that lossy compression moves beyond 12 bits are clipped to white, not masked."""
    white = np.random.default_rng(0).random((SIDE, SIDE)) > 0.5
    white[:32] = True
    pixels = np.where(white, 4095, 2000).astype(np.uint16)
    values = values_of(packed(pixels, syntax, **options), tmp_path)
    assert values.max() == 4095
    assert values[:28].min() > 3000
    assert values[white].mean() > 3900


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, JPEGLosslessSV1])
def test_few_values_beyond_the_bits_of_a_jpeg_are_clipped(tmp_path: Path, syntax: UID) -> None:
    """A few JPEG values beyond the bits are clipped: 4,100 of 12 bits becomes 4,095, not 4."""
    pixels = tissue()[0].astype(np.uint16)
    pixels[20, 20:30] = 4100
    if syntax == JPEGLosslessSV1:
        dataset = datasets(pixels[None], SAGITTAL)[0]
        path = write(dataset, tmp_path / "a.dcm", syntax)
        import pydicom

        found: Dataset = pydicom.dcmread(path)
        found.BitsStored, found.HighBit = 12, 11
    else:
        found = packed(pixels, syntax)
    values = values_of(found, tmp_path)
    np.testing.assert_array_equal(values, np.minimum(pixels, 4095))


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, RLELossless, ExplicitVRLittleEndian])
def test_overlays_in_the_high_bits_are_masked(tmp_path: Path, syntax: UID) -> None:
    """A declared overlay in bit 12, and high bits of images that were never lossy, are masked."""
    pixels = tissue()[0].astype(np.uint16)
    drawn = pixels.copy()
    drawn[20:24, 20:40] |= 1 << 12
    if syntax == ExplicitVRLittleEndian:
        dataset = datasets(drawn[None], SAGITTAL)[0]
        set_pixels(dataset, drawn, 12)
        np.testing.assert_array_equal(volume_of([dataset], tmp_path).values[0], pixels)
        return
    dataset = packed(drawn, syntax)
    dataset.add_new(0x60000100, "US", 16)
    dataset.add_new(0x60000102, "US", 12)
    np.testing.assert_array_equal(values_of(dataset, tmp_path), pixels)


def test_values_of_a_decompressed_lossy_image_are_clipped(tmp_path: Path) -> None:
    """An uncompressed image marked as once lossy may hold overshoot, which is clipped."""
    pixels = tissue()[0].astype(np.uint16)
    pixels[20, 20:30] = 4100
    dataset = datasets(pixels[None], SAGITTAL)[0]
    set_pixels(dataset, pixels, 12)
    dataset.LossyImageCompression = "01"
    values = volume_of([dataset], tmp_path).values[0]
    np.testing.assert_array_equal(values, np.minimum(pixels, 4095))


def test_signed_values_are_clipped_at_both_ends(tmp_path: Path) -> None:
    """Signed values are clipped below too: -2,100 of 12 bits becomes -2,048, not 1,996."""
    pixels = (tissue()[0] - 1000).astype(np.int16)
    pixels[20, 20:30], pixels[40, 20:30] = -2100, 2100
    values = values_of(packed(pixels, JPEG2000Lossless), tmp_path)
    np.testing.assert_array_equal(values, np.clip(pixels, -2048, 2047))
