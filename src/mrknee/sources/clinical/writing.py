"""Writing of exams by worker processes, so that a file that crashes a decoder costs one exam only.

FOLDER/{series}/ID.npy    the stacks
RECORDS/ID.json           record of the exam, written last
RECORDS/ID.begun          exists while the exam is being read
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mrknee.exams import SeriesList, Stack, write_stack
from mrknee.exams.stackfile import is_whole_stack
from mrknee.files import write_text
from mrknee.workers import map_in_processes, map_tasks

FEW_EXAMS = 8
"""Minimum number of exams per worker process: a process starts in about the time in which two or
three exams are read."""

Record = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """Where one exam is written.

    Attributes:
        exam_id: id of the exam.
        folder: contains one folder per series.
        records: contains the records of the exams written so far.
    """

    exam_id: str
    folder: Path
    records: Path

    @property
    def record(self) -> Path:
        """The exam's record."""
        return self.records / f"{self.exam_id}.json"

    @property
    def started(self) -> Path:
        """Marker file that exists while the exam is being read."""
        return self.records / f"{self.exam_id}.begun"

    def start(self) -> None:
        """Marks the exam as being read."""
        self.records.mkdir(parents=True, exist_ok=True)
        self.started.touch()

    def write(self, stacks: Mapping[str, Stack], record: Record, series: SeriesList) -> None:
        """Writes an exam's stacks, then its record, and removes the mark.

        A stack that the exam lacks is removed: an earlier import of other files may have written
        it.
        """
        for name in series.names:
            if name in stacks:
                write_stack(self.folder, name, self.exam_id, stacks[name], among=series)
            else:
                (self.folder / name / f"{self.exam_id}.npy").unlink(missing_ok=True)
        write_record(self.record, record)
        self.started.unlink()

    def is_written(self, record: Mapping[str, Any]) -> bool:
        """Returns whether the exam was refused, or all stacks of its record exist."""
        return all(
            is_whole_stack(self.folder / name / f"{self.exam_id}.npy") for name in record["planes"]
        )


@dataclass(frozen=True)
class Task:
    """What is needed to read and write one exam; it is pickled for the worker processes.

    Attributes:
        target: where the exam is written.
    """

    target: Target


AnyTask = TypeVar("AnyTask", bound=Task)


def write_exams(
    tasks: Sequence[AnyTask],
    write: Callable[[AnyTask], tuple[str, Record]],
    crashed: Callable[[AnyTask, Record], Record],
    processes: int,
    *,
    isolated: bool,
) -> Iterator[tuple[str, Record]]:
    """Writes exams and yields their ids and records, in any order.

    Args:
        tasks: the exams.
        write: function at module level that reads and writes one exam: `Target.start`, then
            `Target.write`.
        crashed: completes the record of an exam that crashed its process.
        processes: maximum number of worker processes.
        isolated: whether an exam may crash its process, so that none is read in this one.
    """
    left = {task.target.exam_id: task for task in tasks}
    for task in tasks:
        task.target.started.unlink(missing_ok=True)
    while left:
        try:
            workers = max(1, min(processes, len(left) // FEW_EXAMS))
            for exam_id, record in map_tasks(write, [*left.values()], workers, isolated=isolated):
                del left[exam_id]
                yield exam_id, record
        except BrokenProcessPool:
            isolated = True  # nothing more is read in this process
            # one of the started exams crashed: read each of them in a separate process
            begun = [task for task in left.values() if task.target.started.exists()]
            for task in begun or [*left.values()]:
                del left[task.target.exam_id]
                yield _write_separately(task, write, crashed)


def _write_separately(
    task: AnyTask,
    write: Callable[[AnyTask], tuple[str, Record]],
    crashed: Callable[[AnyTask, Record], Record],
) -> tuple[str, Record]:
    """Writes an exam in a separate process, or refuses it if that process crashes."""
    try:
        return next(map_in_processes(write, [task], 1))
    except BrokenProcessPool:
        task.target.started.unlink(missing_ok=True)
        record = refused("reading it crashed the program: its files are damaged")
        return task.target.exam_id, crashed(task, record)


def refused(reason: str) -> Record:
    """Returns the record of a study of which nothing could be read."""
    return {
        "imported": False,
        "reason": reason,
        "side": None,
        "side_from": "not stated",
        "mirrored": False,
        "missing": [],
        "planes": {},
        "warnings": [],
        "incomplete": [],
        "candidates": [],
    }


def write_record(file: Path, content: Mapping[str, Any]) -> None:
    """Writes a record as JSON atomically."""
    write_text(file, json.dumps(content, indent=1) + "\n")
