from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mrknee.errors import MrkneeError
from mrknee.exams import PLANES, Dataset, Exam, Plane
from mrknee.transforms.batches import (
    EpochBatches,
    ExamDataset,
    Sample,
    collate,
    frame_exam,
    join,
    load_batches,
    raise_if_error,
)
from mrknee.transforms.preparation import Preparation
from mrknee.transforms.settings import AugmentationSettings

SMALL = Preparation(size=48, crop=40)


def test_a_batch_holds_every_slice_of_every_exam_in_order(toy: Path) -> None:
    """Nothing is padded or dropped, and the lengths assign slices to exams."""
    exams = Dataset.of_split(toy, "train")
    samples = [frame_exam(exams[i], SMALL) for i in (4, 0, 7)]
    batch = join(samples)
    assert batch.ids == ("0004", "0000", "0007")
    assert torch.equal(batch.labels.double(), torch.from_numpy(exams.labels[[4, 0, 7]]))
    for plane in PLANES:
        parts = batch.slices[plane].split(batch.lengths[plane].tolist())
        for part, sample in zip(parts, samples, strict=True):
            assert torch.equal(part, sample.slices[plane])


def test_a_missing_plane_has_length_zero() -> None:
    """A missing plane has length 0."""
    stack = np.zeros((2, 48, 48), dtype=np.uint8)
    whole = Exam("a", dict.fromkeys(PLANES, stack), {"acl": 1.0})
    part = Exam("b", {Plane.AXIAL: stack}, {"acl": float("nan")})
    batch = join([frame_exam(e, SMALL) for e in (whole, part)])
    assert batch.lengths[Plane.CORONAL].tolist() == [2, 0]
    assert torch.isnan(batch.labels[1, 0])


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_any_number_of_workers_gives_the_same_batches(toy: Path, workers: int) -> None:
    """Shuffling and augmentation depend on (seed, epoch, exam), not on the worker."""
    dataset = ExamDataset(Dataset.of_split(toy, "train"), SMALL, AugmentationSettings(), seed=7)
    batches = EpochBatches(range(12), 5, seed=7)
    batches.set_epoch(3)
    loader = DataLoader(dataset, batch_sampler=batches, collate_fn=collate, num_workers=workers)
    plain = [collate([dataset[key] for key in keys]) for keys in batches]
    for loaded, expected in zip(loader, plain, strict=True):
        expected = raise_if_error(expected)
        assert loaded.ids == expected.ids
        for plane in PLANES:
            assert torch.equal(loaded.slices[plane], expected.slices[plane])


def test_every_exam_occurs_once_per_epoch() -> None:
    """The last, smaller batch is kept."""
    batches = EpochBatches(range(3, 14), 4, seed=0)
    keys = [key for batch in batches for key in batch]
    assert sorted(p for _, p in keys) == list(range(3, 14))
    assert len(batches) == 3


@pytest.mark.parametrize("budget", [1, 30, 75, 1000])
def test_a_batch_keeps_to_its_budget_of_slices(budget: int) -> None:
    """A batch exceeds the budget only as a single exam, and no batch could hold the next exam."""
    slices = {p: int(n) for p, n in enumerate(np.random.default_rng(0).integers(5, 60, 40))}
    batches = EpochBatches(range(40), 4, seed=1, slices=slices, budget=budget)
    held = []
    for epoch in range(3):
        batches.set_epoch(epoch)
        whole = [[p for _, p in batch] for batch in batches]
        assert sorted(p for batch in whole for p in batch) == list(range(40))
        assert len(whole) == len(batches)
        for batch, after in zip(whole, [*whole[1:], []], strict=True):
            total = sum(slices[p] for p in batch)
            assert len(batch) <= 4
            assert total <= budget or len(batch) == 1
            if after:
                assert len(batch) == 4 or total + slices[after[0]] > budget
        held.append(whole)
    assert held[0] != held[1] != held[2]


def test_slices_are_counted_in_all_planes(toy: Path) -> None:
    """With the largest exam's slices as budget, no batch exceeds it."""
    exams = Dataset.of_split(toy, "train")
    counts = [sum(len(stack) for stack in exam.stacks.values()) for exam in exams]
    loader = load_batches(
        ExamDataset(exams, SMALL), range(12), 5, batch_slices=max(counts), workers=0
    )
    loaded = [raise_if_error(batch) for batch in loader]
    assert [i for batch in loaded for i in batch.ids] == list(exams.ids)
    totals = [sum(len(stack) for stack in batch.slices.values()) for batch in loaded]
    assert sum(totals) == sum(counts)
    assert max(totals) <= max(counts)
    assert len(loaded) > 3


@pytest.mark.parametrize(("exams", "processes"), [(12, 2), (13, 2), (13, 5), (3, 4)])
def test_processes_share_each_batch(exams: int, processes: int) -> None:
    """All processes have the same number of batches, which together are those of one process."""
    shares = [
        list(EpochBatches(range(exams), 4, seed=3, share=(rank, processes)))
        for rank in range(processes)
    ]
    alone = list(EpochBatches(range(exams), 4, seed=3))
    together = [[key for part in parts for key in part] for parts in zip(*shares, strict=True)]
    assert together == alone


def test_no_samples_give_an_empty_batch() -> None:
    """A process gets an empty batch if there are fewer exams than processes."""
    batch = raise_if_error(collate([]))
    assert len(batch) == len(batch.labels) == 0
    assert all(len(batch.slices[p]) == len(batch.lengths[p]) == 0 for p in PLANES)


def test_each_epoch_is_shuffled_reproducibly() -> None:
    """The order depends on epoch and seed only."""

    def order(seed: int, epoch: int) -> list[int]:
        batches = EpochBatches(range(20), 4, seed)
        batches.set_epoch(epoch)
        return [p for batch in batches for _, p in batch]

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)


def test_evaluation_keeps_the_order() -> None:
    """Without a seed, exams are in the given order."""
    assert [p for batch in EpochBatches([5, 2, 9], 2) for _, p in batch] == [5, 2, 9]


def test_moving_a_batch_moves_its_pixels() -> None:
    """`to` moves slices and labels, but keeps the lengths on the CPU."""
    stack = np.zeros((2, 48, 48), dtype=np.uint8)
    batch = join([frame_exam(Exam("a", dict.fromkeys(PLANES, stack), {"acl": 1.0}), SMALL)])
    moved = batch.to("meta")
    assert moved.slices[Plane.AXIAL].device.type == moved.labels.device.type == "meta"
    assert moved.lengths[Plane.AXIAL].device.type == "cpu"


@pytest.mark.slow
def test_an_error_replaces_the_batch_and_keeps_its_attributes(toy: Path) -> None:
    """The error of a worker process for a damaged exam is complete and has no traceback."""
    broken = toy / "train" / "axial" / "0005.npy"
    broken.write_bytes(broken.read_bytes()[:150])
    dataset = ExamDataset(Dataset.of_split(toy, "train"), SMALL)
    assert isinstance(dataset[0, 0], Sample)
    loader = DataLoader(
        dataset,
        batch_sampler=EpochBatches([5], 1),
        collate_fn=collate,
        num_workers=1,
    )
    (loaded,) = loader
    with pytest.raises(MrkneeError, match="truncated") as error:
        raise_if_error(loaded)
    assert (error.value.file, error.value.exam) == (str(broken), "0005")


def show_batches(data: Path) -> None:
    """Reads batches with two workers and prints a digest of all, then the warnings."""
    with warnings.catch_warnings(record=True) as issued:
        warnings.simplefilter("always")
        digest = digest_of(data, workers=2)
    print(digest, *(str(warning.message) for warning in issued), sep="\n")


def digest_of(data: Path, workers: int) -> str:
    """Computes the sha256 of all batches of a data set, in order."""
    dataset = ExamDataset(Dataset.of_split(data, "train"), SMALL)
    sums = hashlib.sha256()
    for loaded in load_batches(dataset, range(12), 3, workers=workers):
        batch = raise_if_error(loaded)
        for tensor in batch.tensors():
            sums.update(tensor.numpy().tobytes())
        assert tensor.is_contiguous()
    return sums.hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "filled", "expected"),
    [
        ("64k", 0, "too little shared memory"),
        ("4k", 4096, "no shared memory"),
        ("64m", 0, None),
    ],
    ids=["too small", "full", "enough"],
)
def test_batches_arrive_with_little_shared_memory(
    toy: Path, size: str, filled: int, expected: str | None
) -> None:
    """With any size of /dev/shm, all batches of two workers arrive; a warning may be issued.

    The test mounts a separate /dev/shm, which needs root (as in CI), and is skipped otherwise.
    """
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("only root can mount a small /dev/shm")
    mounted = f"mount -t tmpfs -o size={size} tmpfs /dev/shm"
    if subprocess.run(["unshare", "-m", "sh", "-c", mounted], check=False).returncode:  # noqa: S603, S607
        pytest.skip("no memory file system can be mounted here")
    work = f"from tests.transforms.test_batches import *; show_batches(Path({str(toy)!r}))"
    script = f'{mounted} && head -c {filled} /dev/zero > /dev/shm/filled && exec "$0" -c "$1"'
    done = subprocess.run(  # noqa: S603
        ["unshare", "-m", "sh", "-c", script, sys.executable, work],  # noqa: S607
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    digest, *issued = done.stdout.splitlines()
    assert digest == digest_of(toy, workers=0), done.stderr
    assert "Traceback" not in done.stderr
    assert [text for text in issued if expected is None or expected not in text] == []
    assert bool(issued) == (expected is not None)
