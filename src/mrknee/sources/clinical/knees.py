"""Which images are of one knee: by study, by patient, by side.

The rules are written out in docs/reference/import-rules.md; the two must say the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from mrknee.exams import PLANES, Plane
from mrknee.sources.clinical.anatomy import Side, coded_sides, described_sides, placed_side
from mrknee.sources.clinical.header import Image
from mrknee.sources.clinical.joining import join
from mrknee.sources.clinical.protocol import Candidate, candidates
from mrknee.sources.clinical.refusals import FEW_SLICES
from mrknee.sources.clinical.series import APART_MM, grouped, sort_into_series
from mrknee.sources.clinical.study import PLACE, Study
from mrknee.sources.clinical.words import words_of

WIDE_MM = 250.0
"""A series that reaches further across may show both legs, so its place says nothing."""
MIXED = "one StudyInstanceUID is on images of several patients; they were kept apart"
EXAMINATIONS = (
    "one StudyInstanceUID is on images of several examinations, of other dates and accession"
    " numbers; they were kept apart"
)
DATES = "its images bear several study dates; they may be of several examinations"
TWO_FRAMES = (
    "each of several frames of reference in its study holds all three planes; each is an exam of"
    " its own: it may show the other knee, or the same one again"
)
ELSEWHERE = "measured in another frame of reference, and nothing says that it shows the same knee"
REVERSED = "the sides that headers or descriptions name contradict where the two knees lie"

Person = tuple[str, str, str, str]


def studies_of(images: Iterable[Image], *, any_body_part: bool = False) -> list[Study]:
    """DICOM images as studies of one knee each.

    A study's images are split by patient, then, where it shows both knees, by side.
    """
    by_study: dict[str, list[Image]] = {}
    for image in images:
        # without an identifier, what lies in one folder belongs together
        key = image.study or f"folder {image.location.name.parent}"
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
            found += knees_of(name, described, notes)
    return found


def _by_person(images: Sequence[Image]) -> list[tuple[str, list[Image]]]:
    """Images of one study by patient, each with a digest of what tells the patient.

    Two images are of different patients where PatientID, birth date or sex differ, both given; or
    the name does, unless PatientID and birth date agree. What isn't given contradicts nothing:
    such images go to the one patient they don't contradict, else to one of their own.
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
    """Images of one patient by examination: where every date has an accession number of its own."""
    said = {(image.accession, image.study_date) for image in images}
    dates, numbers = {date for _, date in said}, {number for number, _ in said}
    if "" in dates | numbers or not len(dates) == len(numbers) == len(said):
        return [images]
    return grouped(images, lambda image: image.accession)


def _differ(one: Person, other: Person) -> bool:
    clash = [
        bool(mine and theirs and mine != theirs) for mine, theirs in zip(one, other, strict=True)
    ]
    patient, name, birth, sex = clash
    birth = birth and one[2].isdecimal() == other[2].isdecimal()  # a date and an age don't clash
    if patient or birth or sex:
        return True
    sure = one[0] and one[0] == other[0] and one[2] and one[2] == other[2]
    mine, theirs = set(one[1].split()), set(other[1].split())
    return name and not sure and not (mine <= theirs or theirs <= mine)


@dataclass(frozen=True)
class _Evidence:
    """What says which knee a series shows.

    Attributes:
        tag, names, study: the sides that coded values, the series' own names and the study's
            descriptions name.
        place: the side of the scanner that it lies on; None near the middle, or if it is wide.
        x_mm: its middle, to the patient's left; None without positions, or if it is wide.
        frame: its frame of reference; places in different ones can't be compared.
    """

    tag: frozenset[Side]
    names: frozenset[Side]
    study: frozenset[Side]
    place: Side | None
    x_mm: float | None
    frame: str

    @property
    def own(self) -> frozenset[Side]:
        """What the series itself says."""
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


def knees_of(key: str, found: Sequence[Candidate], notes: Sequence[str] = ()) -> list[Study]:
    """One patient's study as one study, or as two where it shows both knees.

    Args:
        key: what tells it from other studies.
        found: its series.
        notes: what is odd about it already.
    """
    evidence = {one.name: _evidence(one) for one in found}
    usable = [one for one in found if one.refusal is None]
    row = [evidence[one.name] for one in usable]
    if len({side for one in row if len(one.own) == 1 for side in one.own}) == 2:
        sides = [_said_or_near(one, row) for one in row]
        origin, odd = "each of its series says which of the two", _reversed(row)
    elif len(set(_places(row)) - {None}) == 2:
        sides, origin, odd = _places(row), PLACE, []
    else:
        return _by_frame(key, found, evidence, notes)
    of = {one.name: side for one, side in zip(usable, sides, strict=True)}
    knees = []
    both: tuple[Side, Side] = ("left", "right")
    for side in both:
        says = {
            own for name, of_side in of.items() if of_side == side for own in evidence[name].own
        }
        told = odd or ([] if says <= {side} else [REVERSED])
        parts = tuple(_of_knee(one, of.get(one.name), side, evidence[one.name]) for one in found)
        known, why = (None, "what says it disagrees") if told else (side, origin)
        knees.append(Study(f"{key} {side}", known, why, parts, notes=(*notes, *told)))
    return knees


def _by_frame(
    key: str, found: Sequence[Candidate], evidence: Mapping[str, _Evidence], notes: Sequence[str]
) -> list[Study]:
    """A study of which no side or place says that it shows both knees.

    Where several frames of reference hold all three planes each, each is an exam of its own.
    Places in two frames can't be compared, so it may be the other knee, or another person's.
    """
    usable = [one for one in found if one.refusal is None]
    whole = _whole_frames(usable)
    if len(whole) < 2:
        parts = [_not_elsewhere(one, whole, evidence[one.name]) for one in found]
        side, origin, odd = _one_side(
            [evidence[one.name] for one in parts if one.refusal is None or not usable]
        )
        return [Study(key, side, origin, tuple(parts), notes=(*notes, *odd))]
    exams = []
    for frame in whole:
        mine = [replace(evidence[one.name], study=frozenset()) for one in usable]
        side, origin, odd = _one_side([one for one in mine if one.frame == frame])
        parts = [
            one
            if one.refusal is not None or evidence[one.name].frame == frame
            else replace(one, refusal=ELSEWHERE)
            for one in found
        ]
        exams.append(
            Study(f"{key} {frame}", side, origin, tuple(parts), notes=(*notes, *odd, TWO_FRAMES))
        )
    return exams


def _whole_frames(usable: Sequence[Candidate]) -> list[str]:
    """The frames of reference that hold stacks of all three planes."""
    planes: dict[str, set[Plane]] = {}
    for one in usable:
        if one.plane is not None and len(one.series.images) >= FEW_SLICES:
            planes.setdefault(one.series.first.frame_of_reference, set()).add(one.plane)
    return sorted(frame for frame, there in planes.items() if frame and len(there) == len(PLANES))


def _not_elsewhere(one: Candidate, whole: Sequence[str], evidence: _Evidence) -> Candidate:
    """A candidate, refused where one frame holds all planes and nothing places it beside them."""
    said = evidence.own or evidence.study
    if one.refusal is not None or not whole or said or evidence.frame in (*whole, ""):
        return one
    return replace(one, refusal=ELSEWHERE)


def _of_knee(one: Candidate, of: Side | None, side: Side, evidence: _Evidence) -> Candidate:
    """A candidate of a study of both knees, as one of them sees it."""
    if one.refusal is not None or of == side:
        return one
    reason = "the other knee"
    if of is None:
        reason = "nothing says which of the two knees it is"
        if len(evidence.own) == 2:
            reason = "its header and description name different knees"
    return replace(one, refusal=reason)


def _said_or_near(one: _Evidence, row: Sequence[_Evidence]) -> Side | None:
    """The side a series names, or that of the series it lies with, if only one side's do."""
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
    """What is to be said where the sides that series name contradict where the knees lie."""
    for frame in {one.frame for one in row}:
        placed = [one for one in row if one.frame == frame and one.x_mm is not None]
        left = [one.x_mm for one in placed if one.own == {"left"} and one.x_mm is not None]
        right = [one.x_mm for one in placed if one.own == {"right"} and one.x_mm is not None]
        if left and right and max(right) - min(left) > APART_MM:
            return [REVERSED]
    return []


def _places(row: Sequence[_Evidence]) -> list[Side | None]:
    """The side of each series by where it lies.

    Where the series of one frame of reference lie in two groups that are as far apart as knees,
    the group to the patient's left is the left knee; else it is the side of the scanner's middle.
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
    """The side of a study of one knee, what says so, and where what says so disagrees."""
    ways: dict[str, set[Side]] = {
        "the header": {side for one in row for side in one.tag},
        "a series' description": {side for one in row for side in one.names},
        "the study's description": {side for one in row for side in one.study},
        PLACE: {one.place for one in row if one.place is not None},
    }
    ways = {name: sides for name, sides in ways.items() if sides}
    every = set().union(*ways.values()) if ways else set()
    if not every:
        return None, "nothing says it", []
    if len(every) == 2:
        told = "; ".join(
            f"{name} says {' and '.join(sorted(sides))}" for name, sides in ways.items()
        )
        return None, "what says it disagrees", [f"which knee it is stays unknown: {told}"]
    origins = {"the header": "the header says so", PLACE: PLACE}
    return every.pop(), origins.get(next(iter(ways)), "a description says so"), []
