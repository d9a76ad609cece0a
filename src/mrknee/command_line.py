"""A function's signature as a command line.

Keyword-only parameters are options, the others positional arguments. Each is `Annotated` with its
type and its help text.
"""

from __future__ import annotations

import argparse
import inspect
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NoReturn, get_args, get_origin

from mrknee import suggestions
from mrknee.errors import SettingsError

DEEPEST = 200
"""Folders in a path, at most: making more at once ends in Python's own limit."""


class Parser(argparse.ArgumentParser):
    """One that says what is wrong in a line or two, without all options there are."""

    def error(self, message: str) -> NoReturn:
        """Ends the program with exit status 2."""
        print(f"{self.prog}: {message}", file=sys.stderr)
        print(f"`{self.prog} --help` explains all that is possible", file=sys.stderr)
        sys.exit(2)

    def refuse_unknown(
        self, words: Sequence[str], synonyms: Mapping[str, str] = suggestions.OPTIONS
    ) -> None:
        """Ends the program if an option doesn't exist, and says which one was probably meant.

        Args:
            words: the command line.
            synonyms: options by the names they have in other programs.
        """
        known = [option[2:] for option in self._option_string_actions if option[:2] == "--"]
        for word in words[: words.index("--") if "--" in words else None]:
            name = word[2:].partition("=")[0]
            if not word.startswith("--") or name in known:
                continue
            # as argparse has it, the beginning of one option's name is enough
            if self.allow_abbrev and any(one.startswith(name) for one in known):
                continue
            near = suggestions.meant(name, known, synonyms)
            self.error(f"no such option: --{name}" + (f"; did you mean --{near}?" if near else ""))


def parser_of(program: str, function: Callable[..., object], *, abbreviated: bool = True) -> Parser:
    """The parser of a command line whose words are a function's arguments.

    Args:
        program: the words before the arguments, such as `mrknee predict`.
        function: its docstring describes the program. A parameter `**name` is left out.
        abbreviated: whether the beginning of an option's name is enough.
    """
    parser = Parser(program, description=inspect.getdoc(function) or "", allow_abbrev=abbreviated)
    for parameter in inspect.signature(function, eval_str=True).parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            continue
        kind, text = get_args(parameter.annotation)
        how: dict[str, Any] = {"help": text, **_kind(kind)}
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            parser.add_argument(parameter.name, **how)
            continue
        if parameter.default is inspect.Parameter.empty:
            how["required"] = True
        else:
            how["default"] = parameter.default
            if parameter.default not in (None, False):
                how["help"] += f" (default: {parameter.default})"
        parser.add_argument("--" + parameter.name.replace("_", "-"), **how)
    return parser


def _kind(annotation: Any) -> dict[str, Any]:  # noqa: ANN401  # any annotation at all
    """What argparse must know about a parameter of this type."""
    kinds = [kind for kind in get_args(annotation) if kind is not NoneType]
    if NoneType in get_args(annotation):  # this type, or not given
        return _kind(kinds[0])
    if annotation is bool:
        return {"action": "store_true"}
    if get_origin(annotation) is Literal:
        return {"choices": kinds}
    if get_origin(annotation) is list:
        return {"type": kinds[0], "nargs": "+", "action": "extend"}  # given twice: all of them
    if get_origin(annotation) is dict:
        return {"type": _shares, "metavar": "NAME=SHARE,..."}
    if get_origin(annotation) is tuple:
        return {"type": _paths, "metavar": "MODEL"}
    return {"type": _path if annotation is Path else annotation}


def _path(text: str) -> Path:
    """A path that the system can have; names that are too long it refuses itself."""
    path = Path(text)
    if "\0" in text or len(path.parts) > DEEPEST:
        raise SettingsError(
            "a path can't be used",
            code="path",
            file=path,
            expected=f"no NUL character, and at most {DEEPEST} folders in one another",
            found="a NUL character" if "\0" in text else f"{len(path.parts)} folders",
        )
    return path


def _paths(text: str) -> tuple[Path, ...]:
    """A model's path, or an ensemble's with commas between; a path that has a comma is itself."""
    whole = _path(text)
    if "," not in text or whole.exists():
        return (whole,)
    return tuple(_path(part.strip()) for part in text.split(","))


def _shares(text: str) -> dict[str, float]:
    """`acl=0.45,meniscus=0.4` as a dictionary; shares above 0 and below 1, each name once."""
    expected = "expected NAME=SHARE,... with shares between 0 and 1, each name once"
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = (word.strip() for word in part.partition("="))
        try:
            share = float(value)
        except ValueError:
            share = math.nan
        if not name or name in shares or not 0 < share < 1:
            raise argparse.ArgumentTypeError(f"{expected}; found {part!r}")
        shares[name] = share
    return shares
