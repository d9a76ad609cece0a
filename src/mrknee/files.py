"""Atomic and durable writing of files, and exclusive access to output folders."""

from __future__ import annotations

import csv
import errno
import math
import os
import re
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from mrknee.errors import OutputError

if sys.platform != "win32":
    import fcntl

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers of a full disk or an exceeded quota."""

LOCK = ".mrknee-lock"
"""The lock file in an output folder; it is removed when its owner ends."""

_TEMPORARY_NAME = re.compile(r"\..+\.\d+")  # of `atomic_write`
_MAX_NAME = 200  # characters of a name that are kept, so that temporary names aren't too long
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)
_SECONDS_BETWEEN_TRIES = 0.2  # to lock a folder that another process owns
_locks: set[int] = set()  # descriptors of the locks of this process


def exists(path: Path) -> bool:
    """Returns whether there is such a file or folder; a name that is too long names nothing.

    For paths that a person gives, since pathlib's methods raise OSError for such names.
    """
    return _unless_too_long(path.exists)


def is_dir(path: Path) -> bool:
    """Returns whether there is such a folder; see `exists`."""
    return _unless_too_long(path.is_dir)


def is_file(path: Path) -> bool:
    """Returns whether there is such a file; see `exists`."""
    return _unless_too_long(path.is_file)


def _unless_too_long(test: Callable[[], bool]) -> bool:
    try:
        return test()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return False
        raise


def list_folder(folder: Path) -> list[Path]:
    """Lists a folder without its lock file; empty if there is no such folder."""
    return [p for p in folder.iterdir() if p.name != LOCK] if folder.exists() else []


def remove_incomplete(folder: Path, *, below: bool = False, older_than: float = 0.0) -> None:
    """Removes temporary files of a killed `atomic_write`.

    Args:
        folder: a folder, which the caller must own unless it gives an age; it may be missing.
        below: also look into its subfolders.
        older_than: age in seconds of the files to remove, longer than writing one can take.
    """
    newest = time.time() - older_than if older_than else math.inf
    for file in folder.rglob(".*") if below else folder.glob(".*"):
        if _TEMPORARY_NAME.fullmatch(file.name):
            with suppress(FileNotFoundError):  # another process has removed it
                if file.stat().st_mtime <= newest:
                    file.unlink()


# --- atomic writing


@contextmanager
def atomic_write(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Writes a file atomically: yields a temporary path that replaces `path` on success.

    Readers of `path` see the old or the new file, never a part; after an error, the old file is
    unchanged. The same holds after a power loss: the contents are flushed to disk before the
    replacement, and the new name before this returns. Missing folders are created. A link is
    followed, and the file that it points to is replaced.

    Args:
        path: the file to write.
        durable: False doesn't flush to disk. The caller must then call `sync` before it records
            anywhere that the file is complete.

    Raises:
        OutputError: `path` is something other than a regular file.
        OSError: an error of the system, with `path` as its file name.
    """
    with atomic_writes(path, durable=durable) as (temporary,):
        yield temporary


@contextmanager
def atomic_writes(*paths: Path, durable: bool = True) -> Iterator[list[Path]]:
    """Writes several files as `atomic_write` does; none is replaced until all are written.

    They are replaced in the given order.
    """
    targets = [resolve_output(path) for path in paths]
    temporaries = [
        target.with_name(f".{target.name[:_MAX_NAME]}.{int.from_bytes(os.urandom(6), 'big')}")
        for target in targets
    ]
    try:
        for target in targets:
            _make_folder(target.parent)
        yield temporaries
        if durable:
            for temporary in temporaries:
                _sync(temporary)
        for temporary, target in zip(temporaries, targets, strict=True):
            temporary.replace(target)
        if durable:
            for folder in {target.parent for target in targets}:
                _sync_folder(folder)
    except BaseException as error:
        for temporary in temporaries:
            with suppress(OSError):
                temporary.unlink()
        if isinstance(error, OSError) and error.errno is not None:
            _name_requested_file(error, temporaries, paths)
        raise


def write_text(path: Path, text: str) -> None:
    """Writes a text file in UTF-8 atomically; errors as of `atomic_write`."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_csv(path: Path, rows: Iterable[Iterable[object]]) -> None:
    """Writes a CSV file in UTF-8 atomically, one line per row; errors as of `atomic_write`."""
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def _name_requested_file(
    error: OSError, temporaries: Sequence[Path], paths: Sequence[Path]
) -> None:
    """Replaces the temporary file name in an error by the requested one."""
    requested = {str(one): path for one, path in zip(temporaries, paths, strict=True)}
    if error.filename is None:
        error.filename = str(paths[0])
    elif str(error.filename) in requested:
        error.filename = str(requested[str(error.filename)])
    error.filename2 = None


def sync(files: Iterable[Path]) -> None:
    """Flushes files that were written with `durable=False` to disk."""
    folders = set()
    for file in files:
        _sync(file)
        folders.add(file.parent)
    for folder in folders:
        _sync_folder(folder)


def resolve_output(path: Path) -> Path:
    """Returns the file that writing to `path` replaces: the target of a link, or `path` itself.

    Raises:
        OutputError: `path` is a folder, a pipe, a socket, a device or a broken link, or an invalid
            file name.
    """
    try:
        target = Path(os.path.realpath(path))
        mode = os.lstat(target).st_mode
    except (FileNotFoundError, NotADirectoryError):
        if not path.is_symlink():
            return target
        found = "a broken link"
    except (OSError, ValueError) as error:  # ValueError: an invalid file name
        found = getattr(error, "strerror", None) or str(error)
    else:
        if stat.S_ISREG(mode):
            return target
        found = "a pipe, a socket or a device"
        if stat.S_ISDIR(mode):
            found = "a folder"
        elif stat.S_ISLNK(mode):
            found = "a broken link"
    raise OutputError(
        "the output can't be written",
        code="cannot-write",
        file=path,
        expected="a new name, or a regular file to replace",
        found=found,
    )


def _sync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Flushes the names in a folder to disk, if the system supports that for folders."""
    try:
        _sync(folder)
    except OSError as error:
        if error.errno in (*FULL_DISK, errno.EIO):
            raise


def _make_folder(folder: Path) -> list[Path]:
    """Creates a folder and its parents; returns the created ones, the innermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        _sync_folder(path.parent)
    return missing


# --- exclusive access to a folder


@contextmanager
def owned_folder(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Creates a folder if necessary, and prevents other processes from writing into it.

    The owner holds a lock (`flock`) on a file in the folder. The system releases the lock when the
    process ends, for whatever reason. On NFS the lock holds between machines if the server supports
    locks; if the file system doesn't support locks, a note is printed to standard error and nothing
    is locked (nor is it on Windows). A folder that was created but not written to is removed.

    Args:
        folder: the folder.
        wait: if another process owns the folder, wait until it doesn't any more.

    Raises:
        OutputError: another process owns the folder and `wait` is False, or it can't be written to.
    """
    while True:
        try:
            new, descriptor = _create_and_lock(folder)
            break
        except OutputError as error:
            if not (wait and error.code == "in-use"):
                raise
            time.sleep(_SECONDS_BETWEEN_TRIES)
    try:
        yield
    finally:
        if descriptor is not None:
            (folder / LOCK).unlink(missing_ok=True)
            _locks.discard(descriptor)
            os.close(descriptor)
        for created in new:
            try:
                created.rmdir()
            except OSError:  # not empty
                break


def _create_and_lock(folder: Path) -> tuple[list[Path], int | None]:
    """Does what `_make_and_lock` does, with errors of the system as OutputError."""
    try:
        return _make_and_lock(folder)
    except OSError as error:
        if error.errno in FULL_DISK:
            error.filename = str(folder)
            raise
        raise OutputError(
            "the output can't be written",
            code="cannot-write",
            file=folder,
            expected="a folder that can be written to",
            found=error.strerror or str(error),
        ) from None


def _make_and_lock(folder: Path) -> tuple[list[Path], int | None]:
    """Creates a folder if necessary and locks it; returns the created folders and the lock.

    Another process that created the folder and wrote nothing removes it, which may happen between
    this process's steps: then they are repeated.
    """
    created: list[Path] = []
    for attempts_left in reversed(range(100)):
        try:
            created = max(created, _make_folder(folder), key=len)
            return created, _lock(folder) if sys.platform != "win32" else None
        except (FileExistsError, FileNotFoundError):
            if not attempts_left:
                raise
    raise AssertionError


def _lock(folder: Path) -> int:
    """Locks the folder's lock file; returns its descriptor."""
    file = folder / LOCK
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            opened = os.fstat(descriptor)
            if not stat.S_ISREG(opened.st_mode) or opened.st_nlink > 1:  # never overwrite it
                raise OSError(errno.EEXIST, f"{LOCK} in the folder is not a lock file")
            # a previous owner may have removed the file between opening and locking it here
            current = file.exists() and os.path.samestat(opened, file.stat())
        except OSError as error:
            if isinstance(error, BlockingIOError):
                owner = os.pread(descriptor, 200, 0).decode(errors="replace")
                os.close(descriptor)
                raise OutputError(
                    "another process is writing to this folder",
                    code="in-use",
                    file=folder,
                    expected="one process at a time",
                    found=owner or "a process that has just started",
                    advice="wait until that process has ended, or write to another folder",
                ) from None
            if error.errno not in _NO_LOCKS:
                os.close(descriptor)
                raise
            print(
                f"note: {folder} can't be locked: make sure that no other process writes to it",
                file=sys.stderr,
            )
            current = True
        if current:
            _locks.add(descriptor)
            _write_owner(descriptor)
            return descriptor
        os.close(descriptor)


def _write_owner(descriptor: int) -> None:
    """Writes the owner into the lock file, for the error message of other processes."""
    try:
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
    except OSError:  # a full disk: the lock is held nevertheless
        pass


def _release_in_child() -> None:
    """Closes inherited descriptors in a forked process, which would otherwise keep the lock."""
    for descriptor in _locks:
        os.close(descriptor)
    _locks.clear()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_release_in_child)
