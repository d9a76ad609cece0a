from __future__ import annotations

from pathlib import Path

import pytest

from mrknee.errors import DataError
from mrknee.exams import ExamSide, has_canonical_sides, read_sides, write_sides


def test_sides_are_read_as_written(tmp_path: Path) -> None:
    """A missing file gives None; unknown sides are not mirrored."""
    assert read_sides(tmp_path) is None
    sides = {"0003": ExamSide("right", True), "1": ExamSide("left", False)}
    write_sides(tmp_path, {**sides, "x": ExamSide(None, False)})
    assert read_sides(tmp_path) == {**sides, "x": ExamSide(None, False)}


@pytest.mark.parametrize(
    "text",
    ["", "exam,side\n1,left\n", "exam,side,mirrored\n1,both,0\n", "exam,side,mirrored\n1,left,2\n",
     "exam,side,mirrored\n1,left,0\n1,left,0\n", "exam,side,mirrored\n,left,0\n"],
)  # fmt: skip
def test_an_invalid_table_is_refused(tmp_path: Path, text: str) -> None:
    """Other columns, sides and marks, an exam twice and a line without an exam are errors."""
    (tmp_path / "sides.csv").write_text(text)
    with pytest.raises(DataError) as refused:
        read_sides(tmp_path)
    assert (refused.value.code, refused.value.file) == ("declaration", str(tmp_path / "sides.csv"))


@pytest.mark.parametrize(
    ("sides", "canonical"),
    [
        ({}, False),
        ({"1": ExamSide(None, False)}, False),
        ({"1": ExamSide("left", False), "2": ExamSide(None, False)}, True),
        ({"1": ExamSide("left", False), "2": ExamSide("right", True)}, True),
        ({"1": ExamSide("left", False), "2": ExamSide("right", False)}, False),
    ],
)
def test_sides_are_canonical_if_all_known_knees_look_left(
    tmp_path: Path, sides: dict[str, ExamSide], canonical: bool
) -> None:
    """Known right knees are mirrored, and left knees aren't."""
    assert not has_canonical_sides(tmp_path)
    write_sides(tmp_path, sides)
    assert has_canonical_sides(tmp_path) == canonical
