"""Label files: their form, their ids, their logic, and how often each finding is present."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.stats import fisher_exact

from mrknee.checkup.facts import LabelCount
from mrknee.checkup.problem import Problem, from_error
from mrknee.errors import MrkneeError
from mrknee.exams import Dataset, Findings, label_files, read_labels

INCLUDING = ("acl", "meniscus")
"""Findings that make an exam abnormal by MRNet's definition of the label."""

CODES = ("label-name", "label-value", "label-twice", "label-unknown")
"""Codes of the readers' errors; any other error is `label-format`."""

CHANCE = 0.05
"""Train and valid differ where Fisher's exact test has p below this, divided by the number of
findings: of data sets that were split at random, at most 5 % get a warning."""


def check_labels(
    root: Path, split: str, ids: Sequence[str]
) -> tuple[dict[str, LabelCount], list[Problem]]:
    """One split's label files.

    Args:
        root: the data set's folder.
        split: the split's name.
        ids: its exams.

    Returns:
        Finding -> its counts, for each file that can be read and joined; and the problems.
    """
    columns: dict[str, Float[np.ndarray, " exams"]] = {}
    problems: list[Problem] = []
    try:
        files = label_files(root / split)
    except MrkneeError as error:
        wrong = from_error(error, CODES, "label-name", root / f"{split}-<finding>.csv").within(root)
        return {}, [wrong]
    for name, file in files.items():
        try:
            (finding,) = Findings([name])
            exams = Dataset(
                root / split,
                findings=[finding],
                labels_of=root / split,
                allow_missing_plane=True,
            )
        except MrkneeError as error:
            problems.append(from_error(error, CODES, "label-format", file).within(root))
        else:
            columns[finding] = exams.labels[:, 0]
            problems += _without_line(file, ids)
    if not files and split in ("train", "valid"):
        code = "no-labels" if split == "train" else "no-valid-labels"
        problems.append(Problem(code, "there is no label file", f"{split}-<finding>.csv"))
    ordered = {name: columns[name] for name in (Findings(columns) if columns else ())}
    counts = {name: _count(column) for name, column in ordered.items()}
    problems += _one_class(split, counts)
    problems += _contradictions(split, ids, ordered)
    return counts, problems


def _without_line(file: Path, ids: Sequence[str]) -> Iterator[Problem]:
    lines = read_labels(file)
    missing = [exam_id for exam_id in ids if exam_id not in lines]
    if missing:
        text = f"{len(missing)} of {len(ids)} exams have no line, {missing[0]!r} first"
        yield Problem("label-missing", text, file.name)


def _count(column: Float[np.ndarray, " exams"]) -> LabelCount:
    positive, negative = int((column == 1).sum()), int((column == 0).sum())
    return LabelCount(positive, negative, len(column) - positive - negative)


def _one_class(split: str, counts: Mapping[str, LabelCount]) -> Iterator[Problem]:
    for name, n in counts.items():
        if not n.positive or not n.negative:
            code = "not-learnable" if split == "train" else "no-auc"
            text = f"{name}: {n.positive} positive, {n.negative} negative exams"
            yield Problem(code, text, f"{split}-{name}.csv")


def _contradictions(
    split: str, ids: Sequence[str], columns: Mapping[str, Float[np.ndarray, " exams"]]
) -> Iterator[Problem]:
    if "abnormal" not in columns:
        return
    for name in INCLUDING:
        if name in columns:
            for i in np.flatnonzero((columns[name] == 1) & (columns["abnormal"] == 0)):
                text = f"{name} is positive though abnormal is negative"
                yield Problem("contradiction", text, f"{split}-{name}.csv", ids[int(i)])


def compare_labels(
    train: Mapping[str, LabelCount], valid: Mapping[str, LabelCount]
) -> Iterator[Problem]:
    """Findings that only one of train and valid has, and prevalences that differ.

    Args:
        train: the split's counts; nothing is said where either split has none.
        valid: the same.
    """
    lacking = [f"train-{name}.csv" for name in valid if name not in train]
    lacking += [f"valid-{name}.csv" for name in train if name not in valid]
    if train and valid and lacking:
        yield Problem("findings-differ", f"missing: {', '.join(lacking)}", lacking[0])
    common = [name for name in train if name in valid]
    for name in common:
        first, second = train[name], valid[name]
        table = np.array([[n.positive, n.negative] for n in (first, second)])
        p = float(fisher_exact(table).pvalue)
        if p < CHANCE / len(common):
            text = (
                f"{name}: {_percent(first)} of train, {_percent(second)} of valid; chance would "
                f"part them as far with p = {p:.1g} (Fisher's exact test)"
            )
            yield Problem("prevalence", text, f"valid-{name}.csv")


def _percent(n: LabelCount) -> str:
    share = n.prevalence
    return f"{share.value:.0%} ({share.low:.0%} to {share.high:.0%})"
