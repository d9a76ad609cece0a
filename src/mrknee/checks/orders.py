"""Finds stacks whose shapes indicate an order of axes other than (slices, rows, cols)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mrknee.checks.layout import Place
from mrknee.checks.problem import Problem
from mrknee.errors import MrkneeError
from mrknee.exams.axes import AXES, Axes, Shape, other_axes, shape_in_order
from mrknee.exams.stackfile import read_shape

SHARE = 0.5
"""Share of stacks with another order from which on the data set is assumed to have that order, if
no other stack contradicts it."""


def check_axes(
    root: Path, places: Sequence[Place], *, given: Axes | None = None
) -> tuple[Axes, list[Problem]]:
    """Checks the shapes of all stacks, by the rules of `mrknee.exams.axes`.

    Args:
        root: the data set's folder.
        places: places of the stacks; those with an unreadable header are skipped.
        given: the order of axes that the user gave; with `AXES` nothing is checked.

    Returns:
        The order in which to read the data set, so that one fault isn't reported many times; and
        the problems: one if the data set is in another order, else one per stack that is.
    """
    if given == AXES:
        return AXES, []
    read_as = given or AXES
    shapes: dict[Place, Shape] = {}
    for place in places:
        try:
            shapes[place] = shape_in_order(read_shape(root / place.file, place.exam), read_as)
        except MrkneeError:
            continue
    alone = {
        place: found
        for place, shape in shapes.items()
        if (found := other_axes({place.series: [shape]})) is not None
    }
    by_series: dict[str, list[Shape]] = {}
    for place, shape in shapes.items():
        by_series.setdefault(place.series, []).append(shape)
    together = other_axes(by_series)
    if given is None:
        if together is not None and (not alone or _fits(together[0], shapes, alone)):
            return together[0], [_problem(*together)]
        if alone and len(alone) >= SHARE * len(shapes):
            order, why = next(iter(alone.values()))
            if _fits(order, shapes, alone):
                return order, [_problem(order, why)]
    elif together is not None and not alone:
        return read_as, [_problem(*together, read_as=read_as)]
    return read_as, [_problem(*found, place, read_as) for place, found in alone.items()]


def _fits(
    order: Axes, shapes: Mapping[Place, Shape], alone: Mapping[Place, tuple[Axes, str]]
) -> bool:
    """Returns whether an order is consistent with all stacks, before and after reordering."""
    return all(axes == order for axes, _ in alone.values()) and all(
        other_axes({place.series: [shape_in_order(shape, order)]}) is None
        for place, shape in shapes.items()
    )


def _problem(order: Axes, why: str, place: Place | None = None, read_as: Axes = AXES) -> Problem:
    text = f"expected ({', '.join(read_as)}); the axes seem to be "
    text += (
        f"({', '.join(order)}): {why}" if read_as == AXES else f"others: read in this order, {why}"
    )
    if place is None:
        return Problem("other-axes", f"all stacks: {text}", ".")
    return Problem("other-axes", text, place.file, place.exam)
