"""Predictions of an exam without some of its series or slices; imports no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
from jaxtyping import Float64

from mrknee.errors import DataError

Origin = Literal["features", "stacks"]


@dataclass(frozen=True)
class AblatedPrediction:
    """Results of an exam without some of its series or slices.

    Attributes:
        logits: one per finding, before calibration.
        probabilities: one per finding, calibrated as those of the complete exam.
    """

    logits: Float64[np.ndarray, " findings"]
    probabilities: Float64[np.ndarray, " findings"]


class Ablation(ABC):
    """One exam, prepared so that predictions without a part of it are fast.

    Attributes:
        origin: `features`: the network's features of the remaining slices are pooled again, so the
            result is exact for any pooling. `stacks`: the remaining slices are read again as an
            exam. The results differ if the features of a slice depend on others: the grey values of
            a series are scaled from its minimum and maximum, and `preparation.neighbours` and
            `preparation.read_slices` refer to the slices that there are.
        size: memory in bytes.
        exam: id of the exam.
        counts: series that the model reads -> number of slices.
    """

    origin: Origin
    size: int
    exam: str
    counts: Mapping[str, int]

    @abstractmethod
    def without(
        self,
        series: Collection[str] = (),
        slices: Mapping[str, Collection[int]] = MappingProxyType({}),
    ) -> AblatedPrediction:
        """Predicts the exam without some series and slices.

        Args:
            series: names of series to leave out.
            slices: series -> indices of slices to leave out, from 0.

        Raises:
            DataError: the exam doesn't have one of them, or nothing is left.
        """

    def kept_slices(
        self, series: Collection[str], slices: Mapping[str, Collection[int]]
    ) -> dict[str, list[int]]:
        """Returns the slices that are left of each series; series without any are omitted.

        Args:
            series: series to leave out.
            slices: series -> slices to leave out.

        Raises:
            DataError: the exam doesn't have one of them, or nothing is left.
        """
        for name in (*series, *slices):
            if name not in self.counts:
                raise DataError(
                    "the exam doesn't have a series that is to be left out",
                    code="series-name",
                    exam=self.exam,
                    expected=", ".join(self.counts),
                    found=name,
                )
        for name, left_out in slices.items():
            unknown = [index for index in left_out if not 0 <= index < self.counts[name]]
            if unknown:
                raise DataError(
                    "the exam doesn't have a slice that is to be left out",
                    code="slices",
                    exam=self.exam,
                    expected=f"{name} slices from 0 to {self.counts[name] - 1}",
                    found=str(unknown[0]),
                )
        left = {
            name: [index for index in range(count) if index not in slices.get(name, ())]
            for name, count in self.counts.items()
            if name not in series
        }
        left = {name: indices for name, indices in left.items() if indices}
        if not left:
            raise nothing_left(self.exam)
        return left


def nothing_left(exam: str) -> DataError:
    """Returns the error for an exam without any slices that the network reads."""
    return DataError(
        "nothing is left of the exam",
        code="nothing-left",
        exam=exam,
        expected="at least one slice that the network reads",
    )


class MeanAblation(Ablation):
    """Mean of the results of several models.

    Args:
        members: the exam, prepared by each model. A member that doesn't read a series ignores that
            it is left out.
    """

    def __init__(self, members: Sequence[Ablation]) -> None:
        self._members = members
        exact = all(member.origin == "features" for member in members)
        self.origin = "features" if exact else "stacks"
        self.size = sum(member.size for member in members)
        self.exam = members[0].exam
        self.counts = {name: n for one in members for name, n in one.counts.items()}

    def without(
        self,
        series: Collection[str] = (),
        slices: Mapping[str, Collection[int]] = MappingProxyType({}),
    ) -> AblatedPrediction:
        """Predicts the exam without some series and slices."""
        self.kept_slices(series, slices)
        parts = [
            member.without(
                [name for name in series if name in member.counts],
                {name: out for name, out in slices.items() if name in member.counts},
            )
            for member in self._members
        ]
        return AblatedPrediction(
            np.mean([part.logits for part in parts], axis=0),
            np.mean([part.probabilities for part in parts], axis=0),
        )
