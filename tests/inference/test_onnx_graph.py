"""Checks of ONNX graphs; malformed files of every kind are in tests/hostile/exported.py."""

from __future__ import annotations

import subprocess
import sys

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from mrknee.inference.onnx_graph import OPERATORS, metadata_of, parse, refuse_strange
from tests.hostile.exported import graph


def test_every_operator_of_the_list_is_onnx_own() -> None:
    """Every name on the list is an operator of ONNX."""
    known = {one.name for one in onnx.defs.get_all_schemas() if one.domain == ""}
    newer = {"Attention", "RMSNormalization", "Swish"}  # of opsets that older versions of onnx lack
    assert known | newer >= OPERATORS
    assert not OPERATORS & {"Loop", "Scan", "SequenceMap", "RandomNormal", "ImageDecoder"}


TEXT = st.text(st.characters(codec="utf-8"))


@given(
    metadata=st.dictionaries(TEXT, TEXT), producer=TEXT, version=st.integers(-(2**63), 2**63 - 1)
)
def test_metadata_are_read_as_onnx_writes_them(
    metadata: dict[str, str], producer: str, version: int
) -> None:
    """Any keys and values are read as the library wrote them."""
    model = onnx.ModelProto(producer_name=producer, model_version=version, ir_version=9)
    model.graph.name = "g"
    for key, value in metadata.items():
        model.metadata_props.append(onnx.StringStringEntryProto(key=key, value=value))
    assert metadata_of(parse(model.SerializeToString())) == metadata


def test_a_key_twice_is_refused() -> None:
    """A key that occurs twice is ambiguous."""
    model = onnx.ModelProto()
    model.graph.name = "g"
    for _ in range(2):
        model.metadata_props.append(onnx.StringStringEntryProto(key="a", value="b"))
    with pytest.raises(ValueError, match="twice"):
        metadata_of(parse(model.SerializeToString()))


@given(st.binary())
def test_any_bytes_are_checked_or_raise_a_value_error(content: bytes) -> None:
    """No other error is raised, whatever the bytes."""
    try:
        model = parse(content)
        metadata_of(model)
        refuse_strange(content, model)
    except ValueError:
        return
    assert onnx.ModelProto.FromString(content).HasField("graph")


@pytest.mark.parametrize("location", [1, 2**32 + 1, 2**63 + 1])
def test_a_location_of_any_length_is_detected(location: int) -> None:
    """Protobuf truncates long numbers: it reads 2^32 + 1 as 1, which means another file."""
    tensor = helper.make_tensor("far", TensorProto.FLOAT, [1], [0.0]).SerializeToString()
    digits, rest = [], location
    while rest > 127:
        digits.append(rest & 127 | 128)
        rest >>= 7
    tensor += bytes([14 << 3, *digits, rest])
    inside = bytes([5 << 3 | 2, len(tensor)]) + tensor  # GraphProto.initializer
    content = graph() + bytes([7 << 3 | 2, len(inside)]) + inside
    with pytest.raises(ValueError, match="another file"):
        refuse_strange(content, parse(content))


def test_a_field_number_that_would_be_truncated_is_refused() -> None:
    """Protobuf would read the tag of a sparse initializer plus 2^32 as this tag."""
    tag, digits = 2**32 + (15 << 3 | 2), []
    while tag > 127:
        digits.append(tag & 127 | 128)
        tag >>= 7
    inside = bytes([*digits, tag, 0])
    with pytest.raises(ValueError, match="parsing"):
        parse(graph() + bytes([7 << 3 | 2, len(inside)]) + inside)


@pytest.mark.slow
def test_reading_imports_the_generated_file_only() -> None:
    """Reading doesn't import the package `onnx`, which is slow; both can be used together."""
    code = """
import sys
from mrknee.inference.onnx_graph import model_proto, parse
one = model_proto()(ir_version=9)
one.graph.name = "g"
assert parse(one.SerializeToString()).graph.name == "g"
assert "onnx" not in sys.modules
import subprocess
import sys

import onnx
assert onnx.load_from_string(one.SerializeToString()).graph.name == "g"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)  # noqa: S603
    assert done.returncode == 0, done.stderr
