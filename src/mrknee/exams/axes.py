"""The order of a stack's axes: (slices, rows, cols) is expected; another order is recognised.

Nothing in a `.npy` file names its axes, so the shapes have to tell. The rules, which
`docs/reference/checks.md` states for users too:

1. One stack: read as (slices, rows, cols), its slices would be `LONG` times longer than wide or
   more, while two axes of which one is the first are within a factor of `SQUARE`. No knee is
   imaged in a field three times longer than wide, so the third axis counts the slices.
2. All stacks of two series or more: the same two axes, one of them the first, are equal, and the
   third is shorter. A 3D series that was reformatted to three planes has this in one plane or two,
   never in all three, unless it is a cube.
3. A data set (`MANY` stacks of each of two series or more): the same two axes, one of them the
   first, have one size in `USUAL` of the stacks and are within a factor of `SQUARE`, while the
   third axis varies. Slices differ in number from exam to exam; images of a data set don't differ
   in size along one side only.

Axes shorter than `LEAST` pixels are never taken for an image's. Rows and columns that changed
places can't be seen from shapes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from mrknee.errors import DataError, SettingsError
from mrknee.exams.exam import Stack

Shape = tuple[int, int, int]
Axes = tuple[str, str, str]

AXES: Axes = ("slices", "rows", "cols")
"""The order in which stacks are expected, and always are in an `Exam`."""

LONG, SQUARE = 3.0, 2.0
"""Ratios of an image's sides. Scanners offer rectangular fields of half the square or more, so
`SQUARE` includes all and `LONG` is beyond any."""

LEAST = 16
"""Pixels; the smallest side that an image may have for these rules."""

MANY, USUAL, VARIED = 4, 0.9, 3
"""Of the third rule: stacks of a series, share with one size, different numbers of slices."""


def parse_axes(text: str) -> Axes:
    """The order of axes that `--axes` names, such as `rows,cols,slices`.

    Raises:
        MrkneeError: not the three names, each once, with commas between.
    """
    names = tuple(name.strip().lower() for name in text.split(","))
    if sorted(names) != sorted(AXES):
        raise SettingsError(
            "an order of axes can't be read",
            code="axes",
            expected="slices, rows and cols in the files' order, with commas between: "
            "rows,cols,slices",
            found=repr(text),
        )
    return names[0], names[1], names[2]


def shape_of(stack: np.ndarray) -> Shape:
    """The shape of an array of three axes."""
    slices, rows, cols = stack.shape
    return slices, rows, cols


def in_order(values: np.ndarray, axes: Axes) -> np.ndarray:
    """A view of an array whose axes are in the order `axes`, as (slices, rows, cols)."""
    return values.transpose([axes.index(name) for name in AXES])


def shape_in_order(shape: Shape, axes: Axes) -> Shape:
    """The shape of the same."""
    slices, rows, cols = (shape[axes.index(name)] for name in AXES)
    return slices, rows, cols


def other_axes(shapes: Mapping[str, Sequence[Shape]]) -> tuple[Axes, str] | None:
    """The order in which stacks seem to be, if it is another than (slices, rows, cols).

    Args:
        shapes: series -> the shapes of one stack or more, of one exam or of a data set.

    Returns:
        The order, and in words why; None where nothing speaks against (slices, rows, cols).
    """
    for name, those in shapes.items():
        for shape in those:
            found = _of_stack(shape)
            if found is not None:
                long = max(shape[1:]) / min(shape[1:])
                why = (
                    f"the {name} stack of {_text(shape)} would be {shape[0]} slices that are "
                    f"{long:.0f} times longer than wide"
                )
                return found, why
    if len(shapes) < 2:
        return None
    for order, first, second, third in _orders():
        every = [shape for those in shapes.values() for shape in those]
        if all(_is_image(s, first, second, 1.0) and s[third] < s[first] for s in every):
            why = (
                f"in all {len(every)} stacks, axes {first + 1} and {second + 1} are equal and "
                f"axis {third + 1} is shorter, as in {_text(every[0])}"
            )
            return order, why
        if all(_varies(those, first, second, third) for those in shapes.values()):
            why = (
                f"from stack to stack of a series, axis {third + 1} varies while axes "
                f"{first + 1} and {second + 1} don't, as in {_text(every[0])}"
            )
            return order, why
    return None


def refuse_other_axes(
    shapes: Mapping[str, Sequence[Shape]],
    *,
    file: str | Path | None = None,
    exam: str | None = None,
    given: Axes | None = None,
    among: Iterable[Shape] = (),
) -> None:
    """Refuses stacks whose shapes say that their axes are in another order.

    Args:
        shapes: as for `other_axes`, as they are read.
        file: the file or folder, for the message.
        exam: the exam's id, for the message.
        given: the order in which they were read, where somebody gave one. `AXES` is insisted on:
            nothing is refused then.
        among: shapes of all stacks that are read with these. Reading them in another order is
            advised only where that is right for all of them.

    Raises:
        MrkneeError: they do.
    """
    found = None if given == AXES else other_axes(shapes)
    if found is None:
        return
    order, why = found
    if given is not None:
        raise DataError(
            "the stacks' axes seem not to be in the order given",
            code="axes-order",
            file=file,
            exam=exam,
            expected=f"all stacks as ({', '.join(given)})",
            found=f"read so, {why}",
            advice=f"save all stacks as ({', '.join(AXES)})",
        )
    every = [*among, *(shape for those in shapes.values() for shape in those)]
    all_fit = all(_of_stack(shape_in_order(shape, order)) is None for shape in every)
    raise DataError(
        "the stacks' axes seem to be in another order",
        code="axes-order",
        file=file,
        exam=exam,
        expected=f"({', '.join(AXES)})",
        found=f"({', '.join(order)}): {why}",
        advice=(
            f"read them so with --axes {','.join(order)}, save them in the expected order, "
            if all_fit
            else "save these in the expected order (--axes would read the others wrong), "
        )
        + f"or insist on it with --axes {','.join(AXES)}",
    )


def refuse_exams_with_other_axes(
    exams: Sequence[tuple[str, Mapping[str, Shape]]], *, file: str | Path, given: Axes | None
) -> None:
    """Applies `refuse_other_axes` to each exam, then to all exams together.

    Args:
        exams: each exam's id, and series -> the shape of its stack, as it is read.
        file: the folder or list, for the message.
        given: the order in which they were read, where somebody gave one.

    Raises:
        MrkneeError: they do.
    """
    together: dict[str, list[Shape]] = {}
    for _, shapes in exams:
        for name, shape in shapes.items():
            together.setdefault(name, []).append(shape)
    every = [shape for those in together.values() for shape in those]
    for exam_id, shapes in exams:
        one = {name: [shape] for name, shape in shapes.items()}
        refuse_other_axes(one, file=file, exam=exam_id, given=given, among=every)
    refuse_other_axes(together, file=file, given=given)


def _orders() -> Iterable[tuple[Axes, int, int, int]]:
    """Each other place of the slices: the order, the positions of rows, columns and slices."""
    return (("rows", "cols", "slices"), 0, 1, 2), (("rows", "slices", "cols"), 0, 2, 1)


def _of_stack(shape: Shape) -> Axes | None:
    if max(shape[1:]) < LONG * min(shape[1:]):
        return None
    for order, first, second, _ in _orders():
        if _is_image(shape, first, second, SQUARE):
            return order
    return None


def _is_image(shape: Shape, first: int, second: int, ratio: float) -> bool:
    short, long = sorted((shape[first], shape[second]))
    return short >= LEAST and long <= ratio * short


def _varies(shapes: Sequence[Shape], first: int, second: int, third: int) -> bool:
    if len(shapes) < MANY:
        return False
    ((usual, count),) = Counter((s[first], s[second]) for s in shapes).most_common(1)
    short, long = sorted(usual)
    image = short >= LEAST and long <= SQUARE * short
    return image and count >= USUAL * len(shapes) and len({s[third] for s in shapes}) >= VARIED


def _text(shape: Shape) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"


def ordered_stack(values: UInt8[np.ndarray, "_ _ _"], axes: Axes) -> Stack:
    """A stack whose axes are in the order `axes`, as (slices, rows, cols), read-only."""
    stack: Stack = np.ascontiguousarray(in_order(values, axes))
    stack.flags.writeable = False
    return stack
