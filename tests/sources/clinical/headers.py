"""Headers without files, for tests of rules that use headers only."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mrknee.exams import Plane
from mrknee.sources.clinical.geometry import SHOWN
from mrknee.sources.clinical.header import Image, blank
from mrknee.sources.clinical.locate import Location
from mrknee.sources.clinical.protocol import Candidate, candidates
from mrknee.sources.clinical.series import sort_into_series

BLANK = blank(Location(Path()))
DEFAULTS: dict[str, Any] = {
    "study": "study",
    "series": "series",
    "patient": "P1",
    "modality": "MR",
    "kind": ("ORIGINAL", "PRIMARY", "M", "ND"),
    "names": ("SAG PD FS", ""),
    "study_words": ("MRI KNEE",),
    "body_part": "KNEE",
    "technique": ("SE",),
    "te_ms": 30.0,
    "tr_ms": 3000.0,
    "rows": 256,
    "cols": 256,
}


def images(
    plane: Plane = Plane.SAGITTAL,
    count: int = 20,
    *,
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0),
    spacing: float = 4.0,
    pixel: float = 0.6,
    first: int = 1,
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0),
    **header: Any,  # noqa: ANN401
) -> list[Image]:
    """The headers of one stack.

    Args:
        plane: its plane.
        count: number of slices.
        centre: centre of the stack in patient coordinates, mm.
        spacing: distance between slices, mm.
        pixel: edge of a pixel, mm.
        first: number of the first image.
        shift: additional shift from slice to slice, mm.
        header: values of the headers, by the names of `Image`'s fields.
    """
    header = {**DEFAULTS, "series_number": header.get("series_number", 1), **header}
    slices, rows, cols = SHOWN[plane]
    half = (header["rows"] - 1) / 2 * pixel, (header["cols"] - 1) / 2 * pixel
    found = []
    for index in range(count):
        middle = np.array(centre) + (index - (count - 1) / 2) * (spacing * slices + np.array(shift))
        corner = middle - half[0] * rows - half[1] * cols
        uid = f"{header['series']} {header['series_number']} {first + index} {header['te_ms']}"
        place = {
            "frame": 0,
            "number": first + index,
            "instance": f"{uid} {centre}",
            "location": Location(Path(f"{uid} {centre}")),
            "position": tuple(corner.round(4)),
            "orientation": (*cols, *rows),
            "pixel_mm": (pixel, pixel),
        }
        found.append(replace(BLANK, **{**place, **header}))
    return found


def candidate(*args: Any, **header: Any) -> Candidate:  # noqa: ANN401
    """One stack as a candidate; the arguments are those of `images`."""
    (found,) = candidates(sort_into_series(images(*args, **header)))
    return found
