"""A transformer over the slices of all series of an exam.

Each slice's features, averaged over its cells, become a token. A class token collects what decides
the findings, and one linear layer computes the logits from it. Such designs are known as slice
transformers or slice fusion (for example G. Müller-Franzes et al., "Medical Slice Transformer",
arXiv:2411.15802, with one series); this one is built from `torch.nn`'s layers, and its sizes are
ours.

Normalisation and hidden layers make a logit no sum over slices: there is no exact explanation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

TOKEN = 128
"""Width of a token. As many as the attention of `mrknee.models.pooling` has; not tuned."""

HEADS, LAYERS = 4, 2
"""Attention heads, and layers; few, because MRNet has about a thousand training exams."""

LONGEST_WAVE = 10_000.0
"""Longest wavelength of the positions, in slices, divided by 2 pi (Vaswani et al., "Attention is
all you need", NeurIPS 2017, section 3.5)."""


class SliceTransformer(nn.Module):
    """Computes one vector from the slices of an exam, whatever their number.

    A token is the sum of a linear projection of the slice's normalised features, an embedding of
    its series, and the sinusoidal position of the slice in its series. The layers are encoder
    layers with normalisation first. Missing series have no tokens, and need no factor.

    Args:
        width: number of features per slice.
        series: number of series that an exam can have.
        dropout: probability of dropout inside the layers.
    """

    def __init__(self, width: int, series: int, dropout: float) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, TOKEN))
        self.series = nn.Embedding(series, TOKEN)
        self.class_token = nn.Parameter(torch.zeros(1, TOKEN))
        # not nn.TransformerEncoder, whose layers have equal initial weights
        self.layers = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(
                    TOKEN,
                    HEADS,
                    4 * TOKEN,
                    dropout,
                    activation="gelu",
                    batch_first=True,
                    norm_first=True,
                )
                for _ in range(LAYERS)
            ),
            nn.LayerNorm(TOKEN),
        )

    def forward(self, features: Mapping[int, Float[Tensor, "_ width"]]) -> Float[Tensor, " token"]:
        """Computes the class token after all layers.

        Args:
            features: index of the series -> features of its slices, for all series of one exam.
        """
        tokens: list[Tensor] = [self.class_token]
        for index, own in features.items():
            place = torch.arange(len(own), device=own.device)
            tokens.append(self.project(own) + self.series.weight[index] + positions(place))
        done = self.layers(torch.cat(tokens)[None])
        return cast(Tensor, done[0, 0])


def positions(places: Tensor) -> Float[Tensor, "places token"]:
    """Computes sinusoidal positions: sines of `TOKEN` / 2 wavelengths, then their cosines."""
    steps = torch.arange(TOKEN // 2, device=places.device) / (TOKEN // 2)
    angles = places[:, None] / LONGEST_WAVE**steps
    return torch.cat([angles.sin(), angles.cos()], dim=1)
