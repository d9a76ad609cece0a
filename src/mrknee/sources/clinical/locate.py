"""Every file of a source, wherever it lies, opened without trusting it.

Names and paths stay inside the program: they may hold a patient's name, so no error tells them.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import cast

from mrknee.errors import DataError, MrkneeError
from mrknee.sources.clinical.archives import (
    MAX_UNPACKED,
    TAR_ERRORS,
    UNPACK,
    ZIP_ERRORS,
    Archive,
    gunzip,
    is_archive,
    is_gzipped,
    open_archive,
)

MAX_FILE_BYTES = 2 * 1024**3
"""A larger file is no MR image: the largest enhanced multi-frame objects have some 100 MB."""
BUFFER_BYTES = 1 << 16
OPEN_ARCHIVES = 8
"""Archives that are kept open at a time; each takes a file handle."""


@dataclass(frozen=True)
class Location:
    """Where one file is.

    Attributes:
        path: on the disk.
        member: its name inside, if that is an archive.
        inner: its name inside the member, if that is an archive too.
    """

    path: Path
    member: str | None = None
    inner: str | None = None

    @property
    def name(self) -> PurePosixPath:
        """The file's path with its archives as folders."""
        whole = PurePosixPath(self.path.as_posix()) / (self.member or "").replace("\\", "/")
        return whole / (self.inner or "").replace("\\", "/")


@dataclass(frozen=True)
class Found:
    """What lies in a source.

    Attributes:
        files: every regular file that may be an image, sorted.
        broken: what can't be looked into (archives, folders, links), and why, in one sentence.
    """

    files: tuple[Location, ...]
    broken: tuple[tuple[Location, str], ...]


def find_files(source: Path) -> Found:
    """Every file below a folder, in an archive, or beside a DICOMDIR.

    Archives inside a folder are looked into, and archives inside those; no deeper. Links to
    folders are not followed.

    Args:
        source: a folder, a zip or tar, a DICOMDIR (the folder it lies in is taken), or a single
            file.

    Raises:
        MrkneeError: no such file or folder, or it is an archive that can't be used.
    """
    if not source.exists():
        raise DataError(
            "the source is not there",
            code="no-source",
            expected="a folder, an archive, a DICOMDIR or an image",
        )
    search = _Search()
    if not source.is_file():
        search.folder(source)
    elif source.name.upper() == "DICOMDIR":
        search.folder(source.parent)
    elif is_archive(PurePosixPath(source.name)) or _is_zip(source):
        search.archive(source)
    else:
        search.files.append(Location(source))
    return Found(tuple(search.files), tuple(search.broken))


@dataclass
class _Search:
    """A search for files, and what it has found so far."""

    files: list[Location] = field(default_factory=list)
    broken: list[tuple[Location, str]] = field(default_factory=list)

    def folder(self, folder: Path) -> None:
        """Everything below a folder, in the order of names."""
        closed: list[Path] = []
        for root, folders, names in os.walk(
            folder, onerror=lambda error: closed.append(Path(str(error.filename)))
        ):
            folders.sort()
            for name in folders:
                if Path(root, name).is_symlink():
                    self._left(Path(root, name), "a link to a folder isn't followed")
            for name in sorted(names):
                if not name.startswith("."):
                    self._file(Path(root, name))
        for path in closed:
            self._left(path, "a folder can't be opened")

    def _left(self, path: Path, reason: str) -> None:
        self.broken.append((Location(path), reason))

    def _file(self, path: Path) -> None:
        if not path.is_file():
            there = path.exists()
            self._left(path, "a pipe or a device is no file" if there else "a link leads nowhere")
        elif is_archive(PurePosixPath(path.name)):
            try:
                self.archive(path)
            except MrkneeError as error:
                self._left(path, in_one_line(error))
        else:
            self.files.append(Location(path))

    def archive(self, path: Path) -> None:
        """Everything in an archive.

        Raises:
            MrkneeError: it can't be read.
        """
        archive = open_archive(path, PurePosixPath(path.name), path.stat().st_size)
        try:
            self._members(Location(path), archive)
        finally:
            archive.close()

    def _members(self, place: Location, archive: Archive) -> None:
        self.broken += [(place, reason) for reason in archive.refused]
        for name in archive.names:
            location = _inside(place, name)
            if not is_archive(location.name):
                self.files.append(location)
            elif location.inner is not None:
                reason = f"an archive lies in an archive in an archive: {UNPACK}"
                self.broken.append((location, reason))
            else:
                try:
                    inner = _open_inner(archive, name)
                    self._members(location, inner)
                    inner.close()
                except MrkneeError as error:
                    self.broken.append((location, in_one_line(error)))


def _inside(place: Location, name: str) -> Location:
    if place.member is None:
        return Location(place.path, name)
    return Location(place.path, place.member, name)


def _open_inner(archive: Archive, name: str) -> Archive:
    """An archive inside another, unpacked in memory.

    Raises:
        MrkneeError: it can't be read, or is too large for that.
    """
    size = archive.size(name)
    try:
        with archive.open(name) as member:
            content = member.read(MAX_UNPACKED + 1)
    except (*ZIP_ERRORS, *TAR_ERRORS):
        raise _damaged() from None
    if max(size, len(content)) > MAX_UNPACKED:
        raise DataError(
            "an archive in an archive is too large",
            code="archive-too-large",
            expected=f"up to {MAX_UNPACKED:,} bytes",
            found=f"{max(size, len(content)):,}",
            advice=UNPACK,
        )
    return open_archive(io.BytesIO(content), PurePosixPath(name), len(content))


def _damaged() -> MrkneeError:
    return DataError(
        "a file in an archive is damaged",
        code="archive",
        advice="copy or download the archive again",
    )


def _is_zip(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except ZIP_ERRORS:
        return True  # a broken one: it has a zip's end, which contradicts itself


def in_one_line(error: MrkneeError) -> str:
    """What is wrong, what was found, what to do."""
    said = f"{error.what}: {error.found}" if error.found else error.what
    return f"{said}; {error.advice}" if error.advice else said


class Opener(ExitStack):
    """Opens files and keeps their archives open in between; a context manager."""

    def __init__(self) -> None:
        super().__init__()
        self._archives: dict[Path, Archive] = {}
        self._inner: tuple[Location, Archive] | None = None
        self.callback(self._close)

    def _close(self) -> None:
        for archive in self._archives.values():
            archive.close()
        if self._inner is not None:
            self._inner[1].close()

    @contextmanager
    def open(self, location: Location) -> Iterator[io.BufferedIOBase]:
        """The file at a location, seekable, of at most `MAX_FILE_BYTES`; unpacked, if gzipped.

        Raises:
            MrkneeError: it can't be opened, is too large, or breaks off while it is read.
        """
        try:
            with self._stored(location) as file:
                yield gunzip(file) if is_gzipped(location.name) else file
        except OSError as error:
            reason = error.strerror or "no access"
            raise DataError("a file can't be opened", code="unreadable", found=reason) from None
        except (*ZIP_ERRORS, *TAR_ERRORS):
            raise _damaged() from None

    @contextmanager
    def _stored(self, location: Location) -> Iterator[io.BufferedIOBase]:
        """The file as it lies there."""
        if location.member is None:
            self._check(location.path.stat().st_size)
            with location.path.open("rb") as file:
                yield file
            return
        archive, name = self._archive(location.path), location.member
        if location.inner is not None:
            archive, name = self._inner_archive(archive, location), location.inner
        self._check(archive.size(name))
        # Seeking back in a zip means unpacking again; the buffer saves most of it.
        with (
            archive.open(name) as member,
            io.BufferedReader(cast(io.RawIOBase, member), BUFFER_BYTES) as buffered,
        ):
            yield buffered

    def _archive(self, path: Path) -> Archive:
        if path not in self._archives:
            while len(self._archives) >= OPEN_ARCHIVES:
                self._archives.pop(next(iter(self._archives))).close()
            archive = open_archive(path, PurePosixPath(path.name), path.stat().st_size)
            self._archives[path] = archive
        return self._archives[path]

    def _inner_archive(self, archive: Archive, location: Location) -> Archive:
        """An archive inside another; the last one is kept, as each takes memory."""
        place = Location(location.path, location.member)
        if self._inner is None or self._inner[0] != place:
            if self._inner is not None:
                self._inner[1].close()
                self._inner = None
            self._inner = (place, _open_inner(archive, location.member or ""))
        return self._inner[1]

    def read(self, location: Location) -> bytes:
        """A file's bytes."""
        with self.open(location) as file:
            return file.read()

    @staticmethod
    def _check(size: int) -> None:
        if size > MAX_FILE_BYTES:
            raise DataError(
                "a file is too large to be an image",
                code="too-large",
                expected=f"up to {MAX_FILE_BYTES:,} bytes",
                found=f"{size:,}",
            )
