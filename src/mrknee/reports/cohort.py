"""Counts of a data set: exams, share of each finding, slices."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mrknee.errors import MrkneeError
from mrknee.exams import Dataset, cut_labels, in_order, label_files, read_findings, read_labels
from mrknee.metrics.proportions import wilson
from mrknee.progress import track
from mrknee.reports.contents import SliceCounts, SplitCounts


def count_splits(data: Path, split: str) -> tuple[SplitCounts, ...]:
    """Counts every split of a data set that has label files.

    Args:
        data: the data set's folder.
        split: the split that is scored; counted even if only its label files exist.

    Returns:
        The counts, sorted by name. Soft labels of at least 0.5 count as positive.
    """
    folders = [path.name for path in data.iterdir() if path.is_dir()]
    names = [n for n in sorted({*folders, split}) if label_files(data / n)]
    return tuple(_count(data, name) for name in names)


def _count(data: Path, split: str) -> SplitCounts:
    files = label_files(data / split)
    names = in_order(files, read_findings(data)) if files else ()
    labels = {name: read_labels(files[name], soft=True) for name in names}
    exams = set().union(*labels.values())
    stacks = open_if_there(data / split)
    if stacks is not None:
        exams |= set(stacks.ids)
    positives = {}
    for name, known in labels.items():
        values = cut_labels(np.array(list(known.values())))
        positives[name] = wilson(int((values == 1).sum()), int((~np.isnan(values)).sum()))
    return SplitCounts(split, len(exams), positives)


def open_if_there(folder: Path, axes: str | None = None) -> Dataset | None:
    """Returns the exams of a split, with any series; None if only label files exist."""
    try:
        return Dataset(folder, allow_missing_plane=True, axes=axes)
    except (MrkneeError, OSError):
        return None


def count_slices(exams: Dataset) -> Mapping[str, SliceCounts]:
    """Counts the slices of every stack; reads only the headers.

    Args:
        exams: at least one.

    Returns:
        Series -> counts, for the series that occur.
    """
    shapes: dict[str, list[tuple[int, ...]]] = {}
    for index in track(range(len(exams)), len(exams), "counting slices"):
        for name, shape in exams.shapes(index).items():
            shapes.setdefault(name, []).append(shape)
    counts = {}
    for name in (n for n in exams.series.names if n in shapes):
        slices = [shape[0] for shape in shapes[name]]
        sizes = frozenset((shape[1], shape[2]) for shape in shapes[name])
        counts[name] = SliceCounts(
            len(slices), min(slices), float(np.median(slices)), max(slices), sizes
        )
    return counts
