"""How well findings can be predicted without looking at the knee: from metadata alone.

Sizes and grey values of stacks, missing series, sides and groups differ between scanners and
hospitals, and so do prevalences. A network can use such differences and reach a good AUC on exams
of the same scanners without recognising a lesion. The AUC of a logistic regression on metadata
states how much there is to gain: by cross-validation with random folds, as in a random split, and
with folds of complete groups (`groups.csv`), as for scanners or patients that were not trained on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from warnings import catch_warnings, simplefilter

import numpy as np
from jaxtyping import Float, Int64

from mrknee.checks.stacks import StackSummary
from mrknee.errors import MrkneeError
from mrknee.exams import (
    assign_folds,
    cut_labels,
    label_files,
    read_groups,
    read_labels,
    read_sides,
)
from mrknee.exams.groups import group_numbers
from mrknee.exams.labels import join_labels
from mrknee.metrics.discrimination import Auc, auc

FOLDS = 5
"""Number of folds of the cross-validation."""

FEWEST = 10
"""Minimum number of exams of `train` with a finding, and without it: two of each per fold."""

MAX_ITERATIONS = 1000
"""Maximum number of iterations of the logistic regression; some 20 to 100 are usual."""

GREY_LEVELS = (5, 50, 95)
"""Percentiles of a stack's grey values that are used, besides their mean and SD."""


@dataclass(frozen=True)
class MetadataAuc:
    """AUCs of predicting a finding from metadata alone, with 95 % intervals.

    Attributes:
        random: with random folds.
        grouped: with complete groups in each fold; None without groups of several exams, or if a
            class is missing in the exams outside a fold.
    """

    random: Auc
    grouped: Auc | None


def score_metadata(
    root: Path, ids: Sequence[str], stacks: Sequence[StackSummary]
) -> dict[str, MetadataAuc]:
    """Predicts the findings of `train` from metadata.

    Metadata are, for each series, whether the exam has it, its numbers of slices, rows and columns,
    and mean, SD and percentiles of its grey values; the knee's side; and the exam's group. They
    are standardised, except for the group, which is one number (0 or 1) per group.

    Args:
        root: the data set's folder.
        ids: ids of the exams of `train`.
        stacks: summaries of the readable stacks; those of other splits are ignored.

    Returns:
        Finding -> AUCs, for findings with at least `FEWEST` exams of each class. Label files that
        can't be read are left out, because they are reported elsewhere.
    """
    columns: dict[str, Float[np.ndarray, " exams"]] = {}
    try:
        groups = read_groups(root) or {}
        for name, file in label_files(root / "train").items():
            labels = cut_labels(join_labels(ids, read_labels(file, soft=True), file, root))
            if min((labels == 0).sum(), (labels == 1).sum()) >= FEWEST:
                columns[name] = labels
        sides = read_sides(root) or {}
    except MrkneeError:
        return {}
    if not columns:
        return {}
    series = _series_features(ids, stacks)
    known_sides = [sides[i].side if i in sides else None for i in ids]
    side = np.array([[one == "left", one == "right"] for one in known_sides], dtype=np.float64)
    numbers = group_numbers(ids, groups)
    features, in_group = np.column_stack([series, side]), _indicators(numbers)
    table = np.stack([*columns.values()], axis=1)
    random = _predict(features, in_group, table, assign_folds(table, FOLDS))
    grouped = np.full(table.shape, np.nan)
    if in_group.shape[1] and len(set(numbers)) >= FOLDS:
        grouped = _predict(features, in_group, table, assign_folds(table, FOLDS, numbers))
    found = {}
    for column, name in enumerate(columns):
        of_random, of_grouped = random[:, column], grouped[:, column]
        if not np.isnan(of_random).any():
            found[name] = MetadataAuc(
                auc(table[:, column], of_random),
                None if np.isnan(of_grouped).any() else auc(table[:, column], of_grouped),
            )
    return found


def _series_features(
    ids: Sequence[str], stacks: Sequence[StackSummary]
) -> Float[np.ndarray, "exams features"]:
    """Returns sizes and grey values of each exam's series; 0 for missing series."""
    row = {exam_id: number for number, exam_id in enumerate(ids)}
    train = [one for one in stacks if one.place.split == "train" and one.place.exam in row]
    names = {name: n for n, name in enumerate(dict.fromkeys(one.place.series for one in train))}
    count = 6 + len(GREY_LEVELS)
    features = np.zeros((len(ids), len(names), count))
    for one in train:
        grey = [one.cells.mean(), one.cells.std(), *np.percentile(one.cells, GREY_LEVELS)]
        features[row[one.place.exam], names[one.place.series]] = [1, *one.shape, *grey]
    return features.reshape(len(ids), -1)


def _indicators(numbers: Sequence[int]) -> Float[np.ndarray, "exams groups"]:
    """Returns one column per group of several exams: 1 for its exams, otherwise 0."""
    several = [number for number, count in Counter(numbers).items() if count > 1]
    same = np.array(numbers)[:, None] == np.array(several, dtype=np.int64)
    return np.asarray(same, dtype=np.float64)


def _predict(
    features: Float[np.ndarray, "exams features"],
    in_group: Float[np.ndarray, "exams groups"],
    labels: Float[np.ndarray, "exams findings"],
    folds: Int64[np.ndarray, " exams"],
) -> Float[np.ndarray, "exams findings"]:
    """Returns the log odds of each finding, predicted from the exams of the other folds.

    They are NaN if the other folds have one class only.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    found = np.full(labels.shape, np.nan)
    for fold in range(FOLDS):
        held_out = folds == fold
        scaler = StandardScaler().fit(features[~held_out])
        values = np.column_stack([scaler.transform(features), in_group])
        for column, of_finding in enumerate(labels.T):
            fitted = ~held_out & ~np.isnan(of_finding)
            if len(np.unique(of_finding[fitted])) == 2:
                model = LogisticRegression(max_iter=MAX_ITERATIONS)
                with catch_warnings():
                    simplefilter("ignore", ConvergenceWarning)  # the scores are usable as they are
                    model.fit(values[fitted], of_finding[fitted])
                found[held_out, column] = model.decision_function(values[held_out])
    return found


def metadata_rows(found: Mapping[str, MetadataAuc]) -> list[tuple[str, ...]]:
    """Returns a table of the AUCs: a header, then one row per finding."""
    header = ("metadata alone predict", "with", "without", "AUC: random folds", "grouped folds")
    rows: list[tuple[str, ...]] = [header]
    for name, one in found.items():
        counts = (str(one.random.n_positive), str(one.random.n_negative))
        grouped = "-" if one.grouped is None else _text(one.grouped)
        rows.append((name, *counts, _text(one.random), grouped))
    return rows


def _text(one: Auc) -> str:
    return f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})"
