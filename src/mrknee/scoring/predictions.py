"""A table of predictions: written by `predict`, read by `evaluate` and `compare`."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mrknee.errors import MrkneeError
from mrknee.exams import Findings, label_files, read_labels
from mrknee.files import whole_file


@dataclass(frozen=True)
class Predictions:
    """One probability for each exam and finding.

    Attributes:
        ids: the exams' ids.
        findings: the findings' names, in their order.
        probabilities: (exams, findings), 0 to 1.
    """

    ids: tuple[str, ...]
    findings: Findings
    probabilities: Float[np.ndarray, "exams findings"]

    def write(self, path: Path) -> None:
        """Writes `exam,<finding>,...` with a header, whole or not at all.

        Nine digits, so that no two 32-bit results become one number and no tie is made.
        """
        with whole_file(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["exam", *self.findings])
            for exam_id, row in zip(self.ids, self.probabilities, strict=True):
                writer.writerow([exam_id, *(f"{p:.9g}" for p in row)])

    @classmethod
    def read(cls, path: Path) -> Predictions:
        """Reads what `write` wrote; columns may come in any order.

        Raises:
            MrkneeError: the file isn't there, has another header, a line of another length, an
                exam twice, or something other than a number from 0 to 1.
        """
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                header, *rows = list(csv.reader(file)) or [[]]
        except FileNotFoundError:
            raise MrkneeError("the predictions are missing", file=path) from None
        except IsADirectoryError:
            raise MrkneeError(
                "the predictions are missing", file=path, expected="a CSV", found="a folder"
            ) from None
        except (UnicodeDecodeError, csv.Error) as error:
            raise MrkneeError(
                "the predictions are not a CSV", file=path, found=str(error)
            ) from None
        if header[:1] != ["exam"] or len(header) < 2:
            raise MrkneeError(
                "the predictions have another header",
                file=path,
                expected="exam,<finding>,...",
                found=",".join(header)[:80],
            )
        findings = Findings(header[1:])
        columns = [header.index(name) for name in findings]
        ids: dict[str, list[float]] = {}
        for number, row in enumerate(rows, start=2):
            values = _probabilities(row, len(header))
            if values is None or row[0] in ids:
                raise MrkneeError(
                    "the predictions have a line that can't be used",
                    file=path,
                    exam=row[0] if row else None,
                    expected=f"an exam not named before and {len(findings)} numbers from 0 to 1",
                    found=f"line {number}: {','.join(row)[:80]!r}",
                )
            ids[row[0]] = [values[c - 1] for c in columns]
        table = np.array(list(ids.values()), dtype=np.float64).reshape(len(ids), len(findings))
        return cls(tuple(ids), findings, table)

    def labels(self, root: Path, split: str) -> Float[np.ndarray, "exams findings"]:
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
        files = label_files(root / split)
        known = {name: read_labels(files[name]) for name in self.findings if name in files}
        if not known:
            raise MrkneeError(
                "the predictions can't be held against labels",
                file=root,
                expected=f"a label file {split}-<finding>.csv for one of "
                + ", ".join(self.findings),
                found=", ".join(path.name for path in files.values()) or "no label file",
            )
        labelled = set().union(*known.values())
        lacking = sorted(labelled.difference(self.ids))
        if lacking:
            raise MrkneeError(
                f"the predictions are not of the exams of {split}",
                file=root,
                exam=lacking[0],
                expected=f"one prediction for each of the {len(labelled)} exams with labels",
                found=f"no prediction for it ({len(lacking)} such exams)",
            )
        nothing: dict[str, float] = {}
        return np.array(
            [[known.get(f, nothing).get(i, np.nan) for f in self.findings] for i in self.ids]
        )


def _probabilities(row: list[str], width: int) -> list[float] | None:
    try:
        values = [float(field) for field in row[1:]]
    except ValueError:
        return None
    return values if len(row) == width and all(0 <= v <= 1 for v in values) else None
