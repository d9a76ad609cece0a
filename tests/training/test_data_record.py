"""Tests of data that changes between two starts of a run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mrknee.errors import MrkneeError
from mrknee.exams import PLANES
from mrknee.run_folder import RunFolder
from mrknee.training.data_record import (
    BLOCK_BYTES,
    compare_data,
    describe_changes,
    read_record,
    record_data,
    to_json,
)
from mrknee.training.parts import split_exams
from mrknee.training.run import train
from tests.conftest import write_toy_dataset
from tests.training.test_run import QUICK

pytestmark = pytest.mark.slow

ONE_EPOCH = QUICK.replace(epochs=1)


def change_pixel(file: Path) -> None:
    """Changes one pixel of a stack, but neither size nor time of the file."""
    before = file.stat()
    stack = np.load(file)
    stack[-1, 10, 10] ^= 1
    np.save(file, stack)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_changed_data_is_warned_about_by_exam(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exams with planes or findings are reported at every start and stored in environment.json."""
    run = tmp_path / "run"
    train(toy, run, ONE_EPOCH)
    assert "warning" not in capsys.readouterr().err
    change_pixel(toy / "train" / "axial" / "0003.npy")
    change_pixel(toy / "valid" / "coronal" / "0013.npy")
    change_pixel(toy / "valid" / "sagittal" / "0013.npy")
    labels = toy / "valid-acl.csv"
    labels.write_text(labels.read_text().replace("0014,1", "0014,0"))
    changes = [
        "other pixels in 2 exams: train/0003 (axial), valid/0013 (coronal, sagittal)",
        "other labels in 1 exam: valid/0014 (acl)",
    ]
    for epochs in (1, 2):  # the first finds the run finished
        train(toy, run, ONE_EPOCH.replace(epochs=epochs), resume=True)
        warning = capsys.readouterr().err
        assert warning.count("the data has changed since this run was started") == 1
        assert all(change in warning for change in changes)
    starts = json.loads((run / "environment.json").read_text())
    assert [start.get("data_changed") for start in starts] == [None, changes]


def copy(data: Path) -> Path:
    """Copies the data set to another folder, with new times."""
    return Path(shutil.copytree(data, data.with_name("copied"), copy_function=shutil.copyfile))


def touch(data: Path) -> Path:
    """Changes only the times of the files."""
    for file in data.rglob("*.*"):
        os.utime(file, (1, 1))
    return data


def reformat_labels(data: Path) -> Path:
    """Writes the same labels in another order, with CRLF and without unknown labels."""
    for file in data.glob("*.csv"):
        lines = file.read_text().splitlines()
        file.write_text("\r\n".join(reversed(lines)))
    return data


@pytest.mark.parametrize("modify", [copy, touch, reformat_labels])
def test_same_content_is_not_a_change(modify: Callable[[Path], Path], toy: Path) -> None:
    """Location, times and formatting of label files don't count as content."""
    before = record_data(split_exams(toy, QUICK))
    assert describe_changes(before, record_data(split_exams(modify(toy), QUICK))) == []


def test_restarted_run_records_current_data(toy: Path, tmp_path: Path) -> None:
    """A run killed before its first save has not used the old data: no change is reported."""
    RunFolder(tmp_path).data.write_text(to_json(record_data(split_exams(toy, QUICK))))
    change_pixel(toy / "train" / "axial" / "0003.npy")
    parts = split_exams(toy, QUICK)
    assert compare_data(tmp_path, parts) == (to_json(record_data(parts)), [])
    (tmp_path / "resume").mkdir()
    RunFolder(tmp_path).state.touch()
    before, changed = compare_data(tmp_path, parts)
    assert before == RunFolder(tmp_path).data.read_text()
    assert changed == ["other pixels in 1 exam: train/0003 (axial)"]


def test_added_or_removed_plane_is_a_change(toy: Path) -> None:
    """It is detected although split.csv is the same if exams may lack a plane."""
    recipe = QUICK.replace(allow_missing_plane=True)
    before = record_data(split_exams(toy, recipe))
    (toy / "valid" / "axial" / "0015.npy").unlink()
    now = record_data(split_exams(toy, recipe))
    expected = ["other pixels in 1 exam: valid/0015 (axial)"]
    assert describe_changes(before, now) == describe_changes(now, before) == expected


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"version": 2, "exams": {}}', '{"exams": {}}', '{"exams": 3}']
)
def test_broken_record_is_written_again(text: str, toy: Path, tmp_path: Path) -> None:
    """The run continues without a comparison."""
    RunFolder(tmp_path).data.write_text(text)
    assert read_record(tmp_path) is None
    record = record_data(split_exams(toy, QUICK))
    RunFolder(tmp_path).data.write_text(to_json(record))
    assert read_record(tmp_path) == record


@pytest.mark.parametrize("slice_", [0, 7, 30])
def test_changed_slice_of_large_stack_is_detected(slice_: int, tmp_path: Path) -> None:
    """A sixteenth of a stack of MRNet's size is read: part of every slice, at varying heights."""
    data = write_toy_dataset(tmp_path / "toy", 4, 0)
    shutil.rmtree(data / "valid", ignore_errors=True)
    file = data / "train" / "axial" / "0001.npy"
    stack = np.random.default_rng(0).integers(0, 256, (31, 256, 256), dtype=np.uint8)
    assert stack[0].nbytes == BLOCK_BYTES
    np.save(file, stack)
    before = record_data(split_exams(data, QUICK))
    stack[slice_] = 255 - stack[slice_]
    np.save(file, stack)
    changed = describe_changes(before, record_data(split_exams(data, QUICK)))
    assert changed == ["other pixels in 1 exam: train/0001 (axial)"]


def test_only_used_exams_are_recorded(toy: Path) -> None:
    """With `max_exams`, exams that are not used may change."""
    recipe = QUICK.replace(max_exams=6)
    record = record_data(split_exams(toy, recipe))
    assert sum(name.startswith("train/") for name in record["exams"]) == 6


def add_finding(data: Path) -> None:
    """Adds a label file."""
    shutil.copy(data / "train-acl.csv", data / "train-pcl.csv")


def replace_finding(data: Path) -> None:
    """Renames a label file to another finding."""
    (data / "train-acl.csv").rename(data / "train-pcl.csv")


def remove_finding(data: Path) -> None:
    """Removes a label file."""
    (data / "train-acl.csv").unlink()


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Creates a data set and a run of one epoch; tests copy both."""
    root = tmp_path_factory.mktemp("started")
    data = write_toy_dataset(root / "toy")
    train(data, root / "run", ONE_EPOCH)
    return data, root / "run"


@pytest.mark.parametrize("change", [add_finding, replace_finding, remove_finding])
def test_run_is_not_resumed_with_other_findings(
    started: tuple[Path, Path], tmp_path: Path, change: Callable[[Path], None]
) -> None:
    """Added or removed label files are refused, with both lists; nothing is written."""
    data, run = (shutil.copytree(folder, tmp_path / folder.name) for folder in started)
    change(data)
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    with pytest.raises(MrkneeError, match="other findings") as error:
        train(data, run, ONE_EPOCH.replace(epochs=2), resume=True)
    assert error.value.expected == "abnormal, acl, meniscus"
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before


def test_run_is_not_resumed_with_other_exams(started: tuple[Path, Path], tmp_path: Path) -> None:
    """The error lists the new and the missing exams."""
    data, run = (shutil.copytree(folder, tmp_path / folder.name) for folder in started)
    for plane in PLANES:
        (data / "valid" / plane / "0013.npy").rename(data / "valid" / plane / "0099.npy")
    for file in data.glob("valid-*.csv"):
        file.write_text(file.read_text().replace("0013,", "0099,"))
    with pytest.raises(MrkneeError, match="other exams") as error:
        train(data, run, ONE_EPOCH.replace(epochs=2), resume=True)
    assert error.value.found == "missing: 0013; new: 0099"
