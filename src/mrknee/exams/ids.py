"""What an exam's id may be, and how ids differ that name the same exam for a person.

An id is a file's name, a field in tables and a word in pages. Exams are joined by id, compared as
text in Unicode's composed form: `0` is not `0000`. Nothing is joined by guessing: `how_ids_differ`
only says in an error what may have happened.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from mrknee.errors import DataError

FORMULA = "=+-@\uff1d\uff0b\uff0d\uff20"
"""A field that begins with one of these is a formula for spreadsheets, and formulas can start
programs (OWASP, "CSV Injection"); the last four are their full-width forms."""

_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")  # with a sign too: no formula


def refuse_id(exam_id: str, file: Path | None = None) -> None:
    """Refuses an id that not every table, page and program could hold.

    Ids are compared as text and written as they are, never quoted or escaped: what is written by
    one program is found by another. So what would need it is refused before any exam is read.

    Args:
        exam_id: the id, which is the name of the exam's files without the ending.
        file: a file it is the name of, for the message.

    Raises:
        MrkneeError: it is empty, isn't UTF-8, begins or ends with a space, holds a line break, a
            tab or any other character that isn't printed, or begins like a formula.
    """
    fault = None
    if not exam_id:
        fault = "nothing"
    elif any("\ud800" <= c <= "\udfff" for c in exam_id):
        fault = "bytes that are not UTF-8"
    elif not exam_id.isprintable():
        (first, *_) = [c for c in exam_id if not c.isprintable()]
        fault = f"the character U+{ord(first):04X}, which isn't printed"
    elif exam_id != exam_id.strip():
        fault = "a space at its beginning or end"
    elif exam_id[0] in FORMULA and not _NUMBER.fullmatch(exam_id):
        fault = f"{exam_id[0]!r} at its beginning, which makes it a formula in a spreadsheet"
    if fault is not None:
        raise DataError(
            "an exam's id can't be used",
            code="exam-id",
            file=None if file is None else ascii(str(file))[1:-1],
            exam=ascii(exam_id)[1:-1],
            expected="printed characters in UTF-8, no space at either end, and none of = + - @ at "
            "the beginning of what isn't a number",
            found=fault,
            advice="rename the exam's files, and the exam in label files",
        )


_FORMS: Mapping[str, Callable[[str], str]] = {
    "leading zeros, which spreadsheets take away": lambda i: i.lstrip("0") or "0",
    "the case of letters": str.lower,
    "an ending": lambda i: re.sub(r"\.npy$", "", i, flags=re.IGNORECASE),
    "a decimal point, which spreadsheets add": lambda i: re.sub(r"\.0*$", "", i),
    "spaces or quotation marks": lambda i: i.strip(" \t'\"\u00a0\ufeff"),
    "a folder's name": lambda i: i.replace("\\", "/").rpartition("/")[2],
}


def how_ids_differ(odd: str, known: Iterable[str]) -> str | None:
    """How an id that is not known differs from a known one that may be meant.

    Args:
        odd: the id.
        known: the ids there are.

    Returns:
        In words, with both ids; None where no known id is the same but for leading zeros, case,
        ending, decimal point, spaces and folder.
    """
    ids = list(known)
    for what, form in _FORMS.items():
        for one in ids:
            if one != odd and form(one) == form(odd):
                return f"{odd!r} here is {one!r} there: they differ by {what}"
    for one in ids:
        if one != odd and _all_forms(one) == _all_forms(odd):
            return f"{odd!r} here is perhaps {one!r} there"
    return None


def _all_forms(text: str) -> str:
    for name in reversed(list(_FORMS)):  # zeros last: other things may stand before them
        text = _FORMS[name](text)
    return text
