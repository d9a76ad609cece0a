"""Folding of batch normalisations: same maps and gradients, fewer modules, current weights."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from mrknee.models.bodies import feature_maps
from mrknee.models.encoders import Encoder, build_encoders


def an_encoder(
    name: str, maps: tuple[int, ...] = (), channels: int = 0, drop_path: float = 0.0
) -> Encoder:
    """Returns an encoder whose normalisations change what they get."""
    torch.manual_seed(0)
    encoder = build_encoders(name, "none", 1, maps, channels, drop_path)[0].eval()
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
    return encoder


def unfolded(encoder: Encoder, pictures: Tensor) -> list[Tensor]:
    """Returns the maps of the body as it is."""
    if encoder.repeats:
        pictures = pictures.expand(-1, 3, -1, -1)
    with torch.no_grad():
        return feature_maps(encoder.body, pictures, encoder._indices)


def assert_same(found: Tensor, wanted: Tensor) -> None:
    """Asserts that maps differ by rounding only."""
    found = found.detach()
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


def norms_used(encoder: Encoder, pictures: Tensor, *, gradients: bool = False) -> int:
    """Returns how many batch normalisations of the body are run."""
    used = []
    hooks = [
        module.register_forward_hook(lambda *_: used.append(1))
        for module in encoder.body.modules()
        if isinstance(module, nn.BatchNorm2d)
    ]
    with torch.set_grad_enabled(gradients):
        encoder.maps(pictures)  # may fold, which runs a copy of the body once to compare
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
    wanted = unfolded(encoder, pictures)
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
    assert_same(after, unfolded(encoder, pictures)[0])
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


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "test_byobnet", "test_vit"])
def test_encoders_are_folded_for_good(name: str) -> None:
    """The maps are the same, and the folded normalisations are gone; other bodies stay."""
    encoder = an_encoder(name)
    pictures = torch.randn(2, 1, 64, 64)
    wanted, body = unfolded(encoder, pictures), encoder.body
    encoder.fold(pictures)
    for found, expected in zip(unfolded(encoder, pictures), wanted, strict=True):
        assert_same(found, expected)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in encoder.body.modules())
    assert (encoder.body is body) == (name == "test_vit")


def test_frozen_encoders_in_training_are_folded() -> None:
    """Their normalisations are in evaluation mode, other modules aren't."""
    encoder, pictures = an_encoder("test_byobnet"), torch.randn(2, 1, 64, 64)
    encoder.freeze_stages(encoder.stages)
    encoder.train()
    encoder.keep_frozen(batchnorm=True)
    assert norms_used(encoder, pictures) == 0
    with torch.no_grad():
        assert_same(encoder.maps(pictures)[0], unfolded(encoder, pictures)[0])


@pytest.mark.parametrize(
    ("name", "maps"), [("tf_efficientnet_lite0", (2, 3)), ("resnet18", ()), ("test_byobnet", ())]
)
@pytest.mark.parametrize("frozen", [0, -1])
def test_gradients_of_trained_encoders_are_the_same(
    name: str, maps: tuple[int, ...], frozen: int
) -> None:
    """Of convolutions and of normalisations; frozen stages have none."""
    encoder, pictures = an_encoder(name, maps), torch.randn(2, 3, 64, 64)
    encoder.freeze_stages(frozen)
    encoder.train()
    encoder.keep_frozen(batchnorm=True)
    assert norms_used(encoder, pictures, gradients=True) == 0
    weights = {n: one for n, one in encoder.named_parameters() if one.requires_grad}
    assert any("bn" in key for key in weights)

    def gradients(found: list[Tensor]) -> dict[str, Tensor]:
        loss = torch.stack([one.square().mean() for one in found]).sum()
        return dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))

    wanted = gradients(feature_maps(encoder.body, pictures, encoder._indices))
    for key, one in gradients(encoder.maps(pictures)).items():
        assert float(wanted[key].abs().max()) > 0
        torch.testing.assert_close(
            one, wanted[key], rtol=0, atol=1e-4 * float(wanted[key].abs().max()), msg=key
        )


def test_random_numbers_are_those_of_the_body() -> None:
    """Stochastic depth in training mode, and none in evaluation mode."""
    encoder, pictures = an_encoder("resnet18", drop_path=0.5), torch.randn(8, 1, 64, 64)
    plain = unfolded(encoder, pictures)[0]
    assert_same(encoder.maps(pictures)[0], plain)
    encoder.train()
    encoder.keep_frozen(batchnorm=True)
    torch.manual_seed(1)
    wanted = unfolded(encoder, pictures)[0]
    torch.manual_seed(1)
    assert_same(encoder.maps(pictures)[0], wanted)
    assert not torch.allclose(wanted, plain)
    assert_same(encoder.eval().maps(pictures)[0], plain)


def test_statistics_of_the_batch_are_not_folded() -> None:
    """They differ from batch to batch; frozen again, they are."""
    encoder = an_encoder("test_byobnet").train()
    pictures = torch.randn(4, 1, 64, 64)
    assert norms_used(encoder, pictures) > 0
    encoder.keep_frozen(batchnorm=True)
    assert norms_used(encoder, pictures) == 0


def test_normalisations_that_change_nothing_yet() -> None:
    """With initial ones, any order computes the same maps; weights change later."""
    torch.manual_seed(0)
    encoder = build_encoders("resnetv2_18", "none", 1)[0].eval()
    pictures = torch.randn(2, 1, 64, 64)
    encoder.maps(pictures)
    encoder.load_state_dict(an_encoder("resnetv2_18").state_dict())
    assert_same(encoder.maps(pictures)[0], unfolded(encoder, pictures)[0])


def test_inference_mode_before_training() -> None:
    """Tensors of inference mode can't be used for gradients."""
    encoder, pictures = an_encoder("test_byobnet"), torch.randn(2, 1, 64, 64)
    with torch.inference_mode():
        assert_same(encoder.maps(pictures)[0].clone(), unfolded(encoder, pictures)[0])
    assert norms_used(encoder, pictures, gradients=True) == 0
    encoder.maps(pictures)[0].sum().backward()
    assert all(one.grad is not None for one in encoder.parameters())


def test_half_precision() -> None:
    """Under autocast, as in training with bf16-mixed."""
    encoder, pictures = an_encoder("test_byobnet"), torch.randn(2, 1, 64, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert norms_used(encoder, pictures) == 0
        found = encoder.maps(pictures)[0].float().detach()
    wanted = unfolded(encoder, pictures)[0]
    assert float((found - wanted).abs().max()) < 0.05 * float(wanted.abs().max())


def test_networks_that_compute_in_another_order_are_left_as_they_are() -> None:
    """Pre-activation: the normalisation listed after a convolution belongs to the next one."""
    encoder, pictures = an_encoder("resnetv2_18"), torch.randn(2, 1, 64, 64)
    wanted = unfolded(encoder, pictures)
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
