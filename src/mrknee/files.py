"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
"""Errors of the disk, or what one person may have of it, being full."""

_HALF_WRITTEN = re.compile(r"\..+\.\d+")  # the names that `whole_file` writes to


def clear_half_written(folder: Path) -> None:
    """Removes what a killed `whole_file` left in a folder; nobody may be writing there."""
    for file in folder.glob(".*"):
        if _HALF_WRITTEN.fullmatch(file.name):
            file.unlink()


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a path beside `path` to write to; it takes `path`'s place only if nothing fails.

    Folders above it are made. Whoever reads `path` meanwhile sees the old file or the new one,
    never a part; after an error, what was there before is still there. An error of the system that
    names no file (a full disk) gets this one's name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield beside
        beside.replace(path)
    except BaseException as error:
        beside.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise
