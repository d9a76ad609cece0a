"""The command line, `mrknee VERB ...`: selection and execution of a verb.

`verbs` contains the verbs, `command_line` the parser of their arguments, and `exit_status` the
conversion of errors and signals to exit statuses.
"""

from __future__ import annotations

import argparse
import io
import itertools
import sys
from collections.abc import Sequence

from mrknee import __version__, suggestions
from mrknee.command_line import Parser, create_parser
from mrknee.errors import SettingsError
from mrknee.exit_status import interruptible, run_with_status
from mrknee.verbs import VERBS

__all__ = ["VERBS", "main"]

RESUME_ADVICE = {
    "train": "run the same command again with --resume to continue",
    **dict.fromkeys(
        ("phantom", "import", "rsna", "demo", "experiment", "protocol"),
        "run the same command again to continue",
    ),
}
"""Verb -> advice after an interruption by a signal, for verbs that can continue their work."""

RESTART_ADVICE = "no file is incomplete; run the same command again to start over"
"""The advice for all other verbs."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit status.

    Args:
        argv: the arguments after the program's name; `sys.argv[1:]` by default.
    """
    width = max(map(len, VERBS)) + 2
    lines = [f"  {n:{width}}{(f.__doc__ or '').splitlines()[0]}" for n, f in VERBS.items()]
    parser = Parser(
        "mrknee",
        description="Knee MRI exams to one calibrated probability per finding. Research use only.",
        epilog="\n".join(["verbs (see also mrknee VERB --help):", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"mrknee {__version__}")
    parser.add_argument("verb", metavar="VERB", help="one of the verbs below")
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # characters that the terminal can't display are printed as escapes
        sys.stdout.reconfigure(errors="backslashreplace")
    arguments = sys.argv[1:] if argv is None else argv
    parser.check_options(list(itertools.takewhile(lambda one: one.startswith("-"), arguments)))
    if not arguments:
        parser.error("a verb is required, such as check, train or predict")
    parsed = parser.parse_args(arguments)
    if parsed.verb not in VERBS:
        similar = suggestions.suggest(parsed.verb, VERBS, suggestions.VERBS)
        hint = f"; did you mean {similar}?" if similar else ""
        parser.error(f"no such verb: {parsed.verb}{hint}")
    return run_with_status(parsed.verb, lambda: _run(parsed.verb, parsed.rest))


def _run(verb: str, arguments: Sequence[str]) -> int:
    """Parses a verb's arguments, runs the verb and returns its exit status."""
    _check_encoding(arguments)
    with interruptible(verb, RESUME_ADVICE.get(verb, RESTART_ADVICE)):
        return VERBS[verb](**_parse_arguments(verb, arguments)) or 0


def _parse_arguments(verb: str, arguments: Sequence[str]) -> dict[str, object]:
    """Parses the arguments of a verb; returns parameter name -> value."""
    parser = create_parser(f"mrknee {verb}", VERBS[verb], abbreviated=verb != "train")
    if verb == "train":  # its options are the settings of a recipe
        from mrknee.training.arguments import train_arguments

        return train_arguments(parser, arguments)
    parser.check_options(arguments)
    return vars(parser.parse_args(arguments))


def _check_encoding(arguments: Sequence[str]) -> None:
    """Refuses names that aren't valid UTF-8: no table or page could contain them."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise SettingsError(
                "a name on the command line can't be used",
                code="path",
                expected="UTF-8",
                found=ascii(argument),
                advice="rename the file or folder",
            ) from None
