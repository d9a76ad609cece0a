"""Stacks whose axes seem to be in another order than (slices, rows, cols), told by their shapes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mrknee.checkup.layout import Place
from mrknee.checkup.problem import Problem
from mrknee.errors import MrkneeError
from mrknee.exams import Plane
from mrknee.exams.axes import AXES, Axes, Shape, other_axes
from mrknee.exams.stackfile import read_shape

SHARE = 0.5
"""Where so many of the stacks seem to be in one other order, the data set is taken to be."""


def check_axes(root: Path, places: Sequence[Place]) -> tuple[Axes, list[Problem]]:
    """Looks at the shapes of all stacks, by the rules of `mrknee.exams.axes`.

    Args:
        root: the data set's folder.
        places: where the stacks are; those whose header can't be read are told elsewhere.

    Returns:
        The order in which the data set is to be looked at, so that one fault isn't told as many;
        and the problems: one where the data set is in another order, else one for each stack that
        is.
    """
    shapes: dict[Place, Shape] = {}
    for place in places:
        try:
            shapes[place] = read_shape(root / place.file, place.exam)
        except MrkneeError:
            continue
    alone = {
        place: found
        for place, shape in shapes.items()
        if (found := other_axes({place.plane: [shape]})) is not None
    }
    if len(alone) < SHARE * len(shapes):
        by_plane: dict[Plane, list[Shape]] = {}
        for place, shape in shapes.items():
            if place not in alone:
                by_plane.setdefault(place.plane, []).append(shape)
        together = other_axes(by_plane)
        if together is None:
            return AXES, [_problem(*found, place) for place, found in alone.items()]
        return together[0], [_problem(*together)]
    if not alone:
        return AXES, []
    ((order, _),) = Counter(axes for axes, _ in alone.values()).most_common(1)
    first = next(found for found in alone.values() if found[0] == order)
    return order, [_problem(*first)]


def _problem(order: Axes, why: str, place: Place | None = None) -> Problem:
    text = f"expected ({', '.join(AXES)}); the axes seem to be ({', '.join(order)}): {why}"
    if place is None:
        return Problem("other-axes", f"all stacks: {text}", ".")
    return Problem("other-axes", text, place.file, place.exam)
