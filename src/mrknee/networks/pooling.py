"""Slices to exam: the features of an exam's slices become one feature vector.

Exams are pooled one by one, each from its own slices only, so that what else is in the batch can
never reach an exam's result. `torch.segment_reduce` and `scatter_reduce` would pool all exams in
one call, but where several slices tie for the maximum (a feature that is zero on every slice is
common after a ReLU) they share the gradient among them, while the reference's `torch.max` gives it
to the first; and next to the encoder's work the few calls an exam cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mrknee.networks.settings import SlicePooling

ATTENTION_WIDTH = 128
"""Hidden width of attention's scorer (Ilse et al. 2018, section 4: L = 128 for its image sets)."""


class MaxPooling(nn.Module):
    """Each feature's strongest slice, as the reference does."""

    def forward(self, features: Float[Tensor, "slices width"]) -> Float[Tensor, " width"]:
        """The maximum over slices; a tie's gradient goes to the first of the tied slices."""
        return torch.max(features, dim=0).values


class MeanPooling(nn.Module):
    """The average over slices."""

    def forward(self, features: Float[Tensor, "slices width"]) -> Float[Tensor, " width"]:
        """The mean over slices."""
        return features.mean(dim=0)


class AttentionPooling(nn.Module):
    """An average over slices with learned weights.

    Ilse, Tomczak, Welling: "Attention-based Deep Multiple Instance Learning", ICML 2018,
    equations 7 and 8: weights = softmax over the exam's slices of w tanh(V features).

    Args:
        width: how many features a slice has.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scorer = nn.Sequential(
            nn.Linear(width, ATTENTION_WIDTH, bias=False),
            nn.Tanh(),
            nn.Linear(ATTENTION_WIDTH, 1, bias=False),
        )

    def attention(self, features: Float[Tensor, "slices width"]) -> Float[Tensor, " slices"]:
        """How much each slice counts: 0 to 1, summing to 1 over the exam's slices."""
        return torch.softmax(self.scorer(features)[:, 0], dim=0)

    def forward(self, features: Float[Tensor, "slices width"]) -> Float[Tensor, " width"]:
        """The average over slices, weighted by attention."""
        return self.attention(features) @ features


def build_pooling(kind: SlicePooling, width: int) -> nn.Module:
    """The pooling of that kind, for one exam: (slices, width) -> (width,), slices >= 1."""
    match kind:
        case "max":
            return MaxPooling()
        case "mean":
            return MeanPooling()
        case "attention":
            return AttentionPooling(width)


def pool_exams(
    pooling: nn.Module, features: Float[Tensor, "slices width"], lengths: Sequence[int]
) -> Float[Tensor, "exams width"]:
    """Pools each exam's own slices.

    Args:
        pooling: one exam's pooling, from `build_pooling`.
        features: the features of all slices of all exams, one exam after another.
        lengths: how many of the slices belong to each exam; they add up to `slices`.

    Returns:
        One row an exam; zeros, to which no gradient flows, for an exam without slices.

    Raises:
        ValueError: the lengths don't add up to the number of slices.
    """
    if sum(lengths) != len(features):
        raise ValueError(f"lengths add up to {sum(lengths)}, but there are {len(features)} slices")
    empty = features.new_zeros(features.shape[1])
    exams = torch.split(features, list(lengths))
    return torch.stack([pooling(exam) if len(exam) else empty for exam in exams])
