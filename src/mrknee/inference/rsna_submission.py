"""Submission in the format of RSNA's Knee Abnormality Detection (2026).

The file has the columns `StudyInstanceUID` and the twelve findings (`RSNA_2026_FINDINGS`), and one
line per study of `sample_submission.csv`, in its order, with probabilities. The score is the mean
of the twelve AUCs, so a column of equal values scores 0.5 without any message: it is refused here.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

from mrknee.errors import DataError, ModelError
from mrknee.exams import RSNA_2026_FINDINGS, Findings, open_dataset
from mrknee.exams.listing import same_text
from mrknee.files import write_csv
from mrknee.inference.model import Model, ModelPaths, load_model, name_of
from mrknee.inference.runtimes import RuntimeName
from mrknee.metrics.formatting import format_exams
from mrknee.metrics.predictions import Predictions, reorder
from mrknee.untrusted import read_text

COLUMNS = ("StudyInstanceUID", *RSNA_2026_FINDINGS.values())
"""The columns of `sample_submission.csv`, in its order and spelling."""

EQUAL = 1e-6
"""Probabilities of a finding that all lie within this range count as one value: differences of this
size are rounding errors of 32-bit numbers."""

_MAX_BYTES = 16_000_000  # about 100,000 studies


def read_studies(sample: Path) -> tuple[str, ...]:
    """Reads the ids of `sample_submission.csv`, in its order.

    Args:
        sample: the file; its probabilities are ignored.

    Raises:
        DataError: the file has other columns than `COLUMNS`, no study, or a study twice.
    """
    text = read_text(sample, "sample submission", at_most=_MAX_BYTES)
    try:
        header, *rows = csv.reader(io.StringIO(text), strict=True)
    except (csv.Error, ValueError) as error:  # ValueError: no line
        raise _refuse(sample, str(error) if text.strip() else "an empty file") from None
    if tuple(header) != COLUMNS:
        raise _refuse(sample, ",".join(header)[:200])
    ids: dict[str, None] = {}
    for row in filter(None, rows):
        study = same_text(row[0])
        if len(row) != len(COLUMNS) or study in ids:
            raise _refuse(sample, f"{study}, a second time or with {len(row)} fields")
        ids[study] = None
    if not ids:
        raise _refuse(sample, "no study")
    return tuple(ids)


def _refuse(sample: Path, found: str) -> DataError:
    return DataError(
        "the sample submission can't be used",
        code="sample-submission",
        file=sample,
        expected=f"the columns {','.join(COLUMNS)}, and one line per study",
        found=found,
        advice="use the competition's own sample_submission.csv",
    )


def predict_studies(
    model: ModelPaths,
    data: str | Path,
    sample: str | Path,
    *,
    split: str = "test",
    threads: int | None = None,
    runtime: RuntimeName | None = None,
    axes: str | None = None,
) -> Predictions:
    """Predicts the studies of `sample_submission.csv`.

    Args:
        model: a run folder, an ONNX file written by `mrknee export`, or the members of an ensemble.
        data: the data set's folder; the ids of its exams are the studies' StudyInstanceUIDs. Exams
            may lack series; exams of other studies are ignored.
        sample: the file `sample_submission.csv`.
        split: the split with the studies.
        threads: number of CPU threads; None: the default of the library.
        runtime: runtime of an ONNX file; None: ONNX Runtime.
        axes: order of the axes in the files, as for `open_dataset`.

    Returns:
        The probabilities of the sample's studies and columns, in its order, with remarks.

    Raises:
        MrkneeError: the sample has other columns, the model's findings have other titles, a study
            is not in the data set, an exam can't be read, or all studies have the same probability
            of a finding.
    """
    ids = read_studies(Path(sample))
    predictor = load_model(model, threads=threads, runtime=runtime)
    findings = _findings_in_order(predictor, name_of(model))
    exams = open_dataset(data, split, labels=False, allow_missing_plane=True, axes=axes)
    missing = sorted(set(ids) - set(exams.ids))
    if missing:
        raise DataError(
            "studies of the sample submission are not in the data set",
            code="predictions-exams",
            file=exams.folder,
            exam=missing[0],
            expected=f"each of the {len(ids)} studies of {sample}",
            found=f"{format_exams(len(exams))}; {len(missing)} of these studies are missing",
            advice="import all test studies; import.json has the reasons of refused ones",
        )
    predicted = predictor.predict(exams)
    found = reorder(predicted, ids, findings)
    _refuse_constant(found, name_of(model))
    remarks = {exam_id: those for exam_id, those in predicted.remarks.items() if exam_id in ids}
    return Predictions(found.ids, found.findings, found.probabilities, remarks)


def write_studies(predictions: Predictions, out: Path) -> Path | None:
    """Writes predictions of `predict_studies`; returns the file of remarks, if there are any."""
    rows = (
        [exam_id, *(f"{p:.9g}" for p in row)]
        for exam_id, row in zip(predictions.ids, predictions.probabilities, strict=True)
    )
    write_csv(out, [COLUMNS, *rows])
    return predictions.write_remarks(out)


def _findings_in_order(model: Model, name: str) -> Findings:
    """Returns the model's findings in the order of the columns that their titles name."""
    by_title = {model.titles.get(finding, finding): finding for finding in model.findings}
    titles = COLUMNS[1:]
    if set(by_title) != set(titles) or len(model.findings) != len(titles):
        others = [title for title in by_title if title not in titles]
        lacking = [title for title in titles if title not in by_title]
        parts = [("without", lacking), ("with", others)]
        raise ModelError(
            "this model can't be used for a submission",
            code="findings",
            file=name,
            expected="the titles " + ", ".join(titles),
            found="; ".join(f"{word} {', '.join(those)}" for word, those in parts if those)
            or "two findings with the same title",
            advice="train on a data set whose findings.csv has these titles, as `mrknee rsna` "
            "writes it",
        )
    return Findings(by_title[title] for title in titles)


def _refuse_constant(predictions: Predictions, name: str) -> None:
    """Refuses predictions in which all studies have the same probability of a finding."""
    if len(predictions) < 2:
        return
    spread = np.ptp(predictions.probabilities, axis=0)
    constant = [
        f"{COLUMNS[column + 1]} {predictions.probabilities[0, column]:.6f}"
        for column in np.flatnonzero(spread < EQUAL)
    ]
    if constant:
        raise ModelError(
            "a column of the submission is constant",
            code="constant-column",
            file=name,
            expected="probabilities that differ between studies, for each finding",
            found=f"the same for all {len(predictions)} studies: {', '.join(constant)}",
            advice="look at the model's scorecard: the finding was not learned",
        )
