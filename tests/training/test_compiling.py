"""torch.compile: the same run, from the same weights, by other code."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from mrknee.cli import main
from mrknee.networks.settings import NetworkSettings
from mrknee.tensors.preparation import Preparation
from mrknee.training.recipe import OptimizerSettings
from mrknee.training.run import train
from tests.training.test_run import QUICK, column, weights_of

RECIPE = replace(
    QUICK,
    network=NetworkSettings(encoder="alexnet", shared_encoder=True),  # the fewest operations
    preparation=Preparation(size=64, crop=64),
    optimizer=OptimizerSettings(name="sgd", learning_rate=1e-3, weight_decay=0.01),
)

RUN = """
import sys
from dataclasses import replace
from pathlib import Path
from mrknee.training.recipe import load_recipe
from mrknee.training.run import train
data, out, recipe = Path(sys.argv[1]), Path(sys.argv[2]), load_recipe(sys.argv[3])
train(data, out, replace(recipe, epochs=1))
train(data, out, recipe, resume=True)
"""


def start(*words: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own, where no annotations are checked that torch would trace."""
    return subprocess.run(  # noqa: S603  # our own command
        [sys.executable, *map(str, words)],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_compiled_run_is_the_same_run(toy: Path, tmp_path: Path) -> None:
    """Metrics to 1e-4, the names of the weights, over ragged batches and a resumption; it predicts.

    Compiled code adds in another order, so it is not the same to the bit.
    """
    train(toy, tmp_path / "plain", RECIPE)
    recipe, run = tmp_path / "recipe.yaml", tmp_path / "compiled"
    recipe.write_text(replace(RECIPE, compile=True).to_yaml())
    done = start("-c", RUN, toy, run, recipe, TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "code"))
    assert done.returncode == 0, done.stderr
    assert "compiling" in done.stdout
    assert list((tmp_path / "code").rglob("*.cpp")), "something was compiled"
    names = (tmp_path / "plain" / "metrics.csv").read_text().splitlines()[0].split(",")
    for name in names:
        plain, compiled = (column(tmp_path / which, name) for which in ("plain", "compiled"))
        np.testing.assert_allclose(compiled, plain, rtol=0, atol=1e-4, err_msg=name)
    before, after = weights_of(tmp_path / "plain"), weights_of(run)
    assert before.keys() == after.keys()
    for name, values in before.items():
        np.testing.assert_allclose(after[name], values, rtol=0, atol=1e-5, err_msg=name)
    out = tmp_path / "predictions.csv"
    assert main(["predict", str(run), str(toy), "--out", str(out)]) == 0
    assert (tmp_path / "compiled" / "predictions-valid.csv").read_text() == out.read_text()


def test_without_a_compiler_it_is_told_at_once(toy: Path, tmp_path: Path) -> None:
    """Before anything is written, with what to install."""
    done = start(
        *("-m", "mrknee", "train", toy, "--out", tmp_path / "run", "--recipe", "demo", "--compile"),
        CXX="/nowhere/c++",
        TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "code"),
    )
    assert done.returncode == 1, done.stderr
    assert "mrknee train: torch can't compile on this machine" in done.stderr
    assert "C++ compiler" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
