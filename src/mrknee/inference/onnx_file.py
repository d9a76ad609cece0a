"""The file that `mrknee export` writes: a graph, what is known of it, and a digest.

It is an ONNX file. Its metadata hold under `mrknee`, as JSON, what a run folder's model.json says.
Its last entry of the metadata is the sha256 of all that comes before it (an ONNX file is a protobuf
message, and messages written one behind the other are one message): a damaged file is refused, and
other software ignores the digest. Reading is the same whatever computes the graph.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mrknee.errors import ModelError
from mrknee.inference.onnx_graph import metadata_of, model_proto, parse, refuse_strange
from mrknee.networks.description import FINITE, SWITCH, Row, Shape, check_model
from mrknee.untrusted import DESCRIPTION_BYTES, parse_json, read_bytes

FORMAT = 1
"""Version of the inputs, outputs and metadata that this file reads and `export` writes."""

METADATA = "mrknee"
"""The key of our JSON in the file's metadata."""

SEAL = "mrknee_sha256"
"""The key of the sha256 in the file's metadata."""

_MAX_BYTES = 2**31 - 1  # of a protobuf message

_PARTS: dict[str, Shape] = {
    "bias": Row(FINITE),
    "attention_fixed": SWITCH,
}
"""What the metadata hold beside what a run folder's model.json holds too."""


def seal(graph: bytes) -> bytes:
    """The file's bytes with their digest as the last entry of the metadata."""
    return graph + _digest_of(graph)


def _digest_of(graph: bytes | memoryview) -> bytes:
    """The entry of the metadata that holds the sha256; it has the same length for any graph."""
    last = model_proto()()
    last.metadata_props.add(key=SEAL, value=hashlib.sha256(graph).hexdigest())
    return bytes(last.SerializeToString())


def read_exported(file: str | Path) -> tuple[bytes, dict[str, Any]]:
    """An exported model's bytes, and what its metadata say.

    Raises:
        MrkneeError: no such file, no ONNX file, one that mrknee didn't write or that was changed,
            a damaged one, one of another format, or one whose metadata or graph hold what
            `mrknee export` never writes.
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
    """Refuses another program's file, and one whose digest is not that of its bytes."""
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
    """What the file's metadata say, its parts of the right types."""
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
    if type(version) is not int or version != FORMAT:  # neither 1.0 nor true
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
