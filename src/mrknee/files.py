"""Files that are there whole or not at all, also after a power loss; folders with one owner."""

from __future__ import annotations

import errno
import os
import re
import secrets
import socket
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mrknee.errors import OutputError

if sys.platform != "win32":
    import fcntl

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
"""Errors of the disk, or what one person may have of it, being full."""

LOCK = ".mrknee-lock"
"""The file in an output folder that its owner holds a lock on; it is gone when the owner ends."""

_HALF_WRITTEN = re.compile(r"\..+\.\d+")  # the names that `whole_file` writes to
_LONGEST_NAME = 200  # characters kept of a name, so that the one beside it is not too long
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)
_held: set[int] = set()  # descriptors of the locks of this process


def contents(folder: Path) -> list[Path]:
    """What lies in a folder, without its lock; nothing where there is no folder."""
    return [p for p in folder.iterdir() if p.name != LOCK] if folder.exists() else []


def clear_half_written(folder: Path) -> None:
    """Removes what a killed `whole_file` left in a folder; nobody may be writing there."""
    for file in folder.glob(".*"):
        if _HALF_WRITTEN.fullmatch(file.name):
            file.unlink()


# --- whole files


@contextmanager
def whole_file(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Gives a path beside `path` to write to; it takes `path`'s place only if nothing fails.

    Whoever reads `path` meanwhile sees the old file or the new one, never a part; after an error,
    what was there before is still there. A power loss leaves the old file or the new one too: the
    new one's content is on the disk before it takes the place, and the name before this returns.
    Folders above it are made. A link is followed, and the file it leads to is replaced.

    Args:
        path: the file to write.
        durable: False does not wait for the disk. The caller then has to call `sync` before
            anything is written that says the file is complete.

    Raises:
        MrkneeError: there is something other than a regular file.
        OSError: the system's; it names `path`.
    """
    with whole_files(path, durable=durable) as (beside,):
        yield beside


@contextmanager
def whole_files(*paths: Path, durable: bool = True) -> Iterator[list[Path]]:
    """As `whole_file` for several files: the first takes its place when all are written.

    They take their places in the order given.
    """
    targets = [resolve_output(path) for path in paths]
    besides = [
        target.with_name(f".{target.name[:_LONGEST_NAME]}.{secrets.randbits(48)}")
        for target in targets
    ]
    try:
        for target in targets:
            _make_folder(target.parent)
        yield besides
        if durable:
            for beside in besides:
                _sync(beside)
        for beside, target in zip(besides, targets, strict=True):
            beside.replace(target)
        if durable:
            for folder in {target.parent for target in targets}:
                _sync_folder(folder)
    except BaseException as error:
        for beside in besides:
            beside.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            _name(error, besides, paths)
        raise


def _name(error: OSError, besides: Sequence[Path], paths: Sequence[Path]) -> None:
    """Lets an error of the system name the file that was asked for, not the one beside it."""
    named = {str(beside): path for beside, path in zip(besides, paths, strict=True)}
    if error.filename is None:
        error.filename = str(paths[0])
    elif str(error.filename) in named:
        error.filename = str(named[str(error.filename)])
    error.filename2 = None


def sync(files: Iterable[Path]) -> None:
    """Waits until files that were written with `durable=False` are on the disk."""
    folders = set()
    for file in files:
        _sync(file)
        folders.add(file.parent)
    for folder in folders:
        _sync_folder(folder)


def resolve_output(path: Path) -> Path:
    """The file that writing to `path` replaces: where a link leads to, and otherwise itself.

    Raises:
        MrkneeError: there is a folder, a pipe, a socket or a device; a link leads nowhere; or no
            file can have this name.
    """
    try:
        target = Path(os.path.realpath(path))
        mode = os.lstat(target).st_mode
    except (FileNotFoundError, NotADirectoryError):
        if not path.is_symlink():
            return target
        found = "a link that leads nowhere"
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        found = getattr(error, "strerror", None) or str(error)
    else:
        if stat.S_ISREG(mode):
            return target
        found = "a pipe, a socket or a device"
        if stat.S_ISDIR(mode):
            found = "a folder"
        elif stat.S_ISLNK(mode):
            found = "a link that leads nowhere"
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
    """Puts a folder's names on the disk, where the system can do that for folders at all."""
    try:
        _sync(folder)
    except OSError as error:
        if error.errno in (*FULL_DISK, errno.EIO):
            raise


def _make_folder(folder: Path) -> list[Path]:
    """Makes a folder and those above it; returns the new ones, the innermost first."""
    new = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for one in new:
        _sync_folder(one.parent)
    return new


# --- one owner at a time


@contextmanager
def owned_folder(folder: Path) -> Iterator[None]:
    """Makes a folder where there is none, and keeps other processes from writing into it.

    The owner holds a lock (`flock`) on a file in the folder. The system releases it when the
    process ends, however it ends. On NFS it holds between machines if the server supports locks;
    where the file system has none at all, a line on standard error says so and nothing is locked
    (nor is it on Windows). If nothing was written, a folder that was made is removed again.

    Raises:
        MrkneeError: another process owns the folder, or nobody may write there.
    """
    try:
        new = _make_folder(folder)
        descriptor = _lock(folder) if sys.platform != "win32" else None
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
    try:
        yield
    finally:
        if descriptor is not None:
            (folder / LOCK).unlink(missing_ok=True)
            _held.discard(descriptor)
            os.close(descriptor)
        for one in new:
            try:
                one.rmdir()
            except OSError:  # it holds something
                break


def _lock(folder: Path) -> int:
    """Locks the folder's lock file; returns its descriptor."""
    file = folder / LOCK
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            opened = os.fstat(descriptor)
            if not stat.S_ISREG(opened.st_mode) or opened.st_nlink > 1:  # it is written and removed
                raise OSError(errno.EEXIST, f"{LOCK} in it is something else than a lock")
            # an owner that ended has removed the file between our opening and locking it
            current = file.exists() and os.path.samestat(opened, file.stat())
        except OSError as error:
            if isinstance(error, BlockingIOError):
                owner = os.pread(descriptor, 200, 0).decode(errors="replace")
                os.close(descriptor)
                raise OutputError(
                    "another process is writing into this folder",
                    code="in-use",
                    file=folder,
                    expected="one at a time",
                    found=owner or "a process that has just started",
                    advice="wait until it has ended, or write into another folder",
                ) from None
            if error.errno not in _NO_LOCKS:
                os.close(descriptor)
                raise
            print(
                f"note: {folder} can't be locked: let nothing else write into it", file=sys.stderr
            )
            current = True
        if current:
            _held.add(descriptor)
            _note_owner(descriptor)
            return descriptor
        os.close(descriptor)


def _note_owner(descriptor: int) -> None:
    """Writes who holds the lock, for the message that another process gets."""
    try:
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
    except OSError:  # a full disk: the lock holds all the same
        pass


def _release_in_child() -> None:
    """A forked process inherits descriptors, and would keep the lock when its parent has ended."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_release_in_child)
