"""Malformed ONNX files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mrknee.inference.onnx_file import METADATA, seal
from tests.hostile.case import PICKLE, Case, content, cuts
from tests.hostile.recipes import broken_json

PLANES = ("axial", "coronal", "sagittal")
FACTS: dict[str, Any] = {
    "format": 1,
    "findings": ["acl"],
    "preparation": {"size": 48, "crop": 32, "mean": 58.09, "sd": 49.73},
    "provenance": {},
    "decisions": {},
    "bias": [0.0],
    "attention_fixed": False,
}


def graph(
    nodes: list[onnx.NodeProto] | None = None,
    initializers: list[onnx.TensorProto] | None = None,
    inputs: tuple[str, ...] = PLANES,
    kind: int = TensorProto.UINT8,
    logits: str = "value",
    value: tuple[float, ...] = (0.5,),
    heat: tuple[int, ...] | None = None,
) -> bytes:
    """Returns a model with the inputs and outputs of an exported one; all outputs are constant.

    If `heat`, a shape, is given, the heat maps have this shape and are 0.
    """
    source = {"logits": logits, **{f"heat_{p}": "cold" for p in PLANES if heat is not None}}
    names = ["logits", "probabilities", *(f"heat_{plane}" for plane in PLANES)]
    model = helper.make_model(
        helper.make_graph(
            (nodes or [])
            + [helper.make_node("Identity", [source.get(name, "value")], [name]) for name in names],
            "g",
            [
                *(helper.make_tensor_value_info(n, kind, [None, None, None]) for n in inputs),
                helper.make_tensor_value_info("present", TensorProto.FLOAT, [3]),
            ],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names],
            [
                numpy_helper.from_array(np.array(value, np.float32), "value"),
                numpy_helper.from_array(np.ones(3, np.float32), "present"),
                numpy_helper.from_array(np.zeros(heat or (), np.float32), "cold"),
                *(initializers or []),
            ],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    return bytes(model.SerializeToString())


def finished(body: bytes, metadata: str | dict[str, Any] = FACTS, *, sealed: bool = True) -> bytes:
    """Returns the file with its metadata and, if `sealed`, its checksum."""
    more = onnx.ModelProto()
    text = metadata if isinstance(metadata, str) else json.dumps(metadata)
    more.metadata_props.append(onnx.StringStringEntryProto(key=METADATA, value=text))
    whole = body + more.SerializeToString()
    return seal(whole) if sealed else whole


GOOD = finished(graph())


def cases() -> Iterator[Case]:
    """Yields all malformed ONNX files."""
    yield from cuts("onnx", GOOD, [0, 2, 20, len(graph()), len(GOOD) // 2, len(GOOD)])
    for name, text in broken_json(json.dumps(FACTS, indent=1)).items():
        if isinstance(text, str):  # metadata can only contain text
            yield Case("onnx", name, content(finished(graph(), text)))
    yield from _files()
    yield from _facts()
    yield from _strange()
    yield from _graphs()


def _files() -> Iterator[Case]:
    flipped = bytearray(GOOD)
    flipped[30] ^= 1
    for name, data in {
        "one bit": bytes(flipped),
        "a model of another program": graph(),
        "no checksum": finished(graph(), sealed=False),
        "a byte after the checksum": GOOD + b"\0",
        "two checksums": seal(GOOD + b"\0"),
        "pickle": PICKLE,
        "pickle with a checksum": seal(PICKLE),
        "text": b"model",
        "nothing but a checksum": seal(b""),
        "zeros": bytes(1000),
        "ones": b"\xff" * 1000,
        "a varint of 1000 bytes": b"\x80" * 1000,
        "a field of 2^60 bytes": b"\x3a" + b"\xff" * 8 + b"\x0f",
        "metadata twice": finished(finished(graph(), sealed=False)),
        "metadata that is not text": seal(graph() + b"\x72\x04\x0a\x02\xff\xfe"),
    }.items():
        yield Case("onnx", name, content(data))
    yield Case("onnx", "a pipe", os.mkfifo, "regular file")
    yield Case("onnx", "an endless device", lambda p: p.symlink_to("/dev/zero"), "regular file")
    yield Case("onnx", "a broken link", lambda p: p.symlink_to("nothing"), "missing")


def _facts() -> Iterator[Case]:
    for key in FACTS:
        rest = {name: value for name, value in FACTS.items() if name != key}
        yield Case("onnx", f"no {key}", content(finished(graph(), json.dumps(rest))))
        other = json.dumps({**rest, key: 7.5})
        yield Case("onnx", f"{key} of another kind", content(finished(graph(), other)))
    preparation = FACTS["preparation"]
    changes: dict[str, dict[str, Any]] = {
        "findings of numbers": {"findings": [1]},
        "a finding twice": {"findings": ["acl", "acl"]},
        "one bias too many": {"bias": [0.0, 1.0]},
        "a bias as text": {"bias": ["0"]},
        "a bias of lists": {"bias": [[]]},
        "a preparation of 10^9 pixels": {"preparation": {**preparation, "size": 10**9}},
        "an unknown setting of the preparation": {"preparation": {**preparation, "turn": 1}},
        "a preparation as text": {"preparation": {**preparation, "mean": "dark"}},
        "a mean of 10^400": {"preparation": {**preparation, "mean": 10**400}},
        "a lone surrogate": {"provenance": {"data": "\ud800"}},
        "a threshold of 2": {
            "decisions": {
                "operating_points": {
                    "acl": [
                        {
                            "rule": "Youden",
                            "threshold": 2,
                            "n_positive": 1,
                            "n_negative": 1,
                            "reason": None,
                        }
                    ]
                }
            }
        },
        "a recipe of text": {"provenance": {"recipe": "default"}},
        "format true": {"format": True},
        "a bias of 10^400": {"bias": [10**400]},
    }
    for name, change in changes.items():
        text = json.dumps({**FACTS, **change})
        yield Case("onnx", name, content(finished(graph(), text)))


def _outside() -> onnx.TensorProto:
    """Returns a tensor whose values are in another file."""
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "outside")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../../../etc/passwd"
    return tensor


def _branch(*tensors: onnx.TensorProto, nodes: tuple[onnx.NodeProto, ...] = ()) -> onnx.GraphProto:
    out = helper.make_tensor_value_info("b", TensorProto.FLOAT, None)
    nodes = (*nodes, helper.make_node("Identity", ["value"], ["b"]))
    return helper.make_graph(list(nodes), "branch", [], [out], list(tensors))


def _with(change: Callable[[onnx.ModelProto], object]) -> Callable[[], bytes]:
    def body() -> bytes:
        model = onnx.ModelProto.FromString(graph())
        change(model)
        return bytes(model.SerializeToString())

    return body


def _merged(change: Callable[[onnx.ModelProto], object]) -> Callable[[], bytes]:
    """Returns the change as a second message after the graph's: protobuf merges the two."""

    def body() -> bytes:
        more = onnx.ModelProto()
        change(more)
        return graph() + bytes(more.SerializeToString())

    return body


def _strange() -> Iterator[Case]:
    """Yields files with correct checksum and metadata, and a graph that export never writes."""
    yes = numpy_helper.from_array(np.array(True), "yes")
    loop = helper.make_node("Loop", ["", "yes", "value"], ["x"], body=_branch())
    inner = helper.make_node("If", ["yes"], ["i"], then_branch=_branch(), else_branch=_branch())
    inner.attribute[0].g.initializer.append(_outside())
    deep = helper.make_node("If", ["yes"], ["o"], then_branch=_branch(nodes=(inner,)))
    sparse = onnx.SparseTensorProto(dims=[4])
    sparse.values.CopyFrom(_outside())
    small = numpy_helper.from_array(np.zeros(1, np.float32), "small")
    far = onnx.TensorProto(name="far", data_type=1, dims=[4], data_location=TensorProto.EXTERNAL)

    def node(kind: str, domain: str = "", **given: Any) -> onnx.NodeProto:  # noqa: ANN401
        return helper.make_node(kind, ["value"], ["x"], domain=domain, **given)

    def trained(model: onnx.ModelProto) -> None:
        model.training_info.add().initialization.initializer.append(_outside())

    def function(model: onnx.ModelProto) -> None:
        function = model.functions.add(name="f", domain="own")
        function.node.append(node("Constant", value=_outside()))

    bodies: dict[str, Callable[[], bytes]] = {
        "a tensor from another file": lambda: graph([], [_outside()]),
        "a tensor from an unnamed file": lambda: graph([], [far]),
        "a tensor from another file in a branch": _with(
            lambda model: model.graph.node.extend([deep])
        ),
        "a tensor from another file as a constant": lambda: graph(
            [node("Constant", value=_outside())]
        ),
        "tensors from other files in an attribute": lambda: graph(
            [node("Identity", many=[small, _outside()])]
        ),
        "a sparse tensor": _with(lambda model: model.graph.sparse_initializer.append(sparse)),
        "a sparse constant": lambda: graph([node("Constant", sparse_value=sparse)]),
        "a function": _with(function),
        "training information": _with(trained),
        "a tensor from another file after the graph": _merged(
            lambda model: model.graph.initializer.append(_outside())
        ),
        "an unknown operator": lambda: graph([node("System", domain="evil")]),
        "an operator of another domain": lambda: graph([node("FusedConv", domain="com.microsoft")]),
        "an operator with two names": lambda: graph([node("Identity"), node("Identity\0")]),
        "a loop": lambda: graph([loop], [yes]),
        "a loop in a branch": lambda: graph(
            [helper.make_node("If", ["yes"], ["o"], then_branch=_branch(nodes=(loop,)))], [yes]
        ),
        "a scan": lambda: graph([node("Scan", body=_branch(), num_scan_inputs=1)]),
        "random numbers": lambda: graph([node("RandomNormalLike")]),
    }
    for name, body in bodies.items():
        yield Case("onnx", name, content(finished(body())), "never writes")
    for mark in (b"ORTM", b"TFL3"):  # in an unknown field, before the graph
        strange = bytes([0x82, 0x7D, 4 + 1]) + b"\0" + mark + graph()
        yield Case(
            "onnx", f"the mark {mark.decode()}", content(finished(strange)), "another format"
        )
    deepest = _branch()
    for _ in range(24):
        inside = helper.make_node("If", ["yes"], ["o"])
        inside.attribute.append(helper.make_attribute("then_branch", deepest))
        deepest = _branch(nodes=(inside,))
    nested = _with(lambda model: model.graph.node.extend(deepest.node))
    yield Case("onnx", "24 nested branches", content(finished(nested())), "branches")


def _graphs() -> Iterator[Case]:
    """Yields files with correct checksum and metadata, so that ONNX Runtime reads the graph."""
    huge = helper.make_tensor("huge", TensorProto.FLOAT, [1], [0.0])
    huge.dims[0] = 10**12
    bodies: dict[str, Callable[[], bytes]] = {
        "a graph with other inputs": lambda: graph(inputs=("x",)),
        "a graph with other types": lambda: graph(kind=TensorProto.FLOAT),
        "a tensor that states 10^12 elements": lambda: graph(
            [helper.make_node("Identity", ["huge"], ["x"])], [huge]
        ),
        "a cycle": lambda: graph(
            [
                helper.make_node("Identity", ["b"], ["a"]),
                helper.make_node("Identity", ["a"], ["b"]),
            ]
        ),
        "an undefined input": lambda: graph([helper.make_node("Identity", ["none"], ["x"])]),
    }
    for name, body in bodies.items():
        yield Case("onnx", name, content(finished(body())))
    size = numpy_helper.from_array(np.array([10**12]), "size")
    filled = helper.make_node("ConstantOfShape", ["size"], ["x"])
    nodes = [
        filled,
        helper.make_node("ReduceSum", ["x"], ["y"]),
        helper.make_node("Add", ["y", "value"], ["much"]),
    ]
    bomb = graph(nodes, [size], logits="much")
    yield Case("exam", "10^12 constant numbers", content(finished(bomb)), "can't compute an exam")
    for name, value in (
        ("NaN", (float("nan"),)),
        ("two numbers", (0.5, 0.5)),
        ("1.5", (1.5,)),
        ("no number", ()),
    ):
        data = finished(graph(value=value))
        yield Case(
            "exam", f"{name} as a probability", content(data), "values that are not probabilities"
        )
    two = helper.make_node("Concat", ["axial", "coronal"], ["x"], axis=0)
    cast = helper.make_node("Cast", ["x"], ["much"], to=TensorProto.FLOAT)
    other = graph([two, cast], logits="much")
    yield Case("exam", "planes of one size only", content(finished(other)), "can't compute an exam")
