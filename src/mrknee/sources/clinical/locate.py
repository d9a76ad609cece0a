"""Every file of a source, wherever it lies, opened without trusting it.

Names and paths stay inside the program: they may hold a patient's name, so no error tells them.
Nothing is ever unpacked to disk, so a name in a zip can't lead anywhere.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import cast

from mrknee.errors import MrkneeError

MAX_FILE_BYTES = 2 * 1024**3
"""A larger file is no MR image: the largest enhanced multi-frame objects have some 100 MB."""
MAX_MEMBERS = 200_000
MAX_RATIO = 200
"""Unpacked to packed size of a whole zip. MR images shrink to a half or a third; a zip bomb grows
a thousandfold."""
FREE_BYTES = 64 * 1024**2
"""A zip that unpacks to less than this may have any ratio: an image of air packs very well."""
BUFFER_BYTES = 1 << 16

ZIP_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError),
    *(ValueError, struct.error),  # names that are no text; fields that are cut
)
"""What the standard library raises on a broken, encrypted or unknown kind of zip."""


@dataclass(frozen=True)
class Location:
    """Where one file is: a path, and its name inside if that is a zip."""

    path: Path
    member: str | None = None

    @property
    def name(self) -> PurePosixPath:
        """The file's path with its zip as a folder."""
        return PurePosixPath(self.path.as_posix()) / (self.member or "")


@dataclass(frozen=True)
class Found:
    """What lies in a source.

    Attributes:
        files: every regular file that may be an image, sorted.
        broken: zips in a folder that can't be read: what is wrong, one sentence each.
    """

    files: tuple[Location, ...]
    broken: tuple[str, ...]


def find_files(source: Path) -> Found:
    """Every file below a folder, in a zip, or beside a DICOMDIR.

    Zips inside a folder are looked into, zips inside zips are not. Links to folders are not
    followed.

    Args:
        source: a folder, a zip, a DICOMDIR (the folder it lies in is taken), or a single file.

    Raises:
        MrkneeError: no such file or folder, or it is a zip that can't be used.
    """
    if not source.exists():
        raise MrkneeError(
            "the source is not there", expected="a folder, a zip, a DICOMDIR or an image"
        )
    if source.is_file():
        if source.name.upper() == "DICOMDIR":
            source = source.parent
        elif _is_zip(source):
            return Found(tuple(_members(source)), ())
        elif source.suffix.lower() == ".zip":
            raise MrkneeError("a zip can't be read", found="its directory is missing or broken")
        else:
            return Found((Location(source),), ())
    files: list[Location] = []
    broken: list[str] = []
    for path in _walk(source):
        if path.suffix.lower() != ".zip":
            files.append(Location(path))
            continue
        try:
            files.extend(_members(path))
        except MrkneeError as error:
            broken.append(f"{error.what}: {error.found}")
    return Found(tuple(files), tuple(broken))


def _walk(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(root, name)
            if not name.startswith(".") and path.is_file():
                yield path


def _is_zip(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except ZIP_ERRORS:
        return True  # a broken one: it has a zip's end, which contradicts itself


def _members(path: Path) -> list[Location]:
    """A zip's files, after a look at its directory: nothing is unpacked yet."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except OSError as error:
        raise MrkneeError("a zip can't be read", found=error.strerror or "no access") from None
    except ZIP_ERRORS:
        raise MrkneeError(
            "a zip can't be read", found="its directory is missing or broken"
        ) from None
    if len(entries) > MAX_MEMBERS:
        raise MrkneeError(
            "a zip holds too many files", expected=f"{MAX_MEMBERS:,}", found=f"{len(entries):,}"
        )
    unpacked = sum(entry.file_size for entry in entries)
    packed = path.stat().st_size
    if unpacked > FREE_BYTES and unpacked > MAX_RATIO * packed:
        raise MrkneeError(
            "a zip unpacks to far more than images would",
            expected=f"up to {MAX_RATIO} times its size",
            found=f"{packed:,} bytes that become {unpacked:,}",
        )
    members = []
    for entry in entries:
        name = PurePosixPath(entry.filename.replace("\\", "/"))
        if not entry.filename:  # zipfile itself trips over such a member
            raise MrkneeError("a zip can't be read", found="a member without a name")
        if name.is_absolute() or ".." in name.parts or ":" in str(name)[:2]:
            raise MrkneeError("a zip names files outside itself", found="an absolute path or ..")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise MrkneeError("a zip holds symbolic links", found="a link to another file")
        if entry.flag_bits & 1:
            raise MrkneeError(
                "a zip is encrypted",
                found="a member that needs a password",
                advice="unpack it yourself and import the folder",
            )
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise MrkneeError(  # LZMA takes as much memory as the file says
                "a zip is packed in an unusual way",
                expected="stored or deflated members",
                found=f"method {entry.compress_type}",
                advice="unpack it yourself and import the folder",
            )
        hidden = any(part.startswith((".", "__MACOSX")) for part in name.parts)
        if not entry.is_dir() and not hidden:
            members.append(Location(path, entry.filename))
    return sorted(members, key=lambda location: location.member or "")


class Opener(ExitStack):
    """Opens files and keeps their zips open in between; a context manager."""

    def __init__(self) -> None:
        super().__init__()
        self._zips: dict[Path, zipfile.ZipFile] = {}

    @contextmanager
    def open(self, location: Location) -> Iterator[io.BufferedIOBase]:
        """The file at a location, seekable, of at most `MAX_FILE_BYTES`.

        Raises:
            MrkneeError: it can't be opened, is too large, or breaks off while it is read.
        """
        try:
            if location.member is None:
                self._check(location.path.stat().st_size)
                with location.path.open("rb") as file:
                    yield file
                return
            if location.path not in self._zips:
                opened = self.enter_context(zipfile.ZipFile(location.path))
                self._zips[location.path] = opened
            archive = self._zips[location.path]
            self._check(archive.getinfo(location.member).file_size)
            # Seeking back in a zip means unpacking again; the buffer saves most of it.
            with (
                archive.open(location.member) as member,
                io.BufferedReader(cast(io.RawIOBase, member), BUFFER_BYTES) as buffered,
            ):
                yield buffered
        except OSError as error:
            reason = error.strerror or "no access"
            raise MrkneeError("a file can't be opened", found=reason) from None
        except ZIP_ERRORS:
            raise MrkneeError(
                "a file in a zip is damaged", advice="copy or download the zip again"
            ) from None

    def read(self, location: Location) -> bytes:
        """A file's bytes."""
        with self.open(location) as file:
            return file.read()

    @staticmethod
    def _check(size: int) -> None:
        if size > MAX_FILE_BYTES:
            raise MrkneeError(
                "a file is too large to be an image",
                expected=f"up to {MAX_FILE_BYTES:,} bytes",
                found=f"{size:,}",
            )
