"""Tests that two processes train the same network as one."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mrknee.exams import Dataset
from mrknee.metrics.predictions import Predictions
from mrknee.training.distributed import connected_processes
from mrknee.training.recipe import OptimizerSettings, load_recipe
from mrknee.training.run import train
from tests.conftest import write_toy_dataset
from tests.training.test_resumption import assert_same_run
from tests.training.test_run import QUICK

pytestmark = pytest.mark.slow

RECIPE = QUICK.replace(
    optimizer=OptimizerSettings(name="sgd", learning_rate=1e-2, weight_decay=0.01),
    accumulate=2,
    epochs=2,
    save_every=1,
)

RUN = """
import os
import signal
import sys
from pathlib import Path
from mrknee.training.distributed import connected_processes
from mrknee.training.recipe import load_recipe
from mrknee.training.run_writer import RunWriter
from mrknee.training.run import train

data, out, recipe, *signals = sys.argv[1:]
if signals:
    def save_and_end(self, loop, epoch, batches, save=RunWriter._save):
        save(self, loop, epoch, batches)
        os.kill(os.getpid(), getattr(signal, signals[loop.processes.rank]))
    RunWriter._save = save_and_end
train(Path(data), Path(out), load_recipe(recipe), resume=True)
"""

Arguments = tuple[str, ...]
Run = tuple[Path, Path, Path]


def _free_port() -> str:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return str(free.getsockname()[1])


def launch(how: str, arguments: Arguments) -> list[tuple[int, str]]:
    """Runs a script in two processes; returns exit status and output of each started command.

    Args:
        how: torchrun, or processes: started separately, with the variables that two torchruns on
            two machines would set.
        arguments: the script and its arguments.
    """
    script = [sys.executable, *arguments]
    if how == "torchrun":
        torchrun = [sys.executable, "-m", "torch.distributed.run"]
        commands = [
            ([*torchrun, "--standalone", "--nproc-per-node", "2", *arguments], dict(os.environ))
        ]
    else:
        environment = {
            **os.environ,
            "TORCHELASTIC_RUN_ID": "knee",
            "MASTER_ADDR": "localhost",
            "MASTER_PORT": _free_port(),
            "WORLD_SIZE": "2",
            "LOCAL_WORLD_SIZE": "1",
            "LOCAL_RANK": "0",
        }
        commands = [(script, {**environment, "RANK": rank}) for rank in "01"]
    processes = [
        subprocess.Popen(  # noqa: S603  # our own command
            command,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for command, variables in commands
    ]
    try:
        outputs = [process.communicate(timeout=280)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, text) for process, text in zip(processes, outputs, strict=True)]


@pytest.fixture(
    scope="module",
    params=[
        (12, 6, "torchrun"),
        (10, 5, "processes"),
    ],
    ids=["one machine, even", "two machines, uneven"],
)
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Creates a data set, a run of one process, and one of two, started as documented.

    Of batches of 3, two processes get 2 and 1 exams; in the uneven set, one of them gets none of an
    epoch's last batch. Some labels are missing, so a mean of means would be wrong.
    """
    train_exams, valid_exams, how = request.param
    root = tmp_path_factory.mktemp("processes")
    data = write_toy_dataset(root / "toy", train_exams, valid_exams)
    labels = (data / "train-acl.csv").read_text().splitlines()
    (data / "train-acl.csv").write_text("\n".join(labels[:-4]) + "\n")
    train(data, root / "one", RECIPE)
    finished = launch(how, _arguments(root, "two"))
    assert all(status == 0 for status, _ in finished), finished
    for line in (f"valid: {valid_exams} exams", f"wrote {root / 'two'}"):
        assert sum(text.count(line) for _, text in finished) == 1, "printed once, by one process"
    return data, root / "one", root / "two"


def _arguments(root: Path, out: str, *signals: str) -> Arguments:
    """Returns the script and its arguments; a signal per process ends it after the first save."""
    (root / "recipe.yaml").write_text(RECIPE.to_yaml())
    assert load_recipe(str(root / "recipe.yaml")) == RECIPE
    (root / "run.py").write_text(RUN)
    return (*(str(root / name) for name in ("run.py", "toy", out, "recipe.yaml")), *signals)


@pytest.mark.parametrize("runs", [(10, 5, "processes")], indirect=True, ids=["uneven"])
def test_ended_processes_can_be_resumed(runs: Run) -> None:
    """SIGTERM and SIGUSR1 end a process at once; repeating the command gives the same result.

    The signals have no handlers, because a handler would wait for the other process.
    """
    root = runs[0].parent
    ended = launch("processes", _arguments(root, "ended", "SIGTERM", "SIGUSR1"))
    assert [status for status, _ in ended] == [-signal.SIGTERM, -signal.SIGUSR1], ended
    again = launch("processes", _arguments(root, "ended"))
    assert [status for status, _ in again] == [0, 0], again
    starts = json.loads((root / "ended" / "environment.json").read_text())
    assert [start["after"] for start in starts] == [
        {"epochs": 0, "batches": 0},
        {"epochs": 0, "batches": 2},
    ]
    assert_same_run(runs[2], root / "ended")
    assert {file.name for file in runs[2].iterdir()} == {
        file.name for file in (root / "ended").iterdir()
    }


def test_world_size_without_torchrun_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """WORLD_SIZE set by a cluster without torchrun means one process that doesn't wait."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    with connected_processes() as processes:
        assert (processes.rank, processes.world_size) == (0, 1)


def test_first_loss_agrees_with_one_process(runs: Run) -> None:
    """It agrees to 1e-5: the mean is over all known labels, not over the processes' means."""
    first = []
    for run in runs[1:]:
        events = EventAccumulator(str(run / "tensorboard"))
        events.Reload()
        first.append([point.value for point in events.Scalars("train/loss_step")])
    assert len(first[0]) == len(first[1])
    assert first[0][0] == pytest.approx(first[1][0], abs=1e-5)


def test_each_exam_is_scored_once(runs: Run) -> None:
    """No exam is padded, dropped or repeated: ids, AUCs and losses of every epoch agree."""
    data, one, two = runs
    ids = Predictions.read(two / "predictions-valid.csv").ids
    assert ids == Dataset.of_split(data, "valid").ids
    for name in ("inner", "valid"):
        first, second = (Predictions.read(r / f"predictions-{name}.csv") for r in (one, two))
        assert first.ids == second.ids
    texts = [(run / "metrics.csv").read_text() for run in (one, two)]
    rows = [list(csv.DictReader(text.splitlines())) for text in texts]
    for first_row, second_row in zip(*rows, strict=True):
        for column, value in first_row.items():
            assert float(value) == pytest.approx(float(second_row[column]), abs=1e-4, nan_ok=True)
    first_log = [line.split(" mean ")[0] for line in (one / "log.txt").read_text().splitlines()]
    second_log = [line.split(" mean ")[0] for line in (two / "log.txt").read_text().splitlines()]
    steps = [line for line in first_log if " exams " in line and "batch" in line]
    assert steps == [line for line in second_log if " exams " in line and "batch" in line]


def test_weights_and_predictions_agree_with_one_process(runs: Run) -> None:
    """Weights and predictions are the same after training in two processes as in one."""
    _, one, two = runs
    first, second = (load_file(run / "last" / "weights.safetensors") for run in (one, two))
    for name, values in first.items():
        np.testing.assert_allclose(values, second[name], rtol=0, atol=1e-5, err_msg=name)
    for name in ("inner", "valid"):
        expected, actual = (
            Predictions.read(run / f"predictions-{name}.csv").probabilities for run in (one, two)
        )
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4)
