from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrknee.errors import MAX_PART, DataError, MrkneeError
from mrknee.untrusted import parse_json, read_bytes, read_text

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(value=VALUES)
def test_json_round_trip(value: object) -> None:
    """Values written by `json` are read back unchanged."""
    assert parse_json(json.dumps(value), None, "thing") == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode("utf-8"), None, "x") == value


@given(key=st.text(), value=VALUES)
def test_repeated_key_is_refused(key: str, value: object) -> None:
    """Repeated keys are refused at any depth, even if their values are equal."""
    member = f"{json.dumps(key)}: {json.dumps(value)}"
    for text in (f"{{{member}, {member}}}", f"[[{{{member}, {member}}}]]"):
        with pytest.raises(MrkneeError, match="is repeated"):
            parse_json(text, None, "thing")


def test_file_larger_than_the_limit_is_refused(tmp_path: Path) -> None:
    """A file of the maximum size is read; one more byte is refused."""
    file = tmp_path / "a"
    file.write_bytes(b"1234")
    assert read_bytes(file, "thing", at_most=4) == b"1234"
    with pytest.raises(MrkneeError, match="the thing is too large") as caught:
        read_bytes(file, "thing", at_most=3)
    assert caught.value.found == "4 bytes"


def test_line_endings_are_normalised(tmp_path: Path) -> None:
    """Line endings of Windows, old Macs and Unix, and a byte order mark, are normalised."""
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfa\r\nb\rc\n")
    assert read_text(tmp_path / "a", "thing", at_most=100) == "a\nb\nc\n"


def test_link_to_a_file_is_followed(tmp_path: Path) -> None:
    """Links to regular files are read; links to anything else are refused."""
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "link").symlink_to("a")
    assert read_bytes(tmp_path / "link", "thing", at_most=4) == b"1"
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "other").symlink_to("pipe")
    with pytest.raises(MrkneeError, match="not a regular file"):
        read_bytes(tmp_path / "other", "thing", at_most=4)


@given(found=st.text())
def test_messages_have_no_control_characters(found: str) -> None:
    """A message has only printable characters and line breaks; attributes are unchanged."""
    error = DataError("fault", code="fault", found=found)
    assert all(c.isprintable() or c == "\n" for c in str(error))
    assert error.found == found


def test_long_part_is_shortened() -> None:
    """A long part is shortened, and its original length is given."""
    error = DataError("fault", code="fault", found="x" * 100_000)
    assert len(str(error)) < MAX_PART + 100
    assert "100,0" in str(error)
