"""Grouping of images into stacks: parallel slices of one kind, sorted by position.

A scanner's series may hold several stacks: echoes, acquisitions, orientations, magnitude and
phase. File names and instance numbers are not reliable for the order, so slices are sorted by
their positions along the stack's normal.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from statistics import median
from typing import Any, TypeVar

import numpy as np

from mrknee.exams import Plane
from mrknee.sources.clinical.anatomy import coded_sides
from mrknee.sources.clinical.geometry import Axes, nearest_plane
from mrknee.sources.clinical.header import Image

PARALLEL_DEGREES = 2.0
"""Largest angle between slices of one stack."""
SAME_PLACE_MM = 0.05
"""Slices closer than this have the same position; the thinnest 3-D slices are 0.3 mm apart."""
SAME_ECHO_MS = 0.5
SAME_PIXEL_MM = 0.001
IN_PLANE_MM = 2.0
"""Slices of one stack lie on a line to within half of this; blocks that are further apart than
this within the plane are separated. Headers round positions to less than 0.01 mm."""
MAX_SHEAR = 1.0
"""Maximum in-plane shift of slices per mm along the normal."""
SLAB_GAP_MM, SLAB_GAPS = 15.0, 3.5
"""A gap along the normal wider than both 15 mm and 3.5 median gaps may separate two blocks."""
APART_MM = 70.0
"""The centres of two knees are 100 to 250 mm apart, those of series of one knee within 40 mm. A gap
along the normal separates two blocks only if their centres are this far apart from right to left,
or if the gap itself is this wide; otherwise it counts as missing slices."""
UNEVEN = 1.5
"""A gap of this many median gaps means a missing slice."""


_Any = TypeVar("_Any")


@dataclass(frozen=True)
class Series:
    """One stack, with properties of the scanner's series that it comes from.

    Attributes:
        images: headers of the slices, sorted along `axes[0]`.
        axes: directions of slices, rows and columns; None if headers don't state them.
        orientations: number of orientations in the scanner's series.
        planes: number of planes (1 to 3) with images of one echo and repetition time in it.
        echoes: number of echo times of this orientation and repetition time in it.
        notes: irregularities, one sentence each.
    """

    images: tuple[Image, ...]
    axes: Axes | None
    orientations: int = 1
    planes: int = 1
    echoes: int = 1
    notes: tuple[str, ...] = ()

    @property
    def first(self) -> Image:
        """The header of the first slice; all slices are of the same kind."""
        return self.images[0]

    @property
    def plane(self) -> tuple[Plane, float] | None:
        """The nearest plane and the angle to it in degrees; None without orientation."""
        return None if self.axes is None else nearest_plane(self.axes[0])

    @property
    def spacing_mm(self) -> float | None:
        """Median distance between slices, mm; None for one slice, or without positions."""
        if self.axes is None or len(self.images) < 2:
            return None
        return median(b - a for a, b in pairwise(_places(self.images, self.axes)))

    @property
    def extent_mm(self) -> float | None:
        """Extent from the patient's right to left, mm; None without positions."""
        first, last = self.images[0], self.images[-1]
        if self.axes is None or len(first.pixel_mm) != 2:
            return None
        steps = np.array(last.position) - np.array(first.position)
        row_mm, col_mm = first.pixel_mm
        sides = (steps, self.axes[1] * row_mm * first.rows, self.axes[2] * col_mm * first.cols)
        return float(sum(abs(side[0]) for side in sides))

    @property
    def centre(self) -> np.ndarray | None:
        """Centre of the stack in patient coordinates (x, y, z), mm; None without positions."""
        first, last = self.images[0], self.images[-1]
        if self.axes is None or len(first.pixel_mm) != 2:
            return None
        row_mm, col_mm = first.pixel_mm
        corner = (np.array(first.position) + np.array(last.position)) / 2
        across = self.axes[2] * col_mm * (first.cols - 1) / 2
        down = self.axes[1] * row_mm * (first.rows - 1) / 2
        middle: np.ndarray = corner + across + down
        return middle


def sort_into_series(images: Iterable[Image]) -> list[Series]:
    """Returns all stacks of one study, in the scanner's order of series.

    Copies of an image, such as in two folders, are used once.
    """
    kept, renamed = _without_copies(images)
    stacks: list[Series] = []
    for group, notes in _scanner_series(kept):
        if any(image.instance in renamed for image in group):
            notes = (*notes, _ONE_INSTANCE)
        stacks += _split(group, notes)
    return sorted(stacks, key=scanner_order)


_ONE_INSTANCE = "several of its images share one SOPInstanceUID; they are separated by position"
_ONE_EACH = "each of its images has its own SeriesInstanceUID; they are joined by number and name"


def _without_copies(images: Iterable[Image]) -> tuple[list[Image], set[str]]:
    """Removes copies; also returns the SOPInstanceUIDs that different images share.

    Anonymisers may give one SOPInstanceUID to all images, so a copy must also agree in series,
    position, number and echo.
    """
    unique: dict[Hashable, Image] = {}
    seen: set[tuple[str, int]] = set()
    shared: set[str] = set()
    for image in images:
        key = (image.instance or image.location, image.frame, *_identity(image))
        if key in unique:
            continue
        unique[key] = image
        if image.instance:
            if (image.instance, image.frame) in seen:
                shared.add(image.instance)
            seen.add((image.instance, image.frame))
    return list(unique.values()), shared


def _identity(image: Image) -> tuple[Hashable, ...]:
    """Returns what two images of one SOPInstanceUID must share to be copies."""
    return (
        *(image.series, image.series_number, image.names, image.number, image.acquisition),
        *(image.temporal, image.echo, image.te_ms, image.kind, image.rows, image.cols),
        *(image.position, image.orientation, image.pixel_mm),
    )


def _scanner_series(images: Sequence[Image]) -> list[tuple[list[Image], tuple[str, ...]]]:
    """Groups images into the scanner's series, each with notes on its irregularities.

    A series has one number and one description. Images with the same UID but another number or
    description are another series, because anonymisers may give one SeriesInstanceUID to all
    series of a study. If each image has its own UID, images are joined by number and description.
    """
    groups = grouped(images, lambda image: (image.series, image.series_number, image.names))
    single = [group[0] for group in groups if len(group) == 1 and group[0].frames == 1]
    found: list[tuple[list[Image], tuple[str, ...]]] = [
        (group, ()) for group in groups if len(group) > 1 or group[0].frames > 1
    ]
    for joined in grouped(single, lambda image: (image.series_number, image.names)):
        found.append((joined, (_ONE_EACH,) if len(joined) > 1 else ()))
    return found


def scanner_order(stack: Series) -> tuple[object, ...]:
    """Returns the key by which stacks of a study are sorted."""
    first = stack.first
    plane = stack.plane[0] if stack.plane else ""
    return (first.series_number, first.series, plane, first.te_ms or 0.0, first.number)


def _split(images: Sequence[Image], notes: tuple[str, ...]) -> list[Series]:
    """Splits one scanner's series into stacks."""
    ordered = sorted(images, key=lambda image: (image.number, image.frame))
    directions, axes_of = directions_of(ordered)
    echoes = _steps([image.te_ms or 0.0 for image in ordered], SAME_ECHO_MS)
    heights, widths = (
        _steps(
            [image.pixel_mm[axis] if len(image.pixel_mm) == 2 else 0.0 for image in ordered],
            SAME_PIXEL_MM,
        )
        for axis in (0, 1)
    )
    sides = [coded_sides(image.lateralities) for image in ordered]
    if len({side for each in sides for side in each}) < 2:  # a single side applies to all images
        sides = [frozenset()] * len(ordered)
    clusters: dict[tuple[Any, ...], list[Image]] = {}
    for index, image in enumerate(ordered):
        key = (
            *(directions[index], echoes[index], heights[index], widths[index]),
            *(image.rows, image.cols, image.kind, image.component, image.echo),
            *(image.technique, image.samples, len(image.pixel_mm), sides[index]),
        )
        clusters.setdefault(key, []).append(image)
    planes = _count_planes(ordered, [axes_of[direction] for direction in directions], echoes)
    times: dict[Hashable, set[int]] = {}
    for image, direction, echo in zip(ordered, directions, echoes, strict=True):
        times.setdefault((direction, image.tr_ms), set()).add(echo)
    stacks = []
    for key, cluster in clusters.items():
        axes = axes_of[key[0]]
        described = {
            "orientations": len(axes_of),
            "planes": planes,
            "echoes": len(times[key[0], cluster[0].tr_ms]),
        }
        if axes is None:
            stacks.append(Series(tuple(cluster), None, notes=notes, **described))
            continue
        slabs = slabs_of(cluster, axes)
        slab_notes = (*notes, _SLABS) if len(slabs) > 1 else notes
        for slab in slabs:
            for part, odd in _in_order(slab, axes):
                stacks.append(Series(tuple(part), axes, notes=(*slab_notes, *odd), **described))
    return stacks


def directions_of(images: Sequence[Image]) -> tuple[list[int], list[Axes | None]]:
    """Returns each image's orientation as an index, and the list of orientations.

    Orientations are looked up in a grid of normals, in neighbouring cells only, so that the time
    is linear in the number of images.
    """
    found: list[Axes | None] = []
    cells: dict[tuple[int, ...] | None, list[int]] = {}
    indices: list[int] = []
    for image in images:
        axes = image.axes
        if indices and _parallel(axes, found[indices[-1]]):  # usually that of the previous image
            indices.append(indices[-1])
            continue
        cell = None if axes is None else _cell(axes)
        near = [None] if cell is None else _neighbours(cell)
        same = (k for one in near for k in cells.get(one, ()) if _parallel(axes, found[k]))
        index = next(same, len(found))
        if index == len(found):
            found.append(axes)
            cells.setdefault(cell, []).append(index)
        indices.append(index)
    return indices, found


def _cell(axes: Axes) -> tuple[int, ...]:
    width = 2 * np.sin(np.radians(PARALLEL_DEGREES) / 2)  # distance of unit vectors at this angle
    return tuple(int(place) for place in np.floor(axes[0] / width))


def _neighbours(cell: tuple[int, ...]) -> list[tuple[int, ...] | None]:
    steps = (-1, 0, 1)
    return [
        tuple(place + step for place, step in zip(cell, by, strict=True))
        for by in product(steps, repeat=3)
    ]


def _parallel(one: Axes | None, other: Axes | None) -> bool:
    if one is None or other is None:
        return one is other
    closeness = (one * other).sum(axis=1)
    return bool((closeness > np.cos(np.radians(PARALLEL_DEGREES))).all())


def _steps(values: Sequence[float], tolerance: float) -> list[int]:
    """Clusters numbers at gaps larger than the tolerance; returns a cluster index per number."""
    order = sorted(set(values))
    starts = [later for before, later in pairwise(order) if later - before > tolerance]
    return [bisect_right(starts, value) for value in values]


def _count_planes(
    images: Sequence[Image], axes: Sequence[Axes | None], echoes: Sequence[int]
) -> int:
    """Returns the maximum number of planes with images of one echo and repetition time."""
    planes: dict[Hashable, set[Plane]] = {}
    nearest: dict[int, Plane] = {}
    for image, direction, echo in zip(images, axes, echoes, strict=True):
        if direction is not None:
            if id(direction) not in nearest:
                nearest[id(direction)] = nearest_plane(direction[0])[0]
            planes.setdefault((echo, image.tr_ms), set()).add(nearest[id(direction)])
    return max(map(len, planes.values()), default=1)


def slabs_of(images: list[Image], axes: Axes) -> list[list[Image]]:
    """Splits parallel images into slabs: separate blocks, such as those of two knees.

    The slices of one slab lie on a straight line, which may be sheared. Otherwise they are split
    where two neighbours along the rows or columns are more than `IN_PLANE_MM` apart. In any case
    they are split at a gap along the normal between two knees; see `APART_MM`.
    """
    places = np.array([image.position for image in images]) @ axes.T
    blocks = [np.arange(len(images))]
    if not _on_a_line(places):
        for axis in (1, 2, 1):
            blocks = [part for block in blocks for part in _split_in_plane(block, places[:, axis])]
    across = nearest_plane(axes[0])[0] is Plane.SAGITTAL
    along = places[:, 0]
    blocks = [part for block in blocks for part in _split_along_normal(block, along, across=across)]
    return [[images[index] for index in sorted(block)] for block in blocks]


def _on_a_line(places: np.ndarray) -> bool:
    """Returns whether slice positions lie on one line: constant in-plane shift per slice."""
    along = places[:, 0] - places[:, 0].mean()
    across = places[:, 1:] - places[:, 1:].mean(axis=0)
    spread = float(along @ along)
    slope = along @ across / spread if spread > SAME_PLACE_MM else np.zeros(2)
    off = np.abs(across - np.outer(along, slope)).max()
    return bool(off <= IN_PLANE_MM / 2 and np.abs(slope).max() <= MAX_SHEAR)


def _split_in_plane(block: np.ndarray, places: np.ndarray) -> list[np.ndarray]:
    """Splits a block of indices at gaps between in-plane positions."""
    order = block[np.argsort(places[block], kind="stable")]
    return np.split(order, np.flatnonzero(np.diff(places[order]) > IN_PLANE_MM) + 1)


def _split_along_normal(block: np.ndarray, places: np.ndarray, *, across: bool) -> list[np.ndarray]:
    """Splits a block of indices at gaps along the normal that separate two knees.

    Args:
        block: indices of images.
        places: positions along the normal, mm.
        across: whether the normal runs from the patient's right to left.
    """
    order = block[np.argsort(places[block], kind="stable")]
    gaps = np.diff(places[order])
    steps = gaps[gaps > SAME_PLACE_MM]
    limit = max(SLAB_GAP_MM, SLAB_GAPS * float(np.median(steps)) if len(steps) else 0.0)
    parts = np.split(order, np.flatnonzero(gaps > limit) + 1)
    if across and len(parts) > 1:
        middles = [(places[part[0]] + places[part[-1]]) / 2 for part in parts]
        cuts = [k for k, (a, b) in enumerate(pairwise(middles), start=1) if b - a > APART_MM]
    else:
        ends = [(places[one[-1]], places[two[0]]) for one, two in pairwise(parts)]
        cuts = [k for k, (a, b) in enumerate(ends, start=1) if b - a > APART_MM]
    starts = [0, *cuts, len(parts)]
    return [np.concatenate(parts[a:b]) for a, b in pairwise(starts)]


def _in_order(images: list[Image], axes: Axes) -> list[tuple[list[Image], tuple[str, ...]]]:
    """Splits parallel images into stacks sorted along the normal, each with its notes.

    Images at one position, or uneven gaps, mean that the series holds more than one stack. Stacks
    are separated by acquisition, then by temporal position, then by order of acquisition.
    """
    ordered = sorted_along(images, axes)
    if _even(ordered, axes):
        return [(ordered, ())]
    keys: tuple[Callable[[Image], Hashable], ...] = (
        lambda image: image.acquisition,
        lambda image: image.temporal,
    )
    for key in keys:
        parts = [sorted_along(part, axes) for part in grouped(images, key)]
        if len(parts) > 1 and all(_even(part, axes) for part in parts):
            return [(part, ()) for part in parts]
    places = _by_place(ordered, axes)
    counts = {len(place) for place in places}
    if len(counts) == 1 and counts != {1}:
        layers = [[place[k] for place in places] for k in range(counts.pop())]
        return [(layer, () if _even(layer, axes) else (_GAPS,)) for layer in layers]
    notes = [] if counts == {1} else ["several images have one position; the last one is used"]
    stack = [place[-1] for place in places]
    if not _even(stack, axes):
        notes.append(_GAPS)
    return [(stack, tuple(notes))]


_SLABS = "its series holds several blocks of slices; they are separated by position"
_GAPS = "slices are unevenly spaced; one may be missing"


def _places(images: Sequence[Image], axes: Axes) -> list[float]:
    return [float(axes[0] @ np.array(image.position)) for image in images]


def sorted_along(images: Sequence[Image], axes: Axes) -> list[Image]:
    """Sorts images by their positions along the first axis."""
    places = _places(images, axes)
    order = sorted(range(len(images)), key=lambda i: (places[i], images[i].number, i))
    return [images[i] for i in order]


def _by_place(ordered: Sequence[Image], axes: Axes) -> list[list[Image]]:
    """Groups images by position, each group in order of acquisition."""
    groups: list[list[Image]] = []
    last = -np.inf
    for image, place in zip(ordered, _places(ordered, axes), strict=True):
        if place - last > SAME_PLACE_MM:
            groups.append([])
            last = place
        groups[-1].append(image)
    key = lambda image: (image.acquisition or 0, image.temporal or 0, image.number)  # noqa: E731
    return [sorted(group, key=key) for group in groups]


def _even(ordered: Sequence[Image], axes: Axes) -> bool:
    gaps = [b - a for a, b in pairwise(_places(ordered, axes))]
    return not gaps or (min(gaps) > SAME_PLACE_MM and max(gaps) < UNEVEN * median(gaps))


def grouped(members: Iterable[_Any], key: Callable[[_Any], Hashable]) -> list[list[_Any]]:
    """Groups members by a key, in order of first appearance."""
    groups: dict[Hashable, list[_Any]] = {}
    for member in members:
        groups.setdefault(key(member), []).append(member)
    return list(groups.values())
