"""The command line, `mrknee COMMAND ...`: selection and execution of a command.

`commands` contains them, `command_line` the parser of their arguments, and `exit_status` the
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
from mrknee.commands import COMMANDS
from mrknee.errors import SettingsError
from mrknee.exit_status import interruptible, run_with_status

__all__ = ["COMMANDS", "main"]

RESUME_ADVICE = {
    "train": "run the same command again with --resume to continue",
    **dict.fromkeys(
        ("phantom", "import", "rsna", "demo", "experiment", "protocol"),
        "run the same command again to continue",
    ),
}
"""Command -> advice after an interruption by a signal, for those that can continue their work."""

RESTART_ADVICE = "no file is incomplete; run the same command again to start over"
"""The advice for all other commands."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit status.

    Args:
        argv: the arguments after the program's name; `sys.argv[1:]` by default.
    """
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {n:{width}}{(f.__doc__ or '').splitlines()[0]}" for n, f in COMMANDS.items()]
    parser = Parser(
        "mrknee",
        description="Knee MRI exams to one calibrated probability per finding. Research use only.",
        epilog="\n".join(["commands (see also mrknee COMMAND --help):", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"mrknee {__version__}")
    parser.add_argument("command", metavar="COMMAND", help="one of the commands below")
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # characters that the terminal can't display are printed as escapes
        sys.stdout.reconfigure(errors="backslashreplace")
    arguments = sys.argv[1:] if argv is None else argv
    parser.check_options(list(itertools.takewhile(lambda one: one.startswith("-"), arguments)))
    if not arguments:
        parser.error("a command is required, such as check, train or predict")
    parsed = parser.parse_args(arguments)
    if parsed.command not in COMMANDS:
        similar = suggestions.suggest(parsed.command, COMMANDS, suggestions.COMMANDS)
        hint = f"; did you mean {similar}?" if similar else ""
        parser.error(f"no such command: {parsed.command}{hint}")
    return run_with_status(parsed.command, lambda: _run(parsed.command, parsed.rest))


def _run(command: str, arguments: Sequence[str]) -> int:
    """Parses a command's arguments, runs the command and returns its exit status."""
    _check_encoding(arguments)
    with interruptible(command, RESUME_ADVICE.get(command, RESTART_ADVICE)):
        return COMMANDS[command](**_parse_arguments(command, arguments)) or 0


def _parse_arguments(command: str, arguments: Sequence[str]) -> dict[str, object]:
    """Parses the arguments of a command; returns parameter name -> value."""
    parser = create_parser(f"mrknee {command}", COMMANDS[command], abbreviated=command != "train")
    if command == "train":  # its options are the settings of a recipe
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
