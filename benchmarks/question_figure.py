"""Figures of one-or-three.md and one-or-twelve.md: one network against one network per finding.

    python benchmarks/question_figure.py \
        experiments/results/question-two-maps-rate/comparison.json docs/images/one_or_three.png
    python benchmarks/question_figure.py \
        experiments/results/rsna-one-or-twelve/comparison.json docs/images/one_or_twelve.png
    python benchmarks/question_figure.py experiments/results docs/images/one_or_three_means.png

With `comparison.json` of an experiment (`mrknee experiment`) or of `rsna_one_or_twelve.py`, the
figure has a row per finding. With the folder of all results, it has a row per experiment of
one-or-three.md (`MEANS`), with the mean AUC.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from mrknee.exams import RSNA_2026_FINDINGS

LABELS = {
    "joint": "one network, tuned (rate 1e-3)",
    "joint-3e-3": "rate 3e-3, added afterwards",
    "one": "one network for twelve findings",
    "sham": "one finding beside eleven permuted ones",
}
"""Arm of the experiment -> its name in the legend."""

BASELINES = {"singles": "three networks", "alone": "networks for one finding each"}
"""Baseline -> its name."""

COLOURS = ("#1f5fa8", "#c0762b")
WITHIN = " within abnormal"
TITLES = {"acl": "ACL tear", "meniscus": "meniscal tear"}


MEANS = (
    ("one network", None, None),
    ("tuned as planned (rate 1e-3)", "question-two-maps", "joint"),
    ("rate 3e-3, the same seeds", "question-two-maps-rate", "joint-3e-3"),
    ("rate 3e-3, other seeds", "question-two-maps-controls", "joint"),
    ("three times the channels", "question-two-maps-controls", "joint-96"),
    ("400 training exams", "question-two-maps-n", "joint-400"),
    ("200 training exams", "question-two-maps-n", "joint-200"),
    ("100 training exams", "question-two-maps-n", "joint-100"),
    ("a network for two findings, and one", None, None),
    ("abnormal + ACL", "question-two-maps-controls", "pair-abnormal+acl"),
    ("abnormal + meniscus", "question-two-maps-controls", "pair-abnormal+meniscus"),
    ("ACL + meniscus", "question-two-maps-controls", "pair-acl+meniscus"),
    ("three networks for all findings", None, None),
    ("their mean", "question-two-maps-controls", "ensemble"),
)
"""Label of a row, folder of results, and arm; headings have no folder."""


def title(finding: str) -> str:
    """Returns the label of a row."""
    name = finding.removesuffix(WITHIN)
    return TITLES.get(name, RSNA_2026_FINDINGS.get(name, name)) + (
        "\namong abnormal knees" if name != finding else ""
    )


def draw_estimate(
    axes: Axes,
    estimate: dict[str, Any],
    place: float,
    ticks: float,
    colour: str,
    label: str | None = None,
) -> None:
    """Draws a difference and its interval at one height, and its seeds at another."""
    axes.plot([estimate["low"], estimate["high"]], [place] * 2, color=colour, linewidth=2)
    axes.plot(estimate["value"], place, "o", color=colour, label=label)
    seeds = estimate["seeds"]
    axes.plot(seeds, [ticks] * len(seeds), "|", color=colour, markersize=5, alpha=0.7)


def draw(comparison: dict[str, Any], file: Path) -> None:
    """Draws the differences of the arms in `LABELS` to the baseline, with intervals and seeds."""
    margin = comparison["margin"]
    arms = [name for name in LABELS if any(d["arm"] == name for d in comparison["differences"])]
    rows = list(dict.fromkeys(one["finding"] for one in comparison["differences"]))
    figure, axes = plt.subplots(figsize=(8, 0.75 * len(rows) + 1.2), layout="constrained")
    axes.axvspan(-margin, margin, color="0.92", label=f"equivalent: within {margin} AUC")
    axes.axvline(0, color="0.4", linewidth=0.8)
    for number, (arm, colour) in enumerate(zip(arms, COLOURS, strict=False)):
        for one in comparison["differences"]:
            if one["arm"] != arm or one["estimate"]["method"] == "none":  # the same networks
                continue
            place = rows.index(one["finding"]) + 0.28 * (number - (len(arms) - 1) / 2)
            estimate = one["estimate"]
            label = LABELS[arm] if one["finding"] == rows[0] else None
            draw_estimate(axes, estimate, place, place + 0.12, colour, label)
    axes.set(yticks=range(len(rows)), yticklabels=map(title, rows))
    axes.set_ylim(len(rows) - 0.4, -0.6)
    baseline = BASELINES[comparison["baseline"]]
    axes.set_xlabel(f"AUC less that of {baseline} (left: worse; right: better)")
    exams, seeds = comparison["n_exams"], len(comparison["seeds"])
    axes.set_title(f"95 % intervals over {exams:,} exams and {seeds} seeds; ticks: single seeds")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(file, dpi=100)


def draw_means(results: Path, file: Path) -> None:
    """Draws the difference in mean AUC of each row of `MEANS`, with intervals and seeds."""
    figure, axes = plt.subplots(figsize=(8, 0.36 * len(MEANS) + 1.4), layout="constrained")
    for row, (_, folder, arm) in enumerate(MEANS):
        if folder is None:
            continue
        comparison = json.loads((results / folder / "comparison.json").read_text())
        (estimate,) = (
            one["estimate"]
            for one in comparison["differences"]
            if one["arm"] == arm and one["finding"] == "mean"
        )
        draw_estimate(axes, estimate, row, row + 0.3, COLOURS[0])
    margin = comparison["margin"]
    axes.axvspan(-margin, margin, color="0.92", zorder=0)
    axes.axvline(0, color="0.4", linewidth=0.8)
    axes.set(yticks=range(len(MEANS)), yticklabels=[label for label, _, _ in MEANS])
    for text, (_, folder, _) in zip(axes.get_yticklabels(), MEANS, strict=True):
        text.set_fontweight("normal" if folder else "bold")
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(MEANS) - 0.4, -0.6)
    axes.set_xlabel(
        "mean AUC less that of three networks for one finding each (right: better)\n"
        f"grey: within {margin}; 95 % intervals over exams and seeds; ticks: seeds"
    )
    figure.savefig(file, dpi=100)


def main() -> None:
    """Reads the command line and draws the figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("comparison", type=Path, metavar="FILE_OR_FOLDER")
    parser.add_argument("figure", type=Path)
    given = parser.parse_args()
    if given.comparison.is_dir():
        draw_means(given.comparison, given.figure)
    else:
        draw(json.loads(given.comparison.read_text()), given.figure)


if __name__ == "__main__":
    main()
