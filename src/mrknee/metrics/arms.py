"""Comparison of the arms of an experiment, each trained with several seeds: `comparison.json`.

Every other arm is compared with the baseline, for the mean AUC and for each finding. Intervals and
tests are those of `hierarchical`: over exams and seeds together. With a margin, each difference
gets a verdict (`verdict`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from mrknee.metrics.folds import Fold
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
from mrknee.tables import table_lines

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEAN = "mean"
"""Stands for the mean over the findings, in tables and files."""

VERSION = 1
"""Version of the file format."""

Verdict = Literal["better", "worse", "equivalent", "not settled"]

SIGNIFICANT = 0.05
"""p, after Holm's correction, below which a difference counts as better or worse."""


@dataclass(frozen=True)
class Difference:
    """The difference of an arm's AUC to that of its baseline, for a finding or the mean.

    Attributes:
        arm: name of the arm.
        baseline: name of the arm that it is compared with.
        finding: name of the finding, or `MEAN`.
        findings: the findings included in the mean: those that both arms have.
        estimate: the difference, arm - baseline.
        p_holm: p after Holm's correction: for the mean, over the arms; for a finding, over all arms
            and findings; for findings within another one, over all of these. The primary comparison
            is not corrected, and differences between equal predictions are no tests.
        verdict: the verdict; None without a margin.
    """

    arm: str
    baseline: str
    finding: str
    findings: tuple[str, ...]
    estimate: Estimate
    p_holm: float
    verdict: Verdict | None = None

    @property
    def same(self) -> bool:
        """Whether both arms rank all exams alike, as if they share a network: nothing to test."""
        return self.estimate.method == "none" and self.estimate.p == 1


@dataclass(frozen=True, repr=False)
class ArmComparison:
    """Comparison of the arms of an experiment: content of `comparison.json`.

    Attributes:
        baseline: the arm that the others are compared with.
        seeds: the seeds of each arm.
        split: what was predicted, such as `valid`.
        n_exams: number of exams, including those with unknown labels.
        counts: finding -> numbers of positive and negative exams.
        aucs: arm -> finding, or `MEAN` -> AUC. The mean is over the arm's own findings that have
            exams of both classes (in each fold).
        differences: one per arm except the baseline, for the mean and for each finding.
        notes: notes for readers.
        within: the findings in `counts` that are findings among the exams that have another one.
        primary: the arm whose difference in mean AUC is the primary result; None if not stated.
        margin: differences up to this size don't matter; None: no verdicts.
    """

    baseline: str
    seeds: tuple[int, ...]
    split: str
    n_exams: int
    counts: Mapping[str, tuple[int, int]]
    aucs: Mapping[str, Mapping[str, Estimate]]
    differences: tuple[Difference, ...]
    notes: tuple[str, ...] = ()
    within: tuple[str, ...] = ()
    primary: str | None = None
    margin: float | None = None

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
            "primary": self.primary,
            "margin": self.margin,
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
            others = any(one.baseline != self.baseline for one in self.differences)
            of = f"{self.baseline}, unless another arm is named" if others else self.baseline
            parts.append(
                [
                    f"Differences (AUC less that of {of}), paired by exam and seed:",
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

        return plot_arms(
            {
                panel: {arm: one[panel] for arm, one in self.aucs.items() if panel in one}
                for panel in self._panels()
            },
            list(self.aucs),
            self.baseline,
        )

    def plot_differences(self) -> Figure:
        """Draws each difference's seeds, mean and interval, and the margin as a band.

        Returns:
            A matplotlib figure: one panel for the mean AUC, and one per finding.

        Raises:
            PlatformError: matplotlib is not installed.
        """
        from mrknee.metrics.plot import plot_differences

        return plot_differences(
            {
                panel: {
                    self._name(one): one.estimate
                    for one in self.differences
                    if one.finding == panel
                }
                for panel in self._panels()
            },
            list(dict.fromkeys(self._name(one) for one in self.differences)),
            self.margin,
        )

    def _panels(self) -> list[str]:
        findings = [name for name in self.counts if name not in self.within]
        has_mean = len(findings) > 1 and any(MEAN in one for one in self.aucs.values())
        return [MEAN, *findings] if has_mean else findings

    def _name(self, one: Difference) -> str:
        usual = one.baseline == self.baseline
        return one.arm if usual else f"{one.arm} - {one.baseline}"

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
            + (() if self.margin is None else ("verdict",))
        ]
        for finding in self._rows():
            for one in self.differences:
                if one.finding == finding:
                    found = one.estimate
                    arm = self._name(one)
                    cells = (
                        format_signed(found.value),
                        format_signed_interval(found.low, found.high),
                    )
                    ps = format_p(found.p), format_p(one.p_holm)
                    verdict = () if one.verdict is None else (one.verdict,)
                    rows.append((finding, arm, *cells, format_number(found.sd), *ps, *verdict))
        return rows

    def _explained(self) -> list[str]:
        """Returns the legend of the table of differences."""
        tested = [
            one.finding
            for one in self.differences
            if not one.same and not (one.finding == MEAN and one.arm == self.primary)
        ]
        means = tested.count(MEAN)
        inside = sum(finding in self.within for finding in tested)
        others = len(tested) - means - inside
        holm_over = [
            f"over {count} {tests}"
            for count, tests in (
                (means, f"arm{'' if means == 1 else 's'} for the mean"),
                (others, "tests for the findings"),
                (inside, "tests for findings within another one"),
            )
            if count
        ]
        lines = [f"Intervals and p: over exams and seeds together ({CROSSED})."]
        if holm_over:
            lines.append(f"Holm: {', '.join(holm_over)}.")
        if self.primary is not None:
            lines.append(f"Primary: {self.primary}, mean; p is not corrected.")
        if self.margin is not None:
            lines.append(
                f"Verdict: equivalent if the interval lies within -{self.margin:g} to "
                f"+{self.margin:g}; otherwise better or worse if Holm's p is below "
                f"{SIGNIFICANT:g}; otherwise not settled."
            )
        return lines

    def _remarks(self) -> list[str]:
        remarks: dict[str, list[str]] = {}
        for arm, each in self.aucs.items():
            for finding, one in each.items():
                if (text := _remark(one)) is not None:
                    remarks.setdefault(text, []).append(f"{finding}, {arm}")
        for other in self.differences:
            if (text := _remark(other.estimate)) is not None:
                where = f"{other.finding}, {other.arm} - {other.baseline}"
                remarks.setdefault(text, []).append(where)
        lines = []
        for text, places in remarks.items():
            every = len(places) == len(self.differences) + sum(map(len, self.aucs.values()))
            lines.append(f"{'all' if every else '; '.join(places)}: {text}")
        return lines + [f"note: {note}" for note in self.notes]


def compare_arms(
    folds: Sequence[Fold],
    *,
    baseline: str,
    seeds: Sequence[int],
    split: str,
    notes: Sequence[str] = (),
    other_baselines: Mapping[str, str | None] | None = None,
    primary: str | None = None,
    margin: float | None = None,
) -> ArmComparison:
    """Compares the arms of an experiment with the baseline.

    Args:
        folds: one set of exams; or several, such as the folds of a cross-validation, whose AUCs are
            averaged.
        baseline: name of the arm that the others are compared with.
        seeds: the seeds, in the order of the rows of the scores.
        split: name of what was predicted.
        notes: notes for readers.
        other_baselines: arm -> the arm that it is compared with in place of the baseline; None:
            with none.
        primary: the arm whose difference in mean AUC is not corrected for the others.
        margin: differences up to this size don't matter; None: no verdicts.
    """
    within = tuple(dict.fromkeys(name for fold in folds for name in fold.within))
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
    against = {arm: (other_baselines or {}).get(arm, baseline) for arm in each if arm != baseline}
    differences = [
        one
        for arm, other in against.items()
        if other in each
        for one in _differences(other, arm, each, groups, within)
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
        aucs={arm: _aucs(one, groups, within) for arm, one in each.items()},
        differences=tuple(_with_verdicts(_with_holm(differences, within, primary), margin)),
        notes=tuple(notes),
        within=tuple(name for name in within if name in counted),
        primary=primary if any(one.arm == primary for one in differences) else None,
        margin=margin,
    )


def verdict(estimate: Estimate, p_holm: float, margin: float) -> Verdict:
    """Returns what a comparison shows.

    Equivalence comes first: a difference whose interval lies within the margin doesn't matter, even
    if it isn't 0. Without a p (one seed, or too few exams of a class), nothing is settled.

    Args:
        estimate: the difference.
        p_holm: its p after Holm's correction.
        margin: differences up to this size don't matter.
    """
    if math.isnan(p_holm):
        return "not settled"
    if -margin <= estimate.low and estimate.high <= margin:
        return "equivalent"
    if p_holm < SIGNIFICANT:
        return "better" if estimate.value > 0 else "worse"
    return "not settled"


def _aucs(
    each: Mapping[str, SeedAucs], groups: Sequence[int], within: Sequence[str]
) -> dict[str, Estimate]:
    found = {finding: auc_over_seeds(one, groups) for finding, one in each.items()}
    own = [one for finding, one in each.items() if finding not in within and one.has_auc]
    return {MEAN: auc_over_seeds(mean_over_findings(own), groups), **found} if own else found


def _differences(
    baseline: str,
    arm: str,
    each: Mapping[str, Mapping[str, SeedAucs]],
    groups: Sequence[int],
    within: Sequence[str],
) -> list[Difference]:
    first, second = each[baseline], each[arm]
    shared = [finding for finding in first if finding in second]
    own = tuple(f for f in shared if f not in within and first[f].has_auc and second[f].has_auc)
    if not own:
        return []
    means = [mean_over_findings([one[f] for f in own]) for one in (first, second)]
    pairs = {MEAN: means, **{f: [first[f], second[f]] for f in shared}}
    return [
        Difference(
            arm,
            baseline,
            name,
            own if name == MEAN else (name,),
            difference_over_seeds(one, other, groups),
            math.nan,
        )
        for name, (one, other) in pairs.items()
    ]


def _with_holm(
    differences: Sequence[Difference], within: Sequence[str], primary: str | None
) -> list[Difference]:
    """Adds Holm's p; the primary comparison, means, findings and `within` are families."""

    def family(one: Difference) -> str:
        if one.same:
            return "same"
        if one.finding == MEAN:
            return "primary" if one.arm == primary else "means"
        return "within" if one.finding in within else "findings"

    corrected = list(differences)
    for name in dict.fromkeys(map(family, differences)):
        places = [i for i, one in enumerate(differences) if family(one) == name]
        ps = np.array([differences[i].estimate.p for i in places], dtype=np.float64)
        for place, p in zip(places, ps if name == "same" else holm(ps), strict=True):
            corrected[place] = replace(differences[place], p_holm=float(p))
    return corrected


def _with_verdicts(differences: Sequence[Difference], margin: float | None) -> list[Difference]:
    if margin is None:
        return list(differences)
    return [replace(one, verdict=verdict(one.estimate, one.p_holm, margin)) for one in differences]


def _remark(one: Estimate) -> str | None:
    if one.reason is not None:
        return one.reason
    return f"interval over {ONE_SEED}" if one.method == ONE_SEED else None
