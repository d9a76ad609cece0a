"""Comparison of the arms of an experiment, each trained with several seeds: `comparison.json`.

Every other arm is compared with the baseline, for the mean AUC and for each finding. Intervals and
tests are those of `hierarchical`: over exams and seeds together.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from mrknee.exams import read_groups
from mrknee.exams.groups import group_numbers
from mrknee.metrics.formatting import (
    format_exams,
    format_interval,
    format_number,
    format_p,
    format_signed,
    format_signed_interval,
)
from mrknee.metrics.hierarchical import (
    CROSSED,
    ONE_SEED,
    Estimate,
    SeedAucs,
    auc_over_seeds,
    difference_over_seeds,
    mean_over_findings,
    mean_over_folds,
    seed_aucs,
)
from mrknee.metrics.json_values import to_json_values
from mrknee.metrics.paired_tests import holm
from mrknee.metrics.predictions import Predictions, check_same_exams, reorder
from mrknee.tables import table_lines

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEAN = "mean"
"""Stands for the mean over the findings, in tables and files."""

VERSION = 1
"""Version of the file format."""


@dataclass(frozen=True)
class Fold:
    """The labels of one set of exams, and all arms' scores for them.

    Attributes:
        labels: finding -> (exams,): 1 present, 0 absent, NaN unknown.
        scores: arm -> finding -> (seeds, exams); an arm may lack findings.
        groups: the number of each exam's group; exams of one group are not independent.
    """

    labels: Mapping[str, Float[np.ndarray, " exams"]]
    scores: Mapping[str, Mapping[str, Float[np.ndarray, "seeds exams"]]]
    groups: tuple[int, ...]


@dataclass(frozen=True)
class Difference:
    """The difference of an arm's AUC to the baseline's, for a finding or the mean.

    Attributes:
        arm: name of the arm.
        finding: name of the finding, or `MEAN`.
        findings: the findings included in the mean: those that both arms have.
        estimate: the difference, arm - baseline.
        p_holm: p after Holm's correction: for the mean, over the arms; for a finding, over all arms
            and findings.
    """

    arm: str
    finding: str
    findings: tuple[str, ...]
    estimate: Estimate
    p_holm: float


@dataclass(frozen=True, repr=False)
class ArmComparison:
    """Comparison of the arms of an experiment: content of `comparison.json`.

    Attributes:
        baseline: the arm that the others are compared with.
        seeds: the seeds of each arm.
        split: what was predicted, such as `valid`.
        n_exams: number of exams, including those with unknown labels.
        counts: finding -> numbers of positive and negative exams.
        aucs: arm -> finding, or `MEAN` -> AUC. The mean is over the arm's own findings.
        differences: one per arm except the baseline, for the mean and for each finding.
        notes: notes for readers.
    """

    baseline: str
    seeds: tuple[int, ...]
    split: str
    n_exams: int
    counts: Mapping[str, tuple[int, int]]
    aucs: Mapping[str, Mapping[str, Estimate]]
    differences: tuple[Difference, ...]
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return self.table().rstrip()

    def to_json(self) -> str:
        """Returns the comparison as JSON; what can't be computed is null, with a reason."""
        content = {
            "version": VERSION,
            "split": self.split,
            "n_exams": self.n_exams,
            "seeds": list(self.seeds),
            "baseline": self.baseline,
            "counts": {
                finding: {"positive": positive, "negative": negative}
                for finding, (positive, negative) in self.counts.items()
            },
            "arms": [{"name": arm, "aucs": to_json_values(one)} for arm, one in self.aucs.items()],
            "differences": to_json_values(self.differences),
            "notes": list(self.notes),
        }
        return json.dumps(content, indent=2, allow_nan=False) + "\n"

    def table(self) -> str:
        """Returns AUCs, spreads over seeds and differences as plain text."""
        seeds = ", ".join(map(str, self.seeds))
        count = "1 seed" if len(self.seeds) == 1 else f"{len(self.seeds)} seeds"
        numbers = "; ".join(f"{f} {p} + {n}" for f, (p, n) in self.counts.items())
        parts = [
            [
                f"{self.split}: {format_exams(self.n_exams)}, {count} ({seeds}), "
                f"baseline {self.baseline}",
                f"positive + negative: {numbers}",
            ],
            table_lines(self._auc_rows(), left=2),
        ]
        if self.differences:
            parts.append(
                [
                    f"Differences (AUC less that of {self.baseline}), paired by exam and seed:",
                    *table_lines(self._difference_rows(), left=2),
                    *self._explained(),
                ]
            )
        parts.append(self._remarks())
        return "\n\n".join("\n".join(part) for part in parts if part) + "\n"

    def plot(self) -> Figure:
        """Draws each arm's seeds, mean and interval, and the baseline as a line.

        Returns:
            A matplotlib figure: one panel for the mean AUC, and one per finding.

        Raises:
            PlatformError: matplotlib is not installed.
        """
        from mrknee.metrics.plot import plot_arms

        panels = [MEAN, *self.counts] if len(self.counts) > 1 else list(self.counts)
        return plot_arms(
            {
                panel: {arm: one[panel] for arm, one in self.aucs.items() if panel in one}
                for panel in panels
            },
            list(self.aucs),
            self.baseline,
        )

    def _rows(self) -> list[str]:
        return [MEAN, *self.counts]

    def _auc_rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = [
            ("finding", "arm", "AUC", "95 % interval", "SD of seeds", "lowest", "highest")
        ]
        for finding in self._rows():
            for arm, each in self.aucs.items():
                if (one := each.get(finding)) is not None:
                    ends = (min(one.seeds), max(one.seeds))
                    cells = (
                        format_number(one.value),
                        format_interval(one.low, one.high),
                        format_number(one.sd),
                    )
                    rows.append((finding, arm, *cells, *map(format_number, ends)))
        return rows

    def _difference_rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = [
            ("finding", "arm", "difference", "95 % interval", "SD of seeds", "p", "Holm")
        ]
        for finding in self._rows():
            for one in self.differences:
                if one.finding == finding:
                    found = one.estimate
                    cells = (
                        format_signed(found.value),
                        format_signed_interval(found.low, found.high),
                    )
                    ps = format_p(found.p), format_p(one.p_holm)
                    rows.append((finding, one.arm, *cells, format_number(found.sd), *ps))
        return rows

    def _explained(self) -> list[str]:
        """Returns the legend of the table of differences."""
        means = sum(one.finding == MEAN for one in self.differences)
        others = len(self.differences) - means
        return [
            f"Intervals and p: over exams and seeds together ({CROSSED}).",
            f"Holm: over {means} arm{'' if means == 1 else 's'} for the mean, over {others} tests "
            "for the findings.",
        ]

    def _remarks(self) -> list[str]:
        remarks: dict[str, list[str]] = {}
        for arm, each in self.aucs.items():
            for finding, one in each.items():
                if (text := _remark(one)) is not None:
                    remarks.setdefault(text, []).append(f"{finding}, {arm}")
        for other in self.differences:
            if (text := _remark(other.estimate)) is not None:
                where = f"{other.finding}, {other.arm} - {self.baseline}"
                remarks.setdefault(text, []).append(where)
        lines = []
        for text, places in remarks.items():
            every = len(places) == len(self.differences) + sum(map(len, self.aucs.values()))
            lines.append(f"{'all' if every else '; '.join(places)}: {text}")
        return lines + [f"note: {note}" for note in self.notes]


def read_fold(root: Path, split: str, tables: Mapping[str, Sequence[Predictions]]) -> Fold:
    """Reads the labels and groups of predicted exams.

    Args:
        root: the data set's folder.
        split: the predicted split.
        tables: arm -> predictions of its seeds, all of the same exams in any order.

    Raises:
        MrkneeError: the tables contain different exams, or no finding has labels.
    """
    every = [(f"{arm}, table {i}", one) for arm, t in tables.items() for i, one in enumerate(t, 1)]
    check_same_exams([one for _, one in every], [name for name, _ in every])
    ids = every[0][1].ids
    labels: dict[str, Float[np.ndarray, " exams"]] = {}
    scores: dict[str, dict[str, Float[np.ndarray, "seeds exams"]]] = {}
    for arm, of_seeds in tables.items():
        ordered = [reorder(one, ids, one.findings) for one in of_seeds]
        known = ordered[0].labels(root, split)
        scores[arm] = {}
        for column, finding in enumerate(ordered[0].findings):
            if not np.isnan(known[:, column]).all():
                labels[finding] = known[:, column]
                scores[arm][finding] = np.stack([one[finding] for one in ordered])
    groups = group_numbers(ids, read_groups(root) or {})
    return Fold(labels, scores, tuple(groups))


def compare_arms(
    folds: Sequence[Fold],
    *,
    baseline: str,
    seeds: Sequence[int],
    split: str,
    notes: Sequence[str] = (),
) -> ArmComparison:
    """Compares the arms of an experiment with the baseline.

    Args:
        folds: one set of exams; or several, such as the folds of a cross-validation, whose AUCs are
            averaged.
        baseline: name of the arm that the others are compared with.
        seeds: the seeds, in the order of the rows of the scores.
        split: name of what was predicted.
        notes: notes for readers.
    """
    findings = dict.fromkeys(finding for fold in folds for finding in fold.labels)
    groups: list[int] = []
    for fold in folds:
        groups += [len(groups) + number for number in fold.groups]
    each: dict[str, dict[str, SeedAucs]] = {}
    for arm in folds[0].scores:
        each[arm] = {
            finding: mean_over_folds(
                [seed_aucs(fold.labels[finding], fold.scores[arm][finding]) for fold in folds]
            )
            for finding in findings
            if all(finding in fold.scores[arm] for fold in folds)
        }
    differences = [
        one
        for arm in each
        if arm != baseline
        for one in _differences(arm, each[baseline], each[arm], groups)
    ]
    counted = {
        f: (one.n_positive, one.n_negative) for arm in each.values() for f, one in arm.items()
    }
    return ArmComparison(
        baseline=baseline,
        seeds=tuple(seeds),
        split=split,
        n_exams=len(groups),
        counts={finding: counted[finding] for finding in findings if finding in counted},
        aucs={arm: _aucs(one, groups) for arm, one in each.items()},
        differences=tuple(_with_holm(differences)),
        notes=tuple(notes),
    )


def _aucs(each: Mapping[str, SeedAucs], groups: Sequence[int]) -> dict[str, Estimate]:
    found = {finding: auc_over_seeds(one, groups) for finding, one in each.items()}
    return {MEAN: auc_over_seeds(mean_over_findings(list(each.values())), groups), **found}


def _differences(
    arm: str,
    first: Mapping[str, SeedAucs],
    second: Mapping[str, SeedAucs],
    groups: Sequence[int],
) -> list[Difference]:
    shared = tuple(finding for finding in first if finding in second)
    if not shared:
        return []
    means = [mean_over_findings([one[f] for f in shared]) for one in (first, second)]
    pairs = {MEAN: means, **{f: [first[f], second[f]] for f in shared}}
    return [
        Difference(
            arm,
            name,
            shared if name == MEAN else (name,),
            difference_over_seeds(one, other, groups),
            math.nan,
        )
        for name, (one, other) in pairs.items()
    ]


def _with_holm(differences: Sequence[Difference]) -> list[Difference]:
    corrected = list(differences)
    for family in (True, False):
        places = [i for i, one in enumerate(differences) if (one.finding == MEAN) == family]
        ps = holm(np.array([differences[i].estimate.p for i in places], dtype=np.float64))
        for place, p in zip(places, ps, strict=True):
            corrected[place] = replace(differences[place], p_holm=float(p))
    return corrected


def _remark(one: Estimate) -> str | None:
    if one.reason is not None:
        return one.reason
    return f"interval over {ONE_SEED}" if one.method == ONE_SEED else None
