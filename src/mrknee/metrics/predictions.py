"""Tables of predictions: written by `predict`, read by `evaluate` and `compare`.

Several tables can be joined to one model (`Predictions.read_joined`: single-task networks, or an
ensemble), and tables of several models are aligned to the same exams and findings (`align`).
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
from mrknee.exams import Findings, Remark, cut_labels, label_files, read_labels
from mrknee.exams.ids import how_ids_differ, refuse_id
from mrknee.exams.listing import folder_meant, same_text, what_is_there
from mrknee.extras import data_frame
from mrknee.files import is_dir, is_file, write_csv
from mrknee.metrics.formatting import format_exams
from mrknee.untrusted import read_text

if TYPE_CHECKING:
    from pandas import DataFrame

_MAX_REPR = 5  # exams that a repr lists

_MAX_BYTES = 16_000_000  # 200,000 exams of five findings


@dataclass(frozen=True, repr=False)
class Predictions:
    """One probability per exam and finding.

    Attributes:
        ids: ids of the exams.
        findings: names of the findings, in the order of the columns of the model or the file.
        probabilities: (exams, findings), 0 to 1.
        remarks: id -> peculiarities found while reading the exam; exams without any are absent;
            empty for tables that were read from a file.
        source: the file or files that the table was read from, for error messages.
    """

    ids: tuple[str, ...]
    findings: Findings
    probabilities: Float[np.ndarray, "exams findings"]
    remarks: Mapping[str, tuple[Remark, ...]] = field(default_factory=dict)
    source: str | None = field(default=None, compare=False)

    def __len__(self) -> int:
        """Returns the number of exams."""
        return len(self.ids)

    def __getitem__(self, finding: str) -> Float[np.ndarray, " exams"]:
        """Returns the probabilities of one finding, in the order of the exams.

        Raises:
            DataError: the finding was not predicted.
        """
        if finding not in self.findings:
            raise DataError(
                "the finding was not predicted",
                code="unknown-finding",
                expected=", ".join(self.findings),
                found=repr(finding),
            )
        return self.probabilities[:, self.findings.index(finding)]

    def to_frame(self) -> DataFrame:
        """Returns a pandas DataFrame: one row per exam, indexed by id, one column per finding.

        Raises:
            PlatformError: pandas is not installed.

        Example:
            >>> import numpy as np
            >>> from mrknee.exams import Findings
            >>> from mrknee.metrics.predictions import Predictions
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
        lines = [
            f"  {exam_id}: "
            + ", ".join(f"{n} {p:.3f}" for n, p in zip(self.findings, row, strict=True))
            for exam_id, row in zip(self.ids[:_MAX_REPR], self.probabilities, strict=False)
        ]
        rest = ["  ..."] if len(self) > _MAX_REPR else []
        return "\n".join([f"Predictions of {format_exams(len(self))}", *lines, *rest])

    def write(self, path: str | Path) -> None:
        """Writes a CSV file with the header `exam,<finding>,...`, atomically.

        Nine digits keep different 32-bit results different, so that no ties arise.

        Raises:
            MrkneeError: an id is invalid (`refuse_id`).
        """
        path = Path(path)
        for exam_id in self.ids:
            refuse_id(exam_id)
        rows = (
            [exam_id, *(f"{p:.9g}" for p in row)]
            for exam_id, row in zip(self.ids, self.probabilities, strict=True)
        )
        write_csv(path, [["exam", *self.findings], *rows])

    def write_remarks(self, path: str | Path) -> Path | None:
        """Writes the remarks next to the table at `path`, see `write_remarks`."""
        return write_remarks(Path(path), self.remarks)

    @classmethod
    def read(cls, path: str | Path) -> Predictions:
        """Reads a table of predictions; findings keep the order of the columns.

        Names of columns may be in any case (`ACL` is `acl`), and ids are normalised to Unicode's
        composed form (NFC), like those of exams and labels.

        Raises:
            MrkneeError: the file doesn't exist, its header or the length of a line is wrong, an
                exam occurs twice, or a value is not a number from 0 to 1.
        """
        path = Path(path)
        text = read_text(path, "table of predictions", at_most=_MAX_BYTES)
        try:
            return cls._parse(csv.reader(io.StringIO(text), strict=True), path)
        except csv.Error as error:
            raise DataError(
                "the table of predictions is not valid CSV",
                code="predictions-format",
                file=path,
                found=str(error),
            ) from None

    @classmethod
    def _parse(cls, lines: Iterator[list[str]], path: Path) -> Predictions:
        header = [name.strip().lower() for name in next(lines, [])]
        if header[:1] != ["exam"] or len(header) < 2:
            raise DataError(
                "the table of predictions has the wrong header",
                code="predictions-format",
                file=path,
                expected="exam,<finding>,...",
                found=",".join(header)[:80],
            )
        try:
            findings = Findings(header[1:])
        except MrkneeError as error:
            raise DataError(
                f"a column of the table of predictions can't be used: {error.what}",
                code="predictions-format",
                file=path,
                expected=error.expected or "each finding once, in upper or lower case",
                found=error.found,
            ) from None
        numbers = "a number" if len(findings) == 1 else f"{len(findings)} numbers"
        ids: dict[str, None] = {}
        table = array("d")  # eight bytes per number; a list takes forty
        for number, row in enumerate(lines, start=2):
            values = _probabilities(row, len(header))
            exam_id = same_text(row[0]) if row else ""
            if values is None or exam_id in ids:
                raise DataError(
                    "a line of the table of predictions can't be used",
                    code="predictions-format",
                    file=path,
                    exam=row[0] if row else None,
                    expected=f"a new exam id and {numbers} from 0 to 1",
                    found=f"line {number}: {','.join(row)[:80]!r}",
                )
            ids[exam_id] = None
            table.extend(values)
        if not ids:
            raise DataError(
                "the table of predictions contains no exams",
                code="no-predictions",
                file=path,
                expected="one line per exam of a split",
            )
        probabilities = np.array(table, dtype=np.float64).reshape(len(ids), len(findings))
        return cls(tuple(ids), findings, probabilities, source=str(path))

    @classmethod
    def read_joined(cls, spec: str | Path) -> Predictions:
        """Reads one model's predictions from one file, or from several separated by commas.

        Args:
            spec: "predictions.csv", or "abnormal.csv,acl.csv,meniscus.csv". If a file with this
                name exists, it is read, even if the name contains a comma.

        Returns:
            The table, or several tables `joined`.

        Raises:
            MrkneeError: as `read`; also if a name is empty or occurs twice, or if the files
                contain different exams.
        """
        names = prediction_files(spec)
        if len(names) == 1:
            return cls.read(Path(spec))
        if "" in names or len(set(names)) < len(names):
            raise DataError(
                "the predictions of one model can't be joined",
                code="predictions-join",
                expected="comma-separated files, each once",
                found=str(spec),
            )
        return _join([cls.read(Path(name)) for name in names], names)

    @classmethod
    def joined(cls, tables: Sequence[Predictions]) -> Predictions:
        """Joins several tables of the same exams to the predictions of one model.

        Args:
            tables: at least one; the exams may be in any order.

        Returns:
            Exams in the order of the first table; all findings in the order of their first
            occurrence; for each finding the mean probability over the tables that contain it.

        Raises:
            MrkneeError: there is no table, or the tables contain different exams.
        """
        return _join(tables, [f"table {i}" for i in range(1, len(tables) + 1)])

    def labels(
        self, root: str | Path, split: str, *, soft: bool = False
    ) -> Float[np.ndarray, "exams findings"]:
        """Reads the labels of the predicted exams, in the order of the predictions.

        Args:
            root: the data set's folder.
            split: the split that was predicted; every exam of its label files must have a
                prediction. The label of an exam that is not in a file is unknown.
            soft: accept soft labels, of which those of at least 0.5 become 1, others 0.

        Returns:
            (exams, findings): 1, 0 or NaN (unknown; also for findings without a label file).

        Raises:
            MrkneeError: no finding has labels, or an exam with a label has no prediction.
        """
        root = Path(root)
        files = label_files(root / split)
        known = {n: read_labels(files[n], soft=soft) for n in self.findings if n in files}
        if not known:
            raise DataError(
                "no predicted finding has labels",
                code="predictions-exams",
                file=root,
                expected=f"a label file {split}-<finding>.csv for one of "
                + ", ".join(self.findings),
                found=", ".join(path.name for path in files.values())
                or ("no label file" if is_dir(root) else what_is_there(root)),
                advice=None if files else folder_meant(root, data_set=True),
            )
        for name, labels in known.items():
            self._check_complete(labels, files[name], split)
        unlabelled: dict[str, float] = {}
        found = np.array(
            [[known.get(f, unlabelled).get(i, np.nan) for f in self.findings] for i in self.ids],
            dtype=np.float64,
        )
        return cut_labels(found.reshape(len(self.ids), len(self.findings)))

    def _check_complete(self, labels: Mapping[str, float], file: Path, split: str) -> None:
        """Raises DataError if an exam with a label has no prediction."""
        missing = sorted(labels.keys() - set(self.ids))
        if missing:
            difference = how_ids_differ(missing[0], self.ids)
            raise DataError(
                f"exams of {split} have no prediction",
                code="predictions-exams",
                file=file,
                exam=missing[0],
                expected=f"a prediction for each of the {len(labels)} exams in this file",
                found=f"{format_exams(len(missing))} without"
                + (f"; {difference}, in {self.source or 'the predictions'}" if difference else ""),
                advice="in both files, use the names of the exams' files as ids"
                if difference
                else "predict this split, or name the split that was predicted (--split)",
            )


REMARKS = ["exam", "series", "code", "remark"]
"""Header of a table of remarks."""


def remarks_file(path: Path) -> Path:
    """Returns the path of the table of remarks, for example `predictions-remarks.csv`."""
    return path.with_name(f"{path.stem}-remarks.csv")


def write_remarks(path: Path, remarks: Mapping[str, Sequence[Remark]]) -> Path | None:
    """Writes remarks next to a table of probabilities, as `exam,series,code,remark`.

    Args:
        path: the file of the table of probabilities.
        remarks: id -> remarks.

    Returns:
        The file written, or None if there are no remarks. In that case the table of remarks of an
        earlier run is removed, because it would refer to other probabilities.
    """
    file = remarks_file(path)
    if not remarks:
        _remove_remarks(file)
        return None
    rows = [
        (exam, r.series or "", r.code, r.text) for exam, found in remarks.items() for r in found
    ]
    write_csv(file, [REMARKS, *rows])
    return file


def _remove_remarks(file: Path) -> None:
    """Removes a table of remarks; a file with another header is kept."""
    if is_file(file) and not file.is_symlink():
        with file.open("rb") as table:
            header = table.readline(100).strip().decode("ascii", "replace").split(",")
        if header in (REMARKS, ["exam", "plane", "code", "remark"]):  # or of earlier versions
            file.unlink()


def prediction_files(spec: str | Path) -> list[str]:
    """Returns the names of the files that `Predictions.read_joined` reads for this spec."""
    spec = str(spec)
    if "," not in spec or is_file(Path(spec)):
        return [spec]
    return [name.strip() for name in spec.split(",")]


def align(
    names: Sequence[str], tables: Sequence[Predictions]
) -> tuple[tuple[Predictions, ...], tuple[str, ...]]:
    """Aligns several models' predictions to the same exams and findings in the same order.

    Args:
        names: names of the models, for messages.
        tables: one table per model, of the same exams in any order.

    Returns:
        The tables, with exams in the order of the first table and only the common findings; and one
        note per model with findings that are excluded because not all models have them.

    Raises:
        MrkneeError: the tables contain different exams, or have no finding in common.
    """
    check_same_exams(tables, names)
    common = [f for f in tables[0].findings if all(f in table.findings for table in tables)]
    if not common:
        raise DataError(
            "the models have no finding in common",
            code="findings",
            expected="at least one finding that all models have",
            found="; ".join(
                f"{name}: {', '.join(table.findings)}"
                for name, table in zip(names, tables, strict=True)
            ),
        )
    findings = Findings(common)
    notes = tuple(
        f"excluded, because not all models have it: {', '.join(others)} ({name})"
        for name, table in zip(names, tables, strict=True)
        if (others := [f for f in table.findings if f not in findings])
    )
    return tuple(reorder(table, tables[0].ids, findings) for table in tables), notes


def _join(tables: Sequence[Predictions], names: Sequence[str]) -> Predictions:
    check_same_exams(tables, names)
    ids = tables[0].ids
    findings = Findings(dict.fromkeys(name for table in tables for name in table.findings))
    columns = [
        np.mean(
            [
                reorder(table, ids, Findings([name])).probabilities
                for table in tables
                if name in table.findings
            ],
            axis=0,
        )
        for name in findings
    ]
    return Predictions(ids, findings, np.hstack(columns), source=" and ".join(names))


def reorder(table: Predictions, ids: Sequence[str], findings: Findings) -> Predictions:
    """Returns the table restricted to these exams and findings, in this order."""
    row = {exam_id: i for i, exam_id in enumerate(table.ids)}
    rows = [row[exam_id] for exam_id in ids]
    columns = [table.findings.index(name) for name in findings]
    return Predictions(tuple(ids), findings, table.probabilities[np.ix_(rows, columns)])


def check_same_exams(tables: Sequence[Predictions], names: Sequence[str]) -> None:
    """Refuses tables of different exams; exams may be in any order.

    Args:
        tables: the tables.
        names: names of the tables, for the message.

    Raises:
        DataError: there is no table, or the tables contain different exams.
    """
    if not tables:
        raise DataError(
            "no predictions were given", code="no-predictions", expected="at least one table"
        )
    expected = set(tables[0].ids)
    for name, table in zip(names[1:], tables[1:], strict=True):
        unmatched = sorted(expected.symmetric_difference(table.ids))
        if unmatched:
            exam_id = unmatched[0]
            in_first = exam_id in expected
            has, lacks = (names[0], name) if in_first else (name, names[0])
            difference = how_ids_differ(exam_id, table.ids if in_first else expected)
            raise DataError(
                "the predictions are of different exams",
                code="predictions-exams",
                exam=exam_id,
                expected=f"the same exams in {names[0]} and {name}",
                found=f"in {has}, not in {lacks} ({format_exams(len(unmatched))} in only one)"
                + (f"; {difference}" if difference else ""),
                advice="predict the same split with both models",
            )


def _probabilities(row: list[str], width: int) -> list[float] | None:
    """Parses a line; returns None if it is not a valid line of a table of this width."""
    if len(row) != width or not row[0].strip():
        return None
    if not all(field.isascii() and "_" not in field for field in row[1:]):
        return None  # float would accept "0_1" as 1, and digits of other scripts
    try:
        values = [float(field) for field in row[1:]]
    except ValueError:
        return None
    return values if all(0 <= v <= 1 for v in values) else None
