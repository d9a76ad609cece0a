"""Quick reading of the headers of ordinary DICOM files.

pydicom spends milliseconds on a header, which is most of the time of an import. Here, the elements
of a file are walked through once, and only the wanted ones are decoded. Whatever isn't entirely
ordinary is left to pydicom: other transfer syntaxes than little endian with a complete header,
sequences among the wanted elements, text that isn't ASCII, and values that contradict their type.
What is read equals what pydicom reads (a test).
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

PREAMBLE, MAGIC = 128, b"DICM"
HEAD_BYTES = 1 << 16
"""Bytes that are read at once; headers have some 5 kB, with private elements up to 100 kB."""
MAX_HEAD_BYTES = 1 << 20
PIXELS = 0x7FE00010
SYNTAX = 0x00020010
UNDEFINED = 0xFFFFFFFF
LONG = frozenset({b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UC", b"UN", b"UR", b"UT"})
"""Value representations with a length of four bytes (PS3.5 7.1.2), except SV and UV."""
SHORT = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN"}
    | {b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"}
)
_EXPLICIT = struct.Struct("<HH2sH")
_IMPLICIT = struct.Struct("<HHI")
_LENGTH = struct.Struct("<I")
_INTEGER = re.compile(rb" *[+-]?[0-9]{1,12} *")
_NUMBER = re.compile(rb" *[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})? *")
_NOT_ASCII = re.compile(rb"[^\n\r\t\x20-\x7e]")
_NUMBERS = {b"US": "H", b"SS": "h", b"UL": "I", b"SL": "i", b"FL": "f", b"FD": "d"}


@dataclass(frozen=True)
class PixelPlace:
    """Where the values of an uncompressed little-endian image with one frame are in its file.

    Attributes:
        offset, length: bytes before the values, and of the values.
    """

    offset: int
    length: int


class _UnusualError(Exception):
    """Something that pydicom has to read."""


@dataclass(frozen=True)
class Element:
    """An element's value, as pydicom would give it."""

    value: Any


class QuickDataset:
    """The wanted elements of a file, with as much of pydicom's interface as is used here.

    Attributes:
        file_meta: the elements of the file meta information; of these, themselves.
        pixels: place of the pixels; None if they are compressed.
    """

    def __init__(
        self,
        elements: Mapping[int, tuple[bytes, bytes]],
        file_meta: QuickDataset | None = None,
        pixels: PixelPlace | None = None,
    ) -> None:
        self._values = {tag: _value(kind, raw) for tag, (kind, raw) in elements.items()}
        self.file_meta = self if file_meta is None else file_meta
        self.pixels = pixels

    def __contains__(self, tag: object) -> bool:
        return _number(tag) in self._values

    def __getitem__(self, tag: object) -> Element:
        return Element(self._values[_number(tag)])

    def get(self, keyword: str, default: object = None) -> Any:  # noqa: ANN401  # any value
        """Returns the value of an element."""
        tag = tag_for_keyword(keyword)
        return default if tag is None else self._values.get(tag, default)


def _number(tag: object) -> int:
    if isinstance(tag, tuple):
        return int(tag[0]) << 16 | int(tag[1])
    return int(tag)  # type: ignore[call-overload,no-any-return]


def read_quickly(file: io.BufferedIOBase, tags: Collection[int]) -> QuickDataset | None:
    """Reads the wanted elements of a file; None if it is anything but ordinary.

    Args:
        file: seekable file at its start, where it is again if the result is None.
        tags: the wanted elements before the pixels.
    """
    head = file.read(HEAD_BYTES)
    try:
        if head[PREAMBLE : PREAMBLE + 4] != MAGIC:
            raise _UnusualError
        return _read(head, tags, file)
    except (_UnusualError, struct.error, ValueError):
        return None
    finally:
        file.seek(0)


def _read(head: bytes, tags: Collection[int], file: io.BufferedIOBase) -> QuickDataset:
    place, elements = PREAMBLE + 4, dict[int, tuple[bytes, bytes]]()
    while head[place : place + 2] == b"\2\0":
        tag, kind, start, length = _explicit(head, place)
        if start + length > len(head):
            raise _UnusualError
        elements[tag] = kind, head[start : start + length]
        place = start + length
    meta = QuickDataset({tag: elements[tag] for tag in elements if tag in (SYNTAX, 0x00020002)})
    syntax = str(meta.get("TransferSyntaxUID") or "")
    explicit = syntax != ImplicitVRLittleEndian
    compressed = syntax not in (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
    if compressed and not syntax.startswith("1.2.840.10008.1.2.4."):
        raise _UnusualError  # big endian, deflated, RLE, unknown
    if not syntax:
        raise _UnusualError
    head_of = _explicit if explicit else _implicit
    found: dict[int, tuple[bytes, bytes]] = {}
    last = 0
    while True:
        if place + 12 > len(head):
            head = _longer(head, file)
        tag, kind, start, length = head_of(head, place)
        if tag <= last or tag > PIXELS:
            raise _UnusualError
        if tag == PIXELS:
            pixels = None if compressed or length == UNDEFINED else PixelPlace(start, length)
            return QuickDataset(found, meta, pixels)
        last = tag
        place = start + length
        if length == UNDEFINED:
            raise _UnusualError
        if tag in tags and length:
            if place > len(head):
                head = _longer(head, file)
            if kind in (b"SQ", b"UN") or place > len(head):
                raise _UnusualError
            if tag >> 16 & 1 and kind in (b"DS", b"IS"):  # read as text, whose form would change
                raise _UnusualError
            found[tag] = kind, head[start:place]


def _longer(head: bytes, file: io.BufferedIOBase) -> bytes:
    if len(head) != HEAD_BYTES:
        raise _UnusualError  # the end of the file, or of the longest header
    return head + file.read(MAX_HEAD_BYTES - HEAD_BYTES)


def _explicit(head: bytes, place: int) -> tuple[int, bytes, int, int]:
    """Returns tag, value representation, start and length of the value."""
    group, number, kind, length = _EXPLICIT.unpack_from(head, place)
    if kind in SHORT:
        return group << 16 | number, kind, place + 8, length
    if kind not in LONG:
        raise _UnusualError
    return group << 16 | number, kind, place + 12, _LENGTH.unpack_from(head, place + 8)[0]


def _implicit(head: bytes, place: int) -> tuple[int, bytes, int, int]:
    group, number, length = _IMPLICIT.unpack_from(head, place)
    tag = group << 16 | number
    kind = b"UN"
    if not group % 2:
        kind = _KINDS.get(tag) or _KINDS.setdefault(tag, _kind_of(tag))
    return tag, kind, place + 8, length


_KINDS: dict[int, bytes] = {}


def _kind_of(tag: int) -> bytes:
    try:
        return dictionary_VR(tag).partition(" or ")[0].encode()  # "US or SS": it is unsigned
    except KeyError:
        return b"UN"


def _value(kind: bytes, raw: bytes) -> Any:  # noqa: ANN401  # of any type
    """Decodes a value that isn't empty."""
    code = _NUMBERS.get(kind)
    if code is not None:
        count, rest = divmod(len(raw), struct.calcsize(code))
        if rest or not count:
            raise _UnusualError
        numbers = struct.unpack(f"<{count}{code}", raw)
        return numbers[0] if count == 1 else list(numbers)
    if kind in (b"OB", b"OW"):
        return raw
    if kind not in _TEXTS:
        raise _UnusualError
    text = raw.rstrip(b"\0 ")
    if _NOT_ASCII.search(text):
        raise _UnusualError
    parts = text.split(b"\\")
    if kind in (b"PN", b"LT", b"ST", b"UT") and (len(parts) > 1 or b"=" in text):
        raise _UnusualError
    if not text:
        return None
    return _many(_TEXTS[kind], parts)


def _many(decode: Callable[[bytes], Any], parts: list[bytes]) -> Any:  # noqa: ANN401
    values = [decode(part) for part in parts]
    return values[0] if len(values) == 1 else values


def _text(part: bytes) -> str:
    return part.rstrip(b"\0 ").decode("ascii")


def _integer(part: bytes) -> int:
    if not _INTEGER.fullmatch(part):
        raise _UnusualError
    return int(part)


def _decimal(part: bytes) -> float:
    if not _NUMBER.fullmatch(part):
        raise _UnusualError
    return float(part)


_TEXTS: Mapping[bytes, Callable[[bytes], Any]] = {
    **dict.fromkeys((b"AE", b"AS", b"CS", b"DA", b"LO", b"SH", b"TM", b"UI", b"PN", b"LT"), _text),
    **dict.fromkeys((b"ST", b"UT"), _text),
    b"IS": _integer,
    b"DS": _decimal,
}
