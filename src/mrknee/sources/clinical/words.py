"""Normalisation of descriptions to words that can be compared."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

# Letters that Unicode doesn't decompose, and characters that are complete words.
_LETTERS = str.maketrans(
    {"ø": "o", "æ": "ae", "ß": "ss", "ł": "l", "đ": "d", "\N{LATIN SMALL LETTER DOTLESS I}": "i"}
    | {"右": " right ", "左": " left ", "膝": " knee "}
)


def normalised(text: str) -> str:
    """Returns a text in lower case without accents."""
    apart = unicodedata.normalize("NFKD", text.lower().translate(_LETTERS))
    return "".join(letter for letter in apart if not unicodedata.combining(letter))


def words_of(texts: Iterable[str]) -> list[str]:
    """Returns the words of texts in lower case, without accents or punctuation."""
    return re.findall(r"[^\W_]+", normalised(" ".join(texts)))


def vocabulary(words: str) -> frozenset[str]:
    """Splits a string of words at its spaces and returns them normalised, as a set."""
    return frozenset(normalised(words).split())
