from __future__ import annotations

import json
import subprocess
import sys
from typing import cast

import pytest
import timm
import torch
from torch import nn
from torchvision.models import AlexNet_Weights  # type: ignore[import-untyped]

from mrknee.errors import MrkneeError
from mrknee.models.bodies import GreyConv2d
from mrknee.models.catalogue import ENCODERS, EncoderTable
from tests.models.examples import build_encoder

TINY = [
    "test_byobnet",
    "test_convnext",
    "test_efficientnet",
    "test_mambaout",  # returns channels last
    "test_nfnet",
    "test_resnet",
    "test_vit",
    "test_vit2",
]


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize(("rows", "cols"), [(96, 64), (160, 160)])
def test_every_type_of_encoder_computes_a_map(name: str, rows: int, cols: int) -> None:
    """The encoder returns (n, width, rows, cols) for any model of timm and any size."""
    encoder = build_encoder(name).eval()
    pictures = torch.randn(2, 1, rows, cols)
    maps = encoder(pictures)
    assert maps.ndim == 4
    assert maps.shape[:2] == (2, encoder.width)
    assert maps.shape[2] / maps.shape[3] == rows / cols
    torch.testing.assert_close(encoder(pictures[1:]), maps[1:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [*TINY, "alexnet"])
def test_three_channels_are_taken_as_they_are(name: str) -> None:
    """Three equal channels give the map of the grey image, different ones another.

    The first layer has a gradient of its own for each channel.
    """
    torch.manual_seed(0)
    encoder = build_encoder(name).eval()
    grey = torch.randn(2, 1, 160, 160)
    maps = encoder(grey)
    same = encoder(grey.expand(-1, 3, -1, -1))
    scale = max(1.0, float(maps.detach().abs().max()))
    torch.testing.assert_close(same, maps, rtol=1e-4, atol=1e-5 * scale)
    colour = torch.cat([grey.roll(8, 2), grey, grey.roll(8, 3)], dim=1)
    found = encoder(colour)
    assert float((found - maps).detach().abs().max()) > 1e-4
    first = next(one for one in encoder.body.parameters() if one.ndim == 4)
    assert first.shape[1] == 3
    (gradient,) = torch.autograd.grad(found.square().sum(), [first])
    assert not torch.allclose(gradient[:, 0], gradient[:, 2])


@pytest.mark.parametrize("name", ["test_vit", "test_mambaout", "test_convnext"])
def test_the_map_preserves_positions(name: str) -> None:
    """A change at the lower left of an image changes its map most at the lower left."""
    torch.manual_seed(0)
    encoder = build_encoder(name).eval()
    black = torch.zeros(1, 1, 160, 160)
    lit = black.clone()
    lit[:, :, 128:, :32] = 3
    with torch.no_grad():
        change = (encoder(lit) - encoder(black)).abs().sum(1)[0]
    row, col = divmod(int(change.argmax()), change.shape[1])
    assert row >= 0.7 * (change.shape[0] - 1)
    assert col <= 0.3 * (change.shape[1] - 1)


@pytest.mark.parametrize("name", TINY)
def test_every_weight_is_used(name: str) -> None:
    """Weights without effect (of a classifier) are removed, and each weight belongs to a stage."""
    encoder = build_encoder(name).eval()
    parameters = dict(encoder.body.named_parameters())
    total = encoder(torch.randn(1, 1, 64, 64)).square().sum()
    gradients = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
    assert all(g is not None for g in gradients)
    assert set(encoder.stage_of) == set(parameters)
    assert set(encoder.stage_of.values()) == set(range(encoder.stages))


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_the_catalogue_agrees_with_the_libraries(name: str) -> None:
    """Width, stages, parameters, statistics, source and licence are those of the libraries."""
    entry = ENCODERS[name]
    with torch.device("meta"):  # without values: drawing those of a large encoder takes long
        encoder = build_encoder(name)
    assert entry.name == name
    assert encoder.width == entry.width
    assert encoder.stages == entry.stages
    millions = sum(p.numel() for p in encoder.parameters()) / 1e6
    assert millions == pytest.approx(entry.parameters, abs=0.005)
    if entry.library == "torchvision":
        transform = AlexNet_Weights.DEFAULT.transforms()
        assert (tuple(transform.mean), tuple(transform.std)) == (entry.mean, entry.sd)
        assert entry.source == AlexNet_Weights.DEFAULT.url
    else:
        config = timm.get_pretrained_cfg(name)
        assert config is not None
        assert (config.mean, config.std) == (entry.mean, entry.sd)
        assert entry.source == f"https://huggingface.co/{config.hf_hub_id}"
        assert entry.licence == config.license


def test_stages_count_from_the_input() -> None:
    """AlexNet's stages are its five convolutions, in order."""
    encoder = build_encoder("alexnet")
    stages = [
        encoder.stage_of[f"{place}.weight"]
        for place, layer in enumerate(cast(nn.Sequential, encoder.body))
        if isinstance(layer, nn.Conv2d)
    ]
    assert stages == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("seed", range(3))
def test_random_weights_of_alexnet_keep_the_signal(seed: int) -> None:
    """Activations neither vanish nor grow, so that training from random weights can start.

    With torchvision's initialisation the last ones have a fortieth of the input's SD.
    """
    torch.manual_seed(seed)
    images = torch.randn(4, 3, 128, 128)
    with torch.no_grad():
        sd = build_encoder("alexnet").body(images).std().item()
    assert 0.5 < sd < 5


def test_the_table_is_json() -> None:
    """The table of encoders can be converted to JSON, and names each encoder once."""
    table = json.loads(json.dumps(EncoderTable().to_list()))
    assert [row["name"] for row in table] == list(ENCODERS)
    assert table[0]["mean"] == [0.485, 0.456, 0.406]


@pytest.mark.parametrize(
    ("name", "close"), [("alexnett", "alexnet"), ("resnet5", "resnet50"), ("resnet50.no", "resnet")]
)
def test_the_error_for_an_unknown_name_lists_close_names(name: str, close: str) -> None:
    """The error for an unknown encoder has close names and explains how to list all."""
    with pytest.raises(MrkneeError) as caught:
        build_encoder(name)
    assert caught.value.found == repr(name)
    assert close in (caught.value.expected or "")
    assert "mrknee encoders" in (caught.value.advice or "")


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [(11, 4, 2), (7, 2, 3), (3, 1, 1), (16, 16, 0), ((3, 5), (2, 3), 1)],
)
@pytest.mark.parametrize("size", [(64, 64), (45, 38)])
def test_a_grey_convolution_is_one_of_three_equal_channels(
    kernel: int | tuple[int, int],
    stride: int | tuple[int, int],
    padding: int,
    size: tuple[int, int],
) -> None:
    """Results and gradients are equal for any kernel, stride and size, up to rounding."""
    torch.manual_seed(0)
    three = torch.nn.Conv2d(3, 8, kernel, stride, padding)
    grey = GreyConv2d(3, 8, kernel, stride, padding)
    grey.load_state_dict(three.state_dict())
    pictures = torch.randn(2, 1, *size)
    expected, found = three(pictures.expand(-1, 3, -1, -1)), grey(pictures)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    for result in (expected, found):
        torch.autograd.backward(result.square().sum())
    assert grey.bias is not None
    assert three.bias is not None
    torch.testing.assert_close(grey.weight.grad, three.weight.grad, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(grey.bias.grad, three.bias.grad, rtol=1e-3, atol=1e-3)


def test_plain_first_layers_accept_grey_images() -> None:
    """AlexNet, ResNets and vision transformers accept one channel; Lite0, which pads, doesn't."""
    repeats = {n: build_encoder(n).repeats for n in ("alexnet", "test_resnet", "test_vit")}
    assert not any(repeats.values())
    assert build_encoder("tf_efficientnet_lite0").repeats


@pytest.mark.slow
def test_strided_points_on_the_image_are_trained() -> None:
    """A strided 1x1 convolution of the image has gradients (with channels last torch crashes)."""
    code = """
import torch
from mrknee.models.encoders import build_encoders
encoder = build_encoders("mobileone_s0", "none", 1)[0]
encoder(torch.randn(2, 1, 64, 64)).sum().backward()
assert all(weight.grad is not None for weight in encoder.parameters())
"""
    finished = subprocess.run(  # noqa: S603  # a crash would end the tests
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=200
    )
    assert finished.returncode == 0, finished.stderr
