"""Tables as plain text."""

from __future__ import annotations

import pytest

from mrknee.tables import table_lines

ROWS = [("finding", "model", "AUC"), ("acl", "runs/first", "0.9"), ("meniscus", "b", "0.78123")]


def test_columns_are_aligned() -> None:
    """Text is aligned left and numbers right, below a header and a rule."""
    assert table_lines(ROWS, left=2) == [
        "finding   model           AUC",
        "-----------------------------",
        "acl       runs/first      0.9",
        "meniscus  b           0.78123",
    ]
    assert table_lines(ROWS)[2:] == ["acl       runs/first  0.9", "meniscus  b           0.78123"]


def test_nothing_is_wrapped_cut_or_coloured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A narrow or coloured terminal changes no line."""
    long = [("a", "b"), ("x" * 700, "y z " * 300 + "y")]
    expected = [f"a{' ' * 701}b", "-" * 1903, "  ".join(long[1])]
    for name, value in (("COLUMNS", "20"), ("FORCE_COLOR", "1"), ("TERM", "dumb")):
        monkeypatch.setenv(name, value)
        assert table_lines(long) == expected


def test_names_are_taken_as_they_are() -> None:
    """Brackets and emoji codes are not markup; tables of one row and empty cells are kept."""
    rows = [("name", ""), ("[bold]a[/bold]", ":knee:"), ("", "x")]
    lines = table_lines(rows)
    assert lines[2:] == ["[bold]a[/bold]  :knee:", "                x"]
    assert table_lines([("only", "header")]) == ["only  header", "------------"]


def test_wide_characters_take_two_places() -> None:
    """Columns after a Chinese name are aligned in a terminal."""
    rows = [("finding", "n"), ("半月板", "1"), ("acl", "2")]
    assert table_lines(rows)[2:] == ["半月板   1", "acl      2"]
