"""Stacks whose axes seem to be in another order than (slices, rows, cols), told by their shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mrknee.checkup.layout import Place
from mrknee.checkup.problem import Problem
from mrknee.errors import MrkneeError
from mrknee.exams import Plane
from mrknee.exams.axes import AXES, Axes, Shape, other_axes, shape_in_order
from mrknee.exams.stackfile import read_shape

SHARE = 0.5
"""Where so many of the stacks seem to be in one other order, which is right for the others too, the
data set is taken to be."""


def check_axes(
    root: Path, places: Sequence[Place], *, given: Axes | None = None
) -> tuple[Axes, list[Problem]]:
    """Looks at the shapes of all stacks, by the rules of `mrknee.exams.axes`.

    Args:
        root: the data set's folder.
        places: where the stacks are; those whose header can't be read are told elsewhere.
        given: the order that they are said to have; `AXES` is insisted on.

    Returns:
        The order in which the data set is to be looked at, so that one fault isn't told as many;
        and the problems: one where the data set is in another order, else one for each stack that
        is.
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
        if (found := other_axes({place.plane: [shape]})) is not None
    }
    every: dict[Plane, list[Shape]] = {}
    for place, shape in shapes.items():
        every.setdefault(place.plane, []).append(shape)
    whole = other_axes(every) if given is None else None
    if whole is not None and _fits(whole[0], shapes, alone):
        return whole[0], [_problem(*whole)]
    if given is not None or len(alone) < SHARE * len(shapes) or not _agree(shapes, alone):
        problems = [_problem(*found, place, read_as) for place, found in alone.items()]
        by_plane: dict[Plane, list[Shape]] = {}
        for place, shape in shapes.items():
            if place not in alone:
                by_plane.setdefault(place.plane, []).append(shape)
        together = other_axes(by_plane)
        if together is None or alone:
            return read_as, problems
        return read_as if given else together[0], [_problem(*together, read_as=read_as)]
    if not alone:
        return AXES, []
    order, why = next(iter(alone.values()))
    return order, [_problem(order, why)]


def _agree(shapes: Mapping[Place, Shape], alone: Mapping[Place, tuple[Axes, str]]) -> bool:
    """Whether one order is right for all stacks: for those that tell, and for the others."""
    orders = {axes for axes, _ in alone.values()}
    return not orders or (len(orders) == 1 and _fits(min(orders), shapes, alone))


def _fits(
    order: Axes, shapes: Mapping[Place, Shape], alone: Mapping[Place, tuple[Axes, str]]
) -> bool:
    """Whether an order contradicts no stack: none that tells another, none once it is read so."""
    return all(axes == order for axes, _ in alone.values()) and all(
        other_axes({place.plane: [shape_in_order(shape, order)]}) is None
        for place, shape in shapes.items()
    )


def _problem(order: Axes, why: str, place: Place | None = None, read_as: Axes = AXES) -> Problem:
    text = f"expected ({', '.join(read_as)}); the axes seem to be "
    text += f"({', '.join(order)}): {why}" if read_as == AXES else f"others: read so, {why}"
    if place is None:
        return Problem("other-axes", f"all stacks: {text}", ".")
    return Problem("other-axes", text, place.file, place.exam)
