"""The metadata of an ONNX file, read from its bytes without loading the graph.

Loading a graph folds its constants, which may ask for any amount of memory; so what a file says
of itself is read and judged first. An ONNX file is one protobuf message, ModelProto: fields of a
number, a wire type and content (protobuf's encoding guide), whose field 7 is the graph and whose
fields 14 are the entries of the metadata (onnx.proto).
"""

from __future__ import annotations

from collections.abc import Iterator

GRAPH, ENTRY = 7, 14
KEY, VALUE = 1, 2
_FIXED = {1: 8, 5: 4}  # wire types of so many bytes
_VARINT, _LENGTH = 0, 2


def read_metadata(content: bytes) -> dict[str, str]:
    """The metadata of an ONNX file.

    Args:
        content: the file's bytes.

    Returns:
        Key -> value.

    Raises:
        ValueError: it is no ONNX file: the bytes are no protobuf message, or there is no graph; or
            a key comes twice.
    """
    found: dict[str, str] = {}
    view = memoryview(content)
    there = False
    for number, field in _fields(view):
        there = there or number == GRAPH
        if number != ENTRY:
            continue
        entry = {n: bytes(text).decode() for n, text in _fields(field)}
        key = entry.get(KEY, "")
        if key in found:
            raise ValueError(f"the metadata {key!r} is there twice")
        found[key] = entry.get(VALUE, "")
    if not there:
        raise ValueError("there is no graph")
    return found


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Each field's number and content; numbers (wire types 0, 1 and 5) come without theirs."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        start = at
        if kind == _VARINT:
            _, at = _varint(message, at)
        elif kind == _LENGTH:
            size, start = _varint(message, at)
            at = start + size
        elif kind in _FIXED:
            at += _FIXED[kind]
        else:
            raise ValueError(f"a field of wire type {kind}")
        if at > len(message) or number == 0:
            raise ValueError("a field that ends behind the file, or has no number")
        yield number, message[start:at] if kind == _LENGTH else message[:0]


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and where it ends."""
    value = 0
    for place, byte in enumerate(message[at : at + 10]):
        value |= (byte & 127) << (7 * place)
        if byte < 128:
            return value, at + place + 1
    raise ValueError("a number that doesn't end")
