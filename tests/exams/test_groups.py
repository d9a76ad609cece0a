from __future__ import annotations

from pathlib import Path

import pytest

from mrknee.errors import DataError
from mrknee.exams import Dataset, open_dataset, read_groups
from mrknee.exams.groups import group_numbers


def test_groups_are_read_by_exam(tmp_path: Path) -> None:
    """Lines without a group, and no file at all, group nothing; accents are composed."""
    assert read_groups(tmp_path) is None
    (tmp_path / "groups.csv").write_text('exam,group\n0001,a b\n0002,\nMu\u0308ller,"x,y"\n')
    assert read_groups(tmp_path) == {"0001": "a b", "M\u00fcller": "x,y"}


def test_exams_without_a_group_are_alone() -> None:
    """Also where an exam's id is another's group."""
    assert group_numbers(["1", "2", "3", "a"], {"1": "a", "3": "a"}) == [0, 1, 0, 2]


@pytest.mark.parametrize(
    "text",
    ["", "0001,Miller\n", "exam\nMiller\n", "exam,group\n0001,Miller\n0001,Miller\n",
     "exam,group\n,Miller\n", "exam,group\n0001,Miller,1\n"],
)  # fmt: skip
def test_a_broken_table_is_refused_without_its_words(tmp_path: Path, text: str) -> None:
    """Groups may be named by patients, so lines are named by number only."""
    (tmp_path / "groups.csv").write_text(text)
    with pytest.raises(DataError) as error:
        read_groups(tmp_path)
    assert (error.value.code, error.value.file) == ("declaration", str(tmp_path / "groups.csv"))
    assert "Miller" not in str(error.value)


def test_a_data_set_has_a_number_for_each_exam(toy: Path) -> None:
    """Equal for exams of one group; lines of another split's exams don't matter here."""
    assert open_dataset(toy, split="train").groups is None
    (toy / "groups.csv").write_text("exam,group\n0003,p\n0001,p\n0012,p\n0013,q\n")
    assert open_dataset(toy, split="train").groups == (0, 1, 2, 1, *range(3, 11))
    assert open_dataset(toy, split="valid").groups == tuple(range(6))
    assert Dataset(toy / "train").groups is None
