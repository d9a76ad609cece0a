"""Ranges of the numbers that a person gives: seeds, threads, processes, settings of a recipe."""

from __future__ import annotations

from dataclasses import dataclass

from mrknee.errors import SettingsError


@dataclass(frozen=True)
class Range:
    """The values a number may have.

    Attributes:
        low: the smallest, or the limit that is not reached.
        high: the largest, or the limit that is not reached.
        whole: whether it has to be a whole number.
        above: whether `low` itself is excluded.
        below: whether `high` itself is excluded.
    """

    low: float
    high: float
    whole: bool = False
    above: bool = False
    below: bool = False

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        if not self.low <= value <= self.high:  # which a NaN isn't either
            return False
        return not (self.above and value == self.low) and not (self.below and value == self.high)

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        low = f"above {_text(self.low)}" if self.above else f"from {_text(self.low)}"
        high = f"below {_text(self.high)}" if self.below else _text(self.high)
        return f"{kind} {low} {'up ' if self.above else ''}to {high}"

    def check(self, name: str, value: object) -> None:
        """Refuses a value outside the range.

        Args:
            name: what the person set, with its kind: "the setting epochs", "the option --seed".
            value: what it was set to.

        Raises:
            MrkneeError: the value is outside, NaN, infinite or of another type.
        """
        if value not in self:
            raise SettingsError(
                f"{name} can't be used", code="range", expected=str(self), found=repr(value)
            )


SEED = Range(0, 2**32 - 1, whole=True)
"""Of everything that is drawn. numpy's legacy generator, which Lightning seeds, takes 32 bits."""

THREADS = Range(1, 1024, whole=True)
"""Of one process. No machine has more cores, and each thread takes memory before it computes."""

PROCESSES = Range(1, 1024, whole=True)
"""Of those that draw, check or import exams."""

WORKERS = Range(-1, 128, whole=True)
"""Processes that read exams; -1 chooses. Each one needs some hundred MB of memory."""


def _text(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"
