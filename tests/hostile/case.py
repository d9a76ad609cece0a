"""`Case`, one malformed input of the corpus, and functions that write cases."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

MARKER = "EXECUTED"
"""The file that the payload creates in the worker's directory if anything executes it."""


@dataclass(frozen=True)
class Case:
    """One malformed input.

    Attributes:
        reader: name of the reader that must refuse the input; one of the worker's readers.
        name: the fault of the input.
        write: writes the input to a path, as a file or a folder.
        message: a part of the error message.
    """

    reader: str
    name: str
    write: Callable[[Path], object]
    message: str = ""

    @property
    def file(self) -> str:
        """The required name of the file."""
        return "split.csv" if self.reader == "parts" else "input"

    @property
    def id(self) -> str:
        """The test's parameter id."""
        return f"{self.reader}-{self.name}".replace(" ", "_")


class Payload:
    """An object that creates the marker file when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return (open, (MARKER, "w"))


PICKLE = pickle.dumps(Payload())


def content(data: bytes | str, suffix: str = "") -> Callable[[Path], object]:
    """Returns a function that writes these bytes, or this text as UTF-8."""
    bytes_ = data.encode() if isinstance(data, str) else data
    return lambda path: path.with_name(path.name + suffix).write_bytes(bytes_)


def cuts(reader: str, whole: bytes, boundaries: list[int], message: str = "") -> Iterator[Case]:
    """Yields a file truncated at, one byte before and one byte after each boundary in it."""
    places = sorted({p for b in boundaries for p in (b - 1, b, b + 1) if 0 <= p < len(whole)})
    for place in places:
        yield Case(reader, f"cut at byte {place}", content(whole[:place]), message)
