"""Grouping of images by knee: by study, by patient, and by side.

docs/reference/import-rules.md states the rules; change both together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median

from mrknee.exams import PLANES, Plane
from mrknee.sources.clinical.anatomy import (
    DEAD_ZONE_MM,
    Side,
    coded_sides,
    described_sides,
    placed_side,
)
from mrknee.sources.clinical.header import Image
from mrknee.sources.clinical.joining import join
from mrknee.sources.clinical.protocol import Candidate, candidates
from mrknee.sources.clinical.refusals import FEW_SLICES
from mrknee.sources.clinical.series import APART_MM, grouped, sort_into_series
from mrknee.sources.clinical.study import PLACE, Study
from mrknee.sources.clinical.words import words_of

WIDE_MM = 250.0
"""A series that is wider than this from right to left may show both legs, so that its position
doesn't indicate a side."""
MIXED = "images of several patients have the same StudyInstanceUID; they were separated"
EXAMINATIONS = (
    "images of several examinations, with different dates and accession numbers, have the same"
    " StudyInstanceUID; they were separated"
)
DATES = "its images have several study dates; they may be of several examinations"
TWO_FRAMES = (
    "several frames of reference in its study hold all three planes; each became a separate exam,"
    " which may show the other knee or the same one again"
)
ELSEWHERE = "in another frame of reference, without a statement that it shows the same knee"
REVERSED = "the sides that headers or descriptions name contradict the positions of the two knees"
CONTRADICTORY = "contradictory statements"

Person = tuple[str, str, str, str]
"""PatientID, name, birth date or age, and sex, normalised."""


def studies_of(
    images: Iterable[Image],
    root: Path = Path("/"),
    *,
    any_body_part: bool = False,
    first_stated: bool = False,
) -> list[Study]:
    """Groups DICOM images into studies of one knee each.

    The images of a study are split by patient, then by side if the study shows both knees.

    Args:
        images: headers of all images.
        root: the source, to which the paths of images without an identifier are relative.
        any_body_part: ignore BodyPartExamined.
        first_stated: of several sources of a knee's side that disagree, use the first of header,
            descriptions and position; otherwise the side is unknown.
    """
    by_study: dict[str, list[Image]] = {}
    for image in images:
        # without an identifier, the images of one folder belong together
        key = image.study or f"folder {image.location.below(root).parent}"
        by_study.setdefault(key, []).append(image)
    found: list[Study] = []
    for key, group in by_study.items():
        people = [
            (person, exam) for person, part in _by_person(group) for exam in _by_examination(part)
        ]
        mixed = MIXED if len({person for person, _ in people}) > 1 else EXAMINATIONS
        for person, part in people:
            notes = [mixed] if len(people) > 1 else []
            if len({image.study_date for image in part} - {""}) > 1:
                notes.append(DATES)
            name = key if len(people) == 1 else f"{key} {person} {part[0].accession}"
            stacks = join(sort_into_series(part))
            described = candidates(stacks, any_body_part=any_body_part)
            found += split_by_knee(name, described, notes, first_stated=first_stated)
    return found


def _by_person(images: Sequence[Image]) -> list[tuple[str, list[Image]]]:
    """Groups images of one study by patient, each group with a digest of the patient's identity.

    Two images are of different patients if PatientID, birth date or sex are given and differ, or
    if the names differ, unless PatientID and birth date agree. A missing value doesn't contradict:
    such images are assigned to the only patient they don't contradict, else to a new one.
    """
    by_identity: dict[Person, list[Image]] = {}
    for image in images:
        name, birth, sex = (" ".join(words_of([part])) for part in image.person)
        identity = ("".join(image.patient.casefold().split()), name, birth, sex)
        by_identity.setdefault(identity, []).append(image)
    full = sorted(by_identity, key=lambda one: (-sum(map(bool, one)), one))
    people: list[list[Person]] = []
    for identity in full:
        homes = [group for group in people if not any(_differ(identity, one) for one in group)]
        if len(homes) == 1:
            homes[0].append(identity)
        else:
            people.append([identity])
    return [
        (
            hashlib.sha256(repr(group[0]).encode()).hexdigest(),
            [image for identity in group for image in by_identity[identity]],
        )
        for group in people
    ]


def _by_examination(images: list[Image]) -> list[list[Image]]:
    """Groups images of one patient by examination, if each date has its own accession number."""
    pairs = {(image.accession, image.study_date) for image in images}
    dates, numbers = {date for _, date in pairs}, {number for number, _ in pairs}
    if "" in dates | numbers or not len(dates) == len(numbers) == len(pairs):
        return [images]
    return grouped(images, lambda image: image.accession)


def _differ(one: Person, other: Person) -> bool:
    clash = [
        bool(mine and theirs and mine != theirs) for mine, theirs in zip(one, other, strict=True)
    ]
    patient, name, birth, sex = clash
    birth = birth and one[2].isdecimal() == other[2].isdecimal()  # don't compare a date and an age
    if patient or birth or sex:
        return True
    sure = one[0] and one[0] == other[0] and one[2] and one[2] == other[2]
    mine, theirs = set(one[1].split()), set(other[1].split())
    return name and not sure and not (mine <= theirs or theirs <= mine)


@dataclass(frozen=True)
class _Evidence:
    """Evidence of which knee a series shows.

    Attributes:
        tag: sides by coded values.
        names: sides by the names of the series.
        study: sides by the study's descriptions.
        place: side of the scanner; None near the centre, or if the series is wide.
        x_mm: position of the series' centre to the patient's left, mm; None without positions, or
            if the series is wide.
        frame: frame of reference; positions in different frames can't be compared.
    """

    tag: frozenset[Side]
    names: frozenset[Side]
    study: frozenset[Side]
    place: Side | None
    x_mm: float | None
    frame: str

    @property
    def own(self) -> frozenset[Side]:
        """Sides by the series itself, without the study's descriptions."""
        return self.tag | self.names


def _evidence(one: Candidate) -> _Evidence:
    first, centre = one.series.first, one.series.centre
    wide = (one.series.extent_mm or 0.0) > WIDE_MM
    x_mm = None if centre is None or wide else float(centre[0])
    return _Evidence(
        tag=coded_sides(first.lateralities),
        names=frozenset(described_sides(first.names)),
        study=frozenset(described_sides(first.study_words)),
        place=None if x_mm is None else placed_side(x_mm),
        x_mm=x_mm,
        frame=first.frame_of_reference,
    )


def split_by_knee(
    key: str,
    found: Sequence[Candidate],
    notes: Sequence[str] = (),
    *,
    first_stated: bool = False,
) -> list[Study]:
    """Returns one patient's study, split into two if it shows both knees.

    Args:
        key: unique key of the study.
        found: candidates of the study.
        notes: notes to start with, one sentence each.
        first_stated: as for `studies_of`.
    """
    evidence = {one.name: _evidence(one) for one in found}
    usable = [one for one in found if one.refusal is None]
    row = [evidence[one.name] for one in usable]
    if len({side for one in row if len(one.own) == 1 for side in one.own}) == 2:
        sides = [_stated_or_nearest(one, row) for one in row]
        origin, odd = "each of its series states its side", _reversed(row)
    elif len(set(_sides_by_place(row)) - {None}) == 2:
        sides, origin, odd = _sides_by_place(row), PLACE, []
    else:
        return _by_frame(key, found, evidence, notes, first_stated=first_stated)
    of = {one.name: side for one, side in zip(usable, sides, strict=True)}
    knees = []
    both: tuple[Side, Side] = ("left", "right")
    for side in both:
        named = {
            own for name, of_side in of.items() if of_side == side for own in evidence[name].own
        }
        conflict = odd or ([] if named <= {side} else [REVERSED])
        parts = tuple(_for_side(one, of.get(one.name), side, evidence[one.name]) for one in found)
        known, why = (None, CONTRADICTORY) if conflict else (side, origin)
        knees.append(Study(f"{key} {side}", known, why, parts, notes=(*notes, *conflict)))
    return knees


def _by_frame(
    key: str,
    found: Sequence[Candidate],
    evidence: Mapping[str, _Evidence],
    notes: Sequence[str],
    *,
    first_stated: bool,
) -> list[Study]:
    """Returns a study that neither sides nor positions show to be of both knees.

    If several frames of reference hold all three planes, each becomes a separate study. Positions
    in two frames can't be compared, so they may show the other knee, or another person's.
    """
    side_of = _first_side if first_stated else _one_side
    usable = [one for one in found if one.refusal is None]
    complete = _complete_frames(usable)
    if len(complete) < 2:
        parts = [_refuse_elsewhere(one, complete, evidence[one.name]) for one in found]
        side, origin, odd = side_of(
            [evidence[one.name] for one in parts if one.refusal is None or not usable]
        )
        return [Study(key, side, origin, tuple(parts), notes=(*notes, *odd))]
    exams = []
    for frame in complete:
        mine = [replace(evidence[one.name], study=frozenset()) for one in usable]
        side, origin, odd = side_of([one for one in mine if one.frame == frame])
        parts = [
            one
            if one.refusal is not None or evidence[one.name].frame == frame
            else replace(one, refusal=ELSEWHERE, of_another=True)
            for one in found
        ]
        exams.append(
            Study(f"{key} {frame}", side, origin, tuple(parts), notes=(*notes, *odd, TWO_FRAMES))
        )
    return exams


def _complete_frames(usable: Sequence[Candidate]) -> list[str]:
    """Returns the frames of reference that hold stacks of all three planes."""
    planes: dict[str, set[Plane]] = {}
    for one in usable:
        if one.plane is not None and len(one.series.images) >= FEW_SLICES:
            planes.setdefault(one.series.first.frame_of_reference, set()).add(one.plane)
    return sorted(frame for frame, found in planes.items() if frame and len(found) == len(PLANES))


def _refuse_elsewhere(one: Candidate, complete: Sequence[str], evidence: _Evidence) -> Candidate:
    """Refuses a candidate without a side outside the one frame that holds all planes."""
    stated = evidence.own or evidence.study
    if one.refusal is not None or not complete or stated or evidence.frame in (*complete, ""):
        return one
    return replace(one, refusal=ELSEWHERE)


def _for_side(one: Candidate, of: Side | None, side: Side, evidence: _Evidence) -> Candidate:
    """Returns a candidate of a study of both knees, refused if it isn't of the given side."""
    if one.refusal is not None or of == side:
        return one
    reason = "the other knee"
    if of is None:
        reason = "it isn't stated which of the two knees it shows"
        if len(evidence.own) == 2:
            reason = "its header and description name different knees"
    return replace(one, refusal=reason, of_another=True)


def _stated_or_nearest(one: _Evidence, row: Sequence[_Evidence]) -> Side | None:
    """Returns the stated side of a series, else that of the series near it, if unique."""
    if one.own:
        return next(iter(one.own)) if len(one.own) == 1 else None
    if one.x_mm is None:
        return None
    near = {
        side
        for other in row
        if len(other.own) == 1 and other.frame == one.frame and other.x_mm is not None
        if abs(other.x_mm - one.x_mm) < APART_MM / 2
        for side in other.own
    }
    return near.pop() if len(near) == 1 else None


def _reversed(row: Sequence[_Evidence]) -> list[str]:
    """Returns a note if the sides that series name contradict the positions of the knees."""
    for frame in {one.frame for one in row}:
        placed = [one for one in row if one.frame == frame and one.x_mm is not None]
        left = [one.x_mm for one in placed if one.own == {"left"} and one.x_mm is not None]
        right = [one.x_mm for one in placed if one.own == {"right"} and one.x_mm is not None]
        if left and right and max(right) - min(left) > APART_MM:
            return [REVERSED]
    return []


def _sides_by_place(row: Sequence[_Evidence]) -> list[Side | None]:
    """Returns the side of each series by its position.

    If the series of one frame of reference form two groups as far apart as knees, the group to the
    patient's left is the left knee; otherwise the side of the scanner's centre decides.
    """
    for frame in sorted({one.frame for one in row}):
        middles = sorted(one.x_mm for one in row if one.frame == frame and one.x_mm is not None)
        gaps = [(b - a, (a + b) / 2) for a, b in pairwise(middles)]
        wide = [middle for gap, middle in gaps if gap > APART_MM]
        if len(wide) == 1:
            between = wide[0]
            return [
                one.place
                if one.frame != frame or one.x_mm is None
                else ("left" if one.x_mm > between else "right")
                for one in row
            ]
    return [one.place for one in row]


def _one_side(row: Sequence[_Evidence]) -> tuple[Side | None, str, list[str]]:
    """Returns the side of a study of one knee, its origin, and notes on contradictions.

    The side is unknown if its sources disagree.
    """
    ways = _stated_sides(row, {one.place for one in row if one.place is not None})
    every = set().union(*ways.values()) if ways else set()
    if not every:
        return None, "not stated", []
    if len(every) == 2:
        return None, CONTRADICTORY, [f"the side is unknown: {_statements(ways)}"]
    return every.pop(), _ORIGINS[next(iter(ways))], []


def _first_side(row: Sequence[_Evidence]) -> tuple[Side | None, str, list[str]]:
    """As `_one_side`, but the first source that states one side is used.

    The position is the middle one of all series, outside `DEAD_ZONE_MM`.
    """
    places = [one.x_mm for one in row if one.x_mm is not None]
    placed = placed_side(median(places), DEAD_ZONE_MM) if places else None
    ways = _stated_sides(row, set() if placed is None else {placed})
    for name, sides in ways.items():
        if len(sides) == 1:
            odd = set().union(*ways.values()) != sides
            notes = [f"the side is that of {name}: {_statements(ways)}"] if odd else []
            return next(iter(sides)), _ORIGINS[name], notes
    return _one_side(row)


def _stated_sides(row: Sequence[_Evidence], placed: set[Side]) -> dict[str, set[Side]]:
    """Returns the sources that state a side, most reliable first, each with its sides."""
    ways: dict[str, set[Side]] = {
        "the header": {side for one in row for side in one.tag},
        "a series' description": {side for one in row for side in one.names},
        "the study's description": {side for one in row for side in one.study},
        PLACE: placed,
    }
    return {name: sides for name, sides in ways.items() if sides}


def _statements(ways: Mapping[str, set[Side]]) -> str:
    return "; ".join(f"{name} says {' and '.join(sorted(sides))}" for name, sides in ways.items())


_ORIGINS = {
    "the header": "the header",
    "a series' description": "a description",
    "the study's description": "a description",
    PLACE: PLACE,
}
