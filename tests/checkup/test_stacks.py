from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mrknee.checkup.layout import Place
from mrknee.checkup.stacks import Look, check_shapes, look_at_stacks
from mrknee.exams import PLANES, Plane, write_stack

PLACE = Place("train", "0000", Plane.AXIAL)


def look_at(root: Path, array: np.ndarray) -> tuple[list[Look], list[str]]:
    """What is seen of an array that is stored as a stack, and the codes of its problems."""
    path = root / PLACE.file
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)
    looks, problems = look_at_stacks(root, [PLACE])
    return looks, [problem.code for problem in problems]


def picture(slices: int = 20) -> np.ndarray:
    """Noise of full contrast in blocks, so that cells have contrast too."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (slices, 8, 8)).astype(np.uint8)
    return blocks.repeat(8, axis=1).repeat(8, axis=2)


def test_a_file_that_is_gone_is_told(tmp_path: Path) -> None:
    """A stack that vanished while the others were read is a problem, not an end."""
    write_stack(tmp_path / "train", "axial", "0001", picture())
    there = Place("train", "0001", Plane.AXIAL)
    looks, (problem,) = look_at_stacks(tmp_path, [PLACE, there])
    assert (problem.code, problem.file) == ("unreadable", PLACE.file)
    assert [look.place for look in looks] == [there]


def test_a_sound_stack_is_kept_as_cells(tmp_path: Path) -> None:
    """Its shape, its cells, and the same digest for the same values."""
    stack = picture()
    (look,), codes = look_at(tmp_path, stack)
    assert codes == []
    assert look.shape == (20, 64, 64)
    np.testing.assert_array_equal(look.cells, stack[:, ::2, ::2])
    (again,), _ = look_at(tmp_path, np.asfortranarray(stack))
    assert again.digest == look.digest
    stack[3, 4, 5] ^= 1
    (other,), _ = look_at(tmp_path, stack)
    assert other.digest != look.digest


@pytest.mark.parametrize(
    ("value", "dtype", "code"),
    [
        (0, "u1", ["all-zero"]),
        (9, "u1", ["constant"]),
        (0, "i2", ["not-bytes", "all-zero"]),
        (-3.5, "f4", ["not-bytes", "constant"]),
    ],
)
def test_one_value_everywhere(tmp_path: Path, value: float, dtype: str, code: list[str]) -> None:
    """Black or not, the stack is blank, whatever its type."""
    (look,), codes = look_at(tmp_path, np.full((4, 40, 40), value, dtype=dtype))
    assert codes == code
    assert look.blank


@pytest.mark.parametrize(
    ("empty", "wrong"),
    [
        ([0, 1, 18, 19], []),  # beyond the knee at both ends
        ([0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]),  # 6 of 20 are too many
        ([7], [7]),  # a hole
        ([0, 7], [7]),
    ],
)
def test_nearly_empty_slices(tmp_path: Path, empty: list[int], wrong: list[int]) -> None:
    """Noise without a picture is told between slices and where there is much of it."""
    stack = picture()
    stack[empty] = np.random.default_rng(1).integers(0, 20, (len(empty), 64, 64))
    place = tmp_path / PLACE.file
    place.parent.mkdir(parents=True)
    np.save(place, stack)
    _, problems = look_at_stacks(tmp_path, [PLACE])
    assert [p.code for p in problems] == ["empty-slices"] * bool(wrong)
    if wrong:
        assert f": {', '.join(map(str, wrong))} (from 0)" in problems[0].text


def test_a_slice_of_one_value_is_told_at_an_end_too(tmp_path: Path) -> None:
    """No scanner writes it: something was padded or lost."""
    stack = picture()
    stack[0] = 0
    assert look_at(tmp_path, stack)[1] == ["empty-slices"]


def test_slices_of_one_value_each(tmp_path: Path) -> None:
    """Where every slice is flat and they differ, all are told."""
    stack = np.repeat([10, 20, 30], 64 * 64).reshape(3, 64, 64).astype(np.uint8)
    assert look_at(tmp_path, stack)[1] == ["empty-slices"]


def shaped(shapes: list[tuple[int, int, int]]) -> list[Look]:
    """Looks of these shapes in one plane."""
    cells = np.zeros((1, 32, 32), dtype=np.uint8)
    return [
        Look(Place("train", str(i), PLANES[0]), shape, b"", cells, blank=False)
        for i, shape in enumerate(shapes)
    ]


def test_sizes_are_odd_only_where_there_is_a_usual_one() -> None:
    """One of ten is told, two of ten are a data set of mixed sizes."""
    usual, other = (30, 256, 256), (30, 320, 256)
    (problem,) = check_shapes(shaped([usual] * 9 + [other]))
    assert (problem.code, problem.exam) == ("odd-size", "9")
    assert "320 x 256" in problem.text
    assert list(check_shapes(shaped([usual] * 8 + [other] * 2))) == []


def test_slice_counts_are_odd_beyond_a_third_and_three_times() -> None:
    """10 and 90 slices pass where the median is 30, 9 and 91 don't."""
    shapes = [(n, 256, 256) for n in (30, 30, 30, 30, 30, 10, 90, 9, 91)]
    problems = list(check_shapes(shaped(shapes)))
    assert [(p.code, p.exam) for p in problems] == [("odd-slices", "7"), ("odd-slices", "8")]
