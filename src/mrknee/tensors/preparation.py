"""From a stack of bytes to the network's input: the one definition, saved with the weights.

Two steps, because they belong in two places. *Framing* (scale, crop) works on bytes, slice by
slice, where the exam is read. *Normalising* (minimum to maximum, mean and SD) needs the
whole stack and floating point, and happens on the network's device.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional

from mrknee.tensors.settings import PreparationSettings


class Preparation(PreparationSettings):
    """How a stack becomes input; the settings are `PreparationSettings`'."""

    @classmethod
    def of(cls, settings: PreparationSettings) -> Preparation:
        """The preparation with these settings."""
        return cls(**settings.to_dict())

    def trim(self, stack: UInt8[np.ndarray, "slices rows cols"]) -> UInt8[np.ndarray, "slices r c"]:
        """The stack without what framing would cut off unseen, so that it needn't be read.

        A stack that is to be scaled or filled up is left as it is.
        """
        if not self.only_cuts(stack.shape[1], stack.shape[2]):
            return stack
        up, over = self.axes(stack.shape[1], stack.shape[2])
        return stack[:, up.start : up.start + self.crop, over.start : over.start + self.crop]

    def fit(self, stack: UInt8[Tensor, "slices rows cols"]) -> UInt8[Tensor, "slices r c"]:
        """Brings the longer side to between `crop` and `size` pixels, keeping proportions.

        A side that is then shorter than `crop` gets the stack's minimum added on both ends.
        """
        up, over = self.axes(stack.shape[1], stack.shape[2])
        sides = [up.scaled, over.scaled]
        if sides != list(stack.shape[1:]):
            scaled = functional.interpolate(
                stack[None].float(), sides, mode="bilinear", antialias=True, align_corners=False
            )
            stack = scaled[0].round_().to(torch.uint8)
        pads = [over.before, over.after, up.before, up.after]
        return functional.pad(stack, pads, value=int(stack.min())) if any(pads) else stack

    def frame(self, stack: UInt8[Tensor, "slices rows cols"]) -> UInt8[Tensor, "slices crop crop"]:
        """Scales where needed and cuts the centre square.

        An odd margin leaves the extra pixel at the bottom or right, as the reference's
        `pad:-pad` does for even ones (both ends equal).
        """
        up, over = self.axes(stack.shape[1], stack.shape[2])
        top, left = up.start + up.before, over.start + over.before
        return self.fit(stack)[:, top : top + self.crop, left : left + self.crop]

    def normalise(
        self, slices: UInt8[Tensor, "slices rows cols"], lengths: Int64[Tensor, " exams"]
    ) -> Float[Tensor, "slices 1 rows cols"]:
        """Minimum to maximum over each exam's stack to 0..255, then mean and SD.

        A constant stack becomes all 0 before mean and SD (the reference divides by zero).

        Args:
            slices: all slices of one series of all exams in a batch, exam after exam.
            lengths: how many of them belong to each exam, in that order; may be 0.

        Returns:
            One channel, which the encoder takes for three equal ones; its strides say "channels
            last", in which convolution and pooling run faster on a CPU.
        """
        if len(slices) == 0:
            return slices.new_zeros((0, 1, *slices.shape[1:]), dtype=torch.float32)
        flat, lengths = slices.flatten(1), lengths.to(slices.device)
        low = torch.segment_reduce(flat.amin(1).float(), "min", lengths=lengths)
        high = torch.segment_reduce(flat.amax(1).float(), "max", lengths=lengths)
        scale = torch.where(high > low, 255.0 / (high - low), 0.0) / self.sd
        scale, low = (x.repeat_interleave(lengths)[:, None, None] for x in (scale, low))
        # in place: the time of so large arrays goes into getting memory
        grey = slices.float().sub_(low).mul_(scale).sub_(self.mean / self.sd)
        return grey[..., None].permute(0, 3, 1, 2)
