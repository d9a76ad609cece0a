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
_LARGEST_TAG = 2**32  # protobuf's libraries cut larger ones off, and would see another field


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
    for number, field in fields_of(view):
        there = there or number == GRAPH
        if number != ENTRY:
            continue
        entry = {n: text_of(part) for n, part in fields_of(message_of(field))}
        key = entry.get(KEY, "")
        if key in found:
            raise ValueError(f"the metadata {key!r} is there twice")
        found[key] = entry.get(VALUE, "")
    if not there:
        raise ValueError("there is no graph")
    return found


def message_of(field: memoryview | int) -> memoryview:
    """A field's content where it has to be a message or text.

    Raises:
        ValueError: it is a number.
    """
    if isinstance(field, int):
        raise ValueError("a number where a message should be")
    return field


def text_of(field: memoryview | int) -> str:
    """A field's text.

    Raises:
        ValueError: it is a number, or no UTF-8.
    """
    return bytes(message_of(field)).decode()


def fields_of(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Each field's number and content; of numbers of a fixed size the content is 0.

    Raises:
        ValueError: the bytes are no protobuf message.
    """
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        start, value = at, 0
        if kind == _VARINT:
            value, at = _varint(message, at)
        elif kind == _LENGTH:
            size, start = _varint(message, at)
            at = start + size
        elif kind in _FIXED:
            at += _FIXED[kind]
        else:
            raise ValueError(f"a field of wire type {kind}")
        if at > len(message) or number == 0 or tag >= _LARGEST_TAG:
            raise ValueError("a field that ends behind the file, or has no number")
        yield number, message[start:at] if kind == _LENGTH else value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and where it ends."""
    value = 0
    for place, byte in enumerate(message[at : at + 10]):
        value |= (byte & 127) << (7 * place)
        if byte < 128:
            return value, at + place + 1
    raise ValueError("a number that doesn't end")
