from __future__ import annotations

import errno
import importlib.util
import os
import sqlite3
import threading
from pathlib import Path

import pytest
from tensorboard.summary.writer.record_writer import RecordWriter

from mrknee.errors import MrkneeError
from mrknee.training.loggers import open_loggers, suppress_writer_tracebacks
from mrknee.training.recipe import LoggerName
from mrknee.training.run import train
from tests.training.test_run import QUICK

pytestmark = pytest.mark.slow

ONE_EPOCH = QUICK.replace(epochs=1)


def installed(name: str) -> bool:
    """Returns whether an optional package is installed."""
    return importlib.util.find_spec(name) is not None


def test_metrics_are_written_without_loggers(toy: Path, tmp_path: Path) -> None:
    """metrics.csv is always written, TensorBoard only if it is named."""
    train(toy, tmp_path / "run", ONE_EPOCH.replace(loggers=[]))
    assert (tmp_path / "run" / "metrics.csv").exists()
    assert not (tmp_path / "run" / "tensorboard").exists()


def test_full_disk_for_tensorboard_is_a_warning(
    toy: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """There is one warning, no traceback of TensorBoard's thread, and the run is completed."""
    write, count = RecordWriter.write, 0

    def write_to_full_disk(self: RecordWriter, data: bytes) -> None:
        nonlocal count
        count += 1
        if count > 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, data)

    monkeypatch.setattr(RecordWriter, "write", write_to_full_disk)
    train(toy, tmp_path / "run", ONE_EPOCH.replace(loggers=["tensorboard"]))
    printed = capsys.readouterr().err
    assert printed.count("tensorboard can't be written (No space left on device)") == 1
    assert printed.count("warning") == 1
    assert "Traceback" not in printed
    assert (tmp_path / "run" / "metrics.csv").exists()
    assert (tmp_path / "run" / "scorecard.json").exists()


def test_file_in_place_of_tensorboard_folder_is_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """If a file is in the place of the folder, points are dropped after one warning."""
    (tmp_path / "tensorboard").write_text("not a folder")
    for logger in open_loggers(tmp_path, ONE_EPOCH.replace(loggers=["tensorboard"])):
        logger.log({"loss": 1.0}, 1)
        logger.close()
    assert capsys.readouterr().err.count("tensorboard can't be written") == 1


def test_errors_of_other_threads_are_printed() -> None:
    """Only errors of TensorBoard's thread, which are raised elsewhere too, are suppressed."""

    def fail() -> None:
        raise OSError("in another thread")

    shown: list[str] = []
    original = threading.excepthook
    threading.excepthook = lambda error: shown.append(str(error.exc_value))
    try:
        with suppress_writer_tracebacks():
            other = threading.Thread(target=fail)
            other.start()
            other.join()
    finally:
        threading.excepthook = original
    assert shown == ["in another thread"]


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_missing_logger_package_is_named(name: LoggerName, tmp_path: Path) -> None:
    """The error names the logger."""
    if installed(name):
        pytest.skip(f"{name} is installed")
    with pytest.raises(MrkneeError, match=name):
        open_loggers(tmp_path, ONE_EPOCH.replace(loggers=[name]))


@pytest.mark.skipif(not installed("wandb"), reason="needs the extra wandb")
@pytest.mark.filterwarnings("ignore")  # the package's own
def test_wandb_writes_run_offline(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real package, used offline, writes a file in the run folder."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    train(toy, tmp_path / "run", ONE_EPOCH.replace(loggers=["wandb"]))
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))


@pytest.mark.skipif(not installed("mlflow"), reason="needs the extra mlflow")
@pytest.mark.filterwarnings("ignore")  # the package's own
def test_mlflow_writes_database(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real package writes a database in the run folder."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    train(toy, tmp_path / "run", ONE_EPOCH.replace(loggers=["mlflow"]))
    with sqlite3.connect(tmp_path / "run" / "mlflow.db") as database:
        names = {row[0] for row in database.execute("select distinct key from metrics")}
    assert {"train/loss", "val/auc_mean", "val/running_auc_mean"} <= names
