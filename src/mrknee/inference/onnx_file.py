"""The format of exported models: an ONNX file with metadata and a checksum.

The metadata entry `mrknee` contains, as JSON, the description that a run folder has in model.json.
The last metadata entry is the sha256 of all preceding bytes, so that damaged files are refused;
other software ignores it. It can be appended because an ONNX file is a protobuf message, and
concatenated messages form one message. Reading doesn't depend on the runtime that computes the
graph.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mrknee.errors import ModelError
from mrknee.inference.onnx_graph import metadata_of, model_proto, parse, refuse_strange
from mrknee.models.description import FINITE, SWITCH, Row, Shape, check_model
from mrknee.untrusted import DESCRIPTION_BYTES, parse_json, read_bytes

FORMAT = 1
"""Version of the inputs, outputs and metadata that `export` writes and `read_exported` reads."""

METADATA = "mrknee"
"""The key of the JSON description in the file's metadata."""

SEAL = "mrknee_sha256"
"""The key of the sha256 in the file's metadata."""

_MAX_BYTES = 2**31 - 1  # maximum size of a protobuf message

_PARTS: dict[str, Shape] = {
    "bias": Row(FINITE),
    "attention_fixed": SWITCH,
}
"""Parts of the metadata that the model.json of a run folder doesn't contain."""


def seal(graph: bytes) -> bytes:
    """Returns the file's bytes with their sha256 appended as the last metadata entry."""
    return graph + _digest_of(graph)


def _digest_of(graph: bytes | memoryview) -> bytes:
    """Returns the metadata entry with the sha256; its length is the same for any graph."""
    last = model_proto()()
    last.metadata_props.add(key=SEAL, value=hashlib.sha256(graph).hexdigest())
    return bytes(last.SerializeToString())


def read_exported(file: str | Path) -> tuple[bytes, dict[str, Any]]:
    """Reads and validates an exported model; returns its bytes and its description.

    Raises:
        MrkneeError: the file doesn't exist, isn't an ONNX file, wasn't written by mrknee, was
            damaged or changed, has another format version, or has metadata or a graph with
            contents that `mrknee export` never writes.
    """
    file = Path(file)
    content = read_bytes(file, "model", at_most=_MAX_BYTES, kind=ModelError)
    try:
        model = parse(content)
        metadata = metadata_of(model)
    except ValueError as fault:
        raise ModelError(
            "this is no ONNX file, or a damaged one",
            code="not-onnx",
            file=file,
            expected="a run folder, or an ONNX file that `mrknee export` wrote",
            found=f"{len(content)} bytes: {fault}",
            advice="copy it again, or export it again",
        ) from None
    _refuse_changed(content, metadata, file)
    facts = _facts(metadata, file)
    try:
        refuse_strange(content, model)
    except ValueError as fault:
        raise ModelError(
            "the exported model's graph holds what `mrknee export` never writes",
            code="graph",
            file=file,
            expected="tensors that lie in the file, and known operators of ONNX's own, no loop",
            found=str(fault),
            advice="don't use this file; export the model again from its run folder",
        ) from None
    return content, facts


def _refuse_changed(content: bytes, metadata: Mapping[str, str], file: Path) -> None:
    """Refuses a file of another program, and a file with a wrong checksum."""
    if METADATA not in metadata:
        raise ModelError(
            "this ONNX file is not one that mrknee wrote",
            code="not-ours",
            file=file,
            expected="a file from `mrknee export`",
            found="metadata: " + (", ".join(metadata) or "none"),
        )
    length = len(_digest_of(b""))
    if content[-length:] != _digest_of(memoryview(content)[:-length]):
        raise ModelError(
            "the model is damaged, or was changed after its export",
            code="damaged",
            file=file,
            expected="the file as `mrknee export` wrote it",
            found="bytes of another sha256" if SEAL in metadata else "no sha256",
            advice="copy it again, or export it again",
        )


def _facts(metadata: dict[str, str], file: Path) -> dict[str, Any]:
    """Parses and validates the JSON description in the metadata."""
    text = metadata.get(METADATA, "{}")
    if len(text) > DESCRIPTION_BYTES:
        raise ModelError(
            "the exported model's metadata are too large",
            code="metadata",
            file=file,
            expected=f"at most {DESCRIPTION_BYTES:,} characters",
            found=f"{len(text):,}",
        )
    facts = parse_json(text, file, "exported model's metadata", kind=ModelError)
    version = facts.get("format") if isinstance(facts, dict) else None
    if type(version) is not int or version != FORMAT:  # 1.0 and true are refused too
        raise ModelError(
            "the exported model has an unknown format",
            code="format",
            file=file,
            expected=f"format {FORMAT}",
            found=f"format {version}",
            advice="use the version of mrknee that exported it, or export it again",
        )
    check_model(facts, _PARTS, file)
    if len(facts["bias"]) != len(facts["findings"]):
        raise ModelError(
            "the exported model's metadata contradicts itself",
            code="metadata",
            file=file,
            expected="a bias for each finding",
            found=f"{facts['findings']}, {facts['bias']}",
            advice="export it again",
        )
    return dict(facts)
