"""A table of predictions: written by `predict`, read by `evaluate` and `compare`.

Several tables can be one model (`Predictions.read_joined`: single-task networks, or an ensemble),
and several models are brought to the same exams and findings before they are compared (`aligned`).
"""

from __future__ import annotations

import csv
import io
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from mrknee.errors import DataError, MrkneeError
from mrknee.exams import Findings, Remark, label_files, read_labels
from mrknee.exams.ids import how_ids_differ, refuse_id
from mrknee.exams.listing import folder_meant, same_text, what_is_there
from mrknee.extras import data_frame
from mrknee.files import whole_file
from mrknee.scoring.text import exams
from mrknee.untrusted import read_text

if TYPE_CHECKING:
    from pandas import DataFrame

_SHOWN = 5  # exams that a repr lists

_MAX_BYTES = 16_000_000  # 200,000 exams of five findings


@dataclass(frozen=True, repr=False)
class Predictions:
    """One probability for each exam and finding.

    Attributes:
        ids: the exams' ids.
        findings: the findings' names, in the order of the columns: the model's or the file's.
        probabilities: (exams, findings), 0 to 1.
        remarks: id -> what is odd about the exam that was read, for exams with something odd;
            empty in tables that were read from a file.
        source: the file it was read from, or several, for messages.
    """

    ids: tuple[str, ...]
    findings: Findings
    probabilities: Float[np.ndarray, "exams findings"]
    remarks: Mapping[str, tuple[Remark, ...]] = field(default_factory=dict)
    source: str | None = field(default=None, compare=False)

    def __len__(self) -> int:
        """How many exams."""
        return len(self.ids)

    def __getitem__(self, finding: str) -> Float[np.ndarray, " exams"]:
        """The probabilities of one finding, in the exams' order.

        Raises:
            DataError: no such finding was predicted.
        """
        if finding not in self.findings:
            raise DataError(
                "no such finding was predicted",
                code="unknown-finding",
                expected=", ".join(self.findings),
                found=repr(finding),
            )
        return self.probabilities[:, self.findings.index(finding)]

    def to_frame(self) -> DataFrame:
        """The table as a pandas DataFrame: one row per exam, indexed by id, one column per finding.

        Raises:
            PlatformError: pandas is not installed.

        Example:
            >>> import numpy as np
            >>> from mrknee.exams import Findings
            >>> from mrknee.scoring.predictions import Predictions
            >>> table = Predictions(("7", "8"), Findings(["acl"]), np.array([[0.9], [0.25]]))
            >>> table["acl"]
            array([0.9 , 0.25])
            >>> frame = table.to_frame()
            >>> float(frame.loc["8", "acl"])
            0.25
        """
        columns = dict(zip(self.findings, self.probabilities.T, strict=True))
        return data_frame(columns, self.ids, "exam")

    def __repr__(self) -> str:
        shown = [
            f"  {exam_id}: "
            + ", ".join(f"{n} {p:.3f}" for n, p in zip(self.findings, row, strict=True))
            for exam_id, row in zip(self.ids[:_SHOWN], self.probabilities, strict=False)
        ]
        more = ["  ..."] if len(self) > _SHOWN else []
        return "\n".join([f"Predictions of {exams(len(self))}", *shown, *more])

    def write(self, path: str | Path) -> None:
        """Writes `exam,<finding>,...` with a header, whole or not at all.

        Nine digits, so that no two 32-bit results become one number and no tie is made.

        Raises:
            MrkneeError: an id can't be used (`refuse_id`).
        """
        path = Path(path)
        for exam_id in self.ids:
            refuse_id(exam_id)
        with whole_file(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["exam", *self.findings])
            for exam_id, row in zip(self.ids, self.probabilities, strict=True):
                writer.writerow([exam_id, *(f"{p:.9g}" for p in row)])

    def write_remarks(self, path: str | Path) -> Path | None:
        """Writes the remarks beside the table at `path`: see `write_remarks`."""
        return write_remarks(Path(path), self.remarks)

    @classmethod
    def read(cls, path: str | Path) -> Predictions:
        """Reads what `write` wrote; findings keep the order of the columns.

        Names of columns may be in any case (`ACL` is `acl`), and ids are brought to Unicode's
        composed form (NFC), as those of exams and labels are.

        Raises:
            MrkneeError: the file isn't there, has another header, a line of another length, an
                exam twice, or something other than a number from 0 to 1.
        """
        path = Path(path)
        text = read_text(path, "table of predictions", at_most=_MAX_BYTES)
        try:
            return cls._parsed(csv.reader(io.StringIO(text), strict=True), path)
        except csv.Error as error:
            raise DataError(
                "the predictions are not a CSV",
                code="predictions-format",
                file=path,
                found=str(error),
            ) from None

    @classmethod
    def _parsed(cls, lines: Iterator[list[str]], path: Path) -> Predictions:
        header = [name.strip().lower() for name in next(lines, [])]
        if header[:1] != ["exam"] or len(header) < 2:
            raise DataError(
                "the predictions have another header",
                code="predictions-format",
                file=path,
                expected="exam,<finding>,...",
                found=",".join(header)[:80],
            )
        try:
            findings = Findings(header[1:])
        except MrkneeError as error:
            raise DataError(
                f"the predictions have a column that can't be used: {error.what}",
                code="predictions-format",
                file=path,
                expected=error.expected or "each finding once; upper and lower case are the same",
                found=error.found,
            ) from None
        numbers = "a number" if len(findings) == 1 else f"{len(findings)} numbers"
        ids: dict[str, None] = {}
        table = array("d")  # eight bytes a number, where a list takes forty
        for number, row in enumerate(lines, start=2):
            values = _probabilities(row, len(header))
            exam_id = same_text(row[0]) if row else ""
            if values is None or exam_id in ids:
                raise DataError(
                    "the predictions have a line that can't be used",
                    code="predictions-format",
                    file=path,
                    exam=row[0] if row else None,
                    expected=f"an exam not named before and {numbers} from 0 to 1",
                    found=f"line {number}: {','.join(row)[:80]!r}",
                )
            ids[exam_id] = None
            table.extend(values)
        if not ids:
            raise DataError(
                "no exam has a prediction",
                code="no-predictions",
                file=path,
                expected="a line for each exam of a split",
            )
        probabilities = np.array(table, dtype=np.float64).reshape(len(ids), len(findings))
        return cls(tuple(ids), findings, probabilities, source=str(path))

    @classmethod
    def read_joined(cls, spec: str | Path) -> Predictions:
        """Reads one model's predictions from one file, or from several named with commas.

        Args:
            spec: "predictions.csv", or "abnormal.csv,acl.csv,meniscus.csv". A file whose own name
                has a comma is read as that file.

        Returns:
            The one table, or the tables `joined`.

        Raises:
            MrkneeError: as `read`; a name is empty or there twice; or the files are of different
                exams.
        """
        names = named_files(spec)
        if len(names) == 1:
            return cls.read(Path(spec))
        if "" in names or len(set(names)) < len(names):
            raise DataError(
                "the predictions of one model can't be joined",
                code="predictions-join",
                expected="files with commas between them, each once",
                found=str(spec),
            )
        return _joined([cls.read(Path(name)) for name in names], names)

    @classmethod
    def joined(cls, tables: Sequence[Predictions]) -> Predictions:
        """Makes one model of several tables of the same exams.

        Args:
            tables: one or more; their exams may be in any order.

        Returns:
            The first table's exams in its order; all findings in the order in which they first
            appear; for each the mean probability over the tables that have it.

        Raises:
            MrkneeError: there is no table, or they are of different exams.
        """
        return _joined(tables, [f"table {i}" for i in range(1, len(tables) + 1)])

    def labels(self, root: str | Path, split: str) -> Float[np.ndarray, "exams findings"]:
        """The labels of the predicted exams, joined by id, in the predictions' own order.

        Args:
            root: the data set's folder.
            split: the split that was predicted; every exam of its label files must have a
                prediction. An exam without a label there is not known.

        Returns:
            (exams, findings): 1, 0 or NaN (not known; also for findings without a label file).

        Raises:
            MrkneeError: no finding has labels, or an exam with a label has no prediction.
        """
        root = Path(root)
        files = label_files(root / split)
        known = {name: read_labels(files[name]) for name in self.findings if name in files}
        if not known:
            raise DataError(
                "the predictions can't be held against labels",
                code="predictions-exams",
                file=root,
                expected=f"a label file {split}-<finding>.csv for one of "
                + ", ".join(self.findings),
                found=", ".join(path.name for path in files.values())
                or ("no label file" if root.is_dir() else what_is_there(root)),
                advice=None if files else folder_meant(root, data_set=True),
            )
        for name, labels in known.items():
            self._refuse_lacking(labels, files[name], split)
        nothing: dict[str, float] = {}
        return np.array(
            [[known.get(f, nothing).get(i, np.nan) for f in self.findings] for i in self.ids],
            dtype=np.float64,
        ).reshape(len(self.ids), len(self.findings))

    def _refuse_lacking(self, labels: Mapping[str, float], file: Path, split: str) -> None:
        """Refuses labels of exams that have no prediction; the file and both forms are named."""
        lacking = sorted(labels.keys() - set(self.ids))
        if lacking:
            differ = how_ids_differ(lacking[0], self.ids)
            raise DataError(
                f"the predictions are not of the exams of {split}",
                code="predictions-exams",
                file=file,
                exam=lacking[0],
                expected=f"one prediction for each of its {len(labels)} exams",
                found=f"no prediction for it ({exams(len(lacking))} without)"
                + (f"; {differ}, in {self.source or 'the predictions'}" if differ else ""),
                advice="write the ids in both as the exams' files are named"
                if differ
                else "predict this split, or name the split that was predicted (--split)",
            )


REMARKS = ["exam", "series", "code", "remark"]
"""The header of a table of remarks."""


def remarks_file(path: Path) -> Path:
    """Where the remarks on the exams of a table lie: `predictions-remarks.csv`."""
    return path.with_name(f"{path.stem}-remarks.csv")


def write_remarks(path: Path, remarks: Mapping[str, Sequence[Remark]]) -> Path | None:
    """Writes remarks beside a table of probabilities, as `exam,series,code,remark`.

    Args:
        path: the table's file.
        remarks: id -> remarks.

    Returns:
        The file written. None where there is no remark; a table of remarks that an earlier run
        left there is removed, because it would be about other probabilities.
    """
    beside = remarks_file(path)
    if not remarks:
        _remove_remarks(beside)
        return None
    with whole_file(beside) as new, new.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(REMARKS)
        for exam_id, found in remarks.items():
            writer.writerows((exam_id, r.series or "", r.code, r.text) for r in found)
    return beside


def _remove_remarks(file: Path) -> None:
    """Removes a table of remarks, and nothing that has another header."""
    if file.is_file() and not file.is_symlink():
        with file.open("rb") as there:
            header = there.readline(100).strip().decode("ascii", "replace").split(",")
        ours = header in (REMARKS, ["exam", "plane", "code", "remark"])  # of earlier versions
        if ours:
            file.unlink()


def named_files(spec: str | Path) -> list[str]:
    """The files that `Predictions.read_joined` reads for this spec, as they are written there."""
    spec = str(spec)
    if "," not in spec or Path(spec).is_file():
        return [spec]
    return [name.strip() for name in spec.split(",")]


def aligned(
    names: Sequence[str], tables: Sequence[Predictions]
) -> tuple[tuple[Predictions, ...], tuple[str, ...]]:
    """Brings several models' predictions to the same exams and findings in the same order.

    Args:
        names: the models' names, for messages.
        tables: one table a model, of the same exams in any order.

    Returns:
        The tables with the first one's order of exams and with the findings that all of them have;
        and a note for each model with findings that not all have, which are left out.

    Raises:
        MrkneeError: the models were not run on the same exams, or have no finding in common.
    """
    _refuse_other_exams(tables, names)
    common = [f for f in tables[0].findings if all(f in table.findings for table in tables)]
    if not common:
        raise DataError(
            "the models have no finding in common",
            code="findings",
            expected="at least one finding that all of them have",
            found="; ".join(
                f"{name}: {', '.join(table.findings)}"
                for name, table in zip(names, tables, strict=True)
            ),
        )
    findings = Findings(common)
    notes = tuple(
        f"left out, because not every model has it: {', '.join(others)} ({name})"
        for name, table in zip(names, tables, strict=True)
        if (others := [f for f in table.findings if f not in findings])
    )
    return tuple(_ordered(table, tables[0].ids, findings) for table in tables), notes


def _joined(tables: Sequence[Predictions], names: Sequence[str]) -> Predictions:
    _refuse_other_exams(tables, names)
    ids = tables[0].ids
    findings = Findings(dict.fromkeys(name for table in tables for name in table.findings))
    columns = [
        np.mean(
            [
                _ordered(table, ids, Findings([name])).probabilities
                for table in tables
                if name in table.findings
            ],
            axis=0,
        )
        for name in findings
    ]
    return Predictions(ids, findings, np.hstack(columns), source=" and ".join(names))


def _ordered(table: Predictions, ids: Sequence[str], findings: Findings) -> Predictions:
    """The table with these of its exams and findings, in this order."""
    row = {exam_id: i for i, exam_id in enumerate(table.ids)}
    rows = [row[exam_id] for exam_id in ids]
    columns = [table.findings.index(name) for name in findings]
    return Predictions(tuple(ids), findings, table.probabilities[np.ix_(rows, columns)])


def _refuse_other_exams(tables: Sequence[Predictions], names: Sequence[str]) -> None:
    if not tables:
        raise DataError(
            "there are no predictions", code="no-predictions", expected="at least one table"
        )
    wanted = set(tables[0].ids)
    for name, table in zip(names[1:], tables[1:], strict=True):
        odd = sorted(wanted.symmetric_difference(table.ids))
        if odd:
            has, lacks = (names[0], name) if odd[0] in wanted else (name, names[0])
            other = table.ids if odd[0] in wanted else wanted
            differ = how_ids_differ(odd[0], other)
            raise DataError(
                "the predictions are of different exams",
                code="predictions-exams",
                exam=odd[0],
                expected=f"the same exams in {names[0]} and {name}",
                found=f"it is in {has}, not in {lacks} ({exams(len(odd))} in one only)"
                + (f"; {differ}" if differ else ""),
                advice="predict the same split with both models",
            )


def _probabilities(row: list[str], width: int) -> list[float] | None:
    """The numbers of a line; None where it is no line of a table of this width."""
    if len(row) != width or not row[0].strip():
        return None
    if not all(field.isascii() and "_" not in field for field in row[1:]):
        return None  # float would take "0_1" for 1, and other scripts' digits
    try:
        values = [float(field) for field in row[1:]]
    except ValueError:
        return None
    return values if all(0 <= v <= 1 for v in values) else None
