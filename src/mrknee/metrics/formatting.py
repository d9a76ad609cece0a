"""Formatting of results as plain text: numbers, intervals, counts, notes on missing labels."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float


def format_number(value: float) -> str:
    """Formats a number with three decimals; NaN as a dash."""
    return "-" if math.isnan(value) else f"{value:.3f}"


def format_interval(low: float, high: float) -> str:
    """Formats an interval with three decimals; NaN as a dash."""
    return "-" if math.isnan(low) else f"{low:.3f} to {high:.3f}"


def format_signed(value: float) -> str:
    """Formats a difference with its sign and three decimals; NaN as a dash."""
    # adding 0 turns a rounded -0.000 into +0.000
    return "-" if math.isnan(value) else f"{round(value, 3) + 0.0:+.3f}"


def format_signed_interval(low: float, high: float) -> str:
    """Formats the interval of a difference; NaN as a dash."""
    if math.isnan(low):
        return "-"
    return "none" if low == high else f"{format_signed(low)} to {format_signed(high)}"


def format_p(value: float) -> str:
    """Formats a p value with three decimals; NaN as a dash."""
    if math.isnan(value):
        return "-"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def format_exams(count: int) -> str:
    """Formats a number of exams."""
    return f"{count} exam" + ("" if count == 1 else "s")


def unlabelled_note(labels: Float[np.ndarray, "exams findings"]) -> tuple[str, ...]:
    """Returns a note on exams without any label; empty if there are none."""
    count = int(np.isnan(labels).all(axis=1).sum())
    if count == 0:
        return ()
    verb, be = ("has", "is") if count == 1 else ("have", "are")
    return (f"{count} of {format_exams(len(labels))} {verb} no label and {be} not scored",)
