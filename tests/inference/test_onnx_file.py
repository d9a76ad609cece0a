from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import ModelProto, StringStringEntryProto, helper

from mrknee.errors import MrkneeError
from mrknee.inference.onnx_file import FORMAT, METADATA, read_exported, seal

FACTS = {
    "format": FORMAT,
    "findings": ["acl"],
    "preparation": {"size": 48, "crop": 32, "mean": 58.09, "sd": 49.73},
    "provenance": {"data": "knees, naïve"},
    "decisions": {},
    "bias": [0.5],
    "attention_fixed": False,
}

IN_PLACE = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def small_file(**changes: object) -> ModelProto:
    """Returns a small model written by the ONNX library, with our metadata."""
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [], [])
    model = helper.make_model(graph, producer_name="p" * 300)  # sizes of more than one byte
    text = json.dumps({**FACTS, **changes})
    model.metadata_props.append(StringStringEntryProto(key="other", value=""))
    model.metadata_props.append(StringStringEntryProto(key=METADATA, value=text))
    return model


def test_metadata_are_read_as_onnx_wrote_them(tmp_path: Path) -> None:
    """Metadata with characters beyond ASCII are read among other entries."""
    file = tmp_path / "model.onnx"
    content = seal(small_file().SerializeToString())
    file.write_bytes(content)
    assert read_exported(file) == (content, FACTS)


@IN_PLACE
@given(st.integers(min_value=0))
def test_a_file_truncated_anywhere_is_refused(tmp_path: Path, length: int) -> None:
    """A truncated file raises a MrkneeError, whatever its length."""
    content = seal(small_file().SerializeToString())
    file = tmp_path / "model.onnx"
    file.write_bytes(content[: length % len(content)])
    with pytest.raises(MrkneeError):
        read_exported(file)


@IN_PLACE
@given(st.binary(max_size=200), st.binary(max_size=20))
def test_any_bytes_are_refused(tmp_path: Path, before: bytes, after: bytes) -> None:
    """Noise, and noise before and after a valid file, raise a MrkneeError."""
    file = tmp_path / "model.onnx"
    sound = small_file().SerializeToString()
    for content in (before, before + seal(sound) + after + b"\0", seal(before)):
        file.write_bytes(content)
        with pytest.raises(MrkneeError):
            read_exported(file)
