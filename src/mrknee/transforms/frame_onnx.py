"""Framing (resizing and cropping) in ONNX, written in onnxscript: Python syntax, ONNX semantics."""

# mypy: ignore-errors
# (in onnxscript names are tensors of a graph, whatever their annotations)

from __future__ import annotations

from onnxscript import INT64, UINT8, script
from onnxscript import opset18 as op


@script(default_opset=op)
def frame_stack(stack: UINT8[...], size: INT64, crop: INT64, least: INT64) -> UINT8[...]:
    """Computes `Preparation.frame` in ONNX; a stack without scaling and padding is only cropped.

    Scaling is linear interpolation; if a side becomes shorter, with a triangular filter as wide as
    two new pixels, as in torch's `interpolate(mode="bilinear", antialias=True)` (ONNX Runtime's
    antialiased Resize differs from that by up to 12 grey values). The numbers in `to=` are ONNX's
    types: 1 float, 2 uint8, 6 int32, 7 int64, 11 double.
    """
    shape = op.Shape(stack)
    rows, cols = op.Slice(shape, [1], [2]), op.Slice(shape, [2], [3])
    longer = op.Max(rows, cols)
    target = op.Min(op.Max(longer, least), size)
    size_now = op.Slice(shape, [1], [3])
    if op.And(target == longer, op.ReduceMin(size_now) >= crop):
        start = (size_now - crop) / 2
        filled = op.Identity(stack)
    else:
        # halves are rounded to even, as in Python; no scaled side is 1 pixel, as in
        # PreparationSettings.axes
        shortest = op.Where(target == longer, 1, 2)
        whole = op.Cast(longer, to=11)
        new_rows = op.Max(op.Cast(op.Round(op.Cast(rows * target, to=11) / whole), to=7), shortest)
        new_cols = op.Max(op.Cast(op.Round(op.Cast(cols * target, to=11) / whole), to=7), shortest)
        # weights of the pixels of a side in each pixel of the scaled side: (scaled, side)
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
        new_size = op.Concat(new_rows, new_cols, axis=0)
        before = op.Max(crop - new_size, 0) / 2
        zero = op.Constant(value_ints=[0])
        pads = op.Concat(zero, before, zero, op.Max(crop - new_size, 0) - before, axis=0)
        low = op.Cast(op.ReduceMin(op.Cast(scaled, to=6), keepdims=0), to=2)
        start = (op.Max(new_size, crop) - crop) / 2
        filled = op.Pad(scaled, pads, low)
    # not in the branches: OpenVINO 2026.4 would then use the pixels of another plane
    return op.Slice(filled, start, start + crop, [1, 2])
