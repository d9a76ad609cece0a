from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mrknee.models.network import Network
from mrknee.models.settings import NetworkSettings
from mrknee.training.loop import TrainingLoop
from mrknee.training.optimization import cosine_factor, one_cycle_factor
from mrknee.training.parameter_groups import parameter_groups
from mrknee.training.recipe import OptimizerSettings, ScheduleSettings
from mrknee.training.run import train
from tests.conftest import write_toy_dataset
from tests.training.test_run import QUICK, column

SETTINGS = NetworkSettings(encoder="test_resnet", slice_pooling="attention")


def by_parameter(network: Network, settings: OptimizerSettings) -> dict[str, tuple[float, float]]:
    """Returns learning rate and weight decay of each trained parameter."""
    names = {parameter: name for name, parameter in network.named_parameters()}
    return {
        names[parameter]: (group["lr"], group["weight_decay"])
        for group in parameter_groups(network, settings)
        for parameter in group["params"]
    }


@pytest.fixture(scope="module")
def network() -> Network:
    """A small network with attention."""
    return Network(SETTINGS, ("acl",))


def test_by_default_there_is_one_group_in_the_networks_order(network: Network) -> None:
    """All parameters have the same rate and decay, as without groups."""
    (group,) = parameter_groups(network, OptimizerSettings(learning_rate=0.1, weight_decay=0.2))
    assert (group["lr"], group["weight_decay"]) == (0.1, 0.2)
    assert [id(p) for p in group["params"]] == [id(p) for p in network.parameters()]


def test_stages_decay_from_the_head_down(network: Network) -> None:
    """The last stage has the rate times the factor, the one before it times its square, ..."""
    found = by_parameter(network, OptimizerSettings(learning_rate=0.1, stage_decay=0.5))
    for key, encoder in network.encoders.items():
        for name, stage in encoder.stage_of.items():  # type: ignore[union-attr, operator]
            expected = 0.1 * 0.5 ** (encoder.stages - stage)
            assert found[f"encoders.{key}.body.{name}"][0] == pytest.approx(expected)
    last = [name for name in found if ".layer4." in name]
    assert last
    assert {found[name][0] for name in last} == {0.05}
    assert {rate for name, (rate, _) in found.items() if not name.startswith("encoders.")} == {0.1}


def test_the_head_can_have_a_rate_of_its_own(network: Network) -> None:
    """It applies to everything outside the encoders: the last layer and attention."""
    found = by_parameter(network, OptimizerSettings(learning_rate=0.1, head_learning_rate=0.7))
    for name, (rate, _) in found.items():
        assert rate == (0.1 if name.startswith("encoders.") else 0.7), name
    assert any(name.startswith("poolings.") for name in found)


@pytest.mark.parametrize("encoder", ["test_resnet", "test_vit"])
def test_norms_and_biases_need_not_decay(encoder: str) -> None:
    """They are the parameters that timm excludes; the weights of layers decay."""
    network = Network(NetworkSettings(encoder=encoder, shared_encoder=True), ("acl",))
    settings = OptimizerSettings(weight_decay=0.2, decay_norms=False)
    decays = {name: decay for name, (_, decay) in by_parameter(network, settings).items()}
    shapes = {name: parameter.ndim for name, parameter in network.named_parameters()}
    assert decays["head.bias"] == 0
    assert decays["head.weight"] == 0.2
    embedded = {name for name in decays if name.endswith(("pos_embed", "cls_token"))}
    assert bool(embedded) == (encoder == "test_vit")
    for name, decay in decays.items():
        assert decay == (0 if shapes[name] <= 1 or name in embedded else 0.2), name


def test_frozen_stages_are_in_no_group() -> None:
    """Only trained parameters are given to the optimizer."""
    network = Network(SETTINGS.replace(frozen_stages=2, shared_encoder=True), ("acl",))
    found = by_parameter(network, OptimizerSettings(stage_decay=0.5, decay_norms=False))
    assert found.keys() == {n for n, p in network.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("schedule", "factor_of"), [("cosine", cosine_factor), ("one_cycle", one_cycle_factor)]
)
def test_the_schedule_changes_all_rates_by_the_same_factor(
    schedule: str,
    factor_of: Callable[[int, int, ScheduleSettings], float],
    network: Network,
) -> None:
    """The loop's learning rate is that of the recipe times the factor of the schedule."""
    optimizer = OptimizerSettings(learning_rate=0.1, head_learning_rate=0.7, stage_decay=0.5)
    recipe = QUICK.replace(
        optimizer=optimizer,
        schedule=ScheduleSettings(name=schedule, warmup=0.5),  # type: ignore[arg-type]
    )
    loop = TrainingLoop(network, recipe, torch.ones(1), 10)
    factor = factor_of(0, 10, recipe.schedule)
    assert loop.learning_rate == pytest.approx(0.1 * factor)
    bases = [group["lr"] for group in parameter_groups(network, optimizer)]
    assert len(set(bases)) > 3
    found = [group["lr"] for group in loop.optimizer.param_groups]
    assert found == pytest.approx([base * factor for base in bases])


@pytest.mark.slow
def test_plateau_cuts_all_rates(tmp_path: Path) -> None:
    """metrics.csv states the rate of the recipe, cut by the factor, whatever the groups are."""
    data = write_toy_dataset(tmp_path / "toy", 6, 4)
    recipe = QUICK.replace(
        optimizer=OptimizerSettings(learning_rate=1e-3, head_learning_rate=1e-2),
        schedule=ScheduleSettings(name="plateau", patience=0, factor=0.5, threshold=0.9),
        epochs=3,
        loggers=[],
    )
    train(data, tmp_path / "run", recipe)
    assert column(tmp_path / "run", "learning_rate") == pytest.approx([1e-3, 1e-3, 5e-4])
