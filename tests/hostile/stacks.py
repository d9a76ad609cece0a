"""Malformed `.npy` files."""

from __future__ import annotations

import gzip
import io
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.hostile.case import PICKLE, Case, Payload, content, cuts

READER = "stack"


def saved(array: np.ndarray, *, pickled: bool = False) -> bytes:
    """Returns the bytes of the file that numpy writes."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=pickled)
    return buffer.getvalue()


def headed(header: str | bytes, data: bytes = b"", version: int = 1) -> bytes:
    """Returns a file with this header."""
    text = header.encode("latin1") if isinstance(header, str) else header
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + data


def shaped(shape: str, descr: str = "'|u1'", data: bytes = b"") -> bytes:
    """Returns a file that states this shape and type."""
    return headed(
        f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n", data or bytes(8)
    )


def sparse(shape: tuple[int, int, int], descr: str) -> Callable[[Path], object]:
    """Returns a function that writes a sparse file of the stated length, without disk usage."""

    def write(path: Path) -> None:
        header = shaped(str(shape), repr(descr))[:-8]
        path.write_bytes(header)
        size = int(np.prod(shape, dtype=object)) * np.dtype(descr).itemsize
        os.truncate(path, len(header) + size)

    return write


GOOD = saved(np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4))


def cases() -> Iterator[Case]:
    """Yields all cases."""
    header = 10 + struct.unpack("<H", GOOD[8:10])[0]
    yield from cuts(READER, GOOD, [0, 6, 8, 10, 40, header, header + 12, len(GOOD)])
    yield from _magic()
    yield from _headers()
    yield from _shapes()
    yield from _values()
    yield from _no_files()


def _case(name: str, data: bytes | Callable[[Path], object], message: str = "") -> Case:
    return Case(READER, name, content(data) if isinstance(data, bytes) else data, message)


def _magic() -> Iterator[Case]:
    yield _case("wrong magic", b"\x94" + GOOD[1:], "not a .npy")
    yield _case("magic in capitals", GOOD[:1] + b"numpy" + GOOD[6:], "not a .npy")
    for version in (0, 3, 9, 255):
        yield _case(f"version {version}", GOOD[:6] + bytes([version]) + GOOD[7:], "not a .npy")
    yield _case("text", b"0,1\n" * 20, "not a .npy")
    yield _case("text in UTF-16", "slices".encode("utf-16"), "not a .npy")
    yield _case("gzip", gzip.compress(GOOD), "not a .npy")
    zipped = io.BytesIO()
    np.savez(zipped, a=np.zeros((2, 2, 2), np.uint8))
    yield _case("npz", zipped.getvalue(), "not a .npy")
    yield _case("plain pickle", PICKLE, "not a .npy")
    objects = np.empty((1, 1, 1), dtype=object)
    objects[0, 0, 0] = Payload()
    yield _case("object array with a payload", saved(objects, pickled=True), "pickled")
    yield _case("payload with a numeric type", shaped("(1, 1, 9)", data=PICKLE), "")


def _headers() -> Iterator[Case]:
    plain = "'descr': '|u1', 'fortran_order': False, 'shape': (1, 1, 1)"
    texts = {
        "empty header": "",
        "not a dictionary": "[1, 2, 3]",
        "code as a header": "__import__('pathlib').Path('EXECUTED').touch()",
        "code as a shape": "{'descr': '|u1', 'fortran_order': False, 'shape': "
        "(__import__('pathlib').Path('EXECUTED').touch(), 1, 1)}",
        "no shape": "{'descr': '|u1', 'fortran_order': False}",
        "another key": f"{{{plain}, 'x': 1}}",
        "order is not a boolean": "{'descr': '|u1', 'fortran_order': 'yes', 'shape': (1, 1, 1)}",
        "open string": "{'descr': '|u1",
        "nested too deep": "(" * 3000 + ")" * 3000,
        "9000 minus signs": "-" * 9000 + "1",
        "only blanks": " " * 9990,
        "longer than numpy allows": f"{{{plain}}}" + " " * 20_000,
        "NUL": "\0" * 60,
    }
    for name, text in texts.items():
        yield _case(name, headed(text, b"\0"), "not a .npy")
    long = headed(f"{{{plain}}}", version=2)
    yield _case("header of 4 GB stated", long[:8] + b"\xff\xff\xff\xff" + long[12:], "not a .npy")
    for descr in ("'O'", "'|O'", "[('a', 'O')]"):
        yield _case(f"objects as {descr}", shaped("(1, 1, 1)", descr), "pickled")
    for descr in ("'nonsense'", "None", "{}", "7", "[('a', '<i4', (10**9,))]"):
        yield _case(f"type {descr}", shaped("(1, 1, 1)", descr))
    for descr in ("'<U1'", "'<c8'", "'<M8[s]'", "'|b1'", "'|V1'", "'<U100000000'", "'|S0'"):
        yield _case(f"type without grey values {descr}", shaped("(1, 1, 1)", descr), "grey values")


def _shapes() -> Iterator[Case]:
    for shape in ("()", "(8,)", "(2, 4)", "(1, 2, 2, 2)", f"({'1, ' * 2000})"):
        yield _case(f"shape {shape:.20}", shaped(shape), "wrong shape")
    for shape in ("(0, 2, 4)", "(2, 0, 4)", "(-1, 2, 4)", "(-2, -2, 2)"):
        yield _case(f"shape {shape}", shaped(shape), "wrong shape")
    for shape in ("(True, 2, 4)", "(2.0, 2, 2)", "('2', 2, 2)", "(None, 2, 2)", "8"):
        yield _case(f"shape {shape}", shaped(shape), "not a .npy")
    huge = {
        "10^12 voxels in 100 bytes": "(10000, 10000, 10000)",
        "10^12 slices": "(1000000000000, 1, 1)",
        "more than 2^63": "(9223372036854775807, 9223372036854775807, 2)",
        "2^64, an overflow to 0": "(4294967296, 4294967296, 1)",
        "a side of 9000 hexadecimal digits": f"(0x{'f' * 9000}, 1, 1)",
        "a side of 9000 digits": f"({'9' * 9000}, 1, 1)",
    }
    for name, shape in huge.items():
        yield _case(name, shaped(shape))
        yield _case(f"{name}, float64", shaped(shape, "'<f8'"))
    yield _case("absurd slice count", saved(np.zeros((3000, 1, 1), np.uint8)), "too large")
    yield _case("absurd rows", saved(np.zeros((1, 5000, 1), np.uint8)), "too large")
    yield _case("sparse, 10^12 bytes", sparse((10_000, 10_000, 10_000), "|u1"), "too large")
    yield _case("sparse, 8 * 10^12 bytes", sparse((10_000, 10_000, 10_000), "<f8"), "too large")
    yield _case("2048 slices of 4096", sparse((2048, 4096, 4096), "<u2"), "too large")


def _values() -> Iterator[Case]:
    odd: dict[str, Any] = {"NaN": np.nan, "infinity": np.inf, "minus infinity": -np.inf}
    for name, value in odd.items():
        for kind in ("<f2", "<f4", "<f8", ">f8"):
            stack = np.zeros((2, 3, 4), kind)
            stack[1, 2, 3] = value
            yield _case(f"{name} in {kind}", saved(stack), "NaN or infinite")
    beyond = np.full((1, 1, 2), np.finfo(np.longdouble).max)
    yield _case("more than the largest float64", saved(beyond), "NaN or infinite")


def _no_files() -> Iterator[Case]:
    yield _case("missing file", lambda _: None, "missing")
    yield _case("a folder", lambda path: path.mkdir(), "folder")
    yield _case("a pipe", lambda path: os.mkfifo(path), "pipe")
    yield _case("an endless device", lambda path: path.symlink_to("/dev/zero"), "device")
    yield _case("a link to itself", lambda path: path.symlink_to(path.name), "")
    yield _case("a broken link", lambda path: path.symlink_to("nothing"), "missing")
