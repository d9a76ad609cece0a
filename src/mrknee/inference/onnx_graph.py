"""Validation of an exported model's graph, before a runtime loads it.

A graph can name files that a runtime opens (external data), define functions, or loop endlessly.
`mrknee export` writes none of these, so they are refused: tensors must be stored in the file,
operators must be in a list of known ones, and `If` is the only control flow.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

OPERATORS = frozenset(
    """
    Abs Add And ArgMax ArgMin Attention AveragePool BatchNormalization Cast CastLike Ceil Clip
    Concat Constant ConstantOfShape Conv ConvTranspose Cos CumSum DepthToSpace DequantizeLinear Div
    Einsum Elu Equal Erf Exp Expand Flatten Floor Gather GatherElements GatherND Gelu Gemm
    GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GroupNormalization HardSigmoid HardSwish
    Identity If InstanceNormalization IsInf IsNaN LRN LayerNormalization LeakyRelu Less LessOrEqual
    Log LogSoftmax LpNormalization MatMul Max MaxPool Mean Min Mish Mod Mul Neg Not OneHot Or PRelu
    Pad Pow QuantizeLinear RMSNormalization Range Reciprocal ReduceL1 ReduceL2 ReduceLogSumExp
    ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize Round
    ScatterElements ScatterND Selu Shape Sigmoid Sign Sin Size Slice Softmax Softplus Softsign
    SpaceToDepth Split Sqrt Squeeze Sub Sum Swish Tanh Tile TopK Transpose Trilu Unsqueeze Where Xor
    """.split()  # noqa: SIM905  # as a list, the names would fill three pages
)
"""Names of ONNX's operators that exported image encoders use. Excluded are loops (Loop, Scan,
SequenceMap), random numbers, text, sequences, optional values and image decoders."""

DOMAINS = ("", "ai.onnx")
"""Allowed domains of operators: the two names of ONNX's standard domain."""

_DEEPEST = 20  # maximum nesting of graphs in branches; exported graphs have one level

_FORMATS = {b"ORTM": "ONNX Runtime's own", b"TFL3": "TensorFlow Lite's"}
"""Formats that runtimes recognise by bytes 4 to 7; an ONNX file may contain the same bytes."""

_NEVER = {
    "SparseTensorProto": "a sparse tensor",
    "FunctionProto": "functions of its own",
    "TrainingInfoProto": "training information",
}
"""Messages of onnx.proto that `mrknee export` never writes."""


@cache
def model_proto() -> Any:  # noqa: ANN401 - a class that protobuf creates
    """Returns the message class of ONNX files, `onnx.ModelProto`.

    It is loaded from the module that protobuf generated for the package `onnx`. Importing the
    package itself would also load its checker, helpers and reference evaluator, which takes longer
    than reading a model.
    """
    package = importlib.util.find_spec("onnx")
    file = Path(str(package and package.origin)).with_name("onnx_ml_pb2.py")
    spec = importlib.util.spec_from_file_location("mrknee_onnx_ml_pb2", file)
    if spec is None or spec.loader is None or not file.is_file():
        from onnx import ModelProto  # a version of onnx with another file layout

        return ModelProto
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ModelProto


def parse(content: bytes) -> Any:  # noqa: ANN401 - an `onnx.ModelProto`
    """Parses the bytes of an ONNX file, without opening any external file.

    Raises:
        ValueError: the bytes are not a protobuf message, or the message has no graph.
    """
    try:
        model = model_proto().FromString(content)
    except Exception as fault:  # protobuf's DecodeError
        raise ValueError(" ".join(str(fault).split()) or "no protobuf message") from None
    if not model.HasField("graph"):
        raise ValueError("there is no graph")
    return model


def metadata_of(model: Any) -> dict[str, str]:  # noqa: ANN401
    """Returns the metadata: key -> value.

    Raises:
        ValueError: a key is repeated, or a key or value is not UTF-8 text.
    """
    found: dict[str, str] = {}
    for entry in model.metadata_props:
        if not (isinstance(entry.key, str) and isinstance(entry.value, str)):
            raise ValueError("metadata that are not UTF-8")  # protobuf returns them as bytes
        if entry.key in found:
            raise ValueError(f"the metadata {entry.key!r} is there twice")
        found[entry.key] = entry.value
    return found


def refuse_strange(content: bytes, model: Any) -> None:  # noqa: ANN401
    """Refuses an ONNX file with contents that `mrknee export` never writes.

    Args:
        content: the bytes of the file.
        model: the message, `parse(content)`.

    Raises:
        ValueError: the file contains such contents.
    """
    other = _FORMATS.get(content[4:8])
    if other is not None:
        raise ValueError(f"the mark of another format, {other}")
    _judge(model, 0)


def _judge(message: Any, depth: int) -> None:  # noqa: ANN401
    """Validates a message and its submessages; `depth` is the number of enclosing graphs."""
    kind = message.DESCRIPTOR.name
    if kind in _NEVER:
        raise ValueError(_NEVER[kind])
    if kind == "TensorProto":
        if message.data_location or message.external_data:
            raise ValueError("tensor data in another file")
        return
    if kind == "ValueInfoProto":
        return  # only shapes and types, without tensors or nodes; a large part of a file
    if kind == "NodeProto":
        _judge_name("operator", message.op_type, OPERATORS)
        _judge_name("domain", message.domain, DOMAINS)
    if kind == "GraphProto":
        depth += 1
        if depth > _DEEPEST:
            raise ValueError(f"branches in branches, {_DEEPEST} and more")
    for field, value in message.ListFields():
        if field.message_type is not None:
            for one in value if isinstance(value, Sequence) else (value,):
                _judge(one, depth)


def _judge_name(what: str, name: str, known: Sequence[str] | frozenset[str]) -> None:
    if name not in known:
        raise ValueError(f"the {what} {name[:80]!r}")
