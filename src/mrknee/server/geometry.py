"""Distances, directions and positions of series, as far as a record of an import states them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mrknee.checks.layout import RECORD
from mrknee.errors import MrkneeError
from mrknee.exams import SeriesList
from mrknee.exams.axes import Shape
from mrknee.files import is_file
from mrknee.untrusted import read_json

_RSNA_FOLDER = "data"  # as in sources/rsna2026/importing.py, which imports much
_MAX_BYTES = 64_000_000  # about 5 kB per exam

_EDGES: Mapping[str, tuple[str, str, str, str]] = {
    "axial": ("R", "L", "A", "P"),
    "coronal": ("R", "L", "S", "I"),
    "sagittal": ("A", "P", "S", "I"),
}
"""Plane -> directions at the left, right, top and bottom edge after `mrknee import`
(docs/reference/import-rules.md, Orientation)."""


Vector = tuple[float, float, float]


@dataclass(frozen=True)
class SeriesPosition:
    """Position of a series in the patient's coordinates, in mm: x to the left, y back, z up.

    Attributes:
        frame: number of the frame of reference; positions can be compared where it is equal.
        first: centre of the first pixel of the first slice.
        steps: from slice to slice, row to row, column to column.
    """

    frame: int
    first: Vector
    steps: tuple[Vector, Vector, Vector]


@dataclass(frozen=True)
class SeriesGeometry:
    """Distances, directions and position of a series.

    Attributes:
        spacing: distance in mm of slices, rows and columns; None if unknown.
        edges: letters of the directions at the left, right, top and bottom edge; None if unknown.
        position: None if unknown.
    """

    spacing: Vector | None = None
    edges: tuple[str, str, str, str] | None = None
    position: SeriesPosition | None = None


def read_records(root: Path) -> Mapping[str, Any]:
    """Returns the record of each exam in a data set's `import.json`; empty if there is none.

    `mrknee rsna` writes `import.json` beside the folder of the data set.

    Args:
        root: the data set's folder.
    """
    file = root / RECORD
    if root.name == _RSNA_FOLDER and not is_file(file):
        file = root.parent / RECORD
    try:
        content = read_json(file, "record of an import", at_most=_MAX_BYTES)
    except MrkneeError:  # not written by an import
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
        position = None if spacing is None else _position(one, spacing, shape)
        found[name] = SeriesGeometry(spacing, (left, right, top, bottom), position)
    return found


def _position(
    one: Mapping[str, Any], spacing: tuple[float, float, float], shape: Shape
) -> SeriesPosition | None:
    """Returns the position that the record of a series states; None if it doesn't."""
    frame, centre, axes = one.get("frame"), one.get("centre_mm"), one.get("axes")
    if (
        not isinstance(frame, int)
        or not _is_vector(centre)
        or not isinstance(axes, list)
        or len(axes) != 3
        or not all(_is_vector(axis) and abs(math.hypot(*axis) - 1) < 1e-3 for axis in axes)
    ):
        return None
    steps = np.array(axes, dtype=float) * np.array(spacing)[:, None]
    first = np.array(centre, dtype=float) - (np.array(shape) - 1) / 2 @ steps
    return SeriesPosition(
        frame, _vector(first), (_vector(steps[0]), _vector(steps[1]), _vector(steps[2]))
    )


def _is_vector(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(isinstance(part, int | float) and math.isfinite(part) for part in value)
    )


def _vector(values: np.ndarray) -> Vector:
    x, y, z = (round(float(value), 4) for value in values)
    return x, y, z
