from __future__ import annotations

from pathlib import Path

import pytest

from mrknee.errors import DataError
from mrknee.exams import Dataset, open_dataset, read_groups
from mrknee.exams.groups import group_numbers


def test_groups_are_read_by_exam(tmp_path: Path) -> None:
    """Lines without a group are ignored, ids are normalised, and a missing file gives None."""
    assert read_groups(tmp_path) is None
    (tmp_path / "groups.csv").write_text('exam,group\n0001,a b\n0002,\nMu\u0308ller,"x,y"\n')
    assert read_groups(tmp_path) == {"0001": "a b", "M\u00fcller": "x,y"}


def test_each_exam_without_a_group_is_a_group() -> None:
    """An exam without a group is separate even if its id equals the name of a group."""
    assert group_numbers(["1", "2", "3", "a"], {"1": "a", "3": "a"}) == [0, 1, 0, 2]


@pytest.mark.parametrize(
    "text",
    ["", "0001,Miller\n", "exam\nMiller\n", "exam,group\n0001,Miller\n0001,Miller\n",
     "exam,group\n,Miller\n", "exam,group\n0001,Miller,1\n"],
)  # fmt: skip
def test_the_error_for_an_invalid_table_does_not_quote_it(tmp_path: Path, text: str) -> None:
    """Names of groups may identify patients, so the error gives line numbers only."""
    (tmp_path / "groups.csv").write_text(text)
    with pytest.raises(DataError) as error:
        read_groups(tmp_path)
    assert (error.value.code, error.value.file) == ("declaration", str(tmp_path / "groups.csv"))
    assert "Miller" not in str(error.value)


def test_a_data_set_has_one_group_number_per_exam(toy: Path) -> None:
    """Numbers are equal for exams of one group; exams of other splits are ignored."""
    assert open_dataset(toy, split="train").groups is None
    (toy / "groups.csv").write_text("exam,group\n0003,p\n0001,p\n0012,p\n0013,q\n")
    assert open_dataset(toy, split="train").groups == (0, 1, 2, 1, *range(3, 11))
    assert open_dataset(toy, split="valid").groups == tuple(range(6))
    assert Dataset(toy / "train").groups is None
