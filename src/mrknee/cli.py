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
from mrknee.command_line import Parser, parser_of
from mrknee.errors import SettingsError
from mrknee.exit_status import interruptible, status_of
from mrknee.verbs import VERBS

__all__ = ["VERBS", "main"]

ADVICE = {
    "train": "run the same command again with --resume to go on",
    **dict.fromkeys(
        ("phantom", "import", "demo", "experiment", "protocol"),
        "run the same command again to go on from what it had written",
    ),
}
"""Verb -> advice after an interruption by a signal, for verbs that can continue their work."""

START_ANEW = "every file that it had written is whole; run the same command again"
"""The advice for all other verbs."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit status.

    Args:
        argv: the arguments after the program's name; `sys.argv[1:]` by default.
    """
    width = max(map(len, VERBS)) + 2
    lines = [f"  {n:{width}}{(f.__doc__ or '').splitlines()[0]}" for n, f in VERBS.items()]
    top = Parser(
        "mrknee",
        description="Reads knee MRI exams with one multi-task network. Research use only.",
        epilog="\n".join(["verbs (mrknee VERB --help tells more):", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"mrknee {__version__}")
    top.add_argument("verb", metavar="VERB", help="what to do; see below")
    top.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # characters that the terminal can't display are printed as escapes
        sys.stdout.reconfigure(errors="backslashreplace")
    words = sys.argv[1:] if argv is None else argv
    top.refuse_unknown(list(itertools.takewhile(lambda word: word.startswith("-"), words)))
    if not words:
        top.error("name a verb, such as check, train or predict")
    given = top.parse_args(words)
    if given.verb not in VERBS:
        near = suggestions.meant(given.verb, VERBS, suggestions.VERBS)
        top.error(f"no such verb: {given.verb}" + (f"; did you mean {near}?" if near else ""))
    return status_of(given.verb, lambda: _run(given.verb, given.rest))


def _run(name: str, words: Sequence[str]) -> int:
    """Parses a verb's arguments, runs the verb and returns its exit status."""
    _refuse_other_encodings(words)
    with interruptible(name, ADVICE.get(name, START_ANEW)):
        given = _arguments(name, words)
        return VERBS[name](**given) or 0


def _arguments(name: str, words: Sequence[str]) -> dict[str, object]:
    """Parses the arguments of a verb; returns parameter name -> value."""
    parser = parser_of(f"mrknee {name}", VERBS[name], abbreviated=name != "train")
    if name == "train":  # its options are the settings of a recipe
        from mrknee.training.arguments import train_arguments

        return train_arguments(parser, words)
    parser.refuse_unknown(words)
    return vars(parser.parse_args(words))


def _refuse_other_encodings(words: Sequence[str]) -> None:
    """Refuses names that aren't valid UTF-8: no table or page could contain them."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise SettingsError(
                "a name on the command line can't be used",
                code="path",
                expected="UTF-8",
                found=ascii(word),
                advice="rename the file or folder",
            ) from None
