"""Contrast of a series: weighting and fat suppression.

docs/reference/import-rules.md states the rules; change both together.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from mrknee.sources.clinical.series import Series
from mrknee.sources.clinical.words import normalised, vocabulary, words_of

Weighting = Literal["T1", "PD", "T2", "gradient echo", "unknown"]

T1_REPETITION_MS, T1_ECHO_MS = 1000.0, 30.0
"""Upper limits of TR and TE for T1. Spin echo of the knee has TR 400 to 800 ms for T1, 1800 ms and
more for PD and T2."""
LONG_T1_REPETITION_MS = 1500.0
"""Upper limit of TR for T1 if the name states T1, as at 3 T with many slices."""
SURELY_PD_MS, SURELY_T2_MS = 30.0, 60.0
"""PD is acquired with echoes of 10 to 45 ms, T2 of the knee with 50 to 100 ms. A shorter TE than
the first is PD and a longer one than the second T2 whatever the name; in between the name decides.
"""
T2_ECHO_MS = 45.0
"""Lower limit of TE for T2 if the name states neither PD nor T2."""
MANY_ECHOES = 3
"""Minimum number of echoes of a sequence that is acquired for a map; two are PD and T2."""
STIR_MS = (100.0, 250.0)
"""Range of inversion times that null fat: 150 ms at 1.5 T to 220 ms at 3 T."""

GRADIENT_WORDS = vocabulary(
    "gre ffe dess medic merge mffe spgr fspgr efgre fgre flash vibe fisp trufi truefisp fiesta"
    " bffe ciss thrive lava cosmic swi"
)
# ScanOptions of Siemens, GE, Philips, Canon and others, and their equivalents in enhanced files.
FAT_OPTIONS = frozenset(
    {"FS", "FATSAT", "FAT_SAT", "FAT SAT", "FATSAT_GEMS", "FAT", "FAT_WATER", "FATSUP"}
    | {"SPIR", "SPAIR", "ASPIR", "STIR", "PASTA", "WE", "WATER_EXC", "WATS", "PROSET"}
    | {"WATER EXCITED"}
)
WATER = frozenset({"W", "WATER", "WATER_ONLY"})
"""Dixon water image: marked as derived by scanners, but used as a fat-saturated acquisition."""
FAT_WORDS = vocabulary(
    "fs fatsat fsat fatsup fatsupp spir spair aspir stir tirm chess saturated ws wfs pasta"
    " we wats watsc watsf watsg proset waterexc waterexcitation wexc ssrf"
    " fettsat fettunterdruckt fettsuppression satgraisse supgrasa satgrasa grassat"
)
_FAT = r"(?:fat|fett|graisses?|grasa|grass[oi]|gordura|vet|yag)"
_SUPPRESSED = r"(?:sat|satur\w*|sup|supp|supr\w*|suppr\w*|soppr\w*|saturation|bask\w*|unterdr\w*)"
_FAT_SUPPRESSED = re.compile(
    rf"\b{_FAT} ?(?:de |di |da )?{_SUPPRESSED}\b"
    rf"|\b{_SUPPRESSED} (?:de |di |da |del )?(?:la )?{_FAT}\b"
    r"|\bwater (?:exc|sel)|\bchem sat\b|\bf s\b|\bvet(?:suppr|onderdr)\w*"
    r"|\b(?:pd|t1|t2|dp)\w*(?:fs|spair|spir|stir|tirm|fatsat)\b"
)
# "PD non FS", "T1 w/o fat sat", "ohne FS": fat isn't suppressed
_NOT_SUPPRESSED = re.compile(
    r"\b(?:no|non|not|nicht|kein|keine|ohne|w o|wo|without|sans|sin|sem|senza|zonder|utan|uten|bez)"
    rf" (?:{_FAT} ?{_SUPPRESSED}|{_SUPPRESSED} (?:de )?{_FAT}|fs|f s|fatsat\w*|fsat|fatsup\w*"
    r"|fettsat\w*|sat|spair|spir)\b|\b(?:no|non|ohne|sans)(?:fs|fatsat)\b"
)
# A water image by the name of its series: Siemens ends them in _W, GE begins them with WATER:
_WATER_NAME = re.compile(r"^\s*water\s*:|\b(dixon|mdixon|ideal|flex)\b.*\b(w|water|wasser|eau)\b")


def weighting_of(series: Series, *, many_echoes: bool = False) -> Weighting:
    """Returns T1, PD, T2 or gradient echo, by technique, times, and name, in this order.

    Args:
        series: one stack.
        many_echoes: whether it is one of several echoes; their common name is then ignored.
    """
    first = series.first
    named = set() if many_echoes else _named_weightings(first.names)
    technique = set(first.technique)
    if ("GR" in technique and "SE" not in technique) or "GRADIENT" in technique:
        return "gradient echo"
    if technique <= {"RM"} and GRADIENT_WORDS & set(words_of(first.names)):
        return "gradient echo"
    te, tr = first.te_ms, first.tr_ms
    if te is None or tr is None:
        return named.pop() if len(named) == 1 else "unknown"
    longest = LONG_T1_REPETITION_MS if named == {"T1"} else T1_REPETITION_MS
    if tr < longest and te < T1_ECHO_MS:
        return "T1"
    soft = named & {"PD", "T2"}
    if len(soft) == 1 and SURELY_PD_MS <= te <= SURELY_T2_MS:
        return soft.pop()
    return "PD" if te < T2_ECHO_MS else "T2"


def _named_weightings(texts: Sequence[str]) -> set[Weighting]:
    names: set[Weighting] = set()
    for text in texts:
        for word in re.split(r"[\s_:;,/()-]+", normalised(text)):
            if word.startswith("t1"):
                names.add("T1")
            elif word.startswith("t2") and not word.startswith(("t2*", "t2star")):
                names.add("T2")
            elif word.startswith(("pd", "dp")) or word in ("proton", "protonendichte"):
                names.add("PD")
    return names


def fat_saturation_of(series: Series) -> bool | None:
    """Returns whether fat is suppressed, by ScanOptions or by name; None if neither is given.

    Options and names that don't mention it count as a statement that it isn't.
    """
    stated = stated_fat_saturation(series)
    return False if stated is None and (series.first.options or series.first.words) else stated


def stated_fat_saturation(series: Series) -> bool | None:
    """Returns whether the header states that fat is or isn't suppressed; None if it does neither.

    It isn't if a name denies it. Options and names that don't mention it state nothing: anonymised
    archives replace names, and water excitation and Dixon sequences have no such option.
    """
    first = series.first
    joined = _NOT_SUPPRESSED.sub(" ", " ".join(words_of(first.names)))
    words = joined.split()
    if FAT_OPTIONS & set(first.options) or WATER & set(first.kind):
        return True
    if FAT_WORDS & set(words) or _FAT_SUPPRESSED.search(joined):
        return True
    if any(_WATER_NAME.search(normalised(name).replace("_", " ")) for name in first.names):
        return True
    low, high = STIR_MS
    if "IR" in first.technique and low <= (first.ti_ms or 0.0) <= high:
        return True
    denied = any(_NOT_SUPPRESSED.search(" ".join(words_of([name]))) for name in first.names)
    return False if denied else None
