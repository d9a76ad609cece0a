"""Plotting of an exam's slices; matplotlib is imported only when needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mrknee.errors import DataError
from mrknee.exams.exam import Exam
from mrknee.extras import pyplot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TILE = 2.2
"""Side of a slice in the figure, in inches."""


def plot_exam(exam: Exam, series: str | None, slices: int | Sequence[int]) -> np.ndarray:
    """Plots a row of slices per series; arguments, result and errors as for `Exam.plot`."""
    names = list(exam.stacks)
    if series is not None:
        what = "the exam has no such series"
        names = [exam.series.find(series, exam.stacks, what=what, exam=exam.id)]
    shown = {one: _positions(exam, one, slices) for one in names}
    columns = max(map(len, shown.values()))
    size = (TILE * columns, (TILE + 0.3) * len(names))
    figure, axes = pyplot().subplots(
        len(names), columns, figsize=size, squeeze=False, layout="constrained"
    )
    for row, (one, positions) in zip(axes, shown.items(), strict=True):
        for place in row[len(positions) :]:
            place.set_axis_off()
        for place, index in zip(row, positions, strict=False):
            show_slice(place, exam.stacks[one][index], f"{one}[{index}]")
    labels = ", ".join(f"{name} {label:g}" for name, label in exam.labels.items())
    figure.suptitle(f"Exam {exam.id}" + (f": {labels}" if labels else ""))
    return np.asarray(axes)


def show_slice(axes: Axes, picture: np.ndarray, title: str) -> None:
    """Plots one slice in grey, 0 black and 255 white, without ticks.

    Args:
        axes: matplotlib axes.
        picture: uint8 (rows, cols).
        title: title of the axes.
    """
    axes.imshow(picture, cmap="gray", vmin=0, vmax=255)
    axes.set_title(title, fontsize="medium")
    axes.set_axis_off()


def _positions(exam: Exam, series: str, slices: int | Sequence[int]) -> list[int]:
    count = len(exam.stacks[series])
    if isinstance(slices, int):
        if slices < 1:
            raise _no_slices(exam, series, slices)
        # evenly spaced, without the first and the last, which show the least
        inner = np.linspace(0, count - 1, min(slices, count) + 2)[1:-1].round().astype(int)
        return sorted(set(inner.tolist()))
    positions = [int(index) for index in slices]
    if not positions or not all(-count <= index < count for index in positions):
        raise _no_slices(exam, series, slices)
    return [index % count for index in positions]


def _no_slices(exam: Exam, series: str, slices: int | Sequence[int]) -> DataError:
    return DataError(
        "the slices can't be shown",
        code="slices",
        exam=exam.id,
        expected=f"a number of slices, or indices from 0 to {len(exam.stacks[series]) - 1} in "
        f"{series}",
        found=repr(slices),
    )
