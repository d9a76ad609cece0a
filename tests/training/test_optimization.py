from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor

from mrknee.exams import PLANES, Exam
from mrknee.models.network import Network
from mrknee.models.prediction import predict_batches
from mrknee.models.settings import NetworkSettings
from mrknee.training.epoch_result import EpochResult
from mrknee.training.loop import Objective
from mrknee.training.optimization import cosine_factor, make_optimizer
from mrknee.training.recipe import OptimizerSettings, ScheduleSettings, load_recipe
from mrknee.transforms.batches import Batch, frame_exam, join
from mrknee.transforms.preparation import Preparation

FINDINGS = ("abnormal", "acl", "meniscus")
SMALL = Preparation(size=48, crop=48)


def batch_of(count: int) -> Batch:
    """Creates noise exams with random labels."""
    rng = np.random.default_rng(count)
    exams = [
        Exam(
            str(i),
            {p: rng.integers(0, 255, (3, 48, 48), dtype=np.uint8) for p in PLANES},
            dict(zip(FINDINGS, rng.integers(0, 2, 3).astype(float).tolist(), strict=True)),
        )
        for i in range(count)
    ]
    return join([frame_exam(exam, SMALL) for exam in exams])


def test_first_step_agrees_with_adam_formula() -> None:
    """Loss and weights after a step agree with a direct computation of Adam's first step, to 1e-5.

    Adam's first step, with L2 weight decay g = grad + 0.01 w, is w - lr g / (|g| + 1e-8).
    """
    recipe = load_recipe("reference")
    torch.manual_seed(0)
    network = Network(NetworkSettings(encoder="test_resnet"), FINDINGS)
    batch, weight = batch_of(1), torch.tensor([0.24, 4.43, 1.85])
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    summed, _, _ = Objective(network, SMALL, weight)(batch)
    loss = summed / batch.labels.numel()
    loss.backward()
    optimizer = make_optimizer(list(network.parameters()), recipe.optimizer)
    optimizer.step()

    p = torch.sigmoid(logits_with(network, before, batch))
    y = batch.labels
    expected_loss = -(weight * y * p.log() + (1 - y) * (1 - p).log()).mean()
    assert loss.item() == pytest.approx(expected_loss.item(), abs=1e-5)
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        decayed = parameter.grad + 0.01 * before[name]
        expected = before[name] - 1e-5 * decayed / (decayed.abs() + 1e-8)
        torch.testing.assert_close(parameter.detach(), expected, rtol=0, atol=1e-7)


def logits_with(network: Network, weights: dict[str, Tensor], batch: Batch) -> Tensor:
    """Returns the logits of a network with other weights."""
    with torch.no_grad():
        logits: Tensor = torch.func.functional_call(
            network, weights, (batch.prepared(SMALL), batch.lengths)
        )
    return logits


@pytest.mark.parametrize(
    ("name", "kind"),
    [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)],
)
def test_optimizer_is_created_from_settings(name: str, kind: type[torch.optim.Optimizer]) -> None:
    """It has the recipe's learning rate and weight decay."""
    settings = OptimizerSettings(name=name, learning_rate=0.3, weight_decay=0.2)  # type: ignore[arg-type]
    optimizer = make_optimizer([torch.nn.Parameter(torch.zeros(1))], settings)
    assert type(optimizer) is kind
    assert (optimizer.defaults["lr"], optimizer.defaults["weight_decay"]) == (0.3, 0.2)


def test_cosine_factor_rises_then_falls_to_zero() -> None:
    """The factor is linear in the warm-up, then 1, one half in the middle, and 0 at the end."""
    settings = ScheduleSettings(name="cosine", warmup=0.1)
    factors = [cosine_factor(step, 100, settings) for step in range(101)]
    assert factors[0] < factors[5] < factors[9] < 1
    assert factors[10] == pytest.approx(1)
    assert factors[55] == pytest.approx(0.5)
    assert factors[100] == pytest.approx(0)


def test_auc_of_one_class_is_nan() -> None:
    """A finding of one class has no AUC and doesn't count in the mean (reference: 0.5)."""
    result = EpochResult(FINDINGS)
    labels = torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 1.0]])
    logits = torch.tensor([[0.0, -1.0, 0.0], [0.0, 1.0, 0.0], [0.0, -2.0, 0.0], [0.0, 2.0, 0.0]])
    result.add(batch_of(4).ids, logits, labels, 1.0)
    aucs = result.aucs()
    assert math.isnan(aucs["abnormal"])
    assert math.isnan(aucs["meniscus"])
    assert aucs["acl"] == aucs["mean"] == 1.0


class GradRecorder(Network):
    """A network that records whether gradients are enabled."""

    grad_enabled: bool | None = None

    def forward(self, slices: Mapping[str, Tensor], lengths: Mapping[str, Tensor]) -> Tensor:
        """Records, then calls the network."""
        self.grad_enabled = torch.is_grad_enabled()
        return super().forward(slices, lengths)


def test_prediction_disables_gradients() -> None:
    """Prediction uses evaluation mode without gradients (the reference leaves them on)."""
    network = GradRecorder(NetworkSettings(encoder="test_resnet"), FINDINGS)
    ids, probabilities = predict_batches(network, SMALL, [batch_of(2)], 2)
    assert network.grad_enabled is False
    assert not network.training
    assert (ids, probabilities.shape) == (("0", "1"), (2, 3))
