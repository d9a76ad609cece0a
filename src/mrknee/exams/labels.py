"""Label files (`<split>-<finding>.csv`): reading, joining to exams by id, writing.

Labels are joined to exams by id, never by the order of lines. Ids are compared as text: `0` is
not `0000`. An empty label or a missing line means "unknown" and becomes NaN.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64

from mrknee.errors import DataError
from mrknee.exams.findings import Findings
from mrknee.exams.ids import how_ids_differ
from mrknee.exams.listing import same_text
from mrknee.files import is_dir, list_folder, write_csv
from mrknee.untrusted import read_text

CUT = 0.5
"""Soft labels of at least this value count as present, wherever two classes are needed."""

_MAX_LABEL_BYTES = 4_000_000  # about 400,000 exams


def label_files(labels_of: str | Path) -> dict[str, Path]:
    """Lists the label files of a split: finding -> `<labels_of>-<finding>.csv`.

    Findings are named in lower case, whatever the case of the file name: `train-ACL.csv` belongs
    to `acl`. Files of a split with a longer name (`train-extra`) are left out.

    Args:
        labels_of: common prefix of the files, such as `DATA/train`.

    Raises:
        DataError: two files belong to one finding.
    """
    labels_of = Path(labels_of)
    prefix = labels_of.name + "-"
    found: dict[str, Path] = {}
    beside = list_folder(labels_of.parent) if is_dir(labels_of.parent) else []
    # `valid-external-acl.csv` belongs to a split `valid-external`, if there is one
    longer = tuple(f"{one.name}-" for one in beside if one.name.startswith(prefix) and is_dir(one))
    for file in sorted(beside):
        if file.suffix.lower() != ".csv" or file.name.startswith(longer):
            continue
        if file.name.startswith(prefix):
            name = file.stem.removeprefix(prefix).lower()
            if name in found:
                raise DataError(
                    "two label files belong to one finding",
                    code="label-name",
                    file=file,
                    expected="one file per finding; case is ignored",
                    found=f"{found[name].name} and {file.name}",
                    advice="remove or rename one of them",
                )
            found[name] = file
    return found


def read_labels(path: str | Path, *, soft: bool = False) -> dict[str, float]:
    """Reads one label file: a CSV file without a header, one line `id,label` per exam.

    A label is 0, 1 or empty (unknown). 0 and 1 may be written as decimal numbers (`0.0`, `1.`), as
    pandas does in columns with missing values. Ids with a comma or a quotation mark are quoted; ids
    are normalised to Unicode NFC.

    Args:
        path: the file; UTF-8, any line endings.
        soft: accept any number from 0 to 1 as a label.

    Returns:
        id -> 1.0, 0.0, NaN, or a soft label in between, in the order of the file.

    Raises:
        DataError: the file is missing or isn't text, a line doesn't have two fields, an id is
            repeated, or a label is invalid.
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
                "a label file has an invalid line",
                code="label-format",
                file=path,
                expected="id,label with a label of 0, 1 or nothing",
                found=where,
                advice="separate id and label with a comma"
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
                expected="one line per exam",
                found=where,
            )
        if label and not _LABEL.fullmatch(label) and not (soft and _is_soft(label)):
            raise DataError(
                "a label is neither a number from 0 to 1 nor empty"
                if soft
                else "a label is neither 0 nor 1 nor empty",
                code="label-value",
                file=path,
                exam=exam_id,
                expected="0, 1, a number between them, or nothing (unknown)"
                if soft
                else "0, 1 or nothing (unknown)",
                found=where,
                advice=_label_advice(fields, text, first=not labels),
            )
        labels[exam_id] = float(label) if label else np.nan
    return labels


_LABEL = re.compile(r"[01](\.0*)?", re.ASCII)
_NUMBER = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)


def _is_soft(label: str) -> bool:
    return _NUMBER.fullmatch(label) is not None and float(label) <= 1


def cut_labels(labels: Float[np.ndarray, "*shape"]) -> Float64[np.ndarray, "*shape"]:
    """Converts labels to 0, 1 or NaN; soft labels of at least 0.5 become 1.

    Metrics of two classes (AUC, calibration, thresholds, prevalence) need such labels.
    """
    return np.where(np.isnan(labels), np.nan, (labels >= CUT).astype(np.float64))


def has_soft(labels: Float[np.ndarray, "*shape"]) -> bool:
    """Returns whether any label lies strictly between 0 and 1."""
    return bool(((labels > 0) & (labels < 1)).any())


_WORDS = {
    "yes": "1", "y": "1", "true": "1", "t": "1", "positive": "1", "pos": "1", "present": "1",
    "no": "0", "n": "0", "false": "0", "f": "0", "negative": "0", "neg": "0", "absent": "0",
    "nan": "nothing", "na": "nothing", "n/a": "nothing", "none": "nothing", "null": "nothing",
    "unknown": "nothing", "?": "nothing",
}  # fmt: skip


def _label_advice(fields: Sequence[str], text: str, *, first: bool) -> str | None:
    """Returns advice on an invalid label.

    The line is called a header only if it is the first one, has no digit, its second field isn't a
    word for yes, no or unknown, and the next line is a valid label.
    """
    word = _WORDS.get(fields[1].lower())
    if word is not None:
        return f"write {word} instead"
    if _is_soft(fields[1]):
        return (
            "if it is a soft label, allow soft labels (soft_labels) when opening the data set or "
            "training; scores need 0 and 1"
        )
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
            "a label file is not valid CSV", code="label-format", file=path, found=str(error)
        ) from None


def join_labels(
    ids: Sequence[str], labels: Mapping[str, float], path: Path, folder: Path
) -> Float64[np.ndarray, " exams"]:
    """Returns the labels in the order of the exams, NaN for exams without a label.

    Args:
        ids: ids of the exams.
        labels: id -> label.
        path: the label file, for the error message.
        folder: the folder of the exams, for the error message.

    Raises:
        DataError: a label belongs to an exam that isn't in `ids`.
    """
    known = set(ids)
    unknown = [i for i in labels if i not in known]
    if unknown:
        differ = how_ids_differ(unknown[0], ids)
        raise DataError(
            "a label file names an exam that doesn't exist",
            code="label-unknown",
            file=path,
            exam=unknown[0],
            expected=f"only ids of {folder}: {ids[0]} to {ids[-1]}",
            found=f"{len(unknown)} of {len(labels)} ids unknown, the first {unknown[0]!r}"
            + (f"; {differ}" if differ else ""),
            advice="write the ids exactly as in the file names: 0000 is not 0",
        )
    return np.array([labels.get(i, np.nan) for i in ids], dtype=np.float64)


def write_labels(root: str | Path, split: str, finding: str, labels: Mapping[str, float]) -> Path:
    """Writes `root/split-finding.csv` atomically.

    Args:
        root: the data set's folder; created if missing.
        split: name of the split.
        finding: name of the finding.
        labels: id -> 1.0, 0.0, a soft label in between, or NaN (written as an empty field).

    Returns:
        The written file.
    """
    (name,) = Findings([finding])
    path = Path(root) / f"{split}-{name}.csv"
    rows = ((exam, "" if np.isnan(label) else f"{label:.9g}") for exam, label in labels.items())
    write_csv(path, rows)
    return path
