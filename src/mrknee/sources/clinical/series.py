"""Images become stacks: parallel slices of one kind, in the order of their positions.

What a scanner calls a series may hold several stacks: echoes, acquisitions, orientations,
magnitude and phase. File names and instance numbers say nothing reliable about order, so slices
are sorted by where they lie along the stack's normal.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

import numpy as np

from mrknee.exams import Plane
from mrknee.sources.clinical.geometry import Axes, nearest_plane
from mrknee.sources.clinical.header import Image

PARALLEL_DEGREES = 2.0
"""Slices of one stack are parallel to within this."""
SAME_PLACE_MM = 0.05
"""Slices closer than this lie at one place; the thinnest of 3-D sequences are 0.3 mm apart."""
SAME_ECHO_MS = 0.5
UNEVEN = 1.5
"""A gap this many times the usual one is a missing slice."""


@dataclass(frozen=True)
class Series:
    """One stack as a scanner wrote it.

    Attributes:
        images: its slices, sorted along `axes[0]`.
        axes: where slices, rows and columns point; None where headers don't say.
        orientations: how many orientations the scanner's series holds in all.
        notes: what is odd about it, one sentence each.
    """

    images: tuple[Image, ...]
    axes: Axes | None
    orientations: int = 1
    notes: tuple[str, ...] = ()

    @property
    def first(self) -> Image:
        """The first slice; all are of its kind."""
        return self.images[0]

    @property
    def plane(self) -> tuple[Plane, float] | None:
        """The nearest plane and the angle to it in degrees; None without orientation."""
        return None if self.axes is None else nearest_plane(self.axes[0])

    @property
    def spacing_mm(self) -> float | None:
        """The usual distance from slice to slice; None for one slice, or without positions."""
        if self.axes is None or len(self.images) < 2:
            return None
        return median(b - a for a, b in pairwise(_places(self.images, self.axes)))

    @property
    def centre(self) -> np.ndarray | None:
        """The middle of the stack in the patient, (x, y, z) in mm."""
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
    """All stacks of one study, in the scanner's order of series.

    The same image twice, as copies in two folders, counts once.
    """
    unique = {(image.instance or image.location, image.frame): image for image in images}
    groups = _grouped(unique.values(), lambda image: image.series)
    stacks = [stack for group in groups for stack in _split(group)]
    return sorted(stacks, key=_scanner_order)


def _scanner_order(stack: Series) -> tuple[object, ...]:
    first = stack.first
    plane = stack.plane[0] if stack.plane else ""
    return (first.series_number, first.series, plane, first.te_ms or 0.0, first.number)


def _split(images: Sequence[Image]) -> list[Series]:
    """One scanner's series as stacks."""
    clusters: list[list[Image]] = []
    for image in sorted(images, key=lambda image: (image.number, image.frame)):
        home = next((cluster for cluster in clusters if _alike(cluster[0], image)), None)
        if home is None:
            clusters.append([image])
        else:
            home.append(image)
    orientations = _count_orientations(cluster[0] for cluster in clusters)
    stacks = []
    for cluster in clusters:
        axes = cluster[0].axes
        if axes is None:
            stacks.append(Series(tuple(cluster), None, orientations))
        else:
            stacks.extend(
                Series(tuple(part), axes, orientations, notes)
                for part, notes in _in_order(cluster, axes)
            )
    return stacks


def _alike(one: Image, other: Image) -> bool:
    """Whether two images can be slices of one stack."""
    same = (one.rows, one.cols, one.kind, one.echo, one.technique, one.inverted, one.samples)
    if same != (
        *(other.rows, other.cols, other.kind, other.echo, other.technique),
        *(other.inverted, other.samples),
    ):
        return False
    if not np.allclose(one.pixel_mm or 0.0, other.pixel_mm or 0.0, rtol=1e-3):
        return False
    if abs((one.te_ms or 0.0) - (other.te_ms or 0.0)) > SAME_ECHO_MS:
        return False
    return _parallel(one.axes, other.axes)


def _parallel(one: Axes | None, other: Axes | None) -> bool:
    if one is None or other is None:
        return one is other
    closeness = (one * other).sum(axis=1)
    return bool((closeness > np.cos(np.radians(PARALLEL_DEGREES))).all())


def _count_orientations(images: Iterable[Image]) -> int:
    seen: list[Axes | None] = []
    for image in images:
        if not any(_parallel(image.axes, axes) for axes in seen):
            seen.append(image.axes)
    return len(seen)


def _in_order(images: list[Image], axes: Axes) -> list[tuple[list[Image], tuple[str, ...]]]:
    """Parallel images as stacks sorted along the normal, with what is odd about each.

    Images at one place, or uneven gaps, mean that the series holds more than one stack: they are
    told apart by acquisition, then by point in time, then by the order they were made in.
    """
    ordered = _sorted(images, axes)
    if _even(ordered, axes):
        return [(ordered, ())]
    keys: tuple[Callable[[Image], Hashable], ...] = (
        lambda image: image.acquisition,
        lambda image: image.temporal,
    )
    for key in keys:
        parts = [_sorted(part, axes) for part in _grouped(images, key)]
        if len(parts) > 1 and all(_even(part, axes) for part in parts):
            return [(part, ()) for part in parts]
    places = _by_place(ordered, axes)
    counts = {len(place) for place in places}
    if len(counts) == 1 and counts != {1}:
        layers = [[place[k] for place in places] for k in range(counts.pop())]
        return [(layer, () if _even(layer, axes) else (_GAPS,)) for layer in layers]
    notes = [] if counts == {1} else ["several images lie at one place; the last made is taken"]
    stack = [place[-1] for place in places]
    if not _even(stack, axes):
        notes.append(_GAPS)
    return [(stack, tuple(notes))]


_GAPS = "slices are unevenly spaced; one may be missing"


def _places(images: Sequence[Image], axes: Axes) -> list[float]:
    return [float(axes[0] @ np.array(image.position)) for image in images]


def _sorted(images: Sequence[Image], axes: Axes) -> list[Image]:
    places = _places(images, axes)
    order = sorted(range(len(images)), key=lambda i: (places[i], images[i].number, i))
    return [images[i] for i in order]


def _by_place(ordered: Sequence[Image], axes: Axes) -> list[list[Image]]:
    """Images at one place together, in the order they were made in."""
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


def _grouped(images: Iterable[Image], key: Callable[[Image], Hashable]) -> list[list[Image]]:
    groups: dict[Hashable, list[Image]] = {}
    for image in images:
        groups.setdefault(key(image), []).append(image)
    return list(groups.values())
