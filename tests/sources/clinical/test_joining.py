"""Stacks that continue each other although their headers differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from mrknee.exams import Plane
from mrknee.sources.clinical.completeness import missing_parts, missing_slices
from mrknee.sources.clinical.header import Image
from mrknee.sources.clinical.joining import JOINED, continues, join
from mrknee.sources.clinical.protocol import candidates
from mrknee.sources.clinical.series import Series, sort_into_series
from tests.sources.clinical.headers import images


def stacks_where(of: Callable[[int], bool], **header: Any) -> list[Series]:  # noqa: ANN401
    """Stacks of 20 images of which some have other values in their headers."""
    found = images(count=20, series_number=4)
    return join(
        sort_into_series(
            [replace(image, **header) if of(k) else image for k, image in enumerate(found)]
        )
    )


DIFFERENCES: list[dict[str, Any]] = [
    {"names": ("SAG PD FS KORR", "")},
    {"names": ("", "")},
    {"names": ("", ""), "series_number": 0},
    {"kind": ("ORIGINAL", "PRIMARY", "M", "NORM", "DIS2D")},
    {"echo": 1},
    {"technique": ()},
    {"te_ms": None, "tr_ms": None},
]


PARTS: dict[str, Callable[[int], bool]] = {
    "second half": lambda k: k >= 10,
    "every other": lambda k: k % 2 == 1,
}
UNSEEN: list[dict[str, Any]] = [{"inverted": True}, {"te_ms": 30.4}]
"""Differences that never split a stack."""


@pytest.mark.parametrize("header", DIFFERENCES + UNSEEN)
@pytest.mark.parametrize("part", ["second half", "every other"])
def test_stacks_with_differing_headers_lose_no_slice(header: dict[str, Any], part: str) -> None:
    """Slices that continue each other are one stack, with the values of the fullest header."""
    (stack,) = stacks_where(PARTS[part], **header)
    assert sorted(image.number for image in stack.images) == list(range(1, 21))
    assert stack.first.names[0].startswith("SAG PD FS")
    assert stack.first.series_number == 4
    assert stack.first.te_ms in (30.0, 30.4)
    assert stack.notes == (() if header in UNSEEN else (JOINED,))


@pytest.mark.parametrize(
    "header",
    [
        {"te_ms": 60.0},
        {"kind": ("DERIVED", "SECONDARY", "M", "ND")},
        {"component": "PHASE"},
        {"series_number": 5, "names": ("SAG PD", "")},
    ],
)
def test_what_contradicts_is_left_out_and_reported(header: dict[str, Any]) -> None:
    """Slices with contradictory headers are left out, and the exam is incomplete."""
    stacks = stacks_where(lambda k: k >= 12, **header)
    assert [len(stack.images) for stack in stacks] == [12, 8]
    assert continues(*stacks)
    record = {
        "imported": True,
        "planes": {"sagittal": {"series": "s1"}},
        "candidates": [{"name": "s1", "status": "chosen"}],
    }
    (line,) = missing_parts(record, candidates(stacks), 0, {})
    assert line.startswith("sagittal: 8 images of its series continue it")


def test_both_sides_and_both_sequences_are_never_joined() -> None:
    """Neighbouring slabs of two knees, and stacks at the same positions, aren't joined."""
    assert len(stacks_where(lambda k: k >= 10, lateralities=("L",))) == 1  # nothing names another
    whole: list[Image] = images(count=20)
    halves = [replace(image, lateralities=("RL"[k >= 10],)) for k, image in enumerate(whole)]
    assert len(join(sort_into_series(halves))) == 2
    named = [
        replace(image, names=(f"SAG {'RL'[k >= 10]} KNEE", "")) for k, image in enumerate(whole)
    ]
    assert len(join(sort_into_series(named))) == 2
    twice = images(count=20) + images(count=20, names=("SAG T2", ""), te_ms=60.0)
    pair = join(sort_into_series(twice))
    assert len(pair) == 2
    assert not continues(*pair)


def test_missing_slices_of_joined_stacks_are_counted() -> None:
    """Joined stacks with missing slices have a gap, which is counted."""
    found = [
        replace(image, names=("", "")) if k > 9 else image
        for k, image in enumerate(images(count=20))
        if k not in (8, 12, 13)
    ]
    (stack,) = join(sort_into_series(found))
    assert missing_slices(stack) == 3


def test_slices_off_the_line_are_reported() -> None:
    """A stack whose second half is shifted becomes two, and the other half is reported."""
    whole = images(count=20)
    moved = [
        replace(image, position=(image.position[0], image.position[1] + 3.0, image.position[2]))
        for image in whole[10:]
    ]
    one, other = join(sort_into_series(whole[:10] + moved))
    assert (len(one.images), len(other.images)) == (10, 10)
    assert continues(one, other)
    knees = [image for x in (-50.0, 50.0) for image in images(Plane.AXIAL, centre=(x, 0.0, x / 25))]
    right, left = join(sort_into_series(knees))
    assert not continues(right, left)


def test_numbers_in_steps_are_reported() -> None:
    """If every other number is missing, slices may be missing; alternating echoes are complete."""
    record = {
        "imported": True,
        "planes": {"sagittal": {"series": "s1"}},
        "candidates": [{"name": "s1", "status": "chosen"}],
    }
    every_other = candidates(sort_into_series(images(count=30, spacing=2.0)[::2]))
    (line,) = missing_parts(record, every_other, 0, {})
    assert "steps of 2" in line
    assert list(missing_parts(record, candidates(sort_into_series(images(count=30))), 0, {})) == []
    echoes = [
        replace(image, number=2 * image.number - k, te_ms=te)
        for k, te in enumerate((15.0, 80.0))
        for image in images(count=20, te_ms=te)
    ]
    assert list(missing_parts(record, candidates(sort_into_series(echoes)), 0, {})) == []
