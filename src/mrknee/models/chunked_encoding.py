"""Encoding of slices in chunks with gradients, in the memory of one chunk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


def encode_in_chunks(
    encoder: nn.Module, slices: Float[Tensor, "slices channels rows cols"], chunk: int
) -> Float[Tensor, "slices width map_rows map_cols"]:
    """Computes an encoder's feature maps with gradient checkpointing per chunk of slices.

    In the backward pass each chunk is encoded again, with the same random numbers. Gradients are
    computed for the encoder's weights, not for the slices. They equal those of all slices at once,
    up to rounding, if the encoder treats slices independently. `torch.utils.checkpoint` does the
    same, but fragments the memory: its small records lie between the large arrays, and on a CPU the
    C library couldn't reuse 37 MB per four slices of EfficientNet-Lite0.

    Args:
        encoder: the encoder.
        slices: the normalised slices.
        chunk: number of slices per chunk.
    """
    weights = [p for p in encoder.parameters() if p.requires_grad]
    maps: Tensor = _ChunkedEncoding.apply(encoder, chunk, slices, *weights)
    return maps


class _ChunkedEncoding(torch.autograd.Function):
    @staticmethod
    def forward(  # torch's context has no type
        ctx: Any,  # noqa: ANN401
        encoder: nn.Module,
        chunk: int,
        slices: Tensor,
        *weights: Tensor,
    ) -> Tensor:
        device = slices.device
        ctx.encoder, ctx.chunk, ctx.weights = encoder, chunk, weights
        ctx.random_state = _random_state(device)
        ctx.mixed = torch.is_autocast_enabled(device.type), torch.get_autocast_dtype(device.type)
        ctx.save_for_backward(slices)
        return torch.cat([encoder(part) for part in slices.split(chunk)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        (slices,) = ctx.saved_tensors
        enabled, dtype = ctx.mixed
        sums: list[Tensor | None] = [None] * len(ctx.weights)
        pairs = zip(slices.split(ctx.chunk), gradient.split(ctx.chunk), strict=True)
        with _restored_random_state(slices.device, ctx.random_state):
            for part, part_gradient in pairs:
                mixed = torch.autocast(slices.device.type, dtype, enabled=enabled)
                with torch.enable_grad(), mixed:
                    maps = ctx.encoder(part)
                more = torch.autograd.grad(maps, ctx.weights, part_gradient, allow_unused=True)
                sums = [b if a is None else a if b is None else a + b
                        for a, b in zip(sums, more, strict=True)]  # fmt: skip
        return None, None, None, *sums


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Returns the states of torch's random generators of the CPU and of the slices' GPU."""
    gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return torch.get_rng_state(), gpu


@contextmanager
def _restored_random_state(
    device: torch.device, recorded: tuple[Tensor, Tensor | None]
) -> Iterator[None]:
    """Temporarily restores recorded states of the random generators."""
    state, gpu = recorded
    with torch.random.fork_rng([] if gpu is None else [device]):
        torch.set_rng_state(state)
        if gpu is not None:
            torch.cuda.set_rng_state(gpu, device)
        yield
