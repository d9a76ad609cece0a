"""Reading of one study: series by header and table, and the knee that is labelled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from mrknee.errors import MrkneeError
from mrknee.exams import USUAL_SERIES, Stack
from mrknee.sources.clinical.anatomy import Side, other_part
from mrknee.sources.clinical.completeness import missing_parts
from mrknee.sources.clinical.contrast import stated_fat_saturation
from mrknee.sources.clinical.framing import Framing
from mrknee.sources.clinical.importing import scanner_of
from mrknee.sources.clinical.knees import studies_of
from mrknee.sources.clinical.protocol import Candidate, ranked
from mrknee.sources.clinical.scanning import scan_folder
from mrknee.sources.clinical.study import Study, read_study
from mrknee.sources.clinical.writing import Record, Task, refused
from mrknee.sources.rsna2026.tables import SeriesRow

TWO_KNEES = "it shows two knees or examinations, and nothing states which one is labelled"


@dataclass(frozen=True)
class StudyTask(Task):
    """One study to import.

    Attributes:
        source: folder of the study, which contains a folder per series.
        split: split of the exam. A study of `test` becomes an exam even if it is unknown which of
            its knees is meant, because a submission needs a line for each.
        rows: lines of the table of series: series -> line.
        report_side: side that the report names.
        framing: size and width of the window.
        before: record of an earlier import.
    """

    source: Path
    split: str
    rows: Mapping[str, SeriesRow]
    report_side: Side | None
    framing: Framing
    before: Record | None


def import_study(task: StudyTask) -> tuple[str, Record]:
    """Reads a study and writes its exam, unless it was written from the same files before."""
    content = _content(task)
    before = task.before
    if before is not None and before["content"] == content and task.target.is_written(before):
        return task.target.exam_id, before
    task.target.start()
    try:
        stacks, record = _read(task)
    except MrkneeError as error:
        stacks, record = {}, refused(error.what)
    record = {"split": task.split, **record, "content": content}
    task.target.write(stacks, record, USUAL_SERIES)
    return task.target.exam_id, record


def crashed(task: StudyTask, record: Record) -> Record:
    """Completes the record of a study that crashed its process."""
    return {"split": task.split, **record, "content": _content(task)}


def _content(task: StudyTask) -> str:
    """Returns a digest of the names, sizes and times of a study's files, and of its table.

    The files themselves have hundreds of gigabytes, so they aren't read for this.
    """
    digest = sha256(repr((sorted(task.rows.items()), task.report_side)).encode())
    for path in sorted(task.source.rglob("*")):
        stat = path.stat() if path.exists() else None
        if stat is not None and path.is_file():
            name = path.relative_to(task.source).as_posix()
            digest.update(repr((name, stat.st_size, stat.st_mtime_ns)).encode())
    return digest.hexdigest()


def _read(task: StudyTask) -> tuple[Mapping[str, Stack], Record]:
    if not task.source.is_dir():
        return {}, refused("its folder is missing")
    scan = scan_folder(task.source)
    if not scan.images:
        return {}, refused("its folder contains no DICOM image")
    knees = studies_of(scan.images, any_body_part=True, first_stated=True)
    study, notes = _labelled_knee(task, knees)
    if study is None:
        return {}, {**refused(TWO_KNEES), "knees": len(knees)}
    study, disagreements = _with_table(study, task.rows)
    study = replace(study, notes=(*study.notes, *notes))
    outcome = read_study(
        study,
        {},
        allow_missing_plane=True,
        series=USUAL_SERIES,
        framing=task.framing,
        mirror_right=True,
    )
    images = [image for one in study.candidates for image in one.series.images]
    left_out = scan.left_out_near(images)
    incomplete = list(missing_parts(outcome.record, study.candidates, left_out, outcome.failed))
    absent = task.rows.keys() - {image.series for image in scan.images}
    if absent:
        incomplete.append(f"series of the table without a readable image: {len(absent)}")
    scanner = scanner_of(study)
    record = {
        **outcome.record,
        "reason": outcome.record["reason"] and _why_unusable(outcome.record),
        "incomplete": incomplete,
        "knees": len(knees),
        "unreadable_series": len(outcome.failed) + len(absent),
        "disagreements": disagreements,
        "other_body_part": [one.name for one in study.candidates if other_part(one.series.first)],
        "scanner": scanner and sha256(repr(scanner).encode()).hexdigest()[:16],
    }
    return outcome.stacks, record


def _why_unusable(record: Record) -> str:
    """Returns why none of a study's series is used, without their names, to count equal reasons."""
    reasons = {row["reason"] for row in record["candidates"]}
    return f"none of its series can be used: {'; '.join(sorted(reasons))}"


def _labelled_knee(task: StudyTask, knees: Sequence[Study]) -> tuple[Study | None, tuple[str, ...]]:
    """Returns the knee of a study to which its labels belong, and notes; None if unknown.

    Of several, the report decides if it names one side only. Several parts of one known side are
    examinations of the same knee: the one with most series is used.
    """
    usable = [one for one in knees if any(c.refusal is None for c in one.candidates)]
    if len(usable) < 2:
        return (usable or list(knees))[0], ()
    fullest = max(usable, key=_series_found)
    sides = {one.side for one in usable}
    if len(sides) == 1 and fullest.side is not None:
        return fullest, ("several examinations of one knee; the one with most series is used",)
    for one in usable:
        if one.side is not None and one.side == task.report_side:
            return one, ("it shows both knees; the one that the report names is used",)
    if task.split != "test":
        return None, ()
    return fullest, ("it shows both knees; the one with most series is used",)


def _series_found(study: Study) -> int:
    return sum(bool(ranked(study.candidates, declared)) for declared in USUAL_SERIES)


def _with_table(study: Study, rows: Mapping[str, SeriesRow]) -> tuple[Study, list[str]]:
    """Returns a study with the fat suppression that the table states where headers state none.

    Where header and table disagree, the header is used.

    Returns:
        The study, with a note per disagreement, and the disagreements: "s3: plane".
    """
    found: list[Candidate] = []
    disagreements, notes = [], []
    for one in study.candidates:
        row = rows.get(one.series.first.series)
        if row is None:
            found.append(one)
            continue
        stated = stated_fat_saturation(one.series)
        if stated is None and row.fat_suppressed is not None:
            one = replace(one, fat_saturated=row.fat_suppressed)
        odd = []
        if None not in (stated, row.fat_suppressed) and stated != row.fat_suppressed:
            odd.append("fat suppression")
        if None not in (one.plane, row.plane) and one.plane != row.plane:
            odd.append("plane")
        for about in odd:
            disagreements.append(f"{one.name}: {about}")
            notes.append(f"{one.name}: the table states another {about}; the header is used")
        found.append(one)
    return replace(study, candidates=tuple(found), notes=(*study.notes, *notes)), disagreements
