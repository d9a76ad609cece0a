from __future__ import annotations

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
