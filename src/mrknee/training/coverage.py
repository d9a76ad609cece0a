"""Check before training for findings whose labels don't suffice for selection or scores."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from mrknee.exams import cut_labels, label_files
from mrknee.training.parts import Parts
from mrknee.training.recipe import Recipe

Labels = Float[np.ndarray, "exams findings"]


def coverage_notes(parts: Parts, recipe: Recipe) -> list[str]:
    """Returns notes on findings that lack labels or a class.

    An AUC, a calibration and a threshold each need exams with and without the finding. If the exams
    that select the epoch don't have both, the finding doesn't count in the mean AUC; if valid
    doesn't, the finding has no AUC there. Other findings are not affected.

    Args:
        parts: the exams of each part.
        recipe: the run's settings.

    Returns:
        One sentence per finding and part; none if every finding has both classes in all parts.
    """
    findings = parts.train.findings or ()
    inner = recipe.selection.part == "inner"
    name = "inner" if inner else "valid"
    chosen = cut_labels(parts.selection.labels[list(parts.selection_positions)])
    lost = "doesn't count in the mean AUC that selects the epoch"
    lost += ", and gets no calibration and no thresholds" if inner else ", and gets no AUC"
    notes = [
        f"{finding}: {why} in {name}: it {lost}"
        for finding, why in _lacking(findings, chosen).items()
    ]
    if len(notes) == len(findings) and recipe.selection.metric == "mean_auc":
        notes.append(
            f"no finding has an AUC on {name}, so no epoch is better than another: the last is kept"
        )
    root = parts.train.folder.parent
    if inner and parts.valid is None:
        notes.append(f"{root} has no folder valid/: the scores will be of inner exams")
    elif inner and parts.valid is not None and not parts.scores_valid:
        notes.append("no exam of valid has a label: the scores will be of inner exams")
    elif inner and parts.valid is not None:
        for finding, why in _lacking(findings, cut_labels(parts.valid.labels)).items():
            notes.append(f"{finding}: {why} in valid: it gets no AUC there")
    if recipe.findings is None:
        others = label_files(root / "valid").keys() - set(findings)
        notes += [f"{name}: no label file in train: it isn't learned" for name in sorted(others)]
    return notes


def _lacking(findings: tuple[str, ...], labels: Labels) -> dict[str, str]:
    """Returns finding -> why it has no AUC, for the findings without one."""
    found = {}
    for column, finding in enumerate(findings):
        positive, negative = (int((labels[:, column] == value).sum()) for value in (1, 0))
        if positive + negative == 0:
            found[finding] = "no exam has a label"
        elif 0 in (positive, negative):
            kind = "positive" if positive else "negative"
            found[finding] = f"all exams with a label ({positive + negative}) are {kind}"
    return found
