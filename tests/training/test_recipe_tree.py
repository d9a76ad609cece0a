from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

from mrknee.errors import MrkneeError
from mrknee.training.recipe import Recipe, recipe_file, recipe_names
from mrknee.training.recipe_tree import read_tree


@pytest.mark.parametrize("name", recipe_names())
def test_the_packages_recipes_are_read(name: str) -> None:
    """They say what YAML's own reader makes of them."""
    file = recipe_file(name)
    assert read_tree(file, Recipe) == (yaml.safe_load(file.read_text()) or {})


def test_a_whole_recipe_comes_back(tmp_path: Path) -> None:
    """What `to_yaml` writes, every setting written out, is within what is read."""
    recipe = Recipe(findings=["acl"], loggers=[])
    (tmp_path / "a.yaml").write_text(recipe.to_yaml())
    assert read_tree(tmp_path / "a.yaml", Recipe) == dataclasses.asdict(recipe)


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    """No setting at all is a recipe of defaults."""
    (tmp_path / "a.yaml").write_text("# nothing\n")
    assert read_tree(tmp_path / "a.yaml", Recipe) == {}


def test_the_fault_is_named_with_its_line(tmp_path: Path) -> None:
    """A setting that comes twice is told with the place of the second."""
    (tmp_path / "a.yaml").write_text("epochs: 3\nnetwork:\n  dropout: 0\n  dropout: 0.5\n")
    with pytest.raises(MrkneeError, match=r"comes twice[\s\S]*line 4"):
        read_tree(tmp_path / "a.yaml", Recipe)


def test_a_setting_that_is_none_is_named_in_full(tmp_path: Path) -> None:
    """With the part it was looked for in, and what there is."""
    (tmp_path / "a.yaml").write_text("network:\n  class_path: os.system\n")
    with pytest.raises(MrkneeError) as caught:
        read_tree(tmp_path / "a.yaml", Recipe)
    assert caught.value.found == "network.class_path"
    assert "encoder" in (caught.value.expected or "")
