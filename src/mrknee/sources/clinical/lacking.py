"""What an exam lacks although it was imported: slices, images without a place, better series.

The rules are written out in docs/reference/import-rules.md; the two must say the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np

from mrknee.errors import DataError
from mrknee.sources.clinical.joining import continues
from mrknee.sources.clinical.protocol import Candidate
from mrknee.sources.clinical.series import Series

OFF = 0.2
"""How far a hole's width may be from a whole number of slice distances, in slice distances."""
FEW_NUMBERS = 5
"""Fewer image numbers say nothing of a step between them."""
LARGEST_SHARE = 0.25
"""A series of which more than this share is missing is refused: the joint may lie in the hole."""


def missing_slices(series: Series) -> int:
    """How many slices a series lacks between its first and its last.

    A hole is a gap of two or more whole slice distances between slices that are otherwise evenly
    spaced. Slices before the first and behind the last can't be known to be missing, nor can those
    of a series whose gaps are of no common length.
    """
    placed = all(len(image.position) == 3 for image in series.images)
    if series.axes is None or not placed or len(series.images) < 3:
        return 0
    places = [float(series.axes[0] @ np.array(image.position)) for image in series.images]
    return holes([b - a for a, b in pairwise(places)])


def holes(gaps: Sequence[float]) -> int:
    """How many slices are missing, by the distances of neighbours (mm, positive)."""
    usual = median(gaps)
    if usual <= 0:
        return 0
    steps = [gap / usual for gap in gaps]
    wide = [step for step in steps if step > 2 - OFF]
    whole = all(abs(step - round(step)) <= OFF for step in steps)
    return sum(round(step) - 1 for step in wide) if whole else 0


def refuse_large_holes(series: Series) -> None:
    """Refuses a series that lacks more than `LARGEST_SHARE` of its slices.

    Raises:
        MrkneeError: it does.
    """
    lacking, there = missing_slices(series), len(series.images)
    if lacking > LARGEST_SHARE * (lacking + there):
        raise DataError(
            "a series lacks too many slices",
            code="missing-slices",
            expected=f"at most {LARGEST_SHARE:.0%} of them missing",
            found=f"{lacking} of {lacking + there} missing between the first and the last",
        )


def lacks(
    record: Mapping[str, Any],
    candidates: Sequence[Candidate],
    beside: int,
    unread: Mapping[str, str],
) -> Iterator[str]:
    """What should be in an exam and is not, one sentence each.

    Args:
        record: what import.json says of the exam: its planes, its candidates.
        candidates: its series.
        unread: candidates that could not be read -> the declared series that they were to be.
        beside: how many files in the folders of its images could not be read, or are not there.
    """
    by_name = {one.name: one for one in candidates}
    rows = {row["name"]: row for row in record["candidates"]}
    for name, said in record["planes"].items():
        chosen = by_name.get(said["series"])
        if chosen is None:
            continue
        lacking, there = missing_slices(chosen.series), len(chosen.series.images)
        if lacking:
            yield (
                f"{name}: {lacking} of {lacking + there} slices are missing between the first"
                " and the last"
            )
        step = _step_of_numbers(chosen.series, candidates)
        if step > 1:
            yield (
                f"{name}: its images' numbers go in steps of {step}, and no image has those"
                " between: they may be missing"
            )
        nowhere = sum(
            len(one.series.images)
            for one in candidates
            if one.series.axes is None and one.series.first.series == chosen.series.first.series
        )
        if nowhere:
            yield f"{name}: {nowhere} of its series' images lie nowhere by their headers: left out"
        rest = [one.series for one in candidates if continues(chosen.series, one.series)]
        if rest:
            yield (
                f"{name}: {sum(len(one.images) for one in rest)} images of its series continue it,"
                " but lie off its line or say something else in their headers: left out"
            )
    names = [*record["planes"], *record.get("missing", ())] if record["imported"] else []
    for one in candidates:
        meant = unread.get(one.name)
        if meant in names and failed(one, rows):
            instead = record["planes"].get(meant, {}).get("series")
            stands_in = f", {instead} is" if instead else ""
            yield f"{meant}: {one.name} can't be used{stands_in}: {rows[one.name]['reason']}"
    if beside:
        yield f"files in the folders of its images that can't be read or are missing: {beside}"


def _step_of_numbers(series: Series, candidates: Sequence[Candidate]) -> int:
    """The step in which a stack's image numbers go from slice to slice; 1 where nothing is lost.

    Numbers of other images of the same scanner's series, echoes for example, are not missing.
    """
    numbers = [image.number for image in series.images]
    steps = {abs(b - a) for a, b in pairwise(numbers)}
    if len(numbers) < FEW_NUMBERS or len(steps) != 1 or not 1 < (step := steps.pop()) <= 3:
        return 1
    there = {
        image.number
        for one in candidates
        if one.series.first.series == series.first.series
        for image in one.series.images
    }
    return step if len(there) == len(numbers) else 1


def failed(one: Candidate, rows: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a series was chosen and then turned out not to be readable.

    Args:
        one: the series.
        rows: name -> what import.json says of a series.
    """
    return one.refusal is None and rows.get(one.name, {}).get("status") == "refused"
