"""Ranges of the whole numbers that a person gives: seeds, threads, processes."""

from __future__ import annotations

from dataclasses import dataclass

from mrknee.errors import SettingsError


@dataclass(frozen=True)
class Range:
    """The whole numbers that a number may be.

    Attributes:
        low: the smallest.
        high: the largest.
    """

    low: int
    high: int

    def __contains__(self, value: object) -> bool:
        return type(value) is int and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"a whole number from {self.low:,} to {self.high:,}"

    def check(self, name: str, value: object) -> None:
        """Refuses a value outside the range.

        Args:
            name: what the person set, with its kind: "the number of threads".
            value: what it was set to.

        Raises:
            SettingsError: the value is outside, or no whole number.
        """
        if value not in self:
            raise SettingsError(
                f"{name} can't be used", code="range", expected=str(self), found=repr(value)
            )


SEED = Range(0, 2**32 - 1)
"""Of everything that is drawn. numpy's legacy generator takes 32 bits."""

THREADS = Range(1, 1024)
"""Of one process. No machine has more cores, and each thread takes memory before it computes."""

PROCESSES = Range(1, 1024)
"""Of those that draw, check or import exams."""

WORKERS = Range(-1, 128)
"""Processes that read exams; -1 chooses. Each one needs some hundred MB of memory."""
