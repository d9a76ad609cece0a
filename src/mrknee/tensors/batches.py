"""Exams into batches of any number of exams, each with any number of slices."""

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
from mrknee.tensors.augmentation import apply_view, draw_views
from mrknee.tensors.preparation import Preparation
from mrknee.tensors.settings import AugmentationSettings
from mrknee.workers import ignore_interrupts

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # where Linux keeps shared memory; not a temporary file
"""Docker gives a container 64 MB of it; one batch of four large exams has 37 MB."""

SHARED_MEMORY_LEFT = 8_000_000
"""Bytes that batches leave free there: starting another loader's workers takes some kB of it."""


@dataclass(frozen=True)
class Sample:
    """One exam, framed.

    Attributes:
        id: the exam's id.
        slices: series -> uint8 (slices, crop, crop); series the exam lacks are not there.
        labels: float32 (findings,): 1, 0, between them, or NaN (not known).
        series: names of the series that the exam may have, in order.
    """

    id: str
    slices: dict[str, UInt8[Tensor, "_ crop crop"]]
    labels: Float[Tensor, " findings"]
    series: tuple[str, ...] = MRNET_SERIES.names


@dataclass(frozen=True)
class Batch:
    """Several exams: for each series the slices of all of them in one tensor, lengths beside it.

    Attributes:
        ids: the exams' ids.
        slices: series -> uint8 (slices of all exams, crop, crop), exam after exam.
        lengths: series -> int64 (exams,): how many slices are whose; 0 where a series is missing.
        labels: float32 (exams, findings): 1, 0, between them, or NaN (not known).
    """

    ids: tuple[str, ...]
    slices: dict[str, UInt8[Tensor, "_ crop crop"]]
    lengths: dict[str, Int64[Tensor, " exams"]]
    labels: Float[Tensor, "exams findings"]

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same batch on another device; lengths stay, they are read on the CPU."""
        return replace(
            self,
            slices={p: s.to(device, non_blocking=non_blocking) for p, s in self.slices.items()},
            labels=self.labels.to(device, non_blocking=non_blocking),
        )

    def prepared(self, preparation: Preparation) -> dict[str, Float[Tensor, "_ 1 _ _"]]:
        """The network's input: by series, the slices of all exams, normalised."""
        return {
            name: preparation.normalise(slices, self.lengths[name])
            for name, slices in self.slices.items()
        }

    def tensors(self) -> list[Tensor]:
        """All tensors of the batch."""
        return [*self.slices.values(), *self.lengths.values(), self.labels]

    def __getstate__(self) -> dict[str, Any]:
        # What a data loader's worker sends is pickled by a thread whose errors nobody hears: the
        # batch would be lost, and training would wait for it for ever. Tensors in shared memory
        # are sent as file descriptors; others would be moved there now, which fails where it is
        # full, so they are sent as arrays.
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
                "processes send them through pipes, which is slower. In a container, give more: "
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
    """Joins samples into a batch; nothing is padded. The first error takes the batch's place.

    No samples make an empty batch: what a process gets when there are fewer exams than processes.
    """
    for sample in samples:
        if isinstance(sample, MrkneeError):
            return sample
    batch = join([sample for sample in samples if isinstance(sample, Sample)])
    return batch if get_worker_info() is None else _share(batch)


def _share(batch: Batch) -> Batch:
    """Moves a worker's batch to shared memory, where there is room for it.

    Done in the worker's main loop, where a failure can be answered; see `Batch.__getstate__`.
    """
    try:
        if SHARED_MEMORY.is_dir():
            there = os.statvfs(SHARED_MEMORY)
            wanted = sum(t.nbytes for t in batch.tensors()) + SHARED_MEMORY_LEFT
            if there.f_bavail * there.f_frsize < wanted:
                return batch
        for tensor in batch.tensors():
            tensor.share_memory_()
    except (OSError, RuntimeError):  # torch's word for a full disk is RuntimeError
        pass
    return batch


def unfold(batch: Batch | MrkneeError) -> Batch:
    """The batch, or the error that took its place, raised.

    torch turns an exception in a worker into text; an error that travels as a value keeps its
    parts, and the person who reads it is spared the worker's traceback.
    """
    if isinstance(batch, MrkneeError):
        raise batch
    return batch


def join(samples: Sequence[Sample]) -> Batch:
    """Joins samples into a batch; nothing is padded. No samples make an empty batch."""
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
) -> Sample:
    """Frames an exam's series, through a random view of it where an augmentation is given."""
    if augmentation is None:
        slices = {
            name: preparation.frame(torch.from_numpy(np.array(preparation.trim(stack))))
            for name, stack in exam.stacks.items()
        }
    else:
        views = draw_views(augmentation, seed, epoch, exam.id)
        planes = exam.series.planes
        slices = {
            name: apply_view(stack, views[planes[name]], preparation)
            for name, stack in exam.stacks.items()
        }
    labels = torch.tensor(list(exam.labels.values()), dtype=torch.float32)
    return Sample(exam.id, slices, labels, exam.series.names)


class ExamDataset(TorchDataset[Sample | MrkneeError]):
    """Exams, framed; augmented where asked for.

    It is indexed by (epoch, position), because what an exam looks like in an epoch depends on
    the epoch: that keeps workers free of state.

    Args:
        exams: where they come from, for example a Dataset.
        preparation: how stacks are framed.
        augmentation: what is drawn for training; None for evaluation.
        seed: of the draws.
    """

    def __init__(
        self,
        exams: Exams,
        preparation: Preparation,
        augmentation: AugmentationSettings | None = None,
        seed: int = 0,
    ) -> None:
        self.exams, self.preparation = exams, preparation
        self.augmentation, self.seed = augmentation, seed

    def __getitem__(self, epoch_and_position: tuple[int, int]) -> Sample | MrkneeError:
        epoch, position = epoch_and_position
        try:
            return frame_exam(
                self.exams[position], self.preparation, self.augmentation, self.seed, epoch
            )
        except MrkneeError as error:  # see `unfold`
            return error


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, position): shuffled from (seed, epoch), or in order.

    Args:
        positions: which exams.
        batch_exams: how many exams a batch; the last batch may be smaller, none is dropped.
        seed: of the shuffling; None keeps the order.
        slices: position -> slices of the exam, all series together; None where they don't count.
        budget: at most so many slices a batch; an exam that has more is a batch of its own.
        share: (rank, processes): each batch is dealt to so many processes, and this one takes its
            part, which is empty where there are fewer exams than processes. All processes make
            the same number of batches; none pads or drops an exam.
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
        """Says which epoch comes next (the training loop calls it)."""
        self.epoch = epoch

    def go_on_after(self, epoch: int, batches: int) -> None:
        """Starts in this epoch, without its first `batches`, which an interrupted run has done.

        The length stays that of the whole epoch: it is what Lightning counts up to.
        """
        self.epoch, self._done = epoch, (epoch, batches)

    def whole(self, epoch: int) -> list[list[int]]:
        """The positions in each batch of an epoch, of all processes together."""
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
        for batch in self.whole(self.epoch)[batches if epoch == self.epoch else 0 :]:
            part = np.array_split(batch, processes)[rank].tolist()
            yield [(self.epoch, position) for position in part]

    def __len__(self) -> int:
        if self.budget is None:
            return -(-len(self.positions) // self.batch_exams)
        return len(self.whole(self.epoch))


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
    """Reads exams in batches, in processes of their own where there are cores for them.

    Args:
        dataset: the exams.
        positions: which of them.
        batch_exams: at most how many a batch.
        batch_slices: maximum number of slices per batch, all series together; an exam with more is
            a batch of its own. None where they don't count.
        shuffle_seed: shuffles anew each epoch; None keeps the order.
        workers: processes that read; -1 takes one a core but one, 4 at most, and none for what
            fits into one batch.
        share: (rank, processes) where each batch is dealt to several that compute.

    Returns:
        A loader of batches; see `unfold` for the errors among them.

    Raises:
        MrkneeError: slices are to be counted, and an exam can't be opened.
    """
    if workers < 0:
        workers = min(4, torch.get_num_threads() - 1) if len(positions) > batch_exams else 0
    if workers > 0 and not _can_start_workers():
        warnings.warn(
            f"no shared memory ({SHARED_MEMORY}) for worker processes: exams are read without "
            "them, which is slower. In a container, give some: docker run --shm-size=1g",
            RuntimeWarning,
            stacklevel=2,
        )
        workers = 0
    slices = None
    if batch_slices is not None:
        slices = {p: _count_slices(dataset.exams, p) for p in positions}
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


def _count_slices(exams: Exams, position: int) -> int:
    """The slices of all series; a folder knows them from the files' headers."""
    if isinstance(exams, Dataset):
        return exams.count_slices(position)
    return sum(map(len, exams[position].stacks.values()))


def _can_start_workers() -> bool:
    """Whether the system gives this process a semaphore: on Linux, 32 bytes of shared memory."""
    try:
        multiprocessing.Lock()
    except OSError:
        return False
    return True
