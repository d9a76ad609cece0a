"""Checks of the layout: splits, series, exams and unrecognised files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mrknee.checks.problem import Problem, from_error
from mrknee.errors import DataError, MrkneeError
from mrknee.exams import SeriesList
from mrknee.exams.groups import GROUPS_FILE, read_groups
from mrknee.exams.ids import how_ids_differ, refuse_id
from mrknee.exams.listing import (
    Listing,
    declared_series,
    folder_meant,
    list_stacks,
    series_folders,
    what_is_there,
)
from mrknee.exams.series import SERIES_FILE
from mrknee.exams.sides import SIDES_FILE, has_canonical_sides, read_sides
from mrknee.files import is_dir

RECORD = "import.json"
"""The record that `mrknee import` writes next to the folders of series."""


DECLARATIONS = ("series.csv", "findings.csv", "groups.csv", "sides.csv")
"""Optional tables in a data set's folder."""


@dataclass(frozen=True)
class Place:
    """The place of one stack in a data set.

    Attributes:
        split: the split.
        exam: the exam's id.
        series: the series.
        path: path relative to the data set's folder; "" for the default name.
    """

    split: str
    exam: str
    series: str
    path: str = ""

    @property
    def file(self) -> str:
        """The path of the stack relative to the data set's folder."""
        return self.path or f"{self.split}/{self.series}/{self.exam}.npy"


def split_names(root: Path) -> list[str]:
    """Lists the splits, folders that contain the folder of a series: train, valid, others by name.

    Raises:
        DataError: there is no split, or a `series.csv` can't be read.
    """
    found = set()
    for folder in sorted(root.iterdir()) if is_dir(root) else []:
        with suppress(OSError):  # no permission
            if series_folders(folder):
                found.add(folder.name)
    if not found:
        raise DataError(
            "the folder is not a data set",
            code="no-dataset",
            file=root,
            expected="folders train/ and valid/ that contain "
            + ", ".join(f"{name}/" for name in declared_series(root / "train").names),
            found=what_is_there(root),
            advice=folder_meant(root, data_set=True),
        )
    first = [name for name in ("train", "valid") if name in found]
    return first + sorted(found.difference(first))


def series_of_splits(root: Path, splits: Sequence[str]) -> tuple[SeriesList, list[Problem]]:
    """Returns the series of the first split, and one problem per split with different series.

    Raises:
        DataError: a `series.csv` can't be read.
    """
    declared = {split: declared_series(root / split) for split in splits}
    first, series = next(iter(declared.items()))
    problems = []
    for split, others in declared.items():
        if others != series:
            text = f"{', '.join(others.names)}; {first} has {', '.join(series.names)}"
            problems.append(Problem("series-differ", text, f"{split}/"))
    return series, problems


def is_one_folder(root: Path) -> bool:
    """Returns whether a folder contains exams without splits, as `mrknee import` writes them."""
    if not is_dir(root):
        return False
    names = declared_series(root).names
    if not any(is_dir(root / name) for name in names):
        return False
    return not any(is_dir(f / name) for f in root.iterdir() if is_dir(f) for name in names)


def of_one_folder(problems: Sequence[Problem], name: str) -> list[Problem]:
    """Selects the problems of a one-split data set that concern a folder without splits.

    Args:
        problems: the result of `check_layout`.
        name: the folder's name, used as the name of the split.
    """
    return [
        problem
        for problem in problems
        if problem.code not in ("no-train", "no-valid")
        and problem.file.startswith(f"{name}/")
        and problem.file not in [f"{name}/{other}" for other in (RECORD, *DECLARATIONS)]
    ]


def listings_of(
    root: Path, splits: Sequence[str], series: SeriesList
) -> tuple[dict[str, Listing], list[Problem]]:
    """Lists the files of each split; a split that can't be listed is empty and a problem."""
    listings: dict[str, Listing] = {}
    problems: list[Problem] = []
    for split in splits:
        try:
            listings[split] = list_stacks(root / split, series)
            for exam_id, files in listings[split].files.items():
                refuse_id(exam_id, next(iter(files.values())))
        except MrkneeError as error:
            listings[split] = Listing({}, ())
            if error.code == "exam-id":
                text = f"expected {error.expected}; found {error.found}"
                where = f"{split}/*/{error.exam}.npy"
                problems.append(Problem("exam-id", text, where, error.exam))
                continue
            problems.append(from_error(error, (), "stack-twice", root / split).within(root))
        else:
            if not listings[split].files:
                problems.append(Problem("no-exams", "there is no .npy file", f"{split}/"))
    return listings, problems


def check_layout(
    root: Path, listings: Mapping[str, Listing], series: SeriesList
) -> tuple[list[Place], list[Problem]]:
    """Checks the locations of all stacks.

    Args:
        root: the data set's folder.
        listings: split -> files.
        series: the declared series.

    Returns:
        The place of every stack, and the problems.
    """
    problems: list[Problem] = []
    for split in ("train", "valid"):
        if split not in listings:
            problems.append(Problem(f"no-{split}", "there is no such split", f"{split}/"))
    places = []
    for split, listing in listings.items():
        for exam_id, files in listing.files.items():
            for name in series.names:
                if name in files:
                    path = files[name].relative_to(root).as_posix()
                    places.append(Place(split, exam_id, name, path))
                else:
                    text = f"the exam lacks the series {name}"
                    file = Place(split, exam_id, name).file
                    problems.append(Problem("missing-plane", text, file, exam_id))
    problems += _shared_ids({split: tuple(each.files) for split, each in listings.items()})
    problems += _extra_files(root, listings, series)
    return places, problems


def _shared_ids(exams: Mapping[str, Sequence[str]]) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for split, ids in exams.items():
        for exam_id in ids:
            other = seen.setdefault(exam_id, split)
            if other != split:
                text = f"the id is in {other} and in {split}; expected unique ids"
                yield Problem("id-twice", text, f"{split}/*/{exam_id}.npy", exam_id)


def check_groups(root: Path, exams: Mapping[str, Sequence[str]]) -> list[Problem]:
    """Finds groups of `groups.csv` that are in two splits, and ids that are in no split.

    Args:
        root: the data set's folder.
        exams: split -> ids of its exams.
    """
    try:
        groups = read_groups(root) or {}
    except MrkneeError as error:
        return [from_error(error, (), "declaration", root / GROUPS_FILE).within(root)]
    split_of = {exam_id: split for split, ids in exams.items() for exam_id in ids}
    problems: list[Problem] = []
    first: dict[str, str] = {}
    for exam_id, group in groups.items():
        if exam_id not in split_of:
            known = how_ids_differ(exam_id, split_of)
            text = f"there is no exam with this id{f'; {known}' if known else ''}"
            problems.append(Problem("group-unknown", text, GROUPS_FILE, exam_id))
            continue
        other = first.setdefault(group, exam_id)
        if split_of[other] != split_of[exam_id]:
            text = (
                f"the exam is in {split_of[exam_id]}, but {other} of the same group is in "
                f"{split_of[other]}"
            )
            file = f"{split_of[exam_id]}/*/{exam_id}.npy"
            problems.append(Problem("group-across", text, file, exam_id))
    return problems


def check_sides(root: Path) -> Iterator[Problem]:
    """Reports sides that can't be read, and a data set in which only some knees are mirrored."""
    try:
        sides = read_sides(root) or {}
        if any(one.mirrored for one in sides.values()) and not has_canonical_sides(root):
            looking = Counter(
                "left" if (one.side == "left") != one.mirrored else "right"
                for one in sides.values()
                if one.side is not None
            )
            text = (
                f"{looking['left']} knees look like left ones, {looking['right']} like right ones"
            )
            yield Problem("mixed-sides", text, SIDES_FILE)
    except MrkneeError as error:
        yield from_error(error, (), "declaration", root / SIDES_FILE).within(root)


def _extra_files(
    root: Path, listings: Mapping[str, Listing], series: SeriesList
) -> Iterator[Problem]:
    """Finds files that are never read, except hidden files.

    Next to the splits only stacks and tables are reported, which are probably misplaced; other
    files are permitted there.
    """
    for path in _visible(root):
        if path.name in DECLARATIONS:
            continue
        suffix = path.suffix.lower()
        if suffix == ".csv" and not any(path.name.startswith(f"{s}-") for s in listings):
            names = " or ".join(f"{split}-<finding>.csv" for split in listings)
            yield Problem(
                "extra-file", f"the table has an unexpected name; expected {names}", path.name
            )
        elif suffix == ".npy":
            yield Problem("extra-file", "a stack outside the folders of series", path.name)
    for split, listing in listings.items():
        folders = series_folders(root / split, series).values()
        for path in _visible(root / split):
            if path not in folders and path.name not in (SERIES_FILE, RECORD):
                text = f"expected only {', '.join(series.names)} in the folder of a split"
                if path.name in DECLARATIONS:
                    text = "it is read in the data set's folder only: move it next to the splits"
                yield Problem("extra-file", text, f"{split}/{path.name}")
        for path in listing.unread:
            if path.parent in folders:
                text = "expected only <id>.npy in the folder of a series"
                yield Problem("extra-file", text, path.relative_to(root).as_posix())


def _visible(folder: Path) -> list[Path]:
    if not is_dir(folder):
        return []
    return [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
