"""Record of the data that a run is trained on (`data.json`), to detect changes when it is resumed.

The record holds, for every exam that is read, the labels, and for each file of a stack its size,
time of modification and a digest of a sample of its bytes. Starts are compared by size, digest and
labels. The time is informative only, because copying a data set changes it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from mrknee.errors import MrkneeError
from mrknee.exams import Dataset, Findings
from mrknee.progress import track
from mrknee.run_folder import RunFolder
from mrknee.training.parts import Parts
from mrknee.untrusted import read_json

VERSION = 1
"""Version of the file format."""

COMPLETE_BYTES = 262_144
"""Files up to this size are read completely."""

BLOCK_BYTES, SAMPLE_BYTES = 65_536, 4_096
"""Of larger files, one sample per block is read: a block is an MRNet slice (256 x 256 pixels), a
sample the smallest unit of disk reads. A change of a complete slice or stack is always detected; a
change of a few rows of one slice may be missed."""

_MAX_BYTES = 256_000_000  # an exam has about 400 bytes
_MAX_NAMED = 10  # maximum number of exams listed per type of change

DataRecord = dict[str, Any]


def record_data(parts: Parts) -> DataRecord:
    """Records the current content of a run's exams, as plain values.

    Reads about a sixteenth of the data set.

    Raises:
        OSError: a file can't be read.
    """
    used: dict[str, tuple[Dataset, int]] = {}
    for exams, positions in (
        (parts.train, parts.train_positions),
        (parts.selection, parts.selection_positions),
        (parts.valid, range(0 if parts.valid is None else len(parts.valid))),
    ):
        if exams is not None:
            for position in positions:
                used[f"{exams.folder.name}/{exams.ids[position]}"] = (exams, position)
    recorded = {}
    for name, (exams, position) in track(sorted(used.items()), len(used), "sampling the data"):
        labels = dict(zip(exams.findings or (), exams.labels[position].tolist(), strict=True))
        recorded[name] = {
            "stacks": {p: _record_file(file) for p, file in exams.files_of(position).items()},
            "labels": {n: _json_label(label) for n, label in labels.items()},
        }
    return {"version": VERSION, "exams": recorded}


def to_json(record: DataRecord) -> str:
    """Returns the record as JSON, one line per exam."""
    lines = [
        f"{json.dumps(name)}: {json.dumps(exam, ensure_ascii=False)}"
        for name, exam in record["exams"].items()
    ]
    return f'{{"version": {record["version"]}, "exams": {{\n' + ",\n".join(lines) + "\n}}\n"


def read_record(out: Path) -> DataRecord | None:
    """Reads the record of an earlier start; None if it is missing or can't be compared."""
    if not RunFolder(out).data.exists():
        return None  # a run of an earlier version
    try:
        content = read_json(RunFolder(out).data, "record of the data", at_most=_MAX_BYTES)
        for exam in content["exams"].values():
            assert isinstance(exam["labels"], dict)  # noqa: S101  # caught below
            assert all(stack["bytes"] >= 0 and stack["sample"] for stack in exam["stacks"].values())  # noqa: S101
    except (MrkneeError, AssertionError, AttributeError, KeyError, TypeError):
        return None  # a broken record is written again
    return content if content.get("version") == VERSION else None


def previous_record(out: Path) -> DataRecord | None:
    """Reads the record of the data that a run has been trained on; None if there is none."""
    folder = RunFolder(out)
    if not any(f.exists() for f in (folder.state, folder.previous_state, folder.scorecard)):
        return None
    return read_record(out)


def compare_data(out: Path, parts: Parts) -> tuple[str, list[str]]:
    """Returns the record of the data as text, and its changes since the run was started.

    A run without a saved state starts again, so there is nothing to compare with. Otherwise the
    record of the first start is kept.
    """
    now, before = record_data(parts), previous_record(out)
    return (
        (to_json(now), []) if before is None else (to_json(before), describe_changes(before, now))
    )


def recorded_findings(record: DataRecord) -> Findings | None:
    """Returns the findings in a record; None if it holds no exam."""
    names = dict.fromkeys(name for exam in record["exams"].values() for name in exam["labels"])
    return Findings(names) if names else None


def describe_changes(before: DataRecord, now: DataRecord) -> list[str]:
    """Describes the changes between two starts, one text per type of change; empty if none.

    Only exams in both records are compared: other exams are refused before (`split.csv`).
    """
    pixels, labels = {}, {}
    for name in before["exams"].keys() & now["exams"].keys():
        old, new = before["exams"][name], now["exams"][name]
        planes = _differing(_content(old["stacks"]), _content(new["stacks"]))
        findings = _differing(old["labels"], new["labels"])
        if planes:
            pixels[name] = planes
        if findings:
            labels[name] = findings
    changes = []
    if pixels:
        changes.append(f"other pixels in {_list_exams(pixels)}")
    if labels:
        changes.append(f"other labels in {_list_exams(labels)}")
    return changes


def changes_warning(changes: Iterable[str]) -> str:
    """Returns the text of a warning about `describe_changes`."""
    lines = [f"  {change}" for change in changes]
    return "\n".join(
        [
            "warning: the data has changed since this run was started:",
            *lines,
            "  its result depends on both versions; start a new run to use the current data only",
        ]
    )


def _content(stacks: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[Any, Any]]:
    return {str(name): (stack["bytes"], stack["sample"]) for name, stack in stacks.items()}


def _differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [
        name
        for name in dict.fromkeys([*before, *now])
        if name not in before or name not in now or before[name] != now[name]
    ]


def _list_exams(changed: Mapping[str, list[str]]) -> str:
    """Formats exams, for example `2 exams: train/0003 (axial), train/0007 (axial, coronal)`."""
    count = "1 exam" if len(changed) == 1 else f"{len(changed):,} exams"
    named = [f"{name} ({', '.join(parts)})" for name, parts in sorted(changed.items())]
    return f"{count}: {', '.join(named[:_MAX_NAMED])}{', ...' if len(named) > _MAX_NAMED else ''}"


def _json_label(label: float) -> float | None:
    """Converts a label for JSON: 0 and 1 as integers, as in earlier versions, and NaN as None."""
    if np.isnan(label):
        return None
    return int(label) if label.is_integer() else label


def _record_file(file: Path) -> DataRecord:
    with file.open("rb") as opened:
        status = os.fstat(opened.fileno())
        digest = blake2b(digest_size=16)
        for start, length in _samples(status.st_size):
            digest.update(os.pread(opened.fileno(), length, start))
    modified = datetime.fromtimestamp(status.st_mtime, UTC).isoformat(timespec="seconds")
    return {"bytes": status.st_size, "modified": modified, "sample": digest.hexdigest()}


def _samples(size: int) -> Iterable[tuple[int, int]]:
    """Yields start and length of each sample of a file that is read, in bytes.

    The first sample contains the header. Then each block gives one sample, whose position moves by
    five samples from block to block, so that slices are read at different heights; the first is in
    the middle, where the knee is.
    """
    if size <= COMPLETE_BYTES:
        yield 0, size
        return
    yield 0, SAMPLE_BYTES
    samples = BLOCK_BYTES // SAMPLE_BYTES
    for number, block in enumerate(range(0, size, BLOCK_BYTES)):
        start = block + (7 + 5 * number) % samples * SAMPLE_BYTES
        yield min(start, size - SAMPLE_BYTES), SAMPLE_BYTES
