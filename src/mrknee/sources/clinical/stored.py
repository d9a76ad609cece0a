"""Stored pixel values as real ones: the bits that count, the sign, padding, the rescale.

The rules are written out in docs/reference/import-rules.md; the two must say the same.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, Int, Int64, UInt
from pydicom.dataset import Dataset
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
)
from scipy import ndimage

from mrknee.errors import DataError
from mrknee.sources.clinical.dicomfile import text
from mrknee.sources.clinical.header import Image

LOSSY = frozenset({JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, JPEG2000, HTJ2K})
"""Transfer syntaxes whose values may differ from what was stored before."""
JPEG = LOSSY | {
    *(JPEGLossless, JPEGLosslessSV1, JPEGLSLossless),
    *(JPEG2000Lossless, HTJ2KLossless, HTJ2KLosslessRPCL),
}
WITHOUT_SIGN = frozenset({JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1})
"""JPEG has no negative numbers: they come as their bits."""
MOST = 0.5
"""Values at the limits of what BitsStored can hold may lie a little beyond them. Where more than
this share of an image's values lie beyond, the high bits hold something else."""
FAR = 0.5
"""A padding value this many times the range of all other values above them is no tissue. The
brightest tissue, cut off at the largest value, lies next to the others."""

Raw = Int[np.ndarray, "rows cols"] | UInt[np.ndarray, "rows cols"]
Words = Int64[np.ndarray, "rows cols"]


def real_values(raw: Raw, image: Image, dataset: Dataset) -> Float32[np.ndarray, "rows cols"]:
    """An image's stored values as real ones.

    Args:
        raw: as they were decoded.
        image: what the header says of the image.
        dataset: the whole header.

    Returns:
        Rescaled values, the brighter the larger; NaN where a pixel is padding.

    Raises:
        MrkneeError: the image has another size than the header says, or holds no numbers.
    """
    if raw.shape != (image.rows, image.cols):
        raise DataError(
            "an image has another size than its header says",
            code="pixels",
            expected=f"{image.rows} x {image.cols}",
            found=" x ".join(map(str, raw.shape)),
        )
    signed = int(dataset.get("PixelRepresentation") or 0) == 1
    words = raw.astype(np.int64)
    stored = _counting(words, raw.dtype.itemsize * 8, signed, image, dataset)
    slope, intercept = image.rescale
    shown = stored
    if image.inverted:
        # white is the lowest stored value; turned round within what the bits can hold
        shown = (-1 if signed else (1 << image.bits) - 1) - stored
    real = (shown * slope + intercept).astype(np.float32)
    if not np.isfinite(real).all():
        raise DataError("an image holds values that are no numbers", code="pixels")
    real[_padding(words, stored, image, dataset)] = np.nan
    return real


def _counting(words: Words, size: int, signed: bool, image: Image, dataset: Dataset) -> Words:
    """The bits that count, as numbers; what lies above them is cut off, or limits the value.

    Uncompressed words, and those of RLE, may hold overlays and what old scanners left in their
    unused bits (PS3.5 8.1.1): these are masked. JPEG's values are numbers, and lossy compression
    overshoots: what lies beyond the bits is set to the nearest value that they can hold.
    """
    bits, high = image.bits, int(dataset.get("HighBit") or image.bits - 1)
    if not 0 < bits <= high + 1 <= size:
        return words
    shifted = words >> (high + 1 - bits)
    low = -(1 << (bits - 1)) if signed else 0
    top = low + (1 << bits) - 1
    if shifted.min() >= low and shifted.max() <= top:
        return shifted
    if _is_overshoot(shifted, low, top, signed, image, dataset):
        clipped: Words = np.clip(shifted, low, top)
        return clipped
    masked: Words = shifted & ((1 << bits) - 1)
    if signed:
        masked -= (masked >> (bits - 1)) << bits
    return masked


def _is_overshoot(
    values: Words,
    low: int,
    top: int,
    signed: bool,
    image: Image,
    dataset: Dataset,
) -> bool:
    """Whether values beyond the stored bits are values, not something else in the same words."""
    if signed and image.syntax in WITHOUT_SIGN:
        return False
    if image.syntax in LOSSY or text(dataset, "LossyImageCompression") == "01":
        spread = top - low  # overshoot is smaller than the whole range
        return bool(((values < low - spread) | (values > top + spread)).mean() <= MOST)
    overlay = any(
        dataset.get((group, 0x0102)) is not None and dataset[group, 0x0102].value
        for group in range(0x6000, 0x6020, 2)  # OverlayBitPosition: 0 for one in its own element
    )
    if image.syntax not in JPEG or overlay:
        return False
    return bool(((values < low) | (values > top)).mean() <= MOST)


def _padding(
    words: Words, stored: Words, image: Image, dataset: Dataset
) -> Bool[np.ndarray, "rows cols"]:
    """Which pixels a header says were added around an image (PS3.3 C.7.5.1.1.2).

    Everywhere, where the padding's values are darker than all others, or far brighter: nothing is
    lost then. Else tissue may have them too, and only what reaches the image's edge is padding.
    """
    limits = _padding_limits(dataset)
    if limits is not None:
        low, high = limits
        # a value that the stored bits can't hold stands in the words as they are
        there = ((stored >= low) & (stored <= high)) | ((words >= low) & (words <= high))
        if there.all():
            return there
        if there.any():
            return there if _is_apart(there, stored, image) else _reaching_edge(there)
    return _unsaid_padding(limits, words, stored, image, dataset)


def _unsaid_padding(
    limits: tuple[int, int] | None, words: Words, stored: Words, image: Image, dataset: Dataset
) -> Bool[np.ndarray, "rows cols"]:
    """Padding that the header says after the rescale, or not at all: far from all other values.

    Where the header says nothing that a pixel has, the ends of what 16 bits can hold are padding.
    """
    found = np.zeros(stored.shape, bool)
    if limits is not None and image.rescale != (1.0, 0.0):
        slope, intercept = image.rescale
        low, high = sorted((limit - intercept) / slope for limit in limits)
        found |= (stored >= low - 0.5) & (stored <= high + 0.5)
    signed = int(dataset.get("PixelRepresentation") or 0) == 1
    ends = (-(1 << 15), (1 << 15) - 1) if signed else ((1 << 16) - 1,)
    for end in ends if int(dataset.BitsAllocated) == 16 else ():
        there = words == end
        if there.any() and _is_far(there, stored):
            found |= there
    if found.any() and not found.all() and _is_apart(found, stored, image):
        return found
    return np.zeros(stored.shape, bool)


def _is_far(there: Bool[np.ndarray, "rows cols"], stored: Words) -> bool:
    """Whether some values are further from all others than these are from each other."""
    if there.all():
        return False
    mine, rest = stored[there], stored[~there]
    least, most = int(rest.min()), int(rest.max())
    far = max(most - least, 1)
    return int(mine.max()) < least - far or int(mine.min()) > most + far


def _is_apart(there: Bool[np.ndarray, "rows cols"], stored: Words, image: Image) -> bool:
    """Whether padding's values are darker than all others, or far brighter."""
    rest = stored[~there]
    least, most = int(rest.min()), int(rest.max())
    far = FAR * max(most - least, 1)
    mine = stored[there]
    if image.inverted != (image.rescale[0] < 0):  # dark is high
        return int(mine.min()) > most or int(mine.max()) < least - far
    return int(mine.max()) < least or int(mine.min()) > most + far


def _reaching_edge(there: Bool[np.ndarray, "rows cols"]) -> Bool[np.ndarray, "rows cols"]:
    parts, _ = ndimage.label(there)
    edge = np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])
    found: Bool[np.ndarray, "rows cols"] = np.isin(parts, np.unique(edge[edge > 0]))
    return found


def _padding_limits(dataset: Dataset) -> tuple[int, int] | None:
    """The lowest and the highest stored value of padding, or None.

    The two elements have the pixels' sign. Some writers give them the other one: they are read
    anew as the pixels are.
    """
    value = _padding_value(dataset, "PixelPaddingValue")
    if value is None:
        return None
    limit = _padding_value(dataset, "PixelPaddingRangeLimit")
    return (value, value) if limit is None else (min(value, limit), max(value, limit))


def _padding_value(dataset: Dataset, keyword: str) -> int | None:
    try:
        value = dataset.get(keyword)
        if isinstance(value, bytes):  # of no known type
            value = int.from_bytes(value[:2], "little") if len(value) >= 2 else None
        if value is None:
            return None
        number = int(value)
    except (ValueError, TypeError, AttributeError, NotImplementedError, OverflowError):
        return None
    size = int(dataset.BitsAllocated)
    number &= (1 << size) - 1
    signed = int(dataset.get("PixelRepresentation") or 0) == 1
    return number - (1 << size) if signed and number >> (size - 1) else number
