"""Exam: the images and labels of one knee; Exams: any sequence of exams."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from mrknee.errors import DataError, MrkneeError
from mrknee.exams.findings import Findings
from mrknee.exams.remark import Remark
from mrknee.exams.series import MRNET_SERIES, Plane, SeriesList, by_series

Stack = UInt8[np.ndarray, "slices rows cols"]
"""The slices of one series, 0 (black) to 255, one byte per pixel."""


@dataclass(frozen=True, init=False, repr=False)
class Exam:
    """The MRI exam of one knee: one stack of slices per acquired series, and labels.

    An exam is validated on creation and immutable.

    Attributes:
        id: the exam's id, unique in its data set.
        stacks: series -> uint8 (slices, rows, cols); at least one series, every axis at least 1.
            Series may differ in size. Arrays may be read-only.
            On creation, names of series are accepted in any case, and for series named after a
            plane also a synonym of the plane (`SeriesList.named`).
        labels: finding -> 1.0 present, 0.0 absent, in between for a soft label, NaN unknown; in
            the given order. On creation, names of findings are accepted in any case.
        remarks: peculiarities found while reading the exam's files, for example outliers.
        series: the series that the exam may have; MRNet's three by default.

    Raises:
        DataError: a stack, a label or a name is invalid.
    """

    id: str
    stacks: Mapping[str, Stack]
    labels: Mapping[str, float]
    remarks: tuple[Remark, ...]
    series: SeriesList

    def __init__(
        self,
        id: str,  # noqa: A002  # the field's name
        stacks: Mapping[str, Stack] | Mapping[Plane, Stack],
        labels: Mapping[str, float] = MappingProxyType({}),
        remarks: Sequence[Remark] = (),
        series: SeriesList = MRNET_SERIES,
    ) -> None:
        """Validates all arguments and sorts the series into their declared order."""
        if not isinstance(id, str):
            raise DataError(
                "an exam's id isn't text", code="exam-id", expected="text", found=repr(id)
            )
        object.__setattr__(self, "id", id)
        object.__setattr__(self, "series", series)
        object.__setattr__(self, "stacks", MappingProxyType(_checked_stacks(id, stacks, series)))
        object.__setattr__(self, "labels", MappingProxyType(_checked_labels(id, labels)))
        object.__setattr__(self, "remarks", tuple(remarks))

    @classmethod
    def from_arrays(
        cls,
        arrays: Mapping[str, np.ndarray],
        *,
        id: str = "exam",  # noqa: A002  # the field's name
        labels: Mapping[str, float] = MappingProxyType({}),
        series: SeriesList = MRNET_SERIES,
    ) -> Exam:
        """Creates an exam from arrays of any integer or floating type.

        uint8 arrays are used unchanged. Integral values from 0 to 255 are kept; anything else is
        scaled linearly from the 0.5th percentile (0) to the 99.5th percentile (255) of each stack,
        and values outside are clipped (`mrknee.exams.greyscale`).

        Args:
            arrays: series (`axial`, `coronal`, `sagittal`, or a synonym) -> (slices, rows, cols).
            id: the exam's id.
            labels: finding -> 1 present, 0 absent, in between for a soft label, NaN unknown.
            series: the series that the exam may have, if they differ from MRNet's.

        Returns:
            The exam; clipped outliers are listed in its remarks.

        Raises:
            DataError: an array is not three-dimensional or not numeric, or holds NaN or infinite
                values.

        Example:
            >>> import numpy as np
            >>> from mrknee import Exam
            >>> knee = np.random.default_rng(0).normal(300, 50, (20, 256, 256))
            >>> Exam.from_arrays({"sagittal": knee}, id="1130", labels={"acl": 1})
            Exam('1130': sagittal 20 x 256 x 256; acl 1)
        """
        from mrknee.exams.greyscale import finite_to_bytes  # circular import

        stacks: dict[str, Stack] = {}
        remarks: list[Remark] = []
        for name, array in arrays.items():
            values = np.asarray(array)
            if values.ndim != 3 or 0 in values.shape or values.dtype.kind not in "uif":
                raise DataError(
                    f"the {name} stack can't be used",
                    code="stack",
                    exam=id,
                    expected="integers or floats of shape (slices, rows, cols), no axis empty",
                    found=f"{values.dtype} {values.shape}",
                )
            if values.dtype == np.uint8:
                stacks[name] = values
                continue
            stacks[name], outliers = finite_to_bytes(values, None, id)
            if outliers:
                one = series.named(name)
                remarks.append(Remark("outliers", one.name if one else name, outliers))
        return cls(id, stacks, labels, remarks, series)

    @classmethod
    def from_dicom(
        cls,
        source: str | PathLike[str],
        *,
        id: str = "exam",  # noqa: A002  # the field's name
        allow_missing_plane: bool = False,
        series: SeriesList = MRNET_SERIES,
        size: int = 256,
        crop_mm: float | None = None,
        sides: Literal["as-imaged", "left"] = "as-imaged",
    ) -> Exam:
        """Reads the only study in a folder, an archive or a file, by the rules of `mrknee import`.

        For each declared series, the best matching series of the study is chosen, framed and
        converted to uint8. Nothing is written, and no patient data is kept.

        Args:
            source: a folder of any depth, a zip or tar archive, or a file; DICOM or NIfTI.
            id: the exam's id.
            allow_missing_plane: accept a study that lacks series; at least one must be present.
            series: the series to choose, if they differ from MRNet's.
            size: rows and columns of a slice.
            crop_mm: width of the square window around the joint, mm; None uses the width of the
                field, at most 180 mm.
            sides: "left" mirrors a right knee, so that it looks like a left one.

        Returns:
            The exam; the warnings that `mrknee import` would print, and what it would report as
            incomplete or unreadable, are its remarks.

        Raises:
            DataError: the source holds no image or more than one study, or the study can't be used.
        """
        from mrknee.sources.clinical.single import read_exam_of  # a higher layer

        return read_exam_of(
            Path(source),
            id,
            allow_missing_plane=allow_missing_plane,
            series=series,
            size=size,
            crop_mm=crop_mm,
            sides=sides,
        )

    from_nifti = from_dicom

    def plot(self, series: str | None = None, slices: int | Sequence[int] = 4) -> np.ndarray:
        """Plots some slices of each series, one row per series.

        Args:
            series: the only series to plot; None plots all.
            slices: number of slices per series, evenly spaced and excluding both ends; or their
                indices, from 0.

        Returns:
            matplotlib axes (series, slices); if a series has fewer slices, the rest are empty.

        Raises:
            DataError: the exam has no such series or slice.
            PlatformError: matplotlib is not installed.

        Example:
            >>> import mrknee
            >>> exam = mrknee.make_phantom(seed=7, size=64, slice_factor=0.2)
            >>> exam.plot(slices=3).shape
            (3, 3)
        """
        from mrknee.exams.plot import plot_exam  # circular import

        return plot_exam(self, series, slices)

    def __repr__(self) -> str:
        sizes = [
            f"{name} {' x '.join(map(str, stack.shape))}" for name, stack in self.stacks.items()
        ]
        known = [f"{name} {label:g}" for name, label in self.labels.items()]
        return f"Exam({self.id!r}: {', '.join(sizes)}{'; ' * bool(known)}{', '.join(known)})"


def _checked_stacks(
    exam_id: str, given: Mapping[str, Stack] | Mapping[Plane, Stack], series: SeriesList
) -> dict[str, np.ndarray]:
    if not given:
        raise DataError(
            "an exam has no series",
            code="missing-plane",
            exam=exam_id,
            expected="at least one of " + ", ".join(series.names),
        )
    stacks = by_series(given, series, exam=exam_id)
    for name, stack in stacks.items():
        array = isinstance(stack, np.ndarray)
        if not array or stack.dtype != np.uint8 or stack.ndim != 3 or 0 in stack.shape:
            raise DataError(
                f"the {name} stack can't be used",
                code="stack",
                exam=exam_id,
                expected="uint8 of shape (slices, rows, cols), no axis empty",
                found=f"{stack.dtype} {stack.shape}" if array else type(stack).__name__,
            )
    return stacks


def _checked_labels(exam_id: str, given: Mapping[str, float]) -> dict[str, float]:
    labels = {str(name).strip().lower(): label for name, label in given.items()}
    if len(labels) < len(given):
        raise DataError(
            "a finding is named twice",
            code="finding-twice",
            exam=exam_id,
            expected="each finding once; case is ignored",
            found=", ".join(map(repr, given)),
        )
    for finding, label in labels.items():
        try:
            valid = math.isnan(label) or 0 <= label <= 1
        except TypeError:  # such as text
            valid = False
        if not valid:
            raise DataError(
                f"the label of {finding} can't be used",
                code="label-value",
                exam=exam_id,
                expected="0, 1, a number between them, or NaN (unknown)",
                found=repr(label),
            )
    return {name: labels[name] for name in Findings(labels)} if labels else {}


@runtime_checkable
class Exams(Protocol):
    """Any sequence of exams: a list, a data set, a list of paths."""

    def __len__(self) -> int:
        """Returns the number of exams."""

    def __getitem__(self, index: int, /) -> Exam:
        """Returns the exam at a position; it is read on access."""


def as_exams(exams: object) -> Exams:
    """Returns a sequence of exams from a sequence, an iterator or a single exam.

    Raises:
        DataError: the argument is something else, such as a path or a mapping of stacks, or empty.
    """
    if isinstance(exams, Exam):
        return [exams]
    if isinstance(exams, (str, bytes, PurePath, Mapping, np.ndarray)):
        raise _no_exams(exams)
    row = list(exams) if isinstance(exams, Iterator) else exams
    if not isinstance(row, Exams):
        raise _no_exams(exams)
    if not len(row):
        raise DataError("there are no exams to read", code="no-exams", expected="one exam or more")
    if isinstance(row, (list, tuple)):
        for exam in row:
            refuse_no_exam(exam)
    return row


def _no_exams(found: object) -> MrkneeError:
    return DataError(
        "the argument is not a sequence of exams",
        code="not-exams",
        expected="an Exam, a list of exams, or a Dataset",
        found=type(found).__name__,
        advice="open a folder with Dataset(folder), or create an exam with Exam(id, stacks)",
    )


def refuse_no_exam(exam: object) -> None:
    """Refuses anything that is not an `Exam`.

    Raises:
        DataError: the argument is not an `Exam`.
    """
    if not isinstance(exam, Exam):
        raise DataError(
            "the argument is not an exam",
            code="not-an-exam",
            expected="an Exam",
            found=type(exam).__name__,
            advice="read one with Dataset(folder)[0], or create one with Exam(id, stacks)",
        )
