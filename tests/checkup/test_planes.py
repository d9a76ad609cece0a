from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from mrknee.checkup.check import check
from mrknee.exams import PLANES, Dataset, write_labels
from tests.checkup.conftest import add_exam
from tests.conftest import write_toy_dataset

SHARED = Path(os.environ.get("MRKNEE_DATA") or Path(__file__).parents[3] / "shared" / "data")
REAL = SHARED / "knee_exam_mrnet_layout"


def told(root: Path) -> list[str]:
    """The files that look like another plane."""
    return [p.file for p in check(root).problems if p.code == "other-plane"]


@pytest.mark.parametrize("moved", PLANES)
def test_a_foreign_stack_is_found_in_each_plane(knees: Path, moved: str) -> None:
    """An exam whose other planes were overwritten by one: both are told, the right one is not."""
    stack = np.load(knees / "valid" / moved / "0012.npy")
    wrong = [plane for plane in PLANES if plane != moved]
    for plane in wrong:
        np.save(knees / "valid" / plane / "0012.npy", stack)
    assert told(knees) == [f"valid/{plane}/0012.npy" for plane in wrong]


def test_few_exams_are_not_judged(knees: Path) -> None:
    """With nine stacks of a plane nothing is said, and that is said."""
    for number in range(9, 14):
        split = "train" if number < 10 else "valid"
        (knees / split / "coronal" / f"{number:04d}.npy").unlink()
    checkup = check(knees)
    assert not checkup.planes_compared
    assert told(knees) == []


def test_planes_that_can_not_be_told_apart_are_not_judged(tmp_path: Path) -> None:
    """Noise is noise in every plane."""
    checkup = check(write_toy_dataset(tmp_path / "toy", 12, 6))
    assert not checkup.planes_compared
    assert not [p for p in checkup.problems if p.code in ("other-plane", "alike", "alike-across")]


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real knee is not there: {REAL}")
def test_a_real_knee_is_not_suspected(knees: Path, tmp_path: Path) -> None:
    """Among phantoms, and alone, a real exam has no problem of its own but its size."""
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
