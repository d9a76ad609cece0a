"""The preparation as a graph of tensor operations, for an exported network.

`Preparation` decides in Python what to do with a stack, from its size. A graph that takes any size
must do without such decisions: here scaling is a product with two matrices of weights, made from
the stack's own size, which are the identity where nothing is to be scaled. The result is that of
`Preparation.frame` and `Preparation.normalise`; the tests hold the two together.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

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
    ) -> Float[Tensor, "slices 3 crop crop"]:
        """Frames and normalises the slices of one plane of one exam."""
        return self.normalise(self.frame(stack))

    def frame(self, stack: UInt8[Tensor, "slices rows cols"]) -> Float[Tensor, "slices crop crop"]:
        """Scales, rounds to whole grey values, and cuts the centre square, padded with the minimum.

        The scaled stack lies in the upper left corner of a canvas of `size` x `size` pixels (no
        scaled side is longer), because its minimum is that of all of it, not of the crop.
        """
        size = self.settings.size
        rows, cols = (torch.arange(side, dtype=torch.float32) for side in stack.shape[1:])
        longer = torch.maximum(rows[-1], cols[-1]) + 1
        scaled_rows, scaled_cols = self._scaled(rows, longer), self._scaled(cols, longer)
        down, across = _weights(rows, scaled_rows, size), _weights(cols, scaled_cols, size)
        canvas = torch.round(down @ (stack.float() @ across.T))
        place = torch.arange(size)
        filled = (place < scaled_rows)[:, None] & (place < scaled_cols)
        low = torch.where(filled, canvas, 255.0).amin(dim=(0, 1, 2))
        at_row, at_col = self._cut(scaled_rows), self._cut(scaled_cols)
        inside = _within(at_row, scaled_rows)[:, None] & _within(at_col, scaled_cols)
        cut = canvas.index_select(1, at_row.clamp(0, size - 1).long())
        cut = cut.index_select(2, at_col.clamp(0, size - 1).long())
        return torch.where(inside, cut, low)

    def normalise(
        self, framed: Float[Tensor, "slices rows cols"]
    ) -> Float[Tensor, "slices 3 rows cols"]:
        """Minimum to maximum of the stack to 0..255, mean and SD, three channels."""
        low, high = framed.amin(dim=(0, 1, 2)), framed.amax(dim=(0, 1, 2))
        span = torch.where(high > low, high - low, 1.0)  # a constant stack is 0 whatever divides it
        grey = (framed - low) * (255.0 / span / self.settings.sd)
        grey = grey - self.settings.mean / self.settings.sd
        return grey[:, None].expand(-1, 3, -1, -1)

    def _scaled(self, positions: Float[Tensor, " side"], longer: Float[Tensor, ""]) -> Tensor:
        """The side's length after scaling, in pixels; `positions` counts its pixels from 0.

        A side that is scaled is never 1 pixel, as in `PreparationSettings.axes`.
        """
        size, crop = float(self.settings.size), float(self.settings.crop)
        target = torch.where(longer < crop, crop, torch.where(longer > size, size, longer))
        # to even where it is a half, as Python rounds
        sides = torch.round((positions[-1] + 1) * target / longer)
        return torch.where((sides < 2) & (target != longer), 2.0, sides)

    def _cut(self, scaled: Float[Tensor, ""]) -> Float[Tensor, " crop"]:
        """Where on the canvas each pixel of the crop comes from; outside the scaled side: padding.

        An odd margin leaves the extra pixel at the end, of what is cut as of what is padded.
        """
        over = torch.floor(torch.relu(scaled - self.settings.crop) / 2)
        under = torch.floor(torch.relu(self.settings.crop - scaled) / 2)
        return torch.arange(self.settings.crop) + (over - under)


def _weights(
    positions: Float[Tensor, " side"], scaled: Float[Tensor, ""], size: int
) -> Float[Tensor, "size side"]:
    """What each pixel of a side adds to each pixel of the scaled side.

    Linear interpolation; where a side becomes shorter, over a triangle as wide as two new pixels,
    so that nothing is skipped (torch's `interpolate(mode="bilinear", antialias=True)`).
    """
    step = (positions[-1] + 1) / scaled
    reach = torch.where(step < 1, 1.0, step)
    centre = step * (torch.arange(size) + 0.5)
    weights = torch.relu(1 - (positions - centre[:, None] + 0.5).abs() / reach)
    total = weights.sum(dim=1, keepdim=True)
    return weights / torch.where(total > 0, total, 1.0)  # rows beyond the scaled side are empty


def _within(at: Float[Tensor, " crop"], scaled: Float[Tensor, ""]) -> Tensor:
    return (at >= 0) & (at < scaled)
