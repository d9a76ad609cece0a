"""What a network is made of, as plain settings; importing this file imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from mrknee.errors import SettingsError

SlicePooling = Literal["max", "mean", "attention"]
"""How the slices of a series become one feature vector."""

BatchNorm = Literal["frozen", "trained"]
"""Whether batch normalisation keeps its stored statistics or measures them while training."""


@dataclass(frozen=True)
class NetworkSettings:
    """What the network is made of; the defaults are the reference network.

    Attributes:
        encoder: name of the network that turns slices into features: one that `mrknee encoders`
            lists, or any name that timm knows.
        shared_encoder: one encoder for all series instead of one per series.
        slice_pooling: how slices become an exam: `max` takes each feature's strongest slice,
            `mean` the average, `attention` an average with learned weights.
        frozen_stages: how many of the encoder's stages, counted from the input, keep the weights
            they start with (alexnet has 5).
        batchnorm: `frozen` keeps the statistics of batch normalisation as they were loaded, since
            the slices of one exam are too alike to measure them on; `trained` measures them anew,
            which an encoder that starts from random weights may need.
        dropout: share of the pooled features dropped at random while training, 0 to below 1.

    Raises:
        MrkneeError: a value out of its range, or of the wrong type.
    """

    encoder: str = "alexnet"
    shared_encoder: bool = False
    slice_pooling: SlicePooling = "max"
    frozen_stages: int = 0
    batchnorm: BatchNorm = "frozen"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Checks every value, because settings also come from files."""
        _require(
            isinstance(self.encoder, str) and self.encoder != "",
            "encoder",
            "an encoder's name",
            self.encoder,
        )
        _require(
            isinstance(self.shared_encoder, bool),
            "shared_encoder",
            "true or false",
            self.shared_encoder,
        )
        _require_one_of("slice_pooling", get_args(SlicePooling), self.slice_pooling)
        _require(
            type(self.frozen_stages) is int and self.frozen_stages >= 0,
            "frozen_stages",
            "a whole number, 0 or more",
            self.frozen_stages,
        )
        _require_one_of("batchnorm", get_args(BatchNorm), self.batchnorm)
        _require(
            type(self.dropout) in (int, float) and 0 <= self.dropout < 1,
            "dropout",
            "a number from 0 to below 1",
            self.dropout,
        )


def _require_one_of(name: str, choices: tuple[str, ...], value: object) -> None:
    _require(value in choices, name, " or ".join(repr(choice) for choice in choices), value)


def _require(right: bool, name: str, expected: str, found: object) -> None:
    if not right:
        raise SettingsError(
            f"the network setting {name!r} can't be used",
            code="network",
            expected=expected,
            found=repr(found),
        )
