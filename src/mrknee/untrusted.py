"""Bytes, text and JSON from files that nobody vouches for: bounded, whole, and said once.

Every reader of the package that takes a whole file takes it from here.
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
"""No description of a model, a run or its scores is longer; ours take some kilobytes."""

DEEPEST = 50
"""Levels of lists and objects in JSON, at most; ours have fewer than 10. What is read is written
again, walked and hashed, and Python's own limit lies elsewhere for each."""

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # half a character, unless its other half follows


def read_bytes(
    file: Path, what: str, *, at_most: int, kind: type[MrkneeError] = DataError
) -> bytes:
    """Reads a whole file, if it is one and no larger than it may be.

    Args:
        file: the file; a link to one is followed.
        what: what it should be, for the error: "label file".
        at_most: bytes; a larger file is refused before it is read.
        kind: the class of the error.

    Raises:
        MrkneeError: there is no such file, it can't be read, it is a folder, a pipe or a device
            (which might never end), or it is too large.
    """
    refuse_unusual(file, what, kind=kind)
    try:
        with file.open("rb") as opened:
            size = os.fstat(opened.fileno()).st_size
            content = opened.read(min(size, at_most) + 1)  # takes that much memory at once
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


def refuse_unusual(
    file: Path, what: str, exam: str | None = None, *, kind: type[MrkneeError] = DataError
) -> None:
    """Refuses what isn't a regular file, before it is opened: opening a pipe waits for ever.

    Args:
        file: the file; a link to one is followed.
        what: what it should be, for the error.
        exam: named in the error.
        kind: the class of the error.

    Raises:
        MrkneeError: there is nothing, or a folder, a pipe, a socket or a device.
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
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        found = getattr(error, "strerror", None) or str(error)
        raise kind(
            f"the {what} can't be read", code="unreadable", file=file, exam=exam, found=found
        ) from None
    if not stat.S_ISREG(mode):
        raise kind(
            f"the {what} is no file",
            code="unreadable",
            file=file,
            exam=exam,
            found="a folder" if stat.S_ISDIR(mode) else "a pipe, a socket or a device",
        )


def read_text(file: Path, what: str, *, at_most: int, kind: type[MrkneeError] = DataError) -> str:
    r"""Reads a text in UTF-8, with or without a byte order mark; line ends become `\n`.

    Raises:
        MrkneeError: as `read_bytes`, or it is no UTF-8.
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
        MrkneeError: as `read_bytes` and `parse_json`.
    """
    return parse_json(read_bytes(file, what, at_most=at_most, kind=kind), file, what, kind=kind)


def parse_json(
    content: str | bytes, file: Path | None, what: str, *, kind: type[MrkneeError] = DataError
) -> Any:  # noqa: ANN401
    """Parses JSON that says everything once and holds no number that isn't one.

    Args:
        content: the text, or its bytes in UTF-8.
        file: where it came from, for the error.
        what: what it should be, for the error.
        kind: the class of the error.

    Returns:
        Dicts, lists, text, finite numbers, booleans and None.

    Raises:
        MrkneeError: it isn't JSON; a key comes twice in one object (which of the two holds is
            nobody's guess); a NaN, an infinity or a number too large; nested too deep; half of a
            character (a lone surrogate), which no file and no answer could hold.
    """
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
        found = json.loads(
            text, object_pairs_hook=_once, parse_constant=_finite, parse_float=_finite
        )
        _refuse_deep(found)
        if _SURROGATE.search(text):
            json.dumps(found, ensure_ascii=False).encode()  # a ValueError where one is alone
        return found
    except RecursionError:
        fault = "nested too deep"
    except ValueError as error:  # JSON's, Unicode's and our own
        fault = str(error)
    raise kind(
        f"the {what} can't be read", code="unreadable", file=file, expected="JSON", found=fault
    )


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for name, value in pairs:
        if name in content:
            raise ValueError(f"the key {name!r} comes twice")
        content[name] = value
    return content


def _refuse_deep(content: Any) -> None:  # noqa: ANN401  # what JSON gives
    level, depth = [content], 0
    while level:
        inside: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                inside += one.values()
            elif isinstance(one, list):
                inside += one
        level, depth = inside, depth + 1
        if depth > DEEPEST:
            raise ValueError("nested too deep")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no finite number")
    return value
