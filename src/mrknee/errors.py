"""Errors that a person can put right: one family, each with a code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

MAX_PART = 2000
"""Characters of one part of a message; the longest of ours lists the settings of a recipe."""


class MrkneeWarning(UserWarning):
    """Something a person should know, though nothing fails; the command line shows it as a note."""


class MrkneeError(Exception):
    """Something a person has to put right: a bad file, an impossible setting, a missing package.

    Raised as one of its subclasses, which say what is at fault. The message always reads: what is
    wrong, where, what was expected, what was found, what to do. Each part is also an attribute. In
    the message, what was found in a file can't reach the terminal as a command: control characters
    are written as Python writes them, and a long part is cut.

    Attributes:
        what: the fault in a few words; may be reworded in any version.
        code: the kind of fault, such as "wrong-rank": stable, for programs to tell faults apart.
        file: the file or folder it was found in, if there is one.
        exam: the id of the exam it concerns, if there is one.
        expected: what would have been right.
        found: what was there instead.
        advice: what to do about it.

    Example:
        >>> from mrknee import DataError, MrkneeError
        >>> try:
        ...     raise DataError("a stack has the wrong shape", code="wrong-rank", found="(2, 3)")
        ... except MrkneeError as error:
        ...     print(error.code)
        wrong-rank
    """

    def __init__(
        self,
        what: str,
        *,
        code: str,
        file: str | Path | None = None,
        exam: str | None = None,
        expected: str | None = None,
        found: str | None = None,
        advice: str | None = None,
    ) -> None:
        self.what = what
        self.code = code
        self.file = None if file is None else str(file)
        self.exam = exam
        self.expected = expected
        self.found = found
        self.advice = advice
        parts = [
            ("file", self.file),
            ("exam", exam),
            ("expected", expected),
            ("found", found),
            ("to do", advice),
        ]
        lines = [what, *(f"  {name}: {text}" for name, text in parts if text)]
        super().__init__("\n".join(map(_cut, lines)))

    def in_file(self, file: Path) -> MrkneeError:
        """The same error, which names the file that it was found in."""
        return type(self)(**{**self._parts(), "file": file})

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process borders (data loader workers, phantom's pool): keep every part.
        return (_rebuild, (type(self), self._parts()))

    def _parts(self) -> dict[str, Any]:
        names = ("what", "code", "file", "exam", "expected", "found", "advice")
        return {name: getattr(self, name) for name in names}


class DataError(MrkneeError):
    """Exams, labels, predictions or files to import that can't be read or used."""


class ModelError(MrkneeError):
    """A run folder, a checkpoint, an exported model or weights that can't be read or used."""


class SettingsError(MrkneeError):
    """A setting, an argument or a choice that is impossible, unknown, or contradicts another."""


class OutputError(MrkneeError):
    """A place that can't be written to, or must not be."""


class PlatformError(MrkneeError):
    """Something this machine lacks: memory, a package, a compiler, an instruction set."""


class TrainingError(MrkneeError):
    """A training that can't go on, though its data and settings could be read."""


class RequestError(MrkneeError):
    """A request that the service refuses."""


def _cut(text: str) -> str:
    if len(text) > MAX_PART:
        text = f"{text[:MAX_PART]}... ({len(text):,} characters)"
    return legible(text)


def legible(text: str) -> str:
    """Text from files for a terminal: control characters are written as Python writes them."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def _rebuild(kind: type[MrkneeError], parts: dict[str, Any]) -> MrkneeError:
    return kind(**parts)
