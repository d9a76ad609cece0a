"""One study: which knees it shows, which series stand for the planes, and the stacks of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mrknee.errors import MrkneeError
from mrknee.exams import PLANES, Plane
from mrknee.exams.exam import Stack
from mrknee.sources.clinical.anatomy import Side, names_knee
from mrknee.sources.clinical.framing import SIZE, Framed, frame
from mrknee.sources.clinical.geometry import Volume, turned_degrees, upright
from mrknee.sources.clinical.nifti import is_nifti, read_nifti
from mrknee.sources.clinical.pixels import FOREIGN, read_volume
from mrknee.sources.clinical.protocol import ORDER, Candidate, ranked, why_not
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

Choice = Mapping[Plane, frozenset[str]]
"""Plane -> the SeriesInstanceUIDs a user wants for it, of any study."""


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
        stacks: plane -> stack; empty if it was refused.
        record: what import.json says of it.
    """

    stacks: dict[Plane, Stack]
    record: dict[str, Any] = field(default_factory=dict)


def needs_decoder(study: Study) -> bool:
    """Whether one of its series may go through a decoder that isn't written in Python."""
    return any(one.series.first.syntax in FOREIGN for one in study.candidates)


def read_study(study: Study, choice: Choice, *, allow_missing_plane: bool) -> Outcome:
    """Chooses, reads and frames a study's planes.

    Args:
        study: what its headers say.
        choice: series that a user wants.
        allow_missing_plane: take it even if one or two planes are missing.

    Returns:
        Its stacks, or none and the reason why.
    """
    work = _Work(study)
    for plane in PLANES:
        work.read_series(plane, choice.get(plane, frozenset()))
    if len(work.frames()) > 1 and (work.side is None or work.side_from == PLACE):
        work.warnings.append(FRAMES)
    if not any(names_knee(one.series.first) for one in study.candidates):
        work.warnings.append("nothing in the headers says that this is a knee")
    missing = [plane for plane in PLANES if plane not in work.framed]
    reason = None
    if not work.framed or (missing and not allow_missing_plane):
        reason = f"no series for the plane{'s' * (len(missing) > 1)} {', '.join(missing)}"
        if work.why:
            reason += f" ({_together(work.why)})"
    record = {
        "imported": reason is None,
        "reason": reason,
        "side": work.side,
        "side_from": work.side_from,
        "missing": [str(plane) for plane in missing],
        "planes": work.planes if reason is None else {},
        "warnings": work.warnings,
        "candidates": work.rows(),
    }
    stacks = {plane: one.stack for plane, one in work.framed.items()}
    return Outcome({} if reason else stacks, record)


class _Work:
    """A study while its planes are chosen and read."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.framed: dict[Plane, Framed] = {}
        self.planes: dict[str, dict[str, Any]] = {}
        self.warnings: list[str] = list(study.notes)
        self.chosen: dict[Plane, Candidate] = {}
        self.why = {one.name: one.refusal for one in study.candidates if one.refusal is not None}
        self.side, self.side_from = study.side, study.side_from

    def read_series(self, plane: Plane, wanted: frozenset[str]) -> None:
        """Reads the plane's first candidate that can be read."""
        asked = [one for one in self.study.candidates if one.series.first.series in wanted]
        row = ranked(self.study.candidates, plane)
        if asked:
            fit = [one for one in asked if one.plane == plane and not unusable_because(one.series)]
            row = sorted(fit, key=lambda one: -len(one.series.images))
            if not row:
                self.warnings.append(f"the series asked for is no {plane} stack")
        for one in row:
            try:
                volume = upright(read_stack(one, plane), plane)
                framed = frame(volume, plane)
            except MrkneeError as error:
                self.why[one.name] = _one_line(error)
                continue
            self.why.pop(one.name, None)
            self.chosen[plane] = one
            self._note(plane, one, framed, by_user=bool(asked))
            turned = turned_degrees(volume, plane)
            if turned > MAX_TURNED_DEGREES:
                self.warnings.append(f"{plane}: turned by {turned:.0f} degrees within its plane")
            return

    def frames(self) -> set[str]:
        """The frames of reference of the chosen series."""
        chosen = {one.series.first.frame_of_reference for one in self.chosen.values()}
        return chosen - {""}

    def _note(self, plane: Plane, one: Candidate, framed: Framed, *, by_user: bool) -> None:
        self.framed[plane] = framed
        self.planes[plane] = {
            **_shape(framed),
            "series": one.name,
            "spacing_mm": _rounded(one.series.spacing_mm),
            "chosen_by": "you" if by_user else "the rule",
        }
        self.warnings += [f"{plane}: {note}" for note in (*one.series.notes, *framed.warnings)]
        count = len(one.series.images)
        if count < FEW_SLICES:
            self.warnings.append(f"{plane}: only {count} slice{'s' * (count != 1)}")
        wanted = ORDER[plane][0][0]
        if one.weighting != wanted:
            self.warnings.append(f"{plane}: {one.weighting} where MRNet has {wanted}")

    def rows(self) -> list[dict[str, Any]]:
        """The table of candidates, each with what became of it and why."""
        return [self._row(one) for one in self.study.candidates]

    def _row(self, one: Candidate) -> dict[str, Any]:
        first, series = one.series.first, one.series
        chosen = self.chosen.get(one.plane) if one.plane else None
        if chosen is None:
            reason = "no series was chosen for this plane"
        elif chosen is one:
            by = self.planes[str(one.plane)]["chosen_by"]
            reason = "asked for" if by == "you" else "the closest to MRNet's protocol"
        elif one.plane and self.planes[one.plane]["chosen_by"] == "you":
            reason = f"{chosen.name} was asked for"
        else:
            reason = "" if one.refusal else why_not(one, chosen)
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
            **self._status(one.name, reason),
        }

    def _status(self, name: str, reason: str) -> dict[str, str]:
        if any(plane["series"] == name for plane in self.planes.values()):
            return {"status": "chosen", "reason": reason}
        if name in self.why:
            return {"status": "refused", "reason": self.why[name]}
        return {"status": "not chosen", "reason": reason}


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
