"""Tables of RSNA's data set of 2026, and label tables that others made from its reports.

    train.csv              StudyInstanceUID, Report, the findings: 1, 0, or nothing in all of them
    test.csv               StudyInstanceUID
    {train,test}_series.csv  StudyInstanceUID, SeriesInstanceUID, Fluid_Sensitive, Fat_Suppression,
                           Anatomical_Plane

Reports are read for three things only: which studies share a report, which side it names, and
whether there is one. Their text is written nowhere and appears in no message.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from mrknee.errors import DataError, MrkneeError
from mrknee.exams import RSNA_2026_FINDINGS, Plane, plane_named
from mrknee.exams.ids import refuse_id
from mrknee.sources.clinical.anatomy import Side, described_sides
from mrknee.untrusted import read_text

STUDY, SERIES = "StudyInstanceUID", "SeriesInstanceUID"

STUDY_COLUMNS = ("studyinstanceuid", "studyuid", "studyid", "study", "exam", "examid", "uid", "id")
"""Spellings of a label table's column of ids, in letters and digits."""

SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "acl": ("anteriorcruciateligament", "acltear", "aclinjury", "anteriorcruciateligamenttear"),
    "mcl": ("medialcollateralligament", "mcltear", "mclinjury", "medialcollateralligamenttear"),
    "medial_meniscus": ("medialmeniscustear", "medialmeniscaltear", "medmeniscus", "medmen"),
    "lateral_meniscus": ("lateralmeniscustear", "lateralmeniscaltear", "latmeniscus", "latmen"),
    "medial_oa": ("medialosteoarthritis", "medialcompartmentoa", "medoa"),
    "lateral_oa": ("lateralosteoarthritis", "lateralcompartmentoa", "latoa"),
    "pf_oa": ("patellofemoraloa", "patellofemoralosteoarthritis", "patellofemoral"),
    "effusion": ("jointeffusion",),
    "synovitis": (),
    "bakers": ("baker", "bakerscyst", "bakercyst", "poplitealcyst"),
    "contusion": ("bonecontusion", "bonebruise", "bonemarrowcontusion"),
    "fracture": (),
}
"""Spellings of the findings in letters and digits, besides names and titles."""

SIMILAR = 0.8
"""Minimum similarity (difflib's ratio) of an unknown column to a finding that a label table lacks,
to be taken for it."""

_MAX_BYTES = 1_000_000_000
"""Maximum size of a table; train.csv with 4,407 reports has some 10 MB."""

_NOTHING = ("", "nan", "na", "none", "null")


@dataclass(frozen=True)
class TrainStudy:
    """A line of `train.csv`.

    Attributes:
        labels: finding -> 1, 0, or NaN; empty for a study without experts' labels.
        report: digest of the report, equal for equal reports; None without a report.
        side: side of the knee that the report names; None for none or both.
    """

    labels: Mapping[str, float]
    report: str | None
    side: Side | None


@dataclass(frozen=True)
class SeriesRow:
    """A line of `train_series.csv` or `test_series.csv`; None for what it doesn't state."""

    plane: Plane | None
    fat_suppressed: bool | None


@dataclass(frozen=True)
class LabelTable:
    """A table of labels.

    Attributes:
        labels: finding -> study -> probability, without unknown ones.
        studies: all studies of the table.
        unused: its columns that aren't findings.
    """

    labels: Mapping[str, Mapping[str, float]]
    studies: tuple[str, ...]
    unused: tuple[str, ...]


def read_train(file: Path) -> dict[str, TrainStudy]:
    """Reads `train.csv`: study -> its line.

    Columns that the description of the data set lists and the file lacks, or the reverse, don't
    matter, except for the id and the findings.

    Raises:
        DataError: the file can't be read, lacks a column, repeats a study, or has an invalid label.
    """
    columns, rows = _read(file, [STUDY])
    findings = _finding_columns(columns)
    missing = [title for name, title in RSNA_2026_FINDINGS.items() if name not in findings]
    if missing:
        raise _unusable(file, f"the columns {', '.join(RSNA_2026_FINDINGS.values())}", missing[0])
    report = {_letters(name): name for name in columns}.get("report")
    studies: dict[str, TrainStudy] = {}
    for where, row in rows:
        uid = _study(row[STUDY], studies, file, where)
        labels = {name: _label(row[column], file, where) for name, column in findings.items()}
        if any(label not in (0.0, 1.0) and not math.isnan(label) for label in labels.values()):
            raise _unusable(file, "experts' labels of 0, 1 or nothing", where)
        known = any(not math.isnan(label) for label in labels.values())
        text = " ".join(row[report].split()) if report else ""
        sides = described_sides([text])
        studies[uid] = TrainStudy(
            labels if known else {},
            sha256(text.casefold().encode()).hexdigest() if text else None,
            next(iter(sides)) if len(sides) == 1 else None,
        )
    return studies


def read_test(file: Path) -> list[str]:
    """Reads the studies of `test.csv`, in its order.

    Raises:
        DataError: the file can't be read, lacks the column of ids, or repeats a study.
    """
    studies: dict[str, None] = {}
    for where, row in _read(file, [STUDY])[1]:
        studies[_study(row[STUDY], studies, file, where)] = None
    return list(studies)


def read_series_table(file: Path) -> dict[str, dict[str, SeriesRow]]:
    """Reads `train_series.csv` or `test_series.csv`: study -> series -> its line.

    The UIDs of series are in upper case, as in headers that were read.

    Raises:
        DataError: the file can't be read, or lacks a column.
    """
    columns, rows = _read(file, [STUDY, SERIES])
    by_letters = {_letters(name): name for name in columns}
    plane, fat = by_letters.get("anatomicalplane"), by_letters.get("fatsuppression")
    found: dict[str, dict[str, SeriesRow]] = {}
    for _, row in rows:
        suppressed = _FLAGS.get(row[fat].lower()) if fat else None
        stated = plane_named(row[plane]) if plane else None
        study = found.setdefault(row[STUDY], {})
        study[row[SERIES].upper()] = SeriesRow(stated, suppressed)
    return found


_FLAGS = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}


def read_label_table(file: Path) -> LabelTable:
    """Reads a CSV file with a column of study ids and columns of any of the findings.

    Columns are recognised in any case and with any spaces, `_`, `-` or apostrophes: `Baker's`,
    `bakers_cyst`, `PF OA`. Labels are probabilities from 0 to 1; empty is unknown.

    Raises:
        DataError: the file can't be read, has no column of ids or of a finding, a column whose name
            resembles a missing finding's, two columns for one finding, a study twice, or an invalid
            label.
    """
    columns, rows = _read(file, [])
    key = next((c for name in STUDY_COLUMNS for c in columns if _letters(c) == name), None)
    findings = _finding_columns(columns)
    if key is None or not findings:
        raise _unusable(
            file, f"a column {STUDY} and columns of findings, such as ACL", _recognised(columns)
        )
    unused = [column for column in columns if column not in (key, *findings.values())]
    _refuse_twins(file, unused, findings)
    labels: dict[str, dict[str, float]] = {name: {} for name in findings}
    studies: dict[str, None] = {}
    for where, row in rows:
        uid = _study(row[key], studies, file, where)
        studies[uid] = None
        for name, column in findings.items():
            label = _label(row[column], file, where)
            if not math.isnan(label):
                labels[name][uid] = label
    return LabelTable(labels, tuple(studies), tuple(unused))


def average(tables: Iterable[LabelTable]) -> dict[str, dict[str, float]]:
    """Returns the mean of the known probabilities per finding and study.

    A finding or study that a table lacks doesn't change the mean of the others.
    """
    every: dict[str, dict[str, list[float]]] = {name: {} for name in RSNA_2026_FINDINGS}
    for table in tables:
        for name, labels in table.labels.items():
            for study, label in labels.items():
                every[name].setdefault(study, []).append(label)
    return {
        name: {study: math.fsum(values) / len(values) for study, values in studies.items()}
        for name, studies in every.items()
    }


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _finding_columns(columns: Iterable[str]) -> dict[str, str]:
    """Returns finding -> column, in the order of the findings; the first of several columns."""
    spelt = {_letters(title): name for name, title in RSNA_2026_FINDINGS.items()}
    spelt |= {_letters(name): name for name in RSNA_2026_FINDINGS}
    spelt |= {spelling: name for name, spellings in SPELLINGS.items() for spelling in spellings}
    found: dict[str, str] = {}
    for column in columns:
        name = spelt.get(_letters(column))
        if name is not None:
            found.setdefault(name, column)
    return {name: found[name] for name in RSNA_2026_FINDINGS if name in found}


def _refuse_twins(file: Path, unused: Iterable[str], findings: Mapping[str, str]) -> None:
    """Refuses a second column of a finding, and a column like a finding that the table lacks."""
    from difflib import get_close_matches

    lacking = {_letters(n): t for n, t in RSNA_2026_FINDINGS.items() if n not in findings}
    for column in unused:
        again = _finding_columns([column])
        if again:
            first = findings[next(iter(again))]
            raise _unusable(file, "one column per finding", f"{first!r} and {column!r}")
        near = get_close_matches(_letters(column), lacking, n=1, cutoff=SIMILAR)
        if near:
            raise _unusable(file, f"the column {lacking[near[0]]}, or another name", repr(column))


def _read(
    file: Path, needed: Collection[str]
) -> tuple[list[str], list[tuple[str, dict[str, str]]]]:
    """Reads a CSV file: its columns, and per line its location and column -> stripped text."""
    text = read_text(file, "table", at_most=_MAX_BYTES)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    limit = csv.field_size_limit(len(text) + 1)  # reports may be longer than csv's limit
    try:
        lines = [(reader.line_num, [f.strip() for f in row]) for row in reader if any(row)]
    except csv.Error as error:
        raise _unusable(file, "a CSV file", f"line {reader.line_num}: {error}") from None
    finally:
        csv.field_size_limit(limit)
    columns = lines[0][1] if lines else []
    lacking = [name for name in needed if name not in columns]
    if lacking or len(set(columns)) < len(columns):
        raise _unusable(
            file,
            f"the columns {', '.join(needed)}, each name once" if needed else "each column once",
            _recognised(columns),
        )
    rows = []
    for number, fields in lines[1:]:
        if len(fields) != len(columns):
            raise _unusable(file, f"{len(columns)} fields", f"{len(fields)} in line {number}")
        rows.append((f"line {number}", dict(zip(columns, fields, strict=True))))
    return columns, rows


def _recognised(columns: Sequence[str]) -> str:
    """Returns the known columns of a table, and the number of others.

    Others aren't named: without a header they are the first line's content, which may be a report.
    """
    known = [
        name
        for name in columns
        if name in (STUDY, SERIES) or _letters(name) in STUDY_COLUMNS or _finding_columns([name])
    ]
    others = len(columns) - len(known)
    if not known:
        return f"none of these in the first line, which has {others} fields"
    return ", ".join(known) + (f", and {others} others" if others else "")


def _study(uid: str, known: Collection[str], file: Path, where: str) -> str:
    """Returns a study's id, which becomes the name of files."""
    try:
        refuse_id(uid)
    except MrkneeError as error:
        raise _unusable(file, f"an id of {error.expected}", f"{error.found} in {where}") from None
    if uid in known or uid in (".", "..") or "/" in uid or "\\" in uid:
        raise _unusable(file, "one line per study, with an id that can name a file", where)
    return uid


def _label(text: str, file: Path, where: str) -> float:
    if text.lower() in _NOTHING:
        return math.nan
    try:
        label = float(text)
    except ValueError:
        label = math.nan
    if not 0 <= label <= 1:
        raise _unusable(file, "labels from 0 to 1, or nothing (unknown)", where)
    return label


def _unusable(file: Path, expected: str, found: str) -> DataError:
    return DataError(
        "a table of studies can't be used", code="table", file=file, expected=expected, found=found
    )
