"""Results as plain text: numbers, intervals, and what a reader must know of the labels."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float


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
