"""Canonical sides and mirroring exclude each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import mrknee
from mrknee.errors import SettingsError
from mrknee.exams import ExamSide, open_dataset, write_sides
from mrknee.training.coverage import coverage_notes
from mrknee.training.parts import split_exams
from mrknee.training.recipe import load_recipe, load_recipe_for, recipe_names


@pytest.fixture
def sided(toy: Path) -> Path:
    """The toy data set, in which every second knee is a mirrored right one."""
    ids = [i for split in ("train", "valid") for i in open_dataset(toy, split).ids]
    sides = [ExamSide("left", False), ExamSide("right", True)]
    write_sides(toy, {exam_id: sides[n % 2] for n, exam_id in enumerate(ids)})
    return toy


@pytest.mark.parametrize("name", recipe_names())
def test_recipes_of_the_package_do_not_mirror_canonical_sides(sided: Path, name: str) -> None:
    """Only the probability of mirroring changes; without `sides.csv` nothing does."""
    recipe = load_recipe(name)
    changed = load_recipe_for(sided, name, {"epochs": 1})
    augmentation = recipe.augmentation.replace(mirror=0.0)
    assert changed == recipe.replace(augmentation=augmentation, epochs=1)
    (sided / "sides.csv").unlink()
    assert load_recipe_for(sided, name) == recipe


@pytest.mark.parametrize("stated", ["option", "section", "file"])
def test_stated_mirroring_of_canonical_sides_is_refused(
    sided: Path, tmp_path: Path, stated: str
) -> None:
    """An option or a recipe of one's own that mirrors such exams is an error."""
    recipe, changes = "small", dict[str, Any]()
    if stated == "option":
        changes["augmentation.mirror"] = 0.5
    elif stated == "section":
        changes["augmentation"] = {"mirror": 0.1}
    else:
        recipe = str(tmp_path / "mine.yaml")
        Path(recipe).write_text(load_recipe("small").to_yaml())
    with pytest.raises(SettingsError, match="can't be mirrored") as refused:
        mrknee.train(sided, recipe, out=tmp_path / "run", **changes)
    assert refused.value.advice == "set augmentation.mirror to 0"
    assert not (tmp_path / "run").exists()


def test_training_notes_that_exams_are_not_mirrored(sided: Path) -> None:
    """The note names the file that is the reason."""
    recipe = load_recipe_for(sided, "small")
    notes = coverage_notes(split_exams(sided, recipe), recipe)
    assert [note for note in notes if "sides.csv" in note and "not mirrored" in note]
