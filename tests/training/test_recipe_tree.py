from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

from mrknee.errors import MrkneeError
from mrknee.training.arguments import train_arguments
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


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "{}", "~", "---\n"])
def test_a_file_without_a_setting_is_refused(text: str, tmp_path: Path) -> None:
    """A file that was cut to nothing must not train the default recipe."""
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(MrkneeError, match="a recipe is empty"):
        read_tree(tmp_path / "a.yaml", Recipe)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("epochs: 010", 10),
        ("epochs: 0o10", 8),
        ("epochs: 0x10", 16),
        ("epochs: +5", 5),
        ("batch_slices: ~", None),
        ("batch_slices:", None),
        ("keep_every_epoch: TRUE", True),
        ("sensitivity: .5", 0.5),
        ("sensitivity: 1e-4", 1e-4),
        ("sensitivity: 1", 1),
        ("weights: 1:30", "1:30"),
        ("weights: no", "no"),
        ("weights: 1_0", "1_0"),
        ("weights: 2001-01-01", "2001-01-01"),
        ("weights: '010'", "010"),
    ],
)
def test_values_are_those_of_yaml_1_2(text: str, value: object, tmp_path: Path) -> None:
    """Its core schema: no sexagesimal, octal by 0o only, no underscores, no dates, no yes."""
    (tmp_path / "a.yaml").write_text(text)
    assert read_tree(tmp_path / "a.yaml", Recipe) == {text.partition(":")[0]: value}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("epochs: 1:30", "a whole number"),
        ("epochs: 1_000", "a whole number"),
        ("epochs: '3'", "a whole number"),
        ("epochs: 1e2", "a whole number"),
        ("epochs: true", "a whole number"),
        ("epochs: [3]", "a whole number"),
        ("epochs: 2001-01-01", "a whole number"),
        ("batch_slices: many", "a whole number or null"),
        ("keep_every_epoch: yes", "true or false"),
        ("keep_every_epoch: off", "true or false"),
        ("keep_every_epoch: 1", "true or false"),
        ("optimizer: {learning_rate: 1:30}", "a finite number"),
        ("optimizer: {learning_rate: .nan}", "a finite number"),
        ("precision: fp16", "one of 32-true, bf16-mixed, 16-mixed, auto"),
    ],
)
def test_text_is_not_taken_for_a_number(text: str, expected: str, tmp_path: Path) -> None:
    """What YAML 1.1 would make 90, 1000 or true is refused with what was expected."""
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(MrkneeError) as caught:
        read_tree(tmp_path / "a.yaml", Recipe)
    assert caught.value.expected == expected


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


@pytest.mark.parametrize(
    ("text", "near"),
    [("batch_size: 4", "batch_exams"), ("optimizer: {lr: 1}", "optimizer.learning_rate")],
)
def test_a_setting_of_another_program_is_understood(text: str, near: str, tmp_path: Path) -> None:
    """With the name it has here."""
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(MrkneeError) as caught:
        read_tree(tmp_path / "a.yaml", Recipe)
    assert caught.value.advice == f"did you mean {near}?"


@pytest.mark.parametrize("weights", ["1e3", "010", "1:30", "yes", "null", "~", "", "a: b", "0x1"])
def test_text_that_looks_like_something_else_comes_back(weights: str, tmp_path: Path) -> None:
    """`to_yaml` quotes what would be read as a number, a boolean or nothing."""
    (tmp_path / "a.yaml").write_text(Recipe(weights=weights).to_yaml())
    assert read_tree(tmp_path / "a.yaml", Recipe)["weights"] == weights


@pytest.mark.parametrize(
    "text",
    [
        f"optimizer: {{weight_decay: {'9' * 400}}}",
        f"network: {{dropout: {'9' * 400}}}",
        "weights: 010",
        "network: {encoder: true}",
        "findings: 1",
        "findings: [acl, 1]",
        "loggers: [null]",
    ],
)
def test_what_is_of_another_kind_names_the_file(text: str, tmp_path: Path) -> None:
    """Whole numbers beyond any float, and numbers where text is meant, on the command line too."""
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    with pytest.raises(MrkneeError, match="a recipe can't be read") as caught:
        train_arguments(["data", "--out", "run", "--recipe", str(file)], "")
    assert str(file) in str(caught.value)
