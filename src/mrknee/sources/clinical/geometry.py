"""Plane and orientation of a stack.

Directions are unit vectors in DICOM's patient coordinates: x to the patient's left, y to the
back, z to the head (PS3.3 C.7.6.2.1.1).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Float32

from mrknee.exams import PLANES, Plane

Direction = Float[np.ndarray, "3"]
Axes = Float[np.ndarray, "3 3"]
"""Directions of an array's axes: across slices, down the rows, along the columns."""

# Orientation as in docs/background/phantom.md: axial slices from the head down, the front at the
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
    """Grey values of a series with their geometry.

    Attributes:
        values: float32 (slices, rows, cols), in any unit; NaN where a pixel is padding.
        axes: directions of the three axes.
        pixel_mm: distance between rows and between columns, mm.
        centre: centre of the volume in patient coordinates (x, y, z), mm.
    """

    values: Float32[np.ndarray, "slices rows cols"]
    axes: Axes
    pixel_mm: tuple[float, float]
    centre: Direction


def nearest_plane(normal: Direction) -> tuple[Plane, float]:
    """Returns the plane whose normal is closest to this one, and the angle in degrees."""
    closeness = [abs(float(SHOWN[plane][0] @ normal)) for plane in PLANES]
    best = int(np.argmax(closeness))
    length = float(np.linalg.norm(normal))
    return PLANES[best], float(np.degrees(np.arccos(min(1.0, closeness[best] / length))))


def upright(volume: Volume, plane: Plane) -> Volume:
    """Returns the volume with its axes exchanged and flipped to match `SHOWN` as far as possible.

    Nothing is interpolated. The slice axis is kept; only rows and columns may be exchanged.
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


def mirrored(volume: Volume, plane: Plane) -> Volume:
    """Returns an upright volume of a right knee as if it were a left one, or the reverse.

    Columns of axial and coronal slices and the order of sagittal slices are reversed, which all run
    from the patient's right to left.
    """
    axis = 0 if plane is Plane.SAGITTAL else 2
    axes = volume.axes.copy()
    axes[axis] *= -1.0
    return replace(volume, values=np.flip(volume.values, axis), axes=axes)


def turned_degrees(volume: Volume, plane: Plane) -> float:
    """Returns the in-plane rotation that `upright` leaves, 0 to 45 degrees.

    It is the angle within the slices between the direction of the columns and that of `SHOWN`.
    """
    normal, _, columns = volume.axes
    wanted = SHOWN[plane][2] - (SHOWN[plane][2] @ normal) * normal
    closeness = float(columns @ wanted / np.linalg.norm(wanted))
    return float(np.degrees(np.arccos(np.clip(closeness, -1.0, 1.0))))
