"""What a training run would stumble over in a data set, all of it at once, before it starts.

Reading stops at the first fault; this goes on and lists them. Only the files' headers are read
(uint8 stacks; others are read whole), so thousands of exams take seconds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from mrknee.errors import MrkneeError
from mrknee.exams.exam import PLANES, Findings
from mrknee.exams.folder import ExamFolder, label_files
from mrknee.exams.stackfile import read_stack
from mrknee.progress import Progress

SHOWN = 5
"""The table shows so many problems of one kind; the JSON has them all."""

INCLUDING = ("acl", "meniscus")
"""Findings that make an exam abnormal by MRNet's definition of the label."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        code: its kind: no-split, no-exams, missing-plane, stack, no-labels, labels, one-class,
            findings-differ, contradiction, two-splits.
        severity: error (a run fails on it, or its numbers could not be trusted) or warning.
        text: what is wrong, what was expected, what was found.
        file: where, seen from the data set's folder.
        exam: the exam's id, if it concerns one.
        advice: what to do about it.
    """

    code: str
    severity: Literal["error", "warning"]
    text: str
    file: str | None = None
    exam: str | None = None
    advice: str | None = None


@dataclass(frozen=True)
class LabelCount:
    """How often a finding is present, absent, and not known among a split's exams."""

    positive: int
    negative: int
    unknown: int

    @property
    def prevalence(self) -> float:
        """Share of the positive among the known; NaN where none is known."""
        known = self.positive + self.negative
        return self.positive / known if known else math.nan


@dataclass(frozen=True)
class SliceCount:
    """How many readable stacks of a plane there are, and how many slices they have."""

    stacks: int
    fewest: int
    median: float
    most: int


@dataclass(frozen=True)
class SplitFacts:
    """What a split holds.

    Attributes:
        exams: how many exams have at least one plane.
        labels: finding -> its counts, for each label file that can be read.
        slices: plane -> its counts, for each plane with a readable stack.
    """

    exams: int
    labels: Mapping[str, LabelCount]
    slices: Mapping[str, SliceCount]


@dataclass(frozen=True)
class Checkup:
    """What `check` found.

    Attributes:
        data: the name of the data set's folder.
        splits: split -> what it holds.
        problems: all of them, by split.
    """

    data: str
    splits: Mapping[str, SplitFacts]
    problems: tuple[Problem, ...]

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that must be put right before a run."""
        return tuple(p for p in self.problems if p.severity == "error")

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """The problems a run can live with, but a reader must know."""
        return tuple(p for p in self.problems if p.severity == "warning")

    def to_json(self) -> str:
        """All of it as JSON text; a prevalence that can't be computed is null."""
        splits: dict[str, Any] = {name: asdict(facts) for name, facts in self.splits.items()}
        for name, facts in self.splits.items():
            for finding, count in facts.labels.items():
                share = count.prevalence
                splits[name]["labels"][finding]["prevalence"] = None if math.isnan(share) else share
        content = {
            "version": 1,
            "data": self.data,
            "errors": len(self.errors),
            "warnings": len(self.warnings),
            "splits": splits,
            "problems": [asdict(problem) for problem in self.problems],
        }
        return json.dumps(content, indent=2, allow_nan=False) + "\n"

    def table(self) -> str:
        """The facts and the problems as plain text; of many problems of one kind, the first."""
        labels = [("split", "exams", "finding", "positive", "negative", "not known", "prevalence")]
        slices = [("split", "plane", "stacks", "fewest slices", "median", "most")]
        for name, facts in self.splits.items():
            for finding, n in facts.labels.items():
                share = "-" if math.isnan(n.prevalence) else f"{n.prevalence:.3f}"
                counts = (str(n.positive), str(n.negative), str(n.unknown))
                labels.append((name, str(facts.exams), finding, *counts, share))
            if not facts.labels:
                labels.append((name, str(facts.exams), "(no labels)", "", "", "", ""))
            for plane, m in facts.slices.items():
                numbers = (str(m.stacks), str(m.fewest), f"{m.median:g}", str(m.most))
                slices.append((name, plane, *numbers))
        parts = [self.data, *_aligned(labels), "", *_aligned(slices), ""]
        for title, problems in (("error", self.errors), ("warning", self.warnings)):
            parts += _listed(title, problems)
        if not self.problems:
            parts.append("nothing is wrong with it")
        return "\n".join(parts) + "\n"


def check(root: Path) -> Checkup:
    """Looks at every file of a data set in MRNet's layout and lists what is wrong.

    Args:
        root: the data set's folder; every folder in it that holds a plane's folder is a split.

    Returns:
        The facts, and the problems in the order they were met.

    Raises:
        MrkneeError: there is no such folder, or no split in it.
    """
    names = _split_names(root)
    if not names:
        raise MrkneeError(
            "there is no data set here",
            file=root,
            expected="folders train/ and valid/ with axial/, coronal/ and sagittal/ inside",
            found="no such folder" if not root.is_dir() else "no folder with a plane inside",
        )
    problems = list(_missing_splits(names))
    splits: dict[str, SplitFacts] = {}
    ids: dict[str, str] = {}
    for split in names:
        try:
            exams = ExamFolder(root / split, allow_missing_plane=True)
        except MrkneeError as error:
            problems.append(_problem("no-exams", error, root))
            continue
        problems += _shared_ids(exams.ids, split, ids)
        slices, unreadable = _check_stacks(root, split, exams.ids)
        labels, wrong = _check_labels(root, split, exams.ids)
        problems += [*unreadable, *wrong]
        splits[split] = SplitFacts(len(exams), labels, slices)
    # a label file that can't be read is told already, and its finding is missing from the facts
    if not any(problem.code == "labels" for problem in problems):
        problems += _differing_findings(splits)
    return Checkup(root.resolve().name, splits, tuple(problems))


def _split_names(root: Path) -> list[str]:
    if not root.is_dir():
        return []
    found = {f.name for f in root.iterdir() if any((f / plane).is_dir() for plane in PLANES)}
    first = [name for name in ("train", "valid") if name in found]
    return first + sorted(found.difference(first))


def _missing_splits(names: Sequence[str]) -> Iterator[Problem]:
    if "train" not in names:
        text = "there is no split train: nothing can be trained"
        yield Problem("no-split", "error", text, "train/")
    if "valid" not in names:
        text = "there is no split valid: a run is scored on the exams that selected its epoch"
        yield Problem("no-split", "warning", text, "valid/")


def _problem(code: str, error: MrkneeError, root: Path) -> Problem:
    """A reader's error as one of the list's lines."""
    parts = [("expected", error.expected), ("found", error.found)]
    text = "; ".join([error.what, *(f"{name} {value}" for name, value in parts if value)])
    return Problem(code, "error", text, _within(error.file, root), error.exam, error.advice)


def _within(file: str | None, root: Path) -> str | None:
    if file is None or not Path(file).is_relative_to(root):
        return file
    return Path(file).relative_to(root).as_posix()


def _shared_ids(ids: Sequence[str], split: str, seen: dict[str, str]) -> Iterator[Problem]:
    """Ids that an earlier split has too; notes this split's ids."""
    for exam_id in ids:
        other = seen.setdefault(exam_id, split)
        if other != split:
            yield Problem(
                "two-splits",
                "error",
                f"the id is in {other} and in {split}; expected an id to name one exam",
                f"{split}/",
                exam_id,
                "take the exam out of one of them, or give it an id of its own",
            )


def _check_stacks(
    root: Path, split: str, ids: Sequence[str]
) -> tuple[dict[str, SliceCount], list[Problem]]:
    problems: list[Problem] = []
    counts: dict[str, list[int]] = {plane: [] for plane in PLANES}
    with Progress(len(ids), f"checking {split}") as progress:
        for exam_id in ids:
            for plane in PLANES:
                path = root / split / plane / f"{exam_id}.npy"
                if not path.exists():
                    problems.append(
                        Problem(
                            "missing-plane",
                            "error",
                            f"the exam lacks the {plane} plane",
                            _within(str(path), root),
                            exam_id,
                            "add the file, or allow exams with fewer planes "
                            "(--allow-missing-plane)",
                        )
                    )
                    continue
                try:
                    counts[plane].append(len(read_stack(path, exam_id)))
                except MrkneeError as error:
                    problems.append(_problem("stack", error, root))
            progress.advance()
    slices = {
        plane: SliceCount(len(n), min(n), float(np.median(n)), max(n))
        for plane, n in counts.items()
        if n
    }
    return slices, problems


def _check_labels(
    root: Path, split: str, ids: Sequence[str]
) -> tuple[dict[str, LabelCount], list[Problem]]:
    columns: dict[str, Float[np.ndarray, " exams"]] = {}
    problems: list[Problem] = []
    files = label_files(root / split)
    for name in files:
        try:
            (finding,) = Findings([name])
            exams = ExamFolder(
                root / split,
                findings=[finding],
                labels_of=root / split,
                allow_missing_plane=True,
            )
        except MrkneeError as error:
            problem = _problem("labels", error, root)
            problems.append(problem if problem.file else _in_file(problem, files[name].name))
        else:
            columns[finding] = exams.labels[:, 0]
    if not files and split in ("train", "valid"):
        problems.append(
            Problem(
                "no-labels",
                "error" if split == "train" else "warning",
                f"there is no label file of {split}",
                f"{split}-<finding>.csv",
                advice="one file a finding: no header, a line an exam: 0000,1",
            )
        )
    ordered = {name: columns[name] for name in (Findings(columns) if columns else ())}
    counts = {name: _count(column) for name, column in ordered.items()}
    problems += _one_class(split, counts)
    problems += _contradictions(split, ids, ordered)
    return counts, problems


def _in_file(problem: Problem, file: str) -> Problem:
    return Problem(problem.code, problem.severity, problem.text, file, advice=problem.advice)


def _count(column: Float[np.ndarray, " exams"]) -> LabelCount:
    positive, negative = int((column == 1).sum()), int((column == 0).sum())
    return LabelCount(positive, negative, len(column) - positive - negative)


def _one_class(split: str, counts: Mapping[str, LabelCount]) -> Iterator[Problem]:
    """A finding that can't be learned (train) or has no AUC (any other split)."""
    learned = split == "train"
    for name, n in counts.items():
        if not n.positive or not n.negative:
            yield Problem(
                "one-class",
                "error" if learned else "warning",
                f"{name} {'can not be learned' if learned else 'has no AUC'}: "
                f"{n.positive} positive, {n.negative} negative exams",
                f"{split}-{name}.csv",
                advice="leave it out with --findings" if learned else None,
            )


def _contradictions(
    split: str, ids: Sequence[str], columns: Mapping[str, Float[np.ndarray, " exams"]]
) -> Iterator[Problem]:
    """Torn but not abnormal: MRNet's label abnormal includes both tears."""
    if "abnormal" not in columns:
        return
    for name in INCLUDING:
        if name in columns:
            for i in np.flatnonzero((columns[name] == 1) & (columns["abnormal"] == 0)):
                yield Problem(
                    "contradiction",
                    "warning",
                    f"{name} is positive though abnormal is negative",
                    f"{split}-{name}.csv",
                    ids[int(i)],
                )


def _differing_findings(splits: Mapping[str, SplitFacts]) -> Iterator[Problem]:
    """A run scores valid only if it has train's findings."""
    train, valid = (list(splits[n].labels) if n in splits else [] for n in ("train", "valid"))
    lacking = [f"train-{name}.csv" for name in valid if name not in train]
    lacking += [f"valid-{name}.csv" for name in train if name not in valid]
    if train and valid and lacking:
        yield Problem(
            "findings-differ",
            "error",
            "train and valid have labels of different findings, and a run of all findings would "
            f"not score valid; missing: {', '.join(lacking)}",
            lacking[0],
            advice="add the file, or train on the findings that both have, with --findings",
        )


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _listed(title: str, problems: Sequence[Problem]) -> list[str]:
    """The problems by kind, the first few of each."""
    lines: list[str] = []
    kinds = dict.fromkeys(problem.code for problem in problems)
    for code in kinds:
        mine = [problem for problem in problems if problem.code == code]
        for problem in mine[:SHOWN]:
            where = [problem.file or "", f"exam {problem.exam}" if problem.exam else ""]
            lines.append(f"  {code}: {', '.join(filter(None, where))}: {problem.text}")
        if len(mine) > SHOWN:
            lines.append(f"  {code}: and {len(mine) - SHOWN} more (--json lists them)")
        if mine[0].advice:
            lines.append(f"    to do: {mine[0].advice}")
    if lines:
        plural = "" if len(problems) == 1 else "s"
        lines.insert(0, f"{len(problems)} {title}{plural}")
    return lines
