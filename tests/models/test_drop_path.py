"""Tests of stochastic depth, the setting `network.drop_path`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from timm.layers.drop import DropPath

from mrknee.errors import ModelError, SettingsError
from mrknee.models.checkpoint import load_checkpoint, save_checkpoint
from mrknee.models.network import Network
from mrknee.models.settings import NetworkSettings
from tests.models.examples import FINDINGS, describe, random_batch

DROPPING = NetworkSettings(encoder="test_resnet", shared_encoder=True, drop_path=0.5)
PREPARATION = {"size": 256, "crop": 224, "mean": 58.09, "sd": 50}


def build(settings: NetworkSettings) -> Network:
    """Returns a network with random weights."""
    torch.manual_seed(0)
    return Network(settings, FINDINGS)


def paths(network: Network) -> list[DropPath]:
    """Returns the blocks' modules that skip them."""
    return [module for module in network.modules() if isinstance(module, DropPath)]


@pytest.mark.parametrize("encoder", ["test_resnet", "test_vit"])
def test_blocks_are_skipped_in_training_only(encoder: str) -> None:
    """In evaluation mode the logits are those of the network without drop path."""
    network, plain = (
        build(DROPPING.replace(encoder=encoder, drop_path=rate)) for rate in (0.5, 0.0)
    )
    for parameter in network.parameters():
        if parameter.ndim == 1 and not parameter.any():  # timm lets residual blocks begin with 0
            torch.nn.init.ones_(parameter)
    plain.load_state_dict(network.state_dict())
    assert not paths(plain)
    batch = random_batch([(2, 1, 2)])
    with torch.no_grad():
        assert torch.equal(network.eval()(*batch), plain.eval()(*batch))
        network.train()
        logits = {float(network(*batch)[0, 0]) for _ in range(8)}
    assert len(logits) > 1


def test_the_last_block_has_the_given_rate() -> None:
    """The rates of the blocks rise to it, as timm defines them."""
    rates = [path.drop_prob for path in paths(build(DROPPING))]
    assert rates == sorted(rates)
    assert rates[-1] == 0.5


def test_frozen_stages_skip_nothing() -> None:
    """Their blocks stay in evaluation mode."""
    network = build(DROPPING.replace(frozen_stages=5))
    assert paths(network)
    assert not any(path.training for path in paths(network))


@pytest.mark.parametrize("encoder", ["alexnet", "vgg11", "densenet121"])
def test_an_encoder_without_it_is_refused(encoder: str) -> None:
    """Other architectures can't skip blocks, and the error names the encoder."""
    with pytest.raises(SettingsError, match="no stochastic depth") as caught, torch.device("meta"):
        Network(DROPPING.replace(encoder=encoder), FINDINGS)
    assert caught.value.found == f"network.drop_path above 0 with {encoder}"
    assert caught.value.code == "setting"


def test_a_checkpoint_keeps_it_and_older_ones_have_none(tmp_path: Path) -> None:
    """A model of an earlier version doesn't state it; no other setting may be missing."""
    network = build(DROPPING)
    save_checkpoint(tmp_path, network, PREPARATION, {"data": "none"})
    assert load_checkpoint(tmp_path).network.settings == DROPPING
    describe(tmp_path, lambda described: described["settings"].pop("drop_path"))
    assert load_checkpoint(tmp_path).network.settings == DROPPING.replace(drop_path=0.0)
    describe(tmp_path, lambda described: described["settings"].pop("dropout"))
    with pytest.raises(ModelError, match="network settings of a model can't be read"):
        load_checkpoint(tmp_path)
