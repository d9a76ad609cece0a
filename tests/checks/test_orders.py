from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mrknee.checks.layout import Place
from mrknee.checks.orders import check_axes
from mrknee.exams import PLANES, Plane
from mrknee.exams.axes import AXES, parse_axes

TURNED = parse_axes("rows,cols,slices")


def stacks(root: Path, *turned: Plane) -> list[Place]:
    """Writes four exams; the stacks of some planes are saved as (rows, cols, slices)."""
    places = []
    for plane in PLANES:
        for number in range(4):
            place = Place("train", str(number), plane)
            file = root / place.file
            file.parent.mkdir(parents=True, exist_ok=True)
            stack = np.ones((9 + number, 64, 64), np.uint8)
            np.save(file, np.moveaxis(stack, 0, 2) if plane in turned else stack)
            places.append(place)
    return places


def test_a_data_set_in_another_order_is_one_problem(tmp_path: Path) -> None:
    """The detected order is returned for the other checks."""
    order, problems = check_axes(tmp_path, stacks(tmp_path, *PLANES))
    assert order == TURNED
    assert [(p.code, p.file) for p in problems] == [("other-axes", ".")]


@pytest.mark.parametrize("count", [1, 2])
def test_planes_in_another_order_are_reported_per_stack(tmp_path: Path, count: int) -> None:
    """Even a majority of such stacks doesn't change the order for the others."""
    order, problems = check_axes(tmp_path, stacks(tmp_path, *PLANES[:count]))
    assert order == AXES
    wrong = [f"train/{plane}/{number}.npy" for plane in PLANES[:count] for number in range(4)]
    assert [p.file for p in problems] == wrong


def test_a_given_order_must_suit_all_stacks(tmp_path: Path) -> None:
    """Stacks in another order are reported, unless slices,rows,cols is given."""
    places = stacks(tmp_path, *PLANES[:2])
    order, problems = check_axes(tmp_path, places, given=TURNED)
    assert order == TURNED
    assert [p.file for p in problems] == [f"train/{PLANES[2]}/{number}.npy" for number in range(4)]
    assert check_axes(tmp_path, places, given=AXES) == (AXES, [])
    assert check_axes(tmp_path, stacks(tmp_path, *PLANES), given=TURNED) == (TURNED, [])
