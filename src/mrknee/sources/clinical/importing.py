"""All studies of a source, into a folder in MRNet's layout, with ids of their own.

    OUT/{axial,coronal,sagittal}/NNNN.npy      or the folders of other declared series
    OUT/series.csv         which series these are, if not MRNet's
    OUT/import.json        what was taken, what was refused, and why

Nothing in it says whose studies they were. Ids come from the order of the studies' identifiers
after hashing, so the same source gets the same ids again, and their order means nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from mrknee import __version__
from mrknee.errors import DataError, MrkneeError, OutputError, SettingsError
from mrknee.exams import MRNET_SERIES, SeriesList, write_series, write_stack
from mrknee.exams.listing import declared_series
from mrknee.exams.stackfile import is_whole_stack
from mrknee.files import clear_half_written, contents, owned_folder, whole_file
from mrknee.progress import Progress
from mrknee.sources.clinical.content import content_digest
from mrknee.sources.clinical.knees import studies_of
from mrknee.sources.clinical.lacking import lacks
from mrknee.sources.clinical.nifti import is_nifti
from mrknee.sources.clinical.nifti_names import nifti_studies
from mrknee.sources.clinical.scanning import Scan, scan_source
from mrknee.sources.clinical.study import Choice, Study, needs_decoder, read_study
from mrknee.untrusted import read_json
from mrknee.workers import cores, map_in_processes, map_tasks

RECORD = "import.json"
UNFINISHED = ".import"
"""The folder inside OUT that holds the records of exams done so far."""
MAX_RECORD_BYTES = 256_000_000
"""Of import.json: some 100,000 exams."""


@dataclass(frozen=True)
class Imported:
    """What an import did.

    Attributes:
        exams: id -> its record, as in import.json.
        unreadable: why files of the source could not be read or are missing, and how many for
            each reason.
    """

    exams: Mapping[str, Mapping[str, Any]]
    unreadable: Mapping[str, int]

    @property
    def complete(self) -> bool:
        """Whether every study was taken whole, and every file read."""
        return not self.unreadable and all(
            exam["imported"] and not exam["incomplete"] for exam in self.exams.values()
        )

    def table(self) -> str:
        """A line an exam, and one for files that can't be read."""
        lines = []
        for exam_id, exam in self.exams.items():
            if exam["imported"]:
                shapes = [f"{name} {said['slices']}" for name, said in exam["planes"].items()]
                words = f"{exam['side'] or 'unknown side'}; slices: {', '.join(shapes)}"
                lines.append(f"{exam_id}  imported: {words}")
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
    keep_map: str | Path | None = None,
    workers: int | None = None,
) -> Imported:
    """Imports every study of a source.

    A study that can't be used is refused, with its reason in the result, and the others go on.
    An interrupted import is taken up by the same call: exams that are there, and were made from
    the same files, are kept.

    Args:
        source: a folder of any depth, a zip, a DICOMDIR, or a single file.
        out: a new or empty folder, or one that holds an import of the same source.
        series: the series to choose for each exam; other than MRNet's are declared in
            `out/series.csv`.
        choose: `series=SeriesInstanceUID`, to be used in place of the rule's choice.
        allow_missing_plane: take studies that lack series; one has to be there.
        any_body_part: take series as a knee's whatever BodyPartExamined says.
        keep_map: a file outside `out` to write identifiers to, readable by its owner only.
        workers: processes; default one a core.

    Raises:
        MrkneeError: the source holds no image, `out` holds something else (an import of other
            files, too), or an argument is impossible. No message names anything of the source.
    """
    source, out = Path(source), Path(out)
    keep_map = None if keep_map is None else Path(keep_map)
    choice = _choices(choose, series)
    if keep_map is not None and keep_map.resolve().is_relative_to(out.resolve()):
        raise OutputError(
            "the map would lie in the folder that is free of identifiers",
            code="map",
            file=keep_map,
            expected="a file outside the output folder",
        )
    if keep_map is not None:
        _refuse_other_file(keep_map)
    with owned_folder(out):
        wanted = _Wanted(series, choice, allow_missing_plane, any_body_part)
        return _import(source, out, wanted, keep_map, workers or cores())


@dataclass(frozen=True)
class _Wanted:
    """What a user asks of an import."""

    series: SeriesList
    choice: Choice
    allow_missing_plane: bool
    any_body_part: bool = False


def _import(
    source: Path, out: Path, wanted: _Wanted, keep_map: Path | None, processes: int
) -> Imported:
    scan = scan_source(source, processes)
    studies = in_id_order(scan, any_body_part=wanted.any_body_part)
    _check_choice(wanted.choice, studies)
    ids = {f"{index:04d}": study for index, study in enumerate(studies)}
    seal = _seal(studies, wanted)
    done, finished = _claim(out, seal)
    every = [
        _Task(out, exam_id, study, wanted, seal, _beside(scan, study))
        for exam_id, study in ids.items()
    ]
    same = _of_same_content(every, done, processes)
    if finished and len(same) < len(done):
        raise OutputError(
            "the folder holds a finished import of other files of the same studies",
            code="other-import",
            file=out / RECORD,
            found=f"{len(done) - len(same)} of {len(done)} exams were made from other content",
            advice="choose another folder, or remove this one",
        )
    for folder in (out, out / UNFINISHED, *(out / name for name in wanted.series.names)):
        clear_half_written(folder)
    _declare(out, wanted.series)
    if keep_map is not None:
        _write_map(keep_map, ids, scan)
    tasks = [t for t in every if t.exam_id not in same or not _is_there(out, t.exam_id, done)]
    with Progress(len(tasks), "import", "exams") as progress:
        for exam_id, record in _work(tasks, processes):
            done[exam_id] = record
            progress.advance()
    exams = {exam_id: done[exam_id] for exam_id in ids}
    _write_record(
        out,
        {
            **_head(seal, finished=True),
            "files": scan.counts,
            "unreadable": scan.reasons,
            "exams": exams,
        },
    )
    shutil.rmtree(out / UNFINISHED, ignore_errors=True)
    return Imported(exams, scan.reasons)


def _choices(choose: Sequence[str], series: SeriesList) -> Choice:
    """`series=SeriesInstanceUID` as declared series -> UIDs."""
    found: dict[str, set[str]] = {}
    for text in choose:
        name, equals, uid = text.partition("=")
        if name not in series.names or not equals or not uid.strip():
            raise SettingsError(
                "a choice can't be understood",
                code="choice",
                expected="series=SeriesInstanceUID, with a series of " + ", ".join(series.names),
                advice="--keep-map FILE writes the series' UIDs",
            )
        found.setdefault(name, set()).add(uid.strip())
    return {name: frozenset(uids) for name, uids in found.items()}


def _check_choice(choice: Choice, studies: Sequence[Study]) -> None:
    there = {one.series.first.series for study in studies for one in study.candidates}
    for name, uids in choice.items():
        if not uids <= there:
            raise SettingsError(
                f"the series chosen for {name} is not in the source",
                code="choice",
                expected="the SeriesInstanceUID of one of its series",
                advice="--keep-map FILE writes the series' UIDs",
            )


def _declare(out: Path, series: SeriesList) -> None:
    """Writes `series.csv`, unless the folder is read as these series without one."""
    try:
        known = declared_series(out)
    except DataError:  # a broken list beside the folder
        known = None
    if known != series:
        write_series(out, series)


def in_id_order(scan: Scan, *, any_body_part: bool = False) -> list[Study]:
    """The studies in the order of their ids, which says nothing about them."""
    volumes, nameless = nifti_studies(scan.volumes, any_body_part=any_body_part)
    for _ in range(nameless):
        scan.leave_out(PurePosixPath(), "a NIfTI file's name says no plane")
    studies = studies_of(scan.images, any_body_part=any_body_part) + volumes
    return sorted(
        studies,
        key=lambda study: hashlib.sha256(study.key.encode("utf-8", "surrogatepass")).digest(),
    )


def _seal(studies: Sequence[Study], wanted: _Wanted) -> str:
    """One number for a source and what is asked of it, to know it again by.

    It is a digest over all studies at once: it tells nothing to anyone who doesn't hold them all.
    """
    whole = hashlib.sha256()
    for study in studies:
        sizes = [(one.series.first.series, len(one.series.images)) for one in study.candidates]
        files = [one.series.first.location.name.name for one in study.candidates]
        whole.update(repr((study.key, sizes, files)).encode())
    asked = sorted((name, sorted(uids)) for name, uids in wanted.choice.items())
    whole.update(repr((__version__, asked, wanted.allow_missing_plane)).encode())
    if wanted.series != MRNET_SERIES:
        whole.update(repr(wanted.series.to_dicts()).encode())
    if wanted.any_body_part:
        whole.update(b"any body part")
    return whole.hexdigest()


def _head(seal: str, *, finished: bool) -> dict[str, Any]:
    return {"mrknee": __version__, "finished": finished, "source": seal}


def _claim(out: Path, seal: str) -> tuple[dict[str, Any], bool]:
    """Makes `out` ours, or refuses it.

    Returns:
        The records of exams that are done already, and whether that import was finished.
    """
    file = out / RECORD
    if out.exists() and not out.is_dir():
        raise OutputError(
            "not a folder", code="not-a-folder", file=out, expected="a new folder", found="a file"
        )
    if not file.exists():
        if not all(path.name.startswith(f".{RECORD}.") for path in contents(out)):
            raise OutputError(
                "the folder is not empty",
                code="not-empty",
                file=out,
                expected=f"a new or empty folder, or one with {RECORD}",
                advice="choose another folder",
            )
        _write_record(out, _head(seal, finished=False))
        return {}, False
    before = _read_json(file)
    if before.get("source") != seal:
        raise OutputError(
            "the folder holds an import of another source, or with other options",
            code="other-import",
            file=file,
            advice="choose another folder, or remove this one",
        )
    exams = before.get("exams")
    records = dict(exams) if isinstance(exams, dict) else {}
    for done in sorted((out / UNFINISHED).glob("[0-9]*.json")):
        with suppress(MrkneeError):  # a damaged record: the exam is read again
            records[done.stem] = _read_json(done)
    return records, before.get("finished") is True


def _beside(scan: Scan, study: Study) -> int:
    images = [image for one in study.candidates for image in one.series.images]
    return scan.left_beside(images)


def _of_same_content(tasks: Sequence[_Task], done: Mapping[str, Any], processes: int) -> set[str]:
    """The exams that are done, and were made from the files that are there now."""
    pairs = [(task, done[task.exam_id]) for task in tasks if task.exam_id in done]
    same = set()
    with Progress(len(pairs), "comparing files", "exams") as progress:
        for exam_id, is_same in map_tasks(_is_same_content, pairs, processes):
            if is_same:
                same.add(exam_id)
            progress.advance()
    return same


def _is_same_content(pair: tuple[_Task, Mapping[str, Any]]) -> tuple[str, bool]:
    task, record = pair
    try:
        now = content_digest(task.study, record, task.seal)
    except (KeyError, TypeError, AttributeError):  # a record of another form
        return task.exam_id, False
    return task.exam_id, record.get("content") == now


def _is_there(out: Path, exam_id: str, done: Mapping[str, Any]) -> bool:
    """Whether an exam was refused before, or all its stacks are there."""
    if exam_id not in done:
        return False
    return all(is_whole_stack(out / name / f"{exam_id}.npy") for name in done[exam_id]["planes"])


@dataclass(frozen=True)
class _Task:
    """One study to read and write."""

    out: Path
    exam_id: str
    study: Study
    wanted: _Wanted
    seal: str
    beside: int

    @property
    def begun(self) -> Path:
        """A file that is there while the study is being read."""
        return self.out / UNFINISHED / f"{self.exam_id}.begun"


def _write_exam(task: _Task) -> tuple[str, dict[str, Any]]:
    """Reads one study and writes its stacks, then its record."""
    begun = task.begun
    begun.parent.mkdir(parents=True, exist_ok=True)
    begun.touch()
    wanted = task.wanted
    outcome = read_study(
        task.study,
        wanted.choice,
        allow_missing_plane=wanted.allow_missing_plane,
        series=wanted.series,
    )
    for name in wanted.series.names:
        if name in outcome.stacks:
            write_stack(task.out, name, task.exam_id, outcome.stacks[name], among=wanted.series)
        else:  # an import of other files may have left one
            (task.out / name / f"{task.exam_id}.npy").unlink(missing_ok=True)
    candidates = task.study.candidates
    record = {
        **outcome.record,
        "incomplete": list(lacks(outcome.record, candidates, task.beside, outcome.failed)),
        "content": content_digest(task.study, outcome.record, task.seal),
    }
    _write_json(task.out / UNFINISHED / f"{task.exam_id}.json", record)
    begun.unlink()
    return task.exam_id, record


def _work(tasks: Sequence[_Task], processes: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Writes the exams; one that brings its process down is refused, and the others go on."""
    left = {task.exam_id: task for task in tasks}
    isolated = any(needs_decoder(task.study) for task in tasks)
    for task in tasks:
        task.begun.unlink(missing_ok=True)
    while left:
        try:
            for exam_id, record in map_tasks(
                _write_exam, [*left.values()], processes, isolated=isolated
            ):
                del left[exam_id]
                yield exam_id, record
        except BrokenProcessPool:
            isolated = True  # from now on nothing is read in this process
            # one of those that had begun: each gets a process of its own
            for task in [one for one in left.values() if one.begun.exists()] or [*left.values()]:
                del left[task.exam_id]
                yield _alone(task)


def _alone(task: _Task) -> tuple[str, dict[str, Any]]:
    """Writes an exam in a process of its own, or refuses it if that goes down."""
    try:
        return next(map_in_processes(_write_exam, [task], 1))
    except BrokenProcessPool:
        task.begun.unlink(missing_ok=True)
        reason = "reading it brought the program down: its files are damaged"
        record = {"imported": False, "reason": reason, "side": None, "planes": {}}
        record |= {"warnings": [], "incomplete": [], "candidates": []}
        return task.exam_id, record | {"content": content_digest(task.study, record, task.seal)}


def _refuse_other_file(keep_map: Path) -> None:
    """A map replaces nothing but a map: a source's files may have any name, and be anywhere."""
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
    """Writes which id is whose, and which files were left out, for its owner's eyes only."""
    content = {exam_id: _identifiers(study) for exam_id, study in ids.items()}
    content["left out"] = {str(name): reason for name, reason in scan.left_out if name.name}
    with whole_file(file) as beside:
        opener = partial(os.open, mode=0o600)
        with open(  # a mode; and names of files that are no UTF-8 are kept as JSON's escapes
            beside, "w", opener=opener, encoding="utf-8", errors="backslashreplace"
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


def _write_record(out: Path, content: Mapping[str, Any]) -> None:
    _write_json(out / RECORD, content)


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    with whole_file(file) as beside:
        beside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


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
