"""One `.npy` file, one stack: read without trusting it, written whole or not at all."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mrknee.errors import MrkneeError
from mrknee.exams.exam import Stack
from mrknee.files import whole_file
from mrknee.untrusted import refuse_unusual

MAX_SLICES, MAX_SIDE, MAX_PIXELS = 2048, 4096, 2**28
"""The largest stack that is read. MRNet's have 17 to 61 slices of 256 x 256, a fine 3D series some
hundred of 512 x 512; what claims more would only fill the memory."""

_MAX_HEADER_BYTES = 10_000  # numpy's own limit for a header that is parsed as a literal


def read_stack(path: Path, exam_id: str | None = None) -> Stack:
    """Reads one stack from a `.npy` file.

    uint8 files are memory-mapped: opening one costs no more than its header, and the header is
    held against the file's size first, so that a file which claims more than it holds is refused
    before anything is allocated. Other integer and floating types are read whole and converted
    linearly: the stack's minimum becomes 0, its maximum 255, rounded to the nearest; a constant
    stack becomes 0. (The network's input is scaled from minimum to maximum anyway, so this
    loses only what lies between two of 256 steps.) Pickled files are never opened.

    Args:
        path: the file.
        exam_id: named in the error.

    Returns:
        uint8 (slices, rows, cols), read-only.

    Raises:
        MrkneeError: no such file, not a `.npy` file, truncated, pickled, not of rank 3, empty,
            beyond `MAX_SLICES`, `MAX_SIDE` or `MAX_PIXELS`, not numeric,
            or holding NaN or infinite values.
    """
    refuse_unusual(path, "stack's file", exam_id)
    shape, fortran, dtype, offset = _read_header(path, exam_id)
    _refuse_shape(shape, path, exam_id)
    if dtype.kind not in "uif":
        raise MrkneeError(
            "a stack holds something other than grey values",
            file=path,
            exam=exam_id,
            expected="uint8, or another integer or floating type",
            found=str(dtype),
        )
    expected = offset + math.prod(shape) * dtype.itemsize
    found = path.stat().st_size
    if found != expected:
        raise MrkneeError(
            "a stack's file is truncated" if found < expected else "a stack's file is too long",
            file=path,
            exam=exam_id,
            expected=f"{expected:,} bytes for {shape} of {dtype}",
            found=f"{found:,} bytes",
            advice="copy or download the file again",
        )
    if shape[0] > MAX_SLICES or max(shape[1:]) > MAX_SIDE or math.prod(shape) > MAX_PIXELS:
        raise MrkneeError(
            "a stack is larger than any of a knee",
            file=path,
            exam=exam_id,
            expected=f"at most {MAX_SLICES} slices, {MAX_SIDE} rows and columns, "
            f"{MAX_PIXELS:,} pixels in all",
            found=str(shape),
        )
    values = np.memmap(
        path, dtype=dtype, mode="r", offset=offset, shape=shape, order="F" if fortran else "C"
    )
    if dtype == np.uint8:
        return values
    return _to_bytes(values, path, exam_id)


def count_slices(path: Path, exam_id: str | None = None) -> int:
    """How many slices a stack's file says it has, from its header alone.

    Raises:
        MrkneeError: no such file, not a `.npy` file, or its header is broken or not of rank 3.
    """
    refuse_unusual(path, "stack's file", exam_id)
    shape, *_ = _read_header(path, exam_id)
    _refuse_shape(shape, path, exam_id)
    return shape[0]


def _refuse_shape(shape: tuple[int, ...], path: Path, exam_id: str | None) -> None:
    if len(shape) != 3 or min(shape) < 1:
        raise MrkneeError(
            "a stack has the wrong shape",
            file=path,
            exam=exam_id,
            expected="(slices, rows, cols), none of them zero",
            found=str(shape),
        )


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
            shape, fortran, dtype = reader(file, max_header_size=_MAX_HEADER_BYTES)
            offset = file.tell()
            if not all(type(side) is int and abs(side) < 2**63 for side in shape):
                raise ValueError("a shape of something else than numbers that count")
    except Exception as error:  # a broken header can raise anything, and it is the file's fault
        raise MrkneeError(
            "a file is not a .npy file, or its header is broken",
            file=path,
            exam=exam_id,
            expected="numpy's .npy format, version 1 or 2",
            found=str(error).splitlines()[0] if str(error) else type(error).__name__,
        ) from None
    if dtype.hasobject:
        raise MrkneeError(
            "a stack's file holds pickled Python objects, which could run code when read",
            file=path,
            exam=exam_id,
            expected="plain numbers",
            found=str(dtype),
            advice="save it again as a plain array: np.save(path, array.astype('uint8'))",
        )
    return shape, fortran, dtype, offset


def _to_bytes(values: np.ndarray, path: Path, exam_id: str | None) -> Stack:
    def slices() -> Iterator[np.ndarray]:
        """One by one: all of a large stack in 64 bits would be eight times the result."""
        with np.errstate(over="ignore", invalid="ignore"):  # counted as infinite below
            for one in values:
                yield np.asarray(one, dtype=np.float64)

    odd = sum(int(np.count_nonzero(~np.isfinite(one))) for one in slices())
    if odd:
        raise MrkneeError(
            "a stack holds values that are not numbers",
            file=path,
            exam=exam_id,
            expected="finite grey values",
            found=f"{odd:,} NaN or infinite values",
        )
    low, high = min(one.min() for one in slices()), max(one.max() for one in slices())
    # halves, so that a range of more than 1.8e308 doesn't overflow
    span = high / 2 - low / 2
    stack: Stack = np.empty(values.shape, dtype=np.uint8)
    for index, one in enumerate(slices()):
        stack[index] = np.rint((one / 2 - low / 2) / (span or 1) * 255)
    stack.flags.writeable = False
    return stack


def write_stack(folder: Path, plane: str, exam_id: str, stack: Stack) -> Path:
    """Writes one stack as `folder/plane/exam_id.npy`, whole or not at all.

    Args:
        folder: the split's folder (`DATA/train`); made if it isn't there.
        plane: one of the plane names.
        exam_id: the file's name without its ending.
        stack: uint8 (slices, rows, cols).

    Returns:
        The file written.
    """
    path = folder / plane / f"{exam_id}.npy"
    content = io.BytesIO()  # numpy's own writing to a file doesn't say that the disk is full
    np.save(content, np.ascontiguousarray(stack), allow_pickle=False)
    with whole_file(path) as beside:
        beside.write_bytes(content.getbuffer())
    return path
