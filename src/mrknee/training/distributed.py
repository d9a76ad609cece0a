"""Training in several processes started by torchrun: rank, world size and collectives.

Gradients are averaged by torch's DistributedDataParallel. Every process receives the predictions of
all processes, so that all take the same decisions; only the first one writes and prints.
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
    """Rank of this process among the processes that train together.

    Attributes:
        rank: index of this process, from 0.
        world_size: number of processes.
        nodes: number of machines.
    """

    rank: int = 0
    world_size: int = 1
    nodes: int = 1

    def on_rank_zero(self, work: Callable[[], Value]) -> Value:
        """Calls `work` in the first process only and returns its result in all processes.

        Raises:
            Exception: in the first process, any exception of `work`.
            SystemExit: in the other processes, if `work` fails.
        """
        if self.world_size == 1:
            return work()
        outcome: list[Any] = [None, False]  # result, and whether `work` succeeded
        try:
            if self.rank == 0:
                outcome = [work(), True]
        finally:
            torch.distributed.broadcast_object_list(outcome, src=0)
        if not outcome[1]:
            raise SystemExit(1)
        result: Value = outcome[0]
        return result


@contextmanager
def connected_processes() -> Iterator[Processes]:
    """Connects the processes started by torchrun; without torchrun, there is one process."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1 or "TORCHELASTIC_RUN_ID" not in os.environ:
        yield Processes()
        return
    # a handler could wait for processes that have ended; the saved state is safe without one
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # gloo transfers predictions; NCCL, if available, gradients
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    torch.distributed.init_process_group(backend)
    try:
        rank = torch.distributed.get_rank()
        yield Processes(rank, world, world // int(os.environ["LOCAL_WORLD_SIZE"]))
    finally:
        torch.distributed.destroy_process_group()


def gather(value: Value) -> list[Value]:
    """Returns the values of all processes, in the order of their ranks."""
    if not torch.distributed.is_initialized():
        return [value]
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values
