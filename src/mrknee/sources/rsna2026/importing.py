"""Import of RSNA's data set of 2026 into a data set with soft labels, groups and sides.

    OUT/data/{train,valid,test}/{series}/ID.npy    one exam per study; ids are StudyInstanceUIDs
    OUT/data/{train,valid}-{finding}.csv           mean of the label tables; experts' labels
    OUT/data/series.csv, findings.csv, groups.csv, sides.csv
    OUT/import.json                                per study: what was used or refused, and why

Studies with experts' labels are the split `valid` and never in `train`. docs/how-to/rsna-2026.md
and docs/reference/rsna-import.md describe the rules; change them together.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Literal

from mrknee import __version__
from mrknee.errors import DataError, OutputError
from mrknee.exams import (
    RSNA_2026_FINDINGS,
    USUAL_SERIES,
    label_files,
    read_labels,
    write_findings,
    write_groups,
    write_labels,
    write_series,
    write_sides,
)
from mrknee.files import owned_folder, remove_incomplete
from mrknee.progress import Progress
from mrknee.sources.clinical.framing import Framing
from mrknee.sources.clinical.importing import (
    RECORD,
    UNFINISHED,
    numbered_groups,
    open_output,
    record_head,
    sides_of,
)
from mrknee.sources.clinical.writing import Record, Target, write_exams, write_record
from mrknee.sources.rsna2026.study import StudyTask, crashed, import_study
from mrknee.sources.rsna2026.summary import RsnaImport
from mrknee.sources.rsna2026.tables import (
    LabelTable,
    TrainStudy,
    average,
    read_label_table,
    read_series_table,
    read_test,
    read_train,
)
from mrknee.workers import cores

SIZE = 288
"""Rows and columns of a slice."""
CROP_MM = 140.0
"""Width of the window, mm: the knee without most of thigh and calf. Fields are 130 to 205 mm wide,
so without a fixed width the scale would differ by a factor of 1.6."""

Part = Literal["train", "test"]
PARTS: tuple[Part, ...] = ("train", "test")
DATA = "data"


def import_rsna(
    source: str | Path,
    out: str | Path,
    *,
    labels: Sequence[str | Path] = (),
    only: Part | None = None,
    size: int = SIZE,
    crop_mm: float = CROP_MM,
    workers: int | None = None,
) -> RsnaImport:
    """Imports RSNA's data set of 2026.

    The same call resumes an interrupted import. A study is read again only if its files or its
    lines in the tables changed; labels, groups and sides are written again each time, so that the
    same call with other label tables is fast. Without label tables, those of an earlier call are
    kept.

    Args:
        source: the data set's folder, with `train.csv`, `train_series.csv`, `train_series/`, and
            the same for `test`.
        out: a new or empty folder, or one with an earlier import with the same size and crop.
        labels: CSV files with labels of the training studies, whose means are the soft labels.
        only: import the studies of `train.csv` or of `test.csv` only.
        size: rows and columns of a slice.
        crop_mm: width of the square window around the joint, mm.
        workers: number of processes; by default one per core.

    Raises:
        MrkneeError: a table is missing or can't be used, `out` holds something else, or an argument
            is invalid.
    """
    source, out = Path(source), Path(out)
    framing = Framing(size, crop_mm)
    tables = [read_label_table(Path(file)) for file in labels]
    parts = PARTS if only is None else (only,)
    train = read_train(source / "train.csv") if "train" in parts else {}
    test = read_test(source / "test.csv") if "test" in parts else []
    splits = {uid: "valid" if study.labels else "train" for uid, study in train.items()}
    for uid in test:
        if splits.setdefault(uid, "test") != "test":
            raise DataError(
                "a study is in both train.csv and test.csv",
                code="table",
                file=source / "test.csv",
                exam=uid,
            )
    rows = {part: read_series_table(source / f"{part}_series.csv") for part in parts}
    for part in parts:
        _require_folder(source / f"{part}_series")
    with owned_folder(out):
        digest = sha256(repr(("rsna2026", __version__, framing)).encode()).hexdigest()
        done, _ = open_output(out, digest)
        _refuse_other_splits(out / DATA, splits, parts)
        tasks = [
            StudyTask(
                Target(uid, out / DATA / split, out / UNFINISHED),
                source / f"{_part(split)}_series" / uid,
                split=split,
                rows=rows[_part(split)].get(uid, {}),
                report_side=train[uid].side if uid in train else None,
                framing=framing,
                before=done.get(uid),
            )
            for uid, split in splits.items()
        ]
        started = time.monotonic()
        records = _import_studies(tasks, workers)
        seconds = time.monotonic() - started
        read = sum(task.before != records[task.target.exam_id] for task in tasks)
        kept = {uid: exam for uid, exam in done.items() if _part(exam["split"]) not in parts}
        exams = {**kept, **{uid: records[uid] for uid in splits}}
        groups = _groups(exams, train)
        means = average(tables) if tables else _earlier_labels(out / DATA)
        _write_tables(out / DATA, exams, groups, train, means)
        write_record(out / RECORD, {**record_head(digest, finished=True), "exams": exams})
        shutil.rmtree(out / UNFINISHED, ignore_errors=True)
    experts = {uid for uid, split in splits.items() if split == "valid"}
    return RsnaImport(
        exams, groups, means, _remarks(tables, labels, splits, experts), read, seconds
    )


def _part(split: str) -> Part:
    return "test" if split == "test" else "train"


def _require_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise DataError(
            "the folder of the studies is missing",
            code="no-source",
            file=folder,
            expected="a folder per study, which contains a folder per series",
            advice="unpack the data set completely, and give the folder that contains train.csv",
        )


def _refuse_other_splits(data: Path, splits: Mapping[str, str], parts: Sequence[Part]) -> None:
    """Refuses a folder in which a study is in another split than the tables state.

    Otherwise a study that has got experts' labels since an earlier import would be trained on.
    """
    for split in ("train", "valid", "test"):
        if _part(split) not in parts:
            continue
        for file in (data / split).glob("*/*.npy"):
            if splits.get(file.stem) != split:
                raise OutputError(
                    "the folder holds an import of other studies, or with other experts' labels",
                    code="other-import",
                    file=data / split,
                    exam=file.stem,
                    expected=f"only studies of {split}, by {_part(split)}.csv",
                    advice="choose another folder, or remove this one",
                )


def _import_studies(tasks: Sequence[StudyTask], workers: int | None) -> dict[str, Record]:
    """Reads and writes all studies; returns the records."""
    processes = workers or cores()
    isolated = workers != 1  # images may need a decoder, which may crash
    for folder in {task.target.folder for task in tasks}:
        for name in USUAL_SERIES.names:
            remove_incomplete(folder / name)
    records: dict[str, Record] = {}
    with Progress(len(tasks), "import", "studies") as progress:
        for uid, record in write_exams(tasks, import_study, crashed, processes, isolated=isolated):
            records[uid] = record
            progress.advance()
    return records


def _groups(exams: Mapping[str, Record], train: Mapping[str, TrainStudy]) -> dict[str, str]:
    """Returns study -> group: studies that share a report or a scanner, also over others.

    A report's text and a scanner's settings are typical of a hospital, so that a network that knows
    them knows something about the labels.
    """
    parents: dict[object, object] = {}

    def root(key: object) -> object:
        while parents.setdefault(key, key) != key:
            key = parents[key]
        return key

    labelled = [uid for uid in train if exams[uid]["imported"]]
    for uid in labelled:
        keys = (("report", train[uid].report), ("scanner", exams[uid]["scanner"]))
        for key in keys:
            if key[1] is not None:
                parents[root(key)] = root(uid)
    return numbered_groups({uid: root(uid) for uid in labelled})


def _write_tables(
    data: Path,
    exams: Mapping[str, Record],
    groups: Mapping[str, str],
    train: Mapping[str, TrainStudy],
    means: Mapping[str, Mapping[str, float]],
) -> None:
    """Writes series, findings, sides, and, if they were imported, groups and labels."""
    write_series(data, USUAL_SERIES)
    write_findings(data, RSNA_2026_FINDINGS)
    write_sides(data, sides_of(exams))
    if not train:
        return
    write_groups(data, groups)
    imported = {
        split: {uid for uid, exam in exams.items() if exam["imported"] and exam["split"] == split}
        for split in ("train", "valid")
    }
    for name in RSNA_2026_FINDINGS:
        experts = {uid: one.labels[name] for uid, one in train.items() if uid in imported["valid"]}
        if experts:
            write_labels(data, "valid", name, experts)
        soft = {uid: p for uid, p in means.get(name, {}).items() if uid in imported["train"]}
        if soft:
            write_labels(data, "train", name, soft)
        else:  # of an earlier import
            (data / f"train-{name}.csv").unlink(missing_ok=True)


def _earlier_labels(data: Path) -> dict[str, dict[str, float]]:
    """Returns finding -> study -> soft label of an earlier import; empty if there was none."""
    return {
        name: read_labels(file, soft=True) for name, file in label_files(data / "train").items()
    }


def _remarks(
    tables: Sequence[LabelTable],
    files: Sequence[str | Path],
    splits: Mapping[str, str],
    experts: set[str],
) -> list[str]:
    """Returns what the label tables contain that isn't used, one sentence each."""
    found = []
    for table, file in zip(tables, files, strict=True):
        name = Path(file).name
        if table.unused:
            found.append(f"{name}: columns not used: {', '.join(table.unused)}")
        without = [title for n, title in RSNA_2026_FINDINGS.items() if n not in table.labels]
        if without:
            found.append(f"{name}: no column for {', '.join(without)}")
        others = [uid for uid in table.studies if splits.get(uid) not in ("train", "valid")]
        if others:
            found.append(
                f"{name}: {len(others)} of {len(table.studies)} studies aren't in train.csv"
            )
        labelled = experts.intersection(table.studies)
        if labelled:
            found.append(
                f"{name}: {len(labelled)} studies have experts' labels, which are used instead, in "
                "the split valid only"
            )
    return found
