"""Dataset: a folder of exams in MRNet's layout.

```
DATA/
├── train/{axial,coronal,sagittal}/0000.npy     uint8 (slices, rows, cols)
├── train-abnormal.csv                           no header; one line per exam: 0000,1
├── train-acl.csv  train-meniscus.csv  ...       any findings, one file per finding
├── valid/...  valid-abnormal.csv  ...
├── series.csv        optional: the series, if not MRNet's (`mrknee.exams.series`)
├── findings.csv      optional: name,title: findings and their order, if not sorted by name
├── groups.csv        optional: exam,group: exams of one patient, never in both parts of a split
└── sides.csv         optional: exam,side,mirrored: which knee an exam shows
```
docs/reference/data-sets.md describes the layout in full.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
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
from mrknee.exams.exam import Exam, Stack
from mrknee.exams.findings import FINDINGS_FILE, Findings, in_order, read_findings
from mrknee.exams.groups import group_numbers, read_groups
from mrknee.exams.ids import how_ids_differ, refuse_id
from mrknee.exams.labels import join_labels, label_files, read_labels
from mrknee.exams.listing import (
    declared_series,
    folder_meant,
    list_stacks,
    same_text,
    series_folders,
    unread_text,
    what_is_there,
)
from mrknee.exams.remark import Remark
from mrknee.exams.series import MRNET_SERIES, SeriesList, by_series, read_series
from mrknee.exams.stackfile import read_shape, read_stack
from mrknee.files import is_dir


class Dataset:
    """The exams of one folder, sorted by id; each exam is read on access.

    Attributes:
        folder: the folder that contains one folder per series.
        root: the data set's folder, which contains the splits and their label files; equal to
            `folder` if no split was opened.
        split: name of the opened split; None if `folder` was opened directly.
        ids: ids of the exams, sorted.
        findings: the findings with a label file, in the order of `findings.csv`, else MRNet's
            first and then by name; None without label files.
        titles: finding -> title, for findings with a title in `findings.csv`.
        labels: float64 (exams, findings): 1 present, 0 absent, in between if soft labels are
            allowed, NaN unknown; (exams, 0) without label files.
        groups: one number per exam, equal for exams of one group in `groups.csv`; None if there is
            no such file or no labels are read.
        files: id -> series -> file of the stack.
        series: the series that exams may have: those of `series.csv` in `folder` or its parent,
            else MRNet's; of these, the ones given.
        unread: files and folders among the stacks that are not read (see `Listing`); callers that
            read the exams report them.
        axes: the order of axes in the files.
        opened_with: those of the arguments `findings`, `series`, `axes`, `allow_missing_plane`
            and `soft_labels` that were given, named as the settings of training.

    Args:
        folder: contains one folder per series; MRNet's are `axial/`, `coronal/` and `sagittal/`.
        findings: the findings to use (each needs a label file), returned in the data set's order;
            None uses all.
        labels_of: common prefix of the label files `<labels_of>-<finding>.csv` (`DATA/train`);
            None reads no labels.
        allow_missing_plane: accept exams that lack series; at least one must be present.
        axes: the order of axes in the files, such as `rows,cols,slices`; None expects
            `slices,rows,cols`. Unless `slices,rows,cols` is given, exams whose shapes indicate
            another order are refused when the first exam is read (`refuse_other_axes`).
        allow_missing_labels: accept `findings` without a label file; their labels are NaN.
        soft_labels: accept any number from 0 to 1 as a label.
        series: names of the series to use; None uses all. Each exam must have at least one.

    Raises:
        DataError: there is no exam or no such series, an id is invalid (`refuse_id`), an exam lacks
            a series, a label file has an unknown exam, an exam twice or an invalid label, or
            belongs to a finding that `findings.csv` lacks.

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
        soft_labels: bool = False,
        series: Iterable[str] | None = None,
    ) -> None:
        self.folder = self.root = folder = Path(folder)
        self.split: str | None = None
        labels_of = None if labels_of is None else Path(labels_of)
        given = None if axes is None else parse_axes(axes)
        self.axes = given or AXES
        self._given_axes = given
        self._axes_known = given == AXES  # given explicitly: not checked
        self.series = declared_series(folder)
        listing = list_stacks(folder, self.series)
        if not listing.files:
            raise DataError(
                "the folder contains no exams",
                code="no-exams",
                file=folder,
                expected="folders "
                + ", ".join(f"{name}/" for name in self.series.names)
                + " with .npy files",
                found=what_is_there(folder)
                if not series_folders(folder, self.series)
                else "none of these folders contains a .npy file",
                advice=folder_meant(folder, data_set=False),
            )
        self.files: Mapping[str, Mapping[str, Path]] = listing.files
        if series is not None:
            self.series = _choose_series(self.series, series, folder)
            names = self.series.names
            self.files = {
                exam_id: {name: file for name, file in files.items() if name in names}
                for exam_id, files in listing.files.items()
            }
        self.unread = listing.unread
        self.ids: tuple[str, ...] = tuple(self.files)
        for exam_id, those in listing.files.items():
            refuse_id(exam_id, next(iter(those.values())))
        self._refuse_missing_series(allow_some=allow_missing_plane)
        declared = None if labels_of is None else read_findings(labels_of.parent)
        found = {} if labels_of is None else label_files(labels_of)
        _refuse_undeclared(found, declared)
        if allow_missing_labels and findings is not None:
            self.findings: Findings | None = in_order(findings, declared)
        else:
            self.findings = _choose_findings(found, findings, declared, labels_of)
        groups = None if labels_of is None else read_groups(labels_of.parent)
        self.groups = None if groups is None else tuple(group_numbers(self.ids, groups))
        self.titles: Mapping[str, str] = {
            name: title for name in self.findings or () if (title := (declared or {}).get(name))
        }
        self.opened_with: dict[str, Any] = {}
        if findings is not None:
            self.opened_with["findings"] = list(self.findings or ())
        if series is not None:
            self.opened_with["series"] = list(self.series.names)
        if given is not None:
            self.opened_with["axes"] = ",".join(given)
        if allow_missing_plane:
            self.opened_with["allow_missing_plane"] = True
        if soft_labels:
            self.opened_with["soft_labels"] = True
        columns = [
            join_labels(self.ids, read_labels(found[name], soft=soft_labels), found[name], folder)
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
        soft_labels: bool = False,
        series: Iterable[str] | None = None,
    ) -> Dataset:
        """Opens one split of a data set with its labels: `root/split/` and `root/split-*.csv`."""
        root = Path(root)
        if not is_dir(root / split):
            raise DataError(
                f"the data set has no split named {split!r}",
                code="no-split",
                file=root,
                expected=f"a folder {split}/ that contains {', '.join(read_series(root).names)}",
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
            soft_labels=soft_labels,
            series=series,
        )
        exams.root, exams.split = root, split
        return exams

    def _refuse_missing_series(self, *, allow_some: bool) -> None:
        for exam_id in self.ids:
            missing = [name for name in self.series.names if name not in self.files[exam_id]]
            if missing and not (allow_some and self.files[exam_id]):
                lacking = sum(len(self.files[i]) < len(self.series) for i in self.ids)
                raise DataError(
                    f"an exam lacks the series {' and '.join(missing)}",
                    code="missing-plane",
                    file=self.folder / missing[0] / f"{exam_id}.npy",
                    exam=exam_id,
                    expected=("some of " if allow_some else "all of ")
                    + ", ".join(self.series.names),
                    found=(", ".join(self.files[exam_id]) or "none")
                    + f" ({lacking} of {len(self.ids)} exams lack a series)"
                    + (f"; {unread_text(self.unread)}" if self.unread else ""),
                    advice="add the file, or use more series"
                    if allow_some
                    else "add the file, or allow exams with fewer series (--allow-missing-plane)",
                )

    def __len__(self) -> int:
        return len(self.ids)

    def files_of(self, index: int) -> dict[str, Path]:
        """Returns the files of an exam's stacks: series -> file."""
        return dict(self.files[self.ids[index]])

    def __getitem__(self, exam: int | str) -> Exam:
        """Reads the exam at a position or with an id.

        Raises:
            DataError: there is no exam with that id, or its files can't be used.
            IndexError: the position is out of range.
        """
        self.refuse_other_axes()
        index = self.index(exam) if isinstance(exam, str) else exam
        exam_id = self.ids[index]
        labels = dict(zip(self.findings or (), self.labels[index].tolist(), strict=True))
        return read_exam(
            self.files[exam_id], exam_id, axes=self.axes, labels=labels, series=self.series
        )

    def index(self, exam_id: str) -> int:
        """Returns the position of the exam with an id.

        Raises:
            DataError: there is no exam with that id.
        """
        exam_id = same_text(exam_id)
        if exam_id not in self.files:
            differ = how_ids_differ(exam_id, self.ids)
            near = get_close_matches(exam_id, self.ids, n=3, cutoff=0.0)
            raise DataError(
                "there is no exam with this id",
                code="unknown-exam",
                file=self.folder,
                exam=exam_id,
                expected=f"one of {len(self)} ids, {self.ids[0]} to {self.ids[-1]}",
                found=differ or "nearest: " + ", ".join(near),
                advice="write the id exactly as in the file names: 0007 is not 7",
            )
        return self.ids.index(exam_id)

    def __repr__(self) -> str:
        findings = f", labels of {', '.join(self.findings)}" if self.findings else ""
        return f"Dataset({str(self.folder)!r}: {len(self)} exams{findings})"

    def shapes(self, index: int) -> dict[str, Shape]:
        """Reads the shapes of an exam's stacks from the file headers: series -> shape.

        Raises:
            DataError: a header can't be read.
        """
        exam_id = self.ids[index]
        return {
            name: shape_in_order(read_shape(file, exam_id), self.axes)
            for name, file in self.files[exam_id].items()
        }

    def refuse_other_axes(self) -> None:
        """Refuses the data set if the shapes of its stacks indicate another order of axes.

        All headers are read on the first call. Nothing is refused if `slices,rows,cols` was given.

        Raises:
            DataError: the shapes indicate another order, by the rules of `mrknee.exams.axes`.
        """
        if self._axes_known:
            return
        shapes: list[tuple[str, dict[str, Shape]]] = []
        for index, exam_id in enumerate(self.ids):
            with suppress(MrkneeError):  # reported when the exam is read
                shapes.append((exam_id, self.shapes(index)))
        refuse_exams_with_other_axes(shapes, file=self.folder, given=self._given_axes)
        self._axes_known = True

    def count_slices(self, index: int) -> int:
        """Counts an exam's slices over all series; only file headers are read."""
        return sum(slices for slices, _, _ in self.shapes(index).values())

    def series_of(self, index: int) -> tuple[str, ...]:
        """Returns the names of an exam's series; no file is read."""
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
    soft_labels: bool = False,
) -> Dataset:
    """Opens one split of a data set, with its labels if there are any.

    Args:
        path: the data set: `path/<split>/{axial,coronal,sagittal}/*.npy`, labels in
            `path/<split>-<finding>.csv`. Or a folder that contains the folders of series directly;
            no labels are read then.
        split: name of the split.
        findings: the findings whose labels to read; None reads all.
        labels: False doesn't read the label files, for example for prediction.
        allow_missing_plane: accept exams that lack series.
        axes: the order of axes in the files, such as `rows,cols,slices`; None expects
            `slices,rows,cols` and refuses stacks that seem to be in another order.
        soft_labels: accept any number from 0 to 1 as a label.

    Returns:
        The exams; each is read on access: `data[0]`, `data["1130"]`, `for exam in data`.
        `data.labels` is (exams, findings), `data.findings` their names.

    Raises:
        DataError: there is no such data set or split, an exam lacks a series, or a label file can't
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
    is_folder = bool(series_folders(path))
    if not is_folder and not series_folders(path / split):
        raise DataError(
            "the folder contains no exams",
            code="no-exams",
            file=path,
            expected=f"a data set with a folder {split}/, or the folders "
            + ", ".join(f"{name}/" for name in declared_series(path).names),
            found=what_is_there(path),
            advice=folder_meant(path, data_set=False, split=split),
        )
    if is_folder:
        exams = Dataset(path, findings=findings, allow_missing_plane=allow_missing_plane, axes=axes)
    elif labels:
        exams = Dataset.of_split(
            path,
            split,
            findings=findings,
            allow_missing_plane=allow_missing_plane,
            axes=axes,
            soft_labels=soft_labels,
        )
    else:
        exams = Dataset(path / split, allow_missing_plane=allow_missing_plane, axes=axes)
        exams.root, exams.split = path, split
    exams.refuse_other_axes()
    return exams


def split_of(data: Dataset | str | Path, split: str) -> tuple[Path, str]:
    """Returns the data set's folder and the split, which locate the label files.

    Args:
        data: the folder of a data set, or an opened `Dataset`. If the `Dataset` was opened from a
            folder of series directly, that folder is the split.
        split: the split if `data` is a folder.
    """
    if not isinstance(data, Dataset):
        return Path(data), split
    if data.split is None:
        folder = data.folder.absolute()
        return folder.parent, folder.name
    return data.root, data.split


def read_exam(
    files: Mapping[str, str | Path],
    exam_id: str,
    *,
    axes: Axes = AXES,
    labels: Mapping[str, float] | None = None,
    series: SeriesList = MRNET_SERIES,
) -> Exam:
    """Reads an exam from its files; clipped outliers become remarks.

    Args:
        files: series -> `.npy` file.
        exam_id: the exam's id.
        axes: the order of axes in the files.
        labels: finding -> label.
        series: the series that the exam may have.

    Raises:
        DataError: a file can't be used; see `read_stack`.
    """
    stacks: dict[str, Stack] = {}
    remarks: list[Remark] = []
    for name, file in by_series(files, series, exam=exam_id).items():
        outliers: list[str] = []
        stacks[name] = read_stack(file, exam_id, axes=axes, outliers=outliers)
        remarks += [Remark("outliers", name, text) for text in outliers]
    return Exam(exam_id, stacks, labels or {}, tuple(remarks), series)


def _choose_findings(
    found: Mapping[str, Path],
    wanted: Iterable[str] | None,
    declared: Mapping[str, str] | None,
    labels_of: Path | None,
) -> Findings | None:
    if wanted is None:
        return in_order(found, declared) if found else None
    names = in_order([name.strip().lower() for name in wanted], declared)
    for name in names:
        if name not in found:
            raise DataError(
                f"there are no labels for {name!r}",
                code="no-labels",
                file=None if labels_of is None else f"{labels_of}-{name}.csv",
                expected="a label file for each requested finding"
                if labels_of is not None
                else "the split of a data set, whose folder has label files",
                found=", ".join(in_order(found, declared)) if found else "no label file",
            )
    return names


def _choose_series(declared: SeriesList, wanted: Iterable[str], folder: Path) -> SeriesList:
    """Returns the wanted series in the declared order."""
    names = list(wanted)
    found = [declared.named(name) for name in names]
    known = [one.name for one in found if one is not None]
    if not names or len(known) < len(names) or len(set(known)) < len(known):
        raise DataError(
            "the data set doesn't have these series",
            code="series-name",
            file=folder,
            expected="some of " + ", ".join(declared.names) + ", each once",
            found=", ".join(map(repr, names)) or "none",
        )
    return declared.only(known)


def _refuse_undeclared(found: Mapping[str, Path], declared: Mapping[str, str] | None) -> None:
    """Refuses label files of findings that `findings.csv` lacks."""
    undeclared = [name for name in found if declared is not None and name not in declared]
    if undeclared:
        file = found[undeclared[0]]
        raise DataError(
            f"a label file belongs to a finding that {FINDINGS_FILE} doesn't declare",
            code="label-name",
            file=file,
            expected="one of " + ", ".join(declared or ()),
            found=", ".join(undeclared),
            advice=f"rename the file, or add the finding to {file.parent / FINDINGS_FILE}",
        )
