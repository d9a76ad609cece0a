"""One study: which knees it shows, which series stand for the planes, and the stacks of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mrknee.errors import MrkneeError
from mrknee.exams import PLANES, Plane
from mrknee.exams.exam import Stack
from mrknee.sources.clinical.anatomy import (
    Side,
    coded_side,
    described_side,
    names_knee,
    placed_side,
)
from mrknee.sources.clinical.framing import SIZE, Framed, frame
from mrknee.sources.clinical.geometry import nearest_plane, upright
from mrknee.sources.clinical.header import Image
from mrknee.sources.clinical.locate import Location
from mrknee.sources.clinical.nifti import plane_and_exam, read_nifti
from mrknee.sources.clinical.pixels import FOREIGN, read_volume
from mrknee.sources.clinical.protocol import (
    MAX_OBLIQUE_DEGREES,
    ORDER,
    Candidate,
    candidates,
    ranked,
    unusable_because,
    why_not,
)
from mrknee.sources.clinical.series import Series, sort_into_series

PLACE = "its place in the scanner"

Choice = Mapping[Plane, frozenset[str]]
"""Plane -> the SeriesInstanceUIDs a user wants for it, of any study."""


@dataclass(frozen=True)
class Study:
    """One knee's series, known by their headers.

    Attributes:
        key: what tells it from others; an identifier, so it stays inside.
        side, side_from: which knee, and what says so.
        candidates: DICOM series.
        volumes: or NIfTI files and the planes they are named by.
    """

    key: str
    side: Side | None
    side_from: str
    candidates: tuple[Candidate, ...] = ()
    volumes: tuple[tuple[Plane, Location], ...] = ()


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


def studies_of(images: Iterable[Image]) -> list[Study]:
    """DICOM images as studies; one that shows both knees becomes two."""
    by_study: dict[str, list[Image]] = {}
    for image in images:
        # without an identifier, what lies in one folder belongs together
        key = image.study or f"folder {image.location.name.parent}"
        by_study.setdefault(key, []).append(image)
    return [
        knee
        for key, group in by_study.items()
        for knee in _knees(key, candidates(sort_into_series(group)))
    ]


def nifti_studies(locations: Iterable[Location]) -> tuple[list[Study], int]:
    """NIfTI files as studies, and how many are named by no plane."""
    exams: dict[str, list[tuple[Plane, Location]]] = {}
    nameless = 0
    for location in locations:
        plane, key = plane_and_exam(location.name)
        if plane is None:
            nameless += 1
        else:
            exams.setdefault(key, []).append((plane, location))
    studies = []
    for key, volumes in exams.items():
        side = described_side(location.name.name.replace("_", " ") for _, location in volumes)
        origin = "a file's name says so" if side else "nothing says it"
        studies.append(Study(key, side, origin, volumes=tuple(volumes)))
    return studies, nameless


def _knees(key: str, found: Sequence[Candidate]) -> list[Study]:
    sides = {one.name: _side(one.series) for one in found}
    usable = [one for one in found if one.refusal is None]
    known = {said[0] for said in (sides[one.name] for one in usable) if said is not None}
    if len(known) == 2:
        return [
            Study(
                f"{key} {side}",
                side,
                "each of its series says which of the two",
                tuple(_of_knee(one, sides[one.name], side) for one in found),
            )
            for side in sorted(known)
        ]
    said = [sides[one.name] for one in usable or found if sides[one.name] is not None]
    which, origin = (said[0] if said else None) or (None, "nothing says it")
    return [Study(key, which, origin, tuple(found))]


def _of_knee(one: Candidate, said: tuple[Side, str] | None, side: Side) -> Candidate:
    """A candidate of a study of both knees, as one of them sees it."""
    if one.refusal is not None or (said is not None and said[0] == side):
        return one
    reason = "the other knee" if said is not None else "nothing says which of the two knees it is"
    return replace(one, refusal=reason)


def _side(series: Series) -> tuple[Side, str] | None:
    """Which knee a series shows, and how that is known."""
    first, centre = series.first, series.centre
    ways: tuple[tuple[Side | None, str], ...] = (
        (coded_side(first.laterality), "the header says so"),
        (described_side(first.names), "a description says so"),
        (described_side(first.words), "a description says so"),
        (None if centre is None else placed_side(float(centre[0])), PLACE),
    )
    return next(((side, origin) for side, origin in ways if side is not None), None)


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
    if study.volumes:
        work.read_volumes()
    else:
        for plane in PLANES:
            work.read_series(plane, choice.get(plane, frozenset()))
        if not any(names_knee(one.series.first) for one in study.candidates):
            work.warnings.append("nothing in the headers says that this is a knee")
    missing = [plane for plane in PLANES if plane not in work.framed]
    reason = None
    if not work.framed or (missing and not allow_missing_plane):
        reason = f"no series for the plane{'s' * (len(missing) > 1)} {', '.join(missing)}"
        if work.why:
            reason += " (" + "; ".join(f"{name}: {why}" for name, why in work.why.items()) + ")"
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
        self.warnings: list[str] = []
        self.chosen: dict[Plane, Candidate] = {}
        self.why = {one.name: one.refusal for one in study.candidates if one.refusal is not None}
        self.side, self.side_from = study.side, study.side_from
        self._files: list[dict[str, Any]] = []

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
                framed = frame(upright(read_volume(one.series), plane), plane)
            except MrkneeError as error:
                self.why[one.name] = _one_line(error)
                continue
            self.why.pop(one.name, None)
            self.chosen[plane] = one
            self._note(plane, one, framed, by_user=bool(asked))
            return

    def _note(self, plane: Plane, one: Candidate, framed: Framed, *, by_user: bool) -> None:
        self.framed[plane] = framed
        self.planes[plane] = {
            **_shape(framed),
            "series": one.name,
            "spacing_mm": _rounded(one.series.spacing_mm),
            "chosen_by": "you" if by_user else "the rule",
        }
        self.warnings += [f"{plane}: {note}" for note in (*one.series.notes, *framed.warnings)]
        wanted = ORDER[plane][0][0]
        if one.weighting != wanted:
            self.warnings.append(f"{plane}: {one.weighting} where MRNet has {wanted}")

    def read_volumes(self) -> None:
        """Reads a study of NIfTI files."""
        for index, (plane, location) in enumerate(self.study.volumes, start=1):
            name = f"s{index}"
            row: dict[str, Any] = {"name": name, "plane": str(plane)}
            self._files.append(row)
            try:
                if [other for other, _ in self.study.volumes].count(plane) > 1:
                    raise MrkneeError("several files are named by this plane")
                volume = read_nifti(location, plane)
                nearest, angle = nearest_plane(volume.axes[0])
                row |= {"angle_deg": _rounded(angle), "slices": len(volume.values)}
                if nearest != plane or angle > MAX_OBLIQUE_DEGREES:
                    raise MrkneeError(f"none of its axes is close to the {plane} plane's normal")
                framed = frame(upright(volume, plane), plane)
            except MrkneeError as error:
                self.why[name] = _one_line(error)
                continue
            self.framed[plane] = framed
            self.planes[plane] = {**_shape(framed), "series": name, "chosen_by": "its name"}
            if self.side is None and (side := placed_side(float(volume.centre[0]))):
                self.side, self.side_from = side, PLACE

    def rows(self) -> list[dict[str, Any]]:
        """The table of candidates, each with what became of it and why."""
        if self._files:
            reason = "named by its plane"
            return [{**row, **self._status(row["name"], reason)} for row in self._files]
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
