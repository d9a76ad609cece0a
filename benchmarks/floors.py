"""Measured limits of this machine: peak rate of matrix products, and memory bandwidth."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

SIDE = 2048
"""Rows and columns of the matrices; large enough for start-up costs to be negligible."""

REPEATS = 7


def synchronise(device: str) -> None:
    """Waits until the device has finished its work."""
    if device != "cpu":
        torch.cuda.synchronize()


def fastest(work: Callable[[], object], device: str = "cpu", repeats: int = REPEATS) -> float:
    """Returns the seconds of the fastest of several runs, after a warm-up."""
    times = []
    for _ in range(repeats + 1):
        synchronise(device)
        start = time.perf_counter()
        work()
        synchronise(device)
        times.append(time.perf_counter() - start)
    return min(times[1:])


def peaks(device: str = "cpu") -> dict[str, float]:
    """Measures operations per second (multiply and add count as two), by number type.

    The result is the better of a matrix product and of the same product as a 1 x 1 convolution,
    which uses another library and is faster on some processors.
    """
    found = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        a = torch.randn(SIDE, SIDE, device=device).to(dtype)
        pictures = a.view(SIDE // 64, 8, 8, SIDE).permute(0, 3, 1, 2)
        weight = torch.randn(SIDE, SIDE, 1, 1, device=device).to(dtype)
        with torch.inference_mode():
            seconds = min(
                fastest(lambda a=a: a @ a, device),  # type: ignore[misc]
                fastest(lambda p=pictures, w=weight: functional.conv2d(p, w), device),  # type: ignore[misc]
            )
        found[name] = 2 * SIDE**3 / seconds
    whole = torch.randint(-100, 100, (SIDE, SIDE), dtype=torch.int8, device=device)
    # torch has no public matrix product of 8-bit integers
    found["int8"] = 2 * SIDE**3 / fastest(lambda: torch._int_mm(whole, whole), device)
    return found


def bandwidth(device: str = "cpu") -> float:
    """Measures the bytes read and written per second when copying 256 MiB."""
    source = torch.ones(2**28, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * len(source) / fastest(lambda: target.copy_(source), device)


def operations(network: nn.Module, *inputs: object, backward: bool = False) -> int:
    """Returns the floating-point operations of one pass; a multiply-add counts as two."""
    with FlopCounterMode(display=False) as counter:
        result: Tensor = network(*inputs)
        if backward:
            torch.autograd.backward(result.sum())
    return int(counter.get_total_flops())
