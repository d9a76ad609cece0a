"""A remark on an exam: what makes it implausible, and its probabilities with it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Remark:
    """One thing that is odd about an exam that could be read nevertheless.

    Attributes:
        code: its kind, a key of `mrknee.exams.plausibility.CODES`.
        series: the series it concerns; None where it is about several or about none.
        text: what was found, one sentence without a full stop.
    """

    code: str
    series: str | None
    text: str

    def to_dict(self) -> dict[str, str | None]:
        """The same in plain form, for JSON."""
        return {"code": self.code, "series": self.series, "text": self.text}

    def __str__(self) -> str:
        return f"{self.series}: {self.text}" if self.series else self.text
