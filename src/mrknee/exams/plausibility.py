"""Is this exam anything that a model's probabilities can be believed for? numpy only.

A network answers whatever it is given: black stacks get calibrated probabilities too. `remarks_of`
says what is odd about an exam, in a few milliseconds: equality is tested on one slice before it is
tested on all, and contrast is measured on a grid of pixels. `docs/reference/plausibility.md`
states the rules for users.

Nothing here refuses an exam: every output that carries probabilities carries the remarks beside
them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Int64

from mrknee.errors import ModelError
from mrknee.exams.axes import AXES, Shape, other_axes, shape_of
from mrknee.exams.exam import Exam, Exams, Stack, refuse_no_exam
from mrknee.exams.remark import Remark
from mrknee.progress import track

CODES: Mapping[str, str] = {
    "all-zero": "every pixel of a stack is 0",
    "constant": "every pixel of a stack has the same value, which is not 0",
    "one-slice": "a stack has one slice",
    "equal-slices": "all slices of a stack are the same",
    "empty-slices": "a quarter of a stack's slices or more have one value each",
    "low-contrast": "98 % of a stack's pixels lie within fewer than 16 of 256 grey values, with or "
    "without the darkest and the brightest; or 9 in 10 pixels have one value",
    "outliers": "a few values lie so far from the others that they were clipped",
    "copy-planes": "two series are the same stack",
    "other-axes": "a stack's axes seem to be in another order than (slices, rows, cols)",
    "other-size": "the size in plane is outside the range that the model was trained on",
    "other-slices": "the number of slices is far outside the range that the model was trained on",
}
"""Code of a remark -> what it means. `mrknee check` uses the same codes."""

BLANK = frozenset({"all-zero", "constant"})
"""Codes of stacks that show nothing at all."""

LEAST_CONTRAST = 16
"""Grey values from the 1st to the 99th percentile. Fewer than 16 are less than 4 bits: a network
whose input is scaled from minimum to maximum would see steps, noise, or a few odd pixels."""

ONE_VALUE = 0.9
"""Share of a stack's pixels with one value, from which on it is nearly blank. A knee fills a third
of its field or more, so black around it is two thirds at most."""

MANY_EMPTY = 0.25
"""Share of slices with a single value each. A few at the ends pad a stack; a quarter is as much as
`mrknee check` allows there."""

GRID = 32
"""Contrast is measured on so many rows and columns of each slice, which is cheap and enough for
percentiles of a whole stack."""

NOTED = 5
"""Exams that a note names; the table of remarks has them all."""

FAR_SLICES = 2
"""How many times fewer or more slices than in any stack trained on are remarked on. Slice counts
vary from knee to knee, so the next knee often lies a little outside the range of a small training
set; twice as many slices are half as thick, which is another protocol."""

Range = tuple[int, int]


@dataclass(frozen=True)
class StackSizes:
    """The smallest and the largest of some stacks of one series.

    Attributes:
        slices, rows, cols: minimum and maximum of each axis, 1 or more.
    """

    slices: Range
    rows: Range
    cols: Range

    @classmethod
    def of(cls, shapes: Iterable[Shape]) -> StackSizes:
        """The ranges of at least one shape."""
        slices, rows, cols = ((min(sides), max(sides)) for sides in zip(*shapes, strict=True))
        return cls(slices, rows, cols)

    def to_dict(self) -> dict[str, list[int]]:
        """The same in plain form, for JSON."""
        return {name: list(getattr(self, name)) for name in AXES}


def sizes_from(content: object) -> Mapping[str, StackSizes]:
    """The sizes that a model's provenance states under `stack_sizes`: series -> its ranges.

    Args:
        content: what stands there; None (models of before 2.0 state nothing) gives none.

    Raises:
        MrkneeError: it is something else than training writes.
    """
    if content is None:
        return {}
    try:
        return {str(name): _ranges(sides) for name, sides in dict(content).items()}  # type: ignore[call-overload]
    except (TypeError, ValueError, KeyError, AttributeError):
        raise ModelError(
            "the sizes that the model was trained on can't be read",
            code="description",
            expected="for each series the smallest and largest number of slices, rows and cols",
            found=repr(content)[:200],
            advice="restore the model's files",
        ) from None


def _ranges(sides: Mapping[str, Any]) -> StackSizes:
    if sides.keys() != set(AXES):
        raise ValueError(sides)
    ranges: list[Range] = []
    for name in AXES:
        low, high = sides[name]
        if type(low) is not int or type(high) is not int or not 1 <= low <= high:
            raise ValueError(sides)
        ranges.append((low, high))
    return StackSizes(*ranges)


def remarks_of(exam: Exam, trained: Mapping[str, StackSizes] | None = None) -> tuple[Remark, ...]:
    """What is odd about an exam, the exam's own remarks from reading its files first.

    Args:
        exam: the exam.
        trained: series -> the sizes that a model was trained on; series without are not judged.
    """
    found = [*exam.remarks]
    for name, stack in exam.stacks.items():
        found += stack_remarks(stack, name)
    found += _equal_stacks(exam)
    order = other_axes({name: [shape_of(stack)] for name, stack in exam.stacks.items()})
    if order is not None:
        axes, why = order
        found.append(Remark("other-axes", None, f"the axes seem to be {', '.join(axes)}: {why}"))
    for name, stack in exam.stacks.items():
        if trained and name in trained:
            found += _unlike(trained[name], stack, name)
    return tuple(found)


def stack_remarks(stack: Stack, series: str) -> Iterator[Remark]:
    """What is odd about one stack by itself.

    Args:
        stack: the stack.
        series: its series, for the remark.
    """
    if len(stack) == 1:
        yield Remark("one-slice", series, "the stack has one slice")
    first = stack[0]
    same = all(np.array_equal(first, other) for other in stack[1:])  # ends at the first that isn't
    if same and first.min() == first.max():
        value = int(first[0, 0])
        yield Remark(
            "constant" if value else "all-zero",
            series,
            f"each of its {stack.size:,} pixels is {value}",
        )
        return
    if same and len(stack) > 1:
        yield Remark("equal-slices", series, f"its {len(stack)} slices are the same")
    # some pixels first: most slices have two values among them
    some = stack[:, :: max(stack.shape[1] // GRID, 1), :: max(stack.shape[2] // GRID, 1)]
    likely = np.flatnonzero(some.min(axis=(1, 2)) == some.max(axis=(1, 2)))
    empty = sum(bool(stack[i].min() == stack[i].max()) for i in likely)
    if empty >= MANY_EMPTY * len(stack):
        yield Remark("empty-slices", series, f"{empty} of its {len(stack)} slices have one value")
    if empty == len(stack):
        return
    low = _low_contrast(np.bincount(some.ravel(), minlength=256))
    if low is not None:
        yield Remark("low-contrast", series, low)


def _low_contrast(counts: Int64[np.ndarray, 256]) -> str | None:
    """In words, that there is hardly any contrast; None where there is.

    Args:
        counts: how many pixels have each grey value.
    """
    contrast = _values_between(counts)
    if contrast < LEAST_CONTRAST:
        return f"98 % of the pixels lie within {contrast} of 256 grey values"
    # padding, or clipped outliers, may take nearly the whole range for themselves
    values = np.flatnonzero(counts)
    contrast = _values_between(np.where(np.isin(range(256), values[[0, -1]]), 0, counts))
    if contrast < LEAST_CONTRAST:
        return (
            f"98 % of the pixels that are neither the darkest nor the brightest lie within "
            f"{contrast} of 256 grey values"
        )
    usual = counts.max() / counts.sum()
    if usual >= ONE_VALUE:
        return f"{usual:.0%} of the pixels have the value {counts.argmax()}"
    return None


def _values_between(counts: Int64[np.ndarray, 256]) -> int:
    """How many grey values lie from the 1st to the 99th percentile, both counted."""
    total = counts.sum()
    if not total:
        return 0
    share = np.cumsum(counts) / total
    return int(np.searchsorted(share, 0.99) - np.searchsorted(share, 0.01)) + 1


def _equal_stacks(exam: Exam) -> Iterator[Remark]:
    """Series that are the same stack; blank ones have a remark of their own."""
    for (one, first), (other, second) in combinations(exam.stacks.items(), 2):
        middle = len(first) // 2
        if (
            first.shape == second.shape
            and np.array_equal(first[middle], second[middle])
            and np.array_equal(first, second)
            and first.min() != first.max()
        ):
            yield Remark("copy-planes", None, f"{one} and {other} are the same stack")


def _unlike(trained: StackSizes, stack: Stack, series: str) -> Iterator[Remark]:
    slices, rows, cols = shape_of(stack)
    if not (_within(rows, trained.rows) and _within(cols, trained.cols)):
        text = (
            f"{rows} x {cols} pixels; the model was trained on "
            f"{_range(trained.rows)} x {_range(trained.cols)}"
        )
        yield Remark("other-size", series, text)
    least, most = trained.slices
    if not least / FAR_SLICES <= slices <= most * FAR_SLICES:
        text = f"{slices} slices; the model was trained on {_range(trained.slices)}"
        yield Remark("other-slices", series, text)


def _within(size: int, known: Range) -> bool:
    return known[0] <= size <= known[1]


def _range(known: Range) -> str:
    return str(known[0]) if known[0] == known[1] else f"{known[0]} to {known[1]}"


class Inspected:
    """Exams that are looked at when they are first read; the remarks are kept.

    Worker processes have copies of their own, so `remarks` reads what only they have read.

    Args:
        exams: any row of exams.
        trained: as for `remarks_of`.
    """

    def __init__(self, exams: Exams, trained: Mapping[str, StackSizes] | None = None) -> None:
        self._exams, self._trained = exams, trained
        self._found: dict[int, tuple[str, tuple[Remark, ...]]] = {}

    def __len__(self) -> int:
        return len(self._exams)

    def __getitem__(self, index: int) -> Exam:
        exam = self._exams[index]
        refuse_no_exam(exam)
        if index not in self._found:
            self._found[index] = (exam.id, remarks_of(exam, self._trained))
        return exam

    def remarks(self) -> dict[str, tuple[Remark, ...]]:
        """The ids of the exams with something odd about them -> what, in the exams' order."""
        for index in range(len(self)):
            if index not in self._found:
                self[index]
        ordered = (self._found[index] for index in range(len(self)))
        return {exam_id: remarks for exam_id, remarks in ordered if remarks}


def remarks_on(
    exams: Exams, positions: Sequence[int], trained: Mapping[str, StackSizes]
) -> dict[str, tuple[Remark, ...]]:
    """Reads exams and says what is odd about them: id -> remarks, for those with a remark.

    Args:
        exams: any row of exams.
        positions: which of them.
        trained: as for `remarks_of`.
    """
    found: dict[str, tuple[Remark, ...]] = {}
    for position in track(positions, len(positions), "looking at the exams"):
        exam = exams[position]
        found[exam.id] = remarks_of(exam, trained)
    return {exam_id: remarks for exam_id, remarks in found.items() if remarks}


def notes_on(remarks: Mapping[str, Sequence[Remark]], n_exams: int) -> list[str]:
    """A note for a scorecard on exams with something odd about them; none where there is nothing.

    Args:
        remarks: id -> remarks.
        n_exams: how many exams were looked at.
    """
    if not remarks:
        return []
    first = "; ".join(
        f"{exam_id}: " + ", ".join(dict.fromkeys(remark.code for remark in found))
        for exam_id, found in list(remarks.items())[:NOTED]
    )
    more = f"; and {len(remarks) - NOTED} more" if len(remarks) > NOTED else ""
    return [f"{len(remarks)} of these {n_exams} exams have something odd about them: {first}{more}"]


def summary(remarks: Mapping[str, Sequence[Remark]], shown: int = 10) -> str:
    """Remarks as text for a terminal: a headline, then a line per exam for the first `shown`."""
    if not remarks:
        return ""
    lines = [
        f"{len(remarks)} exam{'' if len(remarks) == 1 else 's'} with something odd; don't rely on "
        + ("its" if len(remarks) == 1 else "their")
        + " probabilities before you have looked:"
    ]
    for exam_id, found in list(remarks.items())[:shown]:
        lines.append(f"  {exam_id}: " + "; ".join(f"{remark} [{remark.code}]" for remark in found))
    if len(remarks) > shown:
        lines.append(f"  and {len(remarks) - shown} more")
    return "\n".join(lines)
