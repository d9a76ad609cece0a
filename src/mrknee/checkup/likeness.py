"""How alike two stacks are, whatever was cropped, mirrored, brightened or left out of one.

Every slice is brought to 32 x 32 cells. Two pictures of a stack, the mean and the SD over its
slices, find the window of one stack that shows what the other shows. Then the slices are compared
by a perceptual hash: the signs of their low frequencies, which brightness, contrast and noise
hardly change. C. Zauner, "Implementation and benchmarking of perceptual image hash functions"
(2010), has the hash; the window and the comparison of whole stacks are this project's.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
from jaxtyping import Float32, Real, UInt8
from scipy.fft import dctn

from mrknee.exams import Stack

CELLS = 32
"""Rows and columns that each slice is brought to."""

THUMBNAIL_SIDE = 16
"""Rows and columns of the pictures that are compared."""

FREQUENCIES = 12
"""The hash holds so many frequencies along rows and along columns, less the constant one: 143
bits. At 32 cells the highest of them has a period of 5 cells, 43 pixels of 256."""

SMALLEST = 24
"""A window keeps at least so many of the 32 cells, rows and columns: three quarters."""

OVERLAP = 0.75
"""Of the shorter stack's slices, so many must have a partner in the other."""

Grid = UInt8[np.ndarray, "slices 32 32"]
Pictures = Float32[np.ndarray, "*stacks 2 rows cols"]
Seen = Float32[np.ndarray, "*stacks numbers"]
Window = tuple[int, int, int, int]
"""First row, row after the last, first column, column after the last, in cells."""


def grid(stack: Stack) -> Grid:
    """The mean of each cell's pixels; stacks with fewer pixels than cells repeat theirs."""
    starts = [np.arange(CELLS) * side // CELLS for side in stack.shape[1:]]
    heights, widths = (
        np.maximum(np.diff(first, append=side), 1)
        for first, side in zip(starts, stack.shape[1:], strict=True)
    )
    rows = np.add.reduceat(stack, starts[0], axis=1, dtype=np.uint32)
    sums = np.add.reduceat(rows, starts[1], axis=2)
    cells: Grid = (sums // (heights[:, None] * widths[None, :])).astype(np.uint8)
    return cells


def pictures(cells: Grid) -> Pictures:
    """Mean and SD over the slices, float32 (2, 32, 32); they don't depend on the slices' order."""
    values = cells.astype(np.float32)
    return np.stack([values.mean(axis=0), values.std(axis=0)])


def seen(images: Pictures) -> Seen:
    """Pictures as vectors of length 1, whose product is the mean of their two correlations.

    Args:
        images: means and SDs; (stacks, 2, rows, cols), or those of one stack.

    Returns:
        (stacks, 512), or (512,). A picture without contrast becomes zeros.
    """
    small = _shrink(images, THUMBNAIL_SIDE)
    small -= small.mean(axis=(-2, -1), keepdims=True)
    small /= np.maximum(np.linalg.norm(small, axis=(-2, -1), keepdims=True), 1e-6)
    vectors: Seen = small.reshape(*images.shape[:-3], 2 * THUMBNAIL_SIDE**2)
    # once more: the SD of a single slice is a picture without contrast
    vectors /= np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-6)
    return vectors


def hashes(cells: Real[np.ndarray, "slices rows cols"]) -> Float32[np.ndarray, "slices bits"]:
    """The perceptual hash of each slice, as -1 and +1.

    Args:
        cells: the slices, or a window of them.

    Returns:
        float32 (slices, 143): is a frequency's coefficient above the slice's median one?
    """
    waves = dctn(_shrink(cells.astype(np.float32), CELLS), axes=(1, 2))
    low = waves[:, :FREQUENCIES, :FREQUENCIES].reshape(len(cells), -1)[:, 1:]
    above = low > np.median(low, axis=1, keepdims=True)
    return np.where(above, np.float32(1), np.float32(-1))


def distance(
    first: Float32[np.ndarray, "slices bits"], second: Float32[np.ndarray, "others bits"]
) -> float:
    """The share of bits that differ, 0 to 1, in the best order of slices; chance is a half.

    The slices of one stack lie beside those of the other as they are or in reverse (a mirrored
    sagittal stack), shifted by any number that leaves three quarters of the shorter one a partner.
    """
    differing = (1 - first @ second.T / first.shape[1]) / 2
    least = int(np.ceil(OVERLAP * min(differing.shape)))
    shifts = range(least - len(first), len(second) - least + 1)
    return min(
        float(np.diagonal(beside, shift).mean())
        for beside in (differing, differing[:, ::-1])
        for shift in shifts
    )


def best_window(images: Pictures, target: Seen, start: Window) -> Window:
    """The window of one stack that looks most like another stack, searched from a first guess.

    One edge, or two opposite ones together, move by a cell as long as the correlation grows.

    Args:
        images: mean and SD of the stack that is cut, (2, 32, 32).
        target: `seen` of the other stack, whole.
        start: where to begin.
    """

    @cache  # neighbours of one window are neighbours of the next
    def correlation(window: Window) -> float:
        top, bottom, left, right = window
        return float(seen(images[:, top:bottom, left:right]) @ target)

    best, here = correlation(start), start
    while True:
        value, window = max((correlation(near), near) for near in _near(here))
        if value <= best:
            return here
        best, here = value, window


def _near(window: Window) -> Iterator[Window]:
    edges = [(0,), (1,), (2,), (3,), (0, 1), (2, 3)]
    for moved in edges:
        for step in (-1, 1):
            top, bottom, left, right = (
                edge + step if index in moved else edge for index, edge in enumerate(window)
            )
            inside = min(top, left) >= 0 and max(bottom, right) <= CELLS
            if inside and min(bottom - top, right - left) >= SMALLEST:
                yield top, bottom, left, right


def _shrink(
    images: Float32[np.ndarray, "*images rows cols"], side: int
) -> Float32[np.ndarray, "*images side side"]:
    """Images at another number of rows and columns, each the mean of the area it covers."""
    rows, cols = _overlap(images.shape[-2], side), _overlap(images.shape[-1], side)
    small: Float32[np.ndarray, "*images side side"] = rows @ images @ cols.T
    return small


@cache
def _overlap(cells: int, side: int) -> Float32[np.ndarray, "side cells"]:
    """How much of each old cell lies in each new one, as shares of the new one."""
    new, old = np.arange(side + 1) * cells, np.arange(cells + 1) * side
    common = np.minimum(new[1:, None], old[None, 1:]) - np.maximum(new[:-1, None], old[None, :-1])
    shares: Float32[np.ndarray, "side cells"] = (np.maximum(common, 0) / cells).astype(np.float32)
    return shares
