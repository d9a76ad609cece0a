"""Encoding few slices at a time, with gradients, in the memory of those few."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


def encode_few_at_once(
    encoder: nn.Module, slices: Float[Tensor, "slices 1 rows cols"], few: int
) -> Float[Tensor, "slices width map_rows map_cols"]:
    """An encoder's feature maps; going backwards, each few slices are encoded once more.

    Gradients reach the encoder's weights, not the slices. They are those of all slices at once, to
    rounding, if slices are independent of each other in the encoder; what it draws at random is
    drawn again. `torch.utils.checkpoint` does the same, but its records of every part lie between
    the large arrays, where the C library cannot use the gaps: on a processor 37 MB stayed behind
    per four slices of EfficientNet-Lite0.
    """
    weights = [p for p in encoder.parameters() if p.requires_grad]
    maps: Tensor = _FewAtOnce.apply(encoder, few, slices, *weights)
    return maps


class _FewAtOnce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, encoder: nn.Module, few: int, slices: Tensor, *weights: Tensor) -> Tensor:  # noqa: ANN401  # torch's context
        device = slices.device
        ctx.encoder, ctx.few, ctx.weights = encoder, few, weights
        ctx.drawn = _drawn(device)
        ctx.mixed = torch.is_autocast_enabled(device.type), torch.get_autocast_dtype(device.type)
        ctx.save_for_backward(slices)
        return torch.cat([encoder(part) for part in slices.split(few)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        (slices,) = ctx.saved_tensors
        enabled, number = ctx.mixed
        sums: list[Tensor | None] = [None] * len(ctx.weights)
        pairs = zip(slices.split(ctx.few), gradient.split(ctx.few), strict=True)
        with _draw_again(slices.device, ctx.drawn):
            for part, part_gradient in pairs:
                mixed = torch.autocast(slices.device.type, number, enabled=enabled)
                with torch.enable_grad(), mixed:
                    maps = ctx.encoder(part)
                more = torch.autograd.grad(maps, ctx.weights, part_gradient, allow_unused=True)
                sums = [b if a is None else a if b is None else a + b
                        for a, b in zip(sums, more, strict=True)]  # fmt: skip
        return None, None, None, *sums


def _drawn(device: torch.device) -> tuple[Tensor, Tensor | None]:
    """The state of the random numbers, of the processor and of the slices' GPU."""
    gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return torch.get_rng_state(), gpu


@contextmanager
def _draw_again(device: torch.device, drawn: tuple[Tensor, Tensor | None]) -> Iterator[None]:
    """Meanwhile random numbers are drawn as before; afterwards the state is as it was."""
    state, gpu = drawn
    with torch.random.fork_rng([] if gpu is None else [device]):
        torch.set_rng_state(state)
        if gpu is not None:
            torch.cuda.set_rng_state(gpu, device)
        yield
