"""Reading of untrusted zip and tar archives, member by member.

Nothing is unpacked to disk, so a member's name can't point outside. Content that must be unpacked
completely before it can be read (a gzip file, an archive inside another) is unpacked in memory,
up to `MAX_UNPACKED`. Errors name no member, because its name may identify a patient.
"""

from __future__ import annotations

import gzip
import io
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, cast

from mrknee.errors import DataError, MrkneeError

MAX_MEMBERS = 200_000
MAX_RATIO = 200
"""Maximum ratio of unpacked to packed size of a zip. MR images shrink to a half or a third; a zip
bomb grows a thousandfold."""
FREE_BYTES = 64 * 1024**2
"""A zip that unpacks to less than this may have any ratio: an image of air packs very well."""
MAX_UNPACKED = 256 * 1024**2
"""Maximum unpacked size of a gzip file or of an archive inside another: about two knee studies."""
STEP = 1 << 20
"""Bytes unpacked at a time."""

ZIP_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError),
    *(ValueError, struct.error),  # names that can't be decoded; truncated fields
)
"""Exceptions of the standard library for broken, encrypted or unsupported zips."""
TAR_ERRORS = (
    *(tarfile.TarError, EOFError, ValueError, OverflowError, struct.error),
    *(RecursionError, MemoryError),  # nested headers, or a header of excessive size
)
"""Exceptions of the standard library for broken tars."""

ZIPS, TARS, PACKED_TARS = (".zip",), (".tar",), (".tar.gz", ".tgz")
ARCHIVES = (*ZIPS, *TARS, *PACKED_TARS)
"""Endings of the archives that are read."""
GZIP = b"\x1f\x8b"

DUPLICATE_NAME = "two files of an archive have the same name: only the last one is read"
UNPACK = "unpack it yourself and import the folder"


def is_archive(name: PurePosixPath) -> bool:
    """Returns whether a file's name ends like a supported archive's."""
    return name.name.lower().endswith(ARCHIVES)


def is_gzipped(name: PurePosixPath) -> bool:
    """Returns whether a name is that of a single gzip file; `.nii.gz` is NIfTI instead."""
    lower = name.name.lower()
    return lower.endswith(".gz") and not lower.endswith((".nii.gz", *PACKED_TARS))


def open_archive(file: Path | io.BufferedIOBase, name: PurePosixPath, size: int) -> Archive:
    """Opens and checks an archive without unpacking its members.

    Args:
        file: a path, or an open and seekable file. A compressed tar is unpacked in memory.
        name: file name, whose ending determines the format; without a known ending it is a zip.
        size: size of the packed archive, bytes.

    Raises:
        MrkneeError: the archive is broken, unsafe, encrypted, or of an unsupported format.
    """
    lower = name.name.lower()
    try:
        if lower.endswith(PACKED_TARS):
            if isinstance(file, Path):
                with file.open("rb") as packed:
                    return TarArchive(gunzip(packed))
            return TarArchive(gunzip(file))
        if lower.endswith(TARS):
            return TarArchive(file.open("rb") if isinstance(file, Path) else file)
        return ZipArchive(file, size)
    except OSError as error:
        kind = "zip" if lower.endswith(ZIPS) else "tar"
        raise DataError(
            f"a {kind} can't be read", code="archive", found=error.strerror or "no access"
        ) from None


def gunzip(file: io.BufferedIOBase) -> io.BytesIO:
    """Unpacks a gzip file in memory.

    Raises:
        MrkneeError: the file is damaged or truncated, or unpacks to more than `MAX_UNPACKED`.
    """
    unpacked = io.BytesIO()
    try:
        with gzip.GzipFile(fileobj=file) as stream:
            while part := stream.read(STEP):
                unpacked.write(part)
                if unpacked.tell() > MAX_UNPACKED:
                    raise DataError(
                        "a gzip file is too large when unpacked",
                        code="archive-too-large",
                        expected=f"at most {MAX_UNPACKED:,} bytes",
                        advice=UNPACK,
                    )
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise DataError(
            "a gzip file is damaged or truncated", code="archive", advice="copy or export it again"
        ) from None
    unpacked.seek(0)
    return unpacked


def _check_name(name: PurePosixPath, kind: str) -> None:
    if name.is_absolute() or ".." in name.parts or ":" in str(name)[:2]:
        raise DataError(
            f"a {kind} names files outside itself",
            code="archive-unsafe",
            found="an absolute path or ..",
        )


def _check_count(count: int, kind: str) -> None:
    if count > MAX_MEMBERS:
        raise DataError(
            f"a {kind} holds too many files",
            code="archive-too-large",
            expected=f"at most {MAX_MEMBERS:,}",
            found=f"{count:,}",
        )


def _is_hidden(name: PurePosixPath) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in name.parts)


class ZipArchive:
    """An open zip that has been checked.

    Attributes:
        names: names of its files, sorted, without folders and hidden files.
        refused: reasons why members aren't read, one sentence per member.
    """

    def __init__(self, file: Path | io.BufferedIOBase, size: int) -> None:
        try:
            self._zip = zipfile.ZipFile(
                cast(IO[bytes], file) if not isinstance(file, Path) else file
            )
        except ZIP_ERRORS:
            raise DataError(
                "a zip can't be read", code="archive", found="its directory is missing or broken"
            ) from None
        try:
            names = sorted(_zip_members(self._zip.infolist(), size))
        except MrkneeError:
            self._zip.close()
            raise
        self.names = tuple(dict.fromkeys(names))
        self.refused = (DUPLICATE_NAME,) * (len(names) - len(self.names))

    def size(self, name: str) -> int:
        """Returns a member's unpacked size in bytes, as stated by the archive."""
        return self._zip.getinfo(name).file_size

    def open(self, name: str) -> io.BufferedIOBase:
        """Opens a member as a seekable file; reading it may raise any of `ZIP_ERRORS`."""
        return cast(io.BufferedIOBase, self._zip.open(name))

    def close(self) -> None:
        """Closes the archive."""
        self._zip.close()


def _zip_members(entries: list[zipfile.ZipInfo], packed: int) -> Iterator[str]:
    """Checks the directory of a zip and yields the names of its files."""
    _check_count(len(entries), "zip")
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > FREE_BYTES and unpacked > MAX_RATIO * packed:
        raise DataError(
            "a zip is too large when unpacked",
            code="archive-too-large",
            expected=f"at most {MAX_RATIO} times its size",
            found=f"{packed:,} bytes that unpack to {unpacked:,}",
        )
    for entry in entries:
        name = PurePosixPath(entry.filename.replace("\\", "/"))
        if not entry.filename:  # zipfile fails on such a member
            raise DataError("a zip can't be read", code="archive", found="a member without a name")
        if entry.header_offset < 0:  # reading it would be an OSError, as if the disk had failed
            raise DataError(
                "a zip can't be read",
                code="archive",
                found="its directory states a member before the file's beginning",
            )
        _check_name(name, "zip")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise DataError(
                "a zip holds symbolic links", code="archive-unsafe", found="a link to another file"
            )
        if entry.flag_bits & 1:
            raise DataError(
                "a zip is encrypted",
                code="archive",
                found="a member that needs a password",
                advice=UNPACK,
            )
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(  # LZMA takes as much memory as the file states
                "a zip uses an unsupported compression method",
                code="archive",
                expected="stored or deflated members",
                found=f"method {entry.compress_type}",
                advice=UNPACK,
            )
        if not entry.is_dir() and not _is_hidden(name):
            yield entry.filename


class TarArchive:
    """An open tar that has been checked; its members are parts of the file.

    Attributes:
        names: names of its files, sorted, without folders and hidden files.
        refused: reasons why members aren't read, one sentence per member.
    """

    def __init__(self, file: io.BufferedIOBase) -> None:
        self._file = file
        try:
            self._tar = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115  # closed by close()
            self._members, refused, ended = _tar_members(self._tar)
            file.seek(self._tar.offset)
            if not ended or file.read(1) != b"\0":  # the end of a tar is a block of zeros
                refused.append("a tar is truncated or damaged: copy it again")
        except TAR_ERRORS:
            file.close()
            raise DataError(
                "a tar can't be read", code="archive", found="it is truncated or broken"
            ) from None
        except MrkneeError:
            file.close()
            raise
        self.names = tuple(sorted(self._members))
        self.refused = tuple(refused)

    def size(self, name: str) -> int:
        """Returns a member's unpacked size in bytes, as stated by the archive."""
        return self._members[name].size

    def open(self, name: str) -> io.BufferedIOBase:
        """Opens a member as a seekable file; reading it may raise any of `TAR_ERRORS`."""
        member = self._tar.extractfile(self._members[name])
        return cast(io.BufferedIOBase, member)  # a regular file always has one

    def close(self) -> None:
        """Closes the archive."""
        self._tar.close()
        self._file.close()


def _tar_members(
    tar: tarfile.TarFile,
) -> tuple[dict[str, tarfile.TarInfo], list[str], bool]:
    """Checks the members of a tar.

    Returns:
        Files by name (the last one of equal names); reasons why other members aren't read;
        whether the tar could be read to its end.
    """
    members: dict[str, tarfile.TarInfo] = {}
    refused: list[str] = []
    last = -1
    try:
        for count, info in enumerate(tar, start=1):
            _check_count(count, "tar")
            if info.size < 0 or info.offset <= last:  # an offset that goes back would never end
                raise DataError(
                    "a tar can't be read", code="archive", found="a member of impossible size"
                )
            last = info.offset
            name = PurePosixPath(info.name.replace("\\", "/"))
            _check_name(name, "tar")
            if info.isdir() or _is_hidden(name):
                continue
            if info.isreg() and not info.issparse():
                if info.name in members:
                    refused.append(DUPLICATE_NAME)
                members[info.name] = info
            else:
                refused.append(f"links, devices and sparse files in a tar aren't read: {UNPACK}")
    except TAR_ERRORS:
        if last < 0:
            raise
        members = {name: info for name, info in members.items() if info.offset < last}
        return members, refused, False  # the last member is truncated
    return members, refused, True


Archive = ZipArchive | TarArchive
