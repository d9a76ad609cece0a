"""Checkup: the result of `check`, also as JSON and as a table."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from mrknee.checks.metadata import MetadataAuc
from mrknee.checks.problem import Problem
from mrknee.extras import data_frame
from mrknee.metrics.json_values import to_json_values
from mrknee.metrics.proportions import Proportion, wilson

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class LabelCount:
    """Numbers of exams of a split in which a finding is present, absent and unknown."""

    positive: int
    negative: int
    unknown: int

    @property
    def prevalence(self) -> Proportion:
        """Share of positive among known labels, with Wilson's interval; NaN if none is known."""
        return wilson(self.positive, self.positive + self.negative)


@dataclass(frozen=True)
class SliceCount:
    """Number of readable stacks of a series, and the distribution of their slice counts.

    Attributes:
        stacks: number of readable stacks.
        fewest: minimum number of slices.
        lower: lower quartile of the number of slices.
        median: median number of slices.
        upper: upper quartile of the number of slices.
        most: maximum number of slices.
    """

    stacks: int
    fewest: int
    lower: float
    median: float
    upper: float
    most: int


@dataclass(frozen=True)
class SplitFacts:
    """The contents of a split.

    Attributes:
        exams: number of exams with at least one series.
        labels: finding -> label counts, for each readable label file.
        slices: series -> slice counts, for each series with a readable stack.
    """

    exams: int
    labels: Mapping[str, LabelCount]
    slices: Mapping[str, SliceCount]


@dataclass(frozen=True)
class Pair:
    """Two exams that are copies or near-duplicates.

    Attributes:
        first: split and id of one exam, as `train/0012`.
        second: split and id of the other exam.
        distance: mean distance over the series: share of hash bits that differ, 0 for copies.
        series: series -> distance, for the common series; for copies, the identical series.
        copy: whether stacks are identical byte for byte.
    """

    first: str
    second: str
    distance: float
    series: Mapping[str, float]
    copy: bool


@dataclass(frozen=True, repr=False)
class Checkup:
    """The contents of a data set and all problems found.

    Attributes:
        data: name of the data set's folder.
        splits: split -> contents.
        pairs: copies and near-duplicates, sorted by distance.
        planes_compared: whether the plane check could run (enough exams, classifier accurate
            enough).
        problems: all problems.
        metadata: finding -> AUCs of predicting it from metadata alone; empty if `train` has too few
            exams.

    Example:
        >>> import mrknee
        >>> mrknee.check_dataset("knees").ok
        True
    """

    data: str
    splits: Mapping[str, SplitFacts]
    pairs: tuple[Pair, ...]
    planes_compared: bool
    problems: tuple[Problem, ...]
    metadata: Mapping[str, MetadataAuc] = field(default_factory=dict)

    def __repr__(self) -> str:
        from mrknee.checks.table import table  # circular import

        return table(self).rstrip()

    @property
    def ok(self) -> bool:
        """Whether there are no errors; there may be warnings."""
        return not self.errors

    def to_frame(self) -> DataFrame:
        """Converts the problems to a pandas DataFrame, one row per problem.

        Columns: `severity` (error or warning), `code`, `file`, `exam`, `text`, `advice`.

        Raises:
            PlatformError: pandas is not installed.
        """
        names = ("severity", "code", "file", "exam", "text", "advice")
        return data_frame({name: [getattr(one, name) for one in self.problems] for name in names})

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that must be corrected before training."""
        return tuple(p for p in self.problems if p.severity == "error")

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """The problems that don't prevent training, but must be considered in its results."""
        return tuple(p for p in self.problems if p.severity == "warning")

    def to_json(self) -> str:
        """Converts the result to JSON text; a prevalence that can't be computed is null."""
        splits: dict[str, Any] = {name: asdict(facts) for name, facts in self.splits.items()}
        for name, facts in self.splits.items():
            for finding, count in facts.labels.items():
                share = count.prevalence
                known = not math.isnan(share.value)
                splits[name]["labels"][finding]["prevalence"] = share.value if known else None
                splits[name]["labels"][finding]["prevalence_ci"] = (
                    [share.low, share.high] if known else None
                )
        content = {
            "version": 2,
            "data": self.data,
            "errors": len(self.errors),
            "warnings": len(self.warnings),
            "splits": splits,
            "pairs": [asdict(pair) for pair in self.pairs],
            "planes_compared": self.planes_compared,
            "metadata": to_json_values(self.metadata),
            "problems": [
                {"code": p.code, "severity": p.severity, **asdict(p)} for p in self.problems
            ],
        }
        return json.dumps(content, indent=2, allow_nan=False) + "\n"
