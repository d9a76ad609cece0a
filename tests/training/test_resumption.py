"""Tests that a run killed at any time and resumed ends like an uninterrupted one.

`MRKNEE_KILLS=10` kills it more often than the suite does.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from mrknee.files import LOCK
from mrknee.run_folder import RunFolder
from mrknee.training.loop import TrainingLoop
from mrknee.training.recipe import OptimizerSettings, Recipe, ScheduleSettings
from mrknee.training.resumption import RunProgress, roll_back
from mrknee.training.run import train
from mrknee.training.run_writer import RunWriter
from mrknee.transforms.settings import AugmentationSettings
from tests.conftest import write_toy_dataset
from tests.processes import start
from tests.training.test_run import QUICK

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("MRKNEE_KILLS", "5"))

EXACT = (
    "last/weights.safetensors",
    "best/weights.safetensors",
    "last/model.json",
    "best/model.json",
    "metrics.csv",
    "log.txt",
    "split.csv",
    "settings.yaml",
    "predictions-inner.csv",
    "predictions-valid.csv",
    "scorecard.json",
)
"""Files that must be the same after a kill: all except environment.json and tensorboard/."""

OFTEN = QUICK.replace(
    network=QUICK.network.replace(dropout=0.3, batchnorm="trained"),
    augmentation=AugmentationSettings(),
    optimizer=OptimizerSettings(name="adamw", learning_rate=1e-3, clip_norm=1.0),
    schedule=ScheduleSettings(name="cosine", warmup=0.1),
    batch_exams=1,
    save_every=2,
)


def assert_same_run(first: Path, second: Path) -> None:
    """Asserts that the results and logs of two runs are bit-identical."""
    for name in EXACT:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


class KilledError(Exception):
    """Simulates the end of a run between two saves."""


PLATEAU = ScheduleSettings(name="plateau", patience=0, factor=0.5, threshold=0.9)


LEARNING = {
    "network": OFTEN.network.replace(drop_path=0.3),
    "optimizer": OFTEN.optimizer.replace(
        stage_decay=0.7, head_learning_rate=3e-3, decay_norms=False
    ),
    "schedule": ScheduleSettings(name="one_cycle"),
    "ema": 0.8,
    "finding_weights": {"acl": 2.0},
    "augmentation": AugmentationSettings(gamma=0.3, bias_field=0.3, noise=0.05),
    "slices_per_series": 3,
}


@pytest.fixture(scope="module")
def uninterrupted(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[Recipe], tuple[Path, Path]]:
    """Returns a data set and an uninterrupted run of a recipe, trained once."""
    root = tmp_path_factory.mktemp("uninterrupted")
    toy = write_toy_dataset(root / "toy")
    runs: dict[str, Path] = {}

    def trained(recipe: Recipe) -> tuple[Path, Path]:
        key = recipe.to_yaml()
        if key not in runs:
            runs[key] = root / str(len(runs))
            train(toy, runs[key], recipe)
        return toy, runs[key]

    return trained


UNEVEN = {"batch_exams": 3, "batch_slices": 24, "accumulate": 2, "save_every": 1}


@pytest.mark.parametrize(
    ("changes", "saves", "after"),
    [
        ({}, 1, (0, 2)),
        ({}, 4, (1, 0)),
        ({"schedule": PLATEAU}, 6, (1, 4)),
        ({"workers": 2}, 5, (1, 2)),
        ({"precision": "bf16-mixed"}, 3, (0, 6)),
        (LEARNING, 3, (0, 6)),
        ({"average_last": 2}, 5, (1, 2)),
        (UNEVEN, 1, (0, 2)),
        (UNEVEN, 4, (1, 2)),
    ],
    ids=[
        *("early", "between epochs", "plateau", "workers", "bfloat16"),
        *("learning settings", "average of epochs", "uneven", "uneven later"),
    ],
)
def test_run_stopped_after_a_save_resumes_exactly(
    uninterrupted: Callable[[Recipe], tuple[Path, Path]],
    tmp_path: Path,
    changes: dict[str, Any],
    saves: int,
    after: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a stop in the middle or at the end of an epoch, all files are those without a stop.

    8 exams, one per step, saved every 2 steps: save 4 ends the first epoch. Uneven: batches by
    slices, whose number varies per epoch, two per step, saved every step.
    """
    recipe = OFTEN.replace(**changes)
    (toy, whole), resumed = uninterrupted(recipe), tmp_path / "resumed"
    save, count = RunWriter._save, 0

    def save_and_stop(self: RunWriter, loop: TrainingLoop, epoch: int, batches: int) -> None:
        nonlocal count
        save(self, loop, epoch, batches)
        count += 1
        if count == saves:
            with (resumed / "log.txt").open("a") as log:
                log.write("a line after the save\n")
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(RunWriter, "_save", save_and_stop)
        with pytest.raises(KilledError):
            train(toy, resumed, recipe)
    train(toy, resumed, recipe, resume=True)
    assert_same_run(whole, resumed)
    second = json.loads((resumed / "environment.json").read_text())[1]
    assert second["after"] == dict(zip(("epochs", "batches"), after, strict=True))


def test_rolling_back_keeps_other_files(tmp_path: Path) -> None:
    """Only half-written files are removed."""
    (tmp_path / "best").mkdir()
    names = [".log.txt.77", "best/.weights.safetensors.123", ".notes", "best/kept.123"]
    for name in names:
        (tmp_path / name).write_text("x")
    roll_back(tmp_path, RunProgress())
    assert [(tmp_path / name).exists() for name in names] == [False, False, True, True]


def start_training(data: Path, out: Path, recipe: Recipe) -> BaseProcess:
    """Starts or continues a run in a separate process."""
    return start(partial(train, data, out, recipe, resume=True))


def _is_writing(out: Path) -> bool:
    """Returns whether a file is being written in the run folder."""
    return any(path.name != LOCK for part in (".*", "*/.*") for path in out.glob(part))


def test_run_killed_at_random_moments_resumes_exactly(tmp_path: Path) -> None:
    """SIGKILL comes at `KILLS` or more random moments, half of them in a write; each is resumed.

    Every start is a separate process, forked from one that has imported everything. It is killed a
    few milliseconds after some number of saves, both drawn from a seed; the place in the run
    depends on the machine. One start is killed while the final scores are computed.
    """
    recipe = OFTEN.replace(epochs=3, save_every=1)
    data = write_toy_dataset(tmp_path / "toy", 12, 6)
    draw = random.Random(4)  # noqa: S311  # moments, not secrets
    uninterrupted = start_training(data, tmp_path / "uninterrupted", recipe)
    uninterrupted.join()
    assert uninterrupted.exitcode == 0

    out, kills, killed_at_the_end = tmp_path / "killed", 0, False
    while True:
        process, saves = start_training(data, out, recipe), draw.randrange(2 + 20 // KILLS)
        last = _save_time(out)
        while saves and process.is_alive():
            if _save_time(out) != last:
                last, saves = _save_time(out), saves - 1
            elif not killed_at_the_end and (out / "predictions-inner.csv").exists():
                killed_at_the_end = True
                break
            time.sleep(0.001)
        else:
            time.sleep(draw.uniform(0, 0.1))
            while kills % 2 and process.is_alive() and not _is_writing(out):
                pass
        process.kill()
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        kills += 1
    starts = json.loads((out / "environment.json").read_text())
    within = sum(start["after"]["batches"] > 0 for start in starts)
    assert kills >= KILLS, "the run finished before it was killed often enough"
    assert killed_at_the_end, "never killed after the last epoch"
    assert within >= max(2, KILLS // 3), "too few kills within an epoch"
    assert_same_run(tmp_path / "uninterrupted", out)
    assert not _is_writing(out), "half-written files are left"
    print(f"{kills} kills, {within} of {len(starts)} starts within an epoch")


def _save_time(out: Path) -> int:
    """Returns a number that changes whenever the state is saved; 0 before the first save."""
    try:
        return RunFolder(out).state.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
