"""Comparison of the exported preparation with `Preparation`."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from mrknee.export.onnx import OPSET
from mrknee.transforms.preparation import Preparation
from mrknee.transforms.traced import TRANSLATIONS, TracedPreparation

PREPARATIONS = (
    Preparation(),
    Preparation(size=48, crop=32),
    Preparation(size=97, crop=48),
    Preparation(size=97, crop=48, min_size=80),
)

SIZES = [
    (256, 256), (224, 224), (224, 256), (255, 231), (512, 512), (320, 512), (640, 480), (301, 299),
    (100, 80), (48, 48), (41, 47), (37, 48), (90, 19), (3, 100), (13, 2), (1, 1),
    (400, 1), (1, 90), (600, 2), (3, 900), (240, 1), (1, 48),
]  # fmt: skip


class Frame(torch.nn.Module):
    """A module with the custom operation."""

    def __init__(self, preparation: Preparation) -> None:
        super().__init__()
        self.preparation = preparation

    def forward(self, stack: torch.Tensor) -> torch.Tensor:
        """Frames a stack."""
        settings = self.preparation
        least = settings.min_size or settings.crop
        framed: torch.Tensor = torch.ops.mrknee.frame(stack, settings.size, settings.crop, least)
        return framed


@pytest.fixture(scope="module", params=PREPARATIONS, ids=str)
def exported(
    request: pytest.FixtureRequest,
) -> tuple[Preparation, onnxruntime.InferenceSession]:
    """A preparation, and its framing exported to ONNX Runtime."""
    preparation: Preparation = request.param
    program = torch.onnx.export(
        Frame(preparation).eval(),
        (torch.zeros((2, 5, 6), dtype=torch.uint8),),
        dynamo=True,
        dynamic_shapes=({axis: torch.export.Dim(f"d{axis}") for axis in range(3)},),
        opset_version=OPSET,
        custom_translation_table=TRANSLATIONS,
        input_names=["stack"],
        verbose=False,
    )
    assert program is not None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    model = program.model_proto.SerializeToString()
    return preparation, onnxruntime.InferenceSession(model, options)


@pytest.mark.parametrize("size", SIZES)
def test_any_size_is_framed_equally(
    exported: tuple[Preparation, onnxruntime.InferenceSession], size: tuple[int, int]
) -> None:
    """Equal, smaller, larger, odd and narrow stacks give the same bytes.

    If a weighted mean is halfway between two grey values, rounding may differ by one grey value, in
    at most one pixel plus one per 20,000; in twice as many if a stack of one column or row is
    scaled to two, which are equal.
    """
    preparation, session = exported
    rng = np.random.default_rng(sum(size))
    stack = rng.integers(3, 240, (5, *size), dtype=np.uint8)
    framed = preparation.frame(torch.from_numpy(stack)).numpy().astype(int)
    (found,) = session.run(None, {"stack": stack})
    assert found.dtype == np.uint8
    apart = np.abs(found - framed)
    assert apart.max() <= 1
    twice = 2 if min(size) == 1 else 1
    assert (apart > 0).sum() <= twice * (1 + framed.size // 20_000)


@pytest.mark.parametrize("size", [(256, 256), (300, 200), (60, 31)])
@pytest.mark.parametrize("slices", [1, 4])
@pytest.mark.parametrize("changes", [{}, {"min_size": 240}, {"neighbours": True}])
def test_any_size_is_normalised_equally(
    size: tuple[int, int], slices: int, changes: dict[str, Any]
) -> None:
    """Scaling, mean and SD, and the channels, equal those of `Preparation`."""
    rng = np.random.default_rng(slices)
    stack = torch.from_numpy(rng.integers(3, 240, (slices, *size), dtype=np.uint8))
    preparation = Preparation(**changes)
    expected = preparation.normalise(preparation.frame(stack), torch.tensor([slices]))
    found = TracedPreparation(preparation)(stack)
    assert found.shape == expected.shape
    off = (found - expected).abs()
    assert (off > 1e-5).float().mean() < 1e-4
    assert off.max() < 0.05  # one grey value


def test_a_constant_stack_is_normalised_equally() -> None:
    """A constant stack becomes (0 - mean) / SD, without division by zero."""
    stack = torch.full((2, 60, 50), 77, dtype=torch.uint8)
    torch.testing.assert_close(
        TracedPreparation(Preparation())(stack), torch.full((2, 1, 224, 224), -58.09 / 49.73)
    )
