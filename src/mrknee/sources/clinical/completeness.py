"""Completeness of an imported exam: missing slices, images without position, unreadable series.

docs/reference/import-rules.md states the rules; change both together.
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

GAP_TOLERANCE = 0.2
"""Tolerance of a gap from a whole number of slice distances, in slice distances."""
FEW_NUMBERS = 5
"""Minimum number of image numbers from which their step is determined."""
LARGEST_SHARE = 0.25
"""Maximum share of missing slices; more are refused, because the joint may lie in the gap."""


def missing_slices(series: Series) -> int:
    """Returns the number of slices missing between the first and the last of a series.

    Slices are missing in a gap of two or more whole slice distances between otherwise evenly
    spaced slices. They can't be detected before the first slice, after the last one, or in a
    series with irregular gaps.
    """
    placed = all(len(image.position) == 3 for image in series.images)
    if series.axes is None or not placed or len(series.images) < 3:
        return 0
    places = [float(series.axes[0] @ np.array(image.position)) for image in series.images]
    return holes([b - a for a, b in pairwise(places)])


def holes(gaps: Sequence[float]) -> int:
    """Returns the number of missing slices by the distances between neighbours (mm, positive)."""
    usual = median(gaps)
    if usual <= 0:
        return 0
    steps = [gap / usual for gap in gaps]
    wide = [step for step in steps if step > 2 - GAP_TOLERANCE]
    whole = all(abs(step - round(step)) <= GAP_TOLERANCE for step in steps)
    return sum(round(step) - 1 for step in wide) if whole else 0


def refuse_large_holes(series: Series) -> None:
    """Refuses a series that lacks more than `LARGEST_SHARE` of its slices.

    Raises:
        MrkneeError: too many slices are missing.
    """
    missing, present = missing_slices(series), len(series.images)
    if missing > LARGEST_SHARE * (missing + present):
        raise DataError(
            "too many slices of a series are missing",
            code="missing-slices",
            expected=f"at most {LARGEST_SHARE:.0%} missing",
            found=f"{missing} of {missing + present} missing between the first and the last",
        )


def missing_parts(
    record: Mapping[str, Any],
    candidates: Sequence[Candidate],
    left_out: int,
    unread: Mapping[str, str],
) -> Iterator[str]:
    """Yields what is missing in an exam, one sentence each.

    Args:
        record: entry of the exam in import.json, with its planes and candidates.
        candidates: series of the study.
        left_out: number of unreadable or missing files in the folders of the exam's images.
        unread: candidates that could not be read -> declared series they were chosen for.
    """
    by_name = {one.name: one for one in candidates}
    rows = {row["name"]: row for row in record["candidates"]}
    for name, plane in record["planes"].items():
        chosen = by_name.get(plane["series"])
        if chosen is None:
            continue
        missing, present = missing_slices(chosen.series), len(chosen.series.images)
        if missing:
            yield (
                f"{name}: {missing} of {missing + present} slices are missing between the first"
                " and the last"
            )
        step = _step_of_numbers(chosen.series, candidates)
        if step > 1:
            yield (
                f"{name}: the numbers of its images increase in steps of {step}, and no image has"
                " the numbers in between: images may be missing"
            )
        nowhere = sum(
            len(one.series.images)
            for one in candidates
            if one.series.axes is None and one.series.first.series == chosen.series.first.series
        )
        if nowhere:
            yield f"{name}: {nowhere} of its series' images have no position: left out"
        rest = [one.series for one in candidates if continues(chosen.series, one.series)]
        if rest:
            yield (
                f"{name}: {sum(len(one.images) for one in rest)} images of its series continue it,"
                " but lie off its line or have contradictory headers: left out"
            )
    names = [*record["planes"], *record.get("missing", ())] if record["imported"] else []
    for one in candidates:
        meant = unread.get(one.name)
        if meant in names and failed(one, rows):
            instead = record["planes"].get(meant, {}).get("series")
            replaced = f" and was replaced by {instead}" if instead else ""
            yield f"{meant}: {one.name} can't be used{replaced}: {rows[one.name]['reason']}"
    if left_out:
        yield f"unreadable or missing files in the folders of its images: {left_out}"


def _step_of_numbers(series: Series, candidates: Sequence[Candidate]) -> int:
    """Returns the step between a stack's image numbers, or 1 if no numbers are missing.

    Numbers of other images of the same scanner's series, such as echoes, aren't missing.
    """
    numbers = [image.number for image in series.images]
    steps = {abs(b - a) for a, b in pairwise(numbers)}
    if len(numbers) < FEW_NUMBERS or len(steps) != 1 or not 1 < (step := steps.pop()) <= 3:
        return 1
    present = {
        image.number
        for one in candidates
        if one.series.first.series == series.first.series
        for image in one.series.images
    }
    return step if len(present) == len(numbers) else 1


def failed(one: Candidate, rows: Mapping[str, Mapping[str, Any]]) -> bool:
    """Returns whether a series was chosen but could not be read.

    Args:
        one: the series.
        rows: name of a series -> its entry in import.json.
    """
    return one.refusal is None and rows.get(one.name, {}).get("status") == "refused"
