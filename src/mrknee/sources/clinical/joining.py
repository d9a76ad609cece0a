"""Stacks of one scanner's series that continue each other, although their headers differ.

Archives and re-sent images change what a header says: half of a series may bear another
description, none, another echo number or an ImageType with one value more. Split by these, half of
the slices would be lost. The rules are written out in
docs/reference/import-rules.md; the two must say the same.
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
"""Of two neighbours' distance to the usual one: closer slices are those of two stacks."""
SAME_REPETITION_MS = 1.0
# Values of ImageType that say how an image was corrected or exported, not what it shows.
_CORRECTED = re.compile(
    r"ND|NORM|DIS[23]D|FIL|FM\d.*|DR[BGS]|MFSPLIT|NONE|OTHER|UNSPECIFIED|SH.*|P2D|CC:.*|PURE|SCIC"
)
JOINED = "its images' headers differ, but they continue each other: they are taken as one stack"


def join(stacks: Sequence[Series]) -> list[Series]:
    """Joins the stacks of one study that continue each other and say nothing contradictory."""
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
    """Whether two stacks of one scanner's series together look like one.

    Their slices are parallel, of one size, and at places of their own that adjoin along the
    normal; within the plane they lie as near to each other as those of one knee.
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
    assert largest.axes is not None  # noqa: S101  # `join` leaves others out
    said = max((stack.first for stack in stacks), key=_fullness)
    images = [
        replace(
            image,
            **{name: getattr(said, name) for name in ("names", "series_number", "kind", "echo")},
            **{name: getattr(said, name) for name in ("technique", "te_ms", "tr_ms")},
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
    """What an image's header says of what it shows, without how it was corrected."""
    kind = frozenset(value for value in image.kind if not _CORRECTED.fullmatch(value))
    return (kind, image.component)


def _agree(firsts: Sequence[Image]) -> bool:
    """Whether headers say nothing contradictory; what isn't said contradicts nothing."""
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
    """Whether the slices of parallel stacks lie on one line without coinciding or a wide gap."""
    axes = stacks[0].axes
    assert axes is not None  # noqa: S101  # stacks without orientation have no direction
    images = [image for stack in stacks for image in stack.images]
    return _are_apart(_gaps(stacks, axes)) and len(slabs_of(images, axes)) == 1


def _gaps(stacks: Sequence[Series], axes: Axes) -> np.ndarray:
    """The distances along the normal of neighbouring slices of several stacks, mm."""
    positions = [image.position for stack in stacks for image in stack.images]
    return np.diff(np.sort(np.array(positions) @ axes[0]))


def _are_apart(gaps: np.ndarray) -> bool:
    """Whether no two slices coincide or lie much closer than is usual."""
    return bool(gaps.min() >= max(SAME_PLACE_MM, CLOSEST * float(np.median(gaps))))


def _fullness(image: Image) -> int:
    said = (image.series_number, image.te_ms, image.tr_ms, image.technique, image.echo)
    return sum(map(bool, (*image.names, *said, len(image.kind) > 1)))
