"""Folding of batch normalisations: same maps, fewer modules, up to date with the weights."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from mrknee.models.encoders import Encoder, build_encoders
from mrknee.models.folding import foldable


def an_encoder(name: str, maps: tuple[int, ...] = (), channels: int = 0) -> Encoder:
    """Returns an encoder whose normalisations change what they get."""
    torch.manual_seed(0)
    encoder = build_encoders(name, "none", 1, maps, channels)[0].eval()
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
    return encoder


def with_gradients(encoder: Encoder, pictures: Tensor) -> list[Tensor]:
    """Returns the maps of the body as it is."""
    with torch.enable_grad():
        return [one.detach() for one in encoder.maps(pictures)]


def assert_same(found: Tensor, wanted: Tensor) -> None:
    """Asserts that maps differ by rounding only."""
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


def norms_used(encoder: Encoder, pictures: Tensor) -> int:
    """Returns how many batch normalisations of the body take part in inference."""
    used = []
    hooks = [
        module.register_forward_hook(lambda *_: used.append(1))
        for module in encoder.body.modules()
        if isinstance(module, nn.BatchNorm2d)
    ]
    with torch.no_grad():
        encoder.maps(pictures)  # may fold, which runs the body once to compare
        used.clear()
        encoder.maps(pictures)
    for hook in hooks:
        hook.remove()
    return len(used)


@pytest.mark.parametrize(
    ("name", "maps", "channels"),
    [
        ("tf_efficientnet_lite0", (2, 3), 8),
        ("resnet18", (), 0),
        ("test_byobnet", (), 0),
    ],
)
@pytest.mark.parametrize("colours", [1, 3])
def test_folded_networks_compute_the_same_maps(
    name: str, maps: tuple[int, ...], channels: int, colours: int
) -> None:
    """Without normalisations of their own, as the hooks show."""
    encoder, pictures = an_encoder(name, maps, channels), torch.randn(2, colours, 64, 64)
    wanted = with_gradients(encoder, pictures)
    assert norms_used(encoder, pictures) == 0
    with torch.no_grad():
        found = encoder.maps(pictures)
    for one, other in zip(found, wanted, strict=True):
        assert_same(one, other)
        assert float(other.std()) > 0


def test_changed_weights_are_folded_again() -> None:
    """By an optimizer, and by loading others."""
    encoder, pictures = an_encoder("test_byobnet"), torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        before = encoder.maps(pictures)[0]
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=0.1)
    encoder.maps(pictures)[0].sum().backward()
    optimizer.step()
    with torch.no_grad():
        after = encoder.maps(pictures)[0]
    assert_same(after, with_gradients(encoder, pictures)[0])
    assert not torch.allclose(before, after, atol=1e-2)
    encoder.load_state_dict(an_encoder("test_byobnet").state_dict())
    with torch.no_grad():
        assert_same(encoder.maps(pictures)[0], before)


def test_a_copy_has_its_own_weights() -> None:
    """A copied encoder isn't taken for the one whose folded network it has."""
    encoder, pictures = an_encoder("test_byobnet"), torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        before = encoder.maps(pictures)[0]
        other = copy.deepcopy(encoder)
        for weight in other.parameters():
            weight.mul_(0.5)
        assert not torch.allclose(other.maps(pictures)[0], before, atol=1e-2)
        assert_same(encoder.maps(pictures)[0], before)


def test_frozen_encoders_in_training_are_folded() -> None:
    """Their normalisations are in evaluation mode, other modules aren't."""
    encoder, pictures = an_encoder("test_byobnet"), torch.randn(2, 1, 64, 64)
    encoder.freeze_stages(encoder.stages)
    encoder.train()
    encoder.keep_frozen(batchnorm=True)
    assert norms_used(encoder, pictures) == 0
    with torch.no_grad():
        assert_same(encoder.maps(pictures)[0], with_gradients(encoder, pictures)[0])


def test_trained_encoders_are_not_folded_while_they_are_trained() -> None:
    """Their weights change at each step; chunks are encoded without gradients first."""
    encoder, pictures = an_encoder("test_byobnet"), torch.randn(2, 1, 64, 64)
    encoder.train()
    encoder.keep_frozen(batchnorm=True)
    assert foldable(encoder.body)
    assert norms_used(encoder, pictures) > 0


def test_statistics_of_the_batch_are_not_folded() -> None:
    """They differ from batch to batch."""
    encoder = an_encoder("test_byobnet").train()
    assert not foldable(encoder.body)
    pictures = torch.randn(4, 1, 64, 64)
    assert norms_used(encoder, pictures) > 0


def test_networks_that_compute_in_another_order_are_left_as_they_are() -> None:
    """Pre-activation: the normalisation listed after a convolution belongs to the next one."""
    encoder, pictures = an_encoder("resnetv2_18"), torch.randn(2, 1, 64, 64)
    wanted = with_gradients(encoder, pictures)
    with torch.no_grad():
        found = encoder.maps(pictures)
    assert_same(found[0], wanted[0])


def test_state_and_modules_are_those_of_the_body() -> None:
    """Checkpoints don't contain the folded network."""
    encoder, pictures = an_encoder("test_byobnet"), torch.randn(2, 1, 64, 64)
    keys, modules = list(encoder.state_dict()), len(list(encoder.modules()))
    with torch.no_grad():
        encoder.maps(pictures)
    assert list(encoder.state_dict()) == keys
    assert len(list(encoder.modules())) == modules
