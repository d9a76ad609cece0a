"""Parts of a run's exams."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mrknee.exams import assign_folds, open_dataset
from mrknee.training.parts import split_exams
from mrknee.training.recipe import load_recipe, recipe_names


@pytest.fixture
def grouped(toy: Path) -> Path:
    """The toy data set, whose twelve training exams are in four groups."""
    lines = [f"{number:04d},{number % 4}" for number in range(12)]
    (toy / "groups.csv").write_text("\n".join(["exam,group", *lines]) + "\n")
    return toy


@pytest.mark.parametrize("folds", [None, 2])
@pytest.mark.parametrize("name", recipe_names())
def test_no_recipe_divides_a_group(grouped: Path, name: str, folds: int | None) -> None:
    """The inner part has complete groups in every recipe, with and without folds."""
    changes = {"selection.part": "inner", "folds": folds, "fold": folds and 1}
    parts = split_exams(grouped, load_recipe(name, changes))
    train, inner = (
        {int(parts.train.ids[position]) % 4 for position in positions}
        for positions in (parts.train_positions, parts.selection_positions)
    )
    assert train
    assert inner
    assert not train & inner
    if folds is not None:
        assert parts.valid is not None
        held_out = {int(exam_id) % 4 for exam_id in parts.valid.ids}
        assert held_out | train | inner == {0, 1, 2, 3}
        assert not held_out & (train | inner)


def test_a_fold_takes_the_place_of_valid(grouped: Path) -> None:
    """Ids, files, labels and groups are those of the fold's exams, and `valid` isn't read."""
    all_exams = open_dataset(grouped, "train")
    for file in grouped.glob("valid-*.csv"):
        file.write_text("not a label file")
    recipe = load_recipe("small", {"folds": 2, "fold": 2, "findings": ["acl"]})
    parts = split_exams(grouped, recipe)
    chosen = assign_folds(all_exams.labels, 2, all_exams.groups) == 1
    assert parts.valid is not None
    assert parts.valid.ids == tuple(np.array(all_exams.ids)[chosen])
    assert parts.train.ids == tuple(np.array(all_exams.ids)[~chosen])
    assert np.array_equal(parts.valid.labels[:, 0], all_exams.labels[chosen, 1])
    assert parts.valid.groups == tuple(np.array(all_exams.groups)[chosen])
    exam = parts.valid[0]
    assert np.array_equal(exam.stacks["axial"], all_exams[exam.id].stacks["axial"])
    assert len(all_exams) == 12
