"""Two processes train what one trains."""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mrknee.exams import ExamFolder
from mrknee.scoring.predictions import Predictions
from mrknee.training.recipe import OptimizerSettings, load_recipe
from mrknee.training.run import train
from tests.conftest import write_toy_dataset
from tests.training.test_run import QUICK

RECIPE = replace(
    QUICK,
    optimizer=OptimizerSettings(name="sgd", learning_rate=1e-2, weight_decay=0.01),
    accumulate=2,
    epochs=2,
)

RUN = """
import sys
from pathlib import Path
from mrknee.training.recipe import load_recipe
from mrknee.training.run import train
train(Path(sys.argv[1]), Path(sys.argv[2]), load_recipe(sys.argv[3]))
"""

Run = tuple[Path, Path, Path]


@pytest.fixture(scope="module", params=[(12, 6), (10, 5)], ids=["even", "uneven"])
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A data set, a run of one process, and one of two, by torchrun.

    In batches of 3, two processes get 2 and 1 exams; of the uneven set, an epoch's last batch
    leaves one of them without any. Some labels are missing, so a mean of means would be wrong.
    """
    root = tmp_path_factory.mktemp("processes")
    data = write_toy_dataset(root / "toy", *request.param)
    labels = (data / "train-acl.csv").read_text().splitlines()
    (data / "train-acl.csv").write_text("\n".join(labels[:-4]) + "\n")
    train(data, root / "one", RECIPE)
    (root / "recipe.yaml").write_text(RECIPE.to_yaml())
    assert load_recipe(str(root / "recipe.yaml")) == RECIPE
    (root / "run.py").write_text(RUN)
    words = [root / "run.py", data, root / "two", root / "recipe.yaml"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(  # noqa: S603  # our own command
        [*launch, "--nproc-per-node", "2", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    shown = f"valid: {request.param[1]} exams"
    assert done.stdout.count(shown) + done.stderr.count(shown) == 1, (
        "the table is shown once, by one process"
    )
    return data, root / "one", root / "two"


def test_the_first_steps_loss_is_that_of_one_process(runs: Run) -> None:
    """Of the same exams, to 1e-5: a sum over known labels, not a mean of the processes' means."""
    first = []
    for run in runs[1:]:
        events = EventAccumulator(str(run / "tensorboard"))
        events.Reload()
        first.append([point.value for point in events.Scalars("train/loss_step")])
    assert len(first[0]) == len(first[1])
    assert first[0][0] == pytest.approx(first[1][0], abs=1e-5)


def test_each_exam_is_scored_once(runs: Run) -> None:
    """No exam is padded, dropped or scored twice: ids, and the AUCs and losses of every epoch."""
    data, one, two = runs
    ids = Predictions.read(two / "predictions-valid.csv").ids
    assert ids == ExamFolder.of_split(data, "valid").ids
    for name in ("inner", "valid"):
        first, second = (Predictions.read(r / f"predictions-{name}.csv") for r in (one, two))
        assert first.ids == second.ids
    texts = [(run / "metrics.csv").read_text() for run in (one, two)]
    rows = [list(csv.DictReader(text.splitlines())) for text in texts]
    for first_row, second_row in zip(*rows, strict=True):
        for column, value in first_row.items():
            assert float(value) == pytest.approx(float(second_row[column]), abs=1e-4, nan_ok=True)
    counted = [line.split(" mean ")[0] for line in (one / "log.txt").read_text().splitlines()]
    again = [line.split(" mean ")[0] for line in (two / "log.txt").read_text().splitlines()]
    steps = [line for line in counted if " exams " in line and "batch" in line]
    assert steps == [line for line in again if " exams " in line and "batch" in line]


def test_the_same_weights_predict_the_same(runs: Run) -> None:
    """Trained by two processes, the network is that of one; so are its predictions."""
    _, one, two = runs
    first, second = (load_file(run / "last" / "weights.safetensors") for run in (one, two))
    for name, values in first.items():
        np.testing.assert_allclose(values, second[name], rtol=0, atol=1e-5, err_msg=name)
    for name in ("inner", "valid"):
        ours, theirs = (
            Predictions.read(run / f"predictions-{name}.csv").probabilities for run in (one, two)
        )
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)
