"""Every stack read once, on all cores: what is wrong with it, and what is kept of it."""

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

from mrknee.checkup.layout import Place
from mrknee.checkup.likeness import Grid, grid
from mrknee.checkup.problem import Problem, from_error
from mrknee.errors import MrkneeError
from mrknee.exams import MRNET_SERIES, SeriesList, read_stack
from mrknee.exams.axes import AXES, Axes
from mrknee.exams.plausibility import BLANK, MANY_EMPTY, stack_remarks
from mrknee.exams.stackfile import first_pixel
from mrknee.progress import track

CODES = ("not-npy", "truncated", "pickled", "wrong-type", "wrong-rank", "not-finite")
"""Codes of errors of `read_stack`; any other error is `unreadable`."""

NEARLY_EMPTY = 0.1
"""A slice is nearly empty where its SD is at most this share of the largest in its stack. Slices
beyond the knee, at both ends of a stack, often are: 0.003 in phantoms, 0.05 in a real knee."""

USUAL_SIZE_SHARE = 0.9
"""A series has a usual size where this share of its stacks has it."""

ODD_SLICES = 3
"""A stack is odd whose slices are fewer than the median divided by this, or more than the median
times this. MRNet's range, 17 to 61 with medians of 30 to 35, is inside."""


@dataclass(frozen=True)
class Look:
    """What is kept of a stack after reading it.

    Attributes:
        place: where it lies.
        shape: slices, rows, cols.
        digest: of shape and values as they are read; equal for the same stack only.
        cells: its slices at 32 x 32 cells.
        blank: all pixels have one value, so it can't be compared with others.
    """

    place: Place
    shape: tuple[int, int, int]
    digest: bytes
    cells: Grid
    blank: bool


def look_at_stacks(
    root: Path, places: Sequence[Place], *, axes: Axes = AXES
) -> tuple[list[Look], list[Problem]]:
    """Reads every stack once.

    Args:
        root: the data set's folder.
        places: where the stacks are.
        axes: the order of the files' axes.

    Returns:
        What was seen of those that can be read, in the order of `places`; and the problems.
    """
    looks: list[Look] = []
    problems: list[Problem] = []
    # Threads: reading, hashing and adding up are done without Python's lock.
    with ThreadPoolExecutor() as pool:
        results = pool.map(partial(_look, root, axes), places)
        try:
            for look, found in track(results, len(places), "reading the stacks", "stacks"):
                problems += found
                if look is not None:
                    looks.append(look)
        finally:
            pool.shutdown(cancel_futures=True)  # after Ctrl-C the rest is not read any more
    return looks, problems


def _look(root: Path, axes: Axes, place: Place) -> tuple[Look | None, list[Problem]]:
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
    look = Look(place, (slices, rows, cols), hasher.digest(), grid(stack), blank)
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
        if code not in BLANK | {"empty-slices"}:  # which is looked for more closely below
            add(code, text)
    if not blank and "equal-slices" not in remarks:
        problems += _empty_slices(look, stack.min(axis=(1, 2)) == stack.max(axis=(1, 2)))
    return look, problems


def _empty_slices(look: Look, single: Bool[np.ndarray, " slices"]) -> Iterator[Problem]:
    """Slices of one value, nearly empty ones between others, and too many at the ends."""
    contrast = look.cells.std(axis=(1, 2))
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
        text = f"{len(numbers)} of {len(wrong)} slices are empty or nearly so: {shown} (from 0)"
        yield Problem("empty-slices", text, look.place.file, look.place.exam)


def check_shapes(looks: Sequence[Look], series: SeriesList = MRNET_SERIES) -> Iterator[Problem]:
    """Stacks whose size in plane or number of slices is unlike the rest of their series."""
    for name in series.names:
        mine = [look for look in looks if look.place.series == name]
        if not mine:
            continue
        ((usual, count),) = Counter(look.shape[1:] for look in mine).most_common(1)
        median = float(np.median([look.shape[0] for look in mine]))
        for look in mine:
            file, exam = look.place.file, look.place.exam
            if look.shape[1:] != usual and count >= USUAL_SIZE_SHARE * len(mine):
                text = f"expected {_size(usual)} pixels as in {count} of {len(mine)} {name} stacks"
                yield Problem("odd-size", f"{text}; found {_size(look.shape[1:])}", file, exam)
            slices = look.shape[0]
            if not median / ODD_SLICES <= slices <= median * ODD_SLICES:
                text = f"{slices} slices; the median of {len(mine)} {name} stacks is {median:g}"
                yield Problem("odd-slices", text, file, exam)


def _size(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))
