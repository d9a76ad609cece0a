"""Tests that two processes train the same network as one."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mrknee.exams import Dataset
from mrknee.metrics.predictions import Predictions
from mrknee.training.distributed import connected_processes
from mrknee.training.loop import TrainingLoop
from mrknee.training.recipe import OptimizerSettings, Recipe, ScheduleSettings, load_recipe
from mrknee.training.run import train
from mrknee.training.run_writer import RunWriter
from mrknee.transforms.settings import AugmentationSettings
from tests.conftest import write_toy_dataset
from tests.processes import start
from tests.training.test_resumption import assert_same_run
from tests.training.test_run import QUICK

pytestmark = pytest.mark.slow

RECIPE = QUICK.replace(
    optimizer=OptimizerSettings(name="sgd", learning_rate=1e-2, weight_decay=0.01),
    accumulate=2,
    epochs=2,
    save_every=1,
)

LEARNING = RECIPE.replace(
    optimizer=RECIPE.optimizer.replace(stage_decay=0.7, head_learning_rate=2e-2, decay_norms=False),
    schedule=ScheduleSettings(name="one_cycle"),
    ema=0.5,
    finding_weights={"acl": 2.0},
    augmentation=AugmentationSettings(gamma=0.3, bias_field=0.3, noise=0.05),
    slices_per_series=3,
)
"""Settings of learning that are off by default."""

RUN = """
import sys
from pathlib import Path
from mrknee.training.recipe import load_recipe
from mrknee.training.run import train
from mrknee.training.run_writer import RunWriter

data, out, recipe = sys.argv[1:]
train(Path(data), Path(out), load_recipe(recipe), resume=True)
"""

Run = tuple[Path, Path, Path]


def _free_port() -> str:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return str(free.getsockname()[1])


def train_with_torchrun(data: Path, out: Path, recipe: Recipe) -> None:
    """Trains in two processes that torchrun starts, which must end with status 0."""
    script, settings = out.parent / "run.py", out.parent / "recipe.yaml"
    script.write_text(RUN)
    settings.write_text(recipe.to_yaml())
    assert load_recipe(str(settings)) == recipe
    torchrun = [sys.executable, "-m", "torch.distributed.run"]
    words = ["--standalone", "--nproc-per-node", "2", script, data, out, settings]
    done = subprocess.run(  # noqa: S603  # our own command
        [*torchrun, *map(str, words)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert_printed_once(done.stdout, out)


def train_separately(data: Path, out: Path, recipe: Recipe, *signals: str) -> list[int | None]:
    """Trains in two processes, with the variables that two torchruns on two machines would set.

    With signals, each process sends itself its signal after the first save; without, both must end
    with status 0.

    Returns:
        The exit status of each process.
    """
    environment = {
        "TORCHELASTIC_RUN_ID": "knee",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": _free_port(),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "1",
        "LOCAL_RANK": "0",
    }
    printed = out.with_name(f"{out.name}.txt")
    errors = out.with_name(f"{out.name}-errors.txt")
    printed.unlink(missing_ok=True)
    processes = [
        start(
            _train,
            *(data, out, recipe, signals),
            stdout=printed,
            stderr=errors,
            environment={**environment, "RANK": rank},
        )
        for rank in "01"
    ]
    try:
        for process in processes:
            process.join(280)
    finally:
        for process in processes:
            process.kill()
    statuses = [process.exitcode for process in processes]
    if not signals:
        assert statuses == [0, 0], errors.read_text()
        assert_printed_once(printed.read_text(), out)
    return statuses


def _train(data: Path, out: Path, recipe: Recipe, signals: tuple[str, ...]) -> None:
    """Trains as one of two processes."""
    save = RunWriter._save

    def save_and_end(self: RunWriter, loop: TrainingLoop, epoch: int, batches: int) -> None:
        save(self, loop, epoch, batches)
        os.kill(os.getpid(), getattr(signal, signals[loop.processes.rank]))

    if signals:
        RunWriter._save = save_and_end  # type: ignore[method-assign]
    train(data, out, recipe, resume=True)


def assert_printed_once(printed: str, out: Path) -> None:
    """Asserts that the results were printed by one of the processes only."""
    for line in (r"valid: \d+ exams", f"wrote {re.escape(str(out))}"):
        assert len(re.findall(line, printed)) == 1, printed


Trainer = Callable[[Path, Path, Recipe], object]


def train_both(root: Path, exams: tuple[int, int], recipe: Recipe, in_two: Trainer) -> Run:
    """Returns a data set, a run of one process, and one of two.

    Some labels are missing, so a mean of means would be wrong.
    """
    data = write_toy_dataset(root / "toy", *exams)
    labels = (data / "train-acl.csv").read_text().splitlines()
    (data / "train-acl.csv").write_text("\n".join(labels[:-4]) + "\n")
    train(data, root / "one", recipe)
    in_two(data, root / "two", recipe)
    return data, root / "one", root / "two"


@pytest.fixture(scope="module")
def even(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One machine: of batches of 3, two processes get 2 and 1 exams."""
    root = tmp_path_factory.mktemp("even")
    return train_both(root, (12, 6), RECIPE, train_with_torchrun)


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two machines: one of two processes gets no exam of an epoch's last batch."""
    root = tmp_path_factory.mktemp("uneven")
    return train_both(root, (10, 5), LEARNING, train_separately)


@pytest.fixture(params=["even", "uneven"])
def runs(request: pytest.FixtureRequest) -> Run:
    """A data set, a run of one process, and one of two."""
    found: Run = request.getfixturevalue(request.param)
    return found


def test_ended_processes_can_be_resumed(uneven: Run) -> None:
    """SIGTERM and SIGUSR1 end a process at once; repeating the command gives the same result.

    The signals have no handlers, because a handler would wait for the other process.
    """
    data, _, whole = uneven
    out = whole.with_name("ended")
    ended = train_separately(data, out, LEARNING, "SIGTERM", "SIGUSR1")
    assert ended == [-signal.SIGTERM, -signal.SIGUSR1]
    train_separately(data, out, LEARNING)
    starts = json.loads((out / "environment.json").read_text())
    assert [start["after"] for start in starts] == [
        {"epochs": 0, "batches": 0},
        {"epochs": 0, "batches": 2},
    ]
    assert_same_run(whole, out)
    assert {file.name for file in whole.iterdir()} == {file.name for file in out.iterdir()}


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
