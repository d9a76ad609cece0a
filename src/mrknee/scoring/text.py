"""Results as plain text: columns, numbers, intervals, and what a reader must know of the labels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float


def columns(rows: Sequence[tuple[str, ...]], *, left: int) -> list[str]:
    """A header, a rule, and rows; the first `left` columns to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return [lines[0], "-" * max(len(line) for line in lines), *lines[1:]]


def shown(value: float) -> str:
    """A number with three digits; a dash for NaN."""
    return "-" if math.isnan(value) else f"{value:.3f}"


def interval(low: float, high: float) -> str:
    """An interval's ends with three digits; a dash for NaN."""
    return "-" if math.isnan(low) else f"{low:.3f} to {high:.3f}"


def exams(count: int) -> str:
    """A number of exams."""
    return f"{count} exam" + ("" if count == 1 else "s")


def without_labels(labels: Float[np.ndarray, "exams findings"]) -> tuple[str, ...]:
    """A note on exams that have no label at all; nothing where there are none."""
    count = int(np.isnan(labels).all(axis=1).sum())
    if count == 0:
        return ()
    verb = "has" if count == 1 else "have"
    return (f"{count} of {exams(len(labels))} {verb} no label, and no part in any number",)
