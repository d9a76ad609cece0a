"""Detection of mosaics, several slices in one image."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian

from mrknee.errors import MrkneeError
from mrknee.exams import PLANES, Plane
from mrknee.sources.clinical.mosaic import looks_tiled
from mrknee.sources.clinical.pixels import read_volume
from mrknee.sources.clinical.series import Series
from tests.sources.clinical.hospital import PROTOCOL, datasets, knee
from tests.sources.clinical.test_pixels import series_of

SAGITTAL = replace(PROTOCOL[0], pixel=2.5)
STACK = knee()[Plane.SAGITTAL][:4, ::4, ::4].astype(np.uint16)


def csa(count: str, items: int = 6) -> bytes:
    """Siemens' CSA header with only the entry for the number of images in a mosaic."""
    texts = [count.encode()] + [b""] * (items - 1) if count else []
    entry = struct.pack("<64si4siii", b"NumberOfImagesInMosaic", 1, b"US", 7, len(texts), 77)
    for text in texts:
        padded = text + b"\0" * (-len(text) % 4)
        entry += struct.pack("<4i", len(text), len(text), 77, len(text)) + padded
    return b"SV10\4\3\2\1" + struct.pack("<2i", 1, 77) + entry


def with_private(group: int, creator: str, number: int, kind: str, value: Any) -> list[Dataset]:  # noqa: ANN401
    """A series with a private element."""
    found = datasets(STACK, SAGITTAL)
    for dataset in found:
        dataset.private_block(group, creator, create=True).add_new(number, kind, value)
    return found


def with_element(keyword: str, value: object, stack: np.ndarray = STACK) -> list[Dataset]:
    """A series with an element."""
    found = datasets(stack, SAGITTAL)
    for dataset in found:
        setattr(dataset, keyword, value)
    return found


def one(found: list[Dataset], folder: Path, implicit: bool = False) -> Series:
    """Reads the datasets as one series."""
    if implicit:
        (series,) = series_of(found, folder, ImplicitVRLittleEndian)
    else:
        (series,) = series_of(found, folder)
    return series


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize(
    "found",
    [
        with_element("ImageType", ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]),
        with_element("ImageType", ["DERIVED", "PRIMARY", "MOSAIC"]),
        with_element("SeriesDescription", "ep2d_MOSAIC"),
        with_private(0x0019, "SIEMENS MR HEADER", 0x0A, "US", 25),
        with_private(0x0029, "SIEMENS CSA HEADER", 0x10, "OB", csa("25")),
        with_private(0x0065, "Image Private Header", 0x50, "DS", "20"),
        with_element("PixelSpacing", ["10", "10"]),
    ],
    ids=["ImageType", "its third value", "name", "Siemens", "CSA", "United Imaging", "field"],
)
def test_a_mosaic_is_refused_by_its_header(
    tmp_path: Path, found: list[Dataset], implicit: bool
) -> None:
    """ImageType, name, private elements, or a field wider than any scanner's show a mosaic."""
    with pytest.raises(MrkneeError, match="several slices in one image"):
        read_volume(one(found, tmp_path, implicit))


@pytest.mark.parametrize(
    "found",
    [
        with_private(0x0029, "SIEMENS CSA HEADER", 0x10, "OB", csa("")),
        with_private(0x0029, "SIEMENS CSA HEADER", 0x10, "OB", csa("1")),
        with_private(0x0029, "SIEMENS CSA HEADER", 0x10, "OB", csa("25")[:100]),
        with_private(0x0019, "GEMS_ACQU_01", 0x0A, "US", 25),
        with_private(0x0019, "SIEMENS MR HEADER", 0x0A, "US", 1),
    ],
    ids=["no value", "one", "cut", "another vendor", "one image"],
)
def test_headers_of_ordinary_images_are_no_mosaic(tmp_path: Path, found: list[Dataset]) -> None:
    """A Siemens entry without a number, or an element of another creator, is not a mosaic."""
    assert read_volume(one(found, tmp_path)).values.sum() == STACK.sum()


@pytest.mark.parametrize(("down", "across"), [(3, 3), (3, 4), (2, 3)])
def test_a_mosaic_is_refused_by_its_content(tmp_path: Path, down: int, across: int) -> None:
    """An image of tiles is refused without any statement in its header."""
    slices = [*knee()[Plane.SAGITTAL][:, ::4, ::4][: down * across - 1], np.zeros((64, 64))]
    slices += [np.zeros((64, 64))] * (down * across - len(slices))
    rows = [np.hstack(slices[row * across : (row + 1) * across]) for row in range(down)]
    tiled = np.vstack(rows).astype(np.uint16)[None]
    scan = replace(SAGITTAL, pixel=0.625)
    with pytest.raises(MrkneeError, match="looks like several slices"):
        read_volume(one(datasets(tiled, scan), tmp_path))


def test_slices_of_knees_are_no_mosaics() -> None:
    """No slice of a knee looks like a mosaic, even as the only one of its series."""
    for plane in PLANES:
        for image in knee()[plane]:
            assert not looks_tiled(image.astype(np.float32), alone=True)
    assert not looks_tiled(np.zeros((64, 64), np.float32), alone=True)
    noise = np.random.default_rng(0).normal(size=(96, 96)).astype(np.float32)
    assert not looks_tiled(noise, alone=True)
