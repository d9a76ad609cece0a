"""The exams behind the numbers: how many, how common each finding is, how many slices."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mrknee.errors import ModelError, MrkneeError
from mrknee.exams import Dataset, Findings, Plane, label_files, read_labels
from mrknee.progress import track
from mrknee.report.contents import SliceCounts, SplitCounts
from mrknee.scoring.proportions import wilson
from mrknee.untrusted import read_text

_MAX_BYTES = 32_000_000  # a line an exam


def count_splits(data: Path, split: str) -> tuple[SplitCounts, ...]:
    """Counts every split of a data set that has label files.

    Args:
        data: the data set's folder.
        split: the split that is scored; counted even where only its label files are there.

    Returns:
        In the order of their names.
    """
    folders = [path.name for path in data.iterdir() if path.is_dir()]
    names = [n for n in sorted({*folders, split}) if label_files(data / n)]
    return tuple(_count(data, name) for name in names)


def _count(data: Path, split: str) -> SplitCounts:
    files = label_files(data / split)
    labels = {name: read_labels(files[name]) for name in Findings(files)}
    exams = set().union(*labels.values())
    there = open_if_there(data / split)
    if there is not None:
        exams |= set(there.ids)
    positives = {}
    for name, known in labels.items():
        values = np.array(list(known.values()))
        positives[name] = wilson(int((values == 1).sum()), int((~np.isnan(values)).sum()))
    return SplitCounts(split, len(exams), positives)


def open_if_there(folder: Path) -> Dataset | None:
    """The exams of a split, with any planes; None where there are only label files."""
    try:
        return Dataset(folder, allow_missing_plane=True)
    except (MrkneeError, OSError):
        return None


def parts_of(model: Path) -> Mapping[str, frozenset[str]] | None:
    """Which exams a run used for what, from the `split.csv` that training wrote.

    Args:
        model: the run folder, one of its checkpoints, or the model exported into it.

    Returns:
        Part ("train", "inner", "valid") -> ids; None where the file isn't there.

    Raises:
        MrkneeError: the file is another one.
    """
    file = (model if (model / "best").is_dir() else model.resolve().parent) / "split.csv"
    if not file.exists():
        return None
    text = read_text(file, "table of the run's parts", at_most=_MAX_BYTES, kind=ModelError)
    header, *lines = text.removesuffix("\n").split("\n")
    if header != "exam,part":
        raise ModelError(
            "the run's parts can't be read",
            code="run-folder",
            file=file,
            expected="exam,part",
            found=header[:80],
        )
    parts: dict[str, set[str]] = {}
    for number, line in enumerate(lines, start=2):
        exam_id, _, part = line.rpartition(",")
        ids = parts.setdefault(part, set())
        if part not in ("train", "inner", "valid") or exam_id in ids:
            raise ModelError(
                "the run's parts can't be read",
                code="run-folder",
                file=file,
                expected="an exam's id and train, inner or valid, each exam once a part",
                found=f"line {number}: {line[:80]!r}",
            )
        ids.add(exam_id)
    return {part: frozenset(ids) for part, ids in parts.items()}


def count_slices(exams: Dataset) -> Mapping[Plane, SliceCounts]:
    """Counts the slices of every stack; only their headers are read.

    Args:
        exams: at least one.

    Returns:
        The planes that occur.
    """
    shapes: dict[Plane, list[tuple[int, ...]]] = {}
    for index in track(range(len(exams)), len(exams), "counting slices"):
        for plane, shape in exams.shapes(index).items():
            shapes.setdefault(plane, []).append(shape)
    counts = {}
    for plane in (p for p in Plane if p in shapes):
        slices = [shape[0] for shape in shapes[plane]]
        sizes = frozenset((shape[1], shape[2]) for shape in shapes[plane])
        counts[plane] = SliceCounts(
            len(slices), min(slices), float(np.median(slices)), max(slices), sizes
        )
    return counts
