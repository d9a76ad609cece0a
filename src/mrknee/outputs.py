"""Checks of output paths before any work: no input is ever replaced."""

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
from mrknee.exams.sides import SIDES_FILE
from mrknee.files import LOCK, resolve_output
from mrknee.run_folder import CROSS_VALIDATION_FILE, MODEL_FILE, RUN_FILES, RunFolder

STACK_FILES = "*.[nN][pP][yY]"
"""Pattern of a data set's files in the folders of series."""

MAX_LEVELS = 3
"""Levels of folders above a file that are checked: files in epochs/*/ are 3 levels below the run's
parent, files of a data set fewer."""


def check_output_file(out: Path, inputs: Iterable[Path | str] = ()) -> None:
    """Refuses an output file that can't or must not be written, before any work is done.

    Args:
        out: the file to write.
        inputs: the files and folders that are read. Their files are never replaced, also if `out`
            is another name, a link or a hard link of one; nor are the files of a run folder or data
            set that contains `out`. Other files in such folders may be replaced.

    Raises:
        OutputError: `out` is a folder, a pipe, a socket, a device or a broken link; it or its
            folder is write-protected; or it must not be replaced.
    """
    target = resolve_output(out)
    _check_folder(target.parent, out)
    if target.name == LOCK:
        _cannot_write(out, "another name", "the name of the lock file of output folders")
    if target.exists() and not os.access(target, os.W_OK):
        _cannot_write(out, "a file with write permission", _write_obstacle(target))
    identity = _identity(target)
    protected = [file for path in inputs for file in _protected_files(Path(path), every_split=True)]
    for parent in [*target.parents][:MAX_LEVELS]:
        protected += _protected_files(parent)
    for folder, name in protected:
        if _matches(target, identity, folder, name):
            raise OutputError(
                "the output would replace an input, or a file of a run or a data set",
                code="would-replace",
                file=out,
                expected="a new file, or one that is no input and belongs to no run or data set",
                found=f"{name} in {folder}",
                advice="write to another file or folder",
            )


def check_output_folder(
    out: Path, names: Iterable[str] = (), inputs: Iterable[Path | str] = ()
) -> None:
    """Refuses an output folder that can't be written to, before any work is done.

    Args:
        out: the folder to write into; it may not exist yet.
        names: files that will be written there, checked by `check_output_file`; `*` stands for
            unknown parts of names, which are checked for existing files.
        inputs: the files and folders that are read.

    Raises:
        OutputError: `out` is not a folder or is below a file; it is write-protected; or one of the
            files must not be replaced.
    """
    _check_folder(out, out)
    inputs = list(inputs)
    for name in names:
        for file in out.glob(name) if "*" in name else [out / name]:
            check_output_file(file, inputs)


def _check_folder(folder: Path, out: Path) -> None:
    """Refuses a folder in which files can't be created; a missing folder is accepted."""
    try:
        above = folder.absolute()
        with suppress(FileNotFoundError, NotADirectoryError):
            os.lstat(above)  # raises for a name that is too long, which `exists` doesn't
        nearest = next(path for path in (above, *above.parents) if os.path.lexists(path))
        is_folder, exists = nearest.is_dir(), nearest.exists()
        may_write = os.access(nearest, os.W_OK | os.X_OK)
    except (OSError, ValueError) as error:  # an invalid file name
        _cannot_write(out, "a valid file name", getattr(error, "strerror", None) or str(error))
    if not is_folder:
        kind = "a file" if exists else "a broken link"
        _cannot_write(out, "a folder", f"{nearest}, {kind}")
    if not may_write:
        _cannot_write(
            out, "a folder with write permission", f"{nearest}: {_write_obstacle(nearest)}"
        )


def _write_obstacle(path: Path) -> str:
    """Returns why a path is write-protected."""
    if hasattr(os, "statvfs") and os.statvfs(path).f_flag & os.ST_RDONLY:
        return "a read-only file system"
    return "no permission to write"


def _cannot_write(out: Path, expected: str, found: str) -> NoReturn:
    raise OutputError(
        "the output can't be written", code="cannot-write", file=out, expected=expected, found=found
    )


def _protected_files(path: Path, *, every_split: bool = False) -> Iterator[tuple[Path, str]]:
    """Yields the files that belong to a path, as pairs of folder and file name pattern."""
    if not path.is_dir():
        yield path.parent, escape(path.name)
        return
    patterns: list[str] = []
    run = RunFolder(path)
    if any(
        f.exists()
        for f in (run.settings, path / MODEL_FILE, run.best, path / CROSS_VALIDATION_FILE)
    ):
        patterns += RUN_FILES
    folders = [path / split for split in ("train", "valid")]
    if every_split:  # any folder may be a split, with tables named after it
        folders = [*path.iterdir()]
    splits = [folder for folder in folders if has_series(folder)]
    if splits or has_series(path):
        patterns += ["phantom.json", "import.json", SERIES_FILE, FINDINGS_FILE, GROUPS_FILE]
        patterns += [SIDES_FILE]
        patterns += [f"{escape(s.name)}-*.csv" for s in splits]
    for folder in (path, *splits):
        if has_series(folder):
            yield from ((inside, STACK_FILES) for inside in series_folders(folder).values())
    for pattern in patterns:
        above, _, name = pattern.rpartition("/")
        for folder in path.glob(above) if above else [path]:
            if folder.is_dir():
                yield folder, name


def _matches(target: Path, identity: tuple[int, int] | None, folder: Path, pattern: str) -> bool:
    """Returns whether a file is, or would become, one in a folder that matches a pattern."""
    parent = _identity(target.parent)  # not by path: a folder can be mounted at several places
    if parent and parent == _identity(folder) and fnmatchcase(target.name, pattern):
        return True
    if identity is None:
        return False
    if not any(sign in pattern for sign in "*?["):
        return _identity(folder / pattern) == identity
    return any(
        _identity(file) == identity for file in folder.iterdir() if fnmatchcase(file.name, pattern)
    )


def _identity(file: Path) -> tuple[int, int] | None:
    """Returns the device and inode of a file, which identify it; None if it doesn't exist."""
    try:
        status = os.stat(file)  # noqa: PTH116  # follows links, as reading does
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino
