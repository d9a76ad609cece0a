"""One DICOM file, parsed by pydicom without trusting it.

pydicom reads lazily and leniently. What it warns of and logs quotes values and paths, which may be
a patient's, so that stays inside; whatever it trips over becomes a `MrkneeError` that quotes
nothing.
"""

from __future__ import annotations

import io
import logging
import math
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

from mrknee.errors import MrkneeError

PREAMBLE = 128
MAX_INFLATED = 256 * 1024**2
"""A deflated file may become this large; the largest series in one file are half of it."""
PIXELS = {Tag(0x7FE0, 0x0008), Tag(0x7FE0, 0x0009), Tag(0x7FE0, 0x0010)}


def is_dicom(file: io.BufferedIOBase) -> bool:
    """Whether a file says it is DICOM: by its magic, or by a first element of group 8.

    Old exports have neither preamble nor file meta information; their first element is (0008,xxxx)
    in little endian.
    """
    start = file.read(PREAMBLE + 4)
    file.seek(0)
    if start[PREAMBLE:] == b"DICM":
        return True
    return len(start) > 8 and start[:2] == b"\x08\x00" and start[3:4] == b"\x00"


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
        raise MrkneeError(f"a {kind} file claims more than fits into memory") from None
    except RecursionError:
        raise MrkneeError(f"a {kind} file nests sequences without end") from None
    except Exception as error:
        # any: pydicom and its decoders raise whatever their parts do
        raise MrkneeError(
            f"a {kind} file can't be read",
            found=f"{type(error).__name__} while reading it",
            advice="copy or export the file again",
        ) from None
    finally:
        config.settings.reading_validation_mode = mode
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def parse(file: io.BufferedIOBase, tags: Sequence[str] | None = None) -> FileDataset:
    """Parses a file, inside `untrusted`.

    Args:
        file: seekable, at its start.
        tags: keywords of the elements wanted, and then reading ends before the pixels; None
            reads everything.
    """
    forced = not _has_magic(file)
    if not forced:
        meta = _read_meta(file)
        if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            return _parse_deflated(file, meta, tags)
        file.seek(0)
    # a list of tags makes pydicom skip what is not in it without reading it
    return dcmread(
        cast(BinaryIO, file),
        stop_before_pixels=tags is not None,
        specific_tags=None if tags is None else list(tags),
        force=forced,
    )


def _has_magic(file: io.BufferedIOBase) -> bool:
    start = file.read(PREAMBLE + 4)
    file.seek(0)
    return start[PREAMBLE:] == b"DICM"


def _read_meta(file: io.BufferedIOBase) -> FileMetaDataset:
    """The file meta information; the file is left where the dataset begins."""
    file.seek(PREAMBLE + 4)
    # pydicom's public function opens a path, and unpacks a deflated file without limit
    return _read_file_meta_info(cast(BinaryIO, file))


def _parse_deflated(
    file: io.BufferedIOBase, meta: FileMetaDataset, tags: Sequence[str] | None
) -> FileDataset:
    """A deflated dataset, unpacked up to a limit: pydicom itself would unpack a bomb."""
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = unpacker.decompress(file.read(), MAX_INFLATED)
    if unpacker.unconsumed_tail:
        raise MrkneeError(
            "a deflated DICOM file unpacks to far more than an image would",
            expected=f"up to {MAX_INFLATED:,} bytes",
        )
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
