"""Sides of exams: which knee each exam shows, and whether its images were mirrored.

`mrknee import --sides left` and `mrknee rsna` mirror right knees, so that all exams look like left
knees, and record it in `sides.csv` in the data set's folder:

    exam,side,mirrored
    0003,right,1
    0104,left,0
    0105,,0

The side is that of the patient's knee, also after mirroring; it is empty if it is unknown, and then
the exam isn't mirrored. Labels name anatomy (medial, lateral) and aren't changed by mirroring.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mrknee.errors import DataError
from mrknee.exams.declaration import read_declaration
from mrknee.exams.listing import same_text
from mrknee.files import is_file, write_csv

SIDES_FILE = "sides.csv"
COLUMNS = ("exam", "side", "mirrored")

_MAX_BYTES = 16_000_000  # about 500,000 exams


@dataclass(frozen=True)
class ExamSide:
    """Which knee an exam shows.

    Attributes:
        side: the patient's knee; None if unknown.
        mirrored: whether the images were mirrored.
    """

    side: Literal["left", "right"] | None
    mirrored: bool


def read_sides(root: str | Path) -> Mapping[str, ExamSide] | None:
    """Reads the sides that a data set declares in `sides.csv`.

    Args:
        root: the folder that may contain `sides.csv`.

    Returns:
        Exam id -> side, in the order of the file. Ids are normalised to Unicode NFC. None if there
        is no such file: nothing is known about sides, and nothing was mirrored.

    Raises:
        DataError: the file is not a valid table of sides, or lists an exam twice.
    """
    file = Path(root) / SIDES_FILE
    if not is_file(file):
        return None
    sides: dict[str, ExamSide] = {}
    for where, row in read_declaration(file, COLUMNS, COLUMNS, at_most=_MAX_BYTES):
        exam_id, side, mirrored = same_text(row["exam"]), row["side"], row["mirrored"]
        if not exam_id or exam_id in sides or side not in _SIDES or mirrored not in ("0", "1"):
            raise DataError(
                f"{SIDES_FILE} can't be used: a line is invalid, or lists an exam again",
                code="declaration",
                file=file,
                exam=exam_id or None,
                expected="one line per exam: its id; left, right or nothing; 1 if it was mirrored, "
                "otherwise 0",
                found=where,
            )
        sides[exam_id] = ExamSide(_SIDES[side], mirrored == "1")
    return sides


_SIDES: Mapping[str, Literal["left", "right"] | None] = {
    "left": "left",
    "right": "right",
    "": None,
}


def write_sides(root: str | Path, sides: Mapping[str, ExamSide]) -> Path:
    """Writes `sides.csv` into a data set's folder atomically.

    Args:
        root: the data set's folder.
        sides: exam id -> side.

    Returns:
        The written file.
    """
    file = Path(root) / SIDES_FILE
    rows = [(exam_id, one.side or "", int(one.mirrored)) for exam_id, one in sides.items()]
    write_csv(file, [COLUMNS, *rows])
    return file


def has_canonical_sides(root: str | Path) -> bool:
    """Returns whether all knees of a data set look like left ones, by `sides.csv`.

    This is the case if a side is known, and all known right knees, and no others, are mirrored.

    Raises:
        DataError: `sides.csv` is invalid.
    """
    known = [one for one in (read_sides(root) or {}).values() if one.side is not None]
    return bool(known) and all(one.mirrored == (one.side == "right") for one in known)
