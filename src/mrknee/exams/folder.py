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
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from mrknee.errors import DataError, MrkneeError
from mrknee.exams.axes import (
    AXES,
    Axes,
    Shape,
    parse_axes,
    refuse_exams_with_other_axes,
    shape_in_order,
)
from mrknee.exams.exam import PLANES, Exam, Findings, Plane, Stack, by_plane
from mrknee.exams.ids import how_ids_differ, refuse_id
from mrknee.exams.listing import (
    folder_meant,
    list_stacks,
    plane_folders,
    same_text,
    unread_text,
    what_is_there,
)
from mrknee.exams.remark import Remark
from mrknee.exams.stackfile import read_shape, read_stack
from mrknee.files import whole_file
from mrknee.untrusted import read_text

__all__ = [
    "Dataset",
    "label_files",
    "open_dataset",
    "read_exam",
    "read_labels",
    "split_of",
    "write_labels",
]

_MAX_LABEL_BYTES = 4_000_000  # some 400,000 exams


class Dataset:
    """The exams of one folder, in the order of their ids; each is opened when it is asked for.

    Attributes:
        folder: the folder that holds the plane folders.
        root: the data set's folder, which holds the splits and their label files; `folder` itself
            where no split was opened.
        split: the split that was opened; None where `folder` was named itself.
        ids: the exams' ids, sorted.
        findings: the findings that have a label file, or None where there is no label file.
        labels: float64 (exams, findings): 1 present, 0 absent, NaN not known; (exams, 0) where
            there is no label file.
        files: id -> plane -> the stack's file.
        unread: files and folders among the stacks that are not read (see `Listing`); who reads
            the exams says so.
        axes: the order of the files' axes.
        opened_with: which of the arguments `findings`, `axes` and `allow_missing_plane` were
            given, as training has them among its settings.

    Args:
        folder: holds `axial/`, `coronal/` and `sagittal/`.
        findings: take these findings only (each must have a label file); None takes all.
        labels_of: label files are `<labels_of>-<finding>.csv`, a path without the finding
            (`DATA/train`); None reads no labels.
        allow_missing_plane: let exams through that lack one or two planes.
        axes: the order of the files' axes, such as `rows,cols,slices`; None expects
            `slices,rows,cols`. Exams whose shapes say otherwise are refused when one is read
            (`refuse_other_axes`), unless `slices,rows,cols` was given.
        allow_missing_labels: take `findings` without a label file too; all their labels are NaN.

    Raises:
        MrkneeError: no exams, an id that can't be used (`refuse_id`), an exam lacks a plane, or a
            label file names an exam that isn't there, has one twice, or holds something other than
            0, 1 or nothing.

    Example:
        >>> import mrknee
        >>> data = mrknee.Dataset.of_split("knees", "train", findings=["acl"])
        >>> len(data), data.labels.shape, data["0000"].id, data[0].id
        (12, (12, 1), '0000', '0000')
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        findings: Iterable[str] | None = None,
        labels_of: str | Path | None = None,
        allow_missing_plane: bool = False,
        axes: str | None = None,
        allow_missing_labels: bool = False,
    ) -> None:
        self.folder = self.root = folder = Path(folder)
        self.split: str | None = None
        labels_of = None if labels_of is None else Path(labels_of)
        given = None if axes is None else parse_axes(axes)
        self.axes = given or AXES
        self._given_axes = given
        self._axes_known = given == AXES  # insisted on
        listing = list_stacks(folder)
        if not listing.files:
            raise DataError(
                "there are no exams here",
                code="no-exams",
                file=folder,
                expected="folders axial/, coronal/ and sagittal/ that hold .npy files",
                found=what_is_there(folder)
                if not plane_folders(folder)
                else "no .npy file in any of them",
                advice=folder_meant(folder, data_set=False),
            )
        self.files: Mapping[str, Mapping[Plane, Path]] = listing.files
        self.unread = listing.unread
        self.ids: tuple[str, ...] = tuple(self.files)
        for exam_id, planes in self.files.items():
            refuse_id(exam_id, next(iter(planes.values())))
        if not allow_missing_plane:
            self._refuse_missing_planes()
        found = {} if labels_of is None else label_files(labels_of)
        if allow_missing_labels and findings is not None:
            self.findings: Findings | None = Findings(findings)
        else:
            self.findings = _choose_findings(found, findings, labels_of)
        self.opened_with: dict[str, Any] = {}
        if findings is not None:
            self.opened_with["findings"] = list(self.findings or ())
        if given is not None:
            self.opened_with["axes"] = ",".join(given)
        if allow_missing_plane:
            self.opened_with["allow_missing_plane"] = True
        columns = [
            _join(self.ids, read_labels(found[name]), found[name], folder)
            if name in found
            else np.full(len(self.ids), np.nan)
            for name in self.findings or ()
        ]
        self.labels: Float64[np.ndarray, "exams findings"] = (
            np.stack(columns, axis=1) if columns else np.zeros((len(self.ids), 0))
        )

    @classmethod
    def of_split(
        cls,
        root: str | Path,
        split: str,
        *,
        findings: Iterable[str] | None = None,
        allow_missing_plane: bool = False,
        axes: str | None = None,
        allow_missing_labels: bool = False,
    ) -> Dataset:
        """Opens one split of a data set with its labels: `root/split/` and `root/split-*.csv`."""
        root = Path(root)
        if not (root / split).is_dir():
            raise DataError(
                f"the data set has no split named {split!r}",
                code="no-split",
                file=root,
                expected=f"a folder {split}/ with {', '.join(PLANES)} inside",
                found=what_is_there(root),
                advice=folder_meant(root, data_set=True, split=split),
            )
        exams = cls(
            root / split,
            findings=findings,
            labels_of=root / split,
            allow_missing_plane=allow_missing_plane,
            axes=axes,
            allow_missing_labels=allow_missing_labels,
        )
        exams.root, exams.split = root, split
        return exams

    def _refuse_missing_planes(self) -> None:
        for exam_id in self.ids:
            missing = [p for p in PLANES if p not in self.files[exam_id]]
            if missing:
                lacking = sum(len(self.files[i]) < len(PLANES) for i in self.ids)
                raise DataError(
                    f"an exam lacks the {' and '.join(missing)} plane",
                    code="missing-plane",
                    file=self.folder / missing[0] / f"{exam_id}.npy",
                    exam=exam_id,
                    expected="all of " + ", ".join(PLANES),
                    found=", ".join(self.files[exam_id])
                    + f" ({lacking} of {len(self.ids)} exams lack a plane)"
                    + (f"; {unread_text(self.unread)}" if self.unread else ""),
                    advice="add the file, or allow exams with fewer planes (--allow-missing-plane)",
                )

    def __len__(self) -> int:
        return len(self.ids)

    def files_of(self, index: int) -> dict[Plane, Path]:
        """The files of an exam's stacks, by plane."""
        return dict(self.files[self.ids[index]])

    def __getitem__(self, exam: int | str) -> Exam:
        """The exam at a position, or of an id.

        Raises:
            MrkneeError: there is no exam of that id, or its files can't be used.
            IndexError: there is no such position.
        """
        self.refuse_other_axes()
        index = self.index(exam) if isinstance(exam, str) else exam
        exam_id = self.ids[index]
        labels = dict(zip(self.findings or (), self.labels[index].tolist(), strict=True))
        return read_exam(self.files[exam_id], exam_id, axes=self.axes, labels=labels)

    def index(self, exam_id: str) -> int:
        """The position of the exam of this id.

        Raises:
            DataError: there is none.
        """
        exam_id = same_text(exam_id)
        if exam_id not in self.files:
            differ = how_ids_differ(exam_id, self.ids)
            near = get_close_matches(exam_id, self.ids, n=3, cutoff=0.0)
            raise DataError(
                "there is no such exam",
                code="unknown-exam",
                file=self.folder,
                exam=exam_id,
                expected=f"one of {len(self)} ids, {self.ids[0]} to {self.ids[-1]}",
                found=differ or "nearest: " + ", ".join(near),
                advice="write the id as its files are named: 0007 is not 7",
            )
        return self.ids.index(exam_id)

    def __repr__(self) -> str:
        findings = f", labels of {', '.join(self.findings)}" if self.findings else ""
        return f"Dataset({str(self.folder)!r}: {len(self)} exams{findings})"

    def shapes(self, index: int) -> dict[Plane, Shape]:
        """The exam's planes and the shapes of their stacks; only headers are read.

        Raises:
            MrkneeError: a header can't be read.
        """
        exam_id = self.ids[index]
        return {
            plane: shape_in_order(read_shape(file, exam_id), self.axes)
            for plane, file in self.files[exam_id].items()
        }

    def refuse_other_axes(self) -> None:
        """Refuses exams whose shapes say that their axes are in another order than expected.

        All headers are read, once. Nothing is refused where `axes` is `slices,rows,cols`.

        Raises:
            MrkneeError: they say so; the rules are those of `mrknee.exams.axes`.
        """
        if self._axes_known:
            return
        shapes: list[tuple[str, dict[Plane, Shape]]] = []
        for index, exam_id in enumerate(self.ids):
            with suppress(MrkneeError):  # said when the exam is read
                shapes.append((exam_id, self.shapes(index)))
        refuse_exams_with_other_axes(shapes, file=self.folder, given=self._given_axes)
        self._axes_known = True

    def count_slices(self, index: int) -> int:
        """Slices of an exam, all planes together, from its files' headers; no pixel is read."""
        return sum(slices for slices, _, _ in self.shapes(index).values())

    def planes(self, index: int) -> tuple[Plane, ...]:
        """The planes that the exam at this position has; nothing is read."""
        return tuple(self.files[self.ids[index]])

    def __iter__(self) -> Iterator[Exam]:
        return (self[i] for i in range(len(self)))


def open_dataset(
    path: str | Path,
    split: str = "valid",
    *,
    findings: Iterable[str] | None = None,
    labels: bool = True,
    allow_missing_plane: bool = False,
    axes: str | None = None,
) -> Dataset:
    """Opens one split of a data set, with its labels where there are any.

    Args:
        path: the data set: `path/<split>/{axial,coronal,sagittal}/*.npy`, labels in
            `path/<split>-<finding>.csv`. Or a folder that holds the planes' folders itself, which
            has no labels.
        split: which split.
        findings: take these findings' labels only; None takes all.
        labels: False leaves the label files unread, for predictions, which don't need them.
        allow_missing_plane: accept exams that lack one or two planes.
        axes: the order of the files' axes, such as `rows,cols,slices`; None expects
            `slices,rows,cols` and refuses what seems to be in another order.

    Returns:
        The exams; each is read when it is asked for: `data[0]`, `data["1130"]`, `for exam in data`.
        `data.labels` is (exams, findings), `data.findings` their names.

    Raises:
        DataError: there is no such data set or split, an exam lacks a plane, or a label file can't
            be used.

    Example:
        >>> import mrknee
        >>> data = mrknee.open_dataset("knees", split="valid")
        >>> data
        Dataset('knees/valid': 6 exams, labels of abnormal, acl, meniscus)
        >>> data["0012"].id
        '0012'
        >>> data.labels.shape
        (6, 3)
    """
    path = Path(path)
    is_folder = bool(plane_folders(path))
    if not is_folder and not plane_folders(path / split):
        raise DataError(
            "there are no exams here",
            code="no-exams",
            file=path,
            expected=f"a data set with a folder {split}/, or the folders axial/, coronal/, "
            "sagittal/",
            found=what_is_there(path),
            advice=folder_meant(path, data_set=False, split=split),
        )
    if is_folder:
        exams = Dataset(path, findings=findings, allow_missing_plane=allow_missing_plane, axes=axes)
    elif labels:
        exams = Dataset.of_split(
            path, split, findings=findings, allow_missing_plane=allow_missing_plane, axes=axes
        )
    else:
        exams = Dataset(path / split, allow_missing_plane=allow_missing_plane, axes=axes)
        exams.root, exams.split = path, split
    exams.refuse_other_axes()
    return exams


def split_of(data: Dataset | str | Path, split: str) -> tuple[Path, str]:
    """Where labels are looked for: the data set's folder and the split in it.

    Args:
        data: a data set's folder, or an opened one, which knows its split. Of one that was opened
            by the folder of the planes itself, that folder is the split.
        split: the split, where `data` is a folder.
    """
    if not isinstance(data, Dataset):
        return Path(data), split
    if data.split is None:
        folder = data.folder.absolute()
        return folder.parent, folder.name
    return data.root, data.split


def read_exam(
    files: Mapping[Plane, str | Path],
    exam_id: str,
    *,
    axes: Axes = AXES,
    labels: Mapping[str, float] | None = None,
) -> Exam:
    """Reads an exam from its files, with remarks on what reading had to change.

    Args:
        files: plane -> its `.npy` file.
        exam_id: the exam's id.
        axes: the order of the files' axes.
        labels: finding -> label.

    Raises:
        MrkneeError: as `read_stack`.
    """
    stacks: dict[Plane, Stack] = {}
    remarks: list[Remark] = []
    for plane, file in by_plane(files, exam=exam_id).items():
        outliers: list[str] = []
        stacks[plane] = read_stack(file, exam_id, axes=axes, outliers=outliers)
        remarks += [Remark("outliers", plane, text) for text in outliers]
    return Exam(exam_id, stacks, labels or {}, tuple(remarks))


def label_files(labels_of: str | Path) -> dict[str, Path]:
    """The label files of a split: finding -> `<labels_of>-<finding>.csv`, for `DATA/train`.

    A finding's name is in lower case, whatever its file's is: `train-ACL.csv` is of `acl`.

    Raises:
        MrkneeError: two files are of one finding.
    """
    labels_of = Path(labels_of)
    prefix = labels_of.name + "-"
    found: dict[str, Path] = {}
    for file in sorted(labels_of.parent.glob("*.csv")):
        if file.name.startswith(prefix):
            name = file.stem.removeprefix(prefix).lower()
            if name in found:
                raise DataError(
                    "two label files are of one finding",
                    code="label-name",
                    file=file,
                    expected="one file per finding; upper and lower case are the same",
                    found=f"{found[name].name} and {file.name}",
                    advice="remove or rename one of them",
                )
            found[name] = file
    return found


def _choose_findings(
    found: Mapping[str, Path], wanted: Iterable[str] | None, labels_of: Path | None
) -> Findings | None:
    if wanted is None:
        return Findings(found) if found else None
    names = Findings(name.strip().lower() for name in wanted)
    for name in names:
        if name not in found:
            raise DataError(
                f"there are no labels for {name!r}",
                code="no-labels",
                file=f"{labels_of}-{name}.csv",
                expected="a label file for each finding asked for",
                found=", ".join(Findings(found)) if found else "no label file at all",
            )
    return names


def read_labels(path: str | Path) -> dict[str, float]:
    """Reads one label file: no header, `id,label` a line, label 0, 1 or empty (not known).

    It is a CSV, as the predictions are: an id with a comma or a quotation mark stands in quotes.
    0 and 1 may be written as decimal numbers (`0.0`, `1.`), as pandas writes them where a label is
    missing. Ids are brought to Unicode's composed form (NFC).

    Args:
        path: the file; UTF-8, any line ends.

    Returns:
        id -> 1.0, 0.0 or NaN, in the file's order.

    Raises:
        MrkneeError: the file isn't there or isn't text, a line has not two fields, an id comes
            twice, or a label is something else.
    """
    path = Path(path)
    text = read_text(path, "label file", at_most=_MAX_LABEL_BYTES)
    labels: dict[str, float] = {}
    rows = csv.reader(io.StringIO(text), strict=True)
    for row in _readable(rows, path):
        fields = [part.strip() for part in row]
        if fields in ([], [""]):
            continue
        where = f"line {rows.line_num}: {','.join(row)[:80]!r}"
        if len(fields) != 2 or not fields[0]:
            raise DataError(
                "a label file has a line of another form",
                code="label-format",
                file=path,
                expected="id,label with a label of 0, 1 or nothing",
                found=where,
                advice="separate id and label by a comma"
                if len(fields) == 1 and re.search(r"[;\t ]", fields[0])
                else None,
            )
        exam_id, label = same_text(fields[0]), fields[1]
        if exam_id in labels:
            raise DataError(
                "an exam has two labels",
                code="label-twice",
                file=path,
                exam=exam_id,
                expected="one line",
                found=where,
            )
        if label and not _LABEL.fullmatch(label):
            raise DataError(
                "a label is neither 0 nor 1 nor empty",
                code="label-value",
                file=path,
                exam=exam_id,
                expected="0, 1 or nothing (not known)",
                found=where,
                advice=_label_advice(fields, text, first=not labels),
            )
        labels[exam_id] = float(label) if label else np.nan
    return labels


_LABEL = re.compile(r"[01](\.0*)?", re.ASCII)

_WORDS = {
    "yes": "1", "y": "1", "true": "1", "t": "1", "positive": "1", "pos": "1", "present": "1",
    "no": "0", "n": "0", "false": "0", "f": "0", "negative": "0", "neg": "0", "absent": "0",
    "nan": "nothing", "na": "nothing", "n/a": "nothing", "none": "nothing", "null": "nothing",
    "unknown": "nothing", "?": "nothing",
}  # fmt: skip


def _label_advice(fields: Sequence[str], text: str, *, first: bool) -> str | None:
    """What to do about a label; a header is spoken of only where the line can be nothing else.

    That is the first line, without a digit, whose label is no word for yes, no or not known, and
    the lines below it are labels.
    """
    word = _WORDS.get(fields[1].lower())
    if word is not None:
        return f"write {word} for it"
    below = text.strip().split("\n", 1)[1:]
    digits = any(c.isdigit() for c in "".join(fields))
    if first and below and not digits and re.search(r",\s*\"?[01](\.0*)?\"?\s*$", below[0], re.M):
        return "delete the header line: MRNet's label files have none"
    return None


def _readable(rows: Iterator[list[str]], path: Path) -> Iterator[list[str]]:
    try:
        yield from rows
    except csv.Error as error:  # an open quote, or a field of more than 131,072 characters
        raise DataError(
            "the label file is no CSV", code="label-format", file=path, found=str(error)
        ) from None


def _join(
    ids: Sequence[str], labels: Mapping[str, float], path: Path, folder: Path
) -> Float64[np.ndarray, " exams"]:
    known = set(ids)
    unknown = [i for i in labels if i not in known]
    if unknown:
        differ = how_ids_differ(unknown[0], ids)
        raise DataError(
            "a label file names an exam that is not there",
            code="label-unknown",
            file=path,
            exam=unknown[0],
            expected=f"only ids of {folder}: {ids[0]} to {ids[-1]}",
            found=f"{len(unknown)} unknown of {len(labels)}, {unknown[0]!r} first"
            + (f"; {differ}" if differ else ""),
            advice="write the ids as the files are named: 0000 is not 0",
        )
    return np.array([labels.get(i, np.nan) for i in ids], dtype=np.float64)


def write_labels(root: str | Path, split: str, finding: str, labels: Mapping[str, float]) -> Path:
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
    path = Path(root) / f"{split}-{name}.csv"
    text = {0.0: "0", 1.0: "1"}
    with whole_file(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(
            (exam_id, text.get(label, "")) for exam_id, label in labels.items()
        )
    return path
