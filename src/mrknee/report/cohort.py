"""The exams behind the numbers: how many, how common each finding is, how many slices."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mrknee.exams import ExamFolder, Findings, Plane, label_files, read_labels
from mrknee.progress import track
from mrknee.report.contents import SliceCounts, SplitCounts
from mrknee.scoring.proportions import wilson


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
    if (data / split).is_dir():
        exams |= set(ExamFolder(data / split, allow_missing_plane=True).ids)
    positives = {}
    for name, known in labels.items():
        values = np.array(list(known.values()))
        positives[name] = wilson(int((values == 1).sum()), int((~np.isnan(values)).sum()))
    return SplitCounts(split, len(exams), positives)


def count_slices(exams: ExamFolder) -> Mapping[Plane, SliceCounts]:
    """Counts the slices of every stack; uint8 files are opened, not read.

    Args:
        exams: at least one.

    Returns:
        The planes that occur.
    """
    shapes: dict[Plane, list[tuple[int, ...]]] = {}
    for exam in track(exams, len(exams), "counting slices"):
        for plane, stack in exam.stacks.items():
            shapes.setdefault(plane, []).append(stack.shape)
    counts = {}
    for plane in (p for p in Plane if p in shapes):
        slices = [shape[0] for shape in shapes[plane]]
        sizes = frozenset((shape[1], shape[2]) for shape in shapes[plane])
        counts[plane] = SliceCounts(
            len(slices), min(slices), float(np.median(slices)), max(slices), sizes
        )
    return counts
