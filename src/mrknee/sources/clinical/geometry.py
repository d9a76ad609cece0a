"""Which plane a stack lies in, and which way round it is shown.

Directions are unit vectors in DICOM's patient coordinates: x to the patient's left, y to the
back, z to the head (PS3.3 C.7.6.2.1.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from mrknee.exams import PLANES, Plane

Direction = Float[np.ndarray, "3"]
Axes = Float[np.ndarray, "3 3"]
"""Where an array's axes point: along slices, down the rows, along the columns."""

# The contract of docs/background/phantom.md: axial slices from the head down, the front at the
# top, the patient's right at the left; coronal from front to back, the head at the top, the
# patient's right at the left; sagittal from the patient's right to left, the head at the top, the
# front at the left.
SHOWN: dict[Plane, Axes] = {
    Plane.AXIAL: np.array([[0, 0, -1], [0, 1, 0], [1, 0, 0]], dtype=float),
    Plane.CORONAL: np.array([[0, 1, 0], [0, 0, -1], [1, 0, 0]], dtype=float),
    Plane.SAGITTAL: np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]], dtype=float),
}


@dataclass(frozen=True)
class Volume:
    """A series' grey values and how they lie in the patient.

    Attributes:
        values: float32 (slices, rows, cols), in any unit; NaN where a pixel is padding.
        axes: where the three axes point.
        pixel_mm: distance of rows, and of columns, in mm.
        centre: the middle of the volume in the patient, (x, y, z) in mm.
    """

    values: Float32[np.ndarray, "slices rows cols"]
    axes: Axes
    pixel_mm: tuple[float, float]
    centre: Direction


def nearest_plane(normal: Direction) -> tuple[Plane, float]:
    """The plane whose normal is closest to this one, and the angle between them in degrees."""
    closeness = [abs(float(SHOWN[plane][0] @ normal)) for plane in PLANES]
    best = int(np.argmax(closeness))
    length = float(np.linalg.norm(normal))
    return PLANES[best], float(np.degrees(np.arccos(min(1.0, closeness[best] / length))))


def upright(volume: Volume, plane: Plane) -> Volume:
    """The same volume with its axes swapped and turned to what `SHOWN` says, as near as can be.

    Nothing is interpolated. Slices stay slices; only rows and columns may change places.
    """
    wanted = SHOWN[plane]
    values, axes = volume.values, volume.axes
    row_mm, col_mm = volume.pixel_mm
    along = np.abs(axes[1:] @ wanted[1:].T)  # (axis 1 or 2, wanted rows or columns)
    if along[0, 1] + along[1, 0] > along[0, 0] + along[1, 1]:
        values, axes = values.transpose(0, 2, 1), axes[[0, 2, 1]]
        row_mm, col_mm = col_mm, row_mm
    backwards = (axes * wanted).sum(axis=1) < 0
    flipped = np.flip(values, tuple(int(axis) for axis in np.flatnonzero(backwards)))
    signs = np.where(backwards, -1.0, 1.0)
    return Volume(flipped, axes * signs[:, None], (row_mm, col_mm), volume.centre)


def turned_degrees(volume: Volume, plane: Plane) -> float:
    """By how much an upright volume is turned within its plane, 0 to 45 degrees.

    `upright` only exchanges axes; what is left is the angle between the columns' direction and
    where the plane's columns point, seen within the slices.
    """
    normal, _, columns = volume.axes
    wanted = SHOWN[plane][2] - (SHOWN[plane][2] @ normal) * normal
    closeness = float(columns @ wanted / np.linalg.norm(wanted))
    return float(np.degrees(np.arccos(np.clip(closeness, -1.0, 1.0))))
