"""A folder of exams in MRNet's layout, read and written.

```
DATA/
├── train/{axial,coronal,sagittal}/0000.npy     uint8 (slices, rows, cols)
├── train-abnormal.csv                           no header; one line an exam: 0000,1
├── train-acl.csv  train-meniscus.csv  ...       any findings, one file each
├── valid/...  valid-abnormal.csv  ...
```
Labels are joined to exams by id, never by the order of lines. Ids are compared as text: `0` is
not `0000`. An empty label, or no line at all, means "not known" and becomes NaN.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from mrknee.errors import MrkneeError
from mrknee.exams.exam import PLANES, Exam, Findings, Plane
from mrknee.exams.stackfile import read_stack
from mrknee.files import whole_file
from mrknee.untrusted import read_text

__all__ = ["ExamFolder", "label_files", "read_labels", "write_labels"]

_MAX_LABEL_BYTES = 4_000_000  # some 400,000 exams


class ExamFolder:
    """The exams of one folder, in the order of their ids; each is opened when it is asked for.

    Attributes:
        folder: the folder that holds the plane folders.
        ids: the exams' ids, sorted.
        findings: the findings that have a label file, or None where there is no label file.
        labels: float64 (exams, findings): 1 present, 0 absent, NaN not known; (exams, 0) where
            there is no label file.

    Args:
        folder: holds `axial/`, `coronal/` and `sagittal/`.
        findings: take these findings only (each must have a label file); None takes all.
        labels_of: label files are `<labels_of>-<finding>.csv`, a path without the finding
            (`DATA/train`); None reads no labels.
        allow_missing_plane: let exams through that lack one or two planes.

    Raises:
        MrkneeError: no exams, an exam lacks a plane, or a label file names an exam that isn't
            there, has one twice, or holds something other than 0, 1 or nothing.
    """

    def __init__(
        self,
        folder: Path,
        *,
        findings: Iterable[str] | None = None,
        labels_of: Path | None = None,
        allow_missing_plane: bool = False,
    ) -> None:
        self.folder = folder
        self._files = _find_stacks(folder)
        self.ids: tuple[str, ...] = tuple(sorted(self._files))
        if not allow_missing_plane:
            self._refuse_missing_planes()
        found = {} if labels_of is None else label_files(labels_of)
        self.findings = _choose_findings(found, findings, labels_of)
        columns = [
            _join(self.ids, read_labels(found[name]), found[name], folder)
            for name in self.findings or ()
        ]
        self.labels: Float64[np.ndarray, "exams findings"] = (
            np.stack(columns, axis=1) if columns else np.zeros((len(self.ids), 0))
        )

    @classmethod
    def of_split(
        cls,
        root: Path,
        split: str,
        *,
        findings: Iterable[str] | None = None,
        allow_missing_plane: bool = False,
    ) -> ExamFolder:
        """Opens one split of a data set with its labels: `root/split/` and `root/split-*.csv`."""
        if not (root / split).is_dir():
            raise MrkneeError(
                f"the data set has no split named {split!r}",
                file=root,
                expected=f"a folder {split}/ with {', '.join(PLANES)} inside",
                found=", ".join(sorted(p.name for p in root.iterdir())) or "an empty folder"
                if root.is_dir()
                else "no such folder",
            )
        return cls(
            root / split,
            findings=findings,
            labels_of=root / split,
            allow_missing_plane=allow_missing_plane,
        )

    def _refuse_missing_planes(self) -> None:
        for exam_id in self.ids:
            missing = [p for p in PLANES if p not in self._files[exam_id]]
            if missing:
                lacking = sum(len(self._files[i]) < len(PLANES) for i in self.ids)
                raise MrkneeError(
                    f"an exam lacks the {' and '.join(missing)} plane",
                    file=self.folder / missing[0] / f"{exam_id}.npy",
                    exam=exam_id,
                    expected="all of " + ", ".join(PLANES),
                    found=", ".join(self._files[exam_id])
                    + f" ({lacking} of {len(self.ids)} exams lack a plane)",
                    advice="add the file, or allow exams with fewer planes (--allow-missing-plane)",
                )

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Exam:
        exam_id = self.ids[index]
        stacks = {p: read_stack(f, exam_id) for p, f in self._files[exam_id].items()}
        return Exam(
            exam_id,
            stacks,
            dict(zip(self.findings or (), self.labels[index].tolist(), strict=True)),
        )

    def planes(self, index: int) -> tuple[Plane, ...]:
        """The planes that the exam at this position has; nothing is read."""
        return tuple(self._files[self.ids[index]])

    def __iter__(self) -> Iterator[Exam]:
        return (self[i] for i in range(len(self)))


def _find_stacks(folder: Path) -> dict[str, dict[Plane, Path]]:
    files: dict[str, dict[Plane, Path]] = {}
    for plane in PLANES:
        if (folder / plane).is_dir():
            for file in sorted((folder / plane).glob("*.npy")):
                if not file.name.startswith("."):
                    files.setdefault(file.stem, {})[plane] = file
    if not files:
        raise MrkneeError(
            "there are no exams here",
            file=folder,
            expected="folders axial/, coronal/ and sagittal/ that hold .npy files",
            found="no such folder" if not folder.exists() else "no .npy file in any of them",
        )
    return files


def label_files(labels_of: Path) -> dict[str, Path]:
    """The label files of a split: finding -> `<labels_of>-<finding>.csv`, for `DATA/train`."""
    prefix = labels_of.name + "-"
    return {
        file.stem.removeprefix(prefix): file
        for file in sorted(labels_of.parent.glob("*.csv"))
        if file.name.startswith(prefix)
    }


def _choose_findings(
    found: Mapping[str, Path], wanted: Iterable[str] | None, labels_of: Path | None
) -> Findings | None:
    if wanted is None:
        return Findings(found) if found else None
    names = Findings(wanted)
    for name in names:
        if name not in found:
            raise MrkneeError(
                f"there are no labels for {name!r}",
                file=f"{labels_of}-{name}.csv",
                expected="a label file for each finding asked for",
                found=", ".join(Findings(found)) if found else "no label file at all",
            )
    return names


def read_labels(path: Path) -> dict[str, float]:
    """Reads one label file: no header, `id,label` a line, label 0, 1 or empty (not known).

    It is a CSV, as the predictions are: an id with a comma or a quotation mark stands in quotes.

    Args:
        path: the file; UTF-8, any line ends.

    Returns:
        id -> 1.0, 0.0 or NaN, in the file's order.

    Raises:
        MrkneeError: the file isn't there or isn't text, a line has not two fields, an id comes
            twice, or a label is something else.
    """
    text = read_text(path, "label file", at_most=_MAX_LABEL_BYTES)
    labels: dict[str, float] = {}
    rows = csv.reader(io.StringIO(text), strict=True)
    for row in _readable(rows, path):
        fields = [part.strip() for part in row]
        if fields in ([], [""]):
            continue
        where = f"line {rows.line_num}: {','.join(row)[:80]!r}"
        if len(fields) != 2 or not fields[0]:
            raise MrkneeError(
                "a label file has a line of another form",
                file=path,
                expected="id,label with a label of 0, 1 or nothing",
                found=where,
            )
        exam_id, label = fields
        if exam_id in labels:
            raise MrkneeError(
                "an exam has two labels", file=path, exam=exam_id, expected="one line", found=where
            )
        if label not in ("0", "1", ""):
            raise MrkneeError(
                "a label is neither 0 nor 1 nor empty",
                file=path,
                exam=exam_id,
                expected="0, 1 or nothing (not known)",
                found=where,
                advice="delete the header line: MRNet's label files have none"
                if rows.line_num == 1
                else None,
            )
        labels[exam_id] = float(label) if label else np.nan
    return labels


def _readable(rows: Iterator[list[str]], path: Path) -> Iterator[list[str]]:
    try:
        yield from rows
    except csv.Error as error:  # an open quote, or a field of more than 131,072 characters
        raise MrkneeError("the label file is no CSV", file=path, found=str(error)) from None


def _join(
    ids: Sequence[str], labels: Mapping[str, float], path: Path, folder: Path
) -> Float64[np.ndarray, " exams"]:
    known = set(ids)
    unknown = [i for i in labels if i not in known]
    if unknown:
        raise MrkneeError(
            "a label file names an exam that is not there",
            file=path,
            exam=unknown[0],
            expected=f"only ids of {folder}: {ids[0]} to {ids[-1]}",
            found=f"{len(unknown)} unknown of {len(labels)}, {unknown[0]!r} first",
            advice="ids must be written as the files are named: 0000 is not 0",
        )
    return np.array([labels.get(i, np.nan) for i in ids], dtype=np.float64)


def write_labels(root: Path, split: str, finding: str, labels: Mapping[str, float]) -> Path:
    """Writes `root/split-finding.csv`, whole or not at all.

    Args:
        root: the data set's folder; made if it isn't there.
        split: the split's name.
        finding: the finding's name.
        labels: id -> 1.0, 0.0 or NaN (written as nothing).

    Returns:
        The file written.
    """
    (name,) = Findings([finding])
    path = root / f"{split}-{name}.csv"
    text = {0.0: "0", 1.0: "1"}
    with whole_file(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(
            (exam_id, text.get(label, "")) for exam_id, label in labels.items()
        )
    return path
