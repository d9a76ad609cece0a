"""Settings of the network. Importing this module doesn't import torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from mrknee.settings import Settings

SlicePooling = Literal["max", "mean", "attention"]
"""How the feature vectors of a series' slices are reduced to one."""

BatchNorm = Literal["frozen", "trained"]
"""Whether batch normalisation uses its stored statistics or those of the training batches."""


class NetworkSettings(Settings):
    """Architecture of the network; the defaults give the reference network."""

    section: ClassVar[str] = "network"

    added: ClassVar[frozenset[str]] = frozenset({"drop_path"})

    encoder: Annotated[str, Field(min_length=1)] = "alexnet"
    """Name of the encoder, which turns each slice into features: one listed by `mrknee encoders`,
    or any model of timm."""

    shared_encoder: bool = False
    """Use one encoder for all series instead of one per series."""

    slice_pooling: SlicePooling = "max"
    """How the features of a series' slices are combined: `max` takes the maximum of each feature
    over slices, `mean` the average, `attention` an average with learned weights."""

    frozen_stages: Annotated[int, Field(ge=0, le=1000)] = 0
    """Number of encoder stages, counted from the input, whose weights are not trained (alexnet has
    5 stages)."""

    batchnorm: BatchNorm = "frozen"
    """`frozen` keeps the statistics of batch normalisation that were loaded with the weights, since
    the slices of one exam are too similar to estimate them from; `trained` uses the statistics of
    the training batches, which an encoder with random initial weights may need."""

    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability with which each pooled feature is set to 0 during training."""

    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Stochastic depth: probability with which the last residual block of an encoder is skipped for
    a slice during training; timm sets lower ones for the blocks before it. Possible for the models
    of timm that take `drop_path_rate`, not for alexnet."""
