"""One study: which of its series stand for the declared ones, and the stacks of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mrknee.errors import MrkneeError
from mrknee.exams import MRNET_SERIES, Plane, SeriesList, Stack
from mrknee.exams import Series as Declared
from mrknee.sources.clinical.anatomy import Side, names_knee, other_part
from mrknee.sources.clinical.framing import SIZE, Framed, frame
from mrknee.sources.clinical.geometry import Volume, turned_degrees, upright
from mrknee.sources.clinical.nifti import is_nifti, read_nifti
from mrknee.sources.clinical.pixels import FOREIGN, read_volume
from mrknee.sources.clinical.protocol import (
    ORDER,
    Candidate,
    aim_of,
    contrast_of,
    declared_contrast,
    in_turn,
    matches,
    ranked,
    why_not,
)
from mrknee.sources.clinical.refusals import FEW_SLICES, unusable_because

MANY_NAMES = 6
"""So many series are named in a reason; more are counted."""
PLACE = "its place in the scanner"
MAX_TURNED_DEGREES = 30.0
"""An image turned further than this within its plane is noted: MRNet's knees stand upright."""
FRAMES = (
    "its planes were measured in different frames of reference, and nothing says that they show"
    " the same knee"
)

Choice = Mapping[str, frozenset[str]]
"""Declared series -> the SeriesInstanceUIDs a user wants for it, of any study."""


@dataclass(frozen=True)
class Study:
    """One knee's series, known by their headers.

    Attributes:
        key: what tells it from others; an identifier, so it stays inside.
        side, side_from: which knee, and what says so.
        candidates: its series.
        notes: what is odd about it, one sentence each.
    """

    key: str
    side: Side | None
    side_from: str
    candidates: tuple[Candidate, ...] = ()
    notes: tuple[str, ...] = ()


def read_stack(one: Candidate, plane: Plane) -> Volume:
    """A candidate's grey values, from DICOM or NIfTI."""
    location = one.series.first.location
    return read_nifti(location, plane) if is_nifti(location) else read_volume(one.series)


@dataclass
class Outcome:
    """What became of a study.

    Attributes:
        stacks: declared series -> stack; empty if it was refused.
        record: what import.json says of it.
        failed: candidates that could not be read -> the declared series that they were to be.
    """

    stacks: dict[str, Stack]
    record: dict[str, Any] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)


def needs_decoder(study: Study) -> bool:
    """Whether one of its series may go through a decoder that isn't written in Python."""
    return any(one.series.first.syntax in FOREIGN for one in study.candidates)


def read_study(
    study: Study,
    choice: Choice,
    *,
    allow_missing_plane: bool,
    series: SeriesList = MRNET_SERIES,
) -> Outcome:
    """Chooses, reads and frames a study's series.

    Args:
        study: what its headers say.
        choice: series that a user wants.
        allow_missing_plane: take it even if declared series are missing, but not all of them.
        series: the declared series.

    Returns:
        Its stacks, or none and the reason why.
    """
    work = _Work(study, series)
    for declared in work.order_of_choice(choice):
        work.read_series(declared, choice.get(declared.name, frozenset()))
    missing = [one for one in series if one.name not in work.framed]
    reason = None
    if not work.framed or (missing and not allow_missing_plane):
        reason = work.why_refused(missing)
    record = {
        "imported": reason is None,
        "reason": reason,
        "side": work.side,
        "side_from": work.side_from,
        "missing": [one.name for one in missing],
        "planes": {} if reason else {n: work.planes[n] for n in series.names if n in work.planes},
        "warnings": work.warnings(() if reason else missing),
        "candidates": work.rows(),
    }
    stacks = {name: work.framed[name].stack for name in series.names if name in work.framed}
    return Outcome({} if reason else stacks, record, work.failed)


class _Work:
    """A study while its series are chosen and read.

    Attributes:
        framed, planes, chosen: declared series -> its stack, its record, its candidate.
        notes: declared series -> what is odd about its stack.
        why: candidates that can't be used -> the reason.
        failed: candidates that could not be read -> the declared series that they were to be.
    """

    def __init__(self, study: Study, series: SeriesList) -> None:
        self.study, self.series = study, series
        self.framed: dict[str, Framed] = {}
        self.planes: dict[str, dict[str, Any]] = {}
        self.chosen: dict[str, Candidate] = {}
        self.notes: dict[str, list[str]] = {name: [] for name in series.names}
        self.why = {one.name: one.refusal for one in study.candidates if one.refusal is not None}
        self.failed: dict[str, str] = {}
        self.side, self.side_from = study.side, study.side_from

    def order_of_choice(self, choice: Choice) -> list[Declared]:
        """Declared series as they choose: those that a user has chosen for come first."""
        there = {one.series.first.series for one in self.study.candidates}
        return sorted(
            in_turn(self.series), key=lambda one: not there & choice.get(one.name, frozenset())
        )

    def read_series(self, declared: Declared, wanted: frozenset[str]) -> None:
        """Reads the first candidate for a declared series that can be read."""
        asked = [one for one in self.study.candidates if one.series.first.series in wanted]
        row = ranked(self.study.candidates, declared)
        if asked:
            row = [
                one
                for one in asked
                if one.plane == declared.plane and not unusable_because(one.series)
            ]
            row.sort(key=lambda one: (not matches(one, declared), -len(one.series.images)))
            if not row:
                self.notes[declared.name].append(
                    f"the series asked for is no {declared.plane} stack"
                )
        used = {one.name for one in self.chosen.values()} | self.failed.keys()
        for one in row:
            if one.name in used:
                continue
            try:
                volume = upright(read_stack(one, declared.plane), declared.plane)
                framed = frame(volume, declared.plane)
            except MrkneeError as error:
                self.why[one.name] = _one_line(error)
                self.failed[one.name] = declared.name
                continue
            self.why.pop(one.name, None)
            self.chosen[declared.name] = one
            self._note(declared, one, framed, by_user=bool(asked))
            turned = turned_degrees(volume, declared.plane)
            if turned > MAX_TURNED_DEGREES:
                self.notes[declared.name].append(
                    f"{declared.name}: turned by {turned:.0f} degrees within its plane"
                )
            return

    def why_refused(self, missing: Sequence[Declared]) -> str:
        """Why the study is no exam, by the declared series that it lacks."""
        if self.series == MRNET_SERIES:
            reason = f"no series for the plane{'s' * (len(missing) > 1)} "
            reason += ", ".join(one.name for one in missing)
            return reason + (f" ({_together(self.why)})" if self.why else "")
        lacks = "; ".join(f"{one.name}: {self._why_missing(one)}" for one in missing)
        why = f"; {_together(self.why)}" if self.why else ""
        return f"no series for {', '.join(one.name for one in missing)} ({lacks}{why})"

    def _why_missing(self, declared: Declared) -> str:
        """Why no candidate stands for a declared series."""
        there = [
            one
            for one in self.study.candidates
            if one.plane == declared.plane and one.refusal is None
        ]
        if not there:
            return f"no {declared.plane} series that can be used"
        of_contrast = [one for one in there if matches(one, declared)]
        if not of_contrast:
            shown = [f"{one.name} is {contrast_of(one)}" for one in there[:MANY_NAMES]]
            more = f", and {len(there) - MANY_NAMES} more" * (len(there) > MANY_NAMES)
            contrast = declared_contrast(declared)
            return f"no {declared.plane} series is {contrast}: {', '.join(shown)}{more}"
        stands_for = {one.name: name for name, one in self.chosen.items()}
        return ", ".join(
            f"{one.name} stands for {stands_for[one.name]}"
            if one.name in stands_for
            else f"{one.name} {'can not be read' if one.name in self.failed else 'was not taken'}"
            for one in of_contrast
        )

    def warnings(self, missing: Sequence[Declared]) -> list[str]:
        """What is odd about the exam, and why it lacks declared series other than MRNet's."""
        found = [*self.study.notes, *(note for notes in self.notes.values() for note in notes)]
        if len(self.frames()) > 1 and (self.side is None or self.side_from == PLACE):
            found.append(FRAMES)
        if not any(names_knee(one.series.first) for one in self.study.candidates):
            found.append("nothing in the headers says that this is a knee")
        return found + [
            f"{one.name}: missing: {self._why_missing(one)}"
            for one in missing
            if one not in MRNET_SERIES
        ]

    def frames(self) -> set[str]:
        """The frames of reference of the chosen series."""
        chosen = {one.series.first.frame_of_reference for one in self.chosen.values()}
        return chosen - {""}

    def _note(self, declared: Declared, one: Candidate, framed: Framed, *, by_user: bool) -> None:
        name, notes = declared.name, self.notes[declared.name]
        self.framed[name] = framed
        self.planes[name] = {
            **_shape(framed),
            "series": one.name,
            "spacing_mm": _rounded(one.series.spacing_mm),
            "chosen_by": "you" if by_user else "the rule",
        }
        notes += [f"{name}: {note}" for note in (*one.series.notes, *framed.warnings)]
        count = len(one.series.images)
        if count < FEW_SLICES:
            notes.append(f"{name}: only {count} slice{'s' * (count != 1)}")
        tag = other_part(one.series.first)
        if tag and one.refusal is None:  # as the user wants it
            notes.append(f"{name}: {tag}")
        usual = ORDER[declared.plane][0][0]
        if declared in MRNET_SERIES and one.weighting != usual:
            notes.append(f"{name}: {one.weighting} where MRNet has {usual}")
        if not matches(one, declared):
            contrast = declared_contrast(declared)
            notes.append(f"{name}: {contrast_of(one)} where {contrast} is declared")

    def rows(self) -> list[dict[str, Any]]:
        """The table of candidates, each with what became of it and why."""
        return [self._row(one) for one in self.study.candidates]

    def _row(self, one: Candidate) -> dict[str, Any]:
        first, series = one.series.first, one.series
        return {
            "name": one.name,
            "plane": one.plane and str(one.plane),
            "angle_deg": _rounded(one.angle_deg),
            "weighting": one.weighting,
            "fat_saturated": one.fat_saturated,
            "te_ms": _rounded(first.te_ms),
            "tr_ms": _rounded(first.tr_ms),
            "slices": len(series.images),
            "rows": first.rows,
            "cols": first.cols,
            "pixel_mm": [_rounded(size) for size in first.pixel_mm],
            "spacing_mm": _rounded(series.spacing_mm),
            **self._status(one),
        }

    def _status(self, one: Candidate) -> dict[str, str]:
        for declared in self.series:
            if self.chosen.get(declared.name) is one:
                by_user = self.planes[declared.name]["chosen_by"] == "you"
                reason = "asked for" if by_user else f"the closest to {aim_of(declared)}"
                return {"status": "chosen", "reason": reason}
        if one.name in self.why:
            return {"status": "refused", "reason": self.why[one.name]}
        return {"status": "not chosen", "reason": self._why_not_chosen(one)}

    def _why_not_chosen(self, one: Candidate) -> str:
        in_plane = [declared for declared in self.series if declared.plane == one.plane]
        fitting = [declared for declared in in_turn(self.series) if matches(one, declared)]
        for declared in fitting:
            chosen = self.chosen.get(declared.name)
            if chosen is not None and self.planes[declared.name]["chosen_by"] == "you":
                return f"{chosen.name} was asked for"
            if chosen is not None:
                return why_not(one, chosen, declared)
        if fitting:
            return "no series was chosen for this plane"
        if in_plane:
            return f"no {one.plane} series is declared that is {contrast_of(one)}"
        return f"no {one.plane} series is declared"


def _together(why: Mapping[str, str]) -> str:
    """Reasons, each with the names of the series it holds for."""
    names: dict[str, list[str]] = {}
    for name, reason in why.items():
        names.setdefault(reason, []).append(name)
    return "; ".join(
        f"{', '.join(whose) if len(whose) <= MANY_NAMES else f'{len(whose)} series'}: {reason}"
        for reason, whose in names.items()
    )


def _shape(framed: Framed) -> dict[str, Any]:
    return {
        "slices": len(framed.stack),
        "pixel_mm": round(framed.pixel_mm, 4),
        "size": SIZE,
        "joint": list(framed.joint),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _one_line(error: MrkneeError) -> str:
    parts = [error.what]
    if error.expected:
        parts.append(f"expected {error.expected}")
    if error.found:
        parts.append(f"found {error.found}")
    return ", ".join(parts)
