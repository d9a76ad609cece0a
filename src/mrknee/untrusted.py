"""Reading untrusted files: size limits, regular files only, no duplicate keys in JSON.

All readers in this package that read a complete file use these functions.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mrknee.errors import DataError, MrkneeError

DESCRIPTION_BYTES = 4_000_000
"""Maximum size of a JSON description of a model, a run or its scores; usual sizes are kilobytes."""

MAX_DEPTH = 50
"""Maximum nesting of lists and objects in JSON; files of this package have fewer than 10 levels.
Parsed JSON is also written, traversed and hashed, each with another recursion limit in Python."""

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # half of a surrogate pair


def read_bytes(
    file: Path, what: str, *, at_most: int, kind: type[MrkneeError] = DataError
) -> bytes:
    """Reads a complete regular file up to a maximum size.

    Args:
        file: the file; links are followed.
        what: description of the file for error messages, such as "label file".
        at_most: maximum size in bytes; a larger file is refused before it is read.
        kind: class of the errors.

    Raises:
        MrkneeError: the file is missing, unreadable or too large, or is a folder, a pipe or a
            device (which might never end).
    """
    require_regular_file(file, what, kind=kind)
    try:
        with file.open("rb") as opened:
            size = os.fstat(opened.fileno()).st_size
            content = opened.read(min(size, at_most) + 1)  # allocates this many bytes at once
    except OSError as error:
        found = error.strerror or str(error)
        raise kind(f"the {what} can't be read", code="unreadable", file=file, found=found) from None
    if len(content) > at_most:
        raise kind(
            f"the {what} is too large",
            code="too-large",
            file=file,
            expected=f"at most {at_most:,} bytes",
            found=f"{size:,} bytes",
        )
    return content


def require_regular_file(
    file: Path, what: str, exam: str | None = None, *, kind: type[MrkneeError] = DataError
) -> None:
    """Refuses anything but a regular file before it is opened: opening a pipe can block forever.

    Args:
        file: the file; links are followed.
        what: description of the file for error messages.
        exam: the exam's id, for error messages.
        kind: class of the errors.

    Raises:
        MrkneeError: the file is missing, or is a folder, a pipe, a socket or a device.
    """
    try:
        mode = os.stat(file).st_mode  # noqa: PTH116  # Path.stat is the same, and hides the name
    except FileNotFoundError:
        raise kind(
            f"the {what} is missing",
            code="missing-file",
            file=file,
            exam=exam,
            found=os.strerror(errno.ENOENT),
        ) from None
    except (OSError, ValueError) as error:  # ValueError: an invalid file name
        found = getattr(error, "strerror", None) or str(error)
        raise kind(
            f"the {what} can't be read", code="unreadable", file=file, exam=exam, found=found
        ) from None
    if not stat.S_ISREG(mode):
        raise kind(
            f"the {what} is not a regular file",
            code="unreadable",
            file=file,
            exam=exam,
            found="a folder" if stat.S_ISDIR(mode) else "a pipe, a socket or a device",
        )


def read_text(file: Path, what: str, *, at_most: int, kind: type[MrkneeError] = DataError) -> str:
    r"""Reads UTF-8 text, with or without a byte order mark; line endings become `\n`.

    Raises:
        MrkneeError: as for `read_bytes`, or the file is not UTF-8.
    """
    content = read_bytes(file, what, at_most=at_most, kind=kind)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise kind(
            f"the {what} is not text",
            code="unreadable",
            file=file,
            expected="UTF-8",
            found=str(error),
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(
    file: Path,
    what: str,
    *,
    at_most: int = DESCRIPTION_BYTES,
    kind: type[MrkneeError] = DataError,
) -> Any:  # noqa: ANN401
    """Reads a JSON file; see `parse_json`.

    Raises:
        MrkneeError: as for `read_bytes` and `parse_json`.
    """
    return parse_json(read_bytes(file, what, at_most=at_most, kind=kind), file, what, kind=kind)


def parse_json(
    content: str | bytes, file: Path | None, what: str, *, kind: type[MrkneeError] = DataError
) -> Any:  # noqa: ANN401
    """Parses strict JSON: unique keys, finite numbers, limited nesting.

    Args:
        content: the text, or its bytes in UTF-8.
        file: the source, for error messages.
        what: description of the file for error messages.
        kind: class of the errors.

    Returns:
        Dicts, lists, text, finite numbers, booleans and None.

    Raises:
        MrkneeError: the content isn't JSON, repeats a key in an object, has a NaN, an infinite or
            too large number, is nested too deeply, or has a lone surrogate, which can't be encoded
            in UTF-8.
    """
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
        found = json.loads(
            text, object_pairs_hook=_unique_keys, parse_constant=_finite, parse_float=_finite
        )
        _refuse_deep(found)
        if _SURROGATE.search(text):
            json.dumps(found, ensure_ascii=False).encode()  # a ValueError for a lone surrogate
        return found
    except RecursionError:
        reason = "nested too deeply"
    except ValueError as error:  # from JSON, Unicode, or the functions below
        reason = str(error)
    raise kind(
        f"the {what} can't be read", code="unreadable", file=file, expected="JSON", found=reason
    )


def _unique_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for name, value in pairs:
        if name in content:
            raise ValueError(f"the key {name!r} is repeated")
        content[name] = value
    return content


def _refuse_deep(content: Any) -> None:  # noqa: ANN401  # any JSON value
    level, depth = [content], 0
    while level:
        next_level: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                next_level += value.values()
            elif isinstance(value, list):
                next_level += value
        level, depth = next_level, depth + 1
        if depth > MAX_DEPTH:
            raise ValueError("nested too deeply")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value
