"""Several processes that train one network: who is who, and what they tell each other.

torchrun or SLURM start them; Lightning averages their gradients. Every process knows all
predictions of every step, so that all take the same decisions; the first one writes and shows.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch.distributed
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

Value = TypeVar("Value")


@dataclass(frozen=True)
class Processes:
    """Which process this is, of how many.

    Attributes:
        rank: this one, from 0.
        world: all of them.
        nodes: on so many machines.
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
    """Connects the processes that torchrun or SLURM has started; one alone where neither has."""
    environment = next(
        (kind() for kind in (TorchElasticEnvironment, SLURMEnvironment) if kind.detect()), None
    )
    if environment is None or environment.world_size() == 1:
        yield Processes()
        return
    world = environment.world_size()
    if isinstance(environment, TorchElasticEnvironment):
        nodes = world // int(os.environ["LOCAL_WORLD_SIZE"])
    else:
        nodes = int(os.environ["SLURM_NNODES"])
    os.environ.setdefault("MASTER_ADDR", environment.main_address)
    os.environ.setdefault("MASTER_PORT", str(environment.main_port))
    # predictions go by gloo, gradients by what the device has
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    torch.distributed.init_process_group(backend, rank=environment.global_rank(), world_size=world)
    try:
        yield Processes(environment.global_rank(), world, nodes)
    finally:
        torch.distributed.destroy_process_group()


def gather(value: Value) -> list[Value]:
    """The value of each process, in the order of their ranks."""
    if not torch.distributed.is_initialized():
        return [value]
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values
