from __future__ import annotations

from pathlib import Path

import pytest

from mrknee.files import whole_file


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    """Folders are made, and only the finished file is there."""
    path = tmp_path / "new" / "a.txt"
    with whole_file(path) as beside:
        beside.write_text("done")
        assert not path.exists()
    assert path.read_text() == "done"
    assert list(path.parent.iterdir()) == [path]


def test_after_a_failure_the_old_file_is_still_there(tmp_path: Path) -> None:
    """An error while writing leaves what was there before, and nothing beside it."""
    path = tmp_path / "a.txt"
    path.write_text("before")

    def fail_halfway() -> None:
        with whole_file(path) as beside:
            beside.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
