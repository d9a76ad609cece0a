"""From a stack of bytes to the network's input: the one definition, saved with the weights.

Two steps, because they belong in two places. *Framing* (scale, crop) works on bytes, slice by
slice, where the exam is read. *Normalising* (minimum to maximum, mean and SD, one channel to
three) needs the whole stack and floating point, and happens on the network's device.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional

from mrknee.errors import MrkneeError


@dataclass(frozen=True)
class Axis:
    """Where one in-plane side of a stack comes to lie, in pixels after scaling.

    Attributes:
        scaled: its length.
        before: black pixels added in front of it.
        after: black pixels added behind it.
        start: where the crop begins, counted from the side's first own pixel; negative where the
            crop begins in the added black.
    """

    scaled: int
    before: int
    after: int
    start: int


@dataclass(frozen=True)
class Preparation:
    """How a stack becomes input.

    The defaults are the reference system's: the centre 224 of 256 pixels, minimum to maximum of
    the cropped stack to 0..255, then (x - 58.09) / 49.73 (mean and SD over MRNet's training
    set, from the published code), grey repeated to three channels.

    Args:
        size: in-plane size the knee is brought to before the crop, in pixels. A stack whose
            longer side is already between `crop` and `size` stays as it is; a larger one is
            scaled down to `size`, a smaller one up to `crop`, keeping its proportions.
        crop: side of the square cut from the centre, in pixels; where a shorter side falls
            short of it, black is added on both ends.
        mean: subtracted, on the scale 0..255.
        sd: divided by, on the scale 0..255.

    Raises:
        MrkneeError: crop larger than size, or a size, crop or SD that is not positive.
    """

    size: int = 256
    crop: int = 224
    mean: float = 58.09
    sd: float = 49.73

    def __post_init__(self) -> None:
        if not 0 < self.crop <= self.size or self.sd <= 0:
            raise MrkneeError(
                "the preparation contradicts itself",
                expected="0 < crop <= size and sd > 0",
                found=f"crop {self.crop}, size {self.size}, sd {self.sd}",
            )

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain numbers, for JSON."""
        return asdict(self)

    def axes(self, rows: int, cols: int) -> tuple[Axis, Axis]:
        """How a stack of that in-plane size is scaled, filled up and cut: rows, then columns.

        A scaled side is never 1 pixel: torch 2's antialiased interpolation to 1 gives black.
        """
        longer = max(rows, cols)
        target = min(max(longer, self.crop), self.size)
        found = []
        for side in (rows, cols):
            scaled = side if target == longer else max(round(side * target / longer), 2)
            short = max(self.crop - scaled, 0)
            start = (max(scaled, self.crop) - self.crop) // 2 - short // 2
            found.append(Axis(scaled, short // 2, short - short // 2, start))
        return found[0], found[1]

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
    ) -> Float[Tensor, "slices 3 rows cols"]:
        """Minimum to maximum over each exam's stack to 0..255, mean and SD, three channels.

        A constant stack becomes all 0 before mean and SD (the reference divides by zero).

        Args:
            slices: all slices of one plane of all exams in a batch, exam after exam.
            lengths: how many of them belong to each exam, in that order; may be 0.
        """
        if len(slices) == 0:
            return slices.new_zeros((0, 3, *slices.shape[1:]), dtype=torch.float32)
        flat, lengths = slices.flatten(1), lengths.to(slices.device)
        low = torch.segment_reduce(flat.amin(1).float(), "min", lengths=lengths)
        high = torch.segment_reduce(flat.amax(1).float(), "max", lengths=lengths)
        scale = torch.where(high > low, 255.0 / (high - low), 0.0) / self.sd
        scale, low = (x.repeat_interleave(lengths)[:, None, None] for x in (scale, low))
        grey = (slices - low) * scale - self.mean / self.sd
        return grey[:, None].expand(-1, 3, -1, -1)
