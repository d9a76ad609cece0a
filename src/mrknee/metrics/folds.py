"""Predictions of the arms of an experiment for one set of exams, with its labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mrknee.errors import DataError
from mrknee.exams import read_groups
from mrknee.exams.groups import group_numbers
from mrknee.metrics.predictions import Predictions, check_same_exams, reorder


@dataclass(frozen=True)
class Fold:
    """The labels of one set of exams, and all arms' scores for them.

    Attributes:
        labels: finding -> (exams,): 1 present, 0 absent, NaN unknown.
        scores: arm -> finding -> (seeds, exams); an arm may lack findings.
        groups: the number of each exam's group; exams of one group are not independent.
        within: names in `labels` and `scores` that are no findings of their own, but a finding
            among the exams that have another one; they don't count in means over findings.
    """

    labels: Mapping[str, Float[np.ndarray, " exams"]]
    scores: Mapping[str, Mapping[str, Float[np.ndarray, "seeds exams"]]]
    groups: tuple[int, ...]
    within: tuple[str, ...] = ()


def read_fold(
    root: Path,
    split: str,
    tables: Mapping[str, Sequence[Predictions]],
    within: str | None = None,
    *,
    soft: bool = False,
) -> Fold:
    """Reads the labels and groups of predicted exams.

    Args:
        root: the data set's folder.
        split: the predicted split.
        tables: arm -> predictions of its seeds, all of the same exams in any order.
        within: a finding; the others are also scored among the exams that have it only, under
            the name `FINDING within WITHIN`.
        soft: accept soft labels, of which those of at least 0.5 become 1, others 0.

    Raises:
        MrkneeError: the tables contain different exams, no finding has labels, or `within` is
            not predicted or has no labels.
    """
    every = [(f"{arm}, table {i}", one) for arm, t in tables.items() for i, one in enumerate(t, 1)]
    check_same_exams([one for _, one in every], [name for name, _ in every])
    ids = every[0][1].ids
    labels: dict[str, Float[np.ndarray, " exams"]] = {}
    scores: dict[str, dict[str, Float[np.ndarray, "seeds exams"]]] = {}
    for arm, of_seeds in tables.items():
        ordered = [reorder(one, ids, one.findings) for one in of_seeds]
        known = ordered[0].labels(root, split, soft=soft)
        scores[arm] = {}
        for column, finding in enumerate(ordered[0].findings):
            if not np.isnan(known[:, column]).all():
                labels[finding] = known[:, column]
                scores[arm][finding] = np.stack([one[finding] for one in ordered])
    groups = group_numbers(ids, read_groups(root) or {})
    if within is None:
        return Fold(labels, scores, tuple(groups))
    refuse_unlabelled_within(within, labels, root)
    names = {finding: f"{finding} within {within}" for finding in labels if finding != within}
    has_it = labels[within] == 1
    labels |= {name: np.where(has_it, labels[one], np.nan) for one, name in names.items()}
    for each in scores.values():
        each |= {name: each[one] for one, name in names.items() if one in each}
    return Fold(labels, scores, tuple(groups), tuple(names.values()))


def refuse_unlabelled_within(within: str, scored: Iterable[str], root: Path) -> None:
    """Raises DataError if findings can't be scored within one that itself isn't scored."""
    findings = list(scored)
    if within not in findings:
        raise DataError(
            f"nothing can be scored within {within}",
            code="unknown-finding",
            file=root,
            expected=f"one of the predicted findings with labels: {', '.join(findings)}",
            found=within,
        )
