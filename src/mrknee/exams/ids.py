"""Ids that name the same exam for a person but not for a program, and how they differ.

Exams are joined by id, compared as text in Unicode's composed form: `0` is not `0000`. Nothing is
joined by guessing; this only says what may have happened, in an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

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
