from __future__ import annotations

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrknee.inference.onnx_metadata import read_metadata

TEXT = st.text(st.characters(codec="utf-8"))


@given(
    metadata=st.dictionaries(TEXT, TEXT), producer=TEXT, version=st.integers(-(2**63), 2**63 - 1)
)
def test_it_reads_what_onnx_writes(metadata: dict[str, str], producer: str, version: int) -> None:
    """Any keys and values, among other fields of every kind, as the library itself wrote them."""
    model = onnx.ModelProto(producer_name=producer, model_version=version, ir_version=9)
    model.graph.name = "g"
    for key, value in metadata.items():
        model.metadata_props.append(onnx.StringStringEntryProto(key=key, value=value))
    assert read_metadata(model.SerializeToString()) == metadata


@given(content=st.binary())
def test_anything_else_is_a_value_error(content: bytes) -> None:
    """Bytes that are no message, or one without a graph, raise ValueError and nothing else."""
    try:
        read_metadata(content)
    except ValueError:
        return
    assert onnx.ModelProto.FromString(content).HasField("graph")


def test_a_key_twice_is_refused() -> None:
    """Which of the two holds is nobody's guess."""
    model = onnx.ModelProto()
    model.graph.name = "g"
    for _ in range(2):
        model.metadata_props.append(onnx.StringStringEntryProto(key="a", value="b"))
    with pytest.raises(ValueError, match="twice"):
        read_metadata(model.SerializeToString())
