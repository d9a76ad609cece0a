"""Command-line parsers created from the signatures of functions.

Keyword-only parameters become options, all others positional arguments. Each parameter is
annotated as `Annotated[type, help text]`.
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

MAX_DEPTH = 200
"""Maximum number of folders in a path; creating more at once exceeds Python's recursion limit."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are short: without the list of all options."""

    def error(self, message: str) -> NoReturn:
        """Prints the message and ends the program with exit status 2."""
        print(f"{self.prog}: {message}", file=sys.stderr)
        print(f"run `{self.prog} --help` for all arguments", file=sys.stderr)
        sys.exit(2)

    def check_options(
        self, arguments: Sequence[str], synonyms: Mapping[str, str] = suggestions.OPTIONS
    ) -> None:
        """Ends the program if an option doesn't exist, and suggests the most similar one.

        Args:
            arguments: the command-line arguments.
            synonyms: name in other programs -> the corresponding option here.
        """
        known = [option[2:] for option in self._option_string_actions if option[:2] == "--"]
        end = arguments.index("--") if "--" in arguments else None
        for argument in arguments[:end]:
            name = argument[2:].partition("=")[0]
            if not argument.startswith("--") or name in known:
                continue
            # as in argparse, the beginning of an option's name is sufficient
            if self.allow_abbrev and any(option.startswith(name) for option in known):
                continue
            similar = suggestions.suggest(name, known, synonyms)
            hint = f"; did you mean --{similar}?" if similar else ""
            self.error(f"no such option: --{name}{hint}")


def create_parser(
    program: str, function: Callable[..., object], *, abbreviated: bool = True
) -> Parser:
    """Creates the parser for the arguments of a function.

    Args:
        program: the command before the arguments, such as `mrknee predict`.
        function: the function; its docstring becomes the description. A parameter `**name` is
            ignored.
        abbreviated: whether the beginning of an option's name is accepted.
    """
    parser = Parser(program, description=inspect.getdoc(function) or "", allow_abbrev=abbreviated)
    for parameter in inspect.signature(function, eval_str=True).parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            continue
        kind, text = get_args(parameter.annotation)
        options: dict[str, Any] = {"help": text, **_argument_options(kind)}
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            parser.add_argument(parameter.name, **options)
            continue
        if parameter.default is inspect.Parameter.empty:
            options["required"] = True
        else:
            options["default"] = parameter.default
            if parameter.default is not None and parameter.default is not False:
                options["help"] += f" (default: {parameter.default})"
        parser.add_argument("--" + parameter.name.replace("_", "-"), **options)
    return parser


def _argument_options(annotation: Any) -> dict[str, Any]:  # noqa: ANN401  # any annotation at all
    """Returns the keyword arguments of `add_argument` for a parameter of this type."""
    kinds = [kind for kind in get_args(annotation) if kind is not NoneType]
    if NoneType in get_args(annotation):  # optional
        return _argument_options(kinds[0])
    if annotation is bool:
        return {"action": "store_true"}
    if get_origin(annotation) is Literal:
        return {"choices": kinds}
    if get_origin(annotation) is list:
        # if the option is given twice, all values count
        return {"type": kinds[0], "nargs": "+", "action": "extend"}
    if get_origin(annotation) is dict:
        return {"type": _shares, "metavar": "NAME=SHARE,..."}
    if get_origin(annotation) is tuple:
        return {"type": _numbers, "metavar": "N,..."} if kinds[0] is int else {"type": _paths}
    return {"type": _path if annotation is Path else annotation}


def _path(text: str) -> Path:
    """Parses a path; names that are too long are left for the operating system to refuse."""
    path = Path(text)
    if "\0" in text or len(path.parts) > MAX_DEPTH:
        raise SettingsError(
            "a path can't be used",
            code="path",
            file=path,
            expected=f"no NUL character, and at most {MAX_DEPTH} nested folders",
            found="a NUL character" if "\0" in text else f"{len(path.parts)} folders",
        )
    return path


def _paths(text: str) -> tuple[Path, ...]:
    """Parses the path of a model, or comma-separated paths of an ensemble.

    An existing path that contains a comma is one path.
    """
    path = _path(text)
    if "," not in text or path.exists():
        return (path,)
    parts = [part.strip() for part in text.split(",")]
    if "" in parts:
        raise SettingsError(
            "a path can't be used",
            code="path",
            expected="paths separated by commas",
            found=repr(text),
            advice="remove the comma that is not followed by a path",
        )
    return tuple(map(_path, parts))


def _numbers(text: str) -> tuple[int, ...]:
    """Parses comma-separated whole numbers."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected whole numbers with commas between; found {text!r}"
        ) from None


def _shares(text: str) -> dict[str, float]:
    """Parses `acl=0.45,meniscus=0.4`: shares above 0 and below 1, each name once."""
    expected = "expected NAME=SHARE,... with shares between 0 and 1, each name once"
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = (piece.strip() for piece in part.partition("="))
        try:
            share = float(value)
        except ValueError:
            share = math.nan
        if not name or name in shares or not 0 < share < 1:
            raise argparse.ArgumentTypeError(f"{expected}; found {part!r}")
        shares[name] = share
    return shares
