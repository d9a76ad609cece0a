from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mrknee.checks.check import check
from mrknee.checks.duplicates import ALIKE
from mrknee.exams import Stack
from tests.checks.conftest import add_exam, stacks_of

Alteration = Callable[[str, Stack], Stack]


def mirror(plane: str, stack: Stack) -> Stack:
    """Mirrors left and right."""
    return stack[::-1] if plane == "sagittal" else stack[:, :, ::-1]


def flip(plane: str, stack: Stack) -> Stack:
    """Columns mirrored in every plane, as the published augmentation does."""
    del plane
    return stack[:, :, ::-1]


def crop(plane: str, stack: Stack) -> Stack:
    """Crops another region in each plane, 86 to 94 % of a side."""
    cut = {
        "axial": np.s_[:, 3:58, :55],
        "coronal": np.s_[:, 4:, 2:62],
        "sagittal": np.s_[:, :57, 5:],
    }
    part: Stack = stack[cut[plane]]
    return part


def brighten(plane: str, stack: Stack) -> Stack:
    """Applies a display window with another gamma."""
    del plane
    bright: Stack = np.clip(280 * (stack / 255) ** 0.8 + 5, 0, 255).astype(np.uint8)
    return bright


def drop(plane: str, stack: Stack) -> Stack:
    """Removes two slices at the beginning and one at the end."""
    del plane
    return stack[2:-1]


def everything(plane: str, stack: Stack) -> Stack:
    """Applies all alterations except the flip."""
    for alter in (mirror, crop, brighten, drop):
        stack = alter(plane, stack)
    return stack


def altered(root: Path, exam_id: str, alter: Alteration) -> dict[str, Stack]:
    """Returns the altered stacks of a training exam."""
    stacks = stacks_of(root, "train", exam_id)
    return {plane: np.ascontiguousarray(alter(plane, s)) for plane, s in stacks.items()}


@pytest.mark.parametrize("alter", [mirror, flip, crop, brighten, drop, everything])
def test_an_altered_copy_is_found_in_another_split(knees: Path, alter: Alteration) -> None:
    """The altered copy is reported with its original, and no other pair is."""
    add_exam(knees, "valid", "0099", altered(knees, "0004", alter))
    checkup = check(knees)
    (pair,) = checkup.pairs
    assert (pair.first, pair.second, pair.copy) == ("train/0004", "valid/0099", False)
    assert 0 <= pair.distance <= ALIKE
    assert pair.distance == pytest.approx(np.mean(list(pair.series.values())), abs=0.001)
    (problem,) = (p for p in checkup.problems if p.code == "alike-across")
    assert "train/0004" in problem.text
    assert f"{pair.distance:.2f}" in problem.text


def test_the_original_may_be_in_the_other_split(knees: Path) -> None:
    """An uncropped exam is found if its crop is in train."""
    original = stacks_of(knees, "train", "0004")
    for plane, stack in altered(knees, "0004", crop).items():
        np.save(knees / "train" / plane / "0004.npy", stack)
    add_exam(knees, "valid", "0099", original)
    (pair,) = check(knees).pairs
    assert (pair.first, pair.second) == ("train/0004", "valid/0099")


def test_a_copy_without_a_plane_is_found(knees: Path) -> None:
    """Only the common planes are compared."""
    stacks = altered(knees, "0004", crop)
    del stacks["coronal"]
    add_exam(knees, "valid", "0099", stacks)
    (pair,) = check(knees).pairs
    assert sorted(pair.series) == ["axial", "sagittal"]


def test_one_stack_of_another_exam_is_a_copy(knees: Path) -> None:
    """A single stack that was copied to a second exam is reported with its file."""
    stack = np.load(knees / "train" / "axial" / "0001.npy")
    np.save(knees / "valid" / "axial" / "0012.npy", stack)
    checkup = check(knees)
    (problem,) = checkup.problems
    assert (problem.code, problem.file) == ("copy-across", "valid/axial/0012.npy")
    assert checkup.pairs[0].series == {"axial": 0.0}


def test_equal_values_in_another_shape_are_not_a_copy(knees: Path) -> None:
    """The shape is part of the comparison, because reshaped stacks have the same bytes."""
    stack = np.load(knees / "train" / "axial" / "0001.npy")
    np.save(knees / "valid" / "axial" / "0012.npy", stack.reshape(len(stack) * 2, 32, 64))
    assert "copy-across" not in [problem.code for problem in check(knees).problems]


def test_three_copies_are_two_pairs(knees: Path) -> None:
    """Each copy is reported with the first identical exam."""
    for exam_id in ("0098", "0099"):
        add_exam(knees, "train", exam_id, stacks_of(knees, "train", "0004"))
    pairs = [(pair.first, pair.second) for pair in check(knees).pairs if pair.copy]
    assert pairs == [("train/0004", "train/0098"), ("train/0004", "train/0099")]
