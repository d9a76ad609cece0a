from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mrknee.errors import MrkneeError
from mrknee.exams import read_stack, write_stack
from mrknee.exams.stackfile import first_pixel, is_whole_stack, read_shape


def save(path: Path, array: np.ndarray, *, pickled: bool = False) -> Path:
    """Writes an array with `np.save`."""
    np.save(path, array, allow_pickle=pickled)
    return path


def test_a_uint8_stack_is_read_unchanged(tmp_path: Path) -> None:
    """A uint8 stack is read into memory, read-only, with the values of the file."""
    stack = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    read = read_stack(write_stack(tmp_path, "axial", "0000", stack))
    assert not isinstance(read, np.memmap)
    assert not read.flags.writeable
    assert np.array_equal(read, stack)


CUT = """
import os, sys
from pathlib import Path
from mrknee.errors import MrkneeError
from mrknee.exams import stackfile

path = Path(sys.argv[1])
whole = stackfile._read_header

def header(*given):
    found = whole(*given)
    if sys.argv[2] == "before":
        stat = path.stat()
        os.truncate(path, 5000)
        Path.stat = lambda *_, **__: stat  # the size before the truncation
    return found

stackfile._read_header = header
try:
    stack = stackfile.read_stack(path, "0007")
    os.truncate(path, 200)
    print("read", stack.sum())
except MrkneeError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["uint8", "int16"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_file_truncated_during_reading_is_an_error(tmp_path: Path, dtype: str, when: str) -> None:
    """A truncation that would end a process with a memory map (SIGBUS) is a `MrkneeError`."""
    path = save(tmp_path / "a.npy", np.ones((20, 64, 64), dtype))
    command = [sys.executable, "-c", CUT, str(path), when]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    if when == "before":
        assert "truncated while it was read" in done.stdout
        assert f"file: {path}" in done.stdout
        assert "exam: 0007" in done.stdout
    else:
        assert done.stdout == f"read {20 * 64 * 64}\n"


def test_a_shape_is_read_from_the_header(tmp_path: Path) -> None:
    """The shape can be read even if values are missing, which `is_whole_stack` detects."""
    path = save(tmp_path / "a.npy", np.ones((20, 6, 4), np.uint8))
    assert is_whole_stack(path)
    os.truncate(path, 130)
    assert read_shape(path) == (20, 6, 4)
    assert not is_whole_stack(path)
    os.truncate(path, 0)
    assert not is_whole_stack(path)
    with pytest.raises(MrkneeError, match=r"not a \.npy file"):
        read_shape(path)


def test_fortran_order_is_read(tmp_path: Path) -> None:
    """A stack saved in Fortran order is read with the same values."""
    stack = np.asfortranarray(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
    assert np.array_equal(read_stack(save(tmp_path / "a.npy", stack)), stack)


@pytest.mark.parametrize(
    "dtype", ["uint16", "int16", ">i2", "float32", "float64", "int32", "float16"]
)
def test_other_types_are_scaled_from_minimum_to_maximum(tmp_path: Path, dtype: str) -> None:
    """The minimum becomes 0, the maximum 255, linear in between."""
    stack = np.array([[[100, 200, 300, 1100]]]).astype(dtype)
    read = read_stack(save(tmp_path / "a.npy", stack))
    assert read.dtype == np.uint8
    assert read.tolist() == [[[0, round(25.5), 51, 255]]]


def test_a_constant_stack_of_another_type_becomes_zero(tmp_path: Path) -> None:
    """A constant stack doesn't divide by zero."""
    read = read_stack(save(tmp_path / "a.npy", np.full((1, 2, 2), 7.5)))
    assert not read.any()


def test_a_huge_range_does_not_overflow(tmp_path: Path) -> None:
    """The range from the lowest to the highest float64 is scaled without overflow."""
    huge = np.finfo(np.float64).max
    read = read_stack(save(tmp_path / "a.npy", np.array([[[-huge, 0.0, huge]]])))
    assert read.tolist() == [[[0, 128, 255]]]


class Payload:
    """An object whose unpickling creates a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    """A pickled file is refused, and its code doesn't run."""
    array = np.array([[[Payload(tmp_path / "ran")]]], dtype=object)
    path = save(tmp_path / "0007.npy", array, pickled=True)
    with pytest.raises(MrkneeError, match="pickled") as error:
        read_stack(path, "0007")
    assert error.value.file == str(path)
    assert error.value.exam == "0007"
    assert not (tmp_path / "ran").exists()


def truncated_to(path: Path, size: int) -> Path:
    """Truncates a file to a number of bytes."""
    path.write_bytes(path.read_bytes()[:size])
    return path


@pytest.mark.parametrize("size", [0, 3, 6, 9, 40, 127, 128, 150])
def test_a_truncated_file_is_refused(tmp_path: Path, size: int) -> None:
    """A file truncated anywhere is one error that names the file."""
    path = truncated_to(save(tmp_path / "a.npy", np.ones((2, 3, 4), dtype=np.uint8)), size)
    with pytest.raises(MrkneeError) as error:
        read_stack(path, "a")
    assert error.value.file == str(path)
    assert error.value.expected
    assert error.value.found


def test_no_memory_is_allocated_for_a_false_header(tmp_path: Path) -> None:
    """A header that claims 10^12 voxels is refused before memory is allocated."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (10**4, 10**4, 10**4)}
    )
    path = tmp_path / "a.npy"
    path.write_bytes(header.getvalue())
    with pytest.raises(MrkneeError, match="truncated"):
        read_stack(path)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), dtype=np.uint8),
        np.zeros((1, 4, 4, 3), dtype=np.uint8),
        np.zeros((0, 4, 4), dtype=np.uint8),
        np.zeros((3, 0, 4), dtype=np.uint8),
        np.zeros((1, 2, 2), dtype=complex),
        np.zeros((1, 2, 2), dtype=bool),
        np.array([[["a"]]]),
        np.full((1, 2, 2), np.nan),
        np.array([[[0.0, np.inf]]]),
    ],
    ids=["rank2", "rank4", "no slices", "no rows", "complex", "bool", "text", "nan", "inf"],
)
def test_an_invalid_stack_is_refused(tmp_path: Path, array: np.ndarray) -> None:
    """Wrong rank, empty axes, non-numeric values, NaN and infinity are refused."""
    path = save(tmp_path / "a.npy", array)
    with pytest.raises(MrkneeError) as error:
        read_stack(path, "a")
    assert error.value.file == str(path)
    assert error.value.exam == "a"
    assert error.value.expected
    assert error.value.found


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A missing file is a `MrkneeError`."""
    with pytest.raises(MrkneeError, match="missing"):
        read_stack(tmp_path / "none.npy")


def test_writing_replaces_an_existing_stack(tmp_path: Path) -> None:
    """A stack replaces an existing one, and no other file remains."""
    write_stack(tmp_path, "axial", "0000", np.zeros((1, 2, 2), dtype=np.uint8))
    path = write_stack(tmp_path, "axial", "0000", np.ones((3, 2, 2), dtype=np.uint8))
    assert read_stack(path).shape == (3, 2, 2)
    assert [p.name for p in path.parent.iterdir()] == ["0000.npy"]


def test_headers_are_parsed_by_one_thread_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a good header can be an error in Python 3.11, whose parser isn't thread-safe."""
    file = save(tmp_path / "0001.npy", np.zeros((2, 4, 4), np.uint8))
    parse, inside, most = np.lib.format.read_array_header_1_0, 0, 0

    def slowly(*args: object, **options: object) -> object:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.002)
        found = parse(*args, **options)  # type: ignore[arg-type]
        inside -= 1
        return found

    monkeypatch.setattr(np.lib.format, "read_array_header_1_0", slowly)
    with ThreadPoolExecutor(4) as pool:
        pixels = list(pool.map(first_pixel, [file] * 20))
    assert len(pixels) == 20
    assert most == 1
