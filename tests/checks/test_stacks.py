from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mrknee.checks.layout import Place
from mrknee.checks.stacks import StackSummary, check_shapes, summarise_stacks
from mrknee.exams import PLANES, Plane, write_stack

PLACE = Place("train", "0000", Plane.AXIAL)


def summarise(root: Path, array: np.ndarray) -> tuple[list[StackSummary], list[str]]:
    """Writes an array as a stack; returns its summary and the codes of its problems."""
    path = root / PLACE.file
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)
    summaries, problems = summarise_stacks(root, [PLACE])
    return summaries, [problem.code for problem in problems]


def pattern(slices: int = 20) -> np.ndarray:
    """Returns noise of full contrast in blocks, so that cells have contrast too."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (slices, 8, 8)).astype(np.uint8)
    return blocks.repeat(8, axis=1).repeat(8, axis=2)


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    """A stack that was deleted while others were read is a problem; the check continues."""
    write_stack(tmp_path / "train", "axial", "0001", pattern())
    present = Place("train", "0001", Plane.AXIAL)
    summaries, (problem,) = summarise_stacks(tmp_path, [PLACE, present])
    assert (problem.code, problem.file) == ("unreadable", PLACE.file)
    assert [summary.place for summary in summaries] == [present]


def test_a_valid_stack_is_summarised(tmp_path: Path) -> None:
    """The summary has shape, cells and a digest that is equal for equal values only."""
    stack = pattern()
    (summary,), codes = summarise(tmp_path, stack)
    assert codes == []
    assert summary.shape == (20, 64, 64)
    np.testing.assert_array_equal(summary.cells, stack[:, ::2, ::2])
    (again,), _ = summarise(tmp_path, np.asfortranarray(stack))
    assert again.digest == summary.digest
    stack[3, 4, 5] ^= 1
    (other,), _ = summarise(tmp_path, stack)
    assert other.digest != summary.digest


@pytest.mark.parametrize(
    ("value", "dtype", "code"),
    [
        (0, "u1", ["all-zero"]),
        (9, "u1", ["constant"]),
        (0, "i2", ["not-bytes", "all-zero"]),
        (-3.5, "f4", ["not-bytes", "constant"]),
    ],
)
def test_a_constant_stack(tmp_path: Path, value: float, dtype: str, code: list[str]) -> None:
    """A constant stack is blank, whatever its value and type."""
    (summary,), codes = summarise(tmp_path, np.full((4, 40, 40), value, dtype=dtype))
    assert codes == code
    assert summary.blank


@pytest.mark.parametrize(
    ("empty", "wrong"),
    [
        ([0, 1, 18, 19], []),  # beyond the knee at both ends
        ([0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]),  # 6 of 20: more than a quarter
        ([7], [7]),  # between others
        ([0, 7], [7]),
    ],
)
def test_nearly_empty_slices(tmp_path: Path, empty: list[int], wrong: list[int]) -> None:
    """Nearly empty slices are reported between others, and if more than a quarter are."""
    stack = pattern()
    stack[empty] = np.random.default_rng(1).integers(0, 20, (len(empty), 64, 64))
    place = tmp_path / PLACE.file
    place.parent.mkdir(parents=True)
    np.save(place, stack)
    _, problems = summarise_stacks(tmp_path, [PLACE])
    assert [p.code for p in problems] == ["empty-slices"] * bool(wrong)
    if wrong:
        assert f": {', '.join(map(str, wrong))} (from 0)" in problems[0].text


def test_a_single_valued_slice_is_reported_at_an_end_too(tmp_path: Path) -> None:
    """Scanners don't write such slices: they are padding or lost data."""
    stack = pattern()
    stack[0] = 0
    assert summarise(tmp_path, stack)[1] == ["empty-slices"]


def test_all_slices_single_valued(tmp_path: Path) -> None:
    """Different constant slices are reported as empty."""
    stack = np.repeat([10, 20, 30], 64 * 64).reshape(3, 64, 64).astype(np.uint8)
    assert summarise(tmp_path, stack)[1] == ["empty-slices"]


def shaped(shapes: list[tuple[int, int, int]]) -> list[StackSummary]:
    """Returns summaries with these shapes in one plane."""
    cells = np.zeros((1, 32, 32), dtype=np.uint8)
    return [
        StackSummary(Place("train", str(i), PLANES[0]), shape, b"", cells, blank=False)
        for i, shape in enumerate(shapes)
    ]


def test_sizes_are_reported_only_if_there_is_a_usual_size() -> None:
    """One of ten stacks with another size is reported; two of ten are not."""
    usual, other = (30, 256, 256), (30, 320, 256)
    (problem,) = check_shapes(shaped([usual] * 9 + [other]))
    assert (problem.code, problem.exam) == ("odd-size", "9")
    assert "320 x 256" in problem.text
    assert list(check_shapes(shaped([usual] * 8 + [other] * 2))) == []


def test_slice_counts_beyond_a_factor_of_three_are_reported() -> None:
    """With a median of 30, 9 and 91 slices are reported, 10 and 90 are not."""
    shapes = [(n, 256, 256) for n in (30, 30, 30, 30, 30, 10, 90, 9, 91)]
    problems = list(check_shapes(shaped(shapes)))
    assert [(p.code, p.exam) for p in problems] == [("odd-slices", "7"), ("odd-slices", "8")]
