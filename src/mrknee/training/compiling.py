"""torch.compile for the encoders, where a run's time goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mrknee.errors import PlatformError
from mrknee.networks.network import Network


def compile_encoders(network: Network) -> None:
    """Lets torch compile each encoder when it is first called; parameters keep their names.

    Pooling stays as it is: it is plain Python over exams of different lengths, and costs nothing.

    Raises:
        MrkneeError: torch can't compile on this machine.
    """
    try:
        torch.compile(torch.sin)(torch.zeros(8))  # what is missing shows here, not in an encoder
    except Exception as fault:
        lines = [line for line in str(fault).splitlines() if line.strip()]
        raise PlatformError(
            "torch can't compile on this machine",
            code="compiler",
            expected="a C++ compiler: g++ or clang++, or the one that the variable CXX names",
            found=lines[0] if lines else type(fault).__name__,
            advice="install one (apt install g++), or train without the setting compile",
        ) from fault
    network.register_forward_pre_hook(_free_slices)
    for encoder in network.encoders.values():
        encoder.compile()


def _free_slices(_: nn.Module, given: tuple[Any, ...]) -> None:
    """Says that the number of slices is free: or torch compiles for the first one it meets."""
    slices: Mapping[str, Tensor] = given[0]
    for stack in slices.values():
        torch._dynamo.maybe_mark_dynamic(stack, 0)
