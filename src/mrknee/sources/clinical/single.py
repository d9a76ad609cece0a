"""Reading of one study as an `Exam`, without writing anything."""

from __future__ import annotations

from pathlib import Path

from mrknee.errors import DataError
from mrknee.exams import MRNET_SERIES, Exam, Remark, SeriesList
from mrknee.sources.clinical.completeness import missing_parts
from mrknee.sources.clinical.framing import SIZE, Framing
from mrknee.sources.clinical.importing import Sides, count_left_out, in_id_order
from mrknee.sources.clinical.scanning import scan_source
from mrknee.sources.clinical.study import read_study


def read_exam_of(
    source: str | Path,
    exam_id: str,
    *,
    allow_missing_plane: bool = False,
    series: SeriesList = MRNET_SERIES,
    size: int = SIZE,
    crop_mm: float | None = None,
    sides: Sides = "as-imaged",
) -> Exam:
    """Reads the only study of a source, by the rules of `mrknee import`.

    Args:
        source: a folder of any depth, an archive, or a file: DICOM or NIfTI.
        exam_id: id of the exam; no identifier of the source is used.
        allow_missing_plane: accept a study with at least one of the series.
        series: series to choose.
        size: rows and columns of a slice.
        crop_mm: width of the window around the joint, mm; None uses that of the field, at most 180.
        sides: "left" mirrors a right knee.

    Returns:
        The exam. Warnings of `mrknee import`, and what it reports as incomplete or unreadable, are
        in its remarks, with the code `import`.

    Raises:
        MrkneeError: the source holds no image or more than one study (two knees are two studies),
            or the study can't be used.
    """
    source = Path(source)
    scan = scan_source(source, 1)
    studies = in_id_order(scan, sides=sides)
    if len(studies) != 1:
        raise DataError(
            "the source holds more than one exam" if studies else "the source holds no exam",
            code="not-one-study",
            file=source,
            expected="one study of one knee",
            found=f"{len(studies)} studies or knees" if studies else "; ".join(scan.reasons),
            advice="import all of them with `mrknee import` and open the result, or name one "
            "study's folder",
        )
    outcome = read_study(
        studies[0],
        {},
        allow_missing_plane=allow_missing_plane,
        series=series,
        framing=Framing(size, crop_mm),
        mirror_right=sides == "left",
    )
    if not outcome.stacks:
        raise DataError(
            "the study can't be used",
            code="study-refused",
            file=source,
            expected="a series for "
            + ", ".join(series.names)
            + (" (one is enough)" if allow_missing_plane else ""),
            found=outcome.record["reason"],
            advice="`mrknee import` lists every series with the reason",
        )
    lacks = missing_parts(
        outcome.record, studies[0].candidates, count_left_out(scan, studies[0]), outcome.failed
    )
    unread = (f"{reason} (files: {count})" for reason, count in scan.reasons.items())
    texts = (*outcome.record["warnings"], *lacks, *unread)
    remarks = [Remark("import", None, text) for text in texts]
    return Exam(exam_id, outcome.stacks, remarks=remarks, series=series)
