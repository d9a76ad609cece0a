"""Remark: one reason why an exam, and hence its probabilities, are implausible."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Remark:
    """One peculiarity of a readable exam.

    Attributes:
        code: kind of the remark, a key of `mrknee.exams.plausibility.CODES`.
        series: the series concerned; None if it concerns several series or none.
        text: description of the finding, one sentence without a full stop.
    """

    code: str
    series: str | None
    text: str

    def to_dict(self) -> dict[str, str | None]:
        """Converts the remark to a dictionary for JSON."""
        return {"code": self.code, "series": self.series, "text": self.text}

    def __str__(self) -> str:
        return f"{self.series}: {self.text}" if self.series else self.text
