"""A small data set of phantoms without problems, and functions that add exams to it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from mrknee.exams import Dataset, Stack, read_labels, write_labels, write_stack
from mrknee.sources.phantom import Truth, render_exam

TRAIN, VALID, SIZE = 10, 4, 64
LABELS = ((0, 0, 0), (1, 0, 0), (1, 1, 0), (1, 0, 1))
"""abnormal, acl, meniscus of the exams in turn."""


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten and four phantoms of 64 pixels, ids 0000 to 0013; read-only."""
    root = tmp_path_factory.mktemp("knees") / "data"
    for number in range(TRAIN + VALID):
        split = "train" if number < TRAIN else "valid"
        truth = Truth(*(bool(label) for label in LABELS[number % 4]))
        stacks = render_exam((77, number), truth, size=SIZE).stacks
        add_exam(root, split, f"{number:04d}", stacks, LABELS[number % 4])
    return root


@pytest.fixture
def knees(rendered: Path, tmp_path: Path) -> Path:
    """A copy of the phantoms that may be changed."""
    return shutil.copytree(rendered, tmp_path / "data")


def add_exam(
    root: Path,
    split: str,
    exam_id: str,
    stacks: Mapping[str, Stack],
    labels: tuple[int, int, int] = (1, 0, 0),
) -> None:
    """Writes an exam's stacks, and its line in each label file."""
    for plane, stack in stacks.items():
        write_stack(root / split, plane, exam_id, stack)
    for finding, label in zip(("abnormal", "acl", "meniscus"), labels, strict=True):
        file = root / f"{split}-{finding}.csv"
        before = read_labels(file) if file.exists() else {}
        write_labels(root, split, finding, before | {exam_id: float(label)})


def stacks_of(root: Path, split: str, exam_id: str) -> dict[str, Stack]:
    """Returns an exam's stacks: series -> stack."""
    folder = Dataset(root / split)
    stacks = folder[folder.ids.index(exam_id)].stacks
    # copies, because the files may be overwritten while these are in use
    return {name: np.array(stack) for name, stack in stacks.items()}
