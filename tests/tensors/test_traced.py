"""The preparation that is exported is the preparation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mrknee.tensors.preparation import Preparation
from mrknee.tensors.traced import TracedPreparation

PREPARATIONS = (Preparation(), Preparation(size=48, crop=32), Preparation(size=97, crop=48))

SIZES = [
    (256, 256), (224, 224), (224, 256), (255, 231), (512, 512), (320, 512), (640, 480), (301, 299),
    (100, 80), (48, 48), (41, 47), (37, 48), (90, 19), (3, 100), (13, 2), (1, 1),
    (400, 1), (1, 90), (600, 2), (3, 900), (240, 1), (1, 48),
]  # fmt: skip


@pytest.mark.parametrize("preparation", PREPARATIONS)
@pytest.mark.parametrize("size", SIZES)
def test_any_size_is_framed_alike(preparation: Preparation, size: tuple[int, int]) -> None:
    """Equal, smaller, larger, odd and narrow: the same bytes.

    Where a weighted mean lies halfway between two grey values, the order of the sum may decide, in
    at most one pixel and one more of 20 000, by one grey value; twice as many where a stack of one
    column or row is scaled to two, which are the same.
    """
    rng = np.random.default_rng(sum(size))
    stack = torch.from_numpy(rng.integers(3, 240, (5, *size), dtype=np.uint8))
    framed = preparation.frame(stack).float()
    apart = (TracedPreparation(preparation).frame(stack) - framed).abs()
    assert apart.max() <= 1
    twice = 2 if min(size) == 1 else 1
    assert (apart > 0).sum() <= twice * (1 + framed.numel() // 20_000)


@pytest.mark.parametrize("size", [(256, 256), (300, 200), (60, 31)])
@pytest.mark.parametrize("slices", [1, 4])
def test_it_is_normalised_alike(size: tuple[int, int], slices: int) -> None:
    """Minimum to maximum, mean and SD, three channels."""
    rng = np.random.default_rng(slices)
    stack = torch.from_numpy(rng.integers(3, 240, (slices, *size), dtype=np.uint8))
    preparation = Preparation()
    expected = preparation.normalise(preparation.frame(stack), torch.tensor([slices]))
    found = TracedPreparation(preparation)(stack)
    assert found.shape == expected.shape
    off = (found - expected).abs()
    assert (off > 1e-5).float().mean() < 1e-4
    assert off.max() < 0.05  # one grey value


def test_a_constant_stack_is_normalised_alike() -> None:
    """(0 - mean) / SD everywhere, not a division by zero."""
    stack = torch.full((2, 60, 50), 77, dtype=torch.uint8)
    torch.testing.assert_close(
        TracedPreparation(Preparation())(stack), torch.full((2, 3, 224, 224), -58.09 / 49.73)
    )
