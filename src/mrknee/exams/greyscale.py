"""Grey values of any kind as bytes.

uint8 is never changed. Other types follow these rules (for users: `docs/reference/data-rules.md`):

- Whole numbers from 0 to 255 are kept: they are bytes in a wider type, and give what the same
  stack gives as uint8.
- All else is scaled: the 0.5th percentile of all pixels becomes 0, the 99.5th 255, linear in
  between, as `mrknee import` does with a series; what lies outside is clipped. So a hot pixel, or a
  vessel beside the coil, doesn't take the contrast from all other pixels.
- Where these percentiles are equal, as in a stack that is nearly all background, minimum and
  maximum take their place; a constant stack becomes 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mrknee.errors import DataError
from mrknee.exams.exam import Stack

BLACK, WHITE = 0.5, 99.5
"""The percentiles that become 0 and 255; those of `mrknee.sources.clinical.framing`."""

FAR = 4.0
"""A value is an outlier where it lies further outside the percentiles than so many times their
distance: from minimum to maximum, it would leave the others less than a fifth of the grey values.
Bright fluid and vessels are usually nearer than that."""


def finite_to_bytes(
    values: np.ndarray, path: Path | None, exam_id: str | None
) -> tuple[Stack, str | None]:
    """As `to_bytes`, of values that may be NaN or infinite.

    Args:
        values: integer or floating (slices, rows, cols).
        path: the stack's file, for the error.
        exam_id: the exam's id, for the error.

    Raises:
        DataError: a value is NaN or infinite.
    """
    odd = sum(int(np.count_nonzero(~np.isfinite(one))) for one in in_doubles(values))
    if odd:
        raise DataError(
            "a stack holds values that are not numbers",
            code="not-finite",
            file=path,
            exam=exam_id,
            expected="finite grey values",
            found=f"{odd:,} NaN or infinite values",
        )
    return to_bytes(values)


def to_bytes(values: np.ndarray) -> tuple[Stack, str | None]:
    """A stack of finite numbers as bytes, by the rules above.

    Args:
        values: integer or floating (slices, rows, cols), no NaN and no infinite value.

    Returns:
        uint8 of the same shape, read-only; and in words which outliers were clipped, None where
        there were none.
    """
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= 255 and all(bool((one == np.rint(one)).all()) for one in values):
        kept: Stack = values.astype(np.uint8)
        kept.flags.writeable = False
        return kept, None
    # "nearest" takes values of the stack and adds none, so nothing overflows
    black, white = (float(v) for v in np.percentile(values, (BLACK, WHITE), method="nearest"))
    percentiles = white > black
    if not percentiles:
        black, white = low, high
    # halves, so that a range of more than 1.8e308 doesn't overflow
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
        f"from {black:g} to {white:g}, all from {low:g} to {high:g}"
    )


def in_doubles(values: np.ndarray) -> Iterator[np.ndarray]:
    """Slices one by one: all of a large stack in 64 bits would be eight times the result.

    What is beyond them, in a type of more bits, is infinite.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        for one in values:
            yield np.asarray(one, dtype=np.float64)
