"""Settings of the network. Importing this module doesn't import torch."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from mrknee.settings import Settings, invalid_setting

SlicePooling = Literal[
    "max",
    "mean",
    "attention",
    "evidence",
    "evidence_logsumexp",
    "finding_attention",
    "transformer",
]
"""How the features of an exam's slices are combined to one logit per finding."""

Activation = Literal["relu", "none"]
"""What follows the 1x1 convolutions behind an encoder."""

BatchNorm = Literal["frozen", "trained"]
"""Whether batch normalisation uses its stored statistics or those of the training batches."""


def _numbers(given: object) -> object:
    """Takes lists, and what is written on the command line: `2,3`, a single number, `none`."""
    if given == "none":
        return ()
    if isinstance(given, str):
        parts = [part.strip() for part in given.strip("[]").split(",")]
        return tuple(int(part) if part.isdecimal() else part for part in parts)
    if isinstance(given, list):
        return tuple(given)
    return (given,) if type(given) is int else given


class NetworkSettings(Settings):
    """Architecture of the network; the defaults give the reference network."""

    section: ClassVar[str] = "network"
    added: ClassVar[frozenset[str]] = frozenset(
        {"feature_maps", "channels", "activation", "drop_path", "detail_crops"}
    )

    encoder: Annotated[str, Field(min_length=1)] = "alexnet"
    """Name of the encoder, which turns each slice into features: one listed by `mrknee encoders`,
    or any model of timm."""

    shared_encoder: bool = False
    """Use one encoder for all series instead of one per series."""

    feature_maps: Annotated[
        tuple[Annotated[int, Field(ge=0, le=1000)], ...],
        BeforeValidator(_numbers, json_schema_input_type=list[int]),
        PlainSerializer(list),
    ] = ()
    """Feature maps of the encoder to use, as indices counted from the input (timm's
    `out_indices`; in most convolutional encoders 2 and 3 have one cell per 8 and per 16 pixels).
    Empty: the last one. Later layers are removed. Several maps are reduced to `channels` each,
    scaled up to the finest and added, as in a feature pyramid network."""

    channels: Annotated[int, Field(ge=0, le=65536)] = 0
    """Channels to which a 1x1 convolution reduces each feature map before pooling; 0: no such
    layer. Required for several `feature_maps`."""

    activation: Activation = "relu"
    """What follows the 1x1 convolutions of `channels`. With `none`, scores of cells are linear in
    the encoder's normalised features: with evidence pooling and a frozen encoder, small lesions are
    then learned within few epochs. With `relu` they are learned later, and not at all in some
    trainings (experiments/LOG.md)."""

    detail_crops: Annotated[int, Field(ge=0, le=100)] = 0
    """Pyramidal detail pooling, as in MRPyrNet: number D of concentric crops of the feature maps
    over which features are averaged, in place of the complete map; crop d has d / D of its rows and
    columns. With `channels`, the levels of a feature pyramid are kept apart. Possible if features
    are pooled (max, mean, attention). 0: off."""

    slice_pooling: SlicePooling = "max"
    """How the features of slices are combined. `max`, `mean` and `attention` average each feature
    map over its cells, then take the maximum of each feature over a series' slices, the average, or
    an average with learned weights; one linear layer computes the logits. `evidence` first computes
    a score per finding for each cell of each slice; the logit is the sum over series of the average
    score, weighted by the softmax of the scores times a learned sharpness. `evidence_logsumexp`
    takes the log-mean-exp of the scores instead. `finding_attention` averages scores over all
    slices of all series with learned weights per finding. `transformer` lets the slices of all
    series attend to each other and to a class token, from which one linear layer computes the
    logits; such a network can't be explained or exported."""

    frozen_stages: Annotated[int, Field(ge=-1000, le=1000)] = 0
    """Number of encoder stages, counted from the input, whose weights are not trained (alexnet has
    5 stages). Negative numbers count the trained ones: -2 trains the last two stages."""

    batchnorm: BatchNorm = "frozen"
    """`frozen` keeps the statistics of batch normalisation that were loaded with the weights, since
    the slices of one exam are too similar to estimate them from; `trained` uses the statistics of
    the training batches, which an encoder with random initial weights may need."""

    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability with which each pooled feature is set to 0 during training (each channel of a
    slice, if scores are pooled)."""

    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Stochastic depth: probability with which the last residual block of an encoder is skipped for
    a slice during training; timm sets lower ones for the blocks before it. Possible for the models
    of timm that take `drop_path_rate`, not for alexnet."""

    @model_validator(mode="after")
    def _refuse_maps_without_channels(self) -> Any:  # noqa: ANN401  # itself
        maps = self.feature_maps
        if len(maps) > 1 and not self.channels:
            raise invalid_setting(
                "network.channels",
                expected="1 or more: several feature maps are reduced to equal channels",
                found=f"{self.channels}, with network.feature_maps {list(maps)}",
            )
        if self.detail_crops and self.slice_pooling not in ("max", "mean", "attention"):
            raise invalid_setting(
                "network.detail_crops",
                expected="0, or network.slice_pooling max, mean or attention",
                found=f"{self.detail_crops}, with network.slice_pooling {self.slice_pooling}",
            )
        if self.activation == "none" and (self.detail_crops or not self.channels):
            raise invalid_setting(
                "network.activation",
                expected="relu, or network.channels without network.detail_crops",
                found=f"none, with network.channels {self.channels} and network.detail_crops "
                f"{self.detail_crops}",
            )
        if maps != tuple(sorted(set(maps))):
            raise invalid_setting(
                "network.feature_maps",
                expected="different indices in increasing order",
                found=str(list(maps)),
            )
        return self
