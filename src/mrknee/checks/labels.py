"""Checks of label files: format, ids, consistency and prevalences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.stats import fisher_exact

from mrknee.checks.facts import LabelCount
from mrknee.checks.problem import Problem, from_error
from mrknee.errors import MrkneeError
from mrknee.exams import Findings, cut_labels, in_order, label_files, read_findings, read_labels
from mrknee.exams.findings import FINDINGS_FILE
from mrknee.exams.labels import join_labels

INCLUDING = ("acl", "meniscus")
"""Findings that make an exam abnormal by MRNet's definition of the label."""

CODES = ("label-name", "label-value", "label-twice", "label-unknown")
"""Error codes of the readers that are problems of the same code; others are `label-format`."""

CHANCE = 0.05
"""Train and valid differ if the p-value of Fisher's exact test is below this level divided by the
number of findings: of randomly split data sets, at most 5 % get a warning."""


def check_labels(
    root: Path, split: str, ids: Sequence[str], declared: Mapping[str, str] | None = None
) -> tuple[dict[str, LabelCount], list[Problem]]:
    """Checks the label files of one split.

    Args:
        root: the data set's folder.
        split: name of the split.
        ids: ids of its exams.
        declared: the findings that the data set declares, in order; None if it declares none.

    Returns:
        Finding -> label counts, for each file that can be read and joined; and the problems.
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
            column = join_labels(ids, read_labels(file, soft=True), file, root / split)
            columns[finding] = cut_labels(column)
        except MrkneeError as error:
            problems.append(from_error(error, CODES, "label-format", file).within(root))
        else:
            problems += _without_line(file, ids)
            problems += _soft(file, column)
            if declared is not None and finding not in declared:
                text = f"expected one of {', '.join(declared)}"
                problems.append(Problem("undeclared-finding", text, file.name))
    if not files and split in ("train", "valid"):
        code = "no-labels" if split == "train" else "no-valid-labels"
        problems.append(Problem(code, "there is no label file", f"{split}-<finding>.csv"))
    if split == "train" and files and declared is not None:
        for name in declared:
            if name not in files:
                text = f"{FINDINGS_FILE} declares {name}, but no exam has a label for it"
                problems.append(Problem("unlabelled-finding", text, f"{split}-{name}.csv"))
    ordered = {name: columns[name] for name in (in_order(columns, declared) if columns else ())}
    counts = {name: _count(column) for name, column in ordered.items()}
    problems += _one_class(split, counts)
    problems += _contradictions(split, ids, ordered)
    return counts, problems


def _without_line(file: Path, ids: Sequence[str]) -> Iterator[Problem]:
    lines = read_labels(file, soft=True)
    missing = [exam_id for exam_id in ids if exam_id not in lines]
    if missing:
        text = f"{len(missing)} of {len(ids)} exams have no line, the first is {missing[0]!r}"
        yield Problem("label-missing", text, file.name)


def _soft(file: Path, column: Float[np.ndarray, " exams"]) -> Iterator[Problem]:
    count = int(((column > 0) & (column < 1)).sum())
    if count:
        text = f"{count} of {len(column)} labels lie between 0 and 1"
        yield Problem("soft-label", text, file.name)


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
    """Reports findings that only one of train and valid has, and prevalences that differ.

    Args:
        train: label counts of train; if either split has none, nothing is reported.
        valid: label counts of valid.
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
                f"{name}: {_percent(first)} of train, {_percent(second)} of valid; "
                f"p = {p:.1g} (Fisher's exact test)"
            )
            yield Problem("prevalence", text, f"valid-{name}.csv")


def _percent(n: LabelCount) -> str:
    share = n.prevalence
    return f"{share.value:.0%} ({share.low:.0%} to {share.high:.0%})"


def declared_findings(root: Path) -> tuple[Mapping[str, str] | None, list[Problem]]:
    """Reads the declared findings; returns a problem if `findings.csv` can't be read."""
    try:
        return read_findings(root), []
    except MrkneeError as error:
        file = root / FINDINGS_FILE
        return None, [from_error(error, ("declaration",), "declaration", file).within(root)]
