"""Duplicate exams: exact copies and near-duplicates.

Copies have identical bytes. Near-duplicates are found in three steps. First, the thumbnails of each
exam are cropped to 30 windows, unchanged and mirrored, and correlated with the complete thumbnails
of all other exams; the most similar exams become candidates. Then the window is optimised per
series. Finally, the perceptual hashes of the slices are compared; the mean over the series is the
distance of the pair.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import numpy as np
from jaxtyping import Bool, Float32, Int64, Shaped

from mrknee.checks.facts import Pair
from mrknee.checks.layout import Place
from mrknee.checks.problem import Problem
from mrknee.checks.similarity import (
    CELLS,
    Thumbnails,
    Window,
    best_window,
    distance,
    features,
    hashes,
    thumbnails,
)
from mrknee.checks.stacks import StackSummary
from mrknee.exams import MRNET_SERIES, SeriesList
from mrknee.progress import Progress

ALIKE = 0.19
"""Pairs of exams at this distance or nearer are reported. Chosen between the farthest altered copy
and the nearest two different exams of the sets that `docs/reference/checks.md` names."""

NEAREST = 3
"""Number of candidates per exam that are compared slice by slice."""

LEAST = 0.8
"""Minimum correlation of thumbnails of a candidate: altered copies began at 0.89."""

WINDOWS: tuple[Window, ...] = tuple(
    (top, top + side, left, left + side)
    for side in (32, 30, 28, 26)
    for top, left in product(range(0, CELLS - side + 1, 2), repeat=2)
)
"""Windows of the first step: squares of 1, 15/16, 7/8 and 13/16 of the side."""

BLOCK = 256
"""Number of exams compared at a time, which limits memory."""

ExamKey = tuple[str, str]
"""Split and id of an exam."""


def find_copies(stacks: Sequence[StackSummary]) -> tuple[list[Pair], list[Problem]]:
    """Finds identical stacks; each is paired with the first one.

    Blank stacks are skipped, because they are reported as blank.
    """
    first: dict[bytes, Place] = {}
    problems: list[Problem] = []
    copied: dict[tuple[ExamKey, ExamKey], list[str]] = {}
    for stack in stacks:
        place = stack.place
        other = first.setdefault(stack.digest, place)
        if stack.blank or other == place:
            continue
        if _exam(other) == _exam(place):
            text = f"identical to {other.file}"
            problems.append(Problem("copy-planes", text, place.file, place.exam))
        else:
            copied.setdefault((_exam(other), _exam(place)), []).append(place.series)
    pairs = []
    for (one, two), same in copied.items():
        text = f"identical to {_name(one)}: {', '.join(same)}"
        code = "copy" if one[0] == two[0] else "copy-across"
        problems.append(Problem(code, text, _file(two, same), two[1]))
        pairs.append(Pair(_name(one), _name(two), 0.0, dict.fromkeys(same, 0.0), copy=True))
    return pairs, problems


def find_alike(
    stacks: Sequence[StackSummary], series: SeriesList = MRNET_SERIES, copies: Sequence[Pair] = ()
) -> tuple[list[Pair], list[Problem]]:
    """Finds exams that are as similar as altered copies of one exam.

    Args:
        stacks: the stacks; blank ones are skipped.
        series: the declared series.
        copies: pairs that are already reported.

    Returns:
        The pairs, sorted by distance; and the problems.
    """
    exams: dict[ExamKey, dict[str, StackSummary]] = {}
    for stack in stacks:
        if not stack.blank:
            exams.setdefault(_exam(stack.place), {})[stack.place.series] = stack
    reported = {frozenset((pair.first, pair.second)) for pair in copies}
    found: dict[frozenset[str], Pair] = {}
    names = list(exams)
    with Progress(len(names), "comparing exams") as progress:
        for one, two, starts in _candidates(list(exams.values()), series.names, progress):
            pair = _compare(names[one], names[two], exams, starts)
            key = frozenset((pair.first, pair.second))
            nearer = key not in found or pair.distance < found[key].distance
            if pair.distance <= ALIKE and key not in reported and nearer:
                found[key] = pair
    pairs = sorted(found.values(), key=lambda pair: (pair.distance, pair.first, pair.second))
    return pairs, [_problem(pair) for pair in pairs]


def _candidates(
    exams: Sequence[Mapping[str, StackSummary]], names: Sequence[str], progress: Progress
) -> Iterator[tuple[int, int, dict[str, tuple[Window, bool]]]]:
    """Yields the most similar other exams of each exam.

    Yields:
        The positions of both exams, and series -> window of the first exam and whether the first
        exam is mirrored.
    """
    images = {name: _thumbnails(exams, name) for name in names}
    present = {name: np.array([name in exam for exam in exams]) for name in names}
    complete = {name: features(images[name]) for name in names}
    for start in range(0, len(exams), BLOCK):
        rows = slice(start, min(start + BLOCK, len(exams)))
        matches = {p: _match(images[p][rows], complete[p]) for p in names}
        both = {p: present[p][rows, None] & present[p] for p in names}
        alike = _mean({p: value for p, (value, _) in matches.items()}, both)
        here = np.arange(rows.start, rows.stop)
        alike[here - start, here] = -np.inf
        for row, one in enumerate(here.tolist()):
            for two in np.argsort(-alike[row], kind="stable")[:NEAREST].tolist():
                if alike[row, two] >= LEAST:
                    shared = [p for p in names if both[p][row, two]]
                    best = {p: int(matches[p][1][row, two]) for p in shared}
                    yield one, two, {p: (WINDOWS[w // 2], bool(w % 2)) for p, w in best.items()}
            progress.advance()


def _thumbnails(exams: Sequence[Mapping[str, StackSummary]], name: str) -> Thumbnails:
    """Returns the thumbnails of one series of all exams; zeros for exams without the series."""
    images = np.zeros((len(exams), 2, CELLS, CELLS), dtype=np.float32)
    for position, exam in enumerate(exams):
        if name in exam:
            images[position] = thumbnails(exam[name].cells)
    return images


def _match(
    images: Thumbnails, complete: Float32[np.ndarray, "others numbers"]
) -> tuple[Float32[np.ndarray, "stacks others"], Int64[np.ndarray, "stacks others"]]:
    """Returns the best correlation of any window with complete thumbnails, and its index.

    Windows are numbered in order, each unchanged (even) and mirrored (odd).
    """
    best = np.full((len(images), len(complete)), -np.inf, dtype=np.float32)
    which = np.zeros(best.shape, dtype=np.int64)
    for index, (window, mirrored) in enumerate(product(WINDOWS, (False, True))):
        alike = features(_crop(images, window, mirrored=mirrored)) @ complete.T
        better = alike > best
        best[better] = alike[better]
        which[better] = index
    return best, which


def _crop(
    images: Shaped[np.ndarray, "*images 32 32"], window: Window, *, mirrored: bool
) -> Shaped[np.ndarray, "*images rows cols"]:
    """Crops thumbnails or slices to a window, after mirroring."""
    top, bottom, left, right = window
    turned = images[..., ::-1] if mirrored else images
    return turned[..., top:bottom, left:right]


def _mean(
    values: Mapping[str, Float32[np.ndarray, "exams others"]],
    present: Mapping[str, Bool[np.ndarray, "exams others"]],
) -> Float32[np.ndarray, "exams others"]:
    """Computes the mean over the common series; minus infinity if there are none."""
    total = sum(np.where(present[name], values[name], np.float32(0)) for name in values)
    count = sum(present[name].astype(np.float32) for name in values)
    return np.where(count > 0, total / np.maximum(count, 1), -np.inf).astype(np.float32)


def _compare(
    one: ExamKey,
    two: ExamKey,
    exams: Mapping[ExamKey, Mapping[str, StackSummary]],
    starts: Mapping[str, tuple[Window, bool]],
) -> Pair:
    """Compares two exams slice by slice, per series in the best window of the first exam."""
    distances: dict[str, float] = {}
    for name, (start, mirrored) in starts.items():
        first, second = exams[one][name].cells, exams[two][name].cells
        if mirrored:
            first = first[..., ::-1]
        window = best_window(thumbnails(first), features(thumbnails(second)), start)
        inside = _crop(first, window, mirrored=False)
        distances[name] = round(distance(hashes(inside), hashes(second)), 3)
    first_name, second_name = sorted((_name(one), _name(two)))
    mean = round(float(np.mean(list(distances.values()))), 3)
    return Pair(first_name, second_name, mean, distances, copy=False)


def _problem(pair: Pair) -> Problem:
    one, two = (tuple(name.split("/", 1)) for name in (pair.first, pair.second))
    each = ", ".join(f"{name} {value:.2f}" for name, value in pair.series.items())
    text = (
        f"near-duplicate of {pair.first}: distance {pair.distance:.2f} ({each}); "
        f"reported up to {ALIKE}; unrelated slices have 0.5"
    )
    code = "alike" if one[0] == two[0] else "alike-across"
    return Problem(code, text, _file((two[0], two[1]), ()), two[1])


def _exam(place: Place) -> ExamKey:
    return place.split, place.exam


def _name(exam: ExamKey) -> str:
    return "/".join(exam)


def _file(exam: ExamKey, series: Sequence[str]) -> str:
    return f"{exam[0]}/{series[0] if len(series) == 1 else '*'}/{exam[1]}.npy"
