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
def test_json_that_says_everything_once_is_read(value: object) -> None:
    """Whatever json writes of plain values comes back as it was."""
    assert parse_json(json.dumps(value), None, "thing") == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode("utf-8"), None, "x") == value


@given(key=st.text(), value=VALUES)
def test_a_key_twice_is_refused(key: str, value: object) -> None:
    """At any depth, whether the two agree or not."""
    one = f"{json.dumps(key)}: {json.dumps(value)}"
    for text in (f"{{{one}, {one}}}", f"[[{{{one}, {one}}}]]"):
        with pytest.raises(MrkneeError, match="comes twice"):
            parse_json(text, None, "thing")


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    """As many bytes as allowed are read; one more is refused."""
    file = tmp_path / "a"
    file.write_bytes(b"1234")
    assert read_bytes(file, "thing", at_most=4) == b"1234"
    with pytest.raises(MrkneeError, match="the thing is too large") as caught:
        read_bytes(file, "thing", at_most=3)
    assert caught.value.found == "4 bytes"


def test_line_ends_become_one_kind(tmp_path: Path) -> None:
    """Windows', old Macs' and Unix' line ends, and a byte order mark before them."""
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfa\r\nb\rc\n")
    assert read_text(tmp_path / "a", "thing", at_most=100) == "a\nb\nc\n"


def test_a_link_to_a_file_is_followed(tmp_path: Path) -> None:
    """Data sets on other disks are linked; what the link leads to must be a file."""
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "link").symlink_to("a")
    assert read_bytes(tmp_path / "link", "thing", at_most=4) == b"1"
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "other").symlink_to("pipe")
    with pytest.raises(MrkneeError, match="no file"):
        read_bytes(tmp_path / "other", "thing", at_most=4)


@given(found=st.text())
def test_a_message_commands_no_terminal(found: str) -> None:
    """Whatever is quoted, only printable characters and line ends are left; attributes keep it."""
    error = DataError("fault", code="fault", found=found)
    assert all(c.isprintable() or c == "\n" for c in str(error))
    assert error.found == found


def test_a_long_part_is_cut() -> None:
    """A message stays readable, and says how much there was."""
    error = DataError("fault", code="fault", found="x" * 100_000)
    assert len(str(error)) < MAX_PART + 100
    assert "100,0" in str(error)
