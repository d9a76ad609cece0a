"""Malformed tar and gzip files and nested archives, each the source of one import."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from tests.hostile.case import PICKLE, Case, content
from tests.hostile.studies import GOOD_DICOM, zipped


def tarred(*members: tuple[str | tarfile.TarInfo, bytes], kind: int = tarfile.PAX_FORMAT) -> bytes:
    """Returns a tar with these members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as archive:
        for member, data in members:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def cases() -> Iterator[Case]:
    """Yields all cases."""
    yield from _tars()
    yield from _gzips()
    yield from _nested()


def _tars() -> Iterator[Case]:
    def case(name: str, data: bytes, message: str = "") -> Case:
        return Case("import", f"tar, {name}", content(data, ".tar"), message)

    good = tarred(("a.dcm", GOOD_DICOM))
    for place in (0, 100, 511, 512, 513, 1000, len(GOOD_DICOM) // 2, 512 + len(GOOD_DICOM) - 1):
        yield case(f"cut at byte {place}", good[:place])
    yield case("zeros", bytes(20_000))
    yield case("noise", b"\xa5\x5a\x91" * 9000)
    yield case("a pickle", PICKLE)
    yield case("a pickle in it", tarred(("a.dcm", PICKLE)))
    for name in ("../escaped.dcm", "a/../../escaped.dcm", "/etc/escaped.dcm", "C:\\escaped.dcm"):
        yield case(f"a member {name}", tarred((name, GOOD_DICOM)), "outside itself")
    for name, kind in (
        ("a symbolic link", tarfile.SYMTYPE),
        ("a hard link", tarfile.LNKTYPE),
        ("a device", tarfile.CHRTYPE),
        ("a pipe", tarfile.FIFOTYPE),
    ):
        info = tarfile.TarInfo("a.dcm")
        info.type, info.linkname = kind, "/etc/passwd"
        yield case(name, tarred((info, b"")), "aren't read")
    for name, size in (
        ("a size of 8 GB", b"77777777777\0"),
        ("a negative size", b"\xff" * 4 + (-1024).to_bytes(8, "big", signed=True)),
        ("a size of 88 one bits", b"\x80" + b"\xff" * 11),
        ("a size that is not a number", b"knee\0\0\0\0\0\0\0\0"),
    ):
        changed = bytearray(good)
        changed[124:136] = size
        changed[148:156] = b" " * 8
        changed[148:156] = b"%06o\0 " % sum(changed[:512])
        yield case(name, bytes(changed))
    header = tarfile.TarInfo("x")
    header.type = tarfile.XHDTYPE
    yield case("5000 headers in a row", tarred(*[(header, b"11 path=knee\n")] * 5000))
    header.pax_headers = {}
    yield case("a header of nonsense", tarred((header, b"9999999 path=" + b"k" * 5000)))
    sparse = b"".join(
        b"%d %s=%s\n" % (len(key) + len(value) + 5, key, value)
        for key, value in ((b"GNU.sparse.major", b"1"), (b"GNU.sparse.realsize", b"9" * 12))
    )
    yield case(
        "a sparse file of 10^12 bytes", tarred((header, sparse), ("a.dcm", GOOD_DICOM[:600]))
    )


def _gzips() -> Iterator[Case]:
    def case(name: str, data: bytes, message: str = "", ending: str = ".dcm.gz") -> Case:
        return Case("import", f"gzip, {name}", content(data, ending), message)

    packed = gzip.compress(GOOD_DICOM, 1)
    for ending in (".dcm.gz", ".tar.gz"):
        for place in (0, 1, 9, 12, len(packed) // 2, len(packed) - 1):
            yield case(f"{ending} cut at byte {place}", packed[:place], ending=ending)
        yield case(f"{ending} of nonsense", packed[:12] + b"\xff" * 1000, ending=ending)
        yield case(f"{ending} of a pickle", gzip.compress(PICKLE), ending=ending)

        def bomb(path: Path, ending: str = ending) -> None:
            with gzip.open(path.with_name(path.name + ending), "wb", 1) as file:
                for _ in range(260):
                    file.write(bytes(2**20))

        yield Case("import", f"gzip, {ending} of a bomb", bomb, "too large when unpacked")
    wrong = bytearray(packed)
    wrong[-8:-4] = b"\0\0\0\0"
    yield case("a wrong checksum", bytes(wrong), "damaged")


def _nested() -> Iterator[Case]:
    def case(name: str, data: bytes, message: str = "") -> Case:
        return Case("import", f"zip in a zip, {name}", content(data, ".zip"), message)

    inner = zipped(("a.dcm", GOOD_DICOM))
    yield case("in a zip", zipped(("2.zip", zipped(("1.zip", inner)))), "an archive is nested")
    yield case("cut", zipped(("1.zip", inner[: len(inner) // 2])))
    outer = zipped(("1.zip", inner))  # its directory is stated 10 bytes after its place
    shifted = outer[:-6] + (int.from_bytes(outer[-6:-2], "little") + 10).to_bytes(4, "little")
    yield case("before the start of the file", shifted + outer[-2:], "before the file's beginning")
    yield case("of text", zipped(("1.zip", b"PK is no zip")))
    bomb = zipped(("a.dcm", bytes(80 * 2**20)), kind=zipfile.ZIP_DEFLATED)
    yield case("of a bomb", zipped(("1.zip", bomb)), "too large when unpacked")
    yield case("of an escape", zipped(("1.zip", zipped(("../a.dcm", b"1")))), "outside itself")
    yield case("of a tar of an escape", zipped(("1.tar", tarred(("/a", b"1")))), "outside")
