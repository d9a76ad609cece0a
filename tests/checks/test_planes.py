from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from mrknee.checks.check import check
from mrknee.exams import PLANES, Dataset, write_labels
from tests.checks.conftest import add_exam
from tests.conftest import write_toy_dataset

SHARED = Path(os.environ.get("MRKNEE_DATA") or Path(__file__).parents[3] / "shared" / "data")
REAL = SHARED / "knee_exam_mrnet_layout"


def misplaced(root: Path) -> list[str]:
    """Returns the files that look like another plane."""
    return [p.file for p in check(root).problems if p.code == "other-plane"]


@pytest.mark.parametrize("moved", PLANES)
def test_a_foreign_stack_is_found_in_each_plane(knees: Path, moved: str) -> None:
    """If one stack overwrote the other planes of an exam, exactly these are reported."""
    stack = np.load(knees / "valid" / moved / "0012.npy")
    wrong = [plane for plane in PLANES if plane != moved]
    for plane in wrong:
        np.save(knees / "valid" / plane / "0012.npy", stack)
    assert misplaced(knees) == [f"valid/{plane}/0012.npy" for plane in wrong]


def test_the_check_does_not_run_with_few_exams(knees: Path) -> None:
    """With nine stacks of a plane nothing is reported, and `planes_compared` is false."""
    for number in range(9, 14):
        split = "train" if number < 10 else "valid"
        (knees / split / "coronal" / f"{number:04d}.npy").unlink()
    checkup = check(knees)
    assert not checkup.planes_compared
    assert misplaced(knees) == []


def test_the_check_does_not_run_if_planes_are_too_similar(tmp_path: Path) -> None:
    """Stacks of noise don't differ between planes."""
    checkup = check(write_toy_dataset(tmp_path / "toy", 12, 6))
    assert not checkup.planes_compared
    assert not [p for p in checkup.problems if p.code in ("other-plane", "alike", "alike-across")]


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real knee is missing: {REAL}")
def test_a_real_knee_is_not_reported(knees: Path, tmp_path: Path) -> None:
    """A real exam, among phantoms or alone, has no problem except its size."""
    stacks = dict(Dataset(REAL)[0].stacks)
    add_exam(knees, "valid", "0099", stacks)
    checkup = check(knees)
    assert checkup.planes_compared
    assert {p.code for p in checkup.problems} == {"odd-size"}
    alone = tmp_path / "alone"
    shutil.copytree(REAL, alone / "train")
    for finding, label in (("abnormal", 1.0), ("acl", 0.0)):
        write_labels(alone, "train", finding, {"0000": label})
    assert {p.code for p in check(alone).problems} == {"no-valid", "not-learnable"}
