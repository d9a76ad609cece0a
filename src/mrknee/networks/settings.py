"""What a network is made of, as plain settings; importing this file imports no torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from mrknee.settings import Settings

SlicePooling = Literal["max", "mean", "attention"]
"""How the slices of a series become one feature vector."""

BatchNorm = Literal["frozen", "trained"]
"""Whether batch normalisation keeps its stored statistics or measures them while training."""


class NetworkSettings(Settings):
    """What the network is made of; the defaults are the reference network."""

    section: ClassVar[str] = "network"

    encoder: Annotated[str, Field(min_length=1)] = "alexnet"
    """Name of the network that turns slices into features: one that `mrknee encoders` lists, or any
    name that timm knows."""

    shared_encoder: bool = False
    """One encoder for all series instead of one per series."""

    slice_pooling: SlicePooling = "max"
    """How slices become an exam: `max` takes each feature's strongest slice, `mean` the average,
    `attention` an average with learned weights."""

    frozen_stages: Annotated[int, Field(ge=0, le=1000)] = 0
    """How many of the encoder's stages, counted from the input, keep the weights they start with
    (alexnet has 5)."""

    batchnorm: BatchNorm = "frozen"
    """`frozen` keeps the statistics of batch normalisation as they were loaded, since the slices of
    one exam are too alike to measure them on; `trained` measures them anew, which an encoder that
    starts from random weights may need."""

    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the pooled features dropped at random while training."""
