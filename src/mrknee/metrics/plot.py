"""Figures of scores; matplotlib is imported only when a figure is drawn."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from mrknee.extras import pyplot
from mrknee.metrics.curves import roc, roc_band
from mrknee.metrics.discrimination import Auc
from mrknee.metrics.formatting import format_interval, format_number
from mrknee.metrics.hierarchical import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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


def plot_arms(
    panels: Mapping[str, Mapping[str, Estimate]], arms: Sequence[str], baseline: str
) -> Figure:
    """Draws AUCs of the arms of an experiment: seeds as points, mean and interval above them.

    Args:
        panels: finding -> arm -> AUC; one panel per finding.
        arms: names of the arms, from top to bottom.
        baseline: the arm whose mean is drawn as a vertical line.

    Returns:
        A matplotlib figure.
    """
    figure, axes = _panels(panels, arms)
    for area, each in zip(axes, panels.values(), strict=True):
        if baseline in each:
            area.axvline(each[baseline].value, color="grey", linestyle="--", linewidth=1)
        _draw_estimates(area, each, arms)
        area.set_xlabel("AUC")
    figure.supxlabel(f"{_MARKS}; dashed: {baseline}", fontsize="small")
    return figure


def plot_differences(
    panels: Mapping[str, Mapping[str, Estimate]], rows: Sequence[str], margin: float | None
) -> Figure:
    """Draws differences in AUC: seeds as points, mean and interval above them, and the margin.

    Args:
        panels: finding -> name of the comparison -> difference; one panel per finding.
        rows: names of the comparisons, from top to bottom.
        margin: half the width of the band of differences that don't matter; None: no band.

    Returns:
        A matplotlib figure.
    """
    figure, axes = _panels(panels, rows)
    for area, each in zip(axes, panels.values(), strict=True):
        if margin is not None:
            area.axvspan(-margin, margin, color="grey", alpha=0.2, linewidth=0)
        area.axvline(0, color="grey", linestyle="--", linewidth=1)
        _draw_estimates(area, each, rows)
        area.set_xlabel("difference in AUC")
    band = "" if margin is None else f"; grey: within \N{PLUS-MINUS SIGN}{margin:g}"
    figure.supxlabel(f"{_MARKS}{band}", fontsize="small")
    return figure


_MARKS = "filled: mean over seeds, 95 % interval over exams and seeds; open: one seed each"


def _panels(titles: Collection[str], rows: Sequence[str]) -> tuple[Figure, Sequence[Axes]]:
    """Returns a figure with one panel per title, side by side, with the same named rows."""
    figure, axes = pyplot().subplots(
        1,
        len(titles),
        figsize=(1.5 + 2.6 * len(titles), 1.1 + 0.5 * len(rows)),
        squeeze=False,
        sharey=True,
        layout="constrained",
    )
    for area, title in zip(axes[0], titles, strict=True):
        area.set_title(title)
        area.grid(axis="x", alpha=0.3)
    axes[0, 0].set_yticks(range(len(rows)), rows)
    axes[0, 0].set_ylim(len(rows) - 0.5, -0.5)
    return figure, axes[0]


def _draw_estimates(area: Axes, each: Mapping[str, Estimate], rows: Sequence[str]) -> None:
    for place, name in enumerate(rows):
        if name in each:
            one = each[name]
            area.plot([one.low, one.high], [place - 0.12] * 2, color=COLOUR, linewidth=2)
            area.plot(one.value, place - 0.12, "o", color=COLOUR)
            level = [place + 0.18] * len(one.seeds)
            area.plot(one.seeds, level, "o", color=COLOUR, markerfacecolor="none", markersize=4)


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
