"""A small encoder that is trained from random weights, after ELNet.

C.-H. Tsai et al., "Knee Injury Detection using MRI with Efficiently-Layered Network (ELNet)", MIDL
2020 (https://proceedings.mlr.press/v121/tsai20a.html): few channels, blocks that keep the number of
channels, normalisation of each slice on its own, and downsampling by BlurPool. Written from the
paper's description; where it leaves a choice, ours is stated below.
"""

from __future__ import annotations

from collections.abc import Mapping

from timm.layers.blur_pool import BlurPool2d
from torch import Tensor, nn

ELNETS: Mapping[str, str] = {"elnet": "layer", "elnet_contrast": "contrast"}
"""Name of the encoder -> normalisation. The paper uses layer normalisation (over all channels of a
slice) for axial series and contrast normalisation (each channel of a slice) for coronal ones."""

K = 4
"""The paper's factor of channels; the last map has 16 K of them."""

STAGES = ((4, 7, 5, 2), (8, 5, 3, 2), (16, 3, 3, 1), (16, 3, 3, 0), (16, 3, 3, 0))
"""Per stage: channels / K, kernel of the first convolution, kernel of the blocks, and number of
blocks. The first convolution has stride 2 (our choice: a quarter of the arithmetic)."""


def elnet_body(normalisation: str) -> nn.Sequential:
    """Builds the encoder with random weights: stages, with a BlurPool between them.

    Args:
        normalisation: `layer` or `contrast`.
    """
    layers: list[nn.Module] = []
    before = 3
    for index, (factor, kernel, block_kernel, blocks) in enumerate(STAGES):
        if layers:
            layers.append(BlurPool2d(before))
        channels = factor * K
        stage = _convolve(before, channels, kernel, normalisation, stride=1 if index else 2)
        stage += [Block(channels, block_kernel, normalisation) for _ in range(blocks)]
        layers.append(nn.Sequential(*stage))
        before = channels
    return nn.Sequential(*layers)


class Block(nn.Module):
    """Convolution, normalisation and ReLU, added to its input.

    Args:
        channels: channels of input and output.
        kernel: kernel of the convolution.
        normalisation: `layer` or `contrast`.
    """

    def __init__(self, channels: int, kernel: int, normalisation: str) -> None:
        super().__init__()
        self.layers = nn.Sequential(*_convolve(channels, channels, kernel, normalisation))

    def forward(self, maps: Tensor) -> Tensor:
        """Returns the sum of input and result."""
        added: Tensor = maps + self.layers(maps)
        return added


def _convolve(
    inputs: int, channels: int, kernel: int, normalisation: str, stride: int = 1
) -> list[nn.Module]:
    """Returns convolution, normalisation of each slice on its own, and ReLU."""
    groups = 1 if normalisation == "layer" else channels
    return [
        nn.Conv2d(inputs, channels, kernel, stride, kernel // 2, bias=False),
        nn.GroupNorm(groups, channels),
        nn.ReLU(),
    ]
