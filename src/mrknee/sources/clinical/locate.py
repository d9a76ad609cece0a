"""Search for the files of a source, in folders and archives, and opening of untrusted files.

Names and paths may identify a patient, so errors don't contain them.
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
from mrknee.files import exists
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
"""Maximum file size: the largest enhanced multi-frame objects have some 100 MB."""
BUFFER_BYTES = 1 << 16
OPEN_ARCHIVES = 8
"""Maximum number of archives kept open; each takes a file handle."""


@dataclass(frozen=True)
class Location:
    """Location of one file.

    Attributes:
        path: path on disk, of the file or its archive.
        member: name of the member, if `path` is an archive.
        inner: name within the member, if the member is an archive too.
    """

    path: Path
    member: str | None = None
    inner: str | None = None

    @property
    def name(self) -> PurePosixPath:
        """Path of the file, with archives as folders."""
        outer = PurePosixPath(self.path.as_posix()) / (self.member or "").replace("\\", "/")
        return outer / (self.inner or "").replace("\\", "/")

    def below(self, source: Path) -> PurePosixPath:
        """Returns the path within a source, which doesn't depend on where the source lies.

        Args:
            source: a folder, an archive, or a file in the folder of which files were searched.
        """
        name, root = self.name, PurePosixPath(source.as_posix())
        for parent in (root, root.parent):
            if name != parent and name.is_relative_to(parent):
                return name.relative_to(parent)
        return name


@dataclass(frozen=True)
class Found:
    """Content of a source.

    Attributes:
        files: all regular files, sorted.
        broken: archives, folders and links that can't be opened, each with its reason.
    """

    files: tuple[Location, ...]
    broken: tuple[tuple[Location, str], ...]


def find_files(source: Path) -> Found:
    """Finds all files below a folder, in an archive, or in the folder of a DICOMDIR.

    Archives inside a folder are searched, and archives inside these, but not deeper. Links to
    folders are not followed.

    Args:
        source: a folder, a zip or tar, a DICOMDIR (its folder is searched), or a single file.

    Raises:
        MrkneeError: the source doesn't exist, or is an archive that can't be read.
    """
    if not exists(source):
        raise DataError(
            "the source doesn't exist",
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
    """State of a search for files."""

    files: list[Location] = field(default_factory=list)
    broken: list[tuple[Location, str]] = field(default_factory=list)

    def folder(self, folder: Path) -> None:
        """Adds everything below a folder, in the order of names."""
        closed: list[Path] = []
        for root, folders, names in os.walk(
            folder, onerror=lambda error: closed.append(Path(str(error.filename)))
        ):
            folders.sort()
            for name in folders:
                if Path(root, name).is_symlink():
                    self._leave_out(Path(root, name), "a link to a folder isn't followed")
            for name in sorted(names):
                if not name.startswith("."):
                    self._file(Path(root, name))
        for path in closed:
            self._leave_out(path, "a folder can't be opened")

    def _leave_out(self, path: Path, reason: str) -> None:
        self.broken.append((Location(path), reason))

    def _file(self, path: Path) -> None:
        if not path.is_file():
            reason = "a pipe or a device, not a file" if path.exists() else "a broken link"
            self._leave_out(path, reason)
        elif is_archive(PurePosixPath(path.name)):
            try:
                self.archive(path)
            except MrkneeError as error:
                self._leave_out(path, in_one_line(error))
        else:
            self.files.append(Location(path))

    def archive(self, path: Path) -> None:
        """Adds everything in an archive.

        Raises:
            MrkneeError: the archive can't be read.
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
                reason = f"an archive is nested too deeply in other archives: {UNPACK}"
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
    """Unpacks an archive inside another in memory and opens it.

    Raises:
        MrkneeError: the archive can't be read, or is too large.
    """
    size = archive.size(name)
    try:
        with archive.open(name) as member:
            content = member.read(MAX_UNPACKED + 1)
    except OSError as error:
        reason = error.strerror or "no access"
        raise DataError("a file can't be opened", code="unreadable", found=reason) from None
    except (*ZIP_ERRORS, *TAR_ERRORS):
        raise _damaged() from None
    if max(size, len(content)) > MAX_UNPACKED:
        raise DataError(
            "an archive in an archive is too large",
            code="archive-too-large",
            expected=f"at most {MAX_UNPACKED:,} bytes",
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
        return True  # a broken zip, whose end record contradicts itself


def in_one_line(error: MrkneeError) -> str:
    """Returns an error's message, finding and advice in one line."""
    line = f"{error.what}: {error.found}" if error.found else error.what
    return f"{line}; {error.advice}" if error.advice else line


class Opener(ExitStack):
    """Context manager that opens files and keeps their archives open in between."""

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
        """Opens a file of at most `MAX_FILE_BYTES` as a seekable file; gunzips it if necessary.

        Raises:
            MrkneeError: the file can't be opened, is too large, or fails while it is read.
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
        """Opens a file as it is stored, without gunzip."""
        if location.member is None:
            self._check(location.path.stat().st_size)
            with location.path.open("rb") as file:
                yield file
            return
        archive, name = self._archive(location.path), location.member
        if location.inner is not None:
            archive, name = self._inner_archive(archive, location), location.inner
        self._check(archive.size(name))
        # Seeking back in a zip means unpacking again; the buffer avoids most of it.
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
        """Returns an archive inside another; only the last one is kept, as each takes memory."""
        place = Location(location.path, location.member)
        if self._inner is None or self._inner[0] != place:
            if self._inner is not None:
                self._inner[1].close()
                self._inner = None
            self._inner = (place, _open_inner(archive, location.member or ""))
        return self._inner[1]

    def read(self, location: Location) -> bytes:
        """Reads a complete file."""
        with self.open(location) as file:
            return file.read()

    @staticmethod
    def _check(size: int) -> None:
        if size > MAX_FILE_BYTES:
            raise DataError(
                "a file is too large to be an image",
                code="too-large",
                expected=f"at most {MAX_FILE_BYTES:,} bytes",
                found=f"{size:,}",
            )
