"""Words of descriptions, in the form in which they are compared."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

# Letters that Unicode doesn't take apart, and characters that are words of their own.
_LETTERS = str.maketrans(
    {"ø": "o", "æ": "ae", "ß": "ss", "ł": "l", "đ": "d", "\N{LATIN SMALL LETTER DOTLESS I}": "i"}
    | {"右": " right ", "左": " left ", "膝": " knee "}
)


def plain(text: str) -> str:
    """A text in lower case and without accents."""
    apart = unicodedata.normalize("NFKD", text.lower().translate(_LETTERS))
    return "".join(letter for letter in apart if not unicodedata.combining(letter))


def words_of(texts: Iterable[str]) -> list[str]:
    """Whole words, lower case, without accents or punctuation."""
    return re.findall(r"[^\W_]+", plain(" ".join(texts)))


def vocabulary(words: str) -> frozenset[str]:
    """Words with spaces between, as a set."""
    return frozenset(plain(words).split())
