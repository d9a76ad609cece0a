"""Pooling over slices, of features: a series' slices become one feature vector.

`mrknee.models.evidence` has the poolings of scores.

A pooling returns the vector and the weights of the slices in it, so that training, explanation and
export use the same code. To add a pooling, write its class here, add it to `POOLINGS`, and its name
to `SlicePooling` in `mrknee.models.settings`.

Each exam is pooled separately from its own slices, so that other exams in the batch can't affect
its result. `torch.segment_reduce` and `scatter_reduce` would pool all exams in one call, but if
several slices tie for the maximum (a feature that is zero on every slice is common after a ReLU)
they distribute the gradient, while `torch.max`, as in the published system, assigns it to the
first; and compared with the encoder, the few calls per exam take no time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mrknee.models.settings import SlicePooling

ATTENTION_WIDTH = 128
"""Hidden width of the attention scorer (Ilse et al. 2018, section 4: L = 128 for image sets)."""


class Pooled(NamedTuple):
    """The pooled slices of one series of one exam.

    Attributes:
        vector: (width,), the sum over slices of weights * features.
        weights: (slices, width), the weights of the slices.
    """

    vector: Tensor
    weights: Tensor


class Pooling(nn.Module, ABC):
    """Base class of poolings over slices.

    Args:
        width: number of features per slice.

    Attributes:
        attends: whether a weight depends on features other than the weighted one; explanations
            treat such weights as constant.
    """

    attends = False

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    @abstractmethod
    def forward(self, features: Float[Tensor, "slices width"]) -> Pooled:
        """Pools the features of at least one slice; returns them and the weights of the slices."""


class MaxPooling(Pooling):
    """Maximum over slices per feature, as in the published system."""

    def forward(self, features: Float[Tensor, "slices width"]) -> Pooled:
        """Computes the maximum; of tied slices the first gets the weight and the gradient."""
        strongest = torch.max(features, dim=0)
        order = torch.arange(features.shape[0], device=features.device)
        weights = (order[:, None] == strongest.indices).to(features.dtype)
        return Pooled(strongest.values, weights)


class MeanPooling(Pooling):
    """Mean over slices."""

    def forward(self, features: Float[Tensor, "slices width"]) -> Pooled:
        """Computes the mean over slices."""
        return Pooled(features.mean(dim=0), torch.ones_like(features) / features.shape[0])


class AttentionPooling(Pooling):
    """Weighted mean over slices with learned weights.

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
        """Computes the weighted mean; weights are from 0 to 1 and add up to 1 over the slices."""
        attention = torch.softmax(self.scorer(features)[:, 0], dim=0)
        return Pooled(attention @ features, attention[:, None].expand_as(features))


def crop_weights(crops: int, rows: int, cols: int) -> Float[Tensor, "{crops} {rows} {cols}"]:
    """Returns the weights of a map's cells in the averages over concentric crops.

    Crop d of D has d / D of the rows and columns, rounded up; an odd remaining row or column is
    left out at the bottom or right. The last crop is the complete map.

    Args:
        crops: number of crops.
        rows: rows of the map.
        cols: columns of the map.

    Returns:
        1 / number of its cells inside each crop, else 0.
    """
    weights = torch.zeros(crops, rows, cols)
    for index in range(crops):
        high, wide = (-(-(index + 1) * side // crops) for side in (rows, cols))
        top, left = (rows - high) // 2, (cols - wide) // 2
        weights[index, top : top + high, left : left + wide] = 1 / (high * wide)
    return weights


POOLINGS: Mapping[SlicePooling, type[Pooling]] = {
    "max": MaxPooling,
    "mean": MeanPooling,
    "attention": AttentionPooling,
}


def pool_exams(
    pooling: Pooling, features: Float[Tensor, "slices width"], lengths: Sequence[int]
) -> tuple[Float[Tensor, "exams width"], Float[Tensor, "slices width"]]:
    """Pools the slices of each exam separately.

    Args:
        pooling: an instance of one of `POOLINGS`.
        features: features of all slices of all exams, one exam after another.
        lengths: number of slices per exam; they add up to `slices`.

    Returns:
        One row per exam, zeros without gradient for an exam without slices; and the weights of all
        slices.

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
