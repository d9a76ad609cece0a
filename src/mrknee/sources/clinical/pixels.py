"""Decoding of the grey values of a chosen series, for every transfer syntax of MR.

Sizes in an untrusted header are compared with the actual bytes, and with the header of the
compressed stream, before a decoder is called.
"""

from __future__ import annotations

import os
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby

import numpy as np
from jaxtyping import Float32, UInt16
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from mrknee.errors import DataError
from mrknee.sources.clinical.completeness import refuse_large_holes
from mrknee.sources.clinical.dicomfile import parse, text, untrusted
from mrknee.sources.clinical.geometry import Volume
from mrknee.sources.clinical.header import Image
from mrknee.sources.clinical.locate import Opener
from mrknee.sources.clinical.mosaic import looks_tiled, mosaic_reason
from mrknee.sources.clinical.series import Series
from mrknee.sources.clinical.stored_values import Raw, real_values

MAX_VOXELS = 100_000_000
"""Maximum of one series. 512 x 512 x 300, an isotropic 3-D sequence, has 79 million."""

# pydicom's plugins per transfer syntax, in the order in which they are tried. All have BSD, MIT or
# Apache licences.
PLUGINS: dict[str, tuple[str, ...]] = {
    RLELossless: ("pydicom",),
    **dict.fromkeys((JPEGBaseline8Bit, JPEGExtended12Bit), ("gdcm", "pillow")),
    **dict.fromkeys((JPEGLossless, JPEGLosslessSV1), ("gdcm",)),
    **dict.fromkeys((JPEGLSLossless, JPEGLSNearLossless), ("pyjpegls", "gdcm")),
    **dict.fromkeys((JPEG2000, JPEG2000Lossless), ("pylibjpeg", "gdcm", "pillow")),
    **dict.fromkeys((HTJ2K, HTJ2KLossless, HTJ2KLosslessRPCL), ("pylibjpeg",)),
}

PIXEL_TAG = b"\xe0\x7f\x10\x00"

COMPLAINTS = (b"JPEG", b"Huffman", b"marker", b"arithmetic code")
"""Words of libjpeg's warnings (its jerror.h)."""
ESCAPE = b"\x1b"
"""Byte that occurs in the output of a progress bar."""

FOREIGN = frozenset(syntax for syntax, names in PLUGINS.items() if names != ("pydicom",))
"""Transfer syntaxes decoded by C or C++ code, which may crash on a damaged image."""

END = b"\xff\xd9"
"""Marker after the last coded value: EOI of JPEG and JPEG-LS, EOC of JPEG 2000."""
SCAN = 0xFFDA
START_OF_FRAME = frozenset({0xFFC0, 0xFFC1, 0xFFC3, 0xFFF7})
"""Markers of baseline, extended and lossless JPEG, and JPEG-LS."""
SEGMENTS = START_OF_FRAME | {SCAN, 0xFFC4, 0xFFDB, 0xFFDD, 0xFFF8, 0xFFFE, *range(0xFFE0, 0xFFF0)}
"""Markers allowed before a scan: tables, restart interval, JPEG-LS parameters, comments."""


def read_volume(series: Series) -> Volume:
    """Reads and decodes a series, each file once.

    Stored values are rescaled by each image's own slope and intercept, MONOCHROME1 is inverted,
    and padding becomes NaN. Windows are made for display, often differ between slices, and are
    ignored.

    Raises:
        MrkneeError: a file can't be read or contradicts its header, an image holds several slices,
            or too many slices are missing. Messages quote nothing from the files.
    """
    first = series.first
    assert series.axes is not None  # noqa: S101  # such series were refused before
    assert series.centre is not None  # noqa: S101
    tiled = mosaic_reason(first.mosaic, (first.rows, first.cols), first.pixel_mm)
    if tiled is not None:
        raise DataError(tiled, code="mosaic")
    refuse_large_holes(series)
    count = len(series.images)
    if count * first.rows * first.cols > MAX_VOXELS:
        raise DataError(
            "a series is too large",
            code="too-large",
            expected=f"at most {MAX_VOXELS:,} voxels",
            found=f"{count} slices of {first.rows} x {first.cols}",
        )
    order = {(image.location, image.frame): index for index, image in enumerate(series.images)}
    by_file = sorted(series.images, key=lambda image: (str(image.location.name), image.frame))
    volume = np.empty((count, first.rows, first.cols), np.float32)
    with Opener() as opener:
        for location, group in groupby(by_file, key=lambda image: image.location):
            images = list(group)
            plain = _plain_values(opener, images[0])
            if plain is not None:
                volume[order[location, images[0].frame]] = plain
                continue
            with opener.open(location) as file, untrusted():
                dataset = parse(file)
                frame = _frames(dataset, images[0])
                for image in images:
                    values = real_values(frame(image.frame), image, dataset)
                    volume[order[location, image.frame]] = values
    if looks_tiled(np.nan_to_num(volume[count // 2]), alone=count == 1):
        raise DataError("a mosaic: an image looks like several slices side by side", code="mosaic")
    row_mm, col_mm = first.pixel_mm
    return Volume(volume, series.axes, (row_mm, col_mm), series.centre)


def _plain_values(
    opener: Opener, image: Image
) -> UInt16[np.ndarray, "rows cols"] | Float32[np.ndarray, "rows cols"] | None:
    """Reads the values of an ordinary uncompressed image without parsing its file again.

    Returns:
        The values; None if the file must be parsed, because anything about it is unusual.
    """
    if image.pixels is None:
        return None
    place = image.pixels.place
    with opener.open(image.location) as file:
        file.seek(place.offset - 12)
        head, data = file.read(12), file.read(place.length)
    tag = PIXEL_TAG in (head[:4], head[4:8])  # with a value representation, or without
    if not tag or head[8:] != place.length.to_bytes(4, "little") or len(data) < place.length:
        return None
    raw = np.frombuffer(data, "<u2").reshape(image.rows, image.cols)
    if int(raw.max()) >= min(1 << image.pixels.bits, 0xFFFF):  # 65535 may be padding
        return None
    slope, intercept = image.rescale
    if (slope, intercept) != (1.0, 0.0):
        real = (raw * slope + intercept).astype(np.float32)
        return real if np.isfinite(real).all() else None
    return raw


def _frames(dataset: Dataset, image: Image) -> Callable[[int], Raw]:
    """Checks a file against its header and returns a function that decodes one frame."""
    data = dataset.get("PixelData")
    if not isinstance(data, bytes) or not data:
        raise DataError("an image has no pixels", code="pixels")
    if (dataset.get("Rows"), dataset.get("Columns")) != (image.rows, image.cols):
        raise DataError("an image changed while it was imported", code="changed-while-read")
    allocated = int(dataset.BitsAllocated)
    if allocated not in (8, 16, 32):
        raise DataError(
            "the pixels of an image have an unsupported size",
            code="pixels",
            expected="8, 16 or 32 bits",
            found=f"{allocated} bits",
        )
    if image.bits > allocated:
        raise DataError(
            "an image states more stored bits than allocated bits",
            code="pixels",
            expected=f"at most {allocated} bits",
            found=f"{image.bits} bits",
        )
    if text(dataset, "PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2", ""):
        raise DataError(
            "the values of an image aren't grey values", code="pixels", expected="MONOCHROME1 or 2"
        )
    syntax = UID(str(dataset.file_meta.get("TransferSyntaxUID") or ""))
    if syntax and not syntax.is_transfer_syntax:
        raise DataError("an image has an unknown transfer syntax", code="pixels")
    if not syntax or not syntax.is_compressed:
        return _native(dataset, image, allocated // 8, data)
    if syntax not in PLUGINS:
        raise DataError("an image has a transfer syntax that is not used for MR", code="pixels")
    parts = list(generate_frames(data, number_of_frames=image.frames))
    if len(parts) < image.frames:
        raise DataError(
            "a file holds fewer images than its header states",
            code="pixels",
            expected=f"{image.frames}",
            found=f"{len(parts)}",
        )
    if syntax != RLELossless:
        ended = [_without_trailing_bytes(part) for part in parts]
        precision = max(_check_stream(part, image, allocated) for part in ended)
        # otherwise gdcm removes higher bits; `image` keeps the value of the header
        dataset.BitsStored = max(precision, image.bits)
        if ended != parts:  # decoders fail on trailing bytes
            dataset.PixelData = encapsulate(ended)
            for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
                if keyword in dataset:
                    delattr(dataset, keyword)
    decoder = get_decoder(syntax)
    return partial(_decode, decoder.as_array, dataset, PLUGINS[syntax])


def _decode(
    as_array: Callable[..., tuple[np.ndarray, Mapping[str, object]]],
    dataset: Dataset,
    plugins: Sequence[str],
    frame: int,
) -> Raw:
    """Decodes one frame by the first plugin that can read it.

    Raises:
        Exception: all plugins failed; the exception of the first one.
    """
    first_error: Exception | None = None
    for plugin in plugins:
        try:
            with _fail_on_stderr():
                values, _ = as_array(dataset, index=frame, raw=True, decoding_plugin=plugin)
        except Exception as error:  # decoders raise exceptions of many types
            first_error = first_error or error
        else:
            return values
    assert first_error is not None  # noqa: S101  # there is a decoder for each syntax
    raise first_error


@contextmanager
def _fail_on_stderr() -> Iterator[None]:
    """Captures what a decoder writes to standard error and treats it as an error.

    libjpeg, inside gdcm, reports a damaged image only there; it fills in missing values and
    succeeds. Output of a progress bar in the meantime is passed on.

    Raises:
        MrkneeError: the decoder wrote something.
    """
    sys.stderr.flush()
    real = os.dup(2)
    with tempfile.TemporaryFile() as capture:
        try:
            os.dup2(capture.fileno(), 2)
            yield
        finally:
            sys.stderr.flush()
            os.dup2(real, 2)
            os.close(real)
        capture.seek(0)
        written = capture.read()
    if written and (ESCAPE not in written or any(word in written for word in COMPLAINTS)):
        raise DataError(
            "a compressed image is damaged", code="pixels", advice="copy or export the file again"
        )
    os.write(2, written)


def _native(dataset: Dataset, image: Image, size: int, data: bytes) -> Callable[[int], Raw]:
    """Returns a function that views one uncompressed frame without copying it."""
    length = image.rows * image.cols * size
    if len(data) < image.frames * length:
        raise DataError(
            "an image is truncated",
            code="pixels",
            expected=f"{image.frames * length:,} bytes of pixels",
            found=f"{len(data):,}",
            advice="copy or export the file again",
        )
    if image.frames > 1 and len(data) > image.frames * length + 1:
        raise DataError(  # the offsets of all frames but the first would be wrong
            "an image has more pixels than its header states",
            code="pixels",
            expected=f"{image.frames * length:,} bytes",
            found=f"{len(data):,}",
        )
    little = dataset.original_encoding[1] is not False
    signed = int(dataset.get("PixelRepresentation") or 0) == 1
    kind = np.dtype(f"{'<' if little else '>'}{'i' if signed else 'u'}{size}")
    if size == 1 and not little and dataset["PixelData"].VR == "OW":
        # 8-bit values in 16-bit words are swapped (PS3.5 8.1.1)
        data = np.frombuffer(data[: len(data) // 2 * 2], ">u2").astype("<u2").tobytes()

    def frame(index: int) -> Raw:
        values = np.frombuffer(data, kind, image.rows * image.cols, index * length)
        return values.reshape(image.rows, image.cols)

    return frame


def _without_trailing_bytes(stream: bytes) -> bytes:
    """Returns a compressed frame up to its end marker.

    Streams of odd length are padded to an even length or more, by 00 as in the standard, by FF or
    by a space. The marker can't occur within coded values, where FF is followed by a byte below 90
    (T.81 B.1.1.5, T.87 A.1, T.800 B.10.1).
    """
    end = stream.rfind(END)
    return stream if end < 0 else stream[: end + len(END)]


def _check_stream(stream: bytes, image: Image, allocated: int) -> int:
    """Refuses a compressed frame without end marker, or of another size than the DICOM header's.

    A decoder allocates the size stated by the stream, so a hundred bytes could demand gigabytes.

    Returns:
        The number of bits per value, as stated by the stream.
    """
    if not stream.endswith(END):
        raise DataError(
            "a compressed image is truncated",
            code="pixels",
            expected="an end marker",
            advice="copy or export the file again",
        )
    is_2000 = b"\xff\x4f\xff\x51" in stream[:512]
    size = _jpeg2000_size(stream) if is_2000 else _jpeg_size(stream)
    if size is None or size[:3] != (image.rows, image.cols, 1):
        found = "no size" if size is None else f"{size[0]} x {size[1]}, {size[2]} components"
        raise DataError(
            "a compressed image has another size than its header states",
            code="pixels",
            expected=f"{image.rows} x {image.cols}, 1 component",
            found=found,
        )
    if not 2 <= size[3] <= allocated:
        raise DataError(
            "a compressed image has more bits than its header states",
            code="pixels",
            expected=f"2 to {allocated}",
            found=f"{size[3]}",
        )
    return size[3]


def _jpeg2000_size(stream: bytes) -> tuple[int, int, int, int] | None:
    """Rows, columns, components and bits of a JPEG 2000 stream, from SIZ (T.800 A.5.1)."""
    start = stream.find(b"\xff\x4f\xff\x51") + 4
    if len(stream) < start + 39:
        return None
    right, bottom, left, top = struct.unpack_from(">4I", stream, start + 4)
    components, depth = struct.unpack_from(">HB", stream, start + 36)
    return (bottom - top, right - left, components, (depth & 0x7F) + 1)


def _jpeg_size(stream: bytes) -> tuple[int, int, int, int] | None:
    """Rows, columns, components and bits of a JPEG or JPEG-LS stream (T.81 B.2, T.87 C.2).

    None unless the marker segments up to the first scan are contiguous: on some gaps, and on an
    impossible number of bits, gdcm ends the process.
    """
    size = None
    place = 2
    while place + 10 <= len(stream) and stream[:2] == b"\xff\xd8":
        marker, length = struct.unpack_from(">HH", stream, place)
        if marker not in SEGMENTS or length < 2:
            return None
        if marker in START_OF_FRAME:
            if size is not None:
                return None
            bits, rows, cols, components = struct.unpack_from(">BHHB", stream, place + 4)
            size = (rows, cols, components, bits)
        if marker == SCAN:
            return size
        place += 2 + length
    return None
