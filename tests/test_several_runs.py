"""Runs of one output folder that several processes share."""

from __future__ import annotations

from pathlib import Path

import pytest

from mrknee.errors import OutputError
from mrknee.files import owned_folder
from mrknee.several_runs import share


def test_a_run_is_owned_before_its_work_begins(tmp_path: Path) -> None:
    """Two processes never do, nor log, the same run's work at the same time."""
    folders = [tmp_path / "a", tmp_path / "b"]
    done = []

    def work(folder: Path) -> None:
        with pytest.raises(OutputError) as raised, owned_folder(folder):
            pass
        assert raised.value.code == "in-use"
        done.append(folder)

    share(folders, work)
    assert done == folders
    for folder in folders:
        assert not folder.exists()  # nothing was written


def test_an_error_of_the_work_is_raised(tmp_path: Path) -> None:
    """A folder that the work can't own isn't taken for a run of another process."""
    other = tmp_path / "other"

    def work(_: Path) -> None:
        with owned_folder(other):
            pass

    with owned_folder(other), pytest.raises(OutputError) as raised:
        share([tmp_path / "run"], work)
    assert raised.value.file == str(other)
