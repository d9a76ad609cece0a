"""What a scanner's series is, and the rule that chooses one for each declared series.

The rule is written out in docs/reference/import-rules.md; the two must say the same.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from mrknee.exams import MRNET_SERIES, Plane, SeriesList
from mrknee.exams import Series as Declared
from mrknee.sources.clinical.contrast import (
    MANY_ECHOES,
    Weighting,
    fat_saturation_of,
    weighting_of,
)
from mrknee.sources.clinical.refusals import FEW_SLICES, MRNET_SLICES, refusal_of
from mrknee.sources.clinical.series import Series

# MRNet's protocol (Bien et al. 2018): sagittal T2 and axial PD with fat saturation, coronal T1
# without. Each plane's weightings from the closest to the farthest, and fat saturation.
ORDER: dict[Plane, tuple[tuple[Weighting, ...], bool]] = {
    Plane.SAGITTAL: (("T2", "PD", "gradient echo", "T1", "unknown"), True),
    Plane.CORONAL: (("T1", "PD", "T2", "gradient echo", "unknown"), False),
    Plane.AXIAL: (("PD", "T2", "gradient echo", "T1", "unknown"), True),
}

ECHO_MS: dict[Weighting, float] = {"T1": 15.0, "PD": 30.0, "T2": 60.0}
"""Of several echoes the one nearest to this is taken: the middle of what knees are imaged with.
MRNet's own echo times aren't published. Of several gradient echoes it is the first."""


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
        many_echoes: it is one echo of a series of several, which maps are computed from.
    """

    name: str
    series: Series
    plane: Plane | None
    angle_deg: float | None
    weighting: Weighting
    fat_saturated: bool | None
    refusal: str | None
    many_echoes: bool = False


def candidates(stacks: Sequence[Series], *, any_body_part: bool = False) -> list[Candidate]:
    """Each stack of a study, described and named by its place in the list.

    Args:
        stacks: the study's.
        any_body_part: whatever BodyPartExamined says, it shows a knee.
    """
    echoes = _echo_times(stacks)
    found = []
    for index, series in enumerate(stacks, start=1):
        plane, angle = series.plane or (None, None)
        many = max(series.echoes, len(echoes[_sequence(series)])) >= MANY_ECHOES
        found.append(
            Candidate(
                name=f"s{index}",
                series=series,
                plane=plane,
                angle_deg=angle,
                weighting=weighting_of(series, many_echoes=many),
                fat_saturated=fat_saturation_of(series),
                refusal=refusal_of(series, many_echoes=many, any_body_part=any_body_part),
                many_echoes=many,
            )
        )
    return found


def _sequence(series: Series) -> Hashable:
    """What the echoes of one sequence share that were stored as several series."""
    first = series.first
    if not any(first.names):
        return first.series
    return (first.names, first.tr_ms, series.plane and series.plane[0], len(series.images))


def _echo_times(stacks: Sequence[Series]) -> dict[Hashable, set[float | None]]:
    times: dict[Hashable, set[float | None]] = {}
    for series in stacks:
        times.setdefault(_sequence(series), set()).add(series.first.te_ms)
    return times


def in_turn(series: SeriesList) -> list[Declared]:
    """Declared series in the order in which they choose: those that say more come first."""
    return sorted(series, key=lambda one: (one.weighting is None) + (one.fat_suppressed is None))


def matches(candidate: Candidate, declared: Declared) -> bool:
    """Whether a candidate has the plane and the contrast that are declared.

    What isn't declared may be anything. What is declared must be known of the candidate.
    """
    weighting: Weighting | None = declared.weighting and _WEIGHTINGS[declared.weighting]
    return (
        candidate.plane == declared.plane
        and weighting in (None, candidate.weighting)
        and declared.fat_suppressed in (None, candidate.fat_saturated)
    )


_WEIGHTINGS: dict[str, Weighting] = {"T1": "T1", "PD": "PD", "T2": "T2", "GRE": "gradient echo"}


def aim_of(declared: Declared) -> str:
    """What the candidates for a declared series are compared with, in words."""
    return "MRNet's protocol" if declared in MRNET_SERIES else f"what {declared.name} declares"


def contrast_of(candidate: Candidate) -> str:
    """A candidate's contrast in words."""
    return f"{candidate.weighting} {_FAT[candidate.fat_saturated]}"


def declared_contrast(declared: Declared) -> str:
    """The contrast that a series declares, in words; "of any contrast" where it declares none."""
    fat = declared.fat_suppressed
    words = [declared.weighting or "", "" if fat is None else _FAT[fat]]
    return " ".join(word for word in words if word) or "of any contrast"


_FAT = {
    True: "with fat suppression",
    False: "without fat suppression",
    None: "with fat suppression or without (nothing says which)",
}


def closeness(candidate: Candidate, declared: Declared) -> tuple[tuple[str, float], ...]:
    """How far a candidate is from what is declared, the weightiest difference first.

    What isn't declared is compared with MRNet's protocol for the plane.

    Returns:
        (what is compared, how far): the smaller, the closer.
    """
    series = candidate.series
    weightings, saturated = ORDER[declared.plane]
    if declared.weighting:
        weightings = (_WEIGHTINGS[declared.weighting],)
    if declared.fat_suppressed is not None:
        saturated = declared.fat_suppressed
    low, high = MRNET_SLICES
    count = len(series.images)
    off_echo = 0.0
    if candidate.many_echoes:
        wanted = ECHO_MS.get(weightings[0], 0.0)
        off_echo = abs((series.first.te_ms or 0.0) - wanted)
    return (
        ("its number of slices", float(count < FEW_SLICES)),
        ("its contrast, a single one", float(candidate.many_echoes)),
        ("its weighting", float(weightings.index(candidate.weighting))),
        ("its fat saturation", float((candidate.fat_saturated or False) != saturated)),
        ("its echo time", off_echo),
        ("its number of slices", float(max(low - count, count - high, 0))),
        ("its angle", round((candidate.angle_deg or 0.0) / 10.0)),
        ("its pixels", round(max(series.first.pixel_mm), 1)),
        ("its place: the last one made is taken", -float(series.first.series_number)),
    )


def ranked(found: Sequence[Candidate], declared: Declared) -> list[Candidate]:
    """The candidates that match a declared series and aren't refused, the closest first."""
    open_ones = [one for one in found if one.refusal is None and matches(one, declared)]
    return sorted(
        open_ones,
        key=lambda one: (
            tuple(value for _, value in closeness(one, declared)),
            # of equal series, those of one folder, for all planes
            str(one.series.first.location.name.parent),
        ),
    )


def why_not(candidate: Candidate, chosen: Candidate, declared: Declared) -> str:
    """What put another candidate first for a declared series that both match."""
    pairs = zip(closeness(candidate, declared), closeness(chosen, declared), strict=True)
    first = next((name for (name, mine), (_, theirs) in pairs if mine != theirs), "its place")
    return f"{chosen.name} is closer to {aim_of(declared)} by {first}"
