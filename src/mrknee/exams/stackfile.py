"""Reading untrusted `.npy` files of one stack each, and writing them atomically."""

from __future__ import annotations

import io
import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from mrknee.errors import DataError, MrkneeError
from mrknee.exams.axes import AXES, Axes, Shape, ordered_stack
from mrknee.exams.exam import Stack
from mrknee.exams.greyscale import finite_to_bytes
from mrknee.exams.series import MRNET_SERIES, SeriesList, by_series
from mrknee.files import atomic_write
from mrknee.untrusted import require_regular_file

MAX_SLICES, MAX_SIDE, MAX_PIXELS = 2048, 4096, 2**28
"""Limits of a stack that is read. MRNet's stacks have 17 to 61 slices of 256 x 256, a
high-resolution 3D series a few hundred of 512 x 512; larger files would only exhaust the memory."""

_MAX_HEADER_BYTES = 10_000  # numpy's limit for a header that is parsed as a literal


def read_stack(
    path: str | Path,
    exam_id: str | None = None,
    *,
    axes: Axes | None = None,
    outliers: list[str] | None = None,
) -> Stack:
    """Reads one stack from a `.npy` file.

    The file is read into memory and never memory-mapped: if the file is truncated during reading or
    the disk fails, an error is raised, where a memory map would end the process (SIGBUS). The
    header is compared with the file size first, so that a file that claims more data than it holds
    is refused before memory is allocated. Integer types other than uint8 and floating types are
    converted by the rules of `mrknee.exams.greyscale`. Pickled files are refused.

    Args:
        path: the file.
        exam_id: the exam's id, for error messages.
        axes: the order of axes in the file, if it is not (slices, rows, cols).
        outliers: receives one sentence if outliers were clipped.

    Returns:
        uint8 (slices, rows, cols), read-only.

    Raises:
        DataError: the file is missing, not a `.npy` file, truncated, pickled, not
            three-dimensional, empty, larger than `MAX_SLICES`, `MAX_SIDE` or `MAX_PIXELS`, not
            numeric, or contains NaN or infinite values.
    """
    path = Path(path)
    if axes not in (None, AXES):
        return ordered_stack(read_stack(path, exam_id, outliers=outliers), axes)
    require_regular_file(path, "stack's file", exam_id)
    shape, fortran, dtype, offset = _read_header(path, exam_id)
    _refuse_shape(shape, path, exam_id)
    if dtype.kind not in "uif":
        raise DataError(
            "a stack has a type that can't hold grey values",
            code="wrong-type",
            file=path,
            exam=exam_id,
            expected="uint8, or another integer or floating type",
            found=str(dtype),
        )
    expected = offset + math.prod(shape) * dtype.itemsize
    found = path.stat().st_size
    if found != expected:
        raise DataError(
            "a stack's file is truncated" if found < expected else "a stack's file is too long",
            code="truncated" if found < expected else "too-long",
            file=path,
            exam=exam_id,
            expected=f"{expected:,} bytes for {shape} of {dtype}",
            found=f"{found:,} bytes",
            advice="copy or download the file again",
        )
    if shape[0] > MAX_SLICES or max(shape[1:]) > MAX_SIDE or math.prod(shape) > MAX_PIXELS:
        raise DataError(
            "a stack is too large for a knee",
            code="too-large",
            file=path,
            exam=exam_id,
            expected=f"at most {MAX_SLICES} slices, {MAX_SIDE} rows and columns, "
            f"{MAX_PIXELS:,} pixels in all",
            found=str(shape),
        )
    content = _read_values(path, offset, expected - offset, exam_id)
    values = content.view(dtype).reshape(shape, order="F" if fortran else "C")
    if dtype == np.uint8:
        return values
    stack, clipped = finite_to_bytes(values, path, exam_id)
    if outliers is not None and clipped is not None:
        outliers.append(clipped)
    return stack


def read_shape(path: str | Path, exam_id: str | None = None) -> Shape:
    """Reads the shape of a stack from the file header, in the file's order of axes.

    The values are not checked.

    Raises:
        DataError: the file is missing, not a `.npy` file, or not three-dimensional.
    """
    path = Path(path)
    require_regular_file(path, "stack's file", exam_id)
    shape = _read_header(path, exam_id)[0]
    _refuse_shape(shape, path, exam_id)
    return shape[0], shape[1], shape[2]


def _refuse_shape(shape: tuple[int, ...], path: Path, exam_id: str | None) -> None:
    if len(shape) != 3 or min(shape) < 1:
        raise DataError(
            "a stack has the wrong shape",
            code="wrong-rank",
            file=path,
            exam=exam_id,
            expected="(slices, rows, cols), no axis empty",
            found=str(shape),
        )


def first_pixel(path: Path) -> np.generic:
    """Returns the first stored value of a stack that `read_stack` has read before.

    Raises:
        DataError: the file has changed since and can't be read; see `read_stack`.
    """
    _, _, dtype, offset = _read_header(path, None)
    value: np.generic = _read_values(path, offset, dtype.itemsize, None).view(dtype)[0]
    return value


def is_whole_stack(path: Path) -> bool:
    """Returns whether a file exists, has a valid header and the size that its header states."""
    try:
        shape, _, dtype, offset = _read_header(path, None)
    except MrkneeError:
        return False
    return path.stat().st_size == offset + math.prod(shape) * dtype.itemsize


def _read_values(
    path: Path, offset: int, count: int, exam_id: str | None
) -> UInt8[np.ndarray, " count"]:
    """Reads `count` bytes of a file from an offset, as a read-only array."""
    content = np.empty(count, dtype=np.uint8)
    found: int | None = 0
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(offset)
            left = content.data
            while left and (found := file.readinto(left)):
                left = left[found:]
    except OSError as error:
        raise DataError(
            "a stack can't be read",
            code="unreadable",
            file=path,
            exam=exam_id,
            found=error.strerror or str(error),
            advice="copy or download the file again, or check the disk",
        ) from None
    if left:
        raise DataError(
            "a stack's file was truncated while it was read",
            code="changed-while-read",
            file=path,
            exam=exam_id,
            expected=f"{count:,} bytes of values",
            found=f"{count - len(left):,} bytes",
            advice="read the file when no program writes to it; copy or download it again",
        )
    content.flags.writeable = False
    return content


# In Python 3.11, `ast.literal_eval`, by which NumPy parses headers, can fail in a thread while
# another one is in it ("AST constructor recursion depth mismatch", CPython issue 106905).
_PARSING = threading.Lock()


def _read_header(
    path: Path, exam_id: str | None
) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            reader = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }.get(version)
            if reader is None:
                raise ValueError(f"format version {version}")
            with _PARSING:
                shape, fortran, dtype = reader(file, max_header_size=_MAX_HEADER_BYTES)
            offset = file.tell()
            if not all(type(side) is int and abs(side) < 2**63 for side in shape):
                raise ValueError("the shape doesn't consist of valid integers")
    except Exception as error:  # a broken header can raise any exception
        raise DataError(
            "a file is not a .npy file, or its header is broken",
            code="not-npy",
            file=path,
            exam=exam_id,
            expected="numpy's .npy format, version 1 or 2",
            found=str(error).splitlines()[0] if str(error) else type(error).__name__,
        ) from None
    if dtype.hasobject:
        raise DataError(
            "a stack's file contains pickled Python objects, which could run code when read",
            code="pickled",
            file=path,
            exam=exam_id,
            expected="a numeric array",
            found=str(dtype),
            advice="save it again as a numeric array: np.save(path, array.astype('uint8'))",
        )
    return shape, fortran, dtype, offset


def write_stack(
    folder: str | Path,
    series: str,
    exam_id: str,
    stack: Stack,
    *,
    among: SeriesList = MRNET_SERIES,
    durable: bool = True,
) -> Path:
    """Writes one stack as `folder/series/exam_id.npy` atomically.

    Args:
        folder: the split's folder (`DATA/train`); created if missing.
        series: the series, by any name that `SeriesList.named` accepts.
        exam_id: the file name without suffix.
        stack: uint8 (slices, rows, cols).
        among: the series that the data set declares.
        durable: whether to flush the file to disk; see `atomic_write`.

    Returns:
        The written file.

    Raises:
        DataError: the name of the series is unknown.
    """
    (known,) = by_series({series: stack}, among, exam=exam_id)
    path = Path(folder) / known / f"{exam_id}.npy"
    content = io.BytesIO()  # np.save to a file doesn't report a full disk
    np.save(content, np.ascontiguousarray(stack), allow_pickle=False)
    with atomic_write(path, durable=durable) as beside:
        beside.write_bytes(content.getbuffer())
    return path
