"""One malformed input, and what cases are made with."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

MARKER = "EXECUTED"
"""The file that a payload makes where the worker runs, should anything ever execute it."""


@dataclass(frozen=True)
class Case:
    """One malformed input.

    Attributes:
        reader: which reader has to refuse it; one of the worker's.
        name: what is wrong with it.
        write: writes it to the path it is given, a file or a folder.
        said: a part of the message that refuses it.
    """

    reader: str
    name: str
    write: Callable[[Path], object]
    said: str = ""

    @property
    def file(self) -> str:
        """What the file has to be called."""
        return "split.csv" if self.reader == "parts" else "input"

    @property
    def id(self) -> str:
        """The test's name."""
        return f"{self.reader}-{self.name}".replace(" ", "_")


class Payload:
    """Unpickling this makes the marker."""

    def __reduce__(self) -> tuple[object, ...]:
        return (open, (MARKER, "w"))


PICKLE = pickle.dumps(Payload())


def content(data: bytes | str, suffix: str = "") -> Callable[[Path], object]:
    """Writes these bytes, or this text in UTF-8."""
    bytes_ = data.encode() if isinstance(data, str) else data
    return lambda path: path.with_name(path.name + suffix).write_bytes(bytes_)


def cuts(reader: str, whole: bytes, boundaries: list[int], said: str = "") -> Iterator[Case]:
    """A file cut at each boundary of its structure, and one byte before and behind it."""
    places = sorted({p for b in boundaries for p in (b - 1, b, b + 1) if 0 <= p < len(whole)})
    for place in places:
        yield Case(reader, f"cut at byte {place}", content(whole[:place]), said)
