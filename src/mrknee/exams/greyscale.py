"""Conversion of grey values of any numeric type to uint8.

uint8 is never changed. Other types follow these rules (for users: `docs/reference/data-rules.md`):

- Integral values from 0 to 255 are kept: they are bytes stored in a wider type, and the result is
  the same as for uint8.
- Anything else is scaled linearly from the 0.5th percentile of all pixels (0) to the 99.5th (255),
  as in `mrknee import`; values outside are clipped. An outlier pixel, or a vessel next to the coil,
  thus doesn't compress the contrast of all other pixels.
- If both percentiles are equal, as in a stack that is nearly all background, minimum and maximum
  are used instead; a constant stack becomes 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mrknee.errors import DataError
from mrknee.exams.exam import Stack

BLACK, WHITE = 0.5, 99.5
"""Percentiles mapped to 0 and 255; the same as in `mrknee.sources.clinical.framing`."""

FAR = 4.0
"""A value is an outlier if it lies outside the percentiles by more than this multiple of their
distance: scaled from minimum to maximum, the other pixels would get less than a fifth of the grey
values. Bright fluid and vessels are usually closer than that."""


def finite_to_bytes(
    values: np.ndarray, path: Path | None, exam_id: str | None
) -> tuple[Stack, str | None]:
    """Converts values to uint8 as `to_bytes` does, after checking that they are finite.

    Args:
        values: integer or floating (slices, rows, cols).
        path: the stack's file, for the error message.
        exam_id: the exam's id, for the error message.

    Raises:
        DataError: a value is NaN or infinite.
    """
    odd = sum(int(np.count_nonzero(~np.isfinite(one))) for one in in_doubles(values))
    if odd:
        raise DataError(
            "a stack contains NaN or infinite values",
            code="not-finite",
            file=path,
            exam=exam_id,
            expected="finite grey values",
            found=f"{odd:,} NaN or infinite values",
        )
    return to_bytes(values)


def to_bytes(values: np.ndarray) -> tuple[Stack, str | None]:
    """Converts a stack of finite numbers to uint8, by the rules above.

    Args:
        values: integer or floating (slices, rows, cols), without NaN or infinite values.

    Returns:
        uint8 of the same shape, read-only; and a description of the clipped outliers, None if
        there are none.
    """
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= 255 and all(bool((one == np.rint(one)).all()) for one in values):
        kept: Stack = values.astype(np.uint8)
        kept.flags.writeable = False
        return kept, None
    # "nearest" returns values of the stack without adding any, so nothing overflows
    black, white = (float(v) for v in np.percentile(values, (BLACK, WHITE), method="nearest"))
    percentiles = white > black
    if not percentiles:
        black, white = low, high
    # halved, so that a range above 1.8e308 doesn't overflow
    span = (white / 2 - black / 2) or 1.0
    stack: Stack = np.empty(values.shape, dtype=np.uint8)
    for index, one in enumerate(in_doubles(values)):
        stack[index] = np.rint(np.clip((one / 2 - black / 2) / span, 0, 1) * 255)
    stack.flags.writeable = False
    far = 0
    if percentiles and max(high / 2 - white / 2, black / 2 - low / 2) > FAR * span:
        far = sum(
            int(np.count_nonzero(np.abs(one / 2 - black / 4 - white / 4) > (FAR + 0.5) * span))
            for one in in_doubles(values)
        )
    if not far:
        return stack, None
    return stack, (
        f"{far:,} of {values.size:,} pixels lie far from the others and were clipped: 99 % are "
        f"from {black:g} to {white:g}, the full range is {low:g} to {high:g}"
    )


def in_doubles(values: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the slices as float64, one by one: a complete stack would take 8 times the result.

    Values of wider types that exceed float64 become infinite.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        for one in values:
            yield np.asarray(one, dtype=np.float64)
