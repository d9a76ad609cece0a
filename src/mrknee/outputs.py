"""What a verb may write to, checked before it works: no file that is read is replaced."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path
from typing import NoReturn

from mrknee.errors import OutputError
from mrknee.exams.findings import FINDINGS_FILE
from mrknee.exams.groups import GROUPS_FILE
from mrknee.exams.listing import has_series, series_folders
from mrknee.exams.series import SERIES_FILE
from mrknee.files import LOCK, resolve_output
from mrknee.run_folder import MODEL_FILE, RUN_FILES, RunFolder

STACKS = "*.[nN][pP][yY]"
"""What a data set's files are called in the planes' folders."""

DEEPEST = 3
"""Folders in which a file of a run lies: epochs/*/ of the run's. A data set's lie in fewer."""


def check_output_file(out: Path, reads: Iterable[Path | str] = ()) -> None:
    """Refuses a file that can't be written, or must not be, before any work is done.

    Args:
        out: the file to write.
        reads: the files and folders that are read. Their files are not replaced, whatever name,
            link or hard link leads to them; and neither are files that a run folder or data set
            around `out` consists of. Other files in such folders are.

    Raises:
        MrkneeError: `out` is a folder, a pipe, a socket or a device, or a link that leads nowhere;
            it is write-protected, or nothing can be written there; or it must not be replaced.
    """
    target = resolve_output(out)
    _check_folder(target.parent, out)
    if target.name == LOCK:
        _refuse(out, "another name", "the name of the file that an output folder's owner locks")
    if target.exists() and not os.access(target, os.W_OK):
        _refuse(out, "a file that may be replaced", _why_not(target))
    identity = _identity(target)
    own = [*(one for path in reads for one in _own_files(Path(path), every_split=True))]
    own += [one for path in [*target.parents][:DEEPEST] for one in _own_files(path)]
    for folder, name in own:
        if _is_one_of(target, identity, folder, name):
            raise OutputError(
                "the output would replace what is read, or a part of a run or a data set",
                code="would-replace",
                file=out,
                expected="a new file, or one that can be replaced without loss",
                found=f"{name} in {folder}",
                advice="name another file or folder to write to",
            )


def check_output_folder(
    out: Path, names: Iterable[str] = (), reads: Iterable[Path | str] = ()
) -> None:
    """Refuses a folder that can't be written into, before any work is done.

    Args:
        out: the folder to write into; made later where it isn't there.
        names: files that will be written there, checked as `check_output_file` does; `*` stands
            for what is not known yet, and is checked for the files that are there.
        reads: the files and folders that are read.

    Raises:
        MrkneeError: `out` is no folder, or lies below something else; nothing can be written
            there; or one of the files must not be replaced.
    """
    _check_folder(out, out)
    reads = list(reads)
    for name in names:
        for file in out.glob(name) if "*" in name else [out / name]:
            check_output_file(file, reads)


def _check_folder(folder: Path, out: Path) -> None:
    """Refuses a folder in which no file can be made; one that isn't there yet may be made."""
    try:
        above = folder.absolute()
        with suppress(FileNotFoundError, NotADirectoryError):
            os.lstat(above)  # says what `exists` passes over in silence: a name that is too long
        there = next(path for path in (above, *above.parents) if os.path.lexists(path))
        is_folder, exists = there.is_dir(), there.exists()
        may_write = os.access(there, os.W_OK | os.X_OK)
    except (OSError, ValueError) as error:  # a name that no file can have
        _refuse(out, "a name that a file can have", getattr(error, "strerror", None) or str(error))
    if not is_folder:
        kind = "a file" if exists else "a link that leads nowhere"
        _refuse(out, "a folder", f"{there}, {kind}")
    if not may_write:
        _refuse(out, "a folder that can be written to", f"{there}: {_why_not(there)}")


def _why_not(path: Path) -> str:
    if hasattr(os, "statvfs") and os.statvfs(path).f_flag & os.ST_RDONLY:
        return "a read-only file system"
    return "no permission to write"


def _refuse(out: Path, expected: str, found: str) -> NoReturn:
    raise OutputError(
        "the output can't be written", code="cannot-write", file=out, expected=expected, found=found
    )


def _own_files(path: Path, *, every_split: bool = False) -> Iterator[tuple[Path, str]]:
    """The files that belong to a path: folders, each with a pattern of names."""
    if not path.is_dir():
        yield path.parent, escape(path.name)
        return
    patterns: list[str] = []
    run = RunFolder(path)
    if any(file.exists() for file in (run.settings, path / MODEL_FILE, run.best)):
        patterns += RUN_FILES
    folders = [path / split for split in ("train", "valid")]
    if every_split:  # a folder of exams may have tables of any name beside it
        folders = [*path.iterdir()]
    splits = [folder for folder in folders if has_series(folder)]
    if splits or has_series(path):
        patterns += ["phantom.json", "import.json", SERIES_FILE, FINDINGS_FILE, GROUPS_FILE]
        patterns += [f"{escape(s.name)}-*.csv" for s in splits]
    for folder in (path, *splits):
        if has_series(folder):
            yield from ((inside, STACKS) for inside in series_folders(folder).values())
    for pattern in patterns:
        above, _, name = pattern.rpartition("/")
        for folder in path.glob(above) if above else [path]:
            if folder.is_dir():
                yield folder, name


def _is_one_of(target: Path, identity: tuple[int, int] | None, folder: Path, pattern: str) -> bool:
    """Whether a file is, or would become, one of those of a folder that fit a pattern."""
    inside = _identity(target.parent)  # not its name: a folder can be mounted at several places
    if inside and inside == _identity(folder) and fnmatchcase(target.name, pattern):
        return True
    if identity is None:
        return False
    if not any(sign in pattern for sign in "*?["):
        return _identity(folder / pattern) == identity
    return any(
        _identity(file) == identity for file in folder.iterdir() if fnmatchcase(file.name, pattern)
    )


def _identity(file: Path) -> tuple[int, int] | None:
    """What tells a file from all others, whatever its names; None where there is none."""
    try:
        found = os.stat(file)  # noqa: PTH116  # through links, as reading it would
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino
