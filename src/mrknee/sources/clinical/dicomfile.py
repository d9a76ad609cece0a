"""One DICOM file, parsed by pydicom without trusting it.

pydicom reads lazily and leniently. What it warns of and logs quotes values and paths, which may be
a patient's, so that stays inside; whatever it trips over becomes a `MrkneeError` that quotes
nothing.
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

PREAMBLE, MAGIC = 128, b"DICM"
HEAD = 1024
"""Bytes behind the preamble that are looked at where there is no magic."""
FIRST_GROUPS, LAST_GROUP = {2, 8}, 0x7FE0
"""Groups of a file's first element, and of its last one but padding."""
LONGEST_FIRST = 65_536
"""Bytes of a first element without a type; those of groups 2 and 8 are short."""
VALUE_TYPES = frozenset(vr.value for vr in STANDARD_VR)
MAX_INFLATED = 256 * 1024**2
"""A deflated file may become this large; the largest series in one file are half of it."""
PIXELS = {Tag(0x7FE0, 0x0008), Tag(0x7FE0, 0x0009), Tag(0x7FE0, 0x0010)}


def is_dicom(file: io.BufferedIOBase) -> bool:
    """Whether a file is DICOM, by its magic or by how it begins; see `_start`."""
    return _start(file) is not None


def _start(file: io.BufferedIOBase) -> int | None:
    """Where a file's first element lies, or None where it is no DICOM file.

    A file should begin with a preamble of 128 bytes and the magic `DICM`. Old exports, streams
    saved from the network and files that lost their head have neither, or one of the two: their
    first element, of group 2 or 8, is at the beginning or where the preamble ends.

    The file is left at its start.
    """
    head = file.read(PREAMBLE + HEAD)
    file.seek(0)
    if head[PREAMBLE : PREAMBLE + 4] == MAGIC:
        return PREAMBLE + 4
    if head[:4] == MAGIC:
        return 4
    for place in (0, PREAMBLE):
        if _begins(head[place:]):
            return place
    return None


def _begins(data: bytes) -> bool:
    """Whether bytes are the first two elements of a file, or its only one.

    An element is taken for one where its type and length are possible and the element behind it
    has a higher tag, as they must be in ascending order (PS3.5 7.1).
    """
    for explicit, order in ((True, "<"), (False, "<"), (True, ">")):
        first = _element(data, explicit, order)
        if first is None or first[0] >> 16 not in FIRST_GROUPS:
            continue
        tag, length = first
        if length >= len(data):  # the second element lies farther back than was read
            if explicit or length < LONGEST_FIRST:
                return True
            continue
        second = _element(data[length:], explicit, order) or _element(data[length:], False, order)
        if second is None and tag >> 16 == 2:  # a head in explicit, a body of the other order
            second = _element(data[length:], True, ">")
        if second is not None and second[0] > tag and second[0] >> 16 <= LAST_GROUP:
            return True
    return False


def _element(data: bytes, explicit: bool, order: str) -> tuple[int, int] | None:
    """An element's tag, and its length with its own head; None where it can't be one."""
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
    """A library at work: nothing it says gets out, and whatever it raises becomes our own error.

    Args:
        kind: of file, named in the error.
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
            f"a {kind} file claims more than fits into memory", code="too-large"
        ) from None
    except RecursionError:
        raise DataError(f"a {kind} file nests sequences without end", code="dicom") from None
    except Exception as error:
        # any: pydicom and its decoders raise whatever their parts do
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


def parse(
    file: io.BufferedIOBase, tags: Sequence[str | tuple[int, int]] | None = None
) -> FileDataset:
    """Parses a file, inside `untrusted`.

    Args:
        file: seekable, at its start.
        tags: keywords or numbers of the elements wanted, and then reading ends before the
            pixels; None reads everything.
    """
    start = _start(file)
    if start is None:
        raise DataError("a file is no DICOM file", code="not-dicom")
    meta = _read_meta(file, start)
    if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        return _parse_deflated(file, meta, tags)
    file.seek(start)
    if start in (4, PREAMBLE):  # pydicom knows files with all of the head, and with none of it
        file = io.BytesIO(file.read())
    else:
        file.seek(0)
    # a list of tags makes pydicom skip what is not in it without reading it
    return dcmread(
        cast(BinaryIO, file),
        stop_before_pixels=tags is not None,
        specific_tags=None if tags is None else [Tag(tag) for tag in tags],
        force=start != PREAMBLE + 4,
    )


def _read_meta(file: io.BufferedIOBase, start: int) -> FileMetaDataset:
    """The file meta information, if any; the file is left where the dataset begins."""
    file.seek(start)
    # pydicom's public function opens a path, and unpacks a deflated file without limit
    return _read_file_meta_info(cast(BinaryIO, file))


def _inflated_bytes(packed: bytes) -> int:
    """How much a deflated stream unpacks to, counted up to a little more than `MAX_INFLATED`.

    Counted before it is unpacked: zlib's own buffer may take twice what it holds.
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
    tags: Sequence[str | tuple[int, int]] | None,
) -> FileDataset:
    """A deflated dataset, unpacked up to a limit: pydicom itself would unpack a bomb."""
    packed = file.read()
    if _inflated_bytes(packed) > MAX_INFLATED:
        raise DataError(
            "a deflated DICOM file unpacks to far more than an image would",
            code="too-large",
            expected=f"up to {MAX_INFLATED:,} bytes",
        )
    inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed)
    body = read_dataset(
        io.BytesIO(inflated),
        is_implicit_VR=False,
        is_little_endian=True,
        stop_when=None if tags is None else _at_pixels,
        specific_tags=None if tags is None else [Tag(tag) for tag in tags],
    )
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(io.BytesIO(), body, b"\0" * PREAMBLE, meta, False, True)
    dataset.set_original_encoding(False, True, body._character_set)
    return dataset


def _at_pixels(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag in PIXELS


def number(dataset: Dataset, keyword: str) -> float | None:
    """An element's first value as a finite number, or None."""
    values = numbers(dataset, keyword)
    return values[0] if values else None


def numbers(dataset: Dataset, keyword: str) -> tuple[float, ...]:
    """An element's values as numbers; nothing where one of them is none, or isn't finite."""
    found = _values(dataset, keyword, float)
    return found if all(math.isfinite(value) for value in found) else ()


def whole(dataset: Dataset, keyword: str) -> int | None:
    """An element's first value as a whole number, or None."""
    value = number(dataset, keyword)
    return None if value is None else int(value)


def texts(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    """An element's values as text without spaces around, upper case; empty ones are left out."""
    found = _values(dataset, keyword, str)
    return tuple(value.strip(" \0").upper() for value in found if value.strip(" \0"))


def text(dataset: Dataset, keyword: str) -> str:
    """An element's first value as text, upper case; "" where there is none."""
    return next(iter(texts(dataset, keyword)), "")


def first_item(dataset: Dataset, keyword: str) -> Dataset | None:
    """The first item of a sequence, or None."""
    found = items(dataset, keyword)
    return found[0] if found else None


def items(dataset: Dataset, keyword: str) -> Sequence[Dataset]:
    """The items of a sequence; none where there is no such sequence."""
    tag = tag_for_keyword(keyword)
    if tag is None or tag not in dataset:
        return ()
    try:
        sequence = dataset[tag].value
    except (ValueError, TypeError, AttributeError, NotImplementedError):
        return ()
    return sequence if isinstance(sequence, pydicom.Sequence) else ()


def _values(dataset: Dataset, keyword: str, kind: Callable[[Any], Any]) -> tuple[Any, ...]:
    tag = tag_for_keyword(keyword)
    if tag is None or tag not in dataset:  # asking for what isn't there costs pydicom far more
        return ()
    try:
        value = dataset[tag].value
        if value is None or isinstance(value, bytes):
            return ()
        several = isinstance(value, (pydicom.multival.MultiValue, list, tuple))
        return tuple(kind(part) for part in (value if several else [value]) if part is not None)
    except (ValueError, TypeError, AttributeError, NotImplementedError, OverflowError):
        return ()  # a value that isn't what its type says is as good as none
