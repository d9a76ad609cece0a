"""Runs all checks on a data set.

Reading a data set stops at the first error; a check continues and lists all problems.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mrknee.checks.duplicates import find_alike, find_copies
from mrknee.checks.facts import Checkup, LabelCount, SliceCount, SplitFacts
from mrknee.checks.labels import check_labels, compare_labels, declared_findings
from mrknee.checks.layout import (
    check_groups,
    check_layout,
    check_sides,
    is_one_folder,
    listings_of,
    of_one_folder,
    series_of_splits,
    split_names,
)
from mrknee.checks.metadata import score_metadata
from mrknee.checks.orders import check_axes
from mrknee.checks.planes import check_planes
from mrknee.checks.stacks import StackSummary, check_shapes, summarise_stacks
from mrknee.exams import SeriesList
from mrknee.exams.axes import parse_axes


def check(
    root: str | Path, *, axes: str | None = None, allow_missing_plane: bool = False
) -> Checkup:
    """Checks every file of a data set in MRNet's layout and lists all problems.

    Args:
        root: the data set's folder; every folder in it that contains the folder of a series is a
            split. Or a folder that contains the folders of series directly, without splits, as
            import writes it.
        axes: the order of axes in the files, such as `rows,cols,slices`; None expects
            `slices,rows,cols`. If the shapes indicate another order, that is a problem, and the
            stacks are checked in the detected order.
        allow_missing_plane: an exam that lacks series is no problem; each has at least one.

    Returns:
        The contents of the splits, pairs of similar exams, and the problems of layout, labels,
        stacks, copies and planes.

    Raises:
        DataError: the folder doesn't exist, has no split, or its `series.csv` can't be read.
    """
    root = Path(root)
    only = root.resolve().name if is_one_folder(root) else None
    data = root.resolve()
    if only is not None:  # the folder is treated as a split of its parent
        root = data.parent
    splits = split_names(root) if only is None else [only]
    series, problems = series_of_splits(root, splits)
    listings, unlisted = listings_of(root, splits, series)
    problems += unlisted
    exams = {split: tuple(listing.files) for split, listing in listings.items()}
    places, misplaced = check_layout(root, listings, series)
    if allow_missing_plane:
        misplaced = [problem for problem in misplaced if problem.code != "missing-plane"]
    problems += misplaced
    if only is not None:
        problems = of_one_folder(problems, only)
    if only is None:
        problems += [*check_groups(root, exams), *check_sides(root)]
    declared, wrong = declared_findings(root)
    problems += wrong
    labels: dict[str, dict[str, LabelCount]] = {}
    for split, ids in exams.items():
        if ids:
            labels[split], wrong = check_labels(root, split, ids, declared)
            problems += wrong
    # unreadable label files are already reported, and their findings are missing from the counts
    if not any(p.code.startswith("label-") and p.severity == "error" for p in problems):
        problems += compare_labels(labels.get("train", {}), labels.get("valid", {}))
    given = None if axes is None else parse_axes(axes)
    order, wrong = check_axes(root, places, given=given)
    problems += wrong
    stacks, unreadable = summarise_stacks(root, places, axes=order)
    problems += [*unreadable, *check_shapes(stacks, series)]
    copies, same = find_copies(stacks)
    alike, similar = find_alike(stacks, series, copies)
    compared, misplaced = check_planes(stacks, series)
    problems += [*same, *similar, *misplaced]
    facts = {
        split: SplitFacts(len(exams[split]), counts, _slices(split, stacks, series))
        for split, counts in labels.items()
    }
    metadata = score_metadata(root, exams["train"], stacks) if "train" in labels else {}
    return Checkup(data.name, facts, (*copies, *alike), compared, tuple(problems), metadata)


def _slices(
    split: str, stacks: Sequence[StackSummary], series: SeriesList
) -> dict[str, SliceCount]:
    counts: dict[str, SliceCount] = {}
    for name in series.names:
        n = [k.shape[0] for k in stacks if (k.place.split, k.place.series) == (split, name)]
        if n:
            lower, median, upper = np.quantile(n, [0.25, 0.5, 0.75]).tolist()
            counts[name] = SliceCount(len(n), min(n), lower, median, upper, max(n))
    return counts
