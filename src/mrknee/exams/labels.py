"""Label files: `<split>-<finding>.csv`, read, joined to exams by id, and written.

Labels are joined to exams by id, never by the order of lines. Ids are compared as text: `0` is
not `0000`. An empty label, or no line at all, means "not known" and becomes NaN.
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
from mrknee.files import whole_file
from mrknee.untrusted import read_text

CUT = 0.5
"""A soft label counts as present from here on, where only present and absent can be counted."""

_MAX_LABEL_BYTES = 4_000_000  # some 400,000 exams


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


def read_labels(path: str | Path, *, soft: bool = False) -> dict[str, float]:
    """Reads one label file: no header, `id,label` a line, label 0, 1 or empty (not known).

    It is a CSV, as the predictions are: an id with a comma or a quotation mark stands in quotes.
    0 and 1 may be written as decimal numbers (`0.0`, `1.`), as pandas writes them where a label is
    missing. Ids are brought to Unicode's composed form (NFC).

    Args:
        path: the file; UTF-8, any line ends.
        soft: take any number from 0 to 1 for a label.

    Returns:
        id -> 1.0, 0.0 or NaN, or a soft label between 0 and 1, in the file's order.

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
        if label and not _LABEL.fullmatch(label) and not (soft and _is_soft(label)):
            raise DataError(
                "a label is no number from 0 to 1, nor empty"
                if soft
                else "a label is neither 0 nor 1 nor empty",
                code="label-value",
                file=path,
                exam=exam_id,
                expected="0, 1, a number between them, or nothing (not known)"
                if soft
                else "0, 1 or nothing (not known)",
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
    """Labels as 0, 1 or NaN: soft ones are 1 from 0.5 on.

    What counts exams of two classes (AUC, calibration, thresholds, prevalence) can't take others.
    """
    return np.where(np.isnan(labels), np.nan, (labels >= CUT).astype(np.float64))


def has_soft(labels: Float[np.ndarray, "*shape"]) -> bool:
    """Whether a label lies between 0 and 1."""
    return bool(((labels > 0) & (labels < 1)).any())


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
    if _is_soft(fields[1]):
        return (
            "if it is a soft label, allow them (soft_labels) where exams are opened or trained on; "
            "scores need 0 and 1"
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
            "the label file is no CSV", code="label-format", file=path, found=str(error)
        ) from None


def join_labels(
    ids: Sequence[str], labels: Mapping[str, float], path: Path, folder: Path
) -> Float64[np.ndarray, " exams"]:
    """The labels of exams in their order, NaN for those that have none.

    Args:
        ids: the exams.
        labels: id -> label.
        path: the file they were read from, for the error.
        folder: the folder of the exams, for the error.

    Raises:
        MrkneeError: there is a label of an exam that isn't there.
    """
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
        labels: id -> 1.0, 0.0, a soft label between them, or NaN (written as nothing).

    Returns:
        The file written.
    """
    (name,) = Findings([finding])
    path = Path(root) / f"{split}-{name}.csv"
    with whole_file(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(
            (exam_id, "" if np.isnan(label) else f"{label:.9g}")
            for exam_id, label in labels.items()
        )
    return path
