"""Distances and directions of series, as far as a record of `mrknee import` states them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mrknee.checks.layout import RECORD
from mrknee.errors import MrkneeError
from mrknee.exams import SeriesList
from mrknee.exams.axes import Shape
from mrknee.untrusted import read_json

_MAX_BYTES = 64_000_000  # about 5 kB per exam

_EDGES: Mapping[str, tuple[str, str, str, str]] = {
    "axial": ("R", "L", "A", "P"),
    "coronal": ("R", "L", "S", "I"),
    "sagittal": ("A", "P", "S", "I"),
}
"""Plane -> directions at the left, right, top and bottom edge after `mrknee import`
(docs/reference/import-rules.md, Orientation)."""


@dataclass(frozen=True)
class SeriesGeometry:
    """Distances and directions of a series.

    Attributes:
        spacing: distance in mm of slices, rows and columns; None if unknown.
        edges: letters of the directions at the left, right, top and bottom edge; None if unknown.
    """

    spacing: tuple[float, float, float] | None = None
    edges: tuple[str, str, str, str] | None = None


def read_records(root: Path) -> Mapping[str, Any]:
    """Returns the record of each exam in a data set's `import.json`; empty if there is none.

    Args:
        root: the data set's folder.
    """
    try:
        content = read_json(root / RECORD, "record of an import", at_most=_MAX_BYTES)
    except MrkneeError:  # not written by `mrknee import`
        return {}
    exams = content.get("exams") if isinstance(content, dict) else None
    return exams if isinstance(exams, dict) else {}


def geometry_of(
    record: object, series: SeriesList, shapes: Mapping[str, Shape]
) -> dict[str, SeriesGeometry]:
    """Returns what the record of an exam states about its series.

    Args:
        record: the exam's entry of `import.json`.
        series: the series that the exam may have.
        shapes: series -> shape of the stack. Nothing is returned for a stack that differs from the
            one that the import wrote.
    """
    planes = record.get("planes") if isinstance(record, dict) else None
    if not isinstance(record, dict) or not isinstance(planes, dict):
        return {}
    found = {}
    for name, shape in shapes.items():
        one = planes.get(name)
        if (
            not isinstance(one, dict)
            or (one.get("slices"), one.get("size"), one.get("size")) != shape
        ):
            continue
        left, right, top, bottom = _EDGES[series.planes[name]]
        if record.get("mirrored") is True and left == "R":
            left, right = right, left
        pixel, between = one.get("pixel_mm"), one.get("spacing_mm")
        spacing = None
        if isinstance(pixel, int | float) and isinstance(between, int | float):
            spacing = (float(between), float(pixel), float(pixel))
        found[name] = SeriesGeometry(spacing, (left, right, top, bottom))
    return found
