"""Allowed ranges of integers that users set: seeds, threads, processes."""

from __future__ import annotations

from dataclasses import dataclass

from mrknee.errors import SettingsError


@dataclass(frozen=True)
class Range:
    """A range of integers, including both ends.

    Attributes:
        low: the smallest integer.
        high: the largest integer.
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
            name: the setting as named in the message, such as "the number of threads".
            value: the value.

        Raises:
            SettingsError: the value is outside the range or not an integer.
        """
        if value not in self:
            raise SettingsError(
                f"{name} can't be used", code="range", expected=str(self), found=repr(value)
            )


SEED = Range(0, 2**32 - 1)
"""Random seeds; numpy's legacy generator accepts 32 bits."""

THREADS = Range(1, 1024)
"""Threads per process; the limit exceeds the cores of any machine, and each thread takes memory."""

PROCESSES = Range(1, 1024)
"""Processes that draw, check or import exams."""

WORKERS = Range(-1, 128)
"""Processes that read exams; -1 chooses automatically. Each needs some hundred MB of memory."""
