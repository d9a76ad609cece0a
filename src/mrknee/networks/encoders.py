"""Encoders: pictures in, feature maps out, one interface for torchvision's AlexNet and all of timm.

timm has no AlexNet, so that one comes from torchvision; every other name goes to timm.
"""

from __future__ import annotations

import copy
import difflib
from functools import partial
from pathlib import Path
from typing import Any, cast

import timm
import torch
import torchvision  # type: ignore[import-untyped]
from jaxtyping import Float
from timm.models import PretrainedCfg, group_parameters
from torch import Tensor, nn
from torch.nn import functional

from mrknee.errors import MrkneeError, SettingsError
from mrknee.networks.catalogue import ENCODERS, PUBLISHED, grey_statistics
from mrknee.networks.weights import (
    DOWNLOAD,
    LITE0_PACKAGE,
    NONE,
    alexnet_weights,
    downloading,
    fill,
    lite0_weights,
    read_weights,
    timm_address,
)

ALEXNET = "alexnet"

ALEXNET_INPUT = (224, 224)
"""Rows and columns AlexNet was trained on (torchvision's crop)."""


class GreyConv2d(nn.Conv2d):
    """A convolution over three equal channels, computed as one over a single channel.

    The sum over channels is taken of the weights instead of the products. A stride is taken out
    too: blocks of stride x stride pixels become channels, and the kernel, filled up with zeros,
    moves by one block. Same result and same gradients, up to rounding; AlexNet's first layer takes
    a third of the arithmetic so, and libraries compute many channels better than one.
    """

    def forward(self, input: Float[Tensor, "n 1 rows cols"]) -> Tensor:  # noqa: A002  # torch's name
        """What the three-channel convolution says of a grey picture repeated three times."""
        weight = self.weight.sum(dim=1)
        if torch.compiler.is_exporting():  # ONNX Runtime is faster at strides than at rearranging
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


class Encoder(nn.Module):
    """Turns grey pictures into feature maps, as the body does with the grey in all three channels.

    Args:
        body: the library's network, still with whatever of its classifier is left; what the
            feature map doesn't need is dropped.
        size: rows and columns of a picture to try it with.

    Attributes:
        width: channels of the feature map, as measured (what libraries state can be the width of
            a part of the classifier).
        repeats: whether the body has to be given three channels; where its first layer is a plain
            convolution, that layer is made a `GreyConv2d`.
        stages: how many stages can be frozen.
        stage_of: the stage of each of the body's parameters, by name, counted from the input.
    """

    def __init__(self, body: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.body = body
        self.width = _try_and_trim(body, size)
        self.repeats = not _take_grey(body, size)
        self.stage_of = _stages(body)
        self._frozen_stages = 0
        self.stages = 1 + max(self.stage_of.values())

    def forward(
        self, pictures: Float[Tensor, "n 1 rows cols"]
    ) -> Float[Tensor, "n {self.width} map_rows map_cols"]:
        """The feature map of each picture; pictures normalised as the preparation does it."""
        if self.repeats:
            # channels last: small convolutions run 1.2 to 1.7 times faster on a CPU
            pictures = pictures.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
        return _feature_map(self.body, pictures)

    def freeze_stages(self, count: int) -> None:
        """Takes the first stages out of training: no gradients, evaluation mode.

        Args:
            count: how many stages, counted from the input; 0 freezes none.

        Raises:
            MrkneeError: the encoder has fewer stages.
        """
        if count > self.stages:
            raise SettingsError(
                "more stages are to be frozen than the encoder has",
                code="frozen-stages",
                expected=f"frozen_stages from 0 to {self.stages}",
                found=str(count),
            )
        self._frozen_stages = count
        for name, parameter in self.body.named_parameters():
            if self.stage_of[name] < count:
                parameter.requires_grad_(False)

    def keep_frozen(self, batchnorm: bool) -> None:
        """Puts back into evaluation mode what must not follow the network into training mode.

        Args:
            batchnorm: whether every normalisation with running statistics is kept frozen, not
                just those of the frozen stages.
        """
        for name, module in self.body.named_modules():
            prefix = f"{name}." if name else ""
            stages = {self.stage_of[prefix + key] for key, _ in module.named_parameters()}
            in_frozen_stage = bool(stages) and max(stages) < self._frozen_stages
            if in_frozen_stage or (batchnorm and getattr(module, "running_var", None) is not None):
                module.eval()


def build_encoders(name: str, weights: str, count: int) -> list[Encoder]:
    """Several encoders of one kind: equal copies of pretrained ones, or different random ones.

    Args:
        name: an encoder of the catalogue, or any name that timm knows.
        weights: `none` (random), `download` (the library's own), `lite0` (the optional package),
            or the path of a weights file.
        count: how many.

    Raises:
        MrkneeError: no such encoder, or weights that can't be had or don't fit.
    """
    check_name(name)
    if weights == NONE:
        return [_build(name, weights) for _ in range(count)]
    first = _build(name, weights)
    return [first, *(copy.deepcopy(first) for _ in range(count - 1))]


def check_name(name: str) -> None:
    """Checks that an encoder can be built by this name.

    Raises:
        MrkneeError: neither the catalogue nor timm knows it; close names are listed.
    """
    if name in ENCODERS or _timm_config(name) is not None:
        return
    close = difflib.get_close_matches(name, {*ENCODERS, *timm.list_models()}, n=5)
    raise SettingsError(
        "there is no encoder of this name",
        code="encoder",
        expected=f"for example {', '.join(close or ENCODERS)}",
        found=repr(name),
        advice="list the ones looked at closely with `mrknee encoders`, all of timm's with "
        '`python -c "import timm; print(*timm.list_models())"`',
    )


def input_statistics(name: str) -> tuple[float, float]:
    """The mean and SD, on the scale 0..255, that an encoder's pretrained weights expect of grey.

    Raises:
        SettingsError: there is no such encoder.
    """
    if name == ALEXNET:
        return PUBLISHED
    check_name(name)
    entry = ENCODERS.get(name)
    if entry is not None:
        return grey_statistics(entry.mean, entry.sd)
    config = timm.get_pretrained_cfg(name)
    assert config is not None  # noqa: S101 - for the type checker: the name was checked
    return grey_statistics(cast(Any, config.mean), cast(Any, config.std))


def _timm_config(name: str) -> PretrainedCfg | None:
    """What timm states about a model, or None where it knows no such model."""
    if not timm.is_model(name):
        return None
    try:
        return timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError:  # a known model, but no such set of weights (the part after the dot)
        return None


def _build(name: str, weights: str) -> Encoder:
    if name == ALEXNET:
        encoder = Encoder(_alexnet_body(), ALEXNET_INPUT)
    else:
        config = timm.get_pretrained_cfg(name)
        assert config is not None  # noqa: S101 - for the type checker: the name was checked
        body = _timm_body(name, weights == DOWNLOAD)
        try:
            encoder = Encoder(body, config.input_size[1:])
        except Exception as fault:  # timm's models fail each in their own way
            raise _not_usable(name, fault) from fault
    match weights:
        case "none":
            pass
        case "download":
            if name == ALEXNET:
                fill(encoder.body, alexnet_weights(), "torchvision's AlexNet weights")
        case "lite0":
            fill(encoder.body, lite0_weights(name), LITE0_PACKAGE)
        case file:
            fill(encoder.body, read_weights(Path(file)), file)
    return encoder


def _not_usable(name: str, fault: Exception) -> MrkneeError:
    return SettingsError(
        "the encoder can't be used",
        code="encoder",
        expected="a network that turns a picture into one feature map, in stages",
        found=f"{name}: {type(fault).__name__}: {str(fault)[:200]}",
        advice="choose another; the ones looked at closely are listed by `mrknee encoders`",
    )


def _alexnet_body() -> nn.Sequential:
    """AlexNet's features, random as torchvision makes them, its 55 million other weights never."""
    with torch.device("meta"):
        body: nn.Sequential = torchvision.models.alexnet(weights=None).features
    body.to_empty(device=torch.get_default_device())
    for layer in body:
        if isinstance(layer, nn.Conv2d):
            layer.reset_parameters()
    return body


def _timm_body(name: str, pretrained: bool) -> nn.Module:
    if not pretrained:
        return _create(name)
    address = timm_address(name)
    if Path(address).is_file():  # named, for otherwise timm would ask the site about it first
        return _create(name, pretrained=True, file=address)
    with downloading(address):
        return _create(name, pretrained=True)


def _create(name: str, pretrained: bool = False, file: str | None = None) -> nn.Module:
    """The model without classifier and pooling, for pictures of any size where timm can do that."""
    create = partial(
        timm.create_model,
        name,
        pretrained=pretrained,
        pretrained_cfg_overlay=None if file is None else {"file": file},
        num_classes=0,
        global_pool="",
    )
    try:
        try:
            return create(dynamic_img_size=True)
        except TypeError:  # only vision transformers know that setting; most others need none
            return create()
    except (AssertionError, AttributeError, NotImplementedError, TypeError) as fault:
        raise _not_usable(name, fault) from fault  # a model that can't be without its classifier


def _feature_map(body: nn.Module, pictures: Tensor) -> Tensor:
    """The body's last feature map, channels first, whatever the body itself returns."""
    if isinstance(body, nn.Sequential):  # torchvision's AlexNet features
        return cast(Tensor, body(pictures))
    features = cast(Any, body).forward_features(pictures)
    if features.ndim == 3:  # a vision transformer's tokens
        tokens = features[:, getattr(body, "num_prefix_tokens", 0) :]
        rows, cols = cast(Any, body).patch_embed.dynamic_feat_size(pictures.shape[2:])
        return cast(Tensor, tokens.unflatten(1, (rows, cols)).permute(0, 3, 1, 2))
    if getattr(body, "output_fmt", "NCHW") == "NHWC":
        return cast(Tensor, features.permute(0, 3, 1, 2))
    return cast(Tensor, features)


def _try_and_trim(body: nn.Module, size: tuple[int, int]) -> int:
    """Runs the body once, drops the parts that its feature map doesn't need, returns the width.

    Parts without a gradient (what is left of a classifier: VGG-16's has 120 million weights) would
    be stored for nothing, and would stop training on several devices.
    """
    body.eval()
    with torch.enable_grad():
        features = _feature_map(body, torch.zeros(1, 3, *size))
        names, parameters = zip(*body.named_parameters(), strict=True)
        gradients = torch.autograd.grad(features.sum(), parameters, allow_unused=True)
    needed = {
        name.split(".")[0]
        for name, gradient in zip(names, gradients, strict=True)
        if gradient is not None
    }
    for name, part in list(body.named_children()):
        if name not in needed and any(True for _ in part.parameters()):
            setattr(body, name, nn.Identity())
    return features.shape[1]


def _take_grey(body: nn.Module, size: tuple[int, int]) -> bool:
    """Makes the body's first layer a `GreyConv2d`, if it is a plain convolution of the picture.

    Returns:
        Whether the body now takes pictures of one channel.
    """
    picture = torch.zeros(1, 3, *size)
    takers: list[str] = []

    def note(name: str, _: nn.Module, inputs: tuple[object, ...]) -> None:
        if any(one is picture for one in inputs):
            takers.append(name)

    named = dict(body.named_modules())
    hooks = [m.register_forward_pre_hook(partial(note, name)) for name, m in named.items()]
    with torch.no_grad():
        _feature_map(body, picture)
    for hook in hooks:
        hook.remove()
    layers = [name for name in takers if not any(True for _ in named[name].children())]
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
        device="meta",  # its weights are the layer's own
    )
    grey.weight, grey.bias = first.weight, first.bias
    body.set_submodule(layers[0], grey)
    return True


def _stages(body: nn.Module) -> dict[str, int]:
    """The stage of each of the body's weights, by name, counted from the input.

    AlexNet's stages are its five convolutions; timm states each model's own (VGG's are its
    convolutions, ResNet's its stem and four layers, a vision transformer's its blocks).
    """
    if isinstance(body, nn.Sequential):
        names = [name for name, _ in body.named_parameters()]
        layers = list(dict.fromkeys(name.split(".")[0] for name in names))
        return {name: layers.index(name.split(".")[0]) for name in names}
    groups = group_parameters(body, cast(Any, body).group_matcher(coarse=True))
    return {name: stage for stage, names in groups.items() for name in names}
