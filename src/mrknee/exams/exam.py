"""Plane, Findings, Exam: the nouns that travel through the whole package."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from os import PathLike
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from mrknee.errors import DataError, MrkneeError
from mrknee.exams.remark import Remark

Stack = UInt8[np.ndarray, "slices rows cols"]
"""The slices of one plane, 0 (black) to 255, one byte a pixel."""


class Plane(StrEnum):
    """The three planes of an exam, in the order used everywhere (the reference system's)."""

    AXIAL = "axial"
    CORONAL = "coronal"
    SAGITTAL = "sagittal"


PLANES = tuple(Plane)

SYNONYMS: Mapping[str, Plane] = MappingProxyType(
    {
        "ax": Plane.AXIAL,
        "tra": Plane.AXIAL,
        "transverse": Plane.AXIAL,
        "transversal": Plane.AXIAL,
        "cor": Plane.CORONAL,
        "sag": Plane.SAGITTAL,
    }
)
"""Other names of the planes that are accepted as keys, beside their own in any case."""


def plane_named(name: str) -> Plane | None:
    """The plane that a name means, in any case: `Sagittal`, `sag`, `tra`; None where it is none."""
    lower = str(name).strip().lower()
    return Plane(lower) if lower in PLANES else SYNONYMS.get(lower)


Value = TypeVar("Value")


def by_plane(
    values: Mapping[Plane, Value] | Mapping[str, Value], *, exam: str | None = None
) -> dict[Plane, Value]:
    """A mapping by plane, in the planes' order, whatever names its keys have.

    Args:
        values: plane, or a name that `plane_named` knows -> anything.
        exam: the exam's id, for the message.

    Raises:
        MrkneeError: a key is no plane's name, or two keys mean one plane.
    """
    found: dict[Plane, Value] = {}
    for name, value in values.items():
        plane = plane_named(name)
        if plane is None or plane in found:
            raise DataError(
                "a plane's name is not known" if plane is None else "a plane is named twice",
                code="plane-name",
                exam=exam,
                expected=f"{', '.join(PLANES)}, in any case, or {', '.join(SYNONYMS)}; each plane "
                "once",
                found=", ".join(map(repr, map(str, values))),
            )
        found[plane] = value
    return {plane: found[plane] for plane in PLANES if plane in found}


TAKEN = ("exam", "mean")
"""No finding's name: the column of ids in a table of predictions, and the mean over findings."""

MRNET_FINDINGS = ("abnormal", "acl", "meniscus")
"""MRNet's findings, in the order of its competition's output."""


class Findings(tuple[str, ...]):
    """Names of findings in their one order: abnormal, acl, meniscus first, then others by name.

    Raises:
        MrkneeError: no name at all, a name twice, one that is `TAKEN`, or a name with other
            characters than lower-case letters, digits, `_` and `-` (names become file names and
            CSV columns).
    """

    __slots__ = ()

    def __new__(cls, names: Iterable[str]) -> Findings:
        """Checks the names and puts them in order."""
        given = list(names)
        if not given:
            raise DataError(
                "no finding is named", code="no-findings", expected="at least one finding"
            )
        seen: set[str] = set()
        for name in given:
            if not (isinstance(name, str) and name) or not all(
                c.isascii() and (c.islower() or c.isdigit() or c in "_-") for c in name
            ):
                raise DataError(
                    "a finding's name can't be used",
                    code="label-name",
                    expected="lower-case letters, digits, _ and -",
                    found=repr(name),
                )
            if name in TAKEN:
                raise DataError(
                    "a finding can't have this name",
                    code="label-name",
                    expected="another: exam is the column of ids, mean the mean over findings",
                    found=repr(name),
                )
            if name in seen:
                raise DataError("a finding is named twice", code="finding-twice", found=repr(name))
            seen.add(name)
        return super().__new__(cls, sorted(given, key=_finding_order))


def _finding_order(name: str) -> tuple[int, str]:
    known = name in MRNET_FINDINGS
    return (MRNET_FINDINGS.index(name) if known else len(MRNET_FINDINGS), name)


@dataclass(frozen=True, init=False, repr=False)
class Exam:
    """One knee: a stack of slices for each plane that was acquired, and what is known of it.

    Attributes:
        id: the exam's name, unique in its data set.
        stacks: plane -> uint8 (slices, rows, cols), at least one plane, at least one slice and
            one pixel each. Planes may differ in size. May be read-only.
            When an exam is made, planes may be named in any case or by a synonym (`plane_named`).
        labels: finding -> 1.0 present, 0.0 absent, NaN not known; in the findings' order. When an
            exam is made, findings may be named in any case.
        remarks: what was odd about its files when they were read, for example outliers.

    Raises:
        MrkneeError: when made from anything else.
    """

    id: str
    stacks: Mapping[Plane, Stack]
    labels: Mapping[str, float]
    remarks: tuple[Remark, ...]

    def __init__(
        self,
        id: str,  # noqa: A002  # the field's name
        stacks: Mapping[Plane, Stack] | Mapping[str, Stack],
        labels: Mapping[str, float] = MappingProxyType({}),
        remarks: Sequence[Remark] = (),
    ) -> None:
        """Checks everything and puts planes and findings in order."""
        object.__setattr__(self, "id", id)
        object.__setattr__(self, "stacks", MappingProxyType(_checked_stacks(id, stacks)))
        object.__setattr__(self, "labels", MappingProxyType(_checked_labels(id, labels)))
        object.__setattr__(self, "remarks", tuple(remarks))

    @classmethod
    def from_arrays(
        cls,
        arrays: Mapping[str, np.ndarray],
        *,
        id: str = "exam",  # noqa: A002  # the field's name
        labels: Mapping[str, float] = MappingProxyType({}),
    ) -> Exam:
        """Makes an exam from arrays of any integer or floating type.

        uint8 is taken as it is. Whole numbers from 0 to 255 are kept; all else is scaled: the 0.5th
        percentile of a stack becomes 0, the 99.5th 255, linear in between, and what lies outside is
        clipped (`mrknee.exams.greyscale`).

        Args:
            arrays: plane (`axial`, `coronal`, `sagittal`, or a synonym) -> (slices, rows, cols).
            id: the exam's id.
            labels: finding -> 1 present, 0 absent, NaN not known.

        Returns:
            The exam; clipped outliers are in its remarks.

        Raises:
            DataError: an array has another number of axes or type, or holds NaN or infinite values.

        Example:
            >>> import numpy as np
            >>> from mrknee import Exam
            >>> knee = np.random.default_rng(0).normal(300, 50, (20, 256, 256))
            >>> Exam.from_arrays({"sagittal": knee}, id="1130", labels={"acl": 1})
            Exam('1130': sagittal 20 x 256 x 256; acl 1)
        """
        from mrknee.exams.greyscale import finite_to_bytes  # it imports this file

        stacks: dict[str, Stack] = {}
        remarks: list[Remark] = []
        for name, array in arrays.items():
            values = np.asarray(array)
            if values.ndim != 3 or 0 in values.shape or values.dtype.kind not in "uif":
                raise DataError(
                    f"the {name} stack can't be used",
                    code="stack",
                    exam=id,
                    expected="integers or floats (slices, rows, cols), none of them zero",
                    found=f"{values.dtype} {values.shape}",
                )
            if values.dtype == np.uint8:
                stacks[name] = values
                continue
            stacks[name], outliers = finite_to_bytes(values, None, id)
            if outliers:
                remarks.append(Remark("outliers", str(plane_named(name) or name), outliers))
        return cls(id, stacks, labels, remarks)

    @classmethod
    def from_dicom(
        cls,
        source: str | PathLike[str],
        *,
        id: str = "exam",  # noqa: A002  # the field's name
        allow_missing_plane: bool = False,
    ) -> Exam:
        """Reads the one study of a folder, an archive or a file, by the rules of `mrknee import`.

        One series per plane is chosen, framed to 256 x 256 pixels and scaled to bytes; nothing is
        written, and nothing of the patient is taken over.

        Args:
            source: a folder of any depth, a zip or tar, or a file; DICOM or NIfTI.
            id: the exam's id.
            allow_missing_plane: take a study that lacks one or two planes.

        Returns:
            The exam; what `mrknee import` would warn of is in its remarks.

        Raises:
            DataError: there is no image, more than one study, or the study can't be used.
        """
        from mrknee.sources.clinical.single import read_exam_of  # above this layer

        return read_exam_of(Path(source), id, allow_missing_plane=allow_missing_plane)

    from_nifti = from_dicom

    def plot(self, plane: str | None = None, slices: int | Sequence[int] = 4) -> np.ndarray:
        """Draws some slices of each plane, one row per plane.

        Slices count from 0, as in the arrays.

        Args:
            plane: this plane only; None draws all.
            slices: how many per plane, evenly spaced and without the ends; or their positions.

        Returns:
            matplotlib axes (planes, slices); where a plane has fewer slices, the rest is empty.

        Raises:
            DataError: the exam has no such plane or slice.
            PlatformError: matplotlib is not installed.

        Example:
            >>> import mrknee
            >>> exam = mrknee.make_phantom(seed=7, size=64, slice_factor=0.2)
            >>> exam.plot(slices=3).shape
            (3, 3)
        """
        from mrknee.exams.plot import plot_exam  # it imports this file

        return plot_exam(self, plane, slices)

    def __repr__(self) -> str:
        sizes = [
            f"{plane} {' x '.join(map(str, stack.shape))}" for plane, stack in self.stacks.items()
        ]
        known = [f"{name} {label:g}" for name, label in self.labels.items()]
        return f"Exam({self.id!r}: {', '.join(sizes)}{'; ' * bool(known)}{', '.join(known)})"


def _checked_stacks(
    exam_id: str, given: Mapping[Plane, Stack] | Mapping[str, Stack]
) -> dict[Plane, np.ndarray]:
    if not given:
        raise DataError(
            "an exam has no plane",
            code="missing-plane",
            exam=exam_id,
            expected="at least one of " + ", ".join(PLANES),
        )
    stacks = by_plane(given, exam=exam_id)
    for plane, stack in stacks.items():
        array = isinstance(stack, np.ndarray)
        if not array or stack.dtype != np.uint8 or stack.ndim != 3 or 0 in stack.shape:
            raise DataError(
                f"the {plane} stack can't be used",
                code="stack",
                exam=exam_id,
                expected="uint8 (slices, rows, cols), none of them zero",
                found=f"{stack.dtype} {stack.shape}" if array else type(stack).__name__,
            )
    return stacks


def _checked_labels(exam_id: str, given: Mapping[str, float]) -> dict[str, float]:
    labels = {name.strip().lower(): label for name, label in given.items()}
    if len(labels) < len(given):
        raise DataError(
            "a finding is named twice",
            code="finding-twice",
            exam=exam_id,
            expected="each finding once; upper and lower case are the same",
            found=", ".join(map(repr, given)),
        )
    for finding, label in labels.items():
        if label not in (0.0, 1.0) and not np.isnan(label):
            raise DataError(
                f"the label of {finding} can't be used",
                code="label-value",
                exam=exam_id,
                expected="0, 1 or NaN (not known)",
                found=repr(label),
            )
    return {name: labels[name] for name in Findings(labels)} if labels else {}


@runtime_checkable
class Exams(Protocol):
    """Any row of exams: a list, a folder, a list of paths."""

    def __len__(self) -> int:
        """How many exams."""

    def __getitem__(self, index: int, /) -> Exam:
        """The exam at this position, read when it is asked for."""


def as_exams(exams: object) -> Exams:
    """A row of exams, from a row, a single exam, or anything that gives exams one by one.

    Raises:
        MrkneeError: it is something else, such as a path or a mapping of stacks, or there are none.
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
        "these are no exams",
        code="not-exams",
        expected="an Exam, a list of exams, or a Dataset",
        found=type(found).__name__,
        advice="open a folder with Dataset(folder), make an exam with Exam(id, stacks)",
    )


def refuse_no_exam(exam: object) -> None:
    """Refuses what is given in an exam's place.

    Raises:
        MrkneeError: it is no exam.
    """
    if not isinstance(exam, Exam):
        raise DataError(
            "this is no exam",
            code="not-an-exam",
            expected="an Exam",
            found=type(exam).__name__,
            advice="take one of a folder's, Dataset(folder)[0], or make one: Exam(id, stacks)",
        )
