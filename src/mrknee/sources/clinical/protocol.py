"""What a series is, and the rule that chooses one for each plane.

The rule is written out in docs/importing.md; the two must say the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mrknee.exams import Plane
from mrknee.sources.clinical.anatomy import other_part, vocabulary, words_of
from mrknee.sources.clinical.header import MR_IMAGES
from mrknee.sources.clinical.series import Series

Weighting = Literal["T1", "PD", "T2", "gradient echo", "unknown"]

MAX_OBLIQUE_DEGREES = 35.0
T1_REPETITION_MS, T1_ECHO_MS = 1000.0, 30.0
"""T1: a shorter repetition and a shorter echo than these. Spin echo for T1 of the knee has TR 400
to 800 ms, for PD and T2 from 1800 ms on."""
T2_ECHO_MS = 45.0
"""PD or T2 where no name says which: the echo from which it is T2."""
FEW_SLICES = 10
MRNET_SLICES = (17, 61)
"""MRNet's smallest and largest stack."""

# MRNet's protocol (Bien et al. 2018): sagittal T2 and axial PD with fat saturation, coronal T1
# without. Each plane's weightings from the closest to the farthest, and fat saturation.
ORDER: dict[Plane, tuple[tuple[Weighting, ...], bool]] = {
    Plane.SAGITTAL: (("T2", "PD", "gradient echo", "T1", "unknown"), True),
    Plane.CORONAL: (("T1", "PD", "T2", "gradient echo", "unknown"), False),
    Plane.AXIAL: (("PD", "T2", "gradient echo", "T1", "unknown"), True),
}

LOCALISER_WORDS = vocabulary("localizer localiser localizador loc scout aascout survey surv")
# ImageType's third value and beyond, of images computed from others
COMPUTED = vocabulary(
    "MPR REFORMATTED MIP MINIP MNIP PROJECTION SUBTRACTION SUB ADC TRACEW MAP T1MAP T2MAP"
    " T2_MAP T1_MAP T2STARMAP R2 P PHASE P_SE P_FFE PHASE_MAP F FAT FAT_ONLY"
) | {"PROJECTION IMAGE", "SCREEN SAVE", "T2 MAP", "T1 MAP"}
WATER = frozenset({"W", "WATER"})
"""Dixon's water image: scanners call it derived, but it is their fat-saturated acquisition."""
FAT_OPTIONS = frozenset(
    {"FS", "FATSAT", "FATSAT_GEMS", "FAT", "SPIR", "SPAIR", "STIR", "FAT_WATER"}
)
FAT_WORDS = vocabulary("fs fatsat fsat spir spair stir tirm chess saturated ws")


@dataclass(frozen=True)
class Candidate:
    """A series and what the rule needs to know of it.

    Attributes:
        name: its neutral name in its study: s1, s2, ...
        series: the series.
        plane, angle_deg: the nearest plane and how far from it; None without orientation.
        weighting: T1, PD, T2, gradient echo, or unknown.
        fat_saturated: whether fat is suppressed; None where nothing says it.
        refusal: why it can't be chosen, or None.
    """

    name: str
    series: Series
    plane: Plane | None
    angle_deg: float | None
    weighting: Weighting
    fat_saturated: bool | None
    refusal: str | None


def candidates(stacks: Sequence[Series]) -> list[Candidate]:
    """Each stack of a study, described and named by its place in the list."""
    found = []
    for index, series in enumerate(stacks, start=1):
        plane, angle = series.plane or (None, None)
        found.append(
            Candidate(
                name=f"s{index}",
                series=series,
                plane=plane,
                angle_deg=angle,
                weighting=weighting_of(series),
                fat_saturated=fat_saturation_of(series),
                refusal=refusal_of(series),
            )
        )
    return found


def weighting_of(series: Series) -> Weighting:
    """T1, PD, T2 or gradient echo, by technique, times, and name, in this order."""
    first = series.first
    words = words_of(first.names)
    named = _named_weightings(first.names)
    if first.technique in (("GR",), ("GRADIENT",), ("EP", "GR"), ("GR", "EP")):
        return "gradient echo"
    if not first.technique and {"gre", "dess", "medic", "merge", "spgr", "flash"} & set(words):
        return "gradient echo"
    te, tr = first.te_ms, first.tr_ms
    if te is None or tr is None:
        return named.pop() if len(named) == 1 else "unknown"
    if tr < T1_REPETITION_MS and te < T1_ECHO_MS:
        return "T1"
    # between PD and T2 there is no border in physics; what its makers call it counts first
    soft = named & {"PD", "T2"}
    if len(soft) == 1:
        return soft.pop()
    return "PD" if te < T2_ECHO_MS else "T2"


def _named_weightings(texts: Sequence[str]) -> set[Weighting]:
    names: set[Weighting] = set()
    for text in texts:
        for word in text.lower().replace("_", " ").replace("-", " ").split():
            if word.startswith("t1"):
                names.add("T1")
            elif word.startswith("t2") and not word.startswith("t2*"):
                names.add("T2")
            elif word.startswith(("pd", "dp")):
                names.add("PD")
    return names


def fat_saturation_of(series: Series) -> bool | None:
    """Whether fat is suppressed: by ScanOptions, or by name; None where neither says anything."""
    first = series.first
    words = words_of(first.words)
    joined = " ".join(words)
    if FAT_OPTIONS & set(first.options) or WATER & set(first.kind):
        return True
    if FAT_WORDS & set(words) or "fat sat" in joined or "fat sup" in joined:
        return True
    if any(word.startswith(("pd", "t", "dp")) and word.endswith("fs") for word in words):
        return True
    if "IR" in first.technique and 100.0 <= (first.ti_ms or 0.0) <= 250.0:
        return True  # STIR: the inversion time that nulls fat, 150 ms at 1.5 T to 220 at 3 T
    return False if first.options or first.words else None


def refusal_of(series: Series) -> str | None:
    """Why a series can't stand for a plane, or None."""
    first = series.first
    kind = set(first.kind)
    if first.modality not in ("MR", ""):
        return "not MR"
    if first.sop_class and first.sop_class not in MR_IMAGES:
        return "a screenshot or another kind of object, not an MR image"
    if first.samples != 1:
        return "a colour image, not grey values"
    if first.burned_in:
        return "annotations are burned into its pixels, and may name the patient"
    if "LOCALIZER" in kind or LOCALISER_WORDS & set(words_of(first.names)):
        return "a localiser"
    if series.orientations > 1 and len(series.images) < FEW_SLICES:
        return "a localiser: a few slices in several orientations"
    if kind & COMPUTED or ("DERIVED" in kind and not kind & WATER):
        return "derived from other images"
    wrong = other_part(first)
    if wrong is not None:
        return wrong
    unusable = unusable_because(series)
    if unusable is not None:
        return unusable
    _, angle = series.plane or (None, 0.0)
    if angle > MAX_OBLIQUE_DEGREES:
        return f"oblique: more than {MAX_OBLIQUE_DEGREES:.0f} degrees off every plane"
    return None


def unusable_because(series: Series) -> str | None:
    """Why a series can't become a stack at all, even where a user asks for it, or None."""
    if series.axes is None:
        return "its header doesn't say how it lies in the patient"
    sizes = series.first.pixel_mm
    if len(sizes) != 2 or not all(0.05 <= size <= 10.0 for size in sizes):
        return "its header doesn't say how large a pixel is"
    if series.first.samples != 1:
        return "a colour image, not grey values"
    return None


def closeness(candidate: Candidate) -> tuple[tuple[str, float], ...]:
    """How far a candidate is from MRNet's protocol, the weightiest difference first.

    Returns:
        (what is compared, how far): the smaller, the closer.
    """
    series = candidate.series
    assert candidate.plane is not None  # noqa: S101  # refused otherwise
    weightings, saturated = ORDER[candidate.plane]
    low, high = MRNET_SLICES
    count = len(series.images)
    return (
        ("its number of slices", float(count < FEW_SLICES)),
        ("its weighting", float(weightings.index(candidate.weighting))),
        ("its fat saturation", float((candidate.fat_saturated or False) != saturated)),
        ("its number of slices", float(max(low - count, count - high, 0))),
        ("its angle", round((candidate.angle_deg or 0.0) / 10.0)),
        ("its pixels", round(max(series.first.pixel_mm), 1)),
        ("its place: the last one made is taken", -float(series.first.series_number)),
    )


def ranked(found: Sequence[Candidate], plane: Plane) -> list[Candidate]:
    """The candidates of a plane that aren't refused, the closest to MRNet's protocol first."""
    open_ones = [one for one in found if one.plane == plane and one.refusal is None]
    return sorted(open_ones, key=lambda one: tuple(value for _, value in closeness(one)))


def why_not(candidate: Candidate, chosen: Candidate) -> str:
    """What put another series of the plane first."""
    pairs = zip(closeness(candidate), closeness(chosen), strict=True)
    first = next((name for (name, mine), (_, theirs) in pairs if mine != theirs), "its place")
    return f"{chosen.name} is closer to MRNet's protocol by {first}"
