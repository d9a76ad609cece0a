"""What an exported model's graph may hold, judged from its bytes before any runtime sees it.

A graph can name files that its runtime then opens (external data), bring functions of its own, or
loop without end. `mrknee export` writes none of it, so none of it is let through: tensors lie in
the file, operators are those of a list, and the only branch is `If`. Field numbers are those of
onnx.proto; a field that is there twice is judged twice, so it doesn't matter which one holds.
"""

from __future__ import annotations

from mrknee.inference.onnx_metadata import fields_of, message_of

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
    """.split()  # noqa: SIM905  # a list of so many names would be three pages
)
"""ONNX's operators that image encoders are exported with, by name. Not among them: loops (Loop,
Scan, SequenceMap), random numbers, text, sequences, optional values and decoders of pictures."""

DOMAINS = ("", "ai.onnx")
"""Whose operators: ONNX's own, which has two names."""

_DEEPEST = 20  # branches in branches; ours have one level
_MOST_FIELDS = 5_000_000  # a graph of 1,000 operators has some 50,000

_FORMATS = {b"ORTM": "ONNX Runtime's own", b"TFL3": "TensorFlow Lite's"}
"""Formats that runtimes tell by four bytes, which can be had inside an ONNX file."""

_MODEL = {7: "graph", 20: "training information", 25: "functions of its own"}
_GRAPH = {1: "node", 5: "tensor", 15: "a sparse tensor"}
_NODE = {4: "operator", 5: "attribute", 7: "domain"}
_ATTRIBUTE = {
    5: "tensor",
    6: "graph",
    10: "tensor",
    11: "graph",
    22: "a sparse tensor",
    23: "a sparse tensor",
}
_TENSOR = {13: "tensor data in another file", 14: "location"}
_INSIDE = {"graph": _GRAPH, "node": _NODE, "attribute": _ATTRIBUTE, "tensor": _TENSOR}
"""Message -> its fields by number: a message, a value to judge, or what is never there."""


def refuse_strange(content: bytes) -> None:
    """Judges a graph.

    Args:
        content: an ONNX file's bytes.

    Raises:
        ValueError: it holds something that `mrknee export` never writes, or is no ONNX file.
    """
    other = _FORMATS.get(content[4:8])
    if other is not None:
        raise ValueError(f"the mark of another format, {other}")
    _judge(memoryview(content), _MODEL, 0, [0])


def _judge(message: memoryview, known: dict[int, str], depth: int, count: list[int]) -> None:
    """Judges a message and all inside it; `count` is how many fields were read so far."""
    for number, field in fields_of(message):
        count[0] += 1
        if count[0] > _MOST_FIELDS:
            raise ValueError(f"more than {_MOST_FIELDS:,} fields")
        what = known.get(number)
        if what is None:
            continue
        if what in _INSIDE:
            depth_inside = depth + (what == "graph")
            if depth_inside > _DEEPEST:
                raise ValueError(f"branches in branches, {_DEEPEST} and more")
            _judge(message_of(field), _INSIDE[what], depth_inside, count)
        elif what == "location":
            if field != 0:
                raise ValueError("tensor data in another file")
        elif what in ("operator", "domain"):
            _judge_name(what, bytes(message_of(field)).decode())
        else:
            raise ValueError(what)


def _judge_name(what: str, name: str) -> None:
    if name not in (OPERATORS if what == "operator" else DOMAINS):
        raise ValueError(f"the {what} {name[:80]!r}")
