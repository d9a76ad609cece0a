"""Slices to exam: the features of a series' slices become one feature vector.

A pooling returns that vector and the weights by which it is a sum over the slices, so training,
explanation and export all use the same one. To add a pooling, write its class here, add it to
`POOLINGS`, and its name to `SlicePooling` in `mrknee.networks.settings`.

Exams are pooled one by one, each from its own slices only, so that what else is in the batch can
never reach an exam's result. `torch.segment_reduce` and `scatter_reduce` would pool all exams in
one call, but where several slices tie for the maximum (a feature that is zero on every slice is
common after a ReLU) they share the gradient among them, while the published system's `torch.max`
gives it to the first; and next to the encoder's work the few calls per exam cost nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mrknee.networks.settings import SlicePooling

ATTENTION_WIDTH = 128
"""Hidden width of attention's scorer (Ilse et al. 2018, section 4: L = 128 for its image sets)."""


class Pooled(NamedTuple):
    """The slices of one series of one exam, pooled.

    Attributes:
        vector: (width,), the sum over slices of weights * features.
        weights: (slices, width), how much of each slice's features is in it.
    """

    vector: Tensor
    weights: Tensor


class Pooling(nn.Module, ABC):
    """Slices to one feature vector.

    Args:
        width: how many features a slice has.

    Attributes:
        attends: whether the weights depend on features other than the one they weight, so that an
            explanation holds them fixed.
    """

    attends = False

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    @abstractmethod
    def forward(self, features: Float[Tensor, "slices width"]) -> Pooled:
        """The pooled features of at least one slice, and the weights of the slices."""


class MaxPooling(Pooling):
    """Each feature's strongest slice, as in the published system."""

    def forward(self, features: Float[Tensor, "slices width"]) -> Pooled:
        """The maximum over slices; of tied slices the first has the weight and the gradient."""
        strongest = torch.max(features, dim=0)
        order = torch.arange(features.shape[0], device=features.device)
        weights = (order[:, None] == strongest.indices).to(features.dtype)
        return Pooled(strongest.values, weights)


class MeanPooling(Pooling):
    """The average over slices."""

    def forward(self, features: Float[Tensor, "slices width"]) -> Pooled:
        """The mean over slices."""
        return Pooled(features.mean(dim=0), torch.ones_like(features) / features.shape[0])


class AttentionPooling(Pooling):
    """An average over slices with learned weights.

    Ilse, Tomczak, Welling: "Attention-based Deep Multiple Instance Learning", ICML 2018,
    equations 7 and 8: weights = softmax over the exam's slices of w tanh(V features).
    """

    attends = True

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.scorer = nn.Sequential(
            nn.Linear(width, ATTENTION_WIDTH, bias=False),
            nn.Tanh(),
            nn.Linear(ATTENTION_WIDTH, 1, bias=False),
        )

    def forward(self, features: Float[Tensor, "slices width"]) -> Pooled:
        """The average over slices, weighted by attention: 0 to 1, summing to 1 over the slices."""
        attention = torch.softmax(self.scorer(features)[:, 0], dim=0)
        return Pooled(attention @ features, attention[:, None].expand_as(features))


POOLINGS: Mapping[SlicePooling, type[Pooling]] = {
    "max": MaxPooling,
    "mean": MeanPooling,
    "attention": AttentionPooling,
}


def pool_exams(
    pooling: Pooling, features: Float[Tensor, "slices width"], lengths: Sequence[int]
) -> tuple[Float[Tensor, "exams width"], Float[Tensor, "slices width"]]:
    """Pools each exam's own slices.

    Args:
        pooling: one of `POOLINGS`.
        features: the features of all slices of all exams, one exam after another.
        lengths: how many of the slices belong to each exam; they add up to `slices`.

    Returns:
        One row per exam; zeros, to which no gradient flows, for an exam without slices. And the
        weights of all slices.

    Raises:
        ValueError: the lengths don't add up to the number of slices.
    """
    if sum(lengths) != len(features):
        raise ValueError(f"lengths add up to {sum(lengths)}, but there are {len(features)} slices")
    empty = Pooled(features.new_zeros(features.shape[1]), features[:0])
    exams = torch.split(features, list(lengths))
    pooled = [pooling(exam) if len(exam) else empty for exam in exams]
    vectors, weights = zip(*pooled, strict=True)
    return torch.stack(vectors), torch.cat(weights)
