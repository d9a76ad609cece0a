"""Notes before training: findings whose labels don't suffice, and sides of the knees."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from mrknee.exams import cut_labels, label_files
from mrknee.exams.sides import SIDES_FILE
from mrknee.training.parts import Parts
from mrknee.training.recipe import Recipe

Labels = Float[np.ndarray, "exams findings"]


def coverage_notes(parts: Parts, recipe: Recipe) -> list[str]:
    """Returns notes on findings that lack labels or a class, and on the sides of the knees.

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
    part = "inner" if inner else "valid"
    labels = cut_labels(parts.selection.labels[list(parts.selection_positions)])
    effect = "not counted in the mean AUC that selects the epoch"
    effect += ", not calibrated, no thresholds" if inner else ", no AUC"
    notes = [
        f"{finding}: {reason} in {part}: {effect}"
        for finding, reason in _reasons_without_auc(findings, labels).items()
    ]
    if len(notes) == len(findings) and recipe.selection.metric == "mean_auc":
        notes.append(
            f"no finding has an AUC on {part}: epochs can't be compared, and the last one is kept"
        )
    root = parts.train.folder.parent
    if inner and parts.valid is None:
        notes.append(f"{root} has no folder valid/: the inner exams are scored instead")
    elif inner and parts.valid is not None and not parts.scores_valid:
        notes.append("no exam in valid has a label: the inner exams are scored instead")
    elif inner and parts.valid is not None:
        reasons = _reasons_without_auc(findings, cut_labels(parts.valid.labels))
        notes += [f"{finding}: {reason} in valid: no AUC" for finding, reason in reasons.items()]
    if recipe.findings is None:
        only_valid = label_files(root / "valid").keys() - set(findings)
        notes += [f"{name}: no label file in train: not learned" for name in sorted(only_valid)]
    if parts.canonical_sides:
        notes.append(
            f"exams are not mirrored in training: {SIDES_FILE} shows all knees as one side"
        )
    return notes


def _reasons_without_auc(findings: tuple[str, ...], labels: Labels) -> dict[str, str]:
    """Returns finding -> why it has no AUC, for the findings without one."""
    reasons = {}
    for column, finding in enumerate(findings):
        positive, negative = (int((labels[:, column] == value).sum()) for value in (1, 0))
        if positive + negative == 0:
            reasons[finding] = "no exam has a label"
        elif 0 in (positive, negative):
            label = "positive" if positive else "negative"
            reasons[finding] = f"all {positive + negative} exams with a label are {label}"
    return reasons
