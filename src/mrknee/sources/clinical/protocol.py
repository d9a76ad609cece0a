"""Candidate series of a study, and the rule that chooses one for each declared series.

docs/reference/import-rules.md states the rule; change both together.
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
# without. Per plane: weightings from the closest to the most different, and fat saturation.
ORDER: dict[Plane, tuple[tuple[Weighting, ...], bool]] = {
    Plane.SAGITTAL: (("T2", "PD", "gradient echo", "T1", "unknown"), True),
    Plane.CORONAL: (("T1", "PD", "T2", "gradient echo", "unknown"), False),
    Plane.AXIAL: (("PD", "T2", "gradient echo", "T1", "unknown"), True),
}

FLUID_SENSITIVE: tuple[Weighting, ...] = ("PD", "T2", "gradient echo", "T1", "unknown")
"""Order for a coronal series that is declared with fat suppression and without weighting: T1 with
fat suppression shows no oedema, and is acquired after contrast agent only."""

ECHO_MS: dict[Weighting, float] = {"T1": 15.0, "PD": 30.0, "T2": 60.0}
"""Echo time (ms) to prefer among several echoes: the middle of the range usual for knees. MRNet's
own echo times aren't published. Among several gradient echoes the first one is preferred."""


@dataclass(frozen=True)
class Candidate:
    """A series with the properties by which the rule chooses.

    Attributes:
        name: anonymous name within the study: s1, s2, ...
        series: the series.
        plane, angle_deg: nearest plane and the angle to it, degrees; None without orientation.
        weighting: T1, PD, T2, gradient echo, or unknown.
        fat_saturated: whether fat is suppressed; None if not stated anywhere.
        refusal: why the series can't be chosen, or None.
        many_echoes: whether it is one echo of a multi-echo sequence, as acquired for maps.
        of_another: whether it belongs, or may belong, to another exam made of the same study, such
            as the other knee; then it can't be requested for this one.
    """

    name: str
    series: Series
    plane: Plane | None
    angle_deg: float | None
    weighting: Weighting
    fat_saturated: bool | None
    refusal: str | None
    many_echoes: bool = False
    of_another: bool = False


def candidates(stacks: Sequence[Series], *, any_body_part: bool = False) -> list[Candidate]:
    """Returns one candidate per stack of a study, named by its index in the list.

    Args:
        stacks: all stacks of the study.
        any_body_part: ignore BodyPartExamined.
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
    """Returns a key that is equal for the echoes of one sequence stored as several series."""
    first = series.first
    if not any(first.names):
        return first.series
    return (first.names, first.tr_ms, series.plane and series.plane[0], len(series.images))


def _echo_times(stacks: Sequence[Series]) -> dict[Hashable, set[float | None]]:
    times: dict[Hashable, set[float | None]] = {}
    for series in stacks:
        times.setdefault(_sequence(series), set()).add(series.first.te_ms)
    return times


def by_specificity(series: SeriesList) -> list[Declared]:
    """Sorts declared series for the choice: those that declare more properties come first."""
    return sorted(series, key=lambda one: (one.weighting is None) + (one.fat_suppressed is None))


def matches(candidate: Candidate, declared: Declared) -> bool:
    """Returns whether a candidate has the declared plane and contrast.

    An undeclared property matches anything; an unknown one matches no declared value.
    """
    weighting: Weighting | None = declared.weighting and _WEIGHTINGS[declared.weighting]
    return (
        candidate.plane == declared.plane
        and weighting in (None, candidate.weighting)
        and declared.fat_suppressed in (None, candidate.fat_saturated)
    )


_WEIGHTINGS: dict[str, Weighting] = {"T1": "T1", "PD": "PD", "T2": "T2", "GRE": "gradient echo"}


def target_of(declared: Declared) -> str:
    """Returns, as text, what the candidates for a declared series are compared with."""
    return "MRNet's protocol" if declared in MRNET_SERIES else f"what {declared.name} declares"


def contrast_of(candidate: Candidate) -> str:
    """Returns a candidate's contrast as text."""
    return f"{candidate.weighting} {_FAT[candidate.fat_saturated]}"


def declared_contrast(declared: Declared) -> str:
    """Returns the contrast that a series declares as text, or "of any contrast"."""
    fat = declared.fat_suppressed
    words = [declared.weighting or "", "" if fat is None else _FAT[fat]]
    return " ".join(word for word in words if word) or "of any contrast"


_FAT = {
    True: "with fat suppression",
    False: "without fat suppression",
    None: "with unknown fat suppression",
}


def closeness(candidate: Candidate, declared: Declared) -> tuple[tuple[str, float], ...]:
    """Returns the differences between a candidate and a declared series, most important first.

    Undeclared properties are compared with MRNet's protocol for the plane, except for
    `FLUID_SENSITIVE`.

    Returns:
        Pairs of property and difference; smaller is closer.
    """
    series = candidate.series
    weightings, saturated = ORDER[declared.plane]
    if declared.fat_suppressed and declared.plane is Plane.CORONAL:
        weightings = FLUID_SENSITIVE
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
        ("its single contrast", float(candidate.many_echoes)),
        ("its weighting", float(weightings.index(candidate.weighting))),
        ("its fat saturation", float((candidate.fat_saturated or False) != saturated)),
        ("its echo time", off_echo),
        ("its number of slices", float(max(low - count, count - high, 0))),
        ("its angle", round((candidate.angle_deg or 0.0) / 10.0)),
        ("its pixel size", round(max(series.first.pixel_mm), 1)),
        ("its series number (the last repeat is preferred)", -float(series.first.series_number)),
    )


def ranked(found: Sequence[Candidate], declared: Declared) -> list[Candidate]:
    """Returns the candidates that match a declared series and aren't refused, closest first."""
    open_ones = [one for one in found if one.refusal is None and matches(one, declared)]
    return sorted(
        open_ones,
        key=lambda one: (
            tuple(value for _, value in closeness(one, declared)),
            # among equal series, take those of one folder for all planes
            str(one.series.first.location.name.parent),
        ),
    )


def reason_not_chosen(candidate: Candidate, chosen: Candidate, declared: Declared) -> str:
    """Returns the property that decided between two candidates for a declared series."""
    pairs = zip(closeness(candidate, declared), closeness(chosen, declared), strict=True)
    first = next((name for (name, mine), (_, theirs) in pairs if mine != theirs), "its path")
    return f"{chosen.name} is closer to {target_of(declared)} by {first}"
