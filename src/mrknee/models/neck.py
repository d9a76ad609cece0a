"""Reduction of an encoder's feature maps to one with few channels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional

_EPSILON = 1e-6
"""Added to the variance of a cell before it is divided by; the default of timm's LayerNorm2d."""


class Neck(nn.Module):
    """Reduces feature maps to one with few channels.

    Each map is normalised over its channels, cell by cell, which doesn't depend on other slices,
    and reduced by a 1x1 convolution; the results are scaled up to the finest map by repeating
    cells, added, and passed through a ReLU (as in feature pyramid networks, T.-Y. Lin et al.,
    CVPR 2017, without its 3x3 convolutions).

    Args:
        widths: channels of each map, from the finest to the coarsest.
        channels: channels of the result.
        linear: leave out the ReLU.
    """

    def __init__(self, widths: Sequence[int], channels: int, *, linear: bool = False) -> None:
        super().__init__()
        self.linear = linear
        self.norms = nn.ModuleList([LayerNorm2d(width, eps=_EPSILON) for width in widths])
        self.convolutions = nn.ModuleList([nn.Conv2d(width, channels, 1) for width in widths])

    def forward(
        self, maps: Sequence[Float[Tensor, "n _ _ _"]]
    ) -> Float[Tensor, "n channels map_rows map_cols"]:
        """Reduces the maps of some slices to one."""
        parts = zip(self.norms, self.convolutions, maps, strict=True)
        return self._join([convolve(norm(one)) for norm, convolve, one in parts])

    @staticmethod
    def standardise(
        maps: Sequence[Float[Tensor, "n _ _ _"]],
    ) -> list[Float[Tensor, "n _ _ _"]]:
        """Computes the part of the normalisation that is not trained; channels become last."""
        last = [one.permute(0, 2, 3, 1) for one in maps]
        return [functional.layer_norm(one, one.shape[3:], eps=_EPSILON) for one in last]

    def reduce_standardised(
        self, maps: Sequence[Float[Tensor, "n _ _ _"]]
    ) -> Float[Tensor, "n channels map_rows map_cols"]:
        """Returns what `forward` does, given the maps of `standardise`, in half of its time.

        The factor and offset of the normalisation become part of the 1x1 convolution.
        """
        reduced = [
            functional.linear(one, weight, bias).permute(0, 3, 1, 2)
            for one, (weight, bias) in zip(maps, self._linear_layers(), strict=True)
        ]
        return self._join(reduced)

    def project_standardised(
        self,
        maps: Sequence[Float[Tensor, "n _ _ _"]],
        matrices: Float[Tensor, "n outputs channels"],
    ) -> Float[Tensor, "n outputs map_rows map_cols"]:
        """Returns the product of a matrix per slice with each cell of what `forward` computes.

        Without an activation, the matrix can be multiplied by the 1x1 convolutions first. With few
        outputs, this takes half of the time of `reduce_standardised`.
        """
        projected = []
        for one, (weight, bias) in zip(maps, self._linear_layers(), strict=True):
            cells = one.flatten(1, 2).transpose(1, 2)
            values = torch.bmm(matrices @ weight, cells) + (matrices @ bias)[:, :, None]
            projected.append(values.unflatten(2, one.shape[1:3]))
        return self._add(projected)

    def _linear_layers(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields weight and bias of the 1x1 convolutions, after standardised maps."""
        for norm, convolve in zip(self.norms, self.convolutions, strict=True):
            factor, offset = norm.get_parameter("weight"), norm.get_parameter("bias")
            weight = convolve.get_parameter("weight").flatten(1)
            yield weight * factor, convolve.get_parameter("bias") + weight @ offset

    def _join(
        self, reduced: Sequence[Float[Tensor, "n _ _ _"]]
    ) -> Float[Tensor, "n channels map_rows map_cols"]:
        """Adds the reduced maps on the finest grid; applies the ReLU."""
        summed = self._add(reduced)
        return summed if self.linear else functional.relu(summed)

    @staticmethod
    def _add(maps: Sequence[Float[Tensor, "n _ _ _"]]) -> Float[Tensor, "n _ map_rows map_cols"]:
        size = maps[0].shape[2:]
        summed = maps[0]
        for coarse in maps[1:]:
            summed = summed + functional.interpolate(coarse, size, mode="nearest")
        return summed


class Pyramid(Neck):
    """A feature pyramid whose levels are kept apart (T.-Y. Lin et al., CVPR 2017).

    Each map is normalised and reduced as in `Neck`. From the coarsest to the finest, the level
    before is scaled up and added, and a 3x3 convolution and a ReLU follow. All levels are scaled
    up to the finest grid by repeating cells, and concatenated.

    Args:
        widths: channels of each map, from the finest to the coarsest.
        channels: channels of each level.
    """

    def __init__(self, widths: Sequence[int], channels: int) -> None:
        super().__init__(widths, channels)
        self.levels = nn.ModuleList([nn.Conv2d(channels, channels, 3, padding=1) for _ in widths])

    def _join(
        self, reduced: Sequence[Float[Tensor, "n _ _ _"]]
    ) -> Float[Tensor, "n channels map_rows map_cols"]:
        """Computes the levels and concatenates them on the finest grid."""
        reduced = list(reduced)
        for index in range(len(reduced) - 1, 0, -1):
            finer = reduced[index - 1]
            coarse = functional.interpolate(reduced[index], finer.shape[2:], mode="nearest")
            reduced[index - 1] = finer + coarse
        size = reduced[0].shape[2:]
        levels = [
            functional.interpolate(functional.relu(convolve(one)), size, mode="nearest")
            for convolve, one in zip(self.levels, reduced, strict=True)
        ]
        return torch.cat(levels, dim=1)
