"""Similarity of two stacks, robust to cropping, mirroring, brightness and missing slices.

Every slice is averaged to 32 x 32 cells. Two thumbnails per stack, the mean and the SD over its
slices, locate the window of one stack that corresponds to the other stack. Then the slices are
compared by a perceptual hash: the signs of their low frequencies, which brightness, contrast and
noise hardly change. The hash is from C. Zauner, "Implementation and benchmarking of perceptual
image hash functions" (2010); the window and the comparison of stacks are specific to this project.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
from jaxtyping import Float32, Real, UInt8
from scipy.fft import dctn

from mrknee.exams import Stack

CELLS = 32
"""Rows and columns of a low-resolution slice."""

THUMBNAIL_SIDE = 16
"""Rows and columns of the compared thumbnails."""

FREQUENCIES = 12
"""Number of frequencies of the hash along rows and along columns; without the constant term, 143
bits. With 32 cells the highest frequency has a period of 5 cells, 43 of 256 pixels."""

SMALLEST = 24
"""Minimum rows and columns of a window: three quarters of the 32 cells."""

OVERLAP = 0.75
"""Minimum share of the shorter stack's slices that are paired with a slice of the other stack."""

Grid = UInt8[np.ndarray, "slices 32 32"]
Thumbnails = Float32[np.ndarray, "*stacks 2 rows cols"]
Features = Float32[np.ndarray, "*stacks numbers"]
Window = tuple[int, int, int, int]
"""First row, row after the last, first column, column after the last, in cells."""


def grid(stack: Stack) -> Grid:
    """Averages the pixels of each cell; stacks with fewer pixels than cells repeat pixels."""
    starts = [np.arange(CELLS) * side // CELLS for side in stack.shape[1:]]
    heights, widths = (
        np.maximum(np.diff(first, append=side), 1)
        for first, side in zip(starts, stack.shape[1:], strict=True)
    )
    rows = np.add.reduceat(stack, starts[0], axis=1, dtype=np.uint32)
    sums = np.add.reduceat(rows, starts[1], axis=2)
    cells: Grid = (sums // (heights[:, None] * widths[None, :])).astype(np.uint8)
    return cells


def thumbnails(cells: Grid) -> Thumbnails:
    """Computes mean and SD over the slices, float32 (2, 32, 32), whatever the slices' order."""
    values = cells.astype(np.float32)
    return np.stack([values.mean(axis=0), values.std(axis=0)])


def features(images: Thumbnails) -> Features:
    """Converts thumbnails to unit vectors, whose product is the mean of the two correlations.

    Args:
        images: means and SDs; (stacks, 2, rows, cols), or (2, rows, cols) for one stack.

    Returns:
        (stacks, 512), or (512,). Thumbnails without contrast become zeros.
    """
    small = _shrink(images, THUMBNAIL_SIDE)
    small -= small.mean(axis=(-2, -1), keepdims=True)
    small /= np.maximum(np.linalg.norm(small, axis=(-2, -1), keepdims=True), 1e-6)
    vectors: Features = small.reshape(*images.shape[:-3], 2 * THUMBNAIL_SIDE**2)
    # again, because the SD of a single slice is a thumbnail without contrast
    vectors /= np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-6)
    return vectors


def hashes(cells: Real[np.ndarray, "slices rows cols"]) -> Float32[np.ndarray, "slices bits"]:
    """Computes the perceptual hash of each slice.

    Args:
        cells: the slices, or a window of them.

    Returns:
        float32 (slices, 143): per frequency +1 if its coefficient is above the slice's median,
        else -1.
    """
    waves = dctn(_shrink(cells.astype(np.float32), CELLS), axes=(1, 2))
    low = waves[:, :FREQUENCIES, :FREQUENCIES].reshape(len(cells), -1)[:, 1:]
    above = low > np.median(low, axis=1, keepdims=True)
    return np.where(above, np.float32(1), np.float32(-1))


def distance(
    first: Float32[np.ndarray, "slices bits"], second: Float32[np.ndarray, "others bits"]
) -> float:
    """Computes the share of differing bits, 0 to 1, in the best alignment; chance is 0.5.

    The slices of both stacks are aligned in the same or the reverse order (a mirrored sagittal
    stack), with any shift that pairs at least three quarters of the shorter stack's slices.
    """
    differing = (1 - first @ second.T / first.shape[1]) / 2
    least = int(np.ceil(OVERLAP * min(differing.shape)))
    shifts = range(least - len(first), len(second) - least + 1)
    return min(
        float(np.diagonal(aligned, shift).mean())
        for aligned in (differing, differing[:, ::-1])
        for shift in shifts
    )


def best_window(images: Thumbnails, target: Features, start: Window) -> Window:
    """Finds the window of one stack that is most similar to another stack, by local search.

    In each step one edge, or two opposite edges, move by one cell, while the correlation grows.

    Args:
        images: thumbnails of the stack that is cropped, (2, 32, 32).
        target: `features` of the complete other stack.
        start: initial window.
    """

    @cache  # neighbours of one window are neighbours of the next
    def correlation(window: Window) -> float:
        top, bottom, left, right = window
        return float(features(images[:, top:bottom, left:right]) @ target)

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
    """Resizes images to `side` x `side` by averaging over the area of each pixel."""
    rows, cols = _overlap(images.shape[-2], side), _overlap(images.shape[-1], side)
    small: Float32[np.ndarray, "*images side side"] = rows @ images @ cols.T
    return small


@cache
def _overlap(cells: int, side: int) -> Float32[np.ndarray, "side cells"]:
    """Computes the overlap of old with new cells, as shares of the new cells."""
    new, old = np.arange(side + 1) * cells, np.arange(cells + 1) * side
    common = np.minimum(new[1:, None], old[None, 1:]) - np.maximum(new[:-1, None], old[None, :-1])
    shares: Float32[np.ndarray, "side cells"] = (np.maximum(common, 0) / cells).astype(np.float32)
    return shares
