"""Zip and tar archives, read member by member without trusting what they say of themselves.

Nothing is ever unpacked to disk, so a member's name can't lead anywhere. What has to be unpacked
as a whole before it can be read (a gzip file, an archive inside another) is unpacked in memory,
up to `MAX_UNPACKED`. Errors name no member: it may hold a patient's name.
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
"""Unpacked to packed size of a whole zip. MR images shrink to a half or a third; a zip bomb grows
a thousandfold."""
FREE_BYTES = 64 * 1024**2
"""A zip that unpacks to less than this may have any ratio: an image of air packs very well."""
MAX_UNPACKED = 256 * 1024**2
"""Of one gzip file, or one archive inside another: about the size of two whole knee studies."""
STEP = 1 << 20
"""Bytes unpacked at a time."""

ZIP_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError),
    *(ValueError, struct.error),  # names that are no text; fields that are cut
)
"""What the standard library raises on a broken, encrypted or unknown kind of zip."""
TAR_ERRORS = (
    *(tarfile.TarError, EOFError, ValueError, OverflowError, struct.error),
    *(RecursionError, MemoryError),  # headers on headers, or of a claimed size
)
"""Likewise on a tar."""

ZIPS, TARS, PACKED_TARS = (".zip",), (".tar",), (".tar.gz", ".tgz")
ARCHIVES = (*ZIPS, *TARS, *PACKED_TARS)
"""Endings of the archives that are read."""
GZIP = b"\x1f\x8b"

TWICE = "two files of an archive have one name: only the last of them is read"
UNPACK = "unpack it yourself and import the folder"


def is_archive(name: PurePosixPath) -> bool:
    """Whether a file's name ends like that of an archive that is read."""
    return name.name.lower().endswith(ARCHIVES)


def is_gzipped(name: PurePosixPath) -> bool:
    """Whether a name is that of one file packed by gzip. A `.nii.gz` is NIfTI's own format."""
    lower = name.name.lower()
    return lower.endswith(".gz") and not lower.endswith((".nii.gz", *PACKED_TARS))


def open_archive(file: Path | io.BufferedIOBase, name: PurePosixPath, size: int) -> Archive:
    """Opens and checks an archive; none of its members is unpacked for that.

    Args:
        file: a path, or an open and seekable file. A packed tar is unpacked in memory.
        name: its ending says which kind it is; a name without one is taken for a zip's.
        size: of the packed archive, in bytes.

    Raises:
        MrkneeError: it is broken, hostile, encrypted, or of a kind that isn't read.
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
    """A file packed by gzip, unpacked in memory.

    Raises:
        MrkneeError: it is damaged or cut, or unpacks to more than `MAX_UNPACKED`.
    """
    unpacked = io.BytesIO()
    try:
        with gzip.GzipFile(fileobj=file) as stream:
            while part := stream.read(STEP):
                unpacked.write(part)
                if unpacked.tell() > MAX_UNPACKED:
                    raise DataError(
                        "a gzip file unpacks to too much",
                        code="archive-too-large",
                        expected=f"up to {MAX_UNPACKED:,} bytes",
                        advice=UNPACK,
                    )
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise DataError(
            "a gzip file is damaged or cut off", code="archive", advice="copy or export it again"
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
            expected=f"{MAX_MEMBERS:,}",
            found=f"{count:,}",
        )


def _is_hidden(name: PurePosixPath) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in name.parts)


class ZipArchive:
    """A zip that has been checked and is open.

    Attributes:
        names: its files, sorted; no folders, no hidden files.
        refused: what in it isn't read and why, one sentence for each member.
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
        self.refused = (TWICE,) * (len(names) - len(self.names))

    def size(self, name: str) -> int:
        """A member's unpacked size in bytes, as the archive says."""
        return self._zip.getinfo(name).file_size

    def open(self, name: str) -> io.BufferedIOBase:
        """A member, seekable; reading it may raise any of `ZIP_ERRORS`."""
        return cast(io.BufferedIOBase, self._zip.open(name))

    def close(self) -> None:
        """Closes it."""
        self._zip.close()


def _zip_members(entries: list[zipfile.ZipInfo], packed: int) -> Iterator[str]:
    """The files of a zip's directory, once all of it is found to be sound."""
    _check_count(len(entries), "zip")
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > FREE_BYTES and unpacked > MAX_RATIO * packed:
        raise DataError(
            "a zip unpacks to far more than images would",
            code="archive-too-large",
            expected=f"up to {MAX_RATIO} times its size",
            found=f"{packed:,} bytes that become {unpacked:,}",
        )
    for entry in entries:
        name = PurePosixPath(entry.filename.replace("\\", "/"))
        if not entry.filename:  # zipfile itself trips over such a member
            raise DataError("a zip can't be read", code="archive", found="a member without a name")
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
            raise DataError(  # LZMA takes as much memory as the file says
                "a zip is packed in an unusual way",
                code="archive",
                expected="stored or deflated members",
                found=f"method {entry.compress_type}",
                advice=UNPACK,
            )
        if not entry.is_dir() and not _is_hidden(name):
            yield entry.filename


class TarArchive:
    """A tar that has been checked and is open: its members are parts of the file.

    Attributes:
        names: its files, sorted; no folders, no hidden files.
        refused: what in it isn't read and why, one sentence for each member.
    """

    def __init__(self, file: io.BufferedIOBase) -> None:
        self._file = file
        try:
            self._tar = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115  # closed by close()
            self._members, refused, ended = _tar_members(self._tar)
            file.seek(self._tar.offset)
            if not ended or file.read(1) != b"\0":  # the end of a tar is a block of zeros
                refused.append("a tar is cut off, or damaged in its middle: copy it again")
        except TAR_ERRORS:
            file.close()
            raise DataError(
                "a tar can't be read", code="archive", found="it is cut off or broken"
            ) from None
        except MrkneeError:
            file.close()
            raise
        self.names = tuple(sorted(self._members))
        self.refused = tuple(refused)

    def size(self, name: str) -> int:
        """A member's unpacked size in bytes, as the archive says."""
        return self._members[name].size

    def open(self, name: str) -> io.BufferedIOBase:
        """A member, seekable; reading it may raise any of `TAR_ERRORS`."""
        member = self._tar.extractfile(self._members[name])
        return cast(io.BufferedIOBase, member)  # a regular file always has one

    def close(self) -> None:
        """Closes it."""
        self._tar.close()
        self._file.close()


def _tar_members(
    tar: tarfile.TarFile,
) -> tuple[dict[str, tarfile.TarInfo], list[str], bool]:
    """A tar's files by name (of two with one name, the last), what else is in it, and its end.

    Returns:
        Files; why others aren't read; whether all of the tar could be gone through.
    """
    members: dict[str, tarfile.TarInfo] = {}
    refused: list[str] = []
    last = -1
    try:
        for count, info in enumerate(tar, start=1):
            _check_count(count, "tar")
            if info.size < 0 or info.offset <= last:  # a header that leads back would never end
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
                    refused.append(TWICE)
                members[info.name] = info
            else:
                refused.append(f"a link, a device or a sparse file in a tar isn't read: {UNPACK}")
    except TAR_ERRORS:
        if last < 0:
            raise
        members = {name: info for name, info in members.items() if info.offset < last}
        return members, refused, False  # the last one is the one that is cut
    return members, refused, True


Archive = ZipArchive | TarArchive
