"""The preparation as a graph of tensor operations, for an exported network.

`Preparation` decides in Python, from a stack's size, what to do with it. A graph that takes any
size must take that decision itself, which torch can't trace. So framing is one operation for
torch, and `frame_stack` says in ONNX what it does; normalising is traced as it is. The tests hold
both to `Preparation`.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from onnxscript import INT64, UINT8, script
from onnxscript import opset18 as op
from torch import Tensor, nn

from mrknee.tensors.preparation import Preparation
from mrknee.tensors.settings import PreparationSettings


class TracedPreparation(nn.Module):
    """A stack of one exam, as read, to the network's input.

    Args:
        settings: the preparation's.
    """

    def __init__(self, settings: PreparationSettings) -> None:
        super().__init__()
        self.settings = settings

    def forward(
        self, stack: UInt8[Tensor, "slices rows cols"]
    ) -> Float[Tensor, "slices 1 crop crop"]:
        """Frames and normalises the slices of one plane of one exam."""
        framed: Tensor = torch.ops.mrknee.frame(stack, self.settings.size, self.settings.crop)
        return self.normalise(framed)

    def normalise(
        self, framed: UInt8[Tensor, "slices rows cols"]
    ) -> Float[Tensor, "slices 1 rows cols"]:
        """Minimum to maximum of the stack to 0..255, mean and SD."""
        low, high = framed.amin(dim=(0, 1, 2)).float(), framed.amax(dim=(0, 1, 2)).float()
        span = torch.where(high > low, high - low, 1.0)  # a constant stack is 0 whatever divides it
        grey = (framed.float() - low) * (255.0 / span / self.settings.sd)
        return (grey - self.settings.mean / self.settings.sd)[:, None]


@torch.library.custom_op(
    "mrknee::frame", mutates_args=(), schema="(Tensor stack, int size, int crop) -> Tensor"
)
def _frame(stack: Tensor, size: int, crop: int) -> Tensor:
    return Preparation(size=size, crop=crop).frame(stack).clone()


@_frame.register_fake
def _(stack: Tensor, size: int, crop: int) -> Tensor:  # noqa: ARG001  # the operation's own
    return stack.new_empty((stack.shape[0], crop, crop))


@script(default_opset=op)
def frame_stack(stack: UINT8[...], size: INT64, crop: INT64) -> UINT8[...]:
    """`Preparation.frame` in ONNX; a stack that needs no scaling and padding is only cut.

    Scaling is linear interpolation; where a side becomes shorter, over a triangle as wide as two
    new pixels, so that nothing is skipped (torch's `interpolate(mode="bilinear", antialias=True)`;
    ONNX Runtime's own antialiased Resize differs from it by up to 12 grey values). The numbers in
    `to=` are ONNX's types: 1 float, 2 uint8, 6 int32, 7 int64, 11 double.
    """
    shape = op.Shape(stack)
    rows, cols = op.Slice(shape, [1], [2]), op.Slice(shape, [2], [3])
    longer = op.Max(rows, cols)
    target = op.Min(op.Max(longer, crop), size)
    if target == longer:
        scaled = op.Identity(stack)
    else:
        # to even where it is a half, as Python rounds; never 1 pixel, as PreparationSettings.axes
        whole = op.Cast(longer, to=11)
        new_rows = op.Max(op.Cast(op.Round(op.Cast(rows * target, to=11) / whole), to=7), 2)
        new_cols = op.Max(op.Cast(op.Round(op.Cast(cols * target, to=11) / whole), to=7), 2)
        # what each pixel of a side adds to each pixel of the scaled side: (scaled, side)
        step = op.Cast(rows, to=1) / op.Cast(new_rows, to=1)
        old = op.Cast(op.Range(0, op.Squeeze(rows), 1), to=1)
        new = op.Cast(op.Range(0, op.Squeeze(new_rows), 1), to=1)
        far = op.Abs(old + 0.5 - op.Unsqueeze((new + 0.5) * step, [1])) / op.Max(step, 1.0)
        down = op.Relu(1.0 - far)
        down = down / op.ReduceSum(down, [1])
        step = op.Cast(cols, to=1) / op.Cast(new_cols, to=1)
        old = op.Cast(op.Range(0, op.Squeeze(cols), 1), to=1)
        new = op.Cast(op.Range(0, op.Squeeze(new_cols), 1), to=1)
        far = op.Abs(old + 0.5 - op.Unsqueeze((new + 0.5) * step, [1])) / op.Max(step, 1.0)
        across = op.Relu(1.0 - far)
        across = across / op.ReduceSum(across, [1])
        grey = op.MatMul(op.Cast(stack, to=1), op.Transpose(across, perm=[1, 0]))
        scaled = op.Cast(op.Round(op.MatMul(down, grey)), to=2)
    size_now = op.Slice(op.Shape(scaled), [1], [3])
    short = op.Max(crop - size_now, 0)
    if op.ReduceMax(short) > 0:
        before = short / 2
        zero = op.Constant(value_ints=[0])
        pads = op.Concat(zero, before, zero, short - before, axis=0)
        low = op.ReduceMin(op.Cast(scaled, to=6), keepdims=0)
        filled = op.Pad(scaled, pads, op.Cast(low, to=2))
    else:
        filled = op.Identity(scaled)
    start = (op.Max(size_now, crop) - crop) / 2
    return op.Slice(filled, start, start + crop, [1, 2])


TRANSLATIONS = {torch.ops.mrknee.frame.default: frame_stack}
"""What torch's exporter has to know about operations that are not its own."""
