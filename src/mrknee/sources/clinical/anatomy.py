"""Body part and side, from coded values, from descriptions, and from the position."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Literal

from mrknee.sources.clinical.header import Image
from mrknee.sources.clinical.words import normalised, vocabulary, words_of

Side = Literal["left", "right"]

# Words for the knee and for other body parts, in the languages of common exports, without accents.
# A word for the knee may be part of a longer one (a coil is called TRKNEE), the others may not.
KNEE = vocabulary(
    "knee genou knie rodilla ginocch joelho polvi kolan kolen koljen genunchi gonarthr menisc"
    " menisk patella rotul колен колян γονατ"
)
KNEE_WORDS = vocabulary("kna knae kne diz terd genoll gonato acl pcl vkb hkb")
"""Words for the knee that count as complete words only."""
OTHER_PARTS = vocabulary(
    "brain head skull neuro cerebral cerebro cerveau crane kopf schadel gehirn hirn cabeza cerebrum"
    " testa encefalo cranio craneo hoofd hersenen iac orbit orbits pituitary hypophyse sella tmj"
    " kiefergelenk neck spine cspine tspine lspine lsspine ctspine tlspine cervicalspine"
    " cervical thoracic lumbar sacrum rachis colonna coluna columna wirbelsaule hws bws lws isg"
    " shoulder epaule schulter hombro spalla ombro schouder clavicle elbow coude ellenbogen codo"
    " gomito cotovelo elleboog humerus forearm"
    " wrist poignet handgelenk muneca polso punho pols hand mano finger fingers thumb"
    " upperextremity upperlimb"
    " hip hips hanche hufte cadera anca quadril heup becken bassin bacino thigh oberschenkel cuisse"
    " muslo coscia coxa"
    " pelvis prostate uterus ankle cheville sprunggelenk tobillo caviglia tornozelo enkel"
    " foot pied fuss pie piede voet toe toes calcaneus achilles calf wade mollet"
    " omuz ayak kalca beyin boyun dirsek rame kuk glezanj stopalo bark biodro stopa плечо плечевого"
    " голеностопного тазобедренного головного"
    " heart cardiac breast abdomen liver kidney chest thorax lung aorta pancreas"
)
# Words of vague values of BodyPartExamined (PS3.16 annex L, and values found in files), which name
# the limb or nothing. A value is vague if all its words are among these.
VAGUE_PARTS = vocabulary(
    "leg legs lower extremity extremities lowerextremity lowerextremities lextremity lext lowerext"
    " ext extr limb limbs lowerlimb lowerlimbs bein beine untere extremitat jambe jambes membre"
    " inferieur pierna piernas miembro inferior gamba gambe arto been unterextremitat left right"
    " lt rt l r msk musculoskeletal joint joints bone bones articulation gelenk"
    " other others unknown undefined unspecified not specified none na n a nos various misc any"
    " wholebody whole body special specials muscle extremitaet extremidad extremidade extremite"
    " membro membri inferiori arti mmii mi alt ekstremite"
)
SEGMENTS = vocabulary("lowerleg femur tibia fibula thigh oberschenkel calf unterschenkel upperleg")
"""Parts of the leg next to the knee: accepted if a description names the knee."""


def is_knee(word: str) -> bool:
    """Returns whether a word names the knee or a part of it."""
    return word in KNEE_WORDS or any(name in word for name in KNEE)


def names_knee(image: Image) -> bool:
    """Returns whether any description, BodyPartExamined or the coil names a knee."""
    return any(is_knee(word) for word in words_of([*image.words, image.body_part, image.coil]))


def other_part(image: Image, *, tagged: bool = True) -> str | None:
    """Returns why an image shows something other than a knee, or None.

    Another body part in BodyPartExamined is decisive. A vague or unknown value is overruled by a
    description that names the knee; without one, a vague value is accepted and an unknown one
    refused. A knee coil doesn't count, because ankles and wrists are imaged in it too.

    Args:
        image: header of the image.
        tagged: whether to use BodyPartExamined in addition to descriptions.
    """
    part = words_of([image.body_part]) if tagged else []
    described = any(map(is_knee, words_of(image.words)))
    if not any(map(is_knee, part)):
        lower_leg = part == ["lower", "leg"]
        other = OTHER_PARTS - SEGMENTS
        if other & {*part, "".join(part)}:
            return "the header names another body part than the knee"
        if not described and (not VAGUE_PARTS.issuperset(part) or lower_leg):
            return "the header names another body part than the knee"
    if not described and OTHER_PARTS & set(words_of(image.words)):
        return "its description names another body part than the knee"
    own, names = words_of(image.names[:1]), words_of(image.names)
    if OTHER_PARTS & set(own) and not any(map(is_knee, names)):
        return "its description names another body part than the knee"
    return None


# Words for a side that are valid anywhere in a description.
SIDES: dict[str, Side] = {
    **dict.fromkeys(
        vocabulary(
            "right rt rechts rechte rechter rechtes rechten rechterknie droit droite drt dte dx dxt"
            " dcho dcha dch derecho derecha direito direita destro destra hoger hogra hoyre hojre"
            " oikea oikean prawe prawy prawa prawego rightknee rtknee rknee rknie kneeright kneert"
            " knierechts правый правая правое правого правой"
            " desno desni desna desnog desne vpravo jobb drept dreapta δεξι δεξια δεξιο δεξιου"
            " дясно дясна десен дясното"
        ),
        "right",
    ),
    **dict.fromkeys(
        vocabulary(
            "left lt links linke linker linkes linken linkerknie gauche gch sx izq izqda izqdo izda"
            " izdo izquierdo izquierda esquerdo esquerda sinistro sinistra vanster vanstra venstre"
            " vasen vasemman lewe lewy lewa lewego leftknee ltknee lknee lknie kneeleft kneelt"
            " knielinks левый левая левое левого левой"
            " lijevo lijevi lijeva lijevog lijeve levo leva vlevo bal stang stanga αριστερο"
            " αριστερα αριστερου ляво лява ляв лявото"
        ),
        "left",
    ),
}
# Letters and syllables that mean a side only next to a word for the knee in the same language: R
# may mean a repeat, RE occurs in RE-SCAN, D in 3-D, SIN is "without" in Spanish, DER "the" in
# German. Word for the knee -> syllables before or after it, and syllables only after it.
BESIDE_KNEE: dict[str, tuple[dict[str, Side], dict[str, Side]]] = {
    "knee": ({"r": "right", "l": "left"}, {}),
    "knie": ({"r": "right", "l": "left", "re": "right", "li": "left"}, {}),
    "genou": ({}, {"d": "right", "g": "left"}),
    "ginocch": ({"dex": "right", "sin": "left", "sn": "left"}, {"d": "right", "s": "left"}),
    "rodilla": ({"der": "right"}, {"d": "right", "i": "left"}),
    "joelho": ({"dir": "right", "esq": "left"}, {"d": "right", "e": "left"}),
    "diz": ({"sol": "left"}, {}),
    "koljen": ({"d": "right", "l": "left"}, {}),
    "kolan": ({"pr": "right", "lew": "left"}, {}),
    "kolen": ({}, {"prave": "right", "leve": "left"}),
    **dict.fromkeys(
        ("kna", "kne", "knae"),
        (
            {"ho": "right", "va": "left", "h": "right", "v": "left", "dex": "right", "sin": "left"},
            {},
        ),
    ),
    "polvi": ({"oik": "right", "vas": "left", "dex": "right", "sin": "left"}, {}),
}
AND = vocabulary("and und et y e i en og och ja oraz a")
"""Conjunctions between two sides. E and I are also sides, but only at the end of a text."""
_CODES: dict[str, Side] = {"R": "right", "RIGHT": "right", "L": "left", "LEFT": "left"}
OFF_CENTRE_MM = 40.0
"""A lying patient's knees are some 100 mm left and right of the table's centre, which is the
scanner's centre unless the table moves sideways."""
DEAD_ZONE_MM = 20.0
"""A knee further than this from the scanner's centre lies on that side. In RSNA's data set of 2026
this agrees with the header in 97 to 99 % of the studies that state a side, by the counts of two of
its users."""


def coded_sides(codes: Iterable[str]) -> frozenset[Side]:
    """Returns the sides that values of Laterality code; other values are ignored."""
    return frozenset(_CODES[code] for code in codes if code in _CODES)


def described_sides(texts: Iterable[str]) -> set[Side]:
    """Returns the sides that texts name; a text that names both sides is ignored."""
    each = [_sides_in(text) for text in texts]
    return {side for sides in each if len(sides) == 1 for side in sides}


def placed_side(x_mm: float, dead_zone_mm: float = OFF_CENTRE_MM) -> Side | None:
    """Returns the side on which a stack lies, or None near the scanner's centre.

    Args:
        x_mm: position of the stack's centre to the patient's left of the scanner's centre, mm.
        dead_zone_mm: distance from the scanner's centre up to which the side is unknown, mm.
    """
    if abs(x_mm) <= dead_zone_mm:
        return None
    return "left" if x_mm > 0 else "right"


def _sides_in(text: str) -> set[Side]:
    sides: set[Side] = set()
    row: list[str] = []
    # Turkish for right; without its accent it would mean sagittal
    text = re.sub(r"\bsağ\b", " right ", text.lower())
    for chunk in re.split(r"[\s_,;:()\[\]{}|=&^*\"<>]+", normalised(text)):
        parts = [part for part in re.split(r"\W+", chunk) if part]
        sides.update(SIDES[part] for part in parts if part in SIDES)
        # a short word inside RE-SCAN, 3-D, R/O or L/R means something else; not in KNEE-R
        alone = len(parts) < 2 or (len(parts) == 2 and any(map(is_knee, parts)))
        row += parts if alone else ["-".join(parts)]
    row = _without_pairs(row)
    for index, (one, other) in enumerate(pairwise(row)):
        last = index + 2 == len(row)
        sides |= _beside(one, other, behind=True, last=last)
        sides |= _beside(other, one, behind=False, last=False)
    return sides


def _without_pairs(row: list[str]) -> list[str]:
    """Replaces pairs of opposite short sides, as in "R and L knee", by one word for both."""
    kept: list[str] = []
    for word in row:
        before = kept[-2:] if kept and kept[-1] in AND else kept[-1:]
        if before and _opposite(before[0], word):
            del kept[-len(before) :]
            kept.append("both")
        else:
            kept.append(word)
    return kept


def _opposite(one: str, other: str) -> bool:
    """Returns whether two short words are opposite sides in one language."""
    for either, behind in BESIDE_KNEE.values():
        sides = {**either, **behind}
        if one in sides and other in sides and sides[one] != sides[other]:
            return True
    return False


def _beside(knee: str, word: str, *, behind: bool, last: bool) -> set[Side]:
    """Returns the side that a syllable next to a word for the knee means."""
    for name, (either, only_behind) in BESIDE_KNEE.items():
        if (knee == name if len(name) < 4 else knee.startswith(name)) and is_knee(knee):
            if word in either:
                return {either[word]}
            if behind and word in only_behind and (last or word not in AND):
                return {only_behind[word]}
    return set()
