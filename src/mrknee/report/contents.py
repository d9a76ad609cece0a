"""What the report page shows, gathered: numbers and pictures, nothing of how they look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from mrknee.scoring.calibration import Calibration
from mrknee.scoring.comparison import Comparison
from mrknee.scoring.operating_point import OperatingPoint
from mrknee.scoring.proportions import Proportion
from mrknee.scoring.scorecard import Scorecard


@dataclass(frozen=True)
class SliceCounts:
    """How many slices the stacks of one plane have.

    Attributes:
        stacks: exams that have the plane.
        least: slices of the smallest stack.
        median: of all stacks.
        most: slices of the largest stack.
        sizes: (rows, columns) that occur, in pixels.
    """

    stacks: int
    least: int
    median: float
    most: int
    sizes: frozenset[tuple[int, int]]


@dataclass(frozen=True)
class SplitCounts:
    """One split of the data set.

    Attributes:
        split: its name.
        exams: how many have files or a line in a label file.
        positives: finding -> exams that have it, of those whose label is known.
    """

    split: str
    exams: int
    positives: Mapping[str, Proportion]

    def unknown(self, finding: str) -> int:
        """Exams whose label of a finding is not known."""
        return self.exams - self.positives[finding].n


@dataclass(frozen=True)
class ModelFacts:
    """What a run folder says of its model.

    Attributes:
        name: the folder's name.
        provenance: data, recipe, epoch, versions, as training noted them.
        calibration: fitted on exams it was not trained on; None where none was.
        operating_points: finding -> thresholds, fixed on those same exams.
        shared: part of the training ("train", "inner", "valid") -> how many of the exams scored
            have an id that the run's `split.csv` names in it; None where there is no such file.
    """

    name: str
    provenance: Mapping[str, Any]
    calibration: Calibration | None
    operating_points: Mapping[str, tuple[OperatingPoint, ...]]
    shared: Mapping[str, int] | None


@dataclass(frozen=True)
class Failure:
    """One exam that was read wrongly.

    Attributes:
        exam: its id.
        kind: what kind of mistake.
        probability: what was said, 0 to 1.
        where: series and slice of the picture, in words.
        slice_uri: that slice as a data URI.
        heat_uri: the same with heat on it.
    """

    exam: str
    kind: Literal["false positive", "false negative"]
    probability: float
    where: str = ""
    slice_uri: str = ""
    heat_uri: str = ""


@dataclass(frozen=True)
class Contents:
    """Everything the page is made of.

    Attributes:
        card: the scores.
        sources: the tables of predictions that were scored as one model -> their findings.
        data: the data set's name.
        synthetic: whether the exams were drawn by `mrknee phantom`.
        labels: (exams, findings) 1, 0 or NaN (not known), findings in the card's order.
        probabilities: (exams, findings), 0 to 1.
        splits: every split of the data set that has labels.
        slices: plane -> slice counts of the split scored; empty where the exams aren't there.
        model: what is known of the model; None where none was given.
        failures: finding -> the worst mistakes, false positives first.
        comparison: against a second model; None where none was given.
        titles: finding -> the title that the data set or the model states, where one does.
    """

    card: Scorecard
    sources: Mapping[str, tuple[str, ...]]
    data: str
    synthetic: bool
    labels: Float[np.ndarray, "exams findings"]
    probabilities: Float[np.ndarray, "exams findings"]
    splits: tuple[SplitCounts, ...]
    slices: Mapping[str, SliceCounts]
    model: ModelFacts | None
    failures: Mapping[str, tuple[Failure, ...]]
    comparison: Comparison | None
    titles: Mapping[str, str] = field(default_factory=dict)

    @property
    def joined(self) -> bool:
        """Whether a finding's probabilities are the mean over several tables."""
        named = [finding for findings in self.sources.values() for finding in findings]
        return len(named) > len(set(named))
