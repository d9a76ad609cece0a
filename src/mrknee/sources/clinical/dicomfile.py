"""Parsing of one untrusted DICOM file with pydicom.

pydicom reads lazily and leniently. Its warnings and log messages quote values and paths, which may
identify a patient, so they are suppressed; its exceptions become a `MrkneeError` that quotes
nothing from the file.
"""

from __future__ import annotations

import io
import logging
import math
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

import pydicom
from pydicom import config
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.filereader import _read_file_meta_info, dcmread, read_dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, STANDARD_VR

from mrknee.errors import DataError, MrkneeError
from mrknee.sources.clinical.quickfile import QuickDataset

Elements = Dataset | QuickDataset
"""The elements of a file, or of an item of a sequence."""

PREAMBLE, MAGIC = 128, b"DICM"
HEAD = 1024
"""Bytes after the preamble that are examined if the magic is missing."""
FIRST_GROUPS, LAST_GROUP = {2, 8}, 0x7FE0
"""Groups of a file's first element, and of its last one before padding."""
LONGEST_FIRST = 65_536
"""Maximum bytes of a first element with implicit VR; elements of groups 2 and 8 are short."""
VALUE_TYPES = frozenset(vr.value for vr in STANDARD_VR)
MAX_INFLATED = 256 * 1024**2
"""Maximum size of a deflated file after inflation; the largest one-file series have half of it."""
PIXELS = {Tag(0x7FE0, 0x0008), Tag(0x7FE0, 0x0009), Tag(0x7FE0, 0x0010)}


def is_dicom(file: io.BufferedIOBase) -> bool:
    """Returns whether a file is DICOM, by its magic or its first elements; see `_start`."""
    return _start(file) is not None


def _start(file: io.BufferedIOBase) -> int | None:
    """Returns the offset of a file's first element, or None if it is not a DICOM file.

    A file should begin with a preamble of 128 bytes and the magic `DICM`. Old exports, saved
    network streams and truncated files lack one or both; their first element, of group 2 or 8, is
    at the beginning or after the preamble.

    The file position is at the start afterwards.
    """
    head = file.read(PREAMBLE + HEAD)
    file.seek(0)
    if head[PREAMBLE : PREAMBLE + 4] == MAGIC:
        return PREAMBLE + 4
    if head[:4] == MAGIC:
        return 4
    for place in (0, PREAMBLE):
        if _starts_dataset(head[place:]):
            return place
    return None


def _starts_dataset(data: bytes) -> bool:
    """Returns whether bytes are the first two elements of a file, or its only one.

    Type and length of the first element must be possible, and the next element must have a higher
    tag, because elements are in ascending order (PS3.5 7.1).
    """
    for explicit, order in ((True, "<"), (False, "<"), (True, ">")):
        first = _element(data, explicit, order)
        if first is None or first[0] >> 16 not in FIRST_GROUPS:
            continue
        tag, length = first
        if length >= len(data):  # the second element lies beyond the bytes read
            if explicit or length < LONGEST_FIRST:
                return True
            continue
        second = _element(data[length:], explicit, order) or _element(data[length:], False, order)
        if second is None and tag >> 16 == 2:  # little-endian meta information, big-endian dataset
            second = _element(data[length:], True, ">")
        if second is not None and second[0] > tag and second[0] >> 16 <= LAST_GROUP:
            return True
    return False


def _element(data: bytes, explicit: bool, order: str) -> tuple[int, int] | None:
    """Returns an element's tag and its length including tag, VR and length; None if impossible."""
    if len(data) < 8:
        return None
    group, number = struct.unpack_from(f"{order}HH", data)
    if not explicit:
        length = struct.unpack_from(f"{order}I", data, 4)[0]
        return (group << 16 | number, 8 + length) if length < 1 << 31 else None
    kind = data[4:6]
    if not (kind.isalpha() and kind.isupper() and kind.decode("latin-1") in VALUE_TYPES):
        return None
    if kind.decode("latin-1") in EXPLICIT_VR_LENGTH_32:
        if len(data) < 12:
            return None
        return (group << 16 | number, 12 + struct.unpack_from(f"{order}I", data, 8)[0])
    return (group << 16 | number, 8 + struct.unpack_from(f"{order}H", data, 6)[0])


@contextmanager
def untrusted(kind: str = "DICOM") -> Iterator[None]:
    """Runs library code on untrusted input: silences it and turns its exceptions into our own.

    Args:
        kind: kind of file, for the message.

    Raises:
        MrkneeError: the library raised anything. Nothing from the file is quoted.
    """
    mode = config.settings.reading_validation_mode
    config.settings.reading_validation_mode = config.IGNORE
    loggers = [logging.getLogger(name) for name in ("pydicom", "nibabel.global")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except MrkneeError:
        raise
    except MemoryError:
        raise DataError(
            f"a {kind} file states a size that doesn't fit into memory", code="too-large"
        ) from None
    except RecursionError:
        raise DataError(f"a {kind} file nests sequences too deeply", code="dicom") from None
    except Exception as error:
        # pydicom and its decoders raise exceptions of many types
        raise DataError(
            f"a {kind} file can't be read",
            code="dicom",
            found=f"{type(error).__name__} while reading it",
            advice="copy or export the file again",
        ) from None
    finally:
        config.settings.reading_validation_mode = mode
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def parse(file: io.BufferedIOBase, tags: Sequence[BaseTag] | None = None) -> FileDataset:
    """Parses a file; call it inside `untrusted`.

    Args:
        file: seekable file at its start.
        tags: tags of the elements to read; reading then ends before the pixels. None
            reads everything.

    Raises:
        MrkneeError: the file isn't DICOM, or inflates to too many bytes.
    """
    start = _start(file)
    if start is None:
        raise DataError("a file is not a DICOM file", code="not-dicom")
    meta = _read_meta(file, start)
    if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        return _parse_deflated(file, meta, tags)
    file.seek(start)
    if start in (4, PREAMBLE):  # pydicom expects both preamble and magic, or neither
        file = io.BytesIO(file.read())
    else:
        file.seek(0)
    # with a list of tags, pydicom skips all other elements without reading them
    return dcmread(
        cast(BinaryIO, file),
        stop_before_pixels=tags is not None,
        specific_tags=None if tags is None else list(tags),
        force=start != PREAMBLE + 4,
    )


def _read_meta(file: io.BufferedIOBase, start: int) -> FileMetaDataset:
    """Reads the file meta information, if any; the file position is then the dataset's start."""
    file.seek(start)
    # pydicom's public function opens a path and inflates a deflated file without limit
    return _read_file_meta_info(cast(BinaryIO, file))


def _inflated_bytes(packed: bytes) -> int:
    """Counts the bytes that a deflated stream inflates to, stopping just above `MAX_INFLATED`.

    They are counted before inflation because zlib's own buffer may take twice their size.
    """
    unpacker, count, left = zlib.decompressobj(-zlib.MAX_WBITS), 0, packed
    while left and count <= MAX_INFLATED:
        part = unpacker.decompress(left, 2**20)
        count += len(part)
        left = unpacker.unconsumed_tail if part else b""
    return count


def _parse_deflated(
    file: io.BufferedIOBase,
    meta: FileMetaDataset,
    tags: Sequence[BaseTag] | None,
) -> FileDataset:
    """Parses a deflated dataset of limited size; pydicom itself would inflate without limit."""
    packed = file.read()
    if _inflated_bytes(packed) > MAX_INFLATED:
        raise DataError(
            "a deflated DICOM file is too large after inflation",
            code="too-large",
            expected=f"at most {MAX_INFLATED:,} bytes",
        )
    inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed)
    body = read_dataset(
        io.BytesIO(inflated),
        is_implicit_VR=False,
        is_little_endian=True,
        stop_when=None if tags is None else _at_pixels,
        specific_tags=None if tags is None else list(tags),
    )
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(io.BytesIO(), body, b"\0" * PREAMBLE, meta, False, True)
    dataset.set_original_encoding(False, True, body._character_set)
    return dataset


def _at_pixels(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag in PIXELS


def number(dataset: Elements, keyword: str) -> float | None:
    """Returns an element's first value as a finite number, or None."""
    values = numbers(dataset, keyword)
    return values[0] if values else None


def numbers(dataset: Elements, keyword: str) -> tuple[float, ...]:
    """Returns an element's values as numbers; empty if any of them is not a finite number."""
    found = _values(dataset, keyword, float)
    return found if all(math.isfinite(value) for value in found) else ()


def integer(dataset: Elements, keyword: str) -> int | None:
    """Returns an element's first value as an integer, or None."""
    value = number(dataset, keyword)
    return None if value is None else int(value)


def texts(dataset: Elements, keyword: str) -> tuple[str, ...]:
    """Returns an element's non-empty values as stripped, upper-case text."""
    found = _values(dataset, keyword, str)
    return tuple(value.strip(" \0").upper() for value in found if value.strip(" \0"))


def text(dataset: Elements, keyword: str) -> str:
    """Returns an element's first value as upper-case text, or ""."""
    return next(iter(texts(dataset, keyword)), "")


def first_item(dataset: Elements, keyword: str) -> Dataset | None:
    """Returns the first item of a sequence, or None."""
    found = items(dataset, keyword)
    return found[0] if found else None


def items(dataset: Elements, keyword: str) -> Sequence[Dataset]:
    """Returns the items of a sequence; empty if the sequence is missing."""
    tag = tag_for_keyword(keyword)
    if tag is None or tag not in dataset:
        return ()
    try:
        sequence = dataset[tag].value
    except (ValueError, TypeError, AttributeError, NotImplementedError):
        return ()
    return sequence if isinstance(sequence, pydicom.Sequence) else ()


def _values(dataset: Elements, keyword: str, kind: Callable[[Any], Any]) -> tuple[Any, ...]:
    tag = tag_for_keyword(keyword)
    if tag is None or tag not in dataset:  # looking up a missing element is slow in pydicom
        return ()
    try:
        value = dataset[tag].value
        if value is None or isinstance(value, bytes):
            return ()
        several = isinstance(value, (pydicom.multival.MultiValue, list, tuple))
        return tuple(kind(part) for part in (value if several else [value]) if part is not None)
    except (ValueError, TypeError, AttributeError, NotImplementedError, OverflowError):
        return ()  # a value that contradicts its type counts as missing
