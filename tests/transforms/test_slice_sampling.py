from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mrknee.exams import PLANES, Dataset, Exam
from mrknee.transforms.batches import ExamDataset, frame_exam, load_batches
from mrknee.transforms.preparation import Preparation
from mrknee.transforms.settings import AugmentationSettings
from mrknee.transforms.slice_sampling import draw_slices

SMALL = Preparation(size=32, crop=28)


def exam(*counts: int) -> Exam:
    """Returns an exam whose slices have their own indices as grey values."""
    stacks = {
        plane: np.broadcast_to(
            np.arange(count, dtype=np.uint8)[:, None, None], (count, 32, 32)
        ).copy()
        for plane, count in zip(PLANES, counts, strict=True)
    }
    return Exam("3", stacks)


@pytest.mark.parametrize(("slices", "most"), [(30, 10), (31, 8), (17, 16), (61, 1)])
def test_one_slice_is_drawn_from_each_segment(slices: int, most: int) -> None:
    """Segments differ by one slice at most, and over the epochs every slice is drawn."""
    draws = np.array([draw_slices(slices, most, 0, epoch, "a", 0) for epoch in range(600)])
    assert draws.shape == (600, most)
    low, high = draws.min(axis=0), draws.max(axis=0)
    assert low[0] == 0
    assert high[-1] == slices - 1
    assert (low[1:] == high[:-1] + 1).all()
    lengths = high - low + 1
    assert lengths.max() - lengths.min() <= 1
    assert np.array_equal(np.unique(draws), np.arange(slices))


@pytest.mark.parametrize("slices", [1, 9, 10])
def test_shorter_series_are_used_whole(slices: int) -> None:
    """A series with at most the maximum number of slices keeps all."""
    assert draw_slices(slices, 10, 0, 0, "a", 0).tolist() == list(range(slices))


def test_the_draw_depends_on_seed_epoch_exam_and_series() -> None:
    """It is determined by them and changes with each of them."""
    first = draw_slices(60, 20, 1, 2, "a", 0)
    assert np.array_equal(first, draw_slices(60, 20, 1, 2, "a", 0))
    for other in ((0, 2, "a", 0), (1, 3, "a", 0), (1, 2, "b", 0), (1, 2, "a", 1)):
        assert not np.array_equal(first, draw_slices(60, 20, *other))


@pytest.mark.parametrize("augmentation", [None, AugmentationSettings(mirror=0)])
def test_an_exam_is_framed_with_its_drawn_slices(augmentation: AugmentationSettings | None) -> None:
    """Each series has its own draw, and the views are those of the whole exam."""
    whole, fewer = exam(9, 4, 3), 4
    framed = frame_exam(whole, SMALL, augmentation, 5, 6, fewer).slices
    every = frame_exam(whole, SMALL, augmentation, 5, 6).slices
    for index, plane in enumerate(PLANES):
        chosen = draw_slices(len(every[plane]), fewer, 5, 6, "3", index)
        assert len(chosen) == min(len(every[plane]), fewer)
        assert torch.equal(framed[plane], every[plane][chosen])


def test_a_budget_counts_the_slices_that_are_used(toy: Path) -> None:
    """Batches of at most 12 slices hold two exams of 3 x 2 slices, however many there are."""
    dataset = ExamDataset(Dataset.of_split(toy, "train"), SMALL, None, 0, slices_per_series=2)
    batches = load_batches(dataset, range(12), 12, batch_slices=12, workers=0)
    sizes = [[int(sum(batch.lengths[p].sum() for p in PLANES))] for batch in batches]
    assert sizes == [[12]] * 6
    assert all(dataset.count_slices(position) == 6 for position in range(12))
