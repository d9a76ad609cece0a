"""Validation of exam ids, and detection of ids that differ in form only.

An id is used as a file name, in tables and in HTML pages. Exams are joined by id, compared as text
in Unicode NFC: `0` is not `0000`. Nothing is joined by guessing: `how_ids_differ` only suggests in
an error message what may have happened.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from mrknee.errors import DataError

FORMULA = "=+-@\uff1d\uff0b\uff0d\uff20"
"""A field that begins with one of these characters is a formula in a spreadsheet, and formulas can
start programs (OWASP, "CSV Injection"); the last four are full-width forms."""

_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")  # a signed number is not a formula


def refuse_id(exam_id: str, file: Path | None = None) -> None:
    """Refuses an id that can't be written unchanged to every table and page.

    Ids are compared as text and never quoted or escaped, so that every program finds what another
    wrote. Ids that would need quoting or escaping are refused before any exam is read.

    Args:
        exam_id: the id: the name of the exam's files without the suffix.
        file: one of these files, for the message.

    Raises:
        DataError: the id is empty, isn't UTF-8, begins or ends with a space, contains a line break,
            a tab or another non-printable character, or begins like a formula.
    """
    fault = None
    if not exam_id:
        fault = "an empty id"
    elif any("\ud800" <= c <= "\udfff" for c in exam_id):
        fault = "bytes that are not UTF-8"
    elif not exam_id.isprintable():
        (first, *_) = [c for c in exam_id if not c.isprintable()]
        fault = f"the character U+{ord(first):04X}, which is not printable"
    elif exam_id != exam_id.strip():
        fault = "a space at the beginning or end"
    elif exam_id[0] in FORMULA and not _NUMBER.fullmatch(exam_id):
        fault = f"{exam_id[0]!r} at the beginning, which makes the id a formula in a spreadsheet"
    if fault is not None:
        raise DataError(
            "an exam's id can't be used",
            code="exam-id",
            file=None if file is None else ascii(str(file))[1:-1],
            exam=ascii(exam_id)[1:-1],
            expected="printable UTF-8 characters, no space at either end, and, unless the id is a "
            "number, none of = + - @ at the beginning",
            found=fault,
            advice="rename the exam's files, and change the id in the label files",
        )


_FORMS: Mapping[str, Callable[[str], str]] = {
    "leading zeros, which spreadsheets remove": lambda i: i.lstrip("0") or "0",
    "the case of letters": str.lower,
    "a file suffix": lambda i: re.sub(r"\.npy$", "", i, flags=re.IGNORECASE),
    "a decimal point, which spreadsheets add": lambda i: re.sub(r"\.0*$", "", i),
    "spaces or quotation marks": lambda i: i.strip(" \t'\"\u00a0\ufeff"),
    "a folder's name": lambda i: i.replace("\\", "/").rpartition("/")[2],
}


def how_ids_differ(odd: str, known: Iterable[str]) -> str | None:
    """Describes how an unknown id differs from a similar known id.

    Args:
        odd: the unknown id.
        known: all known ids.

    Returns:
        A text with both ids; None if no known id is equal except for leading zeros, case, suffix,
        decimal point, spaces and folder.
    """
    ids = list(known)
    for what, form in _FORMS.items():
        for one in ids:
            if one != odd and form(one) == form(odd):
                return f"{odd!r} resembles {one!r}: they differ by {what}"
    for one in ids:
        if one != odd and _all_forms(one) == _all_forms(odd):
            return f"{odd!r} resembles {one!r}"
    return None


def _all_forms(text: str) -> str:
    for name in reversed(list(_FORMS)):  # zeros last: other characters may precede them
        text = _FORMS[name](text)
    return text
