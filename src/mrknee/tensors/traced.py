"""The preparation as a graph of tensor operations, for an exported network.

`Preparation` decides in Python, from a stack's size, what to do with it. A graph that takes any
size must take that decision itself, which torch can't trace. So framing is one operation for
torch, and `frame_stack` says in ONNX what it does; normalising is traced as it is. The tests hold
both to `Preparation`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from mrknee.tensors.frame_onnx import frame_stack
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
        span = torch.where(high > low, high - low, torch.inf)  # a constant stack becomes 0
        scale = 255.0 / span / self.settings.sd
        grey = framed.float() * scale - (low * scale + self.settings.mean / self.settings.sd)
        return grey[:, None]


@torch.library.custom_op(
    "mrknee::frame", mutates_args=(), schema="(Tensor stack, int size, int crop) -> Tensor"
)
def _frame(stack: Tensor, size: int, crop: int) -> Tensor:
    return Preparation(size=size, crop=crop).frame(stack).clone()


@_frame.register_fake
def _(stack: Tensor, size: int, crop: int) -> Tensor:  # noqa: ARG001  # the operation's own
    return stack.new_empty((stack.shape[0], crop, crop))


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.mrknee.frame.default: frame_stack
}
"""What torch's exporter has to know about operations that are not its own."""
