"""Exams that are in a data set twice: copies, and exams too alike to be two knees.

Copies are found by their bytes. The others in three steps. First, each exam's pictures are cut to
30 windows, as they are and mirrored, and held against all other exams' whole pictures; the few
most alike go on. Then the window is fitted, series by series. Last, the slices' perceptual hashes
are compared, and the mean over the series is the pair's distance.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import numpy as np
from jaxtyping import Bool, Float32, Int64, Shaped

from mrknee.checkup.facts import Pair
from mrknee.checkup.layout import Place
from mrknee.checkup.likeness import (
    CELLS,
    Pictures,
    Window,
    best_window,
    distance,
    hashes,
    pictures,
    seen,
)
from mrknee.checkup.problem import Problem
from mrknee.checkup.stacks import Look
from mrknee.exams import MRNET_SERIES, SeriesList
from mrknee.progress import Progress

ALIKE = 0.19
"""Pairs of exams at this distance or nearer are reported. Chosen between the farthest altered copy
and the nearest two different exams of the sets that `docs/reference/checks.md` names."""

NEAREST = 3
"""So many of the most alike exams of each are compared slice by slice."""

LEAST = 0.8
"""Exams whose pictures correlate less are no copies: altered copies began at 0.89."""

WINDOWS: tuple[Window, ...] = tuple(
    (top, top + side, left, left + side)
    for side in (32, 30, 28, 26)
    for top, left in product(range(0, CELLS - side + 1, 2), repeat=2)
)
"""The windows that each exam is first cut to: squares of all, 15/16, 7/8 and 13/16 of the side."""

BLOCK = 256
"""Exams whose windows are compared at a time, which bounds the memory."""

Exam = tuple[str, str]
"""Split and id."""


def find_copies(looks: Sequence[Look]) -> tuple[list[Pair], list[Problem]]:
    """Stacks that are the same, byte for byte; each with the first of its kind.

    Stacks of one value are left out: they are told as such.
    """
    first: dict[bytes, Place] = {}
    problems: list[Problem] = []
    copied: dict[tuple[Exam, Exam], list[str]] = {}
    for look in looks:
        place = look.place
        other = first.setdefault(look.digest, place)
        if look.blank or other == place:
            continue
        if _exam(other) == _exam(place):
            text = f"the same as {other.file}"
            problems.append(Problem("copy-planes", text, place.file, place.exam))
        else:
            copied.setdefault((_exam(other), _exam(place)), []).append(place.series)
    pairs = []
    for (one, two), same in copied.items():
        text = f"the same as {_name(one)}: {', '.join(same)}"
        code = "copy" if one[0] == two[0] else "copy-across"
        problems.append(Problem(code, text, _file(two, same), two[1]))
        pairs.append(Pair(_name(one), _name(two), 0.0, dict.fromkeys(same, 0.0), copy=True))
    return pairs, problems


def find_alike(
    looks: Sequence[Look], series: SeriesList = MRNET_SERIES, copies: Sequence[Pair] = ()
) -> tuple[list[Pair], list[Problem]]:
    """Exams that are as alike as altered copies of one.

    Args:
        looks: the stacks; those of one value are left out.
        series: the series there may be.
        copies: pairs that are told already.

    Returns:
        The pairs, the most alike first; and the problems.
    """
    exams: dict[Exam, dict[str, Look]] = {}
    for look in looks:
        if not look.blank:
            exams.setdefault(_exam(look.place), {})[look.place.series] = look
    told = {frozenset((pair.first, pair.second)) for pair in copies}
    found: dict[frozenset[str], Pair] = {}
    names = list(exams)
    with Progress(len(names), "comparing the exams") as progress:
        for one, two, starts in _candidates(list(exams.values()), series.names, progress):
            pair = _compare(names[one], names[two], exams, starts)
            key = frozenset((pair.first, pair.second))
            nearer = key not in found or pair.distance < found[key].distance
            if pair.distance <= ALIKE and key not in told and nearer:
                found[key] = pair
    pairs = sorted(found.values(), key=lambda pair: (pair.distance, pair.first, pair.second))
    return pairs, [_problem(pair) for pair in pairs]


def _candidates(
    exams: Sequence[Mapping[str, Look]], names: Sequence[str], progress: Progress
) -> Iterator[tuple[int, int, dict[str, tuple[Window, bool]]]]:
    """For each exam the others that look most like it: positions, and a window per series.

    The window is the first exam's; with True it is mirrored.
    """
    images = {name: _pictures(exams, name) for name in names}
    there = {name: np.array([name in exam for exam in exams]) for name in names}
    whole = {name: seen(images[name]) for name in names}
    for start in range(0, len(exams), BLOCK):
        rows = slice(start, min(start + BLOCK, len(exams)))
        matches = {p: _match(images[p][rows], whole[p]) for p in names}
        both = {p: there[p][rows, None] & there[p] for p in names}
        alike = _mean({p: value for p, (value, _) in matches.items()}, both)
        here = np.arange(rows.start, rows.stop)
        alike[here - start, here] = -np.inf
        for row, one in enumerate(here.tolist()):
            for two in np.argsort(-alike[row], kind="stable")[:NEAREST].tolist():
                if alike[row, two] >= LEAST:
                    shared = [p for p in names if both[p][row, two]]
                    ways = {p: int(matches[p][1][row, two]) for p in shared}
                    yield one, two, {p: (WINDOWS[w // 2], bool(w % 2)) for p, w in ways.items()}
            progress.advance()


def _pictures(exams: Sequence[Mapping[str, Look]], name: str) -> Pictures:
    """The exams' pictures of one series; zeros where an exam lacks it."""
    images = np.zeros((len(exams), 2, CELLS, CELLS), dtype=np.float32)
    for position, exam in enumerate(exams):
        if name in exam:
            images[position] = pictures(exam[name].cells)
    return images


def _match(
    images: Pictures, whole: Float32[np.ndarray, "others numbers"]
) -> tuple[Float32[np.ndarray, "stacks others"], Int64[np.ndarray, "stacks others"]]:
    """The best correlation of any window with the others' whole pictures, and which window.

    Ways are counted window by window, each as it is (even) and mirrored (odd).
    """
    best = np.full((len(images), len(whole)), -np.inf, dtype=np.float32)
    which = np.zeros(best.shape, dtype=np.int64)
    for way, (window, mirrored) in enumerate(product(WINDOWS, (False, True))):
        alike = seen(_cut(images, window, mirrored=mirrored)) @ whole.T
        better = alike > best
        best[better] = alike[better]
        which[better] = way
    return best, which


def _cut(
    images: Shaped[np.ndarray, "*images 32 32"], window: Window, *, mirrored: bool
) -> Shaped[np.ndarray, "*images rows cols"]:
    """A window of pictures or slices, after mirroring them."""
    top, bottom, left, right = window
    turned = images[..., ::-1] if mirrored else images
    return turned[..., top:bottom, left:right]


def _mean(
    values: Mapping[str, Float32[np.ndarray, "exams others"]],
    there: Mapping[str, Bool[np.ndarray, "exams others"]],
) -> Float32[np.ndarray, "exams others"]:
    """The mean over the series that both have; minus infinity where there is none."""
    total = sum(np.where(there[name], values[name], np.float32(0)) for name in values)
    count = sum(there[name].astype(np.float32) for name in values)
    return np.where(count > 0, total / np.maximum(count, 1), -np.inf).astype(np.float32)


def _compare(
    one: Exam,
    two: Exam,
    exams: Mapping[Exam, Mapping[str, Look]],
    starts: Mapping[str, tuple[Window, bool]],
) -> Pair:
    """Two exams slice by slice, each series in its own best window of the first."""
    distances: dict[str, float] = {}
    for name, (start, mirrored) in starts.items():
        first, second = exams[one][name].cells, exams[two][name].cells
        if mirrored:
            first = first[..., ::-1]
        window = best_window(pictures(first), seen(pictures(second)), start)
        inside = _cut(first, window, mirrored=False)
        distances[name] = round(distance(hashes(inside), hashes(second)), 3)
    first_name, second_name = sorted((_name(one), _name(two)))
    mean = round(float(np.mean(list(distances.values()))), 3)
    return Pair(first_name, second_name, mean, distances, copy=False)


def _problem(pair: Pair) -> Problem:
    one, two = (tuple(name.split("/", 1)) for name in (pair.first, pair.second))
    each = ", ".join(f"{name} {value:.2f}" for name, value in pair.series.items())
    text = (
        f"as alike as a copy to {pair.first}: distance {pair.distance:.2f} ({each}); "
        f"told up to {ALIKE}, where chance is 0.5"
    )
    code = "alike" if one[0] == two[0] else "alike-across"
    return Problem(code, text, _file((two[0], two[1]), ()), two[1])


def _exam(place: Place) -> Exam:
    return place.split, place.exam


def _name(exam: Exam) -> str:
    return "/".join(exam)


def _file(exam: Exam, series: Sequence[str]) -> str:
    return f"{exam[0]}/{series[0] if len(series) == 1 else '*'}/{exam[1]}.npy"
