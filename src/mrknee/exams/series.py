"""Series of an exam: name, plane and contrast.

MRNet has one series per plane, named after the plane. Other data sets declare theirs in
`series.csv`:

    name,plane,weighting,fat_suppressed
    sag_pd_fs,sagittal,PD,1
    cor_t1,coronal,T1,0
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeVar, get_args

from mrknee.errors import DataError
from mrknee.exams.declaration import read_declaration
from mrknee.files import is_file, write_csv

Weighting = Literal["T1", "PD", "T2", "GRE"]
"""The contrast of a series: T1-, proton-density- or T2-weighted, or a gradient echo."""

WEIGHTINGS: tuple[str, ...] = get_args(Weighting)

SERIES_FILE = "series.csv"
COLUMNS = ("name", "plane", "weighting", "fat_suppressed")

MOST_SERIES = 32
"""Maximum number of series that a data set may declare; knee studies have 3 to 14."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}", re.ASCII)

_RESERVED = frozenset(
    [
        "add_module",
        "apply",
        "bfloat16",
        "buffers",
        "call_super_init",
        "children",
        "clear",
        "compile",
        "cpu",
        "cuda",
        "double",
        "dump_patches",
        "eval",
        "extra_repr",
        "float",
        "forward",
        "get_buffer",
        "get_extra_state",
        "get_parameter",
        "get_submodule",
        "half",
        "ipu",
        "items",
        "keys",
        "load_state_dict",
        "logits",
        "modules",
        "mtia",
        "named_buffers",
        "named_children",
        "named_modules",
        "named_parameters",
        "parameters",
        "pop",
        "present",
        "probabilities",
        "register_backward_hook",
        "register_buffer",
        "register_forward_hook",
        "register_forward_pre_hook",
        "register_full_backward_hook",
        "register_full_backward_pre_hook",
        "register_load_state_dict_post_hook",
        "register_load_state_dict_pre_hook",
        "register_module",
        "register_parameter",
        "register_state_dict_post_hook",
        "register_state_dict_pre_hook",
        "requires_grad_",
        "set_extra_state",
        "set_submodule",
        "share_memory",
        "shared",
        "state_dict",
        "test",
        "to",
        "to_empty",
        "train",
        "training",
        "type",
        "update",
        "valid",
        "values",
        "xpu",
        "zero_grad",
    ]
)
"""Names that a series can't have: other inputs and outputs of a model, folders of splits, and
attributes of `torch.nn.ModuleDict`, which holds one module per series."""

_MAX_BYTES = 100_000


class Plane(StrEnum):
    """The three anatomical planes, in the order of the published system."""

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
"""Accepted synonyms of the planes; case is ignored."""


def plane_named(name: str) -> Plane | None:
    """Returns the plane with a name or synonym in any case (`Sagittal`, `sag`, `tra`), or None."""
    lower = str(name).strip().lower()
    return Plane(lower) if lower in PLANES else SYNONYMS.get(lower)


@dataclass(frozen=True, init=False)
class Series:
    """One series that an exam may have.

    Attributes:
        name: name of the series, of its folder, and key in `Exam.stacks`. Lower-case letters,
            digits and `_`, starting with a letter, at most 40 characters.
        plane: plane of the slices.
        weighting: contrast, or None if not stated.
        fat_suppressed: whether fat is suppressed, or None if not stated.

    Raises:
        DataError: the name is invalid or names another plane, or plane or weighting is unknown.

    Example:
        >>> from mrknee import Series
        >>> Series("sag", "sagittal", "PD").plane
        <Plane.SAGITTAL: 'sagittal'>
    """

    name: str
    plane: Plane
    weighting: Weighting | None
    fat_suppressed: bool | None

    def __init__(
        self,
        name: str,
        plane: str,
        weighting: str | None = None,
        fat_suppressed: bool | None = None,
    ) -> None:
        """Validates all arguments, because they also come from files."""
        if not _NAME.fullmatch(name) or name in _RESERVED:
            raise DataError(
                "the name of a series is invalid",
                code="series",
                expected="lower-case letters, digits and _, starting with a letter, at most 40 "
                "characters"
                if name not in _RESERVED
                else f"another name, such as {name}_1",
                found=repr(name),
            )
        known, by_name = plane_named(plane), plane_named(name)
        if known is None:
            raise DataError(
                f"the plane of the series {name} is unknown",
                code="series",
                expected=", ".join(PLANES),
                found=repr(plane),
            )
        if by_name not in (None, known):
            raise DataError(
                f"the series {name} is named after another plane",
                code="series",
                expected=f"the plane {by_name}, or another name",
                found=repr(plane),
            )
        if weighting is not None and weighting not in WEIGHTINGS:
            raise DataError(
                f"the weighting of the series {name} is unknown",
                code="series",
                expected=", ".join(WEIGHTINGS) + ", or None",
                found=repr(weighting),
            )
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "plane", known)
        object.__setattr__(self, "weighting", weighting)
        object.__setattr__(self, "fat_suppressed", fat_suppressed)


class SeriesList(tuple[Series, ...]):
    """The series that exams of a data set may have, in order.

    Args:
        series: the series; at least one.

    Raises:
        DataError: there are no series, more than `MOST_SERIES`, or two with the same name.
    """

    __slots__ = ()

    def __new__(cls, series: Iterable[Series]) -> SeriesList:
        """Checks the number of series and that names are unique."""
        given = tuple(series)
        names = [one.name for one in given]
        if not given or len(given) > MOST_SERIES or len(set(names)) < len(names):
            raise DataError(
                "the list of series is invalid",
                code="series",
                expected=f"1 to {MOST_SERIES} series, each name once",
                found=", ".join(names[: MOST_SERIES + 1]) or "none",
            )
        return super().__new__(cls, given)

    @property
    def names(self) -> tuple[str, ...]:
        """The series' names, in order."""
        return tuple(one.name for one in self)

    @property
    def planes(self) -> Mapping[str, Plane]:
        """Name -> plane."""
        return {one.name: one.plane for one in self}

    def named(self, name: str) -> Series | None:
        """Returns the series with a name, or None.

        Case is ignored. For a series named after a plane, synonyms of the plane are accepted too:
        `Sagittal`, `sag`.
        """
        lower = str(name).strip().lower()
        known = {one.name: one for one in self}
        return known.get(lower) or known.get(str(plane_named(lower)))

    def find(self, name: str, present: Collection[str], *, what: str, exam: str) -> str:
        """Returns the declared name of a present series.

        Args:
            name: as for `named`.
            present: names of the present series.
            what: first line of the error message.
            exam: the exam's id, for the message.

        Raises:
            DataError: no present series has this name.
        """
        one = self.named(name)
        if one is None or one.name not in present:
            raise DataError(
                what,
                code="series-name",
                exam=exam,
                expected=", ".join(present),
                found=repr(str(name)),
            )
        return one.name

    def only(self, names: Iterable[str]) -> SeriesList:
        """Returns the series with the given names, in the order of this list."""
        wanted = set(names)
        return SeriesList(one for one in self if one.name in wanted)

    def to_dicts(self) -> list[dict[str, Any]]:
        """Converts the series to dictionaries for JSON."""
        return [{**asdict(one), "plane": str(one.plane)} for one in self]

    @classmethod
    def from_dicts(cls, content: Sequence[Mapping[str, Any]]) -> SeriesList:
        """Creates the list from the result of `to_dicts`."""
        return cls(Series(**one) for one in content)

    def __repr__(self) -> str:
        return f"SeriesList({', '.join(self.names)})"


MRNET_SERIES = SeriesList(Series(str(plane), plane) for plane in PLANES)
"""MRNet's series: axial, coronal, sagittal."""

USUAL_SERIES = SeriesList(
    [
        Series("sagittal_fs", "sagittal", fat_suppressed=True),
        Series("coronal_fs", "coronal", fat_suppressed=True),
        Series("axial_fs", "axial", fat_suppressed=True),
        Series("sagittal_nofs", "sagittal", fat_suppressed=False),
        Series("coronal_t1", "coronal", "T1", False),
        Series("sagittal_t1", "sagittal", "T1", False),
    ]
)
"""Series of most knee examinations. Of 4,407 examinations of several hospitals (RSNA's data set of
2026), 94 to 100 % have each of the first three (each plane with fat suppression), 97 % a sagittal
and 77 % a coronal series without; most of the coronal ones are T1-weighted."""

Value = TypeVar("Value")


def by_series(
    values: Mapping[str, Value] | Mapping[Plane, Value],
    series: SeriesList = MRNET_SERIES,
    *,
    exam: str | None = None,
) -> dict[str, Value]:
    """Replaces the keys of a mapping by the declared names of series, in declared order.

    Args:
        values: name accepted by `SeriesList.named` -> any value.
        series: the permitted series.
        exam: the exam's id, for the message.

    Raises:
        DataError: a key doesn't name a series, or two keys name the same series.
    """
    found: dict[str, Value] = {}
    for name, value in values.items():
        one = series.named(name)
        if one is None or one.name in found:
            synonyms = any(s.name in PLANES for s in series)
            raise DataError(
                "the name of a series is unknown" if one is None else "a series is named twice",
                code="series-name",
                exam=exam,
                expected=", ".join(series.names)
                + ", in any case"
                + (f", or {', '.join(SYNONYMS)}" if synonyms else "")
                + "; each series once",
                found=", ".join(map(repr, map(str, values))),
                advice=None if one is not None else "declare other series in series.csv",
            )
        found[one.name] = value
    return {name: found[name] for name in series.names if name in found}


def read_series(folder: str | Path) -> SeriesList:
    """Reads the series that a data set declares in `series.csv`; MRNet's without this file.

    Args:
        folder: the folder that may contain `series.csv`.

    Raises:
        DataError: the file is not a valid table of series.
    """
    file = Path(folder) / SERIES_FILE
    return read_series_file(file) if is_file(file) else MRNET_SERIES


def read_series_file(file: str | Path) -> SeriesList:
    """Reads the series that a file of any name declares.

    Args:
        file: a CSV file with the columns name, plane and, optionally, weighting, fat_suppressed.

    Raises:
        DataError: the file is missing, or is not a valid table of series.
    """
    file = Path(file)
    found: list[Series] = []
    for where, row in read_declaration(file, COLUMNS, COLUMNS[:2], at_most=_MAX_BYTES):
        fat = row["fat_suppressed"].lower()
        if fat not in _FAT:
            raise DataError(
                "the column fat_suppressed has an invalid value",
                code="series",
                file=file,
                expected="1, 0 or nothing (not stated)",
                found=where,
            )
        weighting = row["weighting"].upper() or None
        try:
            found.append(Series(row["name"].lower(), row["plane"], weighting, _FAT[fat]))
        except DataError as error:
            raise DataError(
                error.what,
                code="series",
                file=file,
                expected=error.expected,
                found=f"{error.found} in {where}",
            ) from None
    try:
        return SeriesList(found)
    except DataError as error:
        raise DataError(
            error.what, code="series", file=file, expected=error.expected, found=error.found
        ) from None


_FAT: Mapping[str, Any] = {"": None, "1": True, "0": False, "true": True, "false": False}


def write_series(folder: str | Path, series: SeriesList) -> Path:
    """Writes `series.csv` into a data set's folder atomically; returns the file."""
    file = Path(folder) / SERIES_FILE
    fat = {None: "", True: "1", False: "0"}
    rows = [(one.name, one.plane, one.weighting or "", fat[one.fat_suppressed]) for one in series]
    write_csv(file, [COLUMNS, *rows])
    return file
