"""Groups of exams that belong together: of one patient, scanner or report.

A data set may declare them in `groups.csv` beside its splits:

    exam,group
    0003,patient-17
    0104,patient-17

Exams that are not in it belong to no other exam. What a group is called may identify a patient and
stands in no message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mrknee.errors import DataError
from mrknee.exams.declaration import read_declaration
from mrknee.exams.listing import same_text

GROUPS_FILE = "groups.csv"
COLUMNS = ("exam", "group")

_MAX_BYTES = 16_000_000  # some 500,000 exams


def read_groups(root: str | Path) -> Mapping[str, str] | None:
    """The groups that a data set declares in `groups.csv`.

    Args:
        root: the folder that may hold `groups.csv`.

    Returns:
        Exam -> its group, in the file's order; lines without a group are left out. Ids are brought
        to Unicode's composed form (NFC). None where there is no such file.

    Raises:
        DataError: the file is not a table of groups, or an exam is in it twice.
    """
    file = Path(root) / GROUPS_FILE
    if not file.is_file():
        return None
    groups: dict[str, str] = {}
    for where, row in read_declaration(file, COLUMNS, COLUMNS, at_most=_MAX_BYTES, private=True):
        exam_id = same_text(row["exam"])
        if not exam_id or exam_id in groups:
            raise DataError(
                f"{GROUPS_FILE} can't be used: an exam has no id, or is there twice",
                code="declaration",
                file=file,
                exam=exam_id or None,
                expected="one line per exam",
                found=where,
            )
        groups[exam_id] = row["group"]
    return {exam_id: group for exam_id, group in groups.items() if group}


def group_numbers(ids: Sequence[str], groups: Mapping[str, str]) -> list[int]:
    """A number for each exam, equal for exams of one group and for no others.

    Args:
        ids: the exams.
        groups: what `read_groups` returned; exams that are not in it get numbers of their own.

    Returns:
        Numbers from 0, in the order in which groups first appear.
    """
    numbers: dict[tuple[str, str], int] = {}
    keys = [("group", groups[i]) if i in groups else ("exam", i) for i in ids]
    return [numbers.setdefault(key, len(numbers)) for key in keys]
