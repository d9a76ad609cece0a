from __future__ import annotations

from hashlib import sha256

import numpy as np
import pytest

from mrknee.errors import MrkneeError
from mrknee.exams import inner_split

RNG = np.random.default_rng(0)
# MRNet's joint label counts in train: none / abnormal / meniscus / ACL / both
MRNET = np.repeat(
    [[0, 0, 0], [1, 0, 0], [1, 0, 1], [1, 1, 0], [1, 1, 1]], [217, 433, 272, 83, 125], axis=0
).astype(float)


@pytest.mark.parametrize("fraction", [0.1, 0.15, 0.5])
def test_the_parts_are_disjoint_and_complete(fraction: float) -> None:
    """Every exam is in exactly one part, and the inner part has the size asked for."""
    fit, inner = inner_split(MRNET, fraction, seed=0)
    assert sorted([*fit, *inner]) == list(range(len(MRNET)))
    assert len(inner) == round(fraction * len(MRNET))


def test_joint_patterns_keep_their_share() -> None:
    """Each label pattern's count in the inner part is its share, to one exam."""
    _, inner = inner_split(RNG.permutation(MRNET), 0.15, seed=3)
    shuffled = np.random.default_rng(0).permutation(MRNET)
    for pattern in np.unique(MRNET, axis=0):
        there = (shuffled == pattern).all(axis=1)
        assert abs(there[inner].sum() - 0.15 * there.sum()) <= 1


def test_the_seed_decides() -> None:
    """The same seed gives the same split, another seed another."""
    first, again, other = (inner_split(MRNET, 0.15, seed)[1] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_unknown_labels_are_a_pattern_of_their_own() -> None:
    """NaN labels are spread over both parts too."""
    labels = np.repeat([[np.nan], [1.0]], 20, axis=0)
    _, inner = inner_split(labels, 0.25, seed=0)
    assert np.isnan(labels[inner]).sum() == 5


@pytest.mark.parametrize(("count", "fraction"), [(1, 0.5), (10, 0.0), (10, 1.0)])
def test_what_cannot_be_split_is_refused(count: int, fraction: float) -> None:
    """One exam, or a share of nothing or all, is an error."""
    with pytest.raises(MrkneeError):
        inner_split(np.zeros((count, 1)), fraction, seed=0)


def test_a_tiny_set_leaves_something_on_both_sides() -> None:
    """Two exams at any share give one and one."""
    fit, inner = inner_split(np.array([[0.0], [1.0]]), 0.01, seed=0)
    assert len(fit) == len(inner) == 1


@pytest.mark.parametrize(
    ("fraction", "seed", "digest"),
    [(0.15, 0, "9a12ab4d9c7c1bf3"), (0.15, 1, "159a619495056375"), (0.5, 7, "87a991981f1b4d79")],
)
def test_the_split_by_exam_stays_as_it_was(fraction: float, seed: int, digest: str) -> None:
    """Recorded before there were groups: runs started then are still resumed and compared."""
    _, inner = inner_split(MRNET, fraction, seed)
    assert sha256(inner.astype("<i8").tobytes()).hexdigest()[:16] == digest
    some = MRNET[::40].copy()
    some[3, 1] = some[20, 0] = np.nan
    assert inner_split(some, 0.25, 3)[1].tolist() == [5, 11, 14, 15, 23, 24, 28]


def test_soft_labels_are_stratified_by_their_half() -> None:
    """0.5 and more count as present, less as absent."""
    soft = np.where(MRNET == 1, RNG.uniform(0.5, 1, MRNET.shape), RNG.uniform(0, 0.49, MRNET.shape))
    assert inner_split(soft, 0.15, 4)[1].tolist() == inner_split(MRNET, 0.15, 4)[1].tolist()


def patients(count: int, largest: int) -> np.ndarray:
    """A group of 1 to `largest` exams for each of so many exams, mixed."""
    groups = np.repeat(np.arange(count), RNG.integers(1, largest + 1, count))[:count]
    return RNG.permutation(groups)


@pytest.mark.parametrize("fraction", [0.05, 0.15, 0.5, 0.9])
@pytest.mark.parametrize("largest", [1, 3, 9])
def test_a_group_is_in_one_part(fraction: float, largest: int) -> None:
    """Every exam is in one part, no group in both; the size is right to less than one group."""
    groups = patients(len(MRNET), largest)
    fit, inner = inner_split(MRNET, fraction, 0, groups.tolist())
    assert sorted([*fit, *inner]) == list(range(len(MRNET)))
    assert not set(groups[fit]) & set(groups[inner])
    assert abs(len(inner) - fraction * len(MRNET)) < np.bincount(groups).max() + 1


def test_groups_are_stratified_too() -> None:
    """Each pattern is right to one group; drawn blindly the worst would be off by 7 on average."""
    labels = np.random.default_rng(5).permutation(MRNET)
    groups = patients(len(MRNET), 3)
    for seed in range(3):
        _, inner = inner_split(labels, 0.15, seed, groups.tolist())
        for pattern in np.unique(MRNET, axis=0):
            there = (labels == pattern).all(axis=1)
            assert abs(there[inner].sum() - 0.15 * there.sum()) <= 3


def test_the_seed_draws_other_groups_and_their_numbers_do_not_matter() -> None:
    """The same seed the same groups, also under other numbers; large groups aren't preferred."""
    groups = patients(len(MRNET), 4)
    draws = [inner_split(MRNET, 0.15, seed, groups.tolist())[1] for seed in (1, 1, 2)]
    assert draws[0].tolist() == draws[1].tolist() != draws[2].tolist()
    renamed = (997 - groups).tolist()
    assert inner_split(MRNET, 0.15, 1, renamed)[1].tolist() == draws[0].tolist()
    sizes = np.bincount(groups)[groups]
    means = [sizes[inner_split(MRNET, 0.15, s, groups.tolist())[1]].mean() for s in range(20)]
    assert abs(np.mean(means) - sizes.mean()) < 0.2


@pytest.mark.parametrize(
    ("groups", "fraction", "sizes"),
    [([0, 0, 0, 0, 1], 0.1, {1}), ([0, 0, 1, 1], 0.9, {2}), ([0] * 9 + [1] * 9, 0.1, {9})],
)
def test_both_parts_have_a_group(groups: list[int], fraction: float, sizes: set[int]) -> None:
    """However large the groups are beside the share asked for."""
    labels = np.zeros((len(groups), 1))
    for seed in range(3):
        assert len(inner_split(labels, fraction, seed, groups)[1]) in sizes


def test_one_group_can_not_be_split() -> None:
    """All exams of one patient."""
    with pytest.raises(MrkneeError, match="can't be split") as error:
        inner_split(MRNET, 0.15, 0, [7] * len(MRNET))
    assert "1 group" in (error.value.found or "")
