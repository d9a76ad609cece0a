"""Preparation: from a uint8 stack to the network's input; its settings are saved with the weights.

There are two steps: *framing* (resizing, cropping) works on bytes, slice by slice, in the process
that reads the exam; *normalising* (minimum to maximum, mean and SD) needs the complete stack in
floating point, and is computed on the network's device.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional

from mrknee.transforms.settings import PreparationSettings


class Preparation(PreparationSettings):
    """The preparation of stacks; its settings are those of `PreparationSettings`."""

    @classmethod
    def of(cls, settings: PreparationSettings) -> Preparation:
        """Returns the preparation with these settings."""
        return cls(**settings.to_dict())

    def read(self, stack: UInt8[np.ndarray, "slices rows cols"]) -> UInt8[Tensor, "slices r c"]:
        """Frames a stack as `frame` does; of one that is only cut, no more is read than the crop.

        Args:
            stack: the slices, possibly memory-mapped.
        """
        if not self.only_cuts(stack.shape[1], stack.shape[2]):
            return self.frame(torch.from_numpy(np.array(stack)))
        up, over = self.axes(stack.shape[1], stack.shape[2])
        cut = stack[:, up.start : up.start + self.crop, over.start : over.start + self.crop]
        return torch.from_numpy(np.array(cut))

    def resize(self, stack: UInt8[Tensor, "slices rows cols"]) -> UInt8[Tensor, "slices r c"]:
        """Resizes the longer side to between `min_size` and `size` pixels, keeping proportions.

        A side that is then shorter than `crop` is padded with the stack's minimum on both ends.
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
        """Resizes if necessary and crops the central square.

        Even margins are equal on both ends, as in the reference (`pad:-pad`); of an odd margin the
        additional pixel is at the bottom or right.
        """
        up, over = self.axes(stack.shape[1], stack.shape[2])
        top, left = up.start + up.before, over.start + over.before
        return self.resize(stack)[:, top : top + self.crop, left : left + self.crop]

    def normalise(
        self, slices: UInt8[Tensor, "slices rows cols"], lengths: Int64[Tensor, " exams"]
    ) -> Float[Tensor, "slices {self.channels} rows cols"]:
        """Scales each exam's stack from its minimum and maximum to 0..255, then by mean and SD.

        Before mean and SD, a constant stack becomes 0 (the reference divides by zero).

        Args:
            slices: all slices of one series of all exams in a batch, one exam after another.
            lengths: number of slices per exam, in that order; may be 0.

        Returns:
            One channel, which the encoder treats as three equal ones; with `neighbours` three: the
            previous slice of the exam, the slice, and the next one, where the first and last slice
            are their own neighbours. The memory format is "channels last", in which convolution
            and pooling are faster on a CPU.
        """
        if len(slices) == 0:
            return slices.new_zeros((0, self.channels, *slices.shape[1:]), dtype=torch.float32)
        flat, lengths = slices.flatten(1), lengths.to(slices.device)
        low = torch.segment_reduce(flat.amin(1).float(), "min", lengths=lengths)
        high = torch.segment_reduce(flat.amax(1).float(), "max", lengths=lengths)
        scale = torch.where(high > low, 255.0 / (high - low), 0.0) / self.sd
        scale, low = (x.repeat_interleave(lengths)[:, None, None] for x in (scale, low))
        # in place: for large arrays, allocating memory takes most of the time
        grey = slices.float().sub_(low).mul_(scale).sub_(self.mean / self.sd)
        if not self.neighbours:
            return grey[..., None].permute(0, 3, 1, 2)
        order, ends = torch.arange(len(grey), device=grey.device), lengths.cumsum(0)
        first = (ends - lengths).repeat_interleave(lengths)
        last = (ends - 1).repeat_interleave(lengths)
        previous, following = torch.maximum(order - 1, first), torch.minimum(order + 1, last)
        return torch.stack([grey[previous], grey, grey[following]], dim=3).permute(0, 3, 1, 2)
