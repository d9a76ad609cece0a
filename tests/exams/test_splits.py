from __future__ import annotations

from hashlib import sha256

import numpy as np
import pytest

from mrknee.errors import MrkneeError
from mrknee.exams import assign_folds, inner_split

RNG = np.random.default_rng(0)
# MRNet's joint label counts in train: none / abnormal / meniscus / ACL / both
MRNET = np.repeat(
    [[0, 0, 0], [1, 0, 0], [1, 0, 1], [1, 1, 0], [1, 1, 1]], [217, 433, 272, 83, 125], axis=0
).astype(float)


@pytest.mark.parametrize("fraction", [0.1, 0.15, 0.5])
def test_the_parts_are_disjoint_and_complete(fraction: float) -> None:
    """Every exam is in exactly one part, and the inner part has the requested size."""
    fit, inner = inner_split(MRNET, fraction, seed=0)
    assert sorted([*fit, *inner]) == list(range(len(MRNET)))
    assert len(inner) == round(fraction * len(MRNET))


def test_joint_patterns_keep_their_share() -> None:
    """Each label pattern's count in the inner part equals its share, within one exam."""
    _, inner = inner_split(RNG.permutation(MRNET), 0.15, seed=3)
    shuffled = np.random.default_rng(0).permutation(MRNET)
    for pattern in np.unique(MRNET, axis=0):
        there = (shuffled == pattern).all(axis=1)
        assert abs(there[inner].sum() - 0.15 * there.sum()) <= 1


def test_the_seed_determines_the_split() -> None:
    """The same seed gives the same split, another seed another."""
    first, again, other = (inner_split(MRNET, 0.15, seed)[1] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_unknown_labels_are_a_pattern_of_their_own() -> None:
    """Exams with NaN labels are in both parts."""
    labels = np.repeat([[np.nan], [1.0]], 20, axis=0)
    _, inner = inner_split(labels, 0.25, seed=0)
    assert np.isnan(labels[inner]).sum() == 5


@pytest.mark.parametrize(("count", "fraction"), [(1, 0.5), (10, 0.0), (10, 1.0)])
def test_an_impossible_split_is_refused(count: int, fraction: float) -> None:
    """A single exam, and a fraction of 0 or 1, are errors."""
    with pytest.raises(MrkneeError):
        inner_split(np.zeros((count, 1)), fraction, seed=0)


def test_neither_part_of_a_tiny_set_is_empty() -> None:
    """Two exams are split into one and one at any fraction."""
    fit, inner = inner_split(np.array([[0.0], [1.0]]), 0.01, seed=0)
    assert len(fit) == len(inner) == 1


@pytest.mark.parametrize(
    ("fraction", "seed", "digest"),
    [(0.15, 0, "9a12ab4d9c7c1bf3"), (0.15, 1, "159a619495056375"), (0.5, 7, "87a991981f1b4d79")],
)
def test_the_split_by_exam_is_unchanged(fraction: float, seed: int, digest: str) -> None:
    """The split equals the one recorded before groups existed, so that old runs can be resumed."""
    _, inner = inner_split(MRNET, fraction, seed)
    assert sha256(inner.astype("<i8").tobytes()).hexdigest()[:16] == digest
    some = MRNET[::40].copy()
    some[3, 1] = some[20, 0] = np.nan
    assert inner_split(some, 0.25, 3)[1].tolist() == [5, 11, 14, 15, 23, 24, 28]


def test_soft_labels_are_stratified_by_their_half() -> None:
    """Soft labels of at least 0.5 count as present, others as absent."""
    soft = np.where(MRNET == 1, RNG.uniform(0.5, 1, MRNET.shape), RNG.uniform(0, 0.49, MRNET.shape))
    assert inner_split(soft, 0.15, 4)[1].tolist() == inner_split(MRNET, 0.15, 4)[1].tolist()


def patients(count: int, largest: int) -> np.ndarray:
    """Returns shuffled group numbers of `count` exams, 1 to `largest` exams per group."""
    groups = np.repeat(np.arange(count), RNG.integers(1, largest + 1, count))[:count]
    return RNG.permutation(groups)


@pytest.mark.parametrize("fraction", [0.05, 0.15, 0.5, 0.9])
@pytest.mark.parametrize("largest", [1, 3, 9])
def test_a_group_is_in_one_part(fraction: float, largest: int) -> None:
    """No group is in both parts, and the size is correct to less than one group."""
    groups = patients(len(MRNET), largest)
    fit, inner = inner_split(MRNET, fraction, 0, groups.tolist())
    assert sorted([*fit, *inner]) == list(range(len(MRNET)))
    assert not set(groups[fit]) & set(groups[inner])
    assert abs(len(inner) - fraction * len(MRNET)) < np.bincount(groups).max() + 1


def test_groups_are_stratified_too() -> None:
    """Each pattern is correct to one group; at random the worst would be off by 7 on average."""
    labels = np.random.default_rng(5).permutation(MRNET)
    groups = patients(len(MRNET), 3)
    for seed in range(3):
        _, inner = inner_split(labels, 0.15, seed, groups.tolist())
        for pattern in np.unique(MRNET, axis=0):
            there = (labels == pattern).all(axis=1)
            assert abs(there[inner].sum() - 0.15 * there.sum()) <= 3


def test_the_seed_draws_other_groups_and_their_numbers_do_not_matter() -> None:
    """The draw depends on the seed, not on group numbers, and doesn't prefer large groups."""
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
    """Neither part is empty, however large the groups are compared with the requested share."""
    labels = np.zeros((len(groups), 1))
    for seed in range(3):
        assert len(inner_split(labels, fraction, seed, groups)[1]) in sizes


def test_one_group_can_not_be_split() -> None:
    """A single group of all exams is an error."""
    with pytest.raises(MrkneeError, match="can't be split") as error:
        inner_split(MRNET, 0.15, 0, [7] * len(MRNET))
    assert "1 group" in (error.value.found or "")


PREVALENCES = np.array([0.21, 0.10, 0.40, 0.16, 0.25, 0.15, 0.30, 0.50, 0.13, 0.20, 0.30, 0.07])
"""Shares of exams with each of twelve findings, from rare to common."""


def twelve_findings(seed: int, count: int = 600) -> np.ndarray:
    """Returns labels of twelve findings; many of their patterns occur once."""
    labels = (np.random.default_rng(seed).random((count, 12)) < PREVALENCES).astype(float)
    assert len(np.unique(labels, axis=0)) > 0.4 * count
    return labels


@pytest.mark.parametrize("grouped", [False, True])
def test_each_of_many_findings_keeps_its_share(grouped: bool) -> None:
    """With more patterns than exams to draw, no finding is drawn more or less often than others."""
    found = []
    for seed in range(10):
        labels = twelve_findings(seed)
        groups = np.random.default_rng(seed).integers(0, 200, len(labels)).tolist()
        fit, inner = inner_split(labels, 0.15, seed, groups if grouped else None)
        assert sorted([*fit, *inner]) == list(range(len(labels)))
        assert abs(len(inner) - 90) <= (5 if grouped else 0)
        found.append(labels[inner].mean(axis=0) / labels.mean(axis=0))
    assert np.abs(np.mean(found, axis=0) - 1).max() < 0.15
    assert np.std(found, axis=0).max() < 0.25


@pytest.mark.parametrize("folds", [2, 5])
@pytest.mark.parametrize("grouped", [False, True])
def test_folds_have_equal_sizes_and_prevalences(folds: int, grouped: bool) -> None:
    """Groups are complete; sizes and numbers of positive exams differ by little."""
    labels = twelve_findings(0)
    groups = np.random.default_rng(1).integers(0, 200, len(labels))
    found = assign_folds(labels, folds, groups.tolist() if grouped else None)
    if grouped:
        assert all(len(set(found[groups == group])) == 1 for group in set(groups))
    sizes = np.bincount(found)
    assert len(sizes) == folds
    assert np.ptp(sizes) <= (8 if grouped else 0)
    positive = np.array([labels[found == fold].sum(axis=0) for fold in range(folds)])
    assert np.ptp(positive, axis=0).max() <= (8 if grouped else 4)


def test_folds_do_not_depend_on_numbers_of_groups_or_unknown_labels() -> None:
    """Groups may have any numbers; unknown labels count as absent; the result is reproducible."""
    labels = twelve_findings(2, 60)
    groups = np.repeat(np.arange(30), 2)
    first = assign_folds(labels, 3, groups.tolist())
    assert np.array_equal(first, assign_folds(labels, 3, (groups + 1000).tolist()))
    unknown = np.where(labels == 0, np.nan, labels)
    assert np.array_equal(first, assign_folds(unknown, 3, groups.tolist()))
    assert set(assign_folds(np.full((4, 1), np.nan), 2)) == {0, 1}


@pytest.mark.parametrize("groups", [[0] * 9 + [1], [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]])
def test_no_fold_is_empty(groups: list[int]) -> None:
    """As many groups as folds are one group per fold, however unequal they are."""
    found = assign_folds(np.ones((10, 2)), 2, groups)
    assert found[0] != found[-1]


@pytest.mark.parametrize(("folds", "groups"), [(1, None), (11, None), (3, [0] * 9 + [1])])
def test_impossible_folds_are_refused(folds: int, groups: list[int] | None) -> None:
    """Refused: one fold, and more folds than exams or groups."""
    with pytest.raises(MrkneeError, match="can't be divided into folds"):
        assign_folds(np.ones((10, 1)), folds, groups)
