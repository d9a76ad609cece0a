"""What `check` has found, as plain facts and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mrknee.checkup.problem import Problem
from mrknee.extras import data_frame
from mrknee.scoring.proportions import Proportion, wilson

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class LabelCount:
    """How often a finding is present, absent, and not known among a split's exams."""

    positive: int
    negative: int
    unknown: int

    @property
    def prevalence(self) -> Proportion:
        """Share of the positive among the known, with Wilson's interval; NaN if none is known."""
        return wilson(self.positive, self.positive + self.negative)


@dataclass(frozen=True)
class SliceCount:
    """How many readable stacks of a series there are, and how many slices they have.

    Attributes:
        stacks: how many there are.
        fewest: slices of the shortest.
        lower: a quarter of the stacks has at most so many.
        median: half of them.
        upper: three quarters.
        most: slices of the longest.
    """

    stacks: int
    fewest: int
    lower: float
    median: float
    upper: float
    most: int


@dataclass(frozen=True)
class SplitFacts:
    """What a split holds.

    Attributes:
        exams: how many exams have at least one series.
        labels: finding -> its counts, for each label file that can be read.
        slices: series -> its counts, for each series with a readable stack.
    """

    exams: int
    labels: Mapping[str, LabelCount]
    slices: Mapping[str, SliceCount]


@dataclass(frozen=True)
class Pair:
    """Two exams that are too alike.

    Attributes:
        first: split and id, as `train/0012`.
        second: the other's.
        distance: the mean of the series' distances: shares of bits that differ, 0 for copies.
        series: series -> distance, for the series that both have; in a pair of copies, for those
            that are the same.
        copy: whether the stacks are the same, byte for byte.
    """

    first: str
    second: str
    distance: float
    series: Mapping[str, float]
    copy: bool


@dataclass(frozen=True, repr=False)
class Checkup:
    """What is wrong with a data set, and what it holds.

    Attributes:
        data: the name of the data set's folder.
        splits: split -> what it holds.
        pairs: exams that are too alike, the most alike first.
        planes_compared: whether there were exams enough, and alike enough, to say of each stack
            which plane it looks like.
        problems: all of them.

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

    def __repr__(self) -> str:
        from mrknee.checkup.table import table  # it imports this file

        return table(self).rstrip()

    @property
    def ok(self) -> bool:
        """Whether nothing must be put right before a run; there may be warnings."""
        return not self.errors

    def to_frame(self) -> DataFrame:
        """The problems as a pandas DataFrame, one row each.

        Columns: `severity` (error or warning), `code`, `file`, `exam`, `text`, `advice`.

        Raises:
            PlatformError: pandas is not installed.
        """
        names = ("severity", "code", "file", "exam", "text", "advice")
        return data_frame({name: [getattr(one, name) for one in self.problems] for name in names})

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that must be put right before a run."""
        return tuple(p for p in self.problems if p.severity == "error")

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """The problems a run can live with, but a reader must know."""
        return tuple(p for p in self.problems if p.severity == "warning")

    def to_json(self) -> str:
        """All of it as JSON text; a prevalence that can't be computed is null."""
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
            "problems": [
                {"code": p.code, "severity": p.severity, **asdict(p)} for p in self.problems
            ],
        }
        return json.dumps(content, indent=2, allow_nan=False) + "\n"
