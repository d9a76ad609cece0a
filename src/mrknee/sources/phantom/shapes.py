"""Shapes as signed distances on a voxel grid, and the canvas they are painted on.

Space is DICOM's patient space in millimetres: x to the patient's left, y to the back, z up.
The grid's axes are ordered as images are read: index 0 of the volume runs from superior to
inferior, index 1 from anterior to posterior, index 2 from the patient's right to the left.
Distances are negative inside; an edge is one voxel wide (anti-aliased coverage).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Float32
from scipy.interpolate import PchipInterpolator

Field = Float32[np.ndarray, "..."]
"""Values on a box of the grid (or broadcastable to it): float32, axes z, y, x."""
Point = tuple[float, float, float]
Coordinates = tuple[Field, Field, Field]
"""Local coordinates of a box's voxels in mm: u lateral, v anterior, w superior."""


@dataclass(frozen=True)
class Frame:
    """Local coordinates of a bone, scaled by its size: local = axes @ (world - origin).

    Attributes:
        axes: rows are the local directions u (lateral), v (anterior), w (superior) in world
            coordinates, divided by the bone's scale, so that local lengths are those of an
            average adult.
        origin: local origin in world coordinates, mm.
    """

    axes: Float[np.ndarray, "3 3"]
    origin: Float[np.ndarray, " 3"]

    def to_world(self, local: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """Converts local points to world coordinates (mm)."""
        return np.asarray(local @ np.linalg.inv(self.axes).T + self.origin)

    def to_local(self, world: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """Converts world points (mm) to local coordinates."""
        return np.asarray((world - self.origin) @ self.axes.T)


@dataclass(frozen=True)
class Box:
    """A part of the grid: its slices and the world coordinates of its voxels (mm)."""

    slices: tuple[slice, slice, slice]
    x: Field
    y: Field
    z: Field

    def local(self, frame: Frame, step: int = 1) -> Coordinates:
        """Returns the voxels' coordinates in a frame; ``step`` 2 takes every second voxel."""
        x, y, z = self.x, self.y, self.z
        if step > 1:
            x, y, z = (_thin(axis, step) for axis in (x, y, z))
        parts: list[Field] = []
        for row, offset in zip(frame.axes, frame.axes @ frame.origin, strict=True):
            a, b, c = (float(value) for value in row)
            parts.append(
                (z[:, None, None] * c - float(offset) + y[None, :, None] * b) + x[None, None, :] * a
            )
        return parts[0], parts[1], parts[2]

    def evaluate(self, frame: Frame, shape: Callable[[Field, Field, Field], Field]) -> Field:
        """Computes a smooth field on every second voxel and interpolates it, to save time."""
        coarse = shape(*self.local(frame, step=2))
        return expand(coarse, (len(self.z), len(self.y), len(self.x)))


def _thin(axis: Field, step: int) -> Field:
    """Returns every ``step``-th coordinate, extended so that interpolation covers the end."""
    count = -(-(len(axis) - 1) // step) + 1
    spacing = (axis[1] - axis[0]) * step
    return np.asarray(axis[0] + spacing * np.arange(count), np.float32)


def expand(values: Field, shape: Sequence[int]) -> Field:
    """Interpolates a field on every second voxel linearly to all voxels of ``shape``."""
    for axis, size in enumerate(shape):
        values = _double(values, axis, size)
    return values


def _double(values: Field, axis: int, size: int) -> Field:
    """Interpolates linearly to twice the samples along an axis, cropped to ``size``."""
    values = np.moveaxis(values, axis, 0)
    out = np.empty((2 * values.shape[0] - 1, *values.shape[1:]), np.float32)
    out[::2] = values
    np.add(values[:-1], values[1:], out=out[1::2])
    out[1::2] *= 0.5
    return np.moveaxis(out[:size], 0, axis)


@dataclass(frozen=True)
class Grid:
    """An isotropic voxel grid centred on the world's origin.

    Attributes:
        spacing: voxel edge in mm.
        extent: full extents along (z, y, x) in mm.
    """

    spacing: float
    extent: tuple[float, float, float]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along (z, y, x)."""
        z, y, x = (round(length / self.spacing) for length in self.extent)
        return z, y, x

    def axis(self, index: int) -> Field:
        """Returns the voxels' world coordinates (mm) on axis 0 (z, descending), 1 (y) or 2 (x)."""
        count = self.shape[index]
        line = (np.arange(count, dtype=np.float32) - (count - 1) / 2) * self.spacing
        return np.asarray(-line if index == 0 else line, np.float32)

    def box(self, points: Float[np.ndarray, "n 3"], pad: float) -> Box:
        """Returns the smallest box around world points (x, y, z), padded by ``pad`` mm."""
        low, high = points.min(axis=0) - pad, points.max(axis=0) + pad
        lines = [self.axis(index) for index in range(3)]
        cuts = []
        for line, a, b in zip(lines, low[::-1], high[::-1], strict=True):
            inside = np.flatnonzero((line >= a) & (line <= b))
            nearest = int(np.argmin(np.abs(line - (a + b) / 2)))
            first, last = (int(inside[0]), int(inside[-1])) if len(inside) else (nearest, nearest)
            first = min(first, len(line) - 2)
            cuts.append(slice(first, max(last + 1, first + 2)))
        z, y, x = (line[cut] for line, cut in zip(lines, cuts, strict=True))
        return Box((cuts[0], cuts[1], cuts[2]), x, y, z)

    def everything(self) -> Box:
        """Returns the complete grid as a box."""
        z, y, x = (self.axis(index) for index in range(3))
        return Box((slice(0, len(z)), slice(0, len(y)), slice(0, len(x))), x, y, z)


@dataclass
class Canvas:
    """Signal volumes, one per contrast, on which tissues are painted.

    Attributes:
        grid: voxel grid.
        signals: tissue name -> signal in each contrast.
        volumes: float32 (contrasts, z, y, x), starting as air.
        marks: lesion -> boxes with its coverage, 0..1.
    """

    grid: Grid
    signals: dict[str, tuple[float, ...]]
    volumes: Float32[np.ndarray, "c z y x"] = field(init=False)
    marks: dict[Hashable, list[tuple[Box, Field]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        contrasts = len(next(iter(self.signals.values())))
        self.volumes = np.zeros((contrasts, *self.grid.shape), np.float32)

    def coverage(self, distance: Field) -> Field:
        """Returns the share of each voxel that lies inside, 0..1, from signed distances in mm."""
        cover = distance * (-1.0 / self.grid.spacing)
        cover += 0.5
        return np.asarray(np.clip(cover, 0.0, 1.0, out=cover))

    def paint(self, box: Box, cover: Field, tissue: str, gain: Field | None = None) -> None:
        """Blends a tissue over the present signal; ``gain`` multiplies the tissue's signal."""
        for volume, signal in zip(self.volumes, self.signals[tissue], strict=True):
            part = volume[box.slices]
            change = signal - part if gain is None else signal * gain - part
            change *= cover
            part += change

    def mark(self, lesion: Hashable, box: Box, cover: Field) -> None:
        """Records a lesion's coverage for the masks."""
        self.marks.setdefault(lesion, []).append((box, cover.astype(np.float32)))

    def hide(self, box: Box, cover: Field) -> None:
        """Removes a region that is painted over from all lesions marked so far."""
        for marked, lesion in [mark for marks in self.marks.values() for mark in marks]:
            pairs = list(zip(marked.slices, box.slices, strict=True))
            starts = [max(a.start, b.start) for a, b in pairs]
            stops = [min(a.stop, b.stop) for a, b in pairs]
            if all(start < stop for start, stop in zip(starts, stops, strict=True)):
                shared = list(zip(starts, stops, pairs, strict=True))
                in_lesion = tuple(slice(i - a.start, j - a.start) for i, j, (a, _) in shared)
                in_cover = tuple(slice(i - b.start, j - b.start) for i, j, (_, b) in shared)
                lesion[in_lesion] *= 1.0 - cover[in_cover]


def ramp(values: Field, low: float, high: float) -> Field:
    """Returns a smooth step from 0 at ``low`` to 1 at ``high``; descending if low > high."""
    t = np.clip((values - low) * (1.0 / (high - low)), 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t))


def union(a: Field, b: Field, blend: float) -> Field:
    """Returns the union of shapes with a seam rounded by ``blend`` mm (smooth minimum)."""
    h = np.maximum(blend - np.abs(a - b), 0.0)
    return np.asarray(np.minimum(a, b) - h * h * (0.25 / blend))


def intersection(a: Field, b: Field, blend: float) -> Field:
    """Returns the intersection of two shapes with an edge rounded by ``blend`` mm."""
    h = np.maximum(blend - np.abs(a - b), 0.0)
    return np.asarray(np.maximum(a, b) + h * h * (0.25 / blend))


def ellipsoid(coordinates: Coordinates, centre: Point, radii: Point) -> Field:
    """Returns the distance to an axis-aligned ellipsoid, exact for spheres, else approximate."""
    scaled = [(c - m) * (1.0 / r) for c, m, r in zip(coordinates, centre, radii, strict=True)]
    norm = np.sqrt(scaled[0] ** 2 + scaled[1] ** 2 + scaled[2] ** 2)
    return np.asarray((norm - 1.0) * min(radii))


def rounded_slab(profile: Field, across: Field, half: float, rounding: float) -> Field:
    """Extrudes a flat profile to ``half`` mm on both sides, with rounded rims."""
    inner = profile + rounding
    side = np.abs(across) - (half - rounding)
    outside = np.hypot(np.maximum(inner, 0.0), np.maximum(side, 0.0))
    return np.asarray(outside + np.minimum(np.maximum(inner, side), 0.0) - rounding)


def smooth_path(points: Sequence[Point], count: int) -> Float[np.ndarray, "count 3"]:
    """Evaluates a monotone spline through control points at ``count`` evenly spaced parameters."""
    knots = np.linspace(0.0, 1.0, len(points))
    spline = PchipInterpolator(knots, np.asarray(points, float))
    return np.asarray(spline(np.linspace(0.0, 1.0, count)))


def tube(
    box: Box,
    path: Float[np.ndarray, "n 3"],
    radii: Float[np.ndarray, " n"],
    flatten: tuple[Float[np.ndarray, " 3"], float] | None = None,
) -> tuple[Field, Field]:
    """Evaluates a round or flattened tube along a path of world points.

    Args:
        box: box to evaluate.
        path: world points (mm) of the centre line.
        radii: radius (mm) at each point; half the width of a flat band.
        flatten: unit direction (world) in which the band is thin, and width / thickness.

    Returns:
        Signed distance in mm, and the position along the path, 0..1.
    """
    shape = (len(box.z), len(box.y), len(box.x))
    distance, along = np.full(shape, np.inf, np.float32), np.zeros(shape, np.float32)
    for index in range(len(path) - 1):
        start, step = path[index], path[index + 1] - path[index]
        offset = [
            (box.x - float(start[0]))[None, None, :],
            (box.y - float(start[1]))[None, :, None],
            (box.z - float(start[2]))[:, None, None],
        ]
        unit = [float(value) for value in step / float(step @ step)]
        t = np.clip(offset[0] * unit[0] + offset[1] * unit[1] + offset[2] * unit[2], 0.0, 1.0)
        rest = [o - t * float(s) for o, s in zip(offset, step, strict=True)]
        square = rest[0] ** 2 + rest[1] ** 2 + rest[2] ** 2
        if flatten is not None:
            ahead = step / np.linalg.norm(step)
            thin = flatten[0] - ahead * float(flatten[0] @ ahead)
            # Thin across the band, and blunt at the ends.
            for normal in (thin / np.linalg.norm(thin), ahead):
                n = [float(value) for value in normal]
                across = rest[0] * n[0] + rest[1] * n[1] + rest[2] * n[2]
                square += (flatten[1] ** 2 - 1.0) * across**2
        radius = float(radii[index]) + t * float(radii[index + 1] - radii[index])
        here = np.sqrt(square) - radius
        position = (t + index) * (1.0 / (len(path) - 1))
        closer = here < distance
        np.copyto(distance, here, where=closer)
        np.copyto(along, position, where=closer)
    if flatten is not None:
        distance /= np.float32(flatten[1])
    return distance, along


def smooth_noise(
    rng: np.random.Generator, shape: Sequence[int], correlation: Sequence[float]
) -> Field:
    """Returns Gaussian noise (mean 0, SD about 1) with a correlation length per axis in voxels."""
    steps = [max(float(length), 1.0) for length in correlation]
    knots = [int(np.ceil(n / step)) + 3 for n, step in zip(shape, steps, strict=True)]
    values = rng.standard_normal(knots, dtype=np.float32)
    for axis, (n, step, count) in enumerate(zip(shape, steps, knots, strict=True)):
        position = np.arange(n) / step + 1.0
        gap = np.abs(position[:, None] - np.arange(count)[None, :])
        # Cubic B-spline weights: continuous second derivatives, so that no grid is visible.
        near, far = 2 / 3 - gap**2 + gap**3 / 2, (2 - gap).clip(0) ** 3 / 6
        weights = np.where(gap < 1, near, far)
        weights /= np.sqrt((weights**2).sum(axis=1, keepdims=True))
        weights = weights.astype(np.float32)
        values = np.moveaxis(np.tensordot(weights, values, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(values, np.float32)


def texture_tile(rng: np.random.Generator, size: int = 48) -> Field:
    """Returns a periodic block of fine-grained noise (SD 1) to repeat over a volume."""
    tile = rng.standard_normal((size, size, size), dtype=np.float32)
    for axis in range(3):
        tile = tile + 0.5 * (np.roll(tile, 1, axis) + np.roll(tile, -1, axis))
    return np.asarray(tile / tile.std(), np.float32)


def tiled(tile: Field, box: Box) -> Field:
    """Returns the values of a repeated tile over a box."""
    index = [np.arange(cut.start, cut.stop) % len(tile) for cut in box.slices]
    return np.asarray(tile[np.ix_(*index)])
