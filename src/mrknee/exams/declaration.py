"""Reading of the small CSV tables that declare what a data set contains, such as `series.csv`."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Sequence
from pathlib import Path

from mrknee.errors import DataError
from mrknee.untrusted import read_text


def read_declaration(
    file: Path,
    columns: Sequence[str],
    needed: Collection[str],
    *,
    at_most: int,
    private: bool = False,
) -> list[tuple[str, dict[str, str]]]:
    """Reads a CSV file with a header.

    Args:
        file: the file; UTF-8, comma-separated, columns in any order.
        columns: names of all permitted columns.
        needed: names of the required columns.
        at_most: maximum size in bytes; a larger file is refused.
        private: keep the contents of lines out of messages.

    Returns:
        Per line that isn't empty: its location for messages ("line 2: 'a,b'", or "line 2" if
        `private`), and column -> stripped text, "" for columns that the file lacks.

    Raises:
        DataError: the file can't be read, has other columns, or a line has too many or too few
            fields.
    """
    rows = csv.reader(io.StringIO(read_text(file, "table", at_most=at_most)), strict=True)
    lines: list[tuple[str, list[str]]] = []
    try:
        for row in rows:
            fields = [field.strip() for field in row]
            if any(fields):
                text = "" if private else f": {','.join(row)[:80]!r}"
                lines.append((f"line {rows.line_num}{text}", fields))
    except csv.Error as error:
        raise _refuse(file, columns, needed, f"line {rows.line_num}: {error}") from None
    where, header = lines[0] if lines else ("an empty file", [])
    names = [name.lower() for name in header]
    if not set(needed) <= set(names) <= set(columns) or len(set(names)) < len(names):
        raise _refuse(file, columns, needed, where)
    found = []
    for where, fields in lines[1:]:
        if len(fields) != len(names):
            raise _refuse(file, columns, needed, f"{len(fields)} fields in {where}")
        found.append((where, dict.fromkeys(columns, "") | dict(zip(names, fields, strict=True))))
    return found


def _refuse(file: Path, columns: Sequence[str], needed: Collection[str], found: str) -> DataError:
    more = [name for name in columns if name not in needed]
    return DataError(
        f"{file.name} can't be read",
        code="declaration",
        file=file,
        expected=f"a CSV file whose first line names the columns {', '.join(needed)}"
        + (f" (optional: {', '.join(more)})" if more else ""),
        found=found,
    )
