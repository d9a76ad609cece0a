"""Plot of an explanation; matplotlib is imported only when it is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mrknee.exams.plot import show_slice
from mrknee.extras import pyplot

if TYPE_CHECKING:
    from mrknee.explanations.explanation import Explanation

RAISES, LOWERS = "#ff7000", "#1e88ff"
"""Orange and blue, distinguishable with any colour vision; as in the HTML pages."""

COLOURS = (LOWERS, "#444444", RAISES)
"""Colours from lowering to raising the logit; the dark middle keeps dark slices dark."""

OPAQUE, GAMMA = 0.8, 0.5
"""Opacity of heat is OPAQUE * (heat / scale) ** GAMMA, so that a tenth of the scale is visible."""


def plot_explanation(why: Explanation, finding: str, series: str | None) -> np.ndarray:
    """Draws one column per series: slice with heat map, slice scores; see `Explanation.plot`."""
    from matplotlib.colors import LinearSegmentedColormap

    scores = why.slices(finding)
    row = why.findings.index(finding)
    names = list(scores) if series is None else [why.known(series)]
    figure, axes = pyplot().subplots(
        2,
        len(names),
        figsize=(3.2 * len(names) + 0.8, 5.2),
        squeeze=False,
        layout="constrained",
        gridspec_kw={"height_ratios": [3, 1]},
    )
    colours = LinearSegmentedColormap.from_list("lowers-raises", COLOURS)
    heat: Any = None
    for column, one in enumerate(names):
        index = why.strongest(one, row, 1)
        heat = _show(axes[0, column], why, one, row, index, colours)
        below = axes[1, column]
        kinds = [RAISES if score > 0 else LOWERS for score in scores[one]]
        below.bar(np.arange(len(scores[one])), scores[one], color=kinds)
        below.axhline(0, color="black", linewidth=0.8)
        below.set_ylim(-1.05 * (why.largest_score or 1), 1.05 * (why.largest_score or 1))
        below.set_xlabel("slice")
        below.label_outer(remove_inner_ticks=False)
    axes[1, 0].set_ylabel("contribution to the logit")
    figure.colorbar(
        heat, ax=list(axes[0]), label="logit per pixel: lowers (-), raises (+)", shrink=0.8
    )
    figure.suptitle(f"Exam {why.exam}, {finding}: probability {why.probabilities[row]:.3f}")
    return np.asarray(axes)


def _show(
    axes: Any,  # noqa: ANN401  # matplotlib axes
    why: Explanation,
    series: str,
    row: int,
    index: int,
    colours: Any,  # noqa: ANN401  # a colour map
) -> Any:  # noqa: ANN401  # what a colour bar is made from
    """Draws a slice with its heat map, on one colour scale for the exam."""
    heat = why.slice_heat(series, row, index)
    scale = why.scale or 1.0
    stack = why.stacks.get(series)
    blank = np.zeros(heat.shape, np.uint8)
    title = f"{series}[{index}], raises most"
    show_slice(axes, blank if stack is None else stack[index], title)
    return axes.imshow(
        heat,
        cmap=colours,
        vmin=-scale,
        vmax=scale,
        alpha=OPAQUE * np.clip(np.abs(heat) / scale, 0, 1) ** GAMMA,
    )
