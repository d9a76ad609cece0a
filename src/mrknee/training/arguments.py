"""The options of `mrknee train`: one per setting of a recipe, created from its JSON schema."""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import yaml

from mrknee.command_line import Parser
from mrknee.settings import describe_allowed, setting_schemas
from mrknee.suggestions import SETTINGS
from mrknee.training.recipe import FROM_ENCODER, Recipe, flat_settings, read_recipe
from mrknee.training.recipe_yaml import parse_value

_METAVARS = {"integer": "N", "number": "X"}


def train_arguments(parser: Parser, arguments: Sequence[str]) -> dict[str, Any]:
    """Reads the command line of `mrknee train`.

    Args:
        parser: has the arguments that aren't settings; an option is added for each setting.
        arguments: the command line after `train`.

    Returns:
        The arguments, and the given settings by their dotted names. Values of settings are not
        validated.

    Raises:
        SettingsError: there is no such recipe, or it can't be read.
        SystemExit: 2 for invalid arguments, after one message; 0 after `--help`.
    """
    recipe_parser = Parser(add_help=False, allow_abbrev=False)
    recipe_parser.add_argument("--recipe", default="default")
    add_settings(parser, recipe_parser.parse_known_args(arguments)[0].recipe)
    arguments = join_values(arguments)
    parser.check_options(arguments, SETTINGS)
    return vars(parser.parse_args(arguments))


def add_settings(parser: Parser, recipe: str = "default") -> None:
    """Adds an option for each setting of a recipe, in groups by the recipe's sections.

    The parsed arguments hold the given settings by their dotted names; others are missing.

    Args:
        parser: has the other options.
        recipe: name or file of the recipe whose values the help shows as defaults.

    Raises:
        SettingsError: there is no such recipe, or it can't be read.
    """
    usage = parser.format_usage().removeprefix("usage: ").strip()
    parser.usage = f"{usage} [--SETTING VALUE ...]"
    chosen, stated = read_recipe(recipe)
    defaults = dict(flat_settings(chosen.to_dict()))
    for name in FROM_ENCODER - dict(flat_settings(stated)).keys():
        del defaults[name]
    groups: dict[str, Any] = {}
    for name, schema in setting_schemas(Recipe).items():
        section = name.rpartition(".")[0]
        if section not in groups:
            field = Recipe.model_fields.get(section)
            description = (field.description or "") if field else "Settings of the complete run."
            groups[section] = parser.add_argument_group(section or "settings", description)
        groups[section].add_argument(
            f"--{name}",
            type=partial(_value, schema),
            metavar=_metavar(schema),
            default=argparse.SUPPRESS,
            help=_help(schema, defaults.get(name)),  # values by name have no single default
        )


def join_values(arguments: Sequence[str]) -> list[str]:
    """Joins each setting of a command line and its value into one argument.

    `--batch-exams 4` becomes `--batch_exams=4`; a switch alone, `--soft_labels`, means true; and
    `--loggers tensorboard wandb` becomes `--loggers=tensorboard,wandb`.
    """
    schemas = setting_schemas(Recipe)
    joined: list[str] = []
    rest = deque(arguments)
    while rest:
        argument = rest.popleft()
        option, equals, value = argument.partition("=")
        name = option[2:].replace("-", "_")
        if not argument.startswith("--") or name not in schemas:
            joined.append(argument)
            continue
        schema = schemas[name]
        if not equals and schema.get("type") == "boolean":
            value = rest.popleft() if rest and rest[0] in ("true", "false") else "true"
        elif not equals:
            if not rest or rest[0].startswith("--"):
                joined.append(f"--{name}")  # argparse reports that the value is missing
                continue
            value = rest.popleft()
        choices = [*_choices(schema), "none"]
        while len(choices) > 1 and rest and _has_only(rest[0], choices):
            value += "," + rest.popleft()
        joined.append(f"--{name}={value}")
    return joined


def _value(schema: Mapping[str, Any], text: str) -> Any:  # noqa: ANN401  # the type depends on the setting
    """Parses the value of a setting on the command line, without validating it."""
    types = _types(schema)
    if "null" in types and text == "null":
        return None
    if "string" in types:
        return text
    try:
        return parse_value(text)
    except yaml.YAMLError:
        return text


def _alternatives(schema: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    alternatives: Sequence[Mapping[str, Any]] = schema.get("anyOf", [schema])
    return alternatives


def _types(schema: Mapping[str, Any]) -> set[str]:
    return {alternative["type"] for alternative in _alternatives(schema)}


def _choices(schema: Mapping[str, Any]) -> list[str]:
    """Returns the permitted items of a list; empty if it may have any."""
    arrays = (array for array in _alternatives(schema) if array["type"] == "array")
    return [choice for array in arrays for choice in array["items"].get("enum", ())]


def _has_only(names: str, choices: Sequence[str]) -> bool:
    return all(name in choices for name in names.strip("[],").split(","))


def _metavar(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return "{" + ",".join(schema["enum"]) + "}"
    if schema.get("type") == "boolean":
        return "{true,false}"
    return _METAVARS.get(_alternatives(schema)[0]["type"], "TEXT")


def _help(schema: Mapping[str, Any], default: object) -> str:
    text = " ".join(schema["description"].split())
    facts = [describe_allowed(schema)] if _types(schema) & set(_METAVARS) else []
    if isinstance(default, list | tuple):
        default = ",".join(map(str, default)) or "none"
    elif isinstance(default, bool):
        default = str(default).lower()
    facts += [] if default is None else [f"default: {default}"]
    return f"{text} ({'; '.join(facts)})".replace("%", "%%") if facts else text
