"""Figures of scores; matplotlib is imported only when a figure is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from mrknee.extras import pyplot
from mrknee.metrics.curves import roc, roc_band
from mrknee.metrics.discrimination import Auc
from mrknee.metrics.formatting import format_interval, format_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOUR = "#1f78b4"


def plot_intervals(
    rows: Sequence[tuple[str, float, float, float]], label: str, *, reference: float
) -> Axes:
    """Draws values with their 95 % intervals, one below the other.

    Args:
        rows: name, value, lower and upper end; NaN leaves a gap.
        label: label of the axis.
        reference: position of a dashed line: chance, or no difference.

    Returns:
        matplotlib axes.
    """
    _, axes = pyplot().subplots(figsize=(6, 0.9 + 0.4 * len(rows)), layout="constrained")
    for position, (_, value, low, high) in enumerate(rows):
        axes.plot([low, high], [position, position], color=COLOUR, linewidth=2)
        axes.plot(value, position, "o", color=COLOUR)
    names = [
        f"{name}  {format_number(value)} ({format_interval(low, high)})"
        if value == value
        else f"{name}  -"
        for name, value, low, high in rows
    ]
    axes.axvline(reference, color="grey", linestyle="--", linewidth=1)
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(f"{label}, 95 % interval")
    result: Axes = axes
    return result


def plot_rocs(
    areas: Sequence[tuple[str, Auc]],
    labels: Float[np.ndarray, "exams findings"],
    probabilities: Float[np.ndarray, "exams findings"],
    *,
    seed: int,
) -> np.ndarray:
    """Draws the ROC curve of each finding, with its 95 % band and the AUC with its interval.

    Args:
        areas: finding and AUC, one per column.
        labels: 1 present, 0 absent, NaN unknown.
        probabilities: 0 to 1.
        seed: seed of the resampling for the band.

    Returns:
        matplotlib axes (findings,).
    """
    count = len(areas)
    _, axes = pyplot().subplots(
        1, count, figsize=(3.4 * count, 4.1), squeeze=False, layout="constrained"
    )
    for column, (name, area) in enumerate(areas):
        _roc(axes[0, column], name, area, labels[:, column], probabilities[:, column], seed)
    axes[0, 0].set_ylabel("sensitivity")
    return np.asarray(axes[0])


def _roc(
    axes: Any,  # noqa: ANN401  # matplotlib axes
    name: str,
    area: Auc,
    labels: Float[np.ndarray, " exams"],
    probabilities: Float[np.ndarray, " exams"],
    seed: int,
) -> None:
    curve, band = roc(labels, probabilities), roc_band(labels, probabilities, seed=seed)
    axes.plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=1)
    if curve.reason is None:
        axes.plot(curve.fpr, curve.tpr, color=COLOUR)
    if band.reason is None:
        axes.fill_between(band.fpr, band.low, band.high, color=COLOUR, alpha=0.2, linewidth=0)
    value = f"AUC {format_number(area.value)} ({format_interval(area.low, area.high)})"
    axes.set_title(f"{name}\n{value}" if area.reason is None else f"{name}\nno AUC")
    axes.set_xlabel("1 - specificity")
    axes.set_aspect("equal")
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
