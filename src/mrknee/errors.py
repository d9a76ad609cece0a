"""The one error a user of mrknee has to read."""

from __future__ import annotations

from pathlib import Path

MAX_PART = 2000
"""Characters of one part of a message; the longest of ours lists the settings of a recipe."""


class MrkneeWarning(UserWarning):
    """Something a person should know, though nothing fails; the command line shows it as a note."""


class MrkneeError(Exception):
    """Something a person has to put right: a bad file, an impossible setting, a missing download.

    The message always reads: what is wrong, where, what was expected, what was found, what to do.
    Each part is also an attribute, so that a program can tell them apart. In the message, what
    was found in a file can't reach the terminal as a command: control characters are written as
    Python writes them, and a long part is cut.

    Attributes:
        what: the fault in a few words.
        file: the file or folder it was found in, if there is one.
        exam: the id of the exam it concerns, if there is one.
        expected: what would have been right.
        found: what was there instead.
        advice: what to do about it.
    """

    def __init__(
        self,
        what: str,
        *,
        file: str | Path | None = None,
        exam: str | None = None,
        expected: str | None = None,
        found: str | None = None,
        advice: str | None = None,
    ) -> None:
        self.what = what
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

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process borders (data loader workers, phantom's pool): keep every part.
        return (_rebuild, (self.what, self.file, self.exam, self.expected, self.found, self.advice))


def _cut(text: str) -> str:
    if len(text) > MAX_PART:
        text = f"{text[:MAX_PART]}... ({len(text):,} characters)"
    return legible(text)


def legible(text: str) -> str:
    """Text from files for a terminal: control characters are written as Python writes them."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def _rebuild(
    what: str,
    file: str | None,
    exam: str | None,
    expected: str | None,
    found: str | None,
    advice: str | None,
) -> MrkneeError:
    return MrkneeError(what, file=file, exam=exam, expected=expected, found=found, advice=advice)
