from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mrknee.errors import SettingsError
from mrknee.training import recipe as recipe_module
from mrknee.training.recipe import Recipe, load_recipe, read_recipe, recipe_names
from mrknee.training.recipe_yaml import read_yaml

RECIPES = Path(recipe_module.__file__).parent / "recipes"


@pytest.mark.parametrize("name", recipe_names())
def test_packaged_recipes_agree_with_pyyaml(name: str) -> None:
    """The result is that of PyYAML's own loader."""
    file = RECIPES / f"{name}.yaml"
    assert read_yaml(file) == yaml.safe_load(file.read_text())


def test_recipe_survives_writing_and_reading(tmp_path: Path) -> None:
    """A complete recipe written by `to_yaml` can be read."""
    recipe = Recipe(findings=["acl"], loggers=[])
    (tmp_path / "a.yaml").write_text(recipe.to_yaml())
    assert read_yaml(tmp_path / "a.yaml") == recipe.to_dict()


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "{}", "~", "---\n"])
def test_empty_file_is_refused(text: str, tmp_path: Path) -> None:
    """An empty file must not train the default recipe."""
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(SettingsError, match="the recipe is empty"):
        read_yaml(tmp_path / "a.yaml")


@pytest.mark.parametrize("text", ["- 1\n", "3\n", "other.yaml\n", "~: 3\n", "1: 3\n", "[a]: 3\n"])
def test_file_without_named_settings_is_refused(text: str, tmp_path: Path) -> None:
    """Refused: a list, a value, the name of a file, and keys that aren't text."""
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(SettingsError, match="the recipe can't be read"):
        read_yaml(tmp_path / "a.yaml")


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
        ("weights: 1:30", "1:30"),
        ("weights: no", "no"),
        ("weights: 1_0", "1_0"),
        ("weights: 2001-01-01", "2001-01-01"),
        ("weights: '010'", "010"),
    ],
)
def test_values_follow_yaml_1_2(text: str, value: object, tmp_path: Path) -> None:
    """The core schema has no sexagesimals, underscores, dates and `yes`, and octal only as 0o."""
    (tmp_path / "a.yaml").write_text(text)
    recipe, tree = read_recipe(str(tmp_path / "a.yaml"))
    name = text.partition(":")[0]
    assert tree == {name: value}
    assert getattr(recipe, name) == value


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
        ("batch_slices: many", "a whole number from 1 to 1,000,000 or null"),
        ("keep_every_epoch: yes", "true or false"),
        ("keep_every_epoch: off", "true or false"),
        ("keep_every_epoch: 1", "true or false"),
        ("optimizer: {learning_rate: 1:30}", "a number above 0 to 1000"),
        ("optimizer: {learning_rate: .nan}", "a number above 0 to 1000"),
        (f"optimizer: {{weight_decay: {'9' * 400}}}", "a number from 0 to 1000"),
        (f"network: {{dropout: {'9' * 400}}}", "a number from 0 to below 1"),
        ("precision: fp16", "one of 32-true, bf16-mixed, 16-mixed, auto"),
        ("weights: 010", "text"),
        ("network: {encoder: true}", "text"),
        ("findings: 1", "a list of text"),
        ("findings: [acl, 1]", "a list of text"),
        ("loggers: [null]", "some of tensorboard, wandb, mlflow"),
        ("network: alexnet", "a section of settings, such as network.encoder"),
    ],
)
def test_value_of_another_type_is_refused(text: str, expected: str, tmp_path: Path) -> None:
    """The error names file, setting and value, also for what YAML 1.1 reads as 90, 1000 or true."""
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_recipe(str(tmp_path / "a.yaml"))
    assert (caught.value.expected or "").startswith(expected)
    assert caught.value.file == str(tmp_path / "a.yaml")
    assert caught.value.found
    assert "can't be used" in caught.value.what


def test_repeated_setting_is_reported_with_its_line(tmp_path: Path) -> None:
    """The error of a repeated setting gives the line of the second."""
    (tmp_path / "a.yaml").write_text("epochs: 3\nnetwork:\n  dropout: 0\n  dropout: 0.5\n")
    with pytest.raises(SettingsError, match=r"is repeated[\s\S]*line 4"):
        read_yaml(tmp_path / "a.yaml")


def test_unknown_setting_is_named_in_full(tmp_path: Path) -> None:
    """The error gives section, file and the known settings."""
    (tmp_path / "a.yaml").write_text("network:\n  class_path: os.system\n")
    with pytest.raises(SettingsError) as caught:
        load_recipe(str(tmp_path / "a.yaml"))
    assert caught.value.found == "network.class_path"
    assert "encoder" in (caught.value.expected or "")
    assert caught.value.file == str(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("text", "suggestion"),
    [("batch_size: 4", "batch_exams"), ("optimizer: {lr: 1}", "optimizer.learning_rate")],
)
def test_setting_of_another_program_gets_a_suggestion(
    text: str, suggestion: str, tmp_path: Path
) -> None:
    """The error suggests the name of the setting in recipes."""
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_recipe(str(tmp_path / "a.yaml"))
    assert caught.value.advice == f"did you mean {suggestion}?"


@pytest.mark.parametrize("weights", ["1e3", "010", "1:30", "yes", "null", "~", "", "a: b", "0x1"])
def test_text_that_looks_like_another_type_survives(weights: str, tmp_path: Path) -> None:
    """`to_yaml` quotes text that looks like a number, a boolean or null."""
    (tmp_path / "a.yaml").write_text(Recipe(weights=weights).to_yaml())
    assert read_recipe(str(tmp_path / "a.yaml"))[0].weights == weights
