"""Several processes that train one network: who is who, and what they tell each other.

torchrun or SLURM start them; Lightning averages their gradients. Every process knows all
predictions of every step, so that all take the same decisions; the first one writes and shows.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch.distributed
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.utilities.warnings import PossibleUserWarning

from mrknee.errors import SettingsError

Value = TypeVar("Value")


@dataclass(frozen=True)
class Processes:
    """Which process this is, of how many.

    Attributes:
        rank: this one, from 0.
        world: all of them.
        nodes: on so many machines.
        environment: Lightning's name for what started them.
    """

    rank: int = 0
    world: int = 1
    nodes: int = 1
    environment: ClusterEnvironment = field(default_factory=LightningEnvironment)

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


class SlurmStep(SLURMEnvironment):
    """The tasks of one srun.

    Lightning's own goes by the job: by its name, which salloc makes "interactive" and which would
    then leave every task alone; by its nodes, of which the step may have others first. On SIGUSR1
    it saves and requeues by itself, which waits for processes that do something else.
    """

    def __init__(self) -> None:
        world, nodes = int(os.environ["SLURM_STEP_NUM_TASKS"]), self.nodes()
        if int(os.environ.get("SLURM_NTASKS_PER_NODE", "0")) * nodes != world:
            raise SettingsError(
                "srun has to start as many processes on each machine as it was told",
                code="processes",
                expected=f"srun --nodes={nodes} --ntasks-per-node=TASKS",
                found=f"{world} tasks on {os.environ['SLURM_STEP_NODELIST']}, --ntasks-per-node "
                + os.environ.get("SLURM_NTASKS_PER_NODE", "not given"),
                advice="give --nodes and --ntasks-per-node, to sbatch or to srun",
            )
        with warnings.catch_warnings():
            # says to use srun, where the job has a name that it takes for a shell's
            warnings.filterwarnings("ignore", category=PossibleUserWarning)
            super().__init__(auto_requeue=False)

    @staticmethod
    def detect() -> bool:
        """Whether srun has started this process as one of several.

        Only --pty, which starts a shell, gives a task a terminal: what is typed there is alone.
        """
        return int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1 and not os.isatty(0)

    @staticmethod
    def nodes() -> int:
        """On so many machines."""
        return int(os.environ["SLURM_STEP_NUM_NODES"])

    @property
    def main_address(self) -> str:
        """The machine of the first process."""
        first = self.resolve_root_node_address(os.environ["SLURM_STEP_NODELIST"])
        return os.environ.get("MASTER_ADDR", first)


@contextmanager
def connected_processes() -> Iterator[Processes]:
    """Connects the processes that torchrun or SLURM has started; one alone where neither has.

    Raises:
        MrkneeError: srun has started them in a way that can't be worked with.
    """
    kinds = (TorchElasticEnvironment, SlurmStep)
    environment = next((kind() for kind in kinds if kind.detect()), None)
    if environment is None or environment.world_size() == 1:
        yield Processes()
        return
    world = environment.world_size()
    if isinstance(environment, SlurmStep):
        nodes = environment.nodes()
    else:
        nodes = world // int(os.environ["LOCAL_WORLD_SIZE"])
    os.environ.setdefault("MASTER_ADDR", environment.main_address)
    os.environ.setdefault("MASTER_PORT", str(environment.main_port))
    # predictions go by gloo, gradients by what the device has
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    torch.distributed.init_process_group(backend, rank=environment.global_rank(), world_size=world)
    try:
        yield Processes(environment.global_rank(), world, nodes, environment)
    finally:
        torch.distributed.destroy_process_group()


def gather(value: Value) -> list[Value]:
    """The value of each process, in the order of their ranks."""
    if not torch.distributed.is_initialized():
        return [value]
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values
