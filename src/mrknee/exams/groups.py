"""Groups of exams that belong together: exams of one patient, scanner or report.

A data set may declare them in `groups.csv` in its folder:

    exam,group
    0003,patient-17
    0104,patient-17

Each exam that is not listed is a group of its own. The name of a group may identify a patient and
never appears in a message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mrknee.errors import DataError
from mrknee.exams.declaration import read_declaration
from mrknee.exams.listing import same_text
from mrknee.files import is_file, write_csv

GROUPS_FILE = "groups.csv"
COLUMNS = ("exam", "group")

_MAX_BYTES = 16_000_000  # about 500,000 exams


def read_groups(root: str | Path) -> Mapping[str, str] | None:
    """Reads the groups that a data set declares in `groups.csv`.

    Args:
        root: the folder that may contain `groups.csv`.

    Returns:
        Exam id -> group, in the order of the file, without lines that have no group. Ids are
        normalised to Unicode NFC. None if there is no such file.

    Raises:
        DataError: the file is not a valid table of groups, or lists an exam twice.
    """
    file = Path(root) / GROUPS_FILE
    if not is_file(file):
        return None
    groups: dict[str, str] = {}
    for where, row in read_declaration(file, COLUMNS, COLUMNS, at_most=_MAX_BYTES, private=True):
        exam_id = same_text(row["exam"])
        if not exam_id or exam_id in groups:
            raise DataError(
                f"{GROUPS_FILE} can't be used: an exam has no id, or is listed twice",
                code="declaration",
                file=file,
                exam=exam_id or None,
                expected="one line per exam",
                found=where,
            )
        groups[exam_id] = row["group"]
    return {exam_id: group for exam_id, group in groups.items() if group}


def write_groups(root: str | Path, groups: Mapping[str, str]) -> Path:
    """Writes `groups.csv` into a data set's folder atomically.

    Args:
        root: the data set's folder.
        groups: exam id -> group.

    Returns:
        The written file.
    """
    file = Path(root) / GROUPS_FILE
    write_csv(file, [COLUMNS, *groups.items()])
    return file


def group_numbers(ids: Sequence[str], groups: Mapping[str, str]) -> list[int]:
    """Numbers the exams by group.

    Args:
        ids: ids of the exams.
        groups: the result of `read_groups`; exams that it lacks get numbers of their own.

    Returns:
        One number per exam, from 0 in the order in which groups first appear; equal only for exams
        of one group.
    """
    numbers: dict[tuple[str, str], int] = {}
    keys = [("group", groups[i]) if i in groups else ("exam", i) for i in ids]
    return [numbers.setdefault(key, len(numbers)) for key in keys]
