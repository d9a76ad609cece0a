"""Which body part, and which knee: from coded values, then from words, then from the place."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from itertools import pairwise
from typing import Literal

from mrknee.sources.clinical.header import Image

Side = Literal["left", "right"]


def vocabulary(words: str) -> frozenset[str]:
    """Words with spaces between, as a set."""
    return frozenset(words.split())


# Words for the knee, and for parts that are none, in the languages of common exports, without
# accents. A knee's word may be part of a longer one (a coil is called TRKNEE), the others not.
KNEE = vocabulary(
    "knee genou knie rodilla ginocch joelho polvi kolano koleno menisc menisk patella"
)
OTHER_PARTS = vocabulary(
    "brain head skull neuro cerebral cerebro cerveau crane kopf schadel gehirn hirn cabeza cerebrum"
    " testa encefalo cranio iac orbit orbits pituitary neck spine cspine tspine lspine"
    " cervical thoracic lumbar sacrum rachis colonna columna wirbelsaule hws bws lws"
    " shoulder epaule schulter hombro spalla ombro elbow coude ellenbogen codo gomito"
    " wrist poignet handgelenk muneca polso hand finger hip hips hanche hufte cadera anca"
    " pelvis prostate ankle cheville sprunggelenk tobillo caviglia foot pied fuss pie piede"
    " heart cardiac breast abdomen liver kidney chest thorax"
)
# Values of BodyPartExamined that a knee may have too (PS3.16 annex L, and what is found in files).
VAGUE_PARTS = frozenset(
    {"", "LEG", "EXTREMITY", "LOWEREXTREMITY", "LOWER EXTREMITY", "EXTREMITIES", "MSK", "JOINT"}
    | {"LOWERLIMB", "LOWER LIMB", "LEXTREMITY", "EXT", "OTHER", "UNKNOWN", "WHOLEBODY"}
)

SIDES: dict[str, Side] = {
    **dict.fromkeys(vocabulary("right rt rechts droit droite dx dcho derecha direito"), "right"),
    **dict.fromkeys(vocabulary("left lt links gauche sin sx izq izquierda izda esquerdo"), "left"),
}
# Letters and syllables that mean a side beside a word for the knee only: "L KNEE", "GINOCCHIO D".
SHORT_SIDES: dict[str, Side] = {
    **dict.fromkeys(("r", "re", "d"), "right"),
    **dict.fromkeys(("l", "li", "g"), "left"),
}
_CODES: dict[str, Side] = {"R": "right", "RIGHT": "right", "L": "left", "LEFT": "left"}
OFF_CENTRE_MM = 40.0
"""A lying patient's knees are some 100 mm left and right of the table's middle, which is the
scanner's unless the table moves sideways."""


def words_of(texts: Iterable[str]) -> list[str]:
    """Whole words, lower case, without accents or punctuation."""
    plain = unicodedata.normalize("NFKD", " ".join(texts).lower())
    kept = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return re.findall(r"[a-z0-9]+", kept)


def is_knee(word: str) -> bool:
    """Whether a word names the knee or a part of it."""
    return any(name in word for name in KNEE)


def names_knee(image: Image) -> bool:
    """Whether anything says that an image shows a knee."""
    return any(is_knee(word) for word in words_of([*image.words, image.body_part]))


def other_part(image: Image) -> str | None:
    """Why an image shows something other than a knee, or None."""
    if image.body_part not in VAGUE_PARTS and not any(map(is_knee, words_of([image.body_part]))):
        return "the header names another body part than the knee"
    if not names_knee(image) and OTHER_PARTS & set(words_of(image.words)):
        return "its description names another body part than the knee"
    return None


def coded_side(code: str) -> Side | None:
    """The side that a value of Laterality means."""
    return _CODES.get(code)


def described_side(texts: Iterable[str]) -> Side | None:
    """The one side that words name, or None."""
    sides = _described(texts)
    return sides.pop() if len(sides) == 1 else None


def placed_side(x_mm: float) -> Side | None:
    """The side that a stack's middle lies on, or None near the scanner's middle.

    Args:
        x_mm: its place to the left of the scanner's middle.
    """
    if abs(x_mm) <= OFF_CENTRE_MM:
        return None
    return "left" if x_mm > 0 else "right"


def _described(texts: Iterable[str]) -> set[Side]:
    words = words_of(texts)
    sides = {SIDES[word] for word in words if word in SIDES}
    for one, other in pairwise(words):
        for knee, side in ((one, other), (other, one)):
            if is_knee(knee) and side in SHORT_SIDES:
                sides.add(SHORT_SIDES[side])
    return sides
