from __future__ import annotations

import importlib.util
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from mrknee.errors import MrkneeError
from mrknee.training.loggers import make_loggers
from mrknee.training.recipe import LoggerName
from mrknee.training.run import train
from tests.training.test_run import QUICK

ONE_EPOCH = replace(QUICK, epochs=1)


def installed(name: str) -> bool:
    """Whether the optional package is there."""
    return importlib.util.find_spec(name) is not None


def test_no_logger_still_leaves_the_metrics(toy: Path, tmp_path: Path) -> None:
    """metrics.csv is written whatever the setting, and TensorBoard only where it is named."""
    train(toy, tmp_path / "run", replace(ONE_EPOCH, loggers=[]))
    assert (tmp_path / "run" / "metrics.csv").exists()
    assert not (tmp_path / "run" / "tensorboard").exists()


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_logger_that_is_not_installed_is_named(name: LoggerName, tmp_path: Path) -> None:
    """With the command that installs it."""
    if installed(name):
        pytest.skip(f"{name} is installed")
    with pytest.raises(MrkneeError, match=name):
        make_loggers(tmp_path, replace(ONE_EPOCH, loggers=[name]))


@pytest.mark.skipif(not installed("wandb"), reason="needs the extra wandb")
@pytest.mark.filterwarnings("ignore")  # the package's own
def test_wandb_keeps_a_run_offline(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real package, without its server: the run's file lies in the run folder."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    train(toy, tmp_path / "run", replace(ONE_EPOCH, loggers=["wandb"]))
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))


@pytest.mark.skipif(not installed("mlflow"), reason="needs the extra mlflow")
@pytest.mark.filterwarnings("ignore")  # the package's own
def test_mlflow_keeps_a_run_in_a_file(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real package, with a database in the run folder."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    train(toy, tmp_path / "run", replace(ONE_EPOCH, loggers=["mlflow"]))
    with sqlite3.connect(tmp_path / "run" / "mlflow.db") as database:
        names = {row[0] for row in database.execute("select distinct key from metrics")}
    assert {"train/loss", "val/auc_mean", "val/running_auc_mean"} <= names
