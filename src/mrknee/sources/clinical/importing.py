"""Import of all studies of a source into a folder in MRNet's layout, with new ids.

    OUT/{axial,coronal,sagittal}/NNNN.npy      or the folders of other declared series
    OUT/series.csv         the declared series, if not MRNet's
    OUT/sides.csv          with sides="left": the side of each exam, and whether it was mirrored
    OUT/groups.csv         with scanner_groups: exams of one scanner
    OUT/import.json        what was imported, what was refused, and why

The folder contains nothing that identifies patients. Ids number the studies in the order of their
hashed identifiers: the same source gets the same ids again, and the order has no meaning.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from mrknee import __version__
from mrknee.errors import DataError, MrkneeError, OutputError, SettingsError
from mrknee.exams import (
    MRNET_SERIES,
    ExamSide,
    SeriesList,
    write_groups,
    write_series,
    write_sides,
)
from mrknee.exams.listing import declared_series
from mrknee.files import atomic_write, list_folder, owned_folder, remove_incomplete
from mrknee.progress import Progress
from mrknee.sources.clinical.completeness import missing_parts
from mrknee.sources.clinical.digest import content_digest
from mrknee.sources.clinical.framing import MRNET_FRAMING, SIZE, Framing
from mrknee.sources.clinical.knees import studies_of
from mrknee.sources.clinical.nifti import is_nifti
from mrknee.sources.clinical.nifti_names import nifti_studies
from mrknee.sources.clinical.scanning import Scan, scan_source
from mrknee.sources.clinical.study import Choice, Study, needs_decoder, read_study
from mrknee.sources.clinical.writing import Record, Target, Task, write_exams, write_record
from mrknee.untrusted import read_json
from mrknee.workers import cores, map_tasks

RECORD = "import.json"
UNFINISHED = ".import"
"""Folder inside OUT with the records of the exams written so far."""
MAX_RECORD_BYTES = 256_000_000
"""Maximum size of import.json: some 100,000 exams."""
MANY_UNCHANGED = 20
"""Minimum number of exams per worker process to compare with an earlier import: a process starts in
about the time in which an exam is read."""

Sides = Literal["as-imaged", "left"]
"""Knees as they were imaged, or right knees mirrored to look like left ones."""


@dataclass(frozen=True)
class Imported:
    """Result of an import.

    Attributes:
        exams: exam id -> record, as in import.json.
        unreadable: reason -> number of files of the source that can't be read or are missing.
    """

    exams: Mapping[str, Mapping[str, Any]]
    unreadable: Mapping[str, int]

    @property
    def complete(self) -> bool:
        """Whether every study was imported completely and every file was read."""
        return not self.unreadable and all(
            exam["imported"] and not exam["incomplete"] for exam in self.exams.values()
        )

    def table(self) -> str:
        """Returns one line per exam, and one per reason for files that can't be read."""
        lines = []
        for exam_id, exam in self.exams.items():
            if exam["imported"]:
                counts = [f"{name} {plane['slices']}" for name, plane in exam["planes"].items()]
                side = f"{exam['side'] or 'unknown side'}{', mirrored' * exam['mirrored']}"
                summary = f"{side}; slices: {', '.join(counts)}"
                lines.append(f"{exam_id}  imported: {summary}")
            else:
                lines.append(f"{exam_id}  refused: {exam['reason']}")
            lines += [f"      incomplete: {lack}" for lack in exam["incomplete"]]
            lines += [f"      note: {warning}" for warning in exam["warnings"]]
        lines += [
            f"{count} file{'' if count == 1 else 's'}: {reason}"
            for reason, count in self.unreadable.items()
        ]
        return "\n".join(lines)


def import_exams(
    source: str | Path,
    out: str | Path,
    *,
    series: SeriesList = MRNET_SERIES,
    choose: Sequence[str] = (),
    allow_missing_plane: bool = False,
    any_body_part: bool = False,
    size: int = SIZE,
    crop_mm: float | None = None,
    sides: Sides = "as-imaged",
    scanner_groups: bool = False,
    keep_map: str | Path | None = None,
    workers: int | None = None,
) -> Imported:
    """Imports every study of a source.

    A study that can't be used is refused, with the reason in the result; the other studies are
    imported. The same call resumes an interrupted import: exams that were written from the same
    files are kept.

    Args:
        source: a folder of any depth, a zip, a DICOMDIR, or a single file.
        out: a new or empty folder, or one with an import of the same source.
        series: series to choose for each exam; if not MRNet's, they are declared in
            `out/series.csv`.
        choose: items `series=SeriesInstanceUID`, used instead of the rule's choice.
        allow_missing_plane: accept studies with at least one of the series.
        any_body_part: ignore BodyPartExamined.
        size: rows and columns of a slice.
        crop_mm: width of the square window around the joint, mm; None uses the width of the field,
            at most 180 mm.
        sides: "left" mirrors right knees, so that all look like left ones, and writes `sides.csv`.
            The side is then the first that the header, descriptions or the position state.
        scanner_groups: write `groups.csv` with a group per scanner, for exams whose headers
            distinguish it, unless all are of one scanner.
        keep_map: file outside `out` for the identifiers, readable by its owner only.
        workers: number of processes; by default one per core.

    Raises:
        MrkneeError: the source holds no image, `out` holds something else (such as an import of
            other files), or an argument is invalid. No message quotes anything from the source.
    """
    source, out = Path(source), Path(out)
    keep_map = None if keep_map is None else Path(keep_map)
    choice = _choices(choose, series)
    if keep_map is not None and keep_map.resolve().is_relative_to(out.resolve()):
        raise OutputError(
            "the map of identifiers would be in the output folder",
            code="map",
            file=keep_map,
            expected="a file outside the output folder",
        )
    if keep_map is not None:
        _refuse_other_file(keep_map)
    with owned_folder(out):
        options = _Options(
            series,
            choice,
            allow_missing_plane,
            any_body_part,
            Framing(size, crop_mm),
            sides,
            scanner_groups,
        )
        return _import(source, out, options, keep_map, workers or cores())


@dataclass(frozen=True)
class _Options:
    """Options of an import."""

    series: SeriesList
    choice: Choice
    allow_missing_plane: bool
    any_body_part: bool = False
    framing: Framing = MRNET_FRAMING
    sides: Sides = "as-imaged"
    scanner_groups: bool = False


def _import(
    source: Path, out: Path, options: _Options, keep_map: Path | None, processes: int
) -> Imported:
    scan = scan_source(source, processes)
    studies = in_id_order(scan, any_body_part=options.any_body_part, sides=options.sides)
    _check_choice(options.choice, studies)
    ids = {f"{index:04d}": study for index, study in enumerate(studies)}
    source_digest = _source_digest(studies, options)
    done, finished = open_output(out, source_digest)
    every = [
        _Task(
            Target(exam_id, out, out / UNFINISHED),
            study,
            options,
            source_digest,
            count_left_out(scan, study),
        )
        for exam_id, study in ids.items()
    ]
    same = _unchanged_exams(every, done, processes)
    if finished and len(same) < len(done):
        raise OutputError(
            "the folder holds a finished import of other files of the same studies",
            code="other-import",
            file=out / RECORD,
            found=f"{len(done) - len(same)} of {len(done)} exams from other content",
            advice="choose another folder, or remove this one",
        )
    for folder in (out, out / UNFINISHED, *(out / name for name in options.series.names)):
        remove_incomplete(folder)
    _write_series_list(out, options.series)
    if keep_map is not None:
        _write_map(keep_map, ids, scan)
    tasks = [
        task
        for task in every
        if task.target.exam_id not in same or not task.target.is_written(done[task.target.exam_id])
    ]
    isolated = any(needs_decoder(task.study) for task in tasks)
    with Progress(len(tasks), "import", "exams") as progress:
        for exam_id, record in write_exams(
            tasks, _write_exam, _with_digest, processes, isolated=isolated
        ):
            done[exam_id] = record
            progress.advance()
    exams = {exam_id: done[exam_id] for exam_id in ids}
    if options.sides == "left":
        write_sides(out, sides_of(exams))
    if options.scanner_groups:
        scanners = {i: scanner_of(study) for i, study in ids.items() if exams[i]["imported"]}
        groups = numbered_groups(scanners)
        one_scanner = len(set(groups.values())) == 1 and len(groups) == len(scanners)
        if groups and not one_scanner:
            write_groups(out, groups)
    write_record(
        out / RECORD,
        {
            **record_head(source_digest, finished=True),
            "files": scan.counts,
            "unreadable": scan.reasons,
            "exams": exams,
        },
    )
    shutil.rmtree(out / UNFINISHED, ignore_errors=True)
    return Imported(exams, scan.reasons)


def _choices(choose: Sequence[str], series: SeriesList) -> Choice:
    """Parses items `series=SeriesInstanceUID` into declared series -> UIDs."""
    found: dict[str, set[str]] = {}
    for text in choose:
        name, equals, uid = text.partition("=")
        if name not in series.names or not equals or not uid.strip():
            raise SettingsError(
                "an invalid choice of a series",
                code="choice",
                expected="series=SeriesInstanceUID, with one of " + ", ".join(series.names),
                advice="--keep-map FILE writes the series' UIDs",
            )
        found.setdefault(name, set()).add(uid.strip())
    return {name: frozenset(uids) for name, uids in found.items()}


def _check_choice(choice: Choice, studies: Sequence[Study]) -> None:
    present = {one.series.first.series for study in studies for one in study.candidates}
    for name, uids in choice.items():
        if not uids <= present:
            raise SettingsError(
                f"the series chosen for {name} is not in the source",
                code="choice",
                expected="the SeriesInstanceUID of one of its series",
                advice="--keep-map FILE writes the series' UIDs",
            )


def _write_series_list(out: Path, series: SeriesList) -> None:
    """Writes `series.csv`, unless the folder is read with these series without it."""
    try:
        known = declared_series(out)
    except DataError:  # a broken list next to the folder
        known = None
    if known != series:
        write_series(out, series)


def sides_of(exams: Mapping[str, Mapping[str, Any]]) -> dict[str, ExamSide]:
    """Returns the side of each imported exam, by its record."""
    return {
        exam_id: ExamSide(exam["side"], exam["mirrored"])
        for exam_id, exam in exams.items()
        if exam["imported"]
    }


def scanner_of(study: Study) -> tuple[str, ...] | None:
    """Returns what distinguishes a study's scanner; None if its headers state too little."""
    # a refused one may come from elsewhere, such as a screenshot of a workstation
    first = min(study.candidates, key=lambda one: one.refusal is not None).series.first
    manufacturer, model, serial, field, frequency = first.scanner
    if serial:
        return manufacturer, model, serial
    return (manufacturer, model, field, frequency) if model and (field or frequency) else None


def numbered_groups(keys: Mapping[str, object]) -> dict[str, str]:
    """Returns a group per exam with a key: equal for equal keys, numbered by first appearance."""
    numbers: dict[object, int] = {}
    return {
        exam_id: f"group {numbers.setdefault(key, len(numbers) + 1)}"
        for exam_id, key in keys.items()
        if key is not None
    }


def in_id_order(
    scan: Scan, *, any_body_part: bool = False, sides: Sides = "as-imaged"
) -> list[Study]:
    """Groups the images of a scan into studies, in the order of their hashed keys."""
    volumes, nameless = nifti_studies(scan.volumes, scan.source, any_body_part=any_body_part)
    for location in nameless:
        scan.counts["nifti"] -= 1
        scan.leave_out(location.name, "the name of a NIfTI file states no plane")
    studies = studies_of(
        scan.images, scan.source, any_body_part=any_body_part, first_stated=sides == "left"
    )
    studies += volumes
    return sorted(
        studies,
        key=lambda study: hashlib.sha256(study.key.encode("utf-8", "surrogatepass")).digest(),
    )


def _source_digest(studies: Sequence[Study], options: _Options) -> str:
    """Returns a digest of a source and the options, by which a resumed import recognises them.

    It covers all studies at once, so that it reveals nothing without all of them.
    """
    digest = hashlib.sha256()
    for study in studies:
        sizes = [(one.series.first.series, len(one.series.images)) for one in study.candidates]
        files = [one.series.first.location.name.name for one in study.candidates]
        digest.update(repr((study.key, sizes, files)).encode())
    requested = sorted((name, sorted(uids)) for name, uids in options.choice.items())
    digest.update(repr((__version__, requested, options.allow_missing_plane)).encode())
    if options.series != MRNET_SERIES:
        digest.update(repr(options.series.to_dicts()).encode())
    if options.any_body_part:
        digest.update(b"any body part")
    if options.framing != MRNET_FRAMING:
        digest.update(repr(options.framing).encode())
    if options.sides != "as-imaged":
        digest.update(options.sides.encode())
    return digest.hexdigest()


def record_head(source_digest: str, *, finished: bool) -> dict[str, Any]:
    """Returns the first entries of import.json."""
    return {"mrknee": __version__, "finished": finished, "source": source_digest}


def open_output(out: Path, source_digest: str) -> tuple[dict[str, Any], bool]:
    """Starts or resumes an import into `out`.

    Returns:
        The records of exams that were written before, and whether that import was finished.

    Raises:
        OutputError: `out` holds something other than an import of the same source and options.
    """
    file = out / RECORD
    if out.exists() and not out.is_dir():
        raise OutputError(
            "not a folder", code="not-a-folder", file=out, expected="a new folder", found="a file"
        )
    if not file.exists():
        if not all(path.name.startswith(f".{RECORD}.") for path in list_folder(out)):
            raise OutputError(
                "the folder is not empty",
                code="not-empty",
                file=out,
                expected=f"a new or empty folder, or one with {RECORD}",
                advice="choose another folder",
            )
        write_record(file, record_head(source_digest, finished=False))
        return {}, False
    before = _read_json(file)
    if before.get("source") != source_digest:
        raise OutputError(
            "the folder holds an import of another source, or with other options",
            code="other-import",
            file=file,
            advice="choose another folder, or remove this one",
        )
    exams = before.get("exams")
    records = dict(exams) if isinstance(exams, dict) else {}
    for done in sorted((out / UNFINISHED).glob("*.json")):
        with suppress(MrkneeError):  # the exam of a damaged record is read again
            records[done.stem] = _read_json(done)
    return records, before.get("finished") is True


def count_left_out(scan: Scan, study: Study) -> int:
    """Counts the files left out in the folders of a study's images."""
    images = [image for one in study.candidates for image in one.series.images]
    return scan.left_out_near(images)


def _unchanged_exams(tasks: Sequence[_Task], done: Mapping[str, Any], processes: int) -> set[str]:
    """Returns the ids of exams that were written before from the present content of the files."""
    pairs = [(task, done[task.target.exam_id]) for task in tasks if task.target.exam_id in done]
    same = set()
    with Progress(len(pairs), "comparing files", "exams") as progress:
        workers = max(1, min(processes, len(pairs) // MANY_UNCHANGED))
        for exam_id, unchanged in map_tasks(_is_unchanged, pairs, workers):
            if unchanged:
                same.add(exam_id)
            progress.advance()
    return same


def _is_unchanged(pair: tuple[_Task, Mapping[str, Any]]) -> tuple[str, bool]:
    task, record = pair
    try:
        now = content_digest(task.study, record, task.source_digest)
    except (KeyError, TypeError, AttributeError):  # a record of another format
        return task.target.exam_id, False
    return task.target.exam_id, record.get("content") == now


@dataclass(frozen=True)
class _Task(Task):
    """One study to read and write.

    Attributes:
        study: headers of the study.
        options: options of the import.
        source_digest: digest of the source and the options.
        left_out: number of files left out in the folders of the study's images.
    """

    study: Study
    options: _Options
    source_digest: str
    left_out: int


def _write_exam(task: _Task) -> tuple[str, Record]:
    """Reads one study and writes its stacks, then its record."""
    task.target.start()
    options = task.options
    outcome = read_study(
        task.study,
        options.choice,
        allow_missing_plane=options.allow_missing_plane,
        series=options.series,
        framing=options.framing,
        mirror_right=options.sides == "left",
    )
    candidates = task.study.candidates
    incomplete = missing_parts(outcome.record, candidates, task.left_out, outcome.failed)
    record = _with_digest(task, {**outcome.record, "incomplete": list(incomplete)})
    task.target.write(outcome.stacks, record, options.series)
    return task.target.exam_id, record


def _with_digest(task: _Task, record: Record) -> Record:
    """Adds the digest of the content that an exam was read from to its record."""
    return {**record, "content": content_digest(task.study, record, task.source_digest)}


def _refuse_other_file(keep_map: Path) -> None:
    """Refuses to overwrite anything but an earlier map, such as a file of the source."""
    if keep_map.is_file():
        with keep_map.open("rb") as file:
            if not re.match(rb'\{\n "\d+": \{', file.read(40)):
                raise OutputError(
                    "the map would replace another file",
                    code="would-replace",
                    file=keep_map,
                    expected="a new name, or a map that an earlier import wrote",
                )


def _write_map(file: Path, ids: Mapping[str, Study], scan: Scan) -> None:
    """Writes the identifiers per exam id and the files left out, readable by the owner only."""
    content = {exam_id: _identifiers(study) for exam_id, study in ids.items()}
    content["left out"] = {str(name): reason for name, reason in scan.left_out}
    with atomic_write(file) as temporary:
        opener = partial(os.open, mode=0o600)
        with open(  # owner-only mode; file names that aren't UTF-8 are kept as JSON escapes
            temporary, "w", opener=opener, encoding="utf-8", errors="backslashreplace"
        ) as text:
            text.write(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _identifiers(study: Study) -> dict[str, Any]:
    first = study.candidates[0].series.first
    if is_nifti(first.location):
        files = {one.name: str(one.series.first.location.name) for one in study.candidates}
        return {"files": files}
    return {
        "StudyInstanceUID": first.study,
        "PatientID": first.patient,
        "AccessionNumber": first.accession,
        "side": study.side,
        "series": {one.name: one.series.first.series for one in study.candidates},
    }


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = read_json(file, "record of the import", at_most=MAX_RECORD_BYTES)
    except MrkneeError:
        content = None
    if not isinstance(content, dict):
        raise OutputError(
            "a record of the import is damaged",
            code="import-record",
            file=file,
            advice="remove the folder",
        )
    return content
