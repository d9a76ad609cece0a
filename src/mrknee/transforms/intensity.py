"""Augmentation of grey values: gamma, bias field and noise, drawn first and then applied.

Like the views (`augmentation`), the draws depend only on (seed, epoch, exam id).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from mrknee.transforms.random_streams import stream
from mrknee.transforms.settings import AugmentationSettings

ORDER = 3
"""Order of the polynomial of the bias field: the default of TorchIO's RandomBiasField."""

_TERMS = [
    (i, j, k)
    for i in range(ORDER + 1)
    for j in range(ORDER + 1 - i)
    for k in range(ORDER + 1 - i - j)
    if i + j + k
]
"""Exponents of slice, row and column in the terms of the polynomial, without the constant."""


@dataclass(frozen=True)
class Intensity:
    """The change of the grey values of one series.

    Attributes:
        gamma: exponent of the grey values, as fractions of 255; 1 changes nothing.
        coefficients: (4, 4, 4), coefficients of the bias field: [i, j, k] is that of slice^i row^j
            column^k, with coordinates from -1 to 1; all 0 change nothing.
        noise: standard deviation of the Gaussian noise, in grey levels; 0 adds none.
        noise_seed: seed of the noise.
    """

    gamma: float
    coefficients: Float[np.ndarray, "4 4 4"]
    noise: float
    noise_seed: int


def draw_intensities(
    augmentation: AugmentationSettings, seed: int, epoch: int, exam_id: str, series: Sequence[str]
) -> dict[str, Intensity]:
    """Draws the changes of all series; the same arguments always give the same changes.

    Exponent and standard deviation are drawn per exam, since they belong to the scanner and the
    conversion to grey values; bias field and noise are drawn per series.

    Args:
        augmentation: the limits.
        seed: seed of the run.
        epoch: number of finished epochs.
        exam_id: the exam's id.
        series: names of the series that exams can have, in order.
    """
    rng = np.random.default_rng(stream("intensity", seed, epoch, exam_id))
    gamma = (1 + augmentation.gamma) ** rng.uniform(-1, 1)
    noise = 255 * augmentation.noise * rng.uniform()
    drawn = {}
    for index, name in enumerate(series):
        of_field = np.random.default_rng(stream("bias_field", seed, epoch, exam_id, index))
        coefficients = np.zeros((ORDER + 1,) * 3)
        numbers = of_field.uniform(-1, 1, len(_TERMS)) * augmentation.bias_field
        coefficients[tuple(np.transpose(_TERMS))] = numbers
        state = stream("noise", seed, epoch, exam_id, index).generate_state(1)
        drawn[name] = Intensity(float(gamma), coefficients, float(noise), int(state[0]))
    return drawn


def apply_intensity(
    slices: UInt8[Tensor, "slices rows cols"], intensity: Intensity
) -> UInt8[Tensor, "slices rows cols"]:
    """Applies gamma, bias field and noise, in this order; the result is clipped to 0..255."""
    levels = (255 * (np.arange(256) / 255) ** intensity.gamma).astype(np.float32)
    grey = torch.from_numpy(levels[slices.numpy()])  # faster than torch's indexing
    if intensity.coefficients.any():
        grey.mul_(bias_field(intensity.coefficients, slices.shape))
    if intensity.noise:
        source = torch.Generator().manual_seed(intensity.noise_seed)
        # torch draws normal numbers three times as fast as numpy
        grey.add_(torch.randn(grey.shape, generator=source), alpha=intensity.noise)
    return grey.add_(0.5).clamp_(0, 255).to(torch.uint8)


def bias_field(
    coefficients: Float[np.ndarray, "4 4 4"], shape: Sequence[int]
) -> Float[Tensor, "slices rows cols"]:
    """Computes the factors of the voxels of a stack: the exponential of a polynomial.

    The form is that of TorchIO's RandomBiasField, after Sudre et al. 2017
    (https://doi.org/10.1109/TMI.2016.2644864); its constant term is left out, because normalising
    each stack from its minimum to its maximum removes it.
    """
    along = [_powers(length) for length in shape]
    factors = torch.from_numpy(coefficients).float()
    rows = torch.einsum("si,ijk,rj->srk", along[0], factors, along[1])
    return (rows @ along[2].T).exp_()


def _powers(length: int) -> Float[Tensor, "{length} 4"]:
    """Returns the powers 0 to `ORDER` of coordinates from -1 to 1; a single one is 0."""
    places = torch.linspace(-1, 1, length) if length > 1 else torch.zeros(1)
    return torch.stack([places**power for power in range(ORDER + 1)], dim=1)
