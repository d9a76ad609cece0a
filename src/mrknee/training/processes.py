"""Several processes that train one network, started by torchrun.

Gradients are averaged by torch's DistributedDataParallel. Every process knows all predictions of
every step, so that all take the same decisions; the first one writes and shows.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch.distributed

Value = TypeVar("Value")


@dataclass(frozen=True)
class Processes:
    """Which process this is, of how many.

    Attributes:
        rank: this one, from 0.
        world: all of them.
        nodes: machines that they run on.
    """

    rank: int = 0
    world: int = 1
    nodes: int = 1

    def first_does(self, work: Callable[[], Value]) -> Value:
        """Lets the first process do it, and gives its result to all; ends them if it fails.

        Raises:
            Exception: in the first process, whatever `work` raises; the others end quietly.
        """
        if self.world == 1:
            return work()
        told: list[Any] = [None, False]
        try:
            if self.rank == 0:
                told = [work(), True]
        finally:
            torch.distributed.broadcast_object_list(told, src=0)
        if not told[1]:
            raise SystemExit(1)
        result: Value = told[0]
        return result


@contextmanager
def connected_processes() -> Iterator[Processes]:
    """Connects the processes that torchrun has started; one alone where it has not."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1 or "TORCHELASTIC_RUN_ID" not in os.environ:
        yield Processes()
        return
    # a handler would wait for processes that may have ended; the saved state is safe without one
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # predictions go by gloo, gradients by what the device has
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    torch.distributed.init_process_group(backend)
    try:
        rank = torch.distributed.get_rank()
        yield Processes(rank, world, world // int(os.environ["LOCAL_WORLD_SIZE"]))
    finally:
        torch.distributed.destroy_process_group()


def gather(value: Value) -> list[Value]:
    """The value of each process, in the order of their ranks."""
    if not torch.distributed.is_initialized():
        return [value]
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values
