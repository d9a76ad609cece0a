"""Bodies of encoders: networks of torchvision or timm, reduced to what the feature maps need.

With these functions an `Encoder` (`mrknee.models.encoders`) shortens a body to its last feature
map, removes modules that the maps don't need, and makes the first layer accept grey images.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Float
from timm.layers.blur_pool import BlurPool2d
from timm.models import group_parameters
from torch import Tensor, nn
from torch.nn import functional

from mrknee.errors import SettingsError

_POOLS = (nn.MaxPool2d, BlurPool2d)
"""Layers of an `nn.Sequential` after which maps are smaller."""


class GreyConv2d(nn.Conv2d):
    """A convolution over three channels, which accepts a single channel for three equal ones.

    For one channel the weights are summed over channels before the convolution. A stride is
    eliminated too: blocks of stride x stride pixels become channels, and the zero-padded kernel
    moves by one block. Results and gradients are the same up to rounding. AlexNet's first layer
    then needs a third of the arithmetic, and libraries are more efficient for many channels than
    for one.
    """

    def forward(
        self,
        input: Float[Tensor, "n channels rows cols"],  # noqa: A002  # torch's name
    ) -> Tensor:
        """Computes the convolution of an image of three channels, or of a grey one repeated."""
        if input.shape[1] == self.in_channels:
            return super().forward(input)
        weight = self.weight.sum(dim=1)
        if torch.compiler.is_exporting():  # in ONNX Runtime, strides are faster than rearranging
            return functional.conv2d(input, weight[:, None], self.bias, self.stride, self.padding)
        (down, over), (top, left) = self.stride, cast(tuple[int, int], self.padding)
        blocks = [
            -(-side // step) for side, step in zip(self.kernel_size, self.stride, strict=True)
        ]
        rows = (input.shape[2] + 2 * top - self.kernel_size[0]) // down + blocks[0]
        cols = (input.shape[3] + 2 * left - self.kernel_size[1]) // over + blocks[1]
        below, right = rows * down - input.shape[2] - top, cols * over - input.shape[3] - left
        pictures = functional.pad(input[:, 0], (left, right, top, below))
        pictures = pictures.view(-1, rows, down, cols, over).permute(0, 1, 3, 2, 4)
        # channels last, in which convolutions run faster on a CPU
        pictures = pictures.reshape(-1, rows, cols, down * over).permute(0, 3, 1, 2)
        behind = (blocks[1] * over - weight.shape[2], blocks[0] * down - weight.shape[1])
        weight = functional.pad(weight, (0, behind[0], 0, behind[1]))
        weight = weight.view(-1, blocks[0], down, blocks[1], over).permute(0, 2, 4, 1, 3)
        return functional.conv2d(pictures, weight.reshape(-1, down * over, *blocks), self.bias)


def feature_maps(body: nn.Module, pictures: Tensor, indices: Sequence[int]) -> list[Tensor]:
    """Computes feature maps of a body, channels first, from the finest to the coarsest.

    Args:
        body: the body.
        pictures: grey or colour images.
        indices: indices of the maps, counted from the input; empty: the last one.
    """
    if not indices:
        return [_last_feature_map(body, pictures)]
    if isinstance(body, nn.Sequential):
        maps = []
        for layer in body:
            if isinstance(layer, _POOLS):  # the last map of each size
                maps.append(pictures)
            pictures = layer(pictures)
        return [[*maps, pictures][index] for index in indices]
    found = cast(Any, body).forward_intermediates(
        pictures,
        indices=list(indices),
        stop_early=True,
        output_fmt="NCHW",
        intermediates_only=True,
    )
    return cast(list[Tensor], found)


def _last_feature_map(body: nn.Module, pictures: Tensor) -> Tensor:
    if isinstance(body, nn.Sequential):  # torchvision's AlexNet features, or ELNet
        return cast(Tensor, body(pictures))
    features = cast(Any, body).forward_features(pictures)
    if features.ndim == 3:  # a vision transformer's tokens
        tokens = features[:, getattr(body, "num_prefix_tokens", 0) :]
        rows, cols = cast(Any, body).patch_embed.dynamic_feat_size(pictures.shape[2:])
        return cast(Tensor, tokens.unflatten(1, (rows, cols)).permute(0, 3, 1, 2))
    if getattr(body, "output_fmt", "NCHW") == "NHWC":
        return cast(Tensor, features.permute(0, 3, 1, 2))
    return cast(Tensor, features)


def shorten(body: nn.Module, maps: Sequence[int]) -> nn.Module:
    """Removes the layers after the last of the feature maps; returns the body.

    Raises:
        SettingsError: the encoder has fewer feature maps, or none but the last one.
    """
    if isinstance(body, nn.Sequential):
        ends = [i for i, layer in enumerate(body) if isinstance(layer, _POOLS)] + [len(body)]
        count = len(ends)
        if maps[-1] < count:
            return body[: ends[maps[-1]]]
    elif hasattr(body, "prune_intermediate_layers"):
        try:
            cast(Any, body).prune_intermediate_layers(list(maps), prune_norm=True, prune_head=True)
        except AssertionError:  # an index out of range
            count = len(cast(Any, body).feature_info)
        else:
            return body
    else:
        count = 0
    raise SettingsError(
        "the encoder doesn't have these feature maps",
        code="encoder",
        expected=f"network.feature_maps from 0 to {count - 1}"
        if count
        else "no network.feature_maps: only the last one can be had",
        found=str(list(maps)),
    )


def trim(body: nn.Module, size: tuple[int, int], maps: Sequence[int]) -> list[int]:
    """Runs the body once, removes modules that the maps don't need, returns the maps' widths.

    Modules without a gradient (the rest of a classifier: VGG-16's has 120 million weights) would be
    stored needlessly, and would break training on several devices.
    """
    body.eval()
    with torch.enable_grad():
        features = feature_maps(body, torch.zeros(1, 3, *size), maps)
        names, parameters = zip(*body.named_parameters(), strict=True)
        summed = torch.stack([one.sum() for one in features]).sum()
        gradients = torch.autograd.grad(summed, parameters, allow_unused=True)
    needed = {
        name.split(".")[0]
        for name, gradient in zip(names, gradients, strict=True)
        if gradient is not None
    }
    for name, part in list(body.named_children()):
        if name not in needed and any(True for _ in part.parameters()):
            setattr(body, name, nn.Identity())
    return [one.shape[1] for one in features]


def take_grey(body: nn.Module, size: tuple[int, int], maps: Sequence[int]) -> bool:
    """Replaces the body's first layer by a `GreyConv2d` if it is a plain convolution of the image.

    Returns:
        Whether the body now accepts images of one channel.
    """
    picture = torch.zeros(1, 3, *size)
    consumers: list[str] = []

    def record(name: str, _: nn.Module, inputs: tuple[object, ...]) -> None:
        if any(one is picture for one in inputs):
            consumers.append(name)

    named = dict(body.named_modules())
    hooks = [m.register_forward_pre_hook(partial(record, name)) for name, m in named.items()]
    with torch.no_grad():
        feature_maps(body, picture, maps)
    for hook in hooks:
        hook.remove()
    layers = [name for name in consumers if not any(True for _ in named[name].children())]
    first = named[layers[0]]
    if len(layers) != 1 or type(first) is not nn.Conv2d or first.groups != 1:
        return False
    if first.padding_mode != "zeros" or isinstance(first.padding, str) or max(first.dilation) > 1:
        return False
    grey = GreyConv2d(
        first.in_channels,
        first.out_channels,
        cast(Any, first.kernel_size),
        cast(Any, first.stride),
        cast(Any, first.padding),
        bias=first.bias is not None,
        device="meta",  # its weights are replaced below
    )
    grey.weight, grey.bias = first.weight, first.bias
    body.set_submodule(layers[0], grey)
    return True


def stages_of(body: nn.Module) -> dict[str, int]:
    """Returns the stage of each parameter of the body: name -> stage, counted from the input.

    AlexNet's stages are its five convolutions, ELNet's the parts between BlurPools; for other
    models timm defines them (VGG: its convolutions; ResNet: the stem and four layers; vision
    transformers: the blocks).
    """
    if isinstance(body, nn.Sequential):
        names = [name for name, _ in body.named_parameters()]
        layers = list(dict.fromkeys(name.split(".")[0] for name in names))
        return {name: layers.index(name.split(".")[0]) for name in names}
    groups = group_parameters(body, cast(Any, body).group_matcher(coarse=True))
    return {name: stage for stage, names in groups.items() for name in names}
