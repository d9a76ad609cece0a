"""Work list: the exams of the data sets that are served, with their results, sorted and filtered.

Opening a data set lists its files and reads its tables; no stack is read. The work list is used
from one event loop.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mrknee.errors import MrkneeError
from mrknee.exams import Dataset, ExamSide, SeriesList, open_dataset, read_sides
from mrknee.exams.axes import Axes
from mrknee.exams.listing import has_series, series_folders
from mrknee.metrics.operating_point import OperatingPoint
from mrknee.server.geometry import SeriesGeometry
from mrknee.server.read_exam import ReadExam

State = Literal["waiting", "scored", "failed"]

UPLOADS = "upload"
"""Name, in place of a data set's, of uploaded exams."""

SEPARATOR = "~"
"""Separates data set, split and id in a key; it needs no escaping in the path of a URL."""


@dataclass(eq=False)
class Source:
    """One split of a data set, or a folder of exams.

    Attributes:
        name: name of the data set, unique in the work list.
        exams: the data set.
        sides: exam id -> which knee it shows; empty if the data set doesn't state it.
    """

    name: str
    exams: Dataset
    sides: Mapping[str, ExamSide]


@dataclass(frozen=True)
class UploadedExam:
    """An exam that was uploaded.

    Attributes:
        read: its stacks, and their hashes.
        side: which knee it shows; None if unknown.
        geometry: series -> distances and directions, where known.
    """

    read: ReadExam
    side: ExamSide | None = None
    geometry: Mapping[str, SeriesGeometry] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The exam's key in the work list, from the hash of its content."""
        return f"{UPLOADS}{SEPARATOR}{self.read.digest[:12]}"


@dataclass(eq=False)
class Entry:
    """One exam of the work list.

    Attributes:
        key: identifies the exam in addresses.
        id: id of the exam in its data set.
        data_set: name of the data set, or `UPLOADS`.
        split: the split; None for folders without splits and for uploads.
        series: names of the exam's series.
        labels: finding -> label from 0 to 1, None if unknown; None if the data set has no labels.
        source: the data set; None for uploads.
        uploaded: the exam, for uploads.
        state: whether the exam has been scored.
        probabilities: finding -> probability, once scored.
        remarks: codes of the remarks about the exam, once scored.
        problem: why the exam could not be scored.
    """

    key: str
    id: str
    data_set: str
    split: str | None
    series: tuple[str, ...]
    labels: Mapping[str, float | None] | None = None
    source: Source | None = None
    uploaded: UploadedExam | None = None
    state: State = "waiting"
    probabilities: Mapping[str, float] | None = None
    remarks: tuple[str, ...] = ()
    problem: MrkneeError | None = None

    @property
    def files(self) -> Mapping[str, Path]:
        """Series -> file; empty for uploads."""
        return {} if self.source is None else self.source.exams.files[self.id]

    @property
    def declared(self) -> SeriesList:
        """The series that the exam may have."""
        if self.uploaded is not None:
            return self.uploaded.read.exam.series
        assert self.source is not None  # noqa: S101 - for the type checker
        return self.source.exams.series

    @property
    def side(self) -> ExamSide | None:
        """Which knee the exam shows; None if the data set doesn't state it."""
        if self.uploaded is not None:
            return self.uploaded.side
        return None if self.source is None else self.source.sides.get(self.id)


@dataclass(frozen=True)
class Selection:
    """Which exams of the work list to return, and in which order.

    Attributes:
        sort: `id` (the order of the data sets), `state`, or a finding (by probability; exams
            without one are last).
        descending: whether to reverse the order.
        text: text that the id contains, in any case; empty for all.
        data_set: only exams of this data set.
        split: only exams of this split.
        finding: the finding that `truth` and `call` refer to.
        truth: only exams labelled so (0.5 or more: positive).
        call: only exams that the model calls so, or whose call agrees (right) or disagrees (wrong)
            with the label.
        offset: number of exams to skip.
        limit: maximum number of exams.
        around: key of an exam that is to be in the middle of the returned part, in place of
            `offset`; ignored if it doesn't match.
    """

    sort: str = "id"
    descending: bool = False
    text: str = ""
    data_set: str | None = None
    split: str | None = None
    finding: str | None = None
    truth: Literal["positive", "negative", "unknown"] | None = None
    call: Literal["positive", "negative", "right", "wrong"] | None = None
    offset: int = 0
    limit: int = 100
    around: str | None = None


@dataclass(frozen=True)
class Part:
    """A part of the work list.

    Attributes:
        matched: number of all exams that match.
        offset: number of them before the first one of this part.
        entries: the exams.
    """

    matched: int
    offset: int
    entries: Sequence[Entry]


@dataclass
class WorkList:
    """The exams that are served.

    Attributes:
        thresholds: finding -> the first operating point of the model that has a threshold.
        entries: key -> exam; uploads are last.
    """

    thresholds: Mapping[str, float] = field(default_factory=dict)
    entries: dict[str, Entry] = field(default_factory=dict)
    _waiting: deque[Entry] = field(default_factory=deque)
    _names: set[str] = field(default_factory=lambda: {UPLOADS})

    def add_data_set(self, path: str | Path, *, axes: Axes | None = None) -> None:
        """Adds the exams of all splits of a data set, or of a folder of exams.

        Args:
            path: a data set, whose splits are added in the order of their names, `train` last; or
                a folder that contains the folders of series directly, which has no labels.
            axes: the order of axes in the files.

        Raises:
            DataError: there are no exams, or the tables of the data set can't be read.
        """
        root = Path(path)
        name = self._unique_name(root.resolve().name)
        order = None if axes is None else ",".join(axes)
        sides = read_sides(root) or {}
        splits = []
        if not series_folders(root) and root.is_dir():
            splits = [f.name for f in root.iterdir() if f.is_dir() and has_series(f)]
        if not splits:
            exams = open_unchecked(root, order)
            self._add(Source(name, exams, sides))
        for split in sorted(splits, key=lambda one: (one == "train", one)):
            exams = Dataset.of_split(
                root, split, allow_missing_plane=True, soft_labels=True, axes=order
            )
            self._add(Source(name, exams, sides))

    def _unique_name(self, name: str) -> str:
        name = name or "exams"
        number, unique = 1, name
        while unique in self._names:
            number += 1
            unique = f"{name}-{number}"
        self._names.add(unique)
        return unique

    def _add(self, source: Source) -> None:
        exams = source.exams
        names = tuple(exams.findings or ())
        for exam_id, row in zip(exams.ids, exams.labels.tolist(), strict=True):
            labels = {
                name: None if math.isnan(label) else label
                for name, label in zip(names, row, strict=True)
            }
            entry = Entry(
                key=key_of(source.name, exams.split, exam_id),
                id=exam_id,
                data_set=source.name,
                split=exams.split,
                series=tuple(exams.files[exam_id]),
                labels=labels or None,
                source=source,
            )
            self.entries[entry.key] = entry
            self._waiting.append(entry)

    def add_upload(self, uploaded: UploadedExam) -> Entry:
        """Adds an uploaded exam, which is scored before all others.

        An exam with the same content is replaced.
        """
        exam = uploaded.read.exam
        entry = Entry(
            key=uploaded.key,
            id=exam.id,
            data_set=UPLOADS,
            split=None,
            series=tuple(exam.stacks),
            uploaded=uploaded,
        )
        self.entries.pop(entry.key, None)  # so that it is the last one
        self.entries[entry.key] = entry
        self._waiting.appendleft(entry)
        return entry

    def remove(self, key: str) -> None:
        """Removes an exam."""
        del self.entries[key]

    def next_waiting(self) -> Entry | None:
        """Returns the next exam that has not been scored and removes it from the queue.

        Returns:
            The exam; None if there is none.
        """
        while self._waiting:
            entry = self._waiting.popleft()
            if entry.state == "waiting" and self.entries.get(entry.key) is entry:
                return entry
        return None

    def requeue(self, entry: Entry) -> None:
        """Puts an exam that could not be scored now back to the front of the queue."""
        self._waiting.appendleft(entry)

    def count(self, state: State) -> int:
        """Returns the number of exams in a state."""
        return sum(entry.state == state for entry in self.entries.values())

    def right(self, entry: Entry, finding: str) -> bool | None:
        """Returns whether the model's call of a finding agrees with the label.

        The call is positive if the probability is at least the threshold of the model's first
        operating point, the label if it is at least 0.5.

        Returns:
            None if the label, the probability or the threshold is unknown.
        """
        call, truth = self._call(entry, finding), _truth(entry, finding)
        return None if call is None or truth is None else call == truth

    def _call(self, entry: Entry, finding: str) -> bool | None:
        threshold = self.thresholds.get(finding)
        if entry.probabilities is None or threshold is None:
            return None
        return entry.probabilities[finding] >= threshold

    def select(self, chosen: Selection) -> Part:
        """Selects, sorts and cuts the work list."""
        conditions = list(self._conditions(chosen))
        found = [
            entry
            for entry in self.entries.values()
            if all(condition(entry) for condition in conditions)
        ]
        if chosen.sort == "id":
            if chosen.descending:
                found.reverse()
        elif chosen.sort == "state":
            found.sort(key=lambda entry: entry.state, reverse=chosen.descending)
        else:
            found.sort(key=_by_probability(chosen.sort, descending=chosen.descending))
        offset, middle = chosen.offset, self.entries.get(chosen.around or "")
        if middle in found:
            offset = max(0, found.index(middle) - chosen.limit // 2)
        return Part(len(found), offset, found[offset : offset + chosen.limit])

    def _conditions(self, chosen: Selection) -> Iterable[Callable[[Entry], bool]]:
        finding = chosen.finding or ""
        if text := chosen.text.casefold():
            yield lambda entry: text in entry.id.casefold()
        if chosen.data_set is not None:
            yield lambda entry: entry.data_set == chosen.data_set
        if chosen.split is not None:
            yield lambda entry: entry.split == chosen.split
        if chosen.truth is not None:
            truth = {"positive": True, "negative": False, "unknown": None}[chosen.truth]
            yield lambda entry: _truth(entry, finding) is truth
        if chosen.call in ("positive", "negative"):
            call = chosen.call == "positive"
            yield lambda entry: self._call(entry, finding) is call
        elif chosen.call is not None:
            right = chosen.call == "right"
            yield lambda entry: self.right(entry, finding) is right


def _truth(entry: Entry, finding: str) -> bool | None:
    label = None if entry.labels is None else entry.labels.get(finding)
    return None if label is None else label >= 0.5


def _by_probability(finding: str, *, descending: bool) -> Callable[[Entry], float]:
    sign = -1 if descending else 1

    def value(entry: Entry) -> float:
        return math.inf if entry.probabilities is None else sign * entry.probabilities[finding]

    return value


def open_unchecked(folder: Path, axes: str | None) -> Dataset:
    """Opens a folder of exams; the order of axes is checked when an exam is read.

    Raises:
        DataError: there are no exams.
    """
    if series_folders(folder):
        return Dataset(folder, allow_missing_plane=True, axes=axes)
    return open_dataset(folder)  # refuses the folder, and names the folder that was meant


def first_thresholds(points: Mapping[str, Sequence[OperatingPoint]]) -> dict[str, float]:
    """Returns, for each finding, the threshold of the first operating point that has one.

    Args:
        points: finding -> operating points.
    """
    return {
        name: known[0]
        for name, each in points.items()
        if (known := [one.threshold for one in each if not math.isnan(one.threshold)])
    }


def key_of(data_set: str, split: str | None, exam_id: str) -> str:
    """Returns the key of an exam, such as `knees~valid~0080`.

    Data set, split and id are joined by `~`. Letters and digits of ASCII and `.`, `_`, `-` are
    unchanged, other characters are written as `=` and two hexadecimal digits per byte of UTF-8. So
    a key is one segment of a path without any character that a URL or a proxy changes.
    """
    parts = [data_set, *([] if split is None else [split]), exam_id]
    return SEPARATOR.join("".join(map(_escaped, part)) for part in parts)


def _escaped(character: str) -> str:
    if character.isascii() and (character.isalnum() or character in "._-"):
        return character
    return "".join(f"={byte:02X}" for byte in character.encode())
