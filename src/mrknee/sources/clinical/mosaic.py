"""Detection of mosaics, several slices in one image, by header and by content.

Siemens and United Imaging scanners write volumes as a mosaic of tiles in one image, and some
exports create contact sheets. The positions of the tiles aren't in the standard part of the
header, so mosaics are refused, not split.
"""

from __future__ import annotations

import re
import struct

import numpy as np
from jaxtyping import Float, Float32

from mrknee.sources.clinical.dicomfile import Elements, text, texts

# (0019,xx0A) of "SIEMENS MR HEADER": NumberOfImagesInMosaic; (0029,xx10) of "SIEMENS CSA HEADER":
# the same in a proprietary structure; (0065,xx50) of United Imaging: images in a grid. xx depends
# on the blocks that other private elements occupy.
CREATORS = {0x0019: "SIEMENS MR HEADER", 0x0029: "SIEMENS CSA", 0x0065: "IMAGE PRIVATE"}
BLOCKS = (0x10, 0x11, 0x12)
_COUNTS = {0x0019: 0x0A, 0x0065: 0x50}
_CSA = 0x10
MOSAIC_TAGS = tuple(
    tag
    for block in BLOCKS
    for group, number in (*_COUNTS.items(), (0x0029, _CSA))
    for tag in ((group, block), (group, block << 8 | number))
)
"""Private elements to read from a header for the detection of a mosaic."""

WIDEST_FIELD_MM = 600.0
"""Wider than any scanner's field: bores are up to 80 cm wide, the largest fields about 55 cm."""

LARGEST_GRID = 12
SMALLEST_TILE = 16
LARGE_TILE = 64
"""Rows and columns from which half of a tile's rows and columns suffice for a correlation."""
CORRELATION, CORRELATION_ALONE = 0.75, 0.5
"""Minimum correlation between neighbouring tiles, across and down, of a mosaic: for an image among
others, and for the only image of a series. Parts of one slice of real knees correlate by at most
0.4; neighbouring slices, four millimetres apart, by 0.5 to 0.9."""


def is_mosaic(dataset: Elements) -> bool:
    """Returns whether ImageType, the series' name or a private element states a mosaic."""
    if any("MOSAIC" in value for value in texts(dataset, "ImageType")):
        return True
    if re.search(r"\bMOSAIC\b", text(dataset, "SeriesDescription").replace("_", " ")):
        return True
    return any(_private_count(dataset, group, block) > 1 for group in CREATORS for block in BLOCKS)


def mosaic_reason(
    mosaic: bool,
    shape: tuple[int, int],
    pixel_mm: tuple[float, ...],
) -> str | None:
    """Returns why an image must hold several slices, or None.

    Args:
        mosaic: whether the header states a mosaic.
        shape: rows, columns.
        pixel_mm: distance between rows and between columns, mm; empty if unknown.
    """
    if mosaic:
        return "a mosaic: several slices in one image"
    if any(n * size > WIDEST_FIELD_MM for n, size in zip(shape, pixel_mm, strict=False)):
        return (
            f"its field is wider than {WIDEST_FIELD_MM:.0f} mm: several slices in one image, "
            "or a wrong pixel size"
        )
    return None


def looks_tiled(image: Float32[np.ndarray, "rows cols"], *, alone: bool) -> bool:
    """Returns whether an image looks like a grid of similar images.

    Args:
        image: grey values, finite.
        alone: whether it is the only image of its series, as mosaics often are.
    """
    rows, cols = image.shape
    limit = CORRELATION_ALONE if alone else CORRELATION
    return any(
        _tile_correlation(_tiles(image, down, across)) > limit
        for down in _divisors(rows)
        for across in _divisors(cols)
    )


def _tiles(
    image: Float32[np.ndarray, "rows cols"], down: int, across: int
) -> Float32[np.ndarray, "down tile_rows across tile_cols"]:
    """Returns the tiles of a grid; of large tiles, every second row and column."""
    rows, cols = image.shape[0] // down, image.shape[1] // across
    grid = image.reshape(down, rows, across, cols)
    return grid[:, ::2, :, ::2] if min(rows, cols) >= LARGE_TILE else grid


def _divisors(size: int) -> list[int]:
    return [
        count
        for count in range(2, LARGEST_GRID + 1)
        if size % count == 0 and size // count >= SMALLEST_TILE
    ]


def _tile_correlation(grid: Float[np.ndarray, "down rows across cols"]) -> float:
    """Returns the smaller of the mean correlations of horizontal and vertical neighbours."""
    tiles = grid.transpose(0, 2, 1, 3).reshape(grid.shape[0], grid.shape[2], -1)
    tiles = tiles - tiles.mean(axis=2, keepdims=True)
    size = np.sqrt((tiles**2).mean(axis=2, keepdims=True))
    filled = size[..., 0] > 1e-3 * size.max()  # the last tiles of a mosaic may be empty
    if filled.sum() < 3:
        return 0.0
    tiles = tiles / np.maximum(size, 1e-12)
    means = []
    for axis in (0, 1):
        one, other = np.delete(tiles, -1, axis), np.delete(tiles, 0, axis)
        both = np.delete(filled, -1, axis) & np.delete(filled, 0, axis)
        if not both.any():
            return 0.0
        means.append(float((one * other).mean(axis=2)[both].mean()))
    return min(means)


def _private_count(dataset: Elements, group: int, block: int) -> int:
    """Returns the number of images that a private element states, or 0."""
    creator = _bytes(dataset, group, block).decode("latin-1").upper()
    if group == 0x0029:  # the CSA header identifies itself
        return _csa_count(_bytes(dataset, group, block << 8 | _CSA))
    if CREATORS[group] not in creator:
        return 0
    number = block << 8 | _COUNTS[group]
    content = _bytes(dataset, group, number)
    digits = content.strip(b" \0").decode("latin-1")
    if digits.isdecimal():
        return int(digits[:6])
    return int.from_bytes(content[:2], "little") if len(content) == 2 else 0


def _bytes(dataset: Elements, group: int, number: int) -> bytes:
    """Returns a private element's value as bytes; a number as digits."""
    try:
        value = dataset[group, number].value
    except (KeyError, ValueError, TypeError, AttributeError, NotImplementedError):
        return b""
    return value if isinstance(value, bytes) else str(value).encode("latin-1", "replace")


def _csa_count(header: bytes) -> int:
    """Returns NumberOfImagesInMosaic of Siemens' CSA header, or 0 if missing.

    An entry has a name (64 bytes), five numbers (20 bytes; among them type, number of items and
    markers), then items: four numbers, of which the second is the length, and the text.
    """
    place = header.find(b"NumberOfImagesInMosaic\0")
    if place < 0 or len(header) < place + 84 + 16:
        return 0
    (items,) = struct.unpack_from("<i", header, place + 76)
    (length,) = struct.unpack_from("<i", header, place + 84 + 4)
    if items < 1 or not 1 <= length <= 64:
        return 0
    digits = header[place + 100 : place + 100 + length].strip(b" \0")
    return int(digits) if digits.isdigit() and len(digits) < 6 else 0
