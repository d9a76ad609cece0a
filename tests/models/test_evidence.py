"""Pooling of scores, and feature maps of any stage."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mrknee.errors import SettingsError
from mrknee.exams import PLANES
from mrknee.models.checkpoint import load_checkpoint, save_checkpoint
from mrknee.models.encoders import build_encoders
from mrknee.models.evidence import (
    EVIDENCE_POOLINGS,
    FindingAttention,
    LogSumExpEvidence,
    SoftmaxEvidence,
)
from mrknee.models.neck import Neck, Pyramid
from mrknee.models.network import Network
from mrknee.models.pooling import POOLINGS
from mrknee.models.settings import NetworkSettings, SlicePooling
from mrknee.models.transfer import transfer_weights
from mrknee.transforms.preparation import Preparation

FINDINGS = ("abnormal", "acl", "meniscus")
ALL = torch.ones(2)


def scores(seed: int = 0) -> dict[int, Tensor]:
    """Scores of three findings: two series of 4 and 2 slices, of different sizes."""
    generator = torch.Generator().manual_seed(seed)
    return {
        0: torch.randn(4, 3, 2, 5, generator=generator),
        1: torch.randn(2, 3, 3, 3, generator=generator),
    }


def features(width: int = 6) -> dict[int, Tensor]:
    """Features of the slices of these series."""
    generator = torch.Generator().manual_seed(1)
    return {
        0: torch.randn(4, width, generator=generator),
        1: torch.randn(2, width, generator=generator),
    }


def total(contributions: dict[int, Tensor]) -> Tensor:
    """Adds up the contributions to each finding."""
    return torch.stack([part.sum(dim=(0, 2, 3)) for part in contributions.values()]).sum(0)


def test_every_pooling_is_of_features_or_of_scores() -> None:
    """Each permitted value of the setting has a class."""
    assert {*POOLINGS, *EVIDENCE_POOLINGS, "transformer"} == set(get_args(SlicePooling))


def test_evidence_is_the_softmax_weighted_sum() -> None:
    """Per series and finding: the sum over cells of softmax(k s) s, added over series."""
    pooling = SoftmaxEvidence(6, 3, 2)
    with torch.no_grad():
        pooling.log_sharpness.copy_(torch.tensor([[-1.0, 0.0, 1.0], [0.5, 2.0, -2.0]]))
    found = total(pooling(scores(), features(), ALL)).detach()
    for finding in range(3):
        expected = 0.0
        for series, own in scores().items():
            cells = own[:, finding].flatten().double()
            sharpness = float(pooling.log_sharpness[series, finding].detach().exp())
            weights = (sharpness * cells).exp() / (sharpness * cells).exp().sum()
            expected += float((weights * cells).sum())
        assert float(found[finding]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("kind", [SoftmaxEvidence, LogSumExpEvidence])
def test_sharpness_leads_from_the_mean_to_the_maximum(kind: type[SoftmaxEvidence]) -> None:
    """With a sharpness of nearly 0 the result is the mean, with a large one the maximum."""
    pooling = kind(6, 3, 2)
    for log_sharpness, reduce in ((-9.0, torch.mean), (9.0, torch.amax)):
        torch.nn.init.constant_(pooling.log_sharpness, log_sharpness)
        found = total(pooling(scores(), features(), ALL)).detach()
        expected = sum(reduce(own, dim=(0, 2, 3)) for own in scores().values())
        assert isinstance(expected, Tensor)
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)


def test_log_sum_exp_equals_its_formula() -> None:
    """log(mean(exp(k s))) / k per series and finding; contributions are not negative shares."""
    pooling = LogSumExpEvidence(6, 3, 2)
    torch.nn.init.constant_(pooling.log_sharpness, 0.7)
    k = float(torch.tensor(0.7).exp())
    expected = sum(
        torch.log(torch.exp(k * own.double()).mean(dim=(0, 2, 3))) / k for own in scores().values()
    )
    assert isinstance(expected, Tensor)
    found = pooling(scores(), features(), ALL)
    torch.testing.assert_close(total(found).double(), expected, rtol=0, atol=1e-5)


def test_attention_equals_the_paper() -> None:
    """Weights are softmax(v tanh(U h)) over all slices of all series (Ilse et al. 2018, eq. 8)."""
    torch.manual_seed(0)
    pooling = FindingAttention(6, 3, 2)
    every = torch.cat(list(features().values()))
    means = torch.cat([own.mean(dim=(2, 3)) for own in scores().values()])
    found = total(pooling(scores(), features(), ALL)).detach()
    for finding in range(3):
        keys = torch.stack(
            [pooling.queries.weight[finding] @ torch.tanh(pooling.hidden.weight @ h) for h in every]
        )
        expected = torch.softmax(keys, 0) @ means[:, finding]
        torch.testing.assert_close(found[finding], expected)


@pytest.mark.parametrize("pooling", EVIDENCE_POOLINGS)
def test_a_series_that_does_not_count_has_no_effect(pooling: SlicePooling) -> None:
    """With a share of 0, as in an exported graph, results are those without the series."""
    torch.manual_seed(0)
    module = EVIDENCE_POOLINGS[pooling](6, 3, 2)
    both = module(scores(), features(), torch.tensor([2.0, 0.0]))
    alone = module({0: scores()[0]}, {0: features()[0]}, torch.tensor([2.0, 0.0]))
    torch.testing.assert_close(both[0], alone[0])
    assert not both[1].any()


@pytest.mark.parametrize("pooling", ["evidence", "evidence_logsumexp"])
def test_a_lesion_of_one_cell_is_not_averaged_away(pooling: SlicePooling) -> None:
    """Sharpness lets one cell of a thousand decide; a mean over cells can't."""
    module = EVIDENCE_POOLINGS[pooling](6, 1, 1)
    assert isinstance(module, SoftmaxEvidence)
    torch.nn.init.constant_(module.log_sharpness, 1.0)
    healthy = torch.zeros(10, 1, 10, 10)
    torn = healthy.clone()
    torn[3, 0, 4, 5] = 6.0
    found = [
        float(total(module({0: one}, {0: torch.zeros(10, 6)}, torch.ones(1))).detach())
        for one in (healthy, torn)
    ]
    assert found[1] - found[0] > 3
    cell = module({0: torn}, {0: torch.zeros(10, 6)}, torch.ones(1))[0]
    assert int(cell.flatten().argmax()) == int(torn.flatten().argmax())


def network(pooling: SlicePooling = "evidence", seed: int = 0) -> Network:
    """Returns a small network with two feature maps."""
    torch.manual_seed(seed)
    settings = NetworkSettings(
        encoder="test_resnet", feature_maps=(2, 3), channels=16, slice_pooling=pooling
    )
    return Network(settings, FINDINGS)


def batch(counts: list[tuple[int, int, int]]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Returns slices of noise and their numbers."""
    torch.manual_seed(3)
    slices = {p: torch.randn(sum(c[i] for c in counts), 1, 32, 32) for i, p in enumerate(PLANES)}
    lengths = {p: torch.tensor([c[i] for c in counts]) for i, p in enumerate(PLANES)}
    return {str(p): s for p, s in slices.items()}, {str(p): n for p, n in lengths.items()}


@pytest.mark.parametrize("pooling", EVIDENCE_POOLINGS)
def test_an_exam_is_the_same_alone_and_in_a_batch(pooling: SlicePooling) -> None:
    """Other exams, and series that they lack, have no effect."""
    model = network(pooling).eval()
    slices, lengths = batch([(2, 0, 3), (2, 3, 1), (0, 0, 4)])
    together = model(slices, lengths)
    starts = dict.fromkeys(slices, 0)
    for index in range(3):
        counts = {name: int(lengths[name][index]) for name in slices}
        own = {name: slices[name][starts[name] : starts[name] + n] for name, n in counts.items()}
        alone = model(own, {name: torch.tensor([n]) for name, n in counts.items()})
        torch.testing.assert_close(together[index], alone[0], rtol=0, atol=1e-5)
        starts = {name: starts[name] + n for name, n in counts.items()}


@pytest.mark.parametrize("pooling", EVIDENCE_POOLINGS)
def test_every_weight_is_trained(pooling: SlicePooling) -> None:
    """All weights have a gradient: none is stored needlessly."""
    model = network(pooling)
    logits = model(*batch([(2, 1, 3), (2, 3, 1)]))
    loss = functional.binary_cross_entropy_with_logits(logits, torch.eye(3)[:2])
    torch.autograd.backward(loss)
    assert not [name for name, weight in model.named_parameters() if weight.grad is None]


@pytest.mark.parametrize("pooling", EVIDENCE_POOLINGS)
def test_saving_and_loading_keeps_the_logits(tmp_path: Path, pooling: SlicePooling) -> None:
    """A loaded network computes the same logits bit for bit."""
    model = network(pooling).eval()
    save_checkpoint(tmp_path, model, Preparation(size=32, crop=32).to_dict(), {})
    given = batch([(2, 1, 3)])
    assert torch.equal(load_checkpoint(tmp_path).network(*given), model(*given))


@pytest.mark.parametrize("encoder", ["alexnet", "test_resnet", "test_vit", "test_byobnet"])
def test_a_feature_map_is_that_of_the_complete_encoder(encoder: str) -> None:
    """The last map as an index equals the default, and earlier ones have smaller cells."""
    last = {"alexnet": 3, "test_resnet": 4, "test_vit": 5, "test_byobnet": 4}[encoder]
    pictures = torch.randn(2, 1, 160, 160)

    def build(maps: list[int]) -> Tensor:
        torch.manual_seed(0)
        found: Tensor = build_encoders(encoder, "none", 1, maps)[0].eval()(pictures)
        return found

    whole = build([])
    if encoder == "alexnet":
        torch.testing.assert_close(build([last]), whole)
    else:  # timm's intermediate maps lie before the last normalisation
        assert build([last]).shape == whole.shape
    sizes = [build([index]).shape[2] for index in range(last + 1)]
    assert sizes == sorted(sizes, reverse=True)


def test_layers_after_the_last_map_are_removed() -> None:
    """Unneeded layers are not stored; every weight that is left is used."""
    counts = [
        sum(p.numel() for p in build_encoders("test_resnet", "none", 1, maps)[0].parameters())
        for maps in ([1], [2], [3], [])
    ]
    assert counts == sorted(set(counts))


def test_several_maps_are_added_on_the_finest_grid() -> None:
    """Each map passes its own 1x1 layer; the coarse one is repeated over the cells it covers."""
    torch.manual_seed(0)
    encoder = build_encoders("test_resnet", "none", 1, [2, 3], 8)[0].eval()
    torch.manual_seed(0)
    fine = build_encoders("test_resnet", "none", 1, [2])[0].eval()
    pictures = torch.randn(1, 1, 64, 64)
    found = encoder(pictures)
    assert found.shape[1:] == (8, *fine(pictures).shape[2:])
    neck = encoder.neck
    assert neck is not None
    with torch.no_grad():
        neck.convolutions[0].get_parameter("weight").zero_()
    coarse = encoder(pictures)
    assert torch.equal(coarse[:, :, ::2, ::2], coarse[:, :, 1::2, 1::2])


def test_without_activation_the_sum_is_not_cut_at_zero() -> None:
    """The default is the ReLU of what `linear` returns."""
    encoders = []
    for linear in (False, True):
        torch.manual_seed(0)
        encoders.append(build_encoders("test_resnet", "none", 1, [2, 3], 8, linear=linear)[0])
    pictures = torch.randn(1, 1, 64, 64)
    cut, whole = (encoder.eval()(pictures) for encoder in encoders)
    assert (whole < 0).any()
    assert torch.equal(cut, whole.relu())


def test_scores_are_linear_in_normalised_features_without_activation() -> None:
    """The scores of the mean of two normalised maps are the mean of their scores."""
    torch.manual_seed(0)
    settings = network().settings.replace(activation="none")
    neck = Network(settings, FINDINGS).encoder("axial").neck
    assert neck is not None
    neck.norms = torch.nn.ModuleList(torch.nn.Identity() for _ in neck.norms)
    widths = [layer.get_parameter("weight").shape[1] for layer in neck.convolutions]
    sizes = list(zip(widths, (4, 2), strict=True))
    one, other = ([torch.randn(1, w, side, side) for w, side in sizes] for _ in range(2))
    mean = [(a + b) / 2 for a, b in zip(one, other, strict=True)]
    torch.testing.assert_close(neck(mean), (neck(one) + neck(other)) / 2)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"activation": "none"}, "network.activation"),
        ({"activation": "none", "channels": 8, "detail_crops": 2}, "network.activation"),
        ({"feature_maps": (2, 3)}, "network.channels"),
        ({"feature_maps": (3, 2), "channels": 8}, "network.feature_maps"),
        ({"feature_maps": (2, 2), "channels": 8}, "network.feature_maps"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, object], name: str) -> None:
    """Several maps need a common number of channels and stand in order; `none` needs a neck."""
    with pytest.raises(SettingsError, match=name):
        NetworkSettings(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("encoder", ["alexnet", "test_resnet"])
def test_a_feature_map_that_is_not_there_is_refused(encoder: str) -> None:
    """The message names the indices that the encoder has."""
    with pytest.raises(SettingsError, match=r"network.feature_maps from 0 to [34]"):
        build_encoders(encoder, "none", 1, [7])


def test_weights_are_transferred_finding_by_finding(tmp_path: Path) -> None:
    """Encoders, 1x1 layers, head and sharpness of a common finding are copied."""
    old, new = network(seed=1), network(seed=2)
    torch.nn.init.normal_(old.evidence.log_sharpness)  # type: ignore[union-attr, arg-type]
    save_checkpoint(tmp_path, old, Preparation(size=32, crop=32).to_dict(), {})
    assert transfer_weights(new, tmp_path).random == ()
    for name, weight in old.state_dict().items():
        assert torch.equal(new.state_dict()[name], weight), name


def test_another_head_keeps_the_encoders(tmp_path: Path) -> None:
    """A network that pools features gives its encoders to one that pools scores of earlier maps."""
    torch.manual_seed(0)
    old = Network(NetworkSettings(encoder="test_resnet"), FINDINGS)
    save_checkpoint(tmp_path, old, Preparation(size=32, crop=32).to_dict(), {})
    new = network(seed=2)
    transfer = transfer_weights(new, tmp_path)
    assert "neck axial" in transfer.random
    assert "head of acl" in transfer.random
    weights = old.encoder("axial").body.state_dict()
    for name, weight in new.encoder("axial").body.state_dict().items():
        assert torch.equal(weight, weights[name])


@pytest.mark.parametrize("kind", ["relu", "linear", "pyramid"])
def test_standardised_maps_give_the_same_result(kind: str) -> None:
    """Results and gradients equal those of maps that aren't standardised yet, up to rounding."""
    torch.manual_seed(0)
    neck = Pyramid([6, 10], 4) if kind == "pyramid" else Neck([6, 10], 4, linear=kind == "linear")
    for parameter in neck.parameters():  # factor 1 and offset 0 at first
        parameter.data.add_(torch.randn_like(parameter), alpha=0.3)
    maps = [torch.randn(3, 6, 8, 8) * 5 + 2, torch.randn(3, 10, 4, 4)]
    results, gradients = [], []
    for found in (neck(maps), neck.reduce_standardised(neck.standardise(maps))):
        results.append(found)
        gradients.append(torch.autograd.grad(found.square().sum(), list(neck.parameters())))
    torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-5)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))


@pytest.mark.parametrize("pooling", ["evidence", "evidence_logsumexp", "finding_attention", "max"])
@pytest.mark.parametrize("activation", ["relu", "none"])
@pytest.mark.parametrize("training", [False, True])
def test_logits_of_standardised_maps(pooling: str, activation: str, training: bool) -> None:
    """Logits, gradients and random numbers are those of `read`, also with a missing series."""
    torch.manual_seed(0)
    settings = network().settings.replace(
        slice_pooling=pooling, activation=activation, dropout=0.3, feature_maps=(2, 3), channels=8
    )
    net = Network(settings, FINDINGS).train(training)
    for name in net.encoders:
        neck = net.encoder(name).neck
        assert neck is not None
        for parameter in neck.parameters():  # factor 1 and offset 0 at first
            parameter.data.add_(torch.randn_like(parameter), alpha=0.3)
    lengths = {"axial": [3, 2], "coronal": [0, 4], "sagittal": [1, 2]}
    with torch.no_grad():
        maps = {
            name: net.encoder(name).maps(torch.randn(sum(own), 1, 64, 64))
            for name, own in lengths.items()
        }
    results = []
    for standardised in (False, True):
        torch.manual_seed(1)
        if standardised:
            prepared = {name: net.encoder(name).standardise(own) for name, own in maps.items()}
            logits = net.read_standardised(prepared, lengths).logits
        else:
            combined = {name: net.encoder(name).combine(own) for name, own in maps.items()}
            logits = net.read(combined, lengths).logits
        weights = [p for name, p in net.named_parameters() if ".body." not in name]
        gradients = torch.autograd.grad(logits.square().sum(), weights, allow_unused=True)
        results.append([logits.detach(), *(one for one in gradients if one is not None)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))
