"""Progress reports: a bar on a terminal, plain lines elsewhere, nothing for short tasks."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

Item = TypeVar("Item")

QUIET_SECONDS = 2.0
"""Tasks shorter than this show nothing."""

LINE_SECONDS = 10.0
"""Interval between lines if there is no terminal."""

_hidden = False


def show_progress(show: bool = True) -> None:
    """Switches progress on or off in this process: bars, lines, and reports of training.

    The reports of a run are always written to its `log.txt`; warnings are always shown.

    Args:
        show: whether to show progress from now on.

    Example:
        >>> import mrknee
        >>> mrknee.show_progress(False)
    """
    global _hidden
    _hidden = not show


def report(text: str) -> None:
    """Prints a line of progress to standard output, unless progress is switched off."""
    if not _hidden:
        print(text, flush=True)


class Progress:
    """Shows progress on standard error, with rate and remaining time.

    Use as a context manager; call `advance` after each unit. Nothing is shown in the first
    `QUIET_SECONDS`. On a terminal a bar is redrawn, in a notebook a line below the cell; elsewhere
    (a log file, CI) a line is printed every `LINE_SECONDS` and one at the end.
    `show_progress(False)` switches progress off.

    Args:
        total: total number of units.
        what: short description of the task ("training, epoch 3/20").
        unit: name of the units, in the plural ("exams").
    """

    def __init__(self, total: int, what: str, unit: str = "exams") -> None:
        self.total, self.what, self.unit = total, what, unit
        self.done = 0
        self._started = self._last_line = time.monotonic()
        self._bar: _TerminalBar | _NotebookLine | None = None
        self._shown = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._shown and self.done:
            self._line()

    def advance(self, count: int = 1, note: str = "") -> None:
        """Records that `count` more units are done; `note` is shown at the end of the line."""
        self.done += count
        now = time.monotonic()
        if _hidden or now - self._started < QUIET_SECONDS:
            return
        if self._bar is None and sys.stderr.isatty():
            self._bar = _TerminalBar(self.total, self.what)
        elif self._bar is None and _in_notebook():
            self._bar = _NotebookLine(self.total, self.what)
        if self._bar is not None:
            self._bar.update(self.done, self._rate(), note)
        elif not self._shown or now - self._last_line >= LINE_SECONDS:
            self._last_line = now
            if self.done < self.total:
                self._line(note)
        self._shown = True

    def write(self, text: str) -> None:
        """Writes a line above the bar, or on standard error without a bar."""
        if _hidden:
            return
        if self._bar is not None:
            self._bar.write(text)
        else:
            print(text, file=sys.stderr, flush=True)

    def _rate(self) -> str:
        seconds = max(time.monotonic() - self._started, 1e-9)
        return f"{self.done / seconds:.1f} {self.unit}/s"

    def _line(self, note: str = "") -> None:
        seconds = time.monotonic() - self._started
        left = seconds / max(self.done, 1) * (self.total - self.done)
        parts = [f"{self.what}: {self.done}/{self.total} {self.unit}", self._rate()]
        parts.append(f"{left:.0f} s left" if self.done < self.total else f"took {seconds:.0f} s")
        print(", ".join([*parts, *([note] if note else [])]), file=sys.stderr, flush=True)


def _in_notebook() -> bool:
    """Returns whether this runs in a notebook's kernel, not in IPython in a terminal."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return hasattr(get_ipython(), "kernel")


class _NotebookLine:
    """A line below a notebook's cell that is redrawn."""

    def __init__(self, total: int, what: str) -> None:
        from IPython.display import display

        self._total, self._what = total, what
        untyped_display: Any = display  # IPython has no type annotations
        self._handle = untyped_display({"text/plain": what}, raw=True, display_id=True)

    def update(self, done: int, rate: str, note: str) -> None:
        filled = round(30 * done / max(self._total, 1))
        parts = [f"{done}/{self._total}", rate, *([note] if note else [])]
        bar = "#" * filled + "-" * (30 - filled)
        line = f"{self._what} {bar} {', '.join(parts)}"
        self._handle.update({"text/plain": line}, raw=True)

    def write(self, text: str) -> None:
        print(text, flush=True)

    def stop(self) -> None:
        """Keeps the last line."""


class _TerminalBar:
    """A progress bar of rich, which is imported only when needed."""

    def __init__(self, total: int, what: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._rich = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
        )
        self._task = self._rich.add_task(what, total=total, rate="", note="")
        self._rich.start()

    def update(self, done: int, rate: str, note: str) -> None:
        self._rich.update(self._task, completed=done, rate=rate, note=note)

    def write(self, text: str) -> None:
        self._rich.console.print(text, markup=False, highlight=False)

    def stop(self) -> None:
        self._rich.stop()


def track(items: Iterable[Item], total: int, what: str, unit: str = "exams") -> Iterator[Item]:
    """Yields `items` and shows progress.

    Args:
        items: the items.
        total: number of items.
        what: short description of the task.
        unit: name of the items, in the plural.

    Yields:
        The items, unchanged.
    """
    with Progress(total, what, unit) as progress:
        for item in items:
            yield item
            progress.advance()
