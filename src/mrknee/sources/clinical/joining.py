"""Joining of stacks of one scanner's series that continue each other although headers differ.

Archives change headers: half of a series may have another description, none, another echo number
or one more value in ImageType. Without joining, half of the slices would be lost.
docs/reference/import-rules.md states the rules; change both together.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from mrknee.sources.clinical.anatomy import coded_sides, described_sides
from mrknee.sources.clinical.geometry import Axes
from mrknee.sources.clinical.header import Image
from mrknee.sources.clinical.series import (
    APART_MM,
    SAME_ECHO_MS,
    SAME_PIXEL_MM,
    SAME_PLACE_MM,
    SLAB_GAP_MM,
    SLAB_GAPS,
    Series,
    directions_of,
    grouped,
    scanner_order,
    slabs_of,
    sorted_along,
)

CLOSEST = 0.5
"""Slices closer than this share of the median distance belong to two stacks."""
SAME_REPETITION_MS = 1.0
# Values of ImageType that state how an image was corrected or exported, not what it shows.
_CORRECTED = re.compile(
    r"ND|NORM|DIS[23]D|FIL|FM\d.*|DR[BGS]|MFSPLIT|NONE|OTHER|UNSPECIFIED|SH.*|P2D|CC:.*|PURE|SCIC"
)
JOINED = "the headers of its images differ, but the images continue each other: joined to one stack"


def join(stacks: Sequence[Series]) -> list[Series]:
    """Joins the stacks of one study that continue each other and don't contradict each other."""
    found = [stack for stack in stacks if stack.axes is None or not stack.first.series]
    placed = [stack for stack in stacks if stack.axes is not None and stack.first.series]
    for group in grouped(placed, lambda stack: (stack.first.series, _pixels(stack.first))):
        directions, _ = directions_of([stack.first for stack in group])
        of = {id(stack): direction for stack, direction in zip(group, directions, strict=True)}
        for parallel in grouped(group, lambda stack: of[id(stack)]):  # noqa: B023  # used at once
            for alike in grouped(parallel, lambda stack: _content(stack.first)):
                found += _joined(alike)
    return sorted(found, key=scanner_order)


def continues(one: Series, other: Series) -> bool:
    """Returns whether two stacks of one scanner's series could be parts of one stack.

    Their slices are parallel, of one size, at distinct and adjoining positions along the normal,
    and within the plane as close as slices of one knee.
    """
    same = one.first.series == other.first.series and _pixels(one.first) == _pixels(other.first)
    if not same or one is other or one.axes is None or other.axes is None:
        return False
    directions, _ = directions_of([one.first, other.first])
    if directions[0] != directions[1] or one.centre is None or other.centre is None:
        return False
    gaps = _gaps([one, other], one.axes)
    widest = max(SLAB_GAP_MM, SLAB_GAPS * float(np.median(gaps)))
    aside = float(np.abs(one.axes[1:] @ (one.centre - other.centre)).max())
    return _are_apart(gaps) and float(gaps.max()) <= widest and aside < APART_MM / 2


def _joined(stacks: list[Series]) -> list[Series]:
    if len(stacks) < 2 or not _agree([stack.first for stack in stacks]):
        return stacks
    if not _is_one_slab(stacks):
        return stacks
    largest = max(stacks, key=lambda stack: len(stack.images))
    assert largest.axes is not None  # noqa: S101  # `join` passes only stacks with axes
    fullest = max((stack.first for stack in stacks), key=_count_stated)
    images = [
        replace(
            image,
            **{name: getattr(fullest, name) for name in ("names", "series_number", "kind", "echo")},
            **{name: getattr(fullest, name) for name in ("technique", "te_ms", "tr_ms")},
        )
        for image in sorted_along(
            [image for stack in stacks for image in stack.images], largest.axes
        )
    ]
    notes = dict.fromkeys(note for stack in stacks for note in stack.notes)
    orientations = max(stack.orientations for stack in stacks)
    planes, echoes = (max(stack.planes for stack in stacks), max(s.echoes for s in stacks))
    return [
        Series(tuple(images), largest.axes, orientations, planes, echoes, (*notes, JOINED)),
    ]


def _pixels(image: Image) -> Hashable:
    sizes = tuple(round(size / SAME_PIXEL_MM / 10) for size in image.pixel_mm)
    return (image.rows, image.cols, image.samples, sizes)


def _content(image: Image) -> Hashable:
    """Returns what an image shows by its header, without how it was corrected."""
    kind = frozenset(value for value in image.kind if not _CORRECTED.fullmatch(value))
    return (kind, image.component)


def _agree(firsts: Sequence[Image]) -> bool:
    """Returns whether headers agree; a missing value agrees with any other."""
    numbers = {image.series_number for image in firsts} - {0}
    names = {image.names for image in firsts if any(image.names)}
    sides = {side for image in firsts for side in _sides(image)}
    return (
        _close((image.te_ms for image in firsts), SAME_ECHO_MS)
        and _close((image.tr_ms for image in firsts), SAME_REPETITION_MS)
        and len({image.technique for image in firsts} - {()}) < 2
        and len(numbers) < 2
        and (bool(numbers) or len(names) < 2)
        and len(sides) < 2
    )


def _sides(image: Image) -> set[str]:
    return {*coded_sides(image.lateralities), *described_sides(image.names)}


def _close(values: Iterable[float | None], tolerance: float) -> bool:
    known = [value for value in values if value is not None]
    return not known or max(known) - min(known) <= tolerance


def _is_one_slab(stacks: Sequence[Series]) -> bool:
    """Returns whether the slices of parallel stacks form one slab of distinct positions."""
    axes = stacks[0].axes
    assert axes is not None  # noqa: S101  # stacks without orientation have no direction
    images = [image for stack in stacks for image in stack.images]
    return _are_apart(_gaps(stacks, axes)) and len(slabs_of(images, axes)) == 1


def _gaps(stacks: Sequence[Series], axes: Axes) -> np.ndarray:
    """Returns the distances along the normal between neighbouring slices of all stacks, mm."""
    positions = [image.position for stack in stacks for image in stack.images]
    return np.diff(np.sort(np.array(positions) @ axes[0]))


def _are_apart(gaps: np.ndarray) -> bool:
    """Returns whether no two slices coincide or are much closer than the median distance."""
    return bool(gaps.min() >= max(SAME_PLACE_MM, CLOSEST * float(np.median(gaps))))


def _count_stated(image: Image) -> int:
    values = (image.series_number, image.te_ms, image.tr_ms, image.technique, image.echo)
    return sum(map(bool, (*image.names, *values, len(image.kind) > 1)))
