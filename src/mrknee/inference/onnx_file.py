"""The file that `mrknee export` writes: a graph, what is known of it, and a seal.

It is an ONNX file. Its metadata hold under `mrknee`, as JSON, what a run folder's model.json says.
Behind the graph lies a seal, the sha256 of all that comes before it, as one more entry of the
metadata (an ONNX file is a protobuf message, and messages written one behind the other are one
message): a damaged file is refused, and other software ignores the seal. Reading it needs no
package of ONNX's, so it is the same whatever computes the graph.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from mrknee.errors import ModelError
from mrknee.inference.onnx_graph import refuse_strange
from mrknee.inference.onnx_metadata import ENTRY, KEY, VALUE, read_metadata
from mrknee.networks.description import FINITE, SWITCH, Row, Shape, check_model
from mrknee.untrusted import DESCRIPTION_BYTES, parse_json, read_bytes

FORMAT = 1
"""Version of the inputs, outputs and metadata that this file reads and `export` writes."""

METADATA = "mrknee"
"""The key of our JSON in the file's metadata."""

SEAL = "mrknee_sha256"
"""The key of the seal in the file's metadata."""

_DIGITS = hashlib.sha256().digest_size * 2

_BYTES = 2  # protobuf's wire type of what has a length
_SEAL_HEAD = (
    bytes([ENTRY << 3 | _BYTES, 4 + len(SEAL) + _DIGITS, KEY << 3 | _BYTES, len(SEAL)])
    + SEAL.encode()
    + bytes([VALUE << 3 | _BYTES, _DIGITS])
)
_MAX_BYTES = 2**31 - 1  # of a protobuf message

_PARTS: dict[str, Shape] = {
    "bias": Row(FINITE),
    "attention_fixed": SWITCH,
}
"""What the metadata hold beside what a run folder's model.json holds too."""


def seal(graph: bytes) -> bytes:
    """The file's bytes with the seal behind them."""
    return graph + _SEAL_HEAD + hashlib.sha256(graph).hexdigest().encode()


def read_exported(file: str | Path) -> tuple[bytes, dict[str, Any]]:
    """An exported model's bytes, and what its metadata say.

    Raises:
        MrkneeError: no such file, no ONNX file, one that mrknee didn't write or that was changed,
            a damaged one, one of another format, or one whose metadata or graph hold what
            `mrknee export` never writes.
    """
    file = Path(file)
    content = read_bytes(file, "model", at_most=_MAX_BYTES, kind=ModelError)
    graph, given = content[: -len(_SEAL_HEAD) - _DIGITS], content[-_DIGITS:]
    if content[len(graph) : -_DIGITS] != _SEAL_HEAD:
        _refuse_unsealed(content, file)
    if hashlib.sha256(graph).hexdigest().encode() != given:
        raise ModelError(
            "the model is damaged, or was changed after its export",
            code="damaged",
            file=file,
            expected=f"sha256 {given.decode(errors='replace')}",
            found=f"sha256 {hashlib.sha256(graph).hexdigest()}",
            advice="copy it again, or export it again",
        )
    facts = _facts(_metadata(content, file), file)
    try:
        refuse_strange(content)
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


def _refuse_unsealed(content: bytes, file: Path) -> None:
    """Says which it is: another's ONNX file, one of ours that was changed, or no ONNX file."""
    metadata = _metadata(content, file)
    if METADATA in metadata:
        raise ModelError(
            "the model was changed after its export",
            code="damaged",
            file=file,
            expected="the file as `mrknee export` wrote it",
            found="mrknee's metadata without its seal",
            advice="export it again",
        )
    raise ModelError(
        "this ONNX file is not one that mrknee wrote",
        code="not-ours",
        file=file,
        expected="a file from `mrknee export`",
        found="metadata: " + (", ".join(metadata) or "none"),
    )


def _metadata(content: bytes, file: Path) -> dict[str, str]:
    """The metadata of an ONNX file, whoever wrote it; judged before the graph is loaded."""
    try:
        return read_metadata(content)
    except ValueError as fault:
        raise ModelError(
            "this is no ONNX file, or a damaged one",
            code="not-onnx",
            file=file,
            expected="a run folder, or an ONNX file that `mrknee export` wrote",
            found=f"{len(content)} bytes: {fault}",
            advice="copy it again, or export it again",
        ) from None


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
