"""The file that `mrknee export` writes: a graph, what is known of it, and a seal.

It is an ONNX file. Its metadata hold under `mrknee`, as JSON, what a run folder's model.json says.
Behind the graph lies a seal, the sha256 of all that comes before it, as one more entry of the
metadata (an ONNX file is a protobuf message, and messages written one behind the other are one
message): a damaged file is refused, and other software ignores the seal. Reading it needs no
package of ONNX's, so it is the same whatever computes the graph.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mrknee.errors import MrkneeError

FORMAT = 1
"""Version of the inputs, outputs and metadata that this file reads and `export` writes."""

METADATA = "mrknee"
"""The key of our JSON in the file's metadata."""

SEAL = "mrknee_sha256"
"""The key of the seal in the file's metadata."""

_DIGITS = hashlib.sha256().digest_size * 2

# fields of ONNX's ModelProto, and of the entries of its metadata; its wire types (onnx.proto)
_GRAPH, _METADATA_PROPS, _KEY, _VALUE = 7, 14, 1, 2
_NUMBER, _BYTES = 0, 2

_SEAL_HEAD = (
    bytes([_METADATA_PROPS << 3 | _BYTES, 4 + len(SEAL) + _DIGITS, _KEY << 3 | _BYTES, len(SEAL)])
    + SEAL.encode()
    + bytes([_VALUE << 3 | _BYTES, _DIGITS])
)

_KINDS = {
    "findings": list,
    "preparation": dict,
    "provenance": dict,
    "decisions": dict,
    "bias": list,
    "attention_fixed": bool,
}


def seal(graph: bytes) -> bytes:
    """The file's bytes with the seal behind them."""
    return graph + _SEAL_HEAD + hashlib.sha256(graph).hexdigest().encode()


def read_exported(file: Path) -> tuple[bytes, dict[str, Any]]:
    """An exported model's bytes, and what its metadata say.

    Raises:
        MrkneeError: no such file, no ONNX file, one that mrknee didn't write or that was changed,
            a damaged one, or one of another format.
    """
    try:
        content = file.read_bytes()
    except OSError as fault:
        raise MrkneeError(
            "the model can't be read",
            file=file,
            expected="a run folder, or an ONNX file that `mrknee export` wrote",
            found=fault.strerror or str(fault),
        ) from fault
    graph, given = content[: -len(_SEAL_HEAD) - _DIGITS], content[-_DIGITS:]
    if content[len(graph) : -_DIGITS] != _SEAL_HEAD:
        _refuse_unsealed(content, file)
    if hashlib.sha256(graph).hexdigest().encode() != given:
        raise MrkneeError(
            "the model is damaged, or was changed after its export",
            file=file,
            expected=f"sha256 {given.decode(errors='replace')}",
            found=f"sha256 {hashlib.sha256(graph).hexdigest()}",
            advice="copy it again, or export it again",
        )
    return content, _facts(_metadata(content, file), file)


def _refuse_unsealed(content: bytes, file: Path) -> None:
    """Says which it is: another's ONNX file, one of ours that was changed, or no ONNX file."""
    metadata = _metadata(content, file)
    if METADATA in metadata:
        raise MrkneeError(
            "the model was changed after its export",
            file=file,
            expected="the file as `mrknee export` wrote it",
            found="mrknee's metadata without its seal",
            advice="export it again",
        )
    raise MrkneeError(
        "this ONNX file is not one that mrknee wrote",
        file=file,
        expected="a file from `mrknee export`",
        found="metadata: " + (", ".join(metadata) or "none"),
    )


def _metadata(content: bytes, file: Path) -> dict[str, str]:
    """The metadata of an ONNX file, whoever wrote it."""
    metadata, graphs = {}, 0
    try:
        for number, value in _fields(memoryview(content)):
            graphs += number == _GRAPH
            if number == _METADATA_PROPS:
                entry = {part: bytes(text).decode() for part, text in _fields(value)}
                metadata[entry.get(_KEY, "")] = entry.get(_VALUE, "")
        fault = "" if graphs else "no graph"
    except ValueError as error:
        fault = str(error)
    if fault:
        raise MrkneeError(
            "this is no ONNX file, or a damaged one",
            file=file,
            expected="a run folder, or an ONNX file that `mrknee export` wrote",
            found=f"{len(content)} bytes: {fault}",
            advice="copy it again, or export it again",
        )
    return metadata


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and bytes of each field of a protobuf message; plain numbers are passed over.

    Raises:
        ValueError: the bytes are no such message.
    """
    at = 0

    def integer() -> int:
        nonlocal at
        value = 0
        for shift in range(0, 70, 7):  # 64 bits, 7 a byte
            if at == len(message):
                break
            byte, at = message[at], at + 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ValueError(f"no protobuf message at byte {at}")

    while at < len(message):
        key, size = integer(), integer()
        if key & 7 == _NUMBER:
            continue
        if key & 7 != _BYTES or size > len(message) - at:
            raise ValueError(f"no protobuf message at byte {at}")
        yield key >> 3, message[at : at + size]
        at += size


def _facts(metadata: dict[str, str], file: Path) -> dict[str, Any]:
    """What the file's metadata say, its parts of the right types."""
    facts = json.loads(metadata.get(METADATA, "{}"))
    if facts.get("format") != FORMAT:
        raise MrkneeError(
            "the exported model has an unknown format",
            file=file,
            expected=f"format {FORMAT}",
            found=f"format {facts.get('format')}",
            advice="use the version of mrknee that exported it, or export it again",
        )
    for name, kind in _KINDS.items():
        if not isinstance(facts.get(name), kind):
            raise MrkneeError(
                "the exported model's metadata lacks a part",
                file=file,
                expected=f"{name!r} as a {kind.__name__}",
                found=repr(facts.get(name, "nothing")),
                advice="export it again",
            )
    return dict(facts)
