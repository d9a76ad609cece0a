"""Conversion of stored pixel values to real values: bits, sign, padding, rescale.

docs/reference/import-rules.md states the rules; change both together.
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
"""Transfer syntaxes that may be lossy."""
JPEG = LOSSY | {
    *(JPEGLossless, JPEGLosslessSV1, JPEGLSLossless),
    *(JPEG2000Lossless, HTJ2KLossless, HTJ2KLosslessRPCL),
}
WITHOUT_SIGN = frozenset({JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1})
"""JPEG has no negative numbers: they are decoded as unsigned values of the same bits."""
MAX_OVERSHOOT = 0.5
"""Maximum share of an image's values outside the range of BitsStored that counts as overshoot; if
more values are outside, the high bits hold something else."""
MIN_PADDING_DISTANCE = 0.5
"""Minimum distance of a bright padding value from all other values, in units of their range.
Saturated tissue is closer to the other values."""

Raw = Int[np.ndarray, "rows cols"] | UInt[np.ndarray, "rows cols"]
Words = Int64[np.ndarray, "rows cols"]


def real_values(raw: Raw, image: Image, dataset: Dataset) -> Float32[np.ndarray, "rows cols"]:
    """Converts an image's stored values to real values.

    Args:
        raw: decoded values.
        image: header of the image.
        dataset: the complete header of the file.

    Returns:
        Rescaled values, larger for brighter pixels; NaN where a pixel is padding.

    Raises:
        MrkneeError: the image has another size than the header states, or non-finite values.
    """
    if raw.shape != (image.rows, image.cols):
        raise DataError(
            "an image has another size than its header states",
            code="pixels",
            expected=f"{image.rows} x {image.cols}",
            found=" x ".join(map(str, raw.shape)),
        )
    signed = int(dataset.get("PixelRepresentation") or 0) == 1
    words = raw.astype(np.int64)
    stored = _stored_bits(words, raw.dtype.itemsize * 8, signed, image, dataset)
    slope, intercept = image.rescale
    shown = stored
    if image.inverted:
        # white is the lowest stored value; inverted within the range of the bits
        shown = (-1 if signed else (1 << image.bits) - 1) - stored
    real = (shown * slope + intercept).astype(np.float32)
    if not np.isfinite(real).all():
        raise DataError("an image holds non-finite values", code="pixels")
    real[_padding(words, stored, image, dataset)] = np.nan
    return real


def _stored_bits(words: Words, size: int, signed: bool, image: Image, dataset: Dataset) -> Words:
    """Returns the values within the stored bits; values beyond them are masked or clipped.

    Uncompressed words and those of RLE may hold overlays and remains of old scanners in their
    unused bits (PS3.5 8.1.1), which are masked. In JPEG, values beyond the stored bits are
    overshoot of lossy compression, which is clipped.
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
    """Returns whether values beyond the stored bits are overshoot, not other data in the words."""
    if signed and image.syntax in WITHOUT_SIGN:
        return False
    if image.syntax in LOSSY or text(dataset, "LossyImageCompression") == "01":
        spread = top - low  # overshoot is smaller than the whole range
        return bool(((values < low - spread) | (values > top + spread)).mean() <= MAX_OVERSHOOT)
    overlay = any(
        dataset.get((group, 0x0102)) is not None and dataset[group, 0x0102].value
        for group in range(0x6000, 0x6020, 2)  # OverlayBitPosition: 0 for one in its own element
    )
    if image.syntax not in JPEG or overlay:
        return False
    return bool(((values < low) | (values > top)).mean() <= MAX_OVERSHOOT)


def _padding(
    words: Words, stored: Words, image: Image, dataset: Dataset
) -> Bool[np.ndarray, "rows cols"]:
    """Returns a mask of the pixels that were added around an image (PS3.3 C.7.5.1.1.2).

    If padding values are darker than all others, or far brighter, all pixels with them are
    padding. Otherwise tissue may have them too, and only regions at the image's edge are padding.
    """
    limits = _padding_limits(dataset)
    if limits is not None:
        low, high = limits
        # a padding value beyond the stored bits is compared with the complete words
        mask = ((stored >= low) & (stored <= high)) | ((words >= low) & (words <= high))
        if mask.all():
            return mask
        if mask.any():
            return mask if _is_apart(mask, stored, image) else _reaching_edge(mask)
    return _undeclared_padding(limits, words, stored, image, dataset)


def _undeclared_padding(
    limits: tuple[int, int] | None, words: Words, stored: Words, image: Image, dataset: Dataset
) -> Bool[np.ndarray, "rows cols"]:
    """Returns a mask of padding that the header declares after the rescale, or not at all.

    If no pixel has a declared value, the extreme values of 16 bits are padding, provided that
    they are far from all other values.
    """
    found = np.zeros(stored.shape, bool)
    if limits is not None and image.rescale != (1.0, 0.0):
        slope, intercept = image.rescale
        low, high = sorted((limit - intercept) / slope for limit in limits)
        found |= (stored >= low - 0.5) & (stored <= high + 0.5)
    signed = int(dataset.get("PixelRepresentation") or 0) == 1
    ends = (-(1 << 15), (1 << 15) - 1) if signed else ((1 << 16) - 1,)
    for end in ends if int(dataset.BitsAllocated) == 16 else ():
        mask = words == end
        if mask.any() and _is_far(mask, stored):
            found |= mask
    if found.any() and not found.all() and _is_apart(found, stored, image):
        return found
    return np.zeros(stored.shape, bool)


def _is_far(mask: Bool[np.ndarray, "rows cols"], stored: Words) -> bool:
    """Returns whether masked values are further from the others than the others' range."""
    if mask.all():
        return False
    mine, rest = stored[mask], stored[~mask]
    least, most = int(rest.min()), int(rest.max())
    far = max(most - least, 1)
    return int(mine.max()) < least - far or int(mine.min()) > most + far


def _is_apart(mask: Bool[np.ndarray, "rows cols"], stored: Words, image: Image) -> bool:
    """Returns whether masked values are darker than all others, or far brighter."""
    rest = stored[~mask]
    least, most = int(rest.min()), int(rest.max())
    far = MIN_PADDING_DISTANCE * max(most - least, 1)
    mine = stored[mask]
    if image.inverted != (image.rescale[0] < 0):  # dark is high
        return int(mine.min()) > most or int(mine.max()) < least - far
    return int(mine.max()) < least or int(mine.min()) > most + far


def _reaching_edge(mask: Bool[np.ndarray, "rows cols"]) -> Bool[np.ndarray, "rows cols"]:
    """Returns the connected parts of a mask that reach the image's edge."""
    parts, _ = ndimage.label(mask)
    edge = np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])
    found: Bool[np.ndarray, "rows cols"] = np.isin(parts, np.unique(edge[edge > 0]))
    return found


def _padding_limits(dataset: Dataset) -> tuple[int, int] | None:
    """Returns the lowest and the highest stored value of padding, or None.

    The two elements should have the pixels' signedness; values of the other one are converted.
    """
    value = _padding_value(dataset, "PixelPaddingValue")
    if value is None:
        return None
    limit = _padding_value(dataset, "PixelPaddingRangeLimit")
    return (value, value) if limit is None else (min(value, limit), max(value, limit))


def _padding_value(dataset: Dataset, keyword: str) -> int | None:
    try:
        value = dataset.get(keyword)
        if isinstance(value, bytes):  # of unknown VR
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
