"""The options of `mrknee train`: one per setting of a recipe, created from its JSON schema."""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import yaml

from mrknee.command_line import Parser
from mrknee.settings import allowed, described
from mrknee.suggestions import SETTINGS
from mrknee.training.recipe import Recipe, flat_settings, read_recipe
from mrknee.training.recipe_tree import parse_value

Schemas = Mapping[str, Mapping[str, Any]]
"""Dotted setting -> its JSON schema."""

_METAVARS = {"integer": "N", "number": "X"}


def train_arguments(parser: Parser, words: Sequence[str]) -> dict[str, Any]:
    """Reads the command line of `mrknee train`.

    Args:
        parser: has the arguments that aren't settings; an option is added for each setting.
        words: the arguments after `train`.

    Returns:
        The arguments, and the given settings by their dotted names. Values of settings are not
        validated.

    Raises:
        SettingsError: there is no such recipe, or it can't be read.
        SystemExit: 2 for invalid arguments, after one message; 0 after `--help`.
    """
    chosen = Parser(add_help=False, allow_abbrev=False)
    chosen.add_argument("--recipe", default="default")
    add_settings(parser, chosen.parse_known_args(words)[0].recipe)
    words = as_options(words)
    parser.check_options(words, SETTINGS)
    return vars(parser.parse_args(words))


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
    defaults = dict(flat_settings(read_recipe(recipe)[0].to_dict()))
    groups: dict[str, Any] = {}
    for name, schema in described(Recipe).items():
        part = name.rpartition(".")[0]
        if part not in groups:
            field = Recipe.model_fields.get(part)
            about = (field.description or "") if field else "Settings of the whole run."
            groups[part] = parser.add_argument_group(part or "settings", about)
        groups[part].add_argument(
            f"--{name}",
            type=partial(_value, schema),
            metavar=_metavar(schema),
            default=argparse.SUPPRESS,
            help=_help(schema, defaults[name]),
        )


def as_options(words: Sequence[str]) -> list[str]:
    """Joins each setting of a command line and its value into one argument.

    `--batch-exams 4` becomes `--batch_exams=4`; a switch alone, `--soft_labels`, means true; and
    `--loggers tensorboard wandb` becomes `--loggers=tensorboard,wandb`.
    """
    schemas = described(Recipe)
    options: list[str] = []
    rest = deque(words)
    while rest:
        word = rest.popleft()
        option, equals, value = word.partition("=")
        name = option[2:].replace("-", "_")
        if not word.startswith("--") or name not in schemas:
            options.append(word)
            continue
        schema = schemas[name]
        if not equals and schema.get("type") == "boolean":
            value = rest.popleft() if rest and rest[0] in ("true", "false") else "true"
        elif not equals:
            if not rest or rest[0].startswith("--"):
                options.append(f"--{name}")  # argparse reports that the value is missing
                continue
            value = rest.popleft()
        choices = [*_choices(schema), "none"]
        while len(choices) > 1 and rest and _are_among(rest[0], choices):
            value += "," + rest.popleft()
        options.append(f"--{name}={value}")
    return options


def _value(schema: Mapping[str, Any], text: str) -> Any:  # noqa: ANN401  # whatever a setting may be
    """Parses the value of a setting on the command line, without validating it."""
    kinds = _kinds(schema)
    if "null" in kinds and text == "null":
        return None
    if "string" in kinds:
        return text
    try:
        return parse_value(text)
    except yaml.YAMLError:
        return text


def _kinds(schema: Mapping[str, Any]) -> set[str]:
    return {one["type"] for one in schema.get("anyOf", [schema])}


def _choices(schema: Mapping[str, Any]) -> list[str]:
    """Returns the permitted items of a list; empty if it may have any."""
    lists = (one for one in schema.get("anyOf", [schema]) if one["type"] == "array")
    return [choice for one in lists for choice in one["items"].get("enum", ())]


def _are_among(word: str, choices: Sequence[str]) -> bool:
    return all(name in choices for name in word.strip("[],").split(","))


def _metavar(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return "{" + ",".join(schema["enum"]) + "}"
    if schema.get("type") == "boolean":
        return "{true,false}"
    kind = next(one["type"] for one in schema.get("anyOf", [schema]))
    return _METAVARS.get(kind, "TEXT")


def _help(schema: Mapping[str, Any], default: object) -> str:
    text = " ".join(schema["description"].split())
    facts = [allowed(schema)] if _kinds(schema) & set(_METAVARS) else []
    if isinstance(default, list):
        default = ",".join(default) or "none"
    elif isinstance(default, bool):
        default = str(default).lower()
    facts += [] if default is None else [f"default: {default}"]
    return f"{text} ({'; '.join(facts)})".replace("%", "%%") if facts else text
