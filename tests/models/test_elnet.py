"""The ELNet-like encoders."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mrknee.errors import SettingsError
from mrknee.exams import MRNET_SERIES
from mrknee.models.elnet import ELNETS, K
from mrknee.models.encoders import build_encoders, check_name, input_statistics
from mrknee.models.network import Network
from mrknee.models.settings import NetworkSettings

NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)


@pytest.mark.parametrize("name", ELNETS)
def test_it_is_small_and_has_16_k_features(name: str) -> None:
    """Below the paper's megabyte in 32-bit numbers, five stages, and cells of 32 pixels."""
    torch.manual_seed(0)
    [encoder] = build_encoders(name, "none", 1)
    assert sum(p.nbytes for p in encoder.parameters()) < 1_000_000
    assert encoder.width == 16 * K
    assert encoder.stages == 5
    assert encoder(torch.randn(2, 1, 224, 224)).shape == (2, 64, 7, 7)
    assert not encoder.repeats


@pytest.mark.parametrize("name", ELNETS)
def test_slices_are_normalised_on_their_own(name: str) -> None:
    """No layer has statistics of a batch: a slice's map doesn't depend on other slices."""
    torch.manual_seed(0)
    [encoder] = build_encoders(name, "none", 1)
    assert not any(isinstance(layer, NORMS) for layer in encoder.modules())
    slices = torch.randn(3, 1, 64, 64)
    for mode in (True, False):
        encoder.train(mode)
        torch.testing.assert_close(encoder(slices)[1:2], encoder(slices[1:2]), rtol=0, atol=1e-5)


def test_the_normalisations_differ_in_groups() -> None:
    """Layer normalisation covers all channels of a slice, contrast normalisation each channel."""
    groups = {}
    for name in ELNETS:
        [encoder] = build_encoders(name, "none", 1)
        norms = [layer for layer in encoder.modules() if isinstance(layer, nn.GroupNorm)]
        groups[name] = {layer.num_channels // layer.num_groups for layer in norms}
    assert groups["elnet_contrast"] == {1}
    assert groups["elnet"] == {16, 32, 64}


def test_downsampling_is_antialiased() -> None:
    """Between stages only BlurPool makes maps smaller, which moves smoothly with the image."""
    [encoder] = build_encoders("elnet", "none", 1)
    strides = [layer.stride[0] for layer in encoder.modules() if type(layer) is nn.Conv2d]
    assert set(strides) == {1}
    assert sum(type(layer).__name__ == "BlurPool2d" for layer in encoder.modules()) == 4


@pytest.mark.parametrize("maps", [[0], [2], [2, 3]])
def test_any_stage_can_be_used(maps: list[int]) -> None:
    """Feature maps are those at the end of the stages, and later layers are removed."""
    torch.manual_seed(0)
    [whole] = build_encoders("elnet", "none", 1)
    torch.manual_seed(0)
    [cut] = build_encoders("elnet", "none", 1, maps, 8 if len(maps) > 1 else 0)
    slices = torch.randn(1, 1, 64, 64)
    body = whole.body
    assert isinstance(body, nn.Sequential)
    for index, one in zip(maps, cut.maps(slices), strict=True):
        torch.testing.assert_close(one, body[: 2 * index + 1](slices))
    assert cut.stages == maps[-1] + 1


@pytest.mark.parametrize(("weights", "drop_path"), [("download", 0.0), ("none", 0.1)])
def test_what_it_lacks_is_refused(weights: str, drop_path: float) -> None:
    """There are no pretrained weights and no residual blocks to skip."""
    with pytest.raises(SettingsError, match=r"pretrained weights|stochastic depth"):
        build_encoders("elnet", weights, 1, drop_path=drop_path)


def test_the_names_are_known() -> None:
    """Names are accepted, similar ones suggested; grey values are MRNet's."""
    for name in ELNETS:
        check_name(name)
        assert input_statistics(name) == (58.09, 49.73)
    with pytest.raises(SettingsError, match="elnet"):
        check_name("elnett")


def test_gradients_reach_every_weight() -> None:
    """A network of one series and one finding, as in the paper, trains all of its weights."""
    torch.manual_seed(0)
    network = Network(
        NetworkSettings(encoder="elnet"), ("acl",), series=MRNET_SERIES.only(["axial"])
    )
    logits = network({"axial": torch.randn(3, 1, 64, 64)}, {"axial": torch.tensor([1, 2])})
    torch.autograd.backward(logits.square().sum())
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())
