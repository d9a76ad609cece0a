"""Reads every stack once, in parallel: problems, and a summary for later comparisons."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from mrknee.checks.layout import Place
from mrknee.checks.problem import Problem, from_error
from mrknee.checks.similarity import Grid, grid
from mrknee.errors import MrkneeError
from mrknee.exams import MRNET_SERIES, SeriesList, read_stack
from mrknee.exams.axes import AXES, Axes
from mrknee.exams.plausibility import BLANK, MANY_EMPTY, stack_remarks
from mrknee.exams.stackfile import first_pixel
from mrknee.progress import track

CODES = ("not-npy", "truncated", "pickled", "wrong-type", "wrong-rank", "not-finite")
"""Error codes of `read_stack` that are problems of the same code; other errors are `unreadable`."""

NEARLY_EMPTY = 0.1
"""A slice is nearly empty if its SD is at most this share of the largest in its stack. Slices
beyond the knee, at both ends of a stack, often are: 0.003 in phantoms, 0.05 in a real knee."""

USUAL_SIZE_SHARE = 0.9
"""Share of a series' stacks with one size from which on other sizes are reported."""

ODD_SLICES = 3
"""Slice counts are reported beyond this factor from the median of the series. MRNet's range, 17 to
61 with medians of 30 to 35, is inside."""


@dataclass(frozen=True)
class StackSummary:
    """The summary of a stack that is kept for comparisons with other stacks.

    Attributes:
        place: place of the stack.
        shape: slices, rows, cols.
        digest: hash of shape and values; equal only for identical stacks.
        cells: uint8 (slices, 32, 32), the slices at low resolution.
        blank: whether all pixels have one value, so that comparisons are meaningless.
    """

    place: Place
    shape: tuple[int, int, int]
    digest: bytes
    cells: Grid
    blank: bool


def summarise_stacks(
    root: Path, places: Sequence[Place], *, axes: Axes = AXES
) -> tuple[list[StackSummary], list[Problem]]:
    """Reads every stack once.

    Args:
        root: the data set's folder.
        places: places of the stacks.
        axes: the order of axes in the files.

    Returns:
        Summaries of the readable stacks, in the order of `places`; and the problems.
    """
    stacks: list[StackSummary] = []
    problems: list[Problem] = []
    # Threads, because reading, hashing and summing release the global interpreter lock.
    with ThreadPoolExecutor() as pool:
        results = pool.map(partial(_summarise, root, axes), places)
        try:
            for summary, found in track(results, len(places), "reading stacks", "stacks"):
                problems += found
                if summary is not None:
                    stacks.append(summary)
        finally:
            pool.shutdown(cancel_futures=True)  # after Ctrl-C the remaining stacks aren't read
    return stacks, problems


def _summarise(root: Path, axes: Axes, place: Place) -> tuple[StackSummary | None, list[Problem]]:
    path = root / place.file
    outliers: list[str] = []
    try:
        stack = read_stack(path, place.exam, axes=axes, outliers=outliers)
    except MrkneeError as error:
        return None, [from_error(error, CODES, "unreadable", path).within(root)]
    hasher = hashlib.sha256(repr(stack.shape).encode())
    hasher.update(np.ascontiguousarray(stack).data)
    slices, rows, cols = stack.shape
    remarks = {remark.code: remark.text for remark in stack_remarks(stack, place.series)}
    blank = bool(BLANK & remarks.keys())
    summary = StackSummary(place, (slices, rows, cols), hasher.digest(), grid(stack), blank)
    stored = first_pixel(path)
    problems: list[Problem] = []

    def add(code: str, text: str) -> None:
        problems.append(Problem(code, text, place.file, place.exam))

    if stored.dtype != np.uint8:
        add("not-bytes", f"expected uint8; found {stored.dtype}")
    for text in outliers:
        add("outliers", text)
    if blank:
        add("constant" if stored else "all-zero", f"each of its {stack.size:,} pixels is {stored}")
    for code, text in remarks.items():
        if code not in BLANK | {"empty-slices"}:  # empty slices have a stricter check below
            add(code, text)
    if not blank and "equal-slices" not in remarks:
        problems += _empty_slices(summary, stack.min(axis=(1, 2)) == stack.max(axis=(1, 2)))
    return summary, problems


def _empty_slices(stack: StackSummary, single: Bool[np.ndarray, " slices"]) -> Iterator[Problem]:
    """Reports single-valued slices, nearly empty slices between others, and too many at the ends.

    Args:
        stack: the stack.
        single: whether each slice has a single value.
    """
    contrast = stack.cells.std(axis=(1, 2))
    empty = contrast <= NEARLY_EMPTY * contrast.max()
    full = np.flatnonzero(~empty)
    wrong = single.copy()
    if empty.mean() > MANY_EMPTY:
        wrong |= empty
    elif len(full):
        wrong[full[0] : full[-1]] |= empty[full[0] : full[-1]]
    if wrong.any():
        numbers = [str(number) for number in np.flatnonzero(wrong)]
        shown = ", ".join(numbers[:8]) + (", ..." if len(numbers) > 8 else "")
        text = f"{len(numbers)} of {len(wrong)} slices are (nearly) empty: {shown} (from 0)"
        yield Problem("empty-slices", text, stack.place.file, stack.place.exam)


def check_shapes(
    stacks: Sequence[StackSummary], series: SeriesList = MRNET_SERIES
) -> Iterator[Problem]:
    """Reports stacks whose size in plane or number of slices is unusual for their series."""
    for name in series.names:
        mine = [stack for stack in stacks if stack.place.series == name]
        if not mine:
            continue
        ((usual, count),) = Counter(stack.shape[1:] for stack in mine).most_common(1)
        median = float(np.median([stack.shape[0] for stack in mine]))
        for stack in mine:
            file, exam = stack.place.file, stack.place.exam
            if stack.shape[1:] != usual and count >= USUAL_SIZE_SHARE * len(mine):
                text = f"expected {_size(usual)} pixels as in {count} of {len(mine)} {name} stacks"
                yield Problem("odd-size", f"{text}; found {_size(stack.shape[1:])}", file, exam)
            slices = stack.shape[0]
            if not median / ODD_SLICES <= slices <= median * ODD_SLICES:
                text = f"{slices} slices; the median of {len(mine)} {name} stacks is {median:g}"
                yield Problem("odd-slices", text, file, exam)


def _size(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))
