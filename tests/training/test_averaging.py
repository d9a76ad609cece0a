from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from mrknee.errors import SettingsError
from mrknee.models.network import Network
from mrknee.models.settings import NetworkSettings
from mrknee.training.averaging import WeightAverage
from mrknee.training.recipe import Recipe
from mrknee.training.resumption import read_state
from mrknee.training.run import train
from tests.conftest import write_toy_dataset
from tests.training.test_run import QUICK, column, weights_of

pytestmark = pytest.mark.slow

PLAIN = QUICK.replace(epochs=2, keep_every_epoch=True, loggers=[])
"""Its schedule is the plateau, which cuts no rate in two epochs: averaging doesn't change steps."""


def drawn(count: int) -> list[Network]:
    """Returns networks with different random weights and statistics."""
    networks = []
    for seed in range(count):
        torch.manual_seed(seed)
        network = Network(NetworkSettings(encoder="test_resnet", shared_encoder=True), ("acl",))
        for name, buffer in network.named_buffers():
            if "running" in name:
                buffer.uniform_(0.5, 1.5)
        networks.append(network)
    return networks


def test_ema_is_the_exponential_moving_average() -> None:
    """It starts with the first weights; buffers are copied, and epochs change nothing."""
    first, second, third = drawn(3)
    average = WeightAverage(copy.deepcopy(first), ema=0.75, last=None)
    for network in (first, second, third):
        average.add_step(network)
        average.add_epoch(network)
    found, buffers = average.network.state_dict(), dict(third.named_buffers())
    for name, value in found.items():
        a, b, c = (one.state_dict()[name] for one in (first, second, third))
        if name in buffers:
            assert torch.equal(value, c), name
        else:
            torch.testing.assert_close(value, 0.75 * (0.75 * a + 0.25 * b) + 0.25 * c)


def test_the_last_epochs_are_averaged() -> None:
    """The mean is of the last two of three epochs, with the buffers of the last; steps don't count.

    In the first epoch it is that epoch's weights.
    """
    networks = drawn(3)
    average = WeightAverage(copy.deepcopy(networks[0]), ema=None, last=2)
    for index, network in enumerate(networks):
        average.add_step(networks[0])
        average.add_epoch(network)
        if index == 0:
            for name, value in average.network.state_dict().items():
                assert torch.equal(value, network.state_dict()[name]), name
    for name, value in average.network.named_parameters():
        b, c = (network.state_dict()[name] for network in networks[1:])
        torch.testing.assert_close(value.detach(), (b + c) / 2)
    for name, value in average.network.named_buffers():
        assert torch.equal(value, networks[2].state_dict()[name]), name


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Returns runs of two epochs: without average, with ema, and with average_last."""
    root = tmp_path_factory.mktemp("averages")
    data = write_toy_dataset(root / "toy", 6, 4)
    recipes = {
        "plain": PLAIN,
        "ema": PLAIN.replace(ema=0.5),
        "last": PLAIN.replace(average_last=2),
    }
    for name, recipe in recipes.items():
        train(data, root / name, recipe)
    return {name: root / name for name in recipes}


@pytest.mark.parametrize("kind", ["ema", "last"])
def test_averaging_does_not_change_the_training(kind: str, runs: dict[str, Path]) -> None:
    """The trained weights and the training losses are those without an average, to the bit."""
    assert column(runs[kind], "train/loss") == column(runs["plain"], "train/loss")
    assert column(runs[kind], "val/loss")[1] != column(runs["plain"], "val/loss")[1]
    states = [read_state(runs[name] / "resume" / "last.ckpt")[1] for name in (kind, "plain")]
    for name, value in states[0]["network"].items():
        assert torch.equal(value, states[1]["network"][name]), name


@pytest.mark.parametrize("kind", ["ema", "last"])
def test_the_averaged_weights_are_saved(kind: str, runs: dict[str, Path]) -> None:
    """The checkpoint has them, and the state has both."""
    saved = weights_of(runs[kind])
    state = read_state(runs[kind] / "resume" / "last.ckpt")[1]
    for name, value in saved.items():
        assert np.array_equal(value, state["average"]["model"][f"module.{name}"]), name
    assert any(not np.array_equal(value, state["network"][n]) for n, value in saved.items())


def test_a_runs_average_is_that_of_its_epochs(runs: dict[str, Path]) -> None:
    """With average_last 2, two epochs end with the mean of both epochs' weights."""
    (first,) = (runs["plain"] / "epochs").glob("epoch001*")
    one, two = weights_of(first, "."), weights_of(runs["plain"])
    for name, value in weights_of(runs["last"]).items():
        if "running" in name or "num_batches" in name:
            assert np.array_equal(value, two[name]), name
        else:
            np.testing.assert_allclose(value, (one[name] + two[name]) / 2, rtol=0, atol=1e-7)


def test_two_averages_are_a_contradiction() -> None:
    """The error names both settings."""
    with pytest.raises(SettingsError, match="ema and average_last"):
        Recipe(ema=0.9, average_last=2)
