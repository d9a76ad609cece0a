"""Reading of one study: choice of a series for each declared one, stacks, and the record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mrknee.errors import MrkneeError
from mrknee.exams import MRNET_SERIES, Plane, SeriesList, Stack
from mrknee.exams import Series as Declared
from mrknee.sources.clinical.anatomy import Side, names_knee, other_part
from mrknee.sources.clinical.framing import MRNET_FRAMING, Framed, Framing, frame
from mrknee.sources.clinical.geometry import Volume, mirrored, turned_degrees, upright
from mrknee.sources.clinical.nifti import is_nifti, read_nifti
from mrknee.sources.clinical.pixels import FOREIGN, read_volume
from mrknee.sources.clinical.protocol import (
    ORDER,
    Candidate,
    by_specificity,
    contrast_of,
    declared_contrast,
    matches,
    ranked,
    reason_not_chosen,
    target_of,
)
from mrknee.sources.clinical.refusals import FEW_SLICES, unusable_reason

MANY_NAMES = 6
"""Maximum number of series named in a reason; more are counted."""
PLACE = "its position in the scanner"
MAX_TURNED_DEGREES = 30.0
"""An image rotated by more than this within its plane is noted: MRNet's knees are upright."""
FRAMES = (
    "its planes have different frames of reference, without a statement that they show the same"
    " knee"
)

Choice = Mapping[str, frozenset[str]]
"""Declared series -> SeriesInstanceUIDs that the user requests for it, of any study."""


@dataclass(frozen=True)
class Study:
    """The series of one knee, described by their headers.

    Attributes:
        key: unique key. It contains identifiers and is never written.
        side, side_from: which knee, and the origin of this information.
        candidates: series of the study.
        notes: irregularities, one sentence each.
    """

    key: str
    side: Side | None
    side_from: str
    candidates: tuple[Candidate, ...] = ()
    notes: tuple[str, ...] = ()


def read_stack(one: Candidate, plane: Plane) -> Volume:
    """Reads a candidate's grey values from DICOM or NIfTI."""
    location = one.series.first.location
    return read_nifti(location, plane) if is_nifti(location) else read_volume(one.series)


@dataclass
class Outcome:
    """Result of reading a study.

    Attributes:
        stacks: declared series -> stack; empty if the study was refused.
        record: entry for import.json.
        failed: candidates that could not be read -> declared series they were chosen for.
    """

    stacks: dict[str, Stack]
    record: dict[str, Any] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)


def needs_decoder(study: Study) -> bool:
    """Returns whether a series of the study may need a decoder that isn't written in Python."""
    return any(one.series.first.syntax in FOREIGN for one in study.candidates)


def read_study(
    study: Study,
    choice: Choice,
    *,
    allow_missing_plane: bool,
    series: SeriesList = MRNET_SERIES,
    framing: Framing = MRNET_FRAMING,
    mirror_right: bool = False,
) -> Outcome:
    """Chooses, reads and frames a study's series.

    Args:
        study: headers of the study.
        choice: series that the user requests.
        allow_missing_plane: accept the study if at least one declared series is found.
        series: the declared series.
        framing: size and width of the window.
        mirror_right: mirror a right knee, so that it looks like a left one.

    Returns:
        The stacks and the record; without stacks, the record states the reason.
    """
    mirror = mirror_right and study.side == "right"
    work = _StudyReader(study, series, framing, mirror=mirror)
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
        "mirrored": mirror and reason is None,
        "missing": [one.name for one in missing],
        "planes": {} if reason else {n: work.planes[n] for n in series.names if n in work.planes},
        "warnings": work.warnings(() if reason else missing),
        "candidates": work.rows(),
    }
    stacks = {name: work.framed[name].stack for name in series.names if name in work.framed}
    return Outcome({} if reason else stacks, record, work.failed)


class _StudyReader:
    """State while the series of one study are chosen and read.

    Attributes:
        framed, planes, chosen: declared series -> framed stack, record, candidate.
        notes: declared series -> irregularities of its stack.
        why: candidates that can't be used -> reason.
        failed: candidates that could not be read -> declared series they were chosen for.
    """

    def __init__(self, study: Study, series: SeriesList, framing: Framing, *, mirror: bool) -> None:
        self.study, self.series = study, series
        self.framing, self.mirror = framing, mirror
        self.framed: dict[str, Framed] = {}
        self.planes: dict[str, dict[str, Any]] = {}
        self.chosen: dict[str, Candidate] = {}
        self.notes: dict[str, list[str]] = {name: [] for name in series.names}
        self.why = {one.name: one.refusal for one in study.candidates if one.refusal is not None}
        self.failed: dict[str, str] = {}
        self._frame_numbers: dict[str, int] = {}
        self.side, self.side_from = study.side, study.side_from

    def order_of_choice(self, choice: Choice) -> list[Declared]:
        """Sorts declared series for the choice: those with a series requested by the user first."""
        present = {one.series.first.series for one in self.study.candidates if not one.of_another}
        return sorted(
            by_specificity(self.series),
            key=lambda one: not present & choice.get(one.name, frozenset()),
        )

    def read_series(self, declared: Declared, wanted: frozenset[str]) -> None:
        """Reads the best candidate for a declared series that can be read."""
        asked = [
            one
            for one in self.study.candidates
            if one.series.first.series in wanted and not one.of_another
        ]
        row = ranked(self.study.candidates, declared)
        if asked:
            row = [
                one
                for one in asked
                if one.plane == declared.plane and not unusable_reason(one.series)
            ]
            row.sort(key=lambda one: (not matches(one, declared), -len(one.series.images)))
            if not row:
                self.notes[declared.name].append(
                    f"the requested series is not a {declared.plane} stack"
                )
        used = {one.name for one in self.chosen.values()} | self.failed.keys()
        for one in row:
            if one.name in used:
                continue
            try:
                volume = upright(read_stack(one, declared.plane), declared.plane)
                shown = mirrored(volume, declared.plane) if self.mirror else volume
                framed = frame(shown, declared.plane, self.framing)
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
                    f"{declared.name}: rotated by {turned:.0f} degrees within its plane"
                )
            return

    def why_refused(self, missing: Sequence[Declared]) -> str:
        """Returns why the study was refused, for each missing declared series."""
        if self.series == MRNET_SERIES:
            reason = f"no series for the plane{'s' * (len(missing) > 1)} "
            reason += ", ".join(one.name for one in missing)
            return reason + (f" ({_group_reasons(self.why)})" if self.why else "")
        lacks = "; ".join(f"{one.name}: {self._why_missing(one)}" for one in missing)
        why = f"; {_group_reasons(self.why)}" if self.why else ""
        return f"no series for {', '.join(one.name for one in missing)} ({lacks}{why})"

    def _why_missing(self, declared: Declared) -> str:
        """Returns why no candidate was used for a declared series."""
        usable = [
            one
            for one in self.study.candidates
            if one.plane == declared.plane and one.refusal is None
        ]
        if not usable:
            return f"no {declared.plane} series that can be used"
        of_contrast = [one for one in usable if matches(one, declared)]
        if not of_contrast:
            shown = [f"{one.name} is {contrast_of(one)}" for one in usable[:MANY_NAMES]]
            more = f", and {len(usable) - MANY_NAMES} more" * (len(usable) > MANY_NAMES)
            contrast = declared_contrast(declared)
            return f"no {declared.plane} series is {contrast}: {', '.join(shown)}{more}"
        used_for = {one.name: name for name, one in self.chosen.items()}
        return ", ".join(
            f"{one.name} is used for {used_for[one.name]}"
            if one.name in used_for
            else f"{one.name} {'can not be read' if one.name in self.failed else 'was not used'}"
            for one in of_contrast
        )

    def warnings(self, missing: Sequence[Declared]) -> list[str]:
        """Returns irregularities of the exam, and why declared series (not MRNet's) are missing."""
        found = [*self.study.notes, *(note for notes in self.notes.values() for note in notes)]
        if len(self.frames()) > 1 and (self.side is None or self.side_from == PLACE):
            found.append(FRAMES)
        if not any(names_knee(one.series.first) for one in self.study.candidates):
            found.append("the headers don't state that this is a knee")
        return found + [
            f"{one.name}: missing: {self._why_missing(one)}"
            for one in missing
            if one not in MRNET_SERIES
        ]

    def frames(self) -> set[str]:
        """Returns the frames of reference of the chosen series."""
        chosen = {one.series.first.frame_of_reference for one in self.chosen.values()}
        return chosen - {""}

    def _note(self, declared: Declared, one: Candidate, framed: Framed, *, by_user: bool) -> None:
        name, notes = declared.name, self.notes[declared.name]
        self.framed[name] = framed
        self.planes[name] = {
            **_shape(framed),
            "series": one.name,
            "spacing_mm": _rounded(one.series.spacing_mm),
            "frame": self._frame_number(one),
            "chosen_by": "you" if by_user else "the rule",
        }
        notes += [f"{name}: {note}" for note in (*one.series.notes, *framed.warnings)]
        count = len(one.series.images)
        if count < FEW_SLICES:
            notes.append(f"{name}: only {count} slice{'s' * (count != 1)}")
        tag = other_part(one.series.first)
        if tag and one.refusal is None:  # accepted by the user's option
            notes.append(f"{name}: {tag}")
        usual = ORDER[declared.plane][0][0]
        if declared in MRNET_SERIES and one.weighting != usual:
            notes.append(f"{name}: {one.weighting}, while MRNet has {usual}")
        if not matches(one, declared):
            contrast = declared_contrast(declared)
            notes.append(f"{name}: {contrast_of(one)}, while {contrast} is declared")

    def _frame_number(self, one: Candidate) -> int | None:
        """Returns a number that is equal for series of one frame of reference; None if unknown."""
        frame_of_reference = one.series.first.frame_of_reference
        if not frame_of_reference:
            return None
        return self._frame_numbers.setdefault(frame_of_reference, len(self._frame_numbers) + 1)

    def rows(self) -> list[dict[str, Any]]:
        """Returns one record per candidate, with its status and the reason."""
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
                reason = "requested" if by_user else f"the closest to {target_of(declared)}"
                return {"status": "chosen", "reason": reason}
        if one.name in self.why:
            return {"status": "refused", "reason": self.why[one.name]}
        return {"status": "not chosen", "reason": self._why_not_chosen(one)}

    def _why_not_chosen(self, one: Candidate) -> str:
        in_plane = [declared for declared in self.series if declared.plane == one.plane]
        fitting = [declared for declared in by_specificity(self.series) if matches(one, declared)]
        for declared in fitting:
            chosen = self.chosen.get(declared.name)
            if chosen is not None and self.planes[declared.name]["chosen_by"] == "you":
                return f"{chosen.name} was requested"
            if chosen is not None:
                return reason_not_chosen(one, chosen, declared)
        if fitting:
            return "no series was chosen for this plane"
        if in_plane:
            return f"no {one.plane} series is declared that is {contrast_of(one)}"
        return f"no {one.plane} series is declared"


def _group_reasons(why: Mapping[str, str]) -> str:
    """Groups reasons, each with the names of its series."""
    names: dict[str, list[str]] = {}
    for name, reason in why.items():
        names.setdefault(reason, []).append(name)
    return "; ".join(
        f"{', '.join(group) if len(group) <= MANY_NAMES else f'{len(group)} series'}: {reason}"
        for reason, group in names.items()
    )


def _shape(framed: Framed) -> dict[str, Any]:
    return {  # + 0.0 turns -0.0 into 0.0
        "slices": len(framed.stack),
        "pixel_mm": round(framed.pixel_mm, 4),
        "size": framed.stack.shape[1],
        "joint": list(framed.joint),
        "centre_mm": [round(float(place), 2) + 0.0 for place in framed.centre],
        "axes": [[round(float(part), 5) + 0.0 for part in axis] for axis in framed.axes],
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
