from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from mrknee.errors import ModelError, SettingsError
from mrknee.models.settings import NetworkSettings
from mrknee.settings import Settings, describe_allowed, setting_schemas, settings_from_model
from mrknee.training.recipe import OptimizerSettings, Recipe, ScheduleSettings, SelectionSettings
from mrknee.transforms.settings import AugmentationSettings, PreparationSettings

SECTIONS = (
    NetworkSettings,
    PreparationSettings,
    AugmentationSettings,
    OptimizerSettings,
    ScheduleSettings,
    SelectionSettings,
)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"epochs": "3"}, "a whole number from 1 to 100,000"),
        ({"epochs": 3.0}, "a whole number from 1 to 100,000"),
        ({"epochs": True}, "a whole number from 1 to 100,000"),
        ({"epochs": None}, "a whole number from 1 to 100,000"),
        ({"epochs": 0}, "a whole number from 1 to 100,000"),
        ({"epochs": 10**400}, "a whole number from 1 to 100,000"),
        ({"batch_slices": "many"}, "a whole number from 1 to 1,000,000 or null"),
        ({"sensitivity": "0.9"}, "a number above 0 to below 1"),
        ({"sensitivity": True}, "a number above 0 to below 1"),
        ({"sensitivity": float("nan")}, "a number above 0 to below 1"),
        ({"sensitivity": float("inf")}, "a number above 0 to below 1"),
        ({"sensitivity": 10**400}, "a number above 0 to below 1"),
        ({"keep_every_epoch": 1}, "true or false"),
        ({"keep_every_epoch": "true"}, "true or false"),
        ({"weights": 1}, "text"),
        ({"weights": None}, "text"),
        ({"precision": "fp16"}, "one of 32-true, bf16-mixed, 16-mixed, auto"),
        ({"precision": 32}, "one of 32-true, bf16-mixed, 16-mixed, auto"),
        ({"findings": 1}, "a list of text or text or null"),
    ],
)
def test_invalid_value_is_refused(settings: dict[str, Any], expected: str) -> None:
    """The error names the setting, the allowed values and the value; nothing is converted."""
    with pytest.raises(SettingsError) as caught:
        Recipe(**settings)
    ((name, value),) = settings.items()
    assert caught.value.what == f"the setting {name} can't be used"
    assert caught.value.code == "setting"
    assert caught.value.expected == expected
    assert caught.value.found == repr(value)


def test_number_with_thousands_of_digits_is_refused() -> None:
    """This holds for numbers that Python doesn't convert to text."""
    with pytest.raises(SettingsError, match="the setting epochs can't be used"):
        Recipe(epochs=10**5000)


def test_integer_is_accepted_as_float() -> None:
    """It is converted to a float, so that the digest of a recipe doesn't depend on its spelling."""
    rate = Recipe.model_validate({"optimizer": {"learning_rate": 1}}).optimizer.learning_rate
    assert (rate, type(rate)) == (1.0, float)


@pytest.mark.parametrize(
    ("tree", "name"),
    [
        ({"network": {"dropout": 2}}, "network.dropout"),
        ({"preparation": {"crop": 300}}, "preparation.crop"),
        ({"selection": {"part": "test"}}, "selection.part"),
        ({"findings": ["ACL tear"]}, "findings"),
        ({"findings": ["acl", "acl"]}, "findings"),
        ({"findings": ["acl", 1]}, "findings"),
        ({"loggers": ["tensorboard", None]}, "loggers"),
        ({"loggers": "tensorbord"}, "loggers"),
        ({"axes": "rows,cols"}, "axes"),
        ({"network": "alexnet"}, "network"),
        ({"network": None}, "network"),
        ({"network": OptimizerSettings()}, "network"),
    ],
)
def test_error_gives_dotted_name(tree: dict[str, Any], name: str) -> None:
    """Errors in sections give the name used in recipes and on the command line."""
    with pytest.raises(SettingsError) as caught:
        Recipe.model_validate(tree)
    assert f"the setting {name} can't be used" in caught.value.what
    assert caught.value.expected


@pytest.mark.parametrize(
    ("kind", "name", "suggestion"),
    [
        (Recipe, "epoch", "epochs"),
        (Recipe, "lr", "optimizer.learning_rate"),
        (Recipe, "dropout", "network.dropout"),
        (NetworkSettings, "encodr", "network.encoder"),
        (OptimizerSettings, "lr", "optimizer.learning_rate"),
    ],
)
def test_unknown_setting_gets_a_suggestion(
    kind: type[Settings], name: str, suggestion: str
) -> None:
    """Names of other programs are known, also for a section that is created separately."""
    with pytest.raises(SettingsError) as caught:
        kind(**{name: 1})
    assert caught.value.code == "unknown-setting"
    assert name in caught.value.what
    assert caught.value.advice == f"did you mean {suggestion}?"


def test_contradictions_name_both_settings() -> None:
    """Refused: slices_at_once with trained batch statistics, and a crop larger than the image."""
    with pytest.raises(SettingsError, match=r"slices_at_once and network\.batchnorm"):
        Recipe(slices_at_once=4, network=NetworkSettings(batchnorm="trained"))
    with pytest.raises(SettingsError, match="crop 100, size 64"):
        PreparationSettings(size=64, crop=100)


def test_replaced_settings_are_validated() -> None:
    """`replace` refuses the same values as the constructor; the original doesn't change."""
    recipe = Recipe(epochs=3)
    assert recipe.replace(epochs=4).epochs == 4
    assert recipe.epochs == 3
    with pytest.raises(SettingsError, match="epochs"):
        recipe.replace(epochs=0)
    with pytest.raises(SettingsError, match="there is no setting epoch"):
        recipe.replace(epoch=4)
    with pytest.raises(ValidationError, match="frozen"):
        recipe.epochs = 4


def test_every_setting_has_description_default_and_limits() -> None:
    """The command line and the documentation are generated from the JSON schema."""
    schemas = setting_schemas(Recipe)
    assert len(schemas) > 40
    for name, schema in schemas.items():
        assert schema["description"].endswith("."), name
        assert "default" in schema, name
        for kind in schema.get("anyOf", [schema]):
            if kind["type"] in ("integer", "number"):
                assert {"minimum", "exclusiveMinimum"} & set(kind), name
                assert {"maximum", "exclusiveMaximum"} & set(kind), name
        assert describe_allowed(schema)


@pytest.mark.parametrize("section", SECTIONS)
def test_section_name_is_that_in_the_recipe(section: type[Settings]) -> None:
    """Errors use this name for settings of a section that is created separately."""
    assert set(setting_schemas(section)) <= set(setting_schemas(Recipe))
    assert Recipe.model_fields[section.section].annotation is section


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"size": 256, "crop": 224, "mean": 1.0},
        {"size": 256, "crop": 224, "mean": 1.0, "sd": 1.0, "more": 1},
        {"size": 256, "crop": 224, "mean": "1", "sd": 1.0},
        {"size": 256, "crop": 300, "mean": 1.0, "sd": 1.0},
        {"size": 256, "crop": 224, "mean": 1.0, "sd": 0.0},
        {"size": 256, "crop": 224, "mean": 1.0, "sd": None},
    ],
)
def test_settings_of_a_model_must_be_complete(content: dict[str, Any]) -> None:
    """Missing settings are refused: defaults may have changed since the model was created."""
    with pytest.raises(ModelError) as caught:
        settings_from_model(PreparationSettings, content)
    assert caught.value.code == "description"
    assert "preparation" in caught.value.what
    settings = PreparationSettings(mean=1.5)
    assert settings_from_model(PreparationSettings, settings.to_dict()) == settings
