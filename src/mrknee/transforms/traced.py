"""The preparation as a graph of tensor operations, for exported networks.

`Preparation` branches on the size of a stack in Python. A graph for any input size must contain
these branches, which torch can't trace. Therefore framing is a custom operation of torch whose ONNX
implementation is `frame_stack`; normalising is implemented here with traceable operations. The
tests compare both with `Preparation`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from mrknee.transforms.frame_onnx import frame_stack
from mrknee.transforms.preparation import Preparation
from mrknee.transforms.settings import PreparationSettings


class TracedPreparation(nn.Module):
    """Computes the network's input from a stack of one exam.

    Args:
        settings: settings of the preparation.
    """

    def __init__(self, settings: PreparationSettings) -> None:
        super().__init__()
        self.settings = settings

    def forward(
        self, stack: UInt8[Tensor, "slices rows cols"]
    ) -> Float[Tensor, "slices channels crop crop"]:
        """Frames and normalises the slices of one series of one exam."""
        if self.settings.read_slices is not None:
            stack = stack.index_select(0, self.slices_read(stack))
        settings = self.settings
        least = settings.min_size or settings.crop
        framed: Tensor = torch.ops.mrknee.frame(stack, settings.size, settings.crop, least)
        return self.normalise(framed)

    def slices_read(self, stack: UInt8[Tensor, "slices rows cols"]) -> Int64[Tensor, " read"]:
        """Computes `PreparationSettings.slices_read` for the stack of a series."""
        slices = stack.shape[0]
        count: Any = slices  # an integer, or a symbol while the graph is traced
        if self.settings.read_slices is not None:
            count = torch.sym_min(slices, self.settings.read_slices)
        segments = torch.arange(count, device=stack.device)
        middles: Tensor = (2 * segments + 1) * slices // (2 * count)
        return middles

    def on_all_slices(
        self,
        part: Float[Tensor, "findings read rows cols"],
        stack: UInt8[Tensor, "slices _ _"],
    ) -> Float[Tensor, "findings slices rows cols"]:
        """Puts the contributions of the slices that are read in their places; others are 0."""
        if self.settings.read_slices is None:
            return part
        places = torch.arange(stack.shape[0], device=stack.device)[:, None]
        is_here = (places == self.slices_read(stack)).to(part.dtype)
        return torch.einsum("sk,fkrc->fsrc", is_here, part)

    def normalise(
        self, framed: UInt8[Tensor, "slices rows cols"]
    ) -> Float[Tensor, "slices channels rows cols"]:
        """Scales the stack to 0..255, then by mean and SD; adds neighbours as channels."""
        low, high = framed.amin(dim=(0, 1, 2)).float(), framed.amax(dim=(0, 1, 2)).float()
        span = torch.where(high > low, high - low, torch.inf)  # a constant stack becomes 0
        scale = 255.0 / span / self.settings.sd
        grey = framed.float() * scale - (low * scale + self.settings.mean / self.settings.sd)
        if not self.settings.neighbours:
            return grey[:, None]
        order = torch.arange(framed.shape[0], device=framed.device)
        previous = torch.maximum(order - 1, order[:1])
        following = torch.minimum(order + 1, order[-1:])
        return torch.stack(
            [grey.index_select(0, previous), grey, grey.index_select(0, following)], dim=1
        )


@torch.library.custom_op(
    "mrknee::frame",
    mutates_args=(),
    schema="(Tensor stack, int size, int crop, int least) -> Tensor",
)
def _frame(stack: Tensor, size: int, crop: int, least: int) -> Tensor:
    return Preparation(size=size, crop=crop, min_size=least).frame(stack).clone()


@_frame.register_fake
def _(stack: Tensor, size: int, crop: int, least: int) -> Tensor:  # noqa: ARG001  # its signature
    return stack.new_empty((stack.shape[0], crop, crop))


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.mrknee.frame.default: frame_stack
}
"""Custom operations of torch -> ONNX functions, for torch's exporter."""
