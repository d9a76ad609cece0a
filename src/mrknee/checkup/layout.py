"""Splits, planes and exams as they lie on the disk, and what lies there beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mrknee.checkup.problem import Problem
from mrknee.errors import MrkneeError
from mrknee.exams import PLANES, ExamFolder, Plane, label_files
from mrknee.exams.ids import UNUSABLE


@dataclass(frozen=True)
class Place:
    """One stack's place in a data set.

    Attributes:
        split: its split.
        exam: its exam's id.
        plane: the folder it lies in.
    """

    split: str
    exam: str
    plane: Plane

    @property
    def file(self) -> str:
        """Where it lies, seen from the data set's folder."""
        return f"{self.split}/{self.plane}/{self.exam}.npy"


def split_names(root: Path) -> list[str]:
    """The folders that hold a plane's folder: train, valid, then others by name.

    Raises:
        MrkneeError: there is none.
    """
    folders = sorted(root.iterdir()) if root.is_dir() else []
    found = {f.name for f in folders if any((f / plane).is_dir() for plane in PLANES)}
    if not found:
        raise MrkneeError(
            "there is no data set here",
            file=root,
            expected="folders train/ and valid/ with axial/, coronal/ and sagittal/ inside",
            found="no such folder" if not root.is_dir() else "no folder with a plane inside",
        )
    first = [name for name in ("train", "valid") if name in found]
    return first + sorted(found.difference(first))


def exams_of(root: Path, splits: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Split -> the ids of its exams, sorted; none for a split without a stack."""
    ids: dict[str, tuple[str, ...]] = {}
    for split in splits:
        try:
            ids[split] = ExamFolder(root / split, allow_missing_plane=True).ids
        except MrkneeError:
            ids[split] = ()
    return ids


def check_layout(
    root: Path, exams: Mapping[str, Sequence[str]]
) -> tuple[list[Place], list[Problem]]:
    """The stacks there are, and what is wrong with where they are.

    Args:
        root: the data set's folder.
        exams: split -> ids.

    Returns:
        Every stack's place, and the problems.
    """
    problems: list[Problem] = []
    for split in ("train", "valid"):
        if split not in exams:
            problems.append(Problem(f"no-{split}", "there is no such split", f"{split}/"))
    for split, ids in exams.items():
        if not ids:
            problems.append(_no_exams(root, split))
    places = [Place(s, i, plane) for s, ids in exams.items() for i in ids for plane in PLANES]
    there = [place for place in places if (root / place.file).exists()]
    problems += [
        Problem("missing-plane", f"the exam lacks the {place.plane} plane", place.file, place.exam)
        for place in places
        if not (root / place.file).exists()
    ]
    problems += _shared_ids(exams)
    problems += _extra_files(root, list(exams))
    return there, problems


def _no_exams(root: Path, split: str) -> Problem:
    """Why a split has no exams: an id can't be used, so nothing reads them; or there are none."""
    try:
        ExamFolder(root / split, allow_missing_plane=True)
    except MrkneeError as error:
        if error.what == UNUSABLE:
            text = f"expected {error.expected}; found {error.found}"
            return Problem("exam-id", text, f"{split}/*/{error.exam}.npy", error.exam)
    return Problem("no-exams", "there is no .npy file in it", f"{split}/")


def _shared_ids(exams: Mapping[str, Sequence[str]]) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for split, ids in exams.items():
        for exam_id in ids:
            other = seen.setdefault(exam_id, split)
            if other != split:
                text = f"the id is in {other} and in {split}; expected an id to name one exam"
                yield Problem("id-twice", text, f"{split}/*/{exam_id}.npy", exam_id)


def _extra_files(root: Path, splits: Sequence[str]) -> Iterator[Problem]:
    """What nothing reads; hidden files, and whatever else people keep beside the splits, may be.

    Beside the splits only stacks and tables are told, which were meant to be read.
    """
    labels = {file for split in splits for file in label_files(root / split).values()}
    for path in _visible(root):
        if path.suffix == ".csv" and path not in labels:
            names = " or ".join(f"{split}-<finding>.csv" for split in splits)
            yield Problem("extra-file", f"a table of no split; expected {names}", path.name)
        elif path.suffix == ".npy":
            yield Problem("extra-file", "a stack outside the planes' folders", path.name)
    for split in splits:
        for path in _visible(root / split):
            if path.name not in PLANES or not path.is_dir():
                text = f"expected only {', '.join(PLANES)} in a split's folder"
                yield Problem("extra-file", text, f"{split}/{path.name}")
        for plane in PLANES:
            for path in _visible(root / split / plane):
                if path.suffix != ".npy" or path.is_dir():
                    text = "expected only <id>.npy in a plane's folder"
                    yield Problem("extra-file", text, f"{split}/{plane}/{path.name}")


def _visible(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
