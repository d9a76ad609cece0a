"""Encoders: one interface to torchvision's AlexNet, our ELNets, and all models of timm.

An encoder computes a feature map per slice. timm has no AlexNet, which is therefore taken from
torchvision, and no ELNet (`mrknee.models.elnet`); every other name is passed to timm.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import timm
import torch
import torchvision  # type: ignore[import-untyped]
from jaxtyping import Float
from timm.layers.drop import DropPath
from timm.models import PretrainedCfg
from torch import Tensor, nn

from mrknee.errors import MrkneeError, SettingsError
from mrknee.models.bodies import feature_maps, shorten, stages_of, take_grey, trim
from mrknee.models.catalogue import ENCODERS, PUBLISHED, grey_statistics
from mrknee.models.elnet import ELNETS, elnet_body
from mrknee.models.folding import FoldedBody
from mrknee.models.neck import Neck, Pyramid
from mrknee.models.weights import (
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
"""Rows and columns on which AlexNet was trained (torchvision's crop)."""


class Encoder(nn.Module):
    """Computes feature maps of images of three channels, or of one for three equal ones.

    Args:
        body: network of torchvision or timm; modules that the feature map doesn't need, such as the
            rest of a classifier, are removed.
        size: rows and columns of a test image.
        maps: indices of the feature maps to use, counted from the input; empty: the last one.
        channels: channels of a `Neck` behind the maps; 0: no neck, for a single map.
        pyramid: a `Pyramid` of these channels in place of a `Neck`.
        linear: leave out the ReLU of the `Neck`.

    Attributes:
        neck: combines the maps; None without.
        width: channels of the feature map, as measured (the width that libraries state may be that
            of a part of the classifier).
        repeats: whether the body needs three channels; otherwise its first layer is a plain
            convolution and was replaced by a `GreyConv2d`, which accepts one.
        grouped: whether the body has grouped convolutions, as most mobile networks.
        stages: number of stages that can be frozen.
        stage_of: name of each parameter of the body -> stage, counted from the input.
    """

    def __init__(
        self,
        body: nn.Module,
        size: tuple[int, int],
        maps: Sequence[int] = (),
        channels: int = 0,
        *,
        pyramid: bool = False,
        linear: bool = False,
    ) -> None:
        super().__init__()
        self.body = shorten(body, maps) if maps else body
        self._indices = tuple(maps)
        widths = trim(self.body, size, self._indices)
        self.repeats = not take_grey(self.body, size, self._indices)
        # channels last makes small convolutions 1.2 to 1.7 times faster on a CPU, but gradients of
        # strided 1x1 convolutions of the image then corrupt memory (torch 2.14)
        strided = any(
            isinstance(layer, nn.Conv2d)
            and layer.in_channels == 3
            and max(layer.kernel_size) == 1 < max(layer.stride)
            for layer in self.body.modules()
        )
        self._memory_format = torch.contiguous_format if strided else torch.channels_last
        self.grouped = any(getattr(layer, "groups", 1) > 1 for layer in self.body.modules())
        self.stage_of = stages_of(self.body)
        self.neck: Neck | None = None
        self.width = widths[0]
        if channels:
            self.neck = (
                Pyramid(widths, channels) if pyramid else Neck(widths, channels, linear=linear)
            )
            self.width = channels * len(widths) if pyramid else channels
        self._frozen_stages = 0
        self.stages = 1 + max(self.stage_of.values())
        self._folded: FoldedBody | None = None

    def forward(
        self, pictures: Float[Tensor, "n channels rows cols"]
    ) -> Float[Tensor, "n {self.width} map_rows map_cols"]:
        """Computes the feature map of each image, normalised by the preparation."""
        return self.combine(self.maps(pictures))

    def maps(
        self, pictures: Float[Tensor, "n channels rows cols"]
    ) -> list[Float[Tensor, "n _ _ _"]]:
        """Computes the feature maps of the body, from the finest to the coarsest."""
        if self.repeats or pictures.shape[1] == 3:
            pictures = pictures.expand(-1, 3, -1, -1).contiguous(memory_format=self._memory_format)
        if not torch.compiler.is_exporting():
            if self._folded is None:
                self._folded = FoldedBody(self.body, pictures, self._indices)
            if self._folded.usable and self._folded.fixed(self.body):
                return self._folded.maps(self.body, pictures)
        return feature_maps(self.body, pictures, self._indices)

    def fold(self, pictures: Float[Tensor, "n channels rows cols"]) -> None:
        """Folds the batch normalisations into the convolutions for good, where that is possible.

        For a network that is only read from now on, such as one to be exported.

        Args:
            pictures: images of a size that the encoder accepts.
        """
        self.maps(pictures)
        if self._folded is not None and self._folded.usable:
            self.body, self._folded = self._folded.body(self.body), None
            self.stage_of = stages_of(self.body)

    def combine(
        self, maps: Sequence[Float[Tensor, "n _ _ _"]]
    ) -> Float[Tensor, "n {self.width} map_rows map_cols"]:
        """Computes the encoder's result from the feature maps of its body."""
        return maps[0] if self.neck is None else cast(Tensor, self.neck(maps))

    def standardise(self, maps: Sequence[Float[Tensor, "n _ _ _"]]) -> list[Tensor]:
        """Computes the part of `combine` that has no weights, for maps that are used many times."""
        return list(maps) if self.neck is None else self.neck.standardise(maps)

    def combine_standardised(
        self, maps: Sequence[Float[Tensor, "n _ _ _"]]
    ) -> Float[Tensor, "n {self.width} map_rows map_cols"]:
        """Computes the rest of `combine` from the maps of `standardise`."""
        return maps[0] if self.neck is None else self.neck.reduce_standardised(maps)

    @property
    def frozen(self) -> bool:
        """Whether no weight of the body is trained; the neck's are."""
        return not any(weight.requires_grad for weight in self.body.parameters())

    @property
    def partly_frozen(self) -> bool:
        """Whether the first stages are frozen, and others are trained."""
        return self._frozen_stages > 0 and not self.frozen

    def freeze_stages(self, count: int) -> None:
        """Freezes the first stages: no gradients, evaluation mode.

        Args:
            count: number of stages, counted from the input; 0 freezes none, and -2 all but the last
                two.

        Raises:
            SettingsError: the encoder has fewer stages.
        """
        if abs(count) > self.stages:
            raise SettingsError(
                "the encoder has fewer stages than should be frozen",
                code="frozen-stages",
                expected=f"frozen_stages from {-self.stages} to {self.stages}",
                found=str(count),
            )
        self._frozen_stages = count if count >= 0 else self.stages + count
        for name, parameter in self.body.named_parameters():
            if self.stage_of[name] < self._frozen_stages:
                parameter.requires_grad_(False)

    def keep_frozen(self, batchnorm: bool) -> None:
        """Sets frozen modules to evaluation mode again after the network was set to training mode.

        Args:
            batchnorm: whether all normalisations with running statistics are frozen, not only those
                in frozen stages.
        """
        for name, module in self.body.named_modules():
            prefix = f"{name}." if name else ""
            stages = {self.stage_of[prefix + key] for key, _ in module.named_parameters()}
            in_frozen_stage = bool(stages) and max(stages) < self._frozen_stages
            if in_frozen_stage or (batchnorm and getattr(module, "running_var", None) is not None):
                module.eval()


def build_encoders(
    name: str,
    weights: str,
    count: int,
    maps: Sequence[int] = (),
    channels: int = 0,
    drop_path: float = 0.0,
    *,
    pyramid: bool = False,
    linear: bool = False,
) -> list[Encoder]:
    """Builds several encoders: copies of a pretrained one, or different random ones.

    Args:
        name: an encoder of the catalogue, or any model name of timm.
        weights: `none` (random), `download` (pretrained weights of the library), `lite0` (the
            optional package), or a weights file.
        count: number of encoders.
        maps: indices of the feature maps to use; see `Encoder`.
        channels: channels of the neck; see `Encoder`. Its weights are random and equal.
        drop_path: probability of skipping the last residual block (timm's `drop_path_rate`).
        pyramid: keep the levels of a feature pyramid apart; see `Encoder`.
        linear: no activation behind the neck; see `Encoder`.

    Raises:
        MrkneeError: there is no such encoder or feature map, the weights are unavailable or don't
            fit, or the encoder has no residual blocks to skip.
    """
    check_name(name)
    build = partial(
        _build,
        name,
        weights,
        maps,
        drop_path,
        channels=channels,
        pyramid=pyramid,
        linear=linear,
    )
    if weights == NONE:
        return [build() for _ in range(count)]
    first = build()
    return [first, *(copy.deepcopy(first) for _ in range(count - 1))]


def check_name(name: str) -> None:
    """Checks that an encoder with this name exists.

    Raises:
        SettingsError: the name is neither in the catalogue, nor ours, nor in timm; close names are
            listed.
    """
    if name in ENCODERS or name in ELNETS or _timm_config(name) is not None:
        return
    close = difflib.get_close_matches(name, {*ENCODERS, *ELNETS, *timm.list_models()}, n=5)
    raise SettingsError(
        "there is no encoder with this name",
        code="encoder",
        expected=f"for example {', '.join(close or ENCODERS)}",
        found=repr(name),
        advice="list the encoders of the catalogue with `mrknee encoders`, all of timm with "
        '`python -c "import timm; print(*timm.list_models())"`',
    )


def input_statistics(name: str) -> tuple[float, float]:
    """Returns mean and SD of grey values, 0 to 255, that an encoder's pretrained weights expect.

    Raises:
        SettingsError: there is no such encoder.
    """
    if name == ALEXNET or name in ELNETS:
        return PUBLISHED
    check_name(name)
    entry = ENCODERS.get(name)
    if entry is not None:
        return grey_statistics(entry.mean, entry.sd)
    config = timm.get_pretrained_cfg(name)
    assert config is not None  # noqa: S101 - for the type checker: the name was checked
    return grey_statistics(cast(Any, config.mean), cast(Any, config.std))


def _timm_config(name: str) -> PretrainedCfg | None:
    """Returns timm's configuration of a model, or None if there is no such model."""
    if not timm.is_model(name):
        return None
    try:
        return timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError:  # a known model without this set of weights (the part after the dot)
        return None


def _build(
    name: str,
    weights: str,
    maps: Sequence[int],
    drop_path: float,
    *,
    channels: int,
    pyramid: bool,
    linear: bool,
) -> Encoder:
    if name == ALEXNET or name in ELNETS:
        if drop_path:
            raise _no_drop_path(name)
        if name in ELNETS and weights == DOWNLOAD:
            raise SettingsError(
                "there are no pretrained weights for this encoder",
                code="weights",
                expected="weights none (random), a file, or run:PATH",
                found=f"{weights}, for {name}",
                advice="train it from random weights: --weights none",
            )
        body = _alexnet_body() if name == ALEXNET else elnet_body(ELNETS[name])
        encoder = Encoder(body, ALEXNET_INPUT, maps, channels, pyramid=pyramid, linear=linear)
    else:
        config = timm.get_pretrained_cfg(name)
        assert config is not None  # noqa: S101 - for the type checker: the name was checked
        model = _timm_body(name, weights == DOWNLOAD, drop_path)
        try:
            encoder = Encoder(
                model, config.input_size[1:], maps, channels, pyramid=pyramid, linear=linear
            )
        except SettingsError:
            raise
        except Exception as fault:  # timm's models raise various exceptions
            raise _not_usable(name, fault) from fault
    match weights:
        case "none":
            if name == ALEXNET:
                _initialise(encoder.body)
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
        expected="a network with stages that computes one feature map per image",
        found=f"{name}: {type(fault).__name__}: {str(fault)[:200]}",
        advice="choose another encoder; `mrknee encoders` lists those of the catalogue",
    )


def _no_drop_path(name: str) -> MrkneeError:
    return SettingsError(
        "the encoder has no stochastic depth",
        code="setting",
        expected="network.drop_path 0, or an encoder of timm that takes drop_path_rate, such as "
        "ResNets, EfficientNets, ConvNeXts and vision transformers",
        found=f"network.drop_path above 0 with {name}",
    )


def _alexnet_body() -> nn.Sequential:
    """Builds AlexNet's feature layers with random weights, without its 55 million other weights."""
    with torch.device("meta"):
        body: nn.Sequential = torchvision.models.alexnet(weights=None).features
    body.to_empty(device=torch.get_default_device())
    for layer in body:
        if isinstance(layer, nn.Conv2d):
            layer.reset_parameters()
    return body


def _initialise(body: nn.Module) -> None:
    """Draws AlexNet's weights as in He et al. 2015 (arXiv:1502.01852).

    With torchvision's own random weights, activations shrink from layer to layer, and `reference`
    learns nothing (experiments/LOG.md).
    """
    for layer in body.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _timm_body(name: str, pretrained: bool, drop_path: float) -> nn.Module:
    if not pretrained:
        return _create(name, drop_path)
    address = timm_address(name)
    if Path(address).is_file():  # a cached file: without its path timm would query the site
        return _create(name, drop_path, pretrained=True, file=address)
    with downloading(address):
        return _create(name, drop_path, pretrained=True)


def _create(
    name: str, drop_path: float, pretrained: bool = False, file: str | None = None
) -> nn.Module:
    """Creates a model without classifier and pooling, for any image size if timm supports it."""
    create = partial(
        timm.create_model,
        name,
        pretrained=pretrained,
        pretrained_cfg_overlay=None if file is None else {"file": file},
        num_classes=0,
        global_pool="",
        drop_path_rate=drop_path or None,  # not every model takes it; timm omits None
    )
    try:
        try:
            body = create(dynamic_img_size=True)
        except TypeError:  # only vision transformers have this setting; most others don't need it
            body = create()
    except (AssertionError, AttributeError, NotImplementedError, TypeError) as fault:
        if drop_path and "drop_path_rate" in str(fault):
            raise _no_drop_path(name) from fault
        raise _not_usable(name, fault) from fault  # the model requires its classifier
    if drop_path and not any(isinstance(module, DropPath) for module in body.modules()):
        raise _no_drop_path(name)  # the model takes the setting and ignores it
    return body
