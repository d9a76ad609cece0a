"""Ragged batches of exams: any number of exams, each with any number of slices."""

from __future__ import annotations

import multiprocessing
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, get_worker_info
from torch.utils.data import Dataset as TorchDataset

from mrknee.errors import MrkneeError
from mrknee.exams import MRNET_SERIES, Dataset, Exam, Exams
from mrknee.transforms.augmentation import apply_view, draw_views
from mrknee.transforms.intensity import apply_intensity, draw_intensities
from mrknee.transforms.preparation import Preparation
from mrknee.transforms.settings import AugmentationSettings
from mrknee.transforms.slice_sampling import draw_slices
from mrknee.workers import ignore_interrupts

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # where Linux keeps shared memory; not a temporary file
"""Docker limits it to 64 MB per container; a batch of four large exams takes 37 MB."""

SHARED_MEMORY_LEFT = 8_000_000
"""Bytes of shared memory that batches leave free: starting workers of another loader takes some."""


@dataclass(frozen=True)
class Sample:
    """One framed exam.

    Attributes:
        id: the exam's id.
        slices: series -> uint8 (slices, crop, crop), without missing series.
        labels: float32 (findings,): 1, 0, in between, or NaN (unknown).
        series: names of the series that the exam may have, in order.
    """

    id: str
    slices: dict[str, UInt8[Tensor, "_ crop crop"]]
    labels: Float[Tensor, " findings"]
    series: tuple[str, ...] = MRNET_SERIES.names


@dataclass(frozen=True)
class Batch:
    """Several exams: per series one tensor with the slices of all exams, and their lengths.

    Attributes:
        ids: ids of the exams.
        slices: series -> uint8 (slices of all exams, crop, crop), one exam after another.
        lengths: series -> int64 (exams,): number of slices per exam; 0 for missing series.
        labels: float32 (exams, findings): 1, 0, in between, or NaN (unknown).
    """

    ids: tuple[str, ...]
    slices: dict[str, UInt8[Tensor, "_ crop crop"]]
    lengths: dict[str, Int64[Tensor, " exams"]]
    labels: Float[Tensor, "exams findings"]

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """Moves the batch to a device, except the lengths, which are read on the CPU."""
        return replace(
            self,
            slices={p: s.to(device, non_blocking=non_blocking) for p, s in self.slices.items()},
            labels=self.labels.to(device, non_blocking=non_blocking),
        )

    def prepared(self, preparation: Preparation) -> dict[str, Float[Tensor, "_ channels _ _"]]:
        """Computes the network's input: series -> normalised slices of all exams."""
        return {
            name: preparation.normalise(slices, self.lengths[name])
            for name, slices in self.slices.items()
        }

    def tensors(self) -> list[Tensor]:
        """Returns all tensors of the batch."""
        return [*self.slices.values(), *self.lengths.values(), self.labels]

    def __getstate__(self) -> dict[str, Any]:
        # Batches of a data loader's worker are pickled in a thread whose errors are lost: training
        # would wait for the batch forever. Tensors in shared memory are sent as file descriptors;
        # torch would move others to shared memory now, which fails if it is full, so they are sent
        # as arrays.
        if get_worker_info() is None or all(t.is_shared() for t in self.tensors()):
            return self.__dict__
        return {
            "ids": self.ids,
            "slices": {p: s.numpy() for p, s in self.slices.items()},
            "lengths": {p: n.numpy() for p, n in self.lengths.items()},
            "labels": self.labels.numpy(),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        if isinstance(state["labels"], np.ndarray):
            warnings.warn(
                f"too little shared memory ({SHARED_MEMORY}) for batches of exams: the worker "
                "processes send them through pipes, which is slower. In a container, use "
                "docker run --shm-size=1g; or read without workers: --workers 0",
                RuntimeWarning,
                stacklevel=1,
            )
            state = {
                "ids": state["ids"],
                "slices": {p: torch.from_numpy(s) for p, s in state["slices"].items()},
                "lengths": {p: torch.from_numpy(n) for p, n in state["lengths"].items()},
                "labels": torch.from_numpy(state["labels"]),
            }
        self.__dict__.update(state)


def collate(samples: Sequence[Sample | MrkneeError]) -> Batch | MrkneeError:
    """Joins samples to a batch without padding; returns the first error instead, if there is one.

    No samples give an empty batch, for a process of several if there are fewer exams than
    processes.
    """
    for sample in samples:
        if isinstance(sample, MrkneeError):
            return sample
    batch = join([sample for sample in samples if isinstance(sample, Sample)])
    return batch if get_worker_info() is None else _share(batch)


def _share(batch: Batch) -> Batch:
    """Moves a worker's batch to shared memory if it has enough space.

    This is done in the worker's main thread, where errors can be handled; see
    `Batch.__getstate__`.
    """
    try:
        if SHARED_MEMORY.is_dir():
            disk = os.statvfs(SHARED_MEMORY)
            wanted = sum(t.nbytes for t in batch.tensors()) + SHARED_MEMORY_LEFT
            if disk.f_bavail * disk.f_frsize < wanted:
                return batch
        for tensor in batch.tensors():
            tensor.share_memory_()
    except (OSError, RuntimeError):  # torch raises RuntimeError for a full disk
        pass
    return batch


def raise_if_error(batch: Batch | MrkneeError) -> Batch:
    """Returns the batch, or raises the error that a worker returned instead.

    torch converts exceptions in a worker to text; an error that is returned as a value keeps its
    attributes and doesn't show the worker's traceback.
    """
    if isinstance(batch, MrkneeError):
        raise batch
    return batch


def join(samples: Sequence[Sample]) -> Batch:
    """Joins samples to a batch without padding; no samples give an empty batch."""
    if not samples:
        nothing = torch.zeros((0, 1, 1), dtype=torch.uint8)
        none = torch.zeros(0, dtype=torch.int64)
        names = MRNET_SERIES.names
        return Batch(
            (), dict.fromkeys(names, nothing), dict.fromkeys(names, none), torch.zeros((0, 0))
        )
    names = samples[0].series
    crop = next(iter(samples[0].slices.values())).shape[-1]
    nothing = torch.zeros((0, crop, crop), dtype=torch.uint8)
    stacks = {name: [s.slices.get(name, nothing) for s in samples] for name in names}
    return Batch(
        ids=tuple(s.id for s in samples),
        slices={name: torch.cat(stacks[name]) for name in names},
        lengths={name: torch.tensor([len(stack) for stack in stacks[name]]) for name in names},
        labels=torch.stack([s.labels for s in samples]),
    )


def frame_exam(
    exam: Exam,
    preparation: Preparation,
    augmentation: AugmentationSettings | None = None,
    seed: int = 0,
    epoch: int = 0,
    slices_per_series: int | None = None,
) -> Sample:
    """Frames an exam's series; with an augmentation, random views of them.

    With `slices_per_series`, longer series are reduced to randomly drawn slices (`draw_slices`),
    otherwise to those of the preparation's `read_slices`.
    """
    names = exam.series.names
    stacks = dict(exam.stacks)
    for place, name in enumerate(names):
        if name not in stacks:
            continue
        count = len(stacks[name])
        if slices_per_series is not None:
            chosen = draw_slices(count, slices_per_series, seed, epoch, exam.id, place).tolist()
        else:
            chosen = preparation.slices_read(count)
        if len(chosen) < count:
            stacks[name] = stacks[name][chosen]
    if augmentation is None:
        slices = {name: preparation.read(stack) for name, stack in stacks.items()}
    else:
        views = draw_views(augmentation, seed, epoch, exam.id)
        planes = exam.series.planes
        slices = {
            name: apply_view(stack, views[planes[name]], preparation)
            for name, stack in stacks.items()
        }
        if augmentation.changes_grey:
            changes = draw_intensities(augmentation, seed, epoch, exam.id, names)
            slices = {name: apply_intensity(slices[name], changes[name]) for name in slices}
    labels = torch.tensor(list(exam.labels.values()), dtype=torch.float32)
    return Sample(exam.id, slices, labels, names)


class ExamDataset(TorchDataset[Sample | MrkneeError]):
    """Framed, optionally augmented exams.

    The index is (epoch, position), because the augmentation depends on the epoch; workers
    thus have no state.

    Args:
        exams: the exams, for example a Dataset.
        preparation: the preparation for framing.
        augmentation: the augmentation for training; None for evaluation.
        seed: seed of the random draws.
        slices_per_series: maximum number of slices per series, drawn at random, for training; None
            takes all.
        keep_bytes: memory for framed exams that are kept for the next epochs, if they are the same
            in each epoch; 0 keeps none.
    """

    def __init__(
        self,
        exams: Exams,
        preparation: Preparation,
        augmentation: AugmentationSettings | None = None,
        seed: int = 0,
        slices_per_series: int | None = None,
        keep_bytes: int = 0,
    ) -> None:
        self.exams, self.preparation = exams, preparation
        self.augmentation, self.seed = augmentation, seed
        self.slices_per_series = slices_per_series
        same = augmentation is None and slices_per_series is None
        self._kept: dict[int, Sample] = {}
        self._bytes_left = keep_bytes if same else 0

    def count_slices(self, position: int) -> int:
        """Counts the slices that are used of an exam; for a `Dataset` only headers are read."""
        if isinstance(self.exams, Dataset):
            counts = [slices for slices, _, _ in self.exams.shapes(position).values()]
        else:
            counts = [len(stack) for stack in self.exams[position].stacks.values()]
        most = self.slices_per_series or self.preparation.read_slices
        return sum(counts) if most is None else sum(min(count, most) for count in counts)

    def __getitem__(self, epoch_and_position: tuple[int, int]) -> Sample | MrkneeError:
        epoch, position = epoch_and_position
        if position in self._kept:
            return self._kept[position]
        try:
            sample = frame_exam(
                self.exams[position],
                self.preparation,
                self.augmentation,
                self.seed,
                epoch,
                self.slices_per_series,
            )
        except MrkneeError as error:  # see `raise_if_error`
            return error
        size = sum(slices.nbytes for slices in sample.slices.values())
        if size <= self._bytes_left:
            self._bytes_left -= size
            self._kept[position] = sample
        return sample


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, position), shuffled with (seed, epoch), or in order.

    Args:
        positions: positions of the exams.
        batch_exams: exams per batch; the last batch may be smaller.
        seed: seed of the shuffling; None keeps the order.
        slices: position -> number of slices over all series; None without `budget`.
        budget: maximum number of slices per batch; an exam with more is a batch by itself.
        share: (rank, processes): each batch is divided among the processes, and this process gets
            its part, which is empty if there are fewer exams than processes. All processes have the
            same number of batches; no exam is padded or dropped.
    """

    def __init__(
        self,
        positions: Sequence[int],
        batch_exams: int,
        seed: int | None = None,
        *,
        slices: Mapping[int, int] | None = None,
        budget: int | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.positions, self.batch_exams, self.seed = list(positions), batch_exams, seed
        self.slices, self.budget, self.share = slices or {}, budget, share
        self.epoch = 0
        self._done = (0, 0)

    def set_epoch(self, epoch: int) -> None:
        """Sets the next epoch; called by the training loop."""
        self.epoch = epoch

    def skip_batches(self, epoch: int, batches: int) -> None:
        """Starts in an epoch without its first batches, which an interrupted run has completed.

        The length remains that of the complete epoch.
        """
        self.epoch, self._done = epoch, (epoch, batches)

    def all_batches(self, epoch: int) -> list[list[int]]:
        """Returns the positions in each batch of an epoch, for all processes together."""
        order = self.positions
        if self.seed is not None:
            order = np.random.default_rng([self.seed, epoch]).permutation(order).tolist()
        batches: list[list[int]] = []
        held = 0
        for position in order:
            more = self.slices.get(position, 0)
            fits = self.budget is None or held + more <= self.budget
            if batches and fits and len(batches[-1]) < self.batch_exams:
                batches[-1].append(position)
                held += more
            else:
                batches.append([position])
                held = more
        return batches

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, batches = self._done
        rank, processes = self.share
        for batch in self.all_batches(self.epoch)[batches if epoch == self.epoch else 0 :]:
            part = np.array_split(batch, processes)[rank].tolist()
            yield [(self.epoch, position) for position in part]

    def __len__(self) -> int:
        if self.budget is None:
            return -(-len(self.positions) // self.batch_exams)
        return len(self.all_batches(self.epoch))


def load_batches(
    dataset: ExamDataset,
    positions: Sequence[int],
    batch_exams: int,
    *,
    batch_slices: int | None = None,
    shuffle_seed: int | None = None,
    workers: int = -1,
    share: tuple[int, int] = (0, 1),
) -> DataLoader[Batch | MrkneeError]:
    """Creates a loader of batches, which reads exams in worker processes if there are enough cores.

    Args:
        dataset: the exams.
        positions: positions of the exams to load.
        batch_exams: maximum number of exams per batch.
        batch_slices: maximum number of slices per batch over all series; an exam with more is a
            batch by itself. None doesn't limit slices.
        shuffle_seed: seed of the shuffling in each epoch; None keeps the order.
        workers: number of worker processes; -1 uses one per core except one, at most 4, and none if
            all exams fit into one batch.
        share: (rank, processes) if each batch is divided among several training processes.

    Returns:
        A loader of batches or errors; see `raise_if_error`.

    Raises:
        MrkneeError: `batch_slices` is given, and an exam can't be opened.
    """
    if workers < 0:
        workers = min(4, torch.get_num_threads() - 1) if len(positions) > batch_exams else 0
    if workers > 0 and not _can_start_workers():
        warnings.warn(
            f"no shared memory ({SHARED_MEMORY}) for worker processes: exams are read without "
            "them, which is slower. In a container, use docker run --shm-size=1g",
            RuntimeWarning,
            stacklevel=2,
        )
        workers = 0
    slices = None
    if batch_slices is not None:
        slices = {p: dataset.count_slices(p) for p in positions}
    return DataLoader(
        dataset,  # type: ignore[arg-type]  # torch's types don't know datasets that are collated
        batch_sampler=EpochBatches(
            positions, batch_exams, shuffle_seed, slices=slices, budget=batch_slices, share=share
        ),
        collate_fn=collate,
        num_workers=workers,
        worker_init_fn=ignore_interrupts,
        persistent_workers=workers > 0 and shuffle_seed is not None,
    )


def _can_start_workers() -> bool:
    """Returns whether this process can create a semaphore: on Linux, 32 bytes of shared memory."""
    try:
        multiprocessing.Lock()
    except OSError:
        return False
    return True
