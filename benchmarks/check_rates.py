"""Detection and false-alarm rates of `mrknee check` for altered copies and swapped planes.

    python benchmarks/check_rates.py DATA... [--hippocampus]

DATA are data sets of different knees (`mrknee phantom`), which must not be those on which the
limits were chosen: docs/reference/checks.md names both. --hippocampus adds real MRI: exams 60 to
139 of `hippocampus.py`. If the shared data are available, their real knee is added to each data set
of knees.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import hippocampus
import numpy as np

from mrknee.checks.duplicates import find_alike
from mrknee.checks.layout import Place
from mrknee.checks.planes import check_planes
from mrknee.checks.similarity import grid
from mrknee.checks.stacks import StackSummary
from mrknee.exams import PLANES, Dataset, Exam, Plane, Stack
from mrknee.metrics.proportions import wilson

Alteration = Callable[[str, Stack, np.random.Generator], Stack]
SWAPPED = 0.05
"""Fraction of exams in which two planes are swapped, per trial."""


def brightened(plane: str, stack: Stack, rng: np.random.Generator) -> Stack:
    """Applies gamma 0.7 to 1.4, gain 0.7 to 1.3 and offset -10 to 20 of 255, and clips."""
    del plane
    gamma, gain, offset = rng.uniform((0.7, 0.7, -10), (1.4, 1.3, 20))
    return as_bytes(255 * (stack / 255) ** gamma * gain + offset)


def mirrored(plane: str, stack: Stack, rng: np.random.Generator) -> Stack:
    """Mirrors the knee left to right: the columns, or the order of sagittal slices."""
    del rng
    return stack[::-1] if plane == Plane.SAGITTAL else stack[:, :, ::-1]


def cropped(plane: str, stack: Stack, rng: np.random.Generator) -> Stack:
    """Crops to 80 to 95 % of the rows and, independently, of the columns, at a random position."""
    del plane
    keep = [int(side * rng.uniform(0.8, 0.95)) for side in stack.shape[1:]]
    at = [rng.integers(side - k + 1) for side, k in zip(stack.shape[1:], keep, strict=True)]
    return stack[:, at[0] : at[0] + keep[0], at[1] : at[1] + keep[1]]


def shortened(plane: str, stack: Stack, rng: np.random.Generator) -> Stack:
    """Removes up to two slices at each end and adds noise of SD 6."""
    del plane
    first, last = rng.integers(3, size=2)
    part = stack[first : len(stack) - last]
    return as_bytes(part + rng.normal(0, 6, part.shape))


def everything(plane: str, stack: Stack, rng: np.random.Generator) -> Stack:
    """Applies all these alterations."""
    for alter in (mirrored, cropped, brightened, shortened):
        stack = alter(plane, stack, rng)
    return stack


def as_bytes(values: np.ndarray) -> Stack:
    """Rounds and clips values to 0..255."""
    stack: Stack = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return stack


def summary(split: str, exam: str, plane: str, stack: Stack) -> StackSummary:
    """Returns the summary that the check keeps of a stack."""
    shape = (stack.shape[0], stack.shape[1], stack.shape[2])
    return StackSummary(Place(split, exam, plane), shape, b"", grid(stack), blank=False)


def summaries_of(
    exams: Mapping[str, Exam], split: str, alter: Alteration | None = None
) -> list[StackSummary]:
    """Returns the summaries of all stacks, altered with one random generator per exam."""
    stacks = []
    for number, (name, exam) in enumerate(exams.items()):
        rng = np.random.default_rng(number)
        for plane, stack in exam.stacks.items():
            altered = alter(plane, stack, rng) if alter else stack
            stacks.append(summary(split, name, plane, altered))
    return stacks


def report_copies(name: str, exams: Mapping[str, Exam]) -> None:
    """Prints how many altered copies are found, and how many pairs of different exams."""
    originals = summaries_of(exams, "train")
    n = len(exams)
    for alter in (None, brightened, mirrored, cropped, shortened, everything):
        copies = summaries_of(exams, "valid", alter) if alter else []
        pairs, _ = find_alike([*originals, *copies])
        right = [p for p in pairs if p.first.split("/")[1] == p.second.split("/")[1]]
        wrong = len(pairs) - len(right)
        total = n * (n - 1) // 2 * (4 if alter else 1)
        found = f"found {share(len(right), n)}, " if alter else ""
        farthest = max((pair.distance for pair in right), default=float("nan"))
        what = alter.__name__ if alter else "no copies"
        print(f"{name}: {what}: {found}wrong {share(wrong, total)}, farthest {farthest:.3f}")


def report_planes(name: str, exams: Mapping[str, Exam], guest: Sequence[StackSummary]) -> None:
    """Prints how many swapped stacks are found, and how many other stacks are reported."""
    stacks = summaries_of(exams, "train")
    compared, wrong = check_planes([*stacks, *guest])
    of_guest = sum(problem.exam == "real" for problem in wrong)
    print(f"{name}: planes told apart: {compared}; nothing swapped: wrong ", end="")
    print(share(len(wrong) - of_guest, len(stacks)), end="")
    print(f", of the real knee's {len(guest)} stacks {of_guest}" if guest else "")
    rng = np.random.default_rng(0)
    order = rng.permutation(list(exams))
    size = max(1, round(SWAPPED * len(order)))
    hits = swapped = false = others = 0
    for start in range(0, len(order), size):
        chosen = {name: rng.permutation(PLANES)[:2] for name in order[start : start + size]}
        tampered = [_swap(one, chosen) for one in stacks]
        _, problems = check_planes(tampered)
        moved = {(name, plane) for name, pair in chosen.items() for plane in map(str, pair)}
        reported = {(problem.exam, problem.file.split("/")[1]) for problem in problems}
        hits, swapped = hits + len(reported & moved), swapped + len(moved)
        false, others = false + len(reported - moved), others + len(stacks) - len(moved)
    print(f"{name}: swapped, {size} exams at a time: found {share(hits, swapped)}, ", end="")
    print(f"wrong {share(false, others)}")


def _swap(one: StackSummary, chosen: Mapping[str, np.ndarray]) -> StackSummary:
    pair = [str(plane) for plane in chosen.get(one.place.exam, ())]
    if one.place.series not in pair:
        return one
    other = pair[1 - pair.index(one.place.series)]
    return replace(one, place=replace(one.place, series=other))


def share(count: int, n: int) -> str:
    """Formats `count of n` with Wilson's interval."""
    p = wilson(count, n)
    return f"{count} of {n} ({p.low:.4f} to {p.high:.4f})"


def read(root: Path) -> dict[str, Exam]:
    """Reads the exams of both splits; returns id -> exam."""
    splits = [Dataset(root / split) for split in ("train", "valid")]
    return {exam.id: exam for split in splits for exam in split}


def real_knee() -> list[StackSummary]:
    """Returns the summaries of the real knee's three stacks; empty if it isn't available."""
    data = os.environ.get("MRKNEE_DATA") or hippocampus.REPOSITORY.parent / "shared" / "data"
    folder = Path(data) / "knee_exam_mrnet_layout"
    if not folder.is_dir():
        return []
    return [summary("train", "real", p, s) for p, s in Dataset(folder)[0].stacks.items()]


def main() -> None:
    """Reads the command line and prints one line per rate."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, nargs="*")
    parser.add_argument("--hippocampus", action="store_true")
    given = parser.parse_args()
    guest = real_knee()
    for root in given.data:
        exams = read(root)
        report_copies(root.name, exams)
        report_planes(root.name, exams, guest)
    if given.hippocampus:
        with tempfile.TemporaryDirectory() as folder:
            hippocampus.write_exams(hippocampus.volumes_file(), Path(folder), 0)
            exams = dict(list(read(Path(folder)).items())[60:140])
            report_copies("hippocampus", exams)
            report_planes("hippocampus", exams, [])


if __name__ == "__main__":
    main()
