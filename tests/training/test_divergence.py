"""Tests that training stops at the first loss or gradient that isn't finite (loop.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mrknee.errors import MrkneeError
from mrknee.training.loop import TrainingLoop
from mrknee.training.recipe import OptimizerSettings
from mrknee.training.run import train
from tests.conftest import write_toy_dataset
from tests.processes import mrknee
from tests.training.test_distributed import run_in_two
from tests.training.test_run import QUICK, weights_of

pytestmark = pytest.mark.slow

DIVERGING = QUICK.replace(
    optimizer=OptimizerSettings(name="sgd", learning_rate=1000.0, weight_decay=0.0), epochs=3
)
"""Steps so large that the second or third loss overflows."""


@pytest.mark.parametrize(
    "changes",
    [{}, {"batch_exams": 1, "accumulate": 3}, {"precision": "bf16-mixed"}],
    ids=["plain", "accumulated", "bfloat16"],
)
def test_nonfinite_loss_stops_training(
    toy: Path, tmp_path: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stops before another step, with epoch, batch, step, rate, exams and advice."""
    finite: list[bool] = []
    step = torch.optim.SGD.step

    def record_step(self: torch.optim.SGD, *args: Any, **named: Any) -> Any:  # noqa: ANN401
        loss = step(self, *args, **named)
        finite.append(loss is None or bool(torch.as_tensor(loss).isfinite()))
        return loss

    monkeypatch.setattr(torch.optim.SGD, "step", record_step)
    with pytest.raises(MrkneeError, match="training diverged") as caught:
        train(toy, tmp_path / "run", DIVERGING.replace(**changes))
    assert all(finite), "a step was taken with a loss that isn't finite"
    found, advice = caught.value.found or "", caught.value.advice or ""
    for part in ("loss of ", "epoch 1, batch ", "optimizer step ", "learning rate 1e+03", "exams"):
        assert part in found
    assert "00" in found.rpartition("exams of the batch: ")[2]
    assert "a lower optimizer.learning_rate" in advice
    assert "optimizer.clip_norm 1" in advice
    assert not (tmp_path / "run" / "best").exists(), "a model was saved"


def test_nonfinite_gradient_stops_training(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An infinite gradient of a finite loss is detected before it can destroy the weights."""
    take_step = TrainingLoop._take_step

    def step_with_infinite_gradient(self: TrainingLoop, index: int) -> None:
        if self.step == 2:
            next(p for p in self.parameters if p.grad is not None).grad[...] = torch.inf  # type: ignore[index]
        take_step(self, index)

    monkeypatch.setattr(TrainingLoop, "_take_step", step_with_infinite_gradient)
    with pytest.raises(MrkneeError, match="gradients that are infinite or NaN in epoch 1, batch 3"):
        train(toy, tmp_path / "run", QUICK)


def test_nonfinite_validation_loss_stops_training(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that the last step of an epoch made invalid are never saved as the best."""
    validate = TrainingLoop._validate

    def validate_nan_weights(self: TrainingLoop, *args: Any) -> None:  # noqa: ANN401  # passed through
        with torch.no_grad():
            self.parameters[0][...] = torch.nan
        validate(self, *args)

    recipe = QUICK.replace(epochs=3)
    train(toy, tmp_path / "run", recipe.replace(epochs=1))
    kept = weights_of(tmp_path / "run", "best")
    monkeypatch.setattr(TrainingLoop, "_validate", validate_nan_weights)
    with pytest.raises(MrkneeError, match="a validation loss of nan in epoch 2"):
        train(toy, tmp_path / "run", recipe, resume=True)
    for name, values in weights_of(tmp_path / "run", "best").items():
        assert (values == kept[name]).all()


def test_several_processes_stop_together(tmp_path: Path) -> None:
    """All know the loss, so none waits for the others; only the first prints the error."""
    write_toy_dataset(tmp_path / "toy")
    files = [tmp_path / "first.txt", tmp_path / "second.txt"]
    recipe = DIVERGING.replace(accumulate=2)
    words = (tmp_path / "toy", "--out", tmp_path / "run", "--recipe", tmp_path / "recipe.yaml")
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    statuses = run_in_two(mrknee, "train", *words, files=files)
    texts = [file.read_text() for file in files]
    assert statuses == [1, 1]
    assert ["training diverged" in text for text in texts] == [True, False]
    assert "Traceback" not in texts[1]
