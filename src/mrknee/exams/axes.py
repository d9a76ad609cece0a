"""Detection of the order of a stack's axes; (slices, rows, cols) is expected.

A `.npy` file doesn't name its axes, so the order is inferred from the shapes. The rules, which
`docs/reference/plausibility.md` states for users too:

1. One stack: read as (slices, rows, cols), each slice would be at least `LONG` times longer than
   wide, while two axes, one of them the first, are within a factor of `SQUARE`. No knee is imaged
   in a field three times longer than wide, so the remaining axis counts the slices.
2. All stacks of at least two series: the same two axes, one of them the first, are equal, and the
   third is shorter. A 3D series that was reformatted to three planes shows this in one plane or
   two, never in all three, unless it is a cube.
3. A data set (`MANY` stacks of each of at least two series): the same two axes, one of them the
   first, have one size in `USUAL` of the stacks and are within a factor of `SQUARE`, while the
   third axis varies. The number of slices varies between exams; the images of a data set don't
   vary in size along one side only.

Axes shorter than `LEAST` pixels are never taken for an image's side. Swapped rows and columns
can't be detected from shapes.
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
"""The expected order of axes, and the order in every `Exam`."""

LONG, SQUARE = 3.0, 2.0
"""Ratios of an image's sides. Scanners offer rectangular fields of view down to half a square, so
`SQUARE` includes every real image and `LONG` excludes all."""

LEAST = 16
"""Pixels; the smallest side of an image that these rules consider."""

MANY, USUAL, VARIED = 4, 0.9, 3
"""Minima of the third rule: stacks per series, share of stacks with one image size, number of
different slice counts."""


def parse_axes(text: str) -> Axes:
    """Parses the order of axes as given to `--axes`, such as `rows,cols,slices`.

    Raises:
        SettingsError: the text is not the three names, each once, separated by commas.
    """
    names = tuple(name.strip().lower() for name in text.split(","))
    if sorted(names) != sorted(AXES):
        raise SettingsError(
            "the order of axes is invalid",
            code="axes",
            expected="slices, rows and cols in the order of the files, separated by commas: "
            "rows,cols,slices",
            found=repr(text),
        )
    return names[0], names[1], names[2]


def shape_of(stack: np.ndarray) -> Shape:
    """Returns the shape of a three-dimensional array."""
    slices, rows, cols = stack.shape
    return slices, rows, cols


def in_order(values: np.ndarray, axes: Axes) -> np.ndarray:
    """Returns a view of an array with axes in the order `axes`, as (slices, rows, cols)."""
    return values.transpose([axes.index(name) for name in AXES])


def shape_in_order(shape: Shape, axes: Axes) -> Shape:
    """Returns the shape of a stack whose axes are in the order `axes`, as (slices, rows, cols)."""
    slices, rows, cols = (shape[axes.index(name)] for name in AXES)
    return slices, rows, cols


def other_axes(shapes: Mapping[str, Sequence[Shape]]) -> tuple[Axes, str] | None:
    """Detects an order of axes other than (slices, rows, cols).

    Args:
        shapes: series -> the shapes of at least one stack, of one exam or of a data set.

    Returns:
        The detected order and the reason as text; None if the shapes are consistent with
        (slices, rows, cols).
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
    """Refuses stacks whose shapes indicate another order of axes.

    Args:
        shapes: as for `other_axes`, after reordering to `given`.
        file: the file or folder, for the message.
        exam: the exam's id, for the message.
        given: the order of axes that the user gave, if any. With `AXES` given explicitly, nothing
            is refused.
        among: shapes of all stacks that are read together with these. The message advises reading
            in another order only if that order suits all of them.

    Raises:
        DataError: the shapes indicate another order.
    """
    found = None if given == AXES else other_axes(shapes)
    if found is None:
        return
    order, why = found
    if given is not None:
        raise DataError(
            "the stacks' axes don't seem to be in the given order",
            code="axes-order",
            file=file,
            exam=exam,
            expected=f"all stacks as ({', '.join(given)})",
            found=f"read in this order, {why}",
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
            f"read them with --axes {','.join(order)}, save them in the expected order, "
            if all_fit
            else "save these in the expected order (--axes would read the others incorrectly), "
        )
        + f"or, if the detection is wrong, read them with --axes {','.join(AXES)}",
    )


def refuse_exams_with_other_axes(
    exams: Sequence[tuple[str, Mapping[str, Shape]]], *, file: str | Path, given: Axes | None
) -> None:
    """Applies `refuse_other_axes` to each exam, then to all exams together.

    Args:
        exams: per exam its id, and series -> shape of the stack after reordering to `given`.
        file: the folder or list, for the message.
        given: the order of axes that the user gave, if any.

    Raises:
        DataError: the shapes indicate another order.
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
    """Returns the other possible orders, each with the positions of rows, columns and slices."""
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
    """Returns a stack with axes in the order `axes` as (slices, rows, cols), read-only."""
    stack: Stack = np.ascontiguousarray(in_order(values, axes))
    stack.flags.writeable = False
    return stack
