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

from mrknee.errors import MrkneeError
from mrknee.exams import Findings
from mrknee.inference.onnx_metadata import ENTRY, KEY, VALUE, read_metadata
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


def read_exported(file: str | Path) -> tuple[bytes, dict[str, Any]]:
    """An exported model's bytes, and what its metadata say.

    Raises:
        MrkneeError: no such file, no ONNX file, one that mrknee didn't write or that was changed,
            a damaged one, or one of another format.
    """
    file = Path(file)
    content = read_bytes(file, "model", at_most=_MAX_BYTES)
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
    """The metadata of an ONNX file, whoever wrote it; judged before the graph is loaded."""
    try:
        return read_metadata(content)
    except ValueError as fault:
        raise MrkneeError(
            "this is no ONNX file, or a damaged one",
            file=file,
            expected="a run folder, or an ONNX file that `mrknee export` wrote",
            found=f"{len(content)} bytes: {fault}",
            advice="copy it again, or export it again",
        ) from None


def _facts(metadata: dict[str, str], file: Path) -> dict[str, Any]:
    """What the file's metadata say, its parts of the right types."""
    text = metadata.get(METADATA, "{}")
    if len(text) > DESCRIPTION_BYTES:
        raise MrkneeError(
            "the exported model's metadata are too large",
            file=file,
            expected=f"at most {DESCRIPTION_BYTES:,} characters",
            found=f"{len(text):,}",
        )
    facts = parse_json(text, file, "exported model's metadata")
    version = facts.get("format") if isinstance(facts, dict) else None
    if version != FORMAT:
        raise MrkneeError(
            "the exported model has an unknown format",
            file=file,
            expected=f"format {FORMAT}",
            found=f"format {version}",
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
    findings, bias = Findings(facts["findings"]), facts["bias"]
    if list(findings) != facts["findings"] or [*map(type, bias)] != [float] * len(findings):
        raise MrkneeError(
            "the exported model's metadata contradicts itself",
            file=file,
            expected=f"findings in the order {', '.join(findings)}, and a bias for each",
            found=f"{facts['findings']}, {bias}",
            advice="export it again",
        )
    return dict(facts)
