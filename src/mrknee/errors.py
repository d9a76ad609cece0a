"""Exceptions that the user can resolve: one class hierarchy, each error with a code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

MAX_PART = 2000
"""Maximum characters of one part of a message; the longest part lists the settings of a recipe."""


class MrkneeWarning(UserWarning):
    """Warning of mrknee; the command line prints it as a note."""


class MrkneeError(Exception):
    """Base class of errors that the user can resolve: a bad file, a bad setting, a missing package.

    Only its subclasses are raised. A message has a fixed order: what is wrong, where, what was
    expected, what was found, what to do. Each part is also an attribute. Control characters from
    files are escaped in the message, so that they can't control the terminal, and long parts are
    shortened.

    Attributes:
        what: short description of the fault; may be reworded in any version.
        code: kind of fault, such as "wrong-rank"; stable, for programs.
        file: the file or folder concerned, if any.
        exam: the id of the exam concerned, if any.
        expected: what was expected.
        found: what was found instead.
        advice: how to resolve the error.

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

    def about(self, subject: str) -> MrkneeError:
        """The same error, whose description begins with what it concerns."""
        return type(self)(**{**self._parts(), "what": f"{subject}: {self.what}"})

    def __reduce__(self) -> tuple[object, ...]:
        # Errors are pickled by worker processes (data loader, phantom); keep all parts.
        return (_rebuild, (type(self), self._parts()))

    def _parts(self) -> dict[str, Any]:
        names = ("what", "code", "file", "exam", "expected", "found", "advice")
        return {name: getattr(self, name) for name in names}


class DataError(MrkneeError):
    """Exams, labels, predictions or files for import can't be read or used."""


class ModelError(MrkneeError):
    """A run folder, a checkpoint, an exported model or weights can't be read or used."""


class SettingsError(MrkneeError):
    """A setting or an argument is invalid, unknown, or contradicts another."""


class OutputError(MrkneeError):
    """An output can't be written, or must not be replaced."""


class PlatformError(MrkneeError):
    """The machine lacks something: memory, a package, a compiler, an instruction set."""


class TrainingError(MrkneeError):
    """Training can't continue, though its data and settings are valid."""


class RequestError(MrkneeError):
    """The service refuses a request."""


def _cut(text: str) -> str:
    if len(text) > MAX_PART:
        text = f"{text[:MAX_PART]}... ({len(text):,} characters)"
    return legible(text)


def legible(text: str) -> str:
    """Escapes control characters, as Python's `repr` does, for output on a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def _rebuild(kind: type[MrkneeError], parts: dict[str, Any]) -> MrkneeError:
    return kind(**parts)
