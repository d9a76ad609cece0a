"""The command line of `mrknee train`: every setting of a recipe is an option."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, get_args

import yaml
from jsonargparse import ArgumentParser

from mrknee.suggestions import SETTINGS, meant
from mrknee.training.recipe import (
    LoggerName,
    Recipe,
    flat_settings,
    recipe_file,
    recipe_names,
    with_statistics,
)
from mrknee.training.recipe_tree import parse_value, read_tree, setting_hints, wrong_kind

_OWN = ("out", "recipe", "resume")
"""Options that are not settings of a recipe."""

_SWITCHES = {field.name for field in fields(Recipe) if isinstance(field.default, bool)}
"""Settings that are true or false, none of them in a part of the recipe."""


class TrainArguments(NamedTuple):
    """What the command line of `mrknee train` says.

    Attributes:
        data: the data set's folder.
        out: the run folder to write.
        resume: whether to go on with an interrupted run.
        recipe: all settings.
    """

    data: Path
    out: Path
    resume: bool
    recipe: Recipe


def train_arguments(argv: Sequence[str], description: str) -> TrainArguments:
    """Reads the command line of `mrknee train`.

    Args:
        argv: the words after `train`.
        description: for `--help`.

    Raises:
        MrkneeError: the recipe can't be read, or settings are out of range.
        SystemExit: 2 for words that can't be understood, after one message; 0 after `--help`.
    """
    words = [_as_setting(word) for word in _join_values(argv)]
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--recipe", default="default")
    chosen, _ = first.parse_known_args(words)
    file = recipe_file(chosen.recipe)
    tree = read_tree(file, Recipe)  # refuses what the parser would follow
    parser = _Parser(
        prog="mrknee train",
        description=description,
        allow_abbrev=False,
    )
    parser.add_argument("data", type=Path, help="the data set's folder, with train/ and valid/")
    parser.add_argument("--out", type=Path, required=True, help="the run folder to write")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    names = ", ".join(recipe_names())
    parser.add_argument("--recipe", default="default", help=f"one of {names}, or a YAML file")
    parser.add_class_arguments(Recipe)
    settings = dict(flat_settings(tree))
    parser.set_defaults(settings)
    words = _typed(words, parser)
    given = parser.instantiate(parser.parse_args(words)).as_dict()
    del given["recipe"]
    data, out, resume = (given.pop(name) for name in ("data", "out", "resume"))
    named = {word.removeprefix("--").partition("=")[0] for word in words if word[:2] == "--"}
    recipe = with_statistics(Recipe(**given), named | set(settings))
    return TrainArguments(data, out, resume, recipe)


class _Parser(ArgumentParser):
    """One that says what is wrong, without all options there are."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:  # noqa: ARG002
        """Ends the program with exit status 2."""
        print(f"mrknee train: {message}", file=sys.stderr)
        print("`mrknee train --help` lists all settings", file=sys.stderr)
        sys.exit(2)


def _typed(words: Sequence[str], parser: _Parser) -> list[str]:
    """The words with numbers and booleans read as a recipe's, so that `1:30` is no number.

    jsonargparse reads them by YAML 1.1, where it is 90.
    """
    hints = setting_hints(Recipe)
    typed: list[str] = []
    rest = iter(words)
    for word in rest:
        option, equals, text = word.partition("=")
        name = option[2:].removesuffix("+")
        if not word.startswith("--") or name in ("", "help", *_OWN):
            typed.append(word)
            continue
        if name not in hints:
            near = meant(name, [*hints, *_OWN], SETTINGS)
            parser.error(f"no such setting: {name}" + (f"; did you mean {near}?" if near else ""))
        if is_dataclass(hints[name]):
            parser.error(f"{name} has settings of its own, such as --{_first_of(name, hints)}")
        if wrong_kind("", hints[name]) is None:  # text may stand here
            typed.append(word)
            continue
        text = text if equals else next(rest, "--")
        if not equals and text.startswith("--"):
            parser.error(f"the setting {name} needs a value")
        try:
            value = parse_value(text)
        except yaml.YAMLError:
            value = text
        expected = wrong_kind(value, hints[name])
        if expected is not None:
            parser.error(f"the setting {name} can't be {text!r}: expected {expected}")
        typed.append(f"--{name}={value if isinstance(value, str) else json.dumps(value)}")
    return typed


def _first_of(part: str, hints: Mapping[str, Any]) -> str:
    return next(name for name in hints if name.startswith(f"{part}."))


def _join_values(argv: Sequence[str]) -> list[str]:
    """`--loggers tensorboard wandb` and `--keep-every-epoch true` as one word each."""
    words: list[str] = []
    for word in argv:
        option, equals, given = words[-1].partition("=") if words else ("", "", "")
        if option == "--loggers" and not word.startswith("-") and (not given or _is_loggers(word)):
            words[-1] = f"{option}={given},{word}" if given else f"{option}={word}"
        elif _name(option) in _SWITCHES and not equals and word in ("true", "false"):
            words[-1] = f"{option}={word}"
        else:
            words.append(word)
    return words


def _is_loggers(word: str) -> bool:
    names = (*get_args(LoggerName), "none")
    return all(name in names for name in word.strip("[],").split(","))


def _as_setting(word: str) -> str:
    """A setting as the recipe names it.

    `--batch-exams` is as good as `--batch_exams`, and a switch alone means true.
    """
    if not word.startswith("--"):
        return word
    option, equals, value = word.partition("=")
    if _name(option) in _SWITCHES and not equals:
        equals, value = "=", "true"
    return f"--{_name(option)}{equals}{value}"


def _name(option: str) -> str:
    return option.removeprefix("--").replace("-", "_")
