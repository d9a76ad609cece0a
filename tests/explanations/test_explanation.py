"""Explanations: parts add up, agree with Captum, and depend on the weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import jaxtyping
import numpy as np
import pytest
import torch
from jaxtyping import Float
from scipy.stats import spearmanr
from torch import Tensor, nn

from mrknee.errors import MrkneeError
from mrknee.exams import PLANES, Exam, Plane, Series, SeriesList
from mrknee.explanations.explanation import Explanation, spread
from mrknee.inference.torch_model import TorchModel
from mrknee.models.checkpoint import save_checkpoint
from mrknee.models.network import Network
from mrknee.models.pooling import POOLINGS as FEATURE_POOLINGS
from mrknee.models.pooling import MaxPooling
from mrknee.models.settings import NetworkSettings, SlicePooling
from mrknee.transforms.batches import frame_exam, join
from mrknee.transforms.preparation import Preparation

FINDINGS = ("abnormal", "acl", "meniscus")
POOLINGS: tuple[SlicePooling, ...] = tuple(
    name for name in get_args(SlicePooling) if name != "transformer"
)
PREPARATION = Preparation(size=48, crop=32)
Shape = tuple[int, int, int]


def make_predictor(
    folder: Path,
    seed: int = 0,
    pooling: SlicePooling = "max",
    encoder: str = "test_resnet",
    preparation: Preparation = PREPARATION,
    shared: bool = False,
) -> TorchModel:
    """Writes and opens a model of random weights."""
    torch.manual_seed(seed)
    settings = NetworkSettings(encoder=encoder, shared_encoder=shared, slice_pooling=pooling)
    save_checkpoint(folder, Network(settings, FINDINGS), preparation.to_dict(), {})
    return TorchModel(folder)


def all_heat(found: Explanation, plane: str) -> Float[np.ndarray, "findings slices rows cols"]:
    """Returns the heat of one plane for every finding."""
    return np.stack([found.heat(plane, finding) for finding in found.findings])


def make_exam(
    shapes: Sequence[Shape] = ((3, 48, 48), (5, 48, 48), (2, 48, 48)),
    planes: Sequence[Plane] = PLANES,
    seed: int = 0,
) -> Exam:
    """Returns an exam of noise."""
    rng = np.random.default_rng(seed)
    stacks = {
        p: rng.integers(0, 256, s).astype(np.uint8) for p, s in zip(planes, shapes, strict=True)
    }
    return Exam("0007", stacks)


def network_input(predictor: TorchModel, exam: Exam) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Returns an exam as input of the network."""
    batch = join([frame_exam(exam, predictor.preparation)])
    return batch.prepared(predictor.preparation), batch.lengths


def logits_of(predictor: TorchModel, exam: Exam) -> np.ndarray:
    """Returns the logits as computed by a prediction."""
    with torch.inference_mode():
        return np.asarray(predictor.network(*network_input(predictor, exam))[0].double().numpy())


def total(explanation: Explanation) -> np.ndarray:
    """Returns the sum of bias and all contributions in float64."""
    parts = [
        explanation.native[p].sum(axis=(1, 2, 3), dtype=np.float64) for p in explanation.native
    ]
    return np.asarray(explanation.bias + np.sum(parts, axis=0))


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("encoder", ["test_resnet", "test_vit", "alexnet"])
def test_the_parts_add_up_to_the_logit(tmp_path: Path, pooling: SlicePooling, encoder: str) -> None:
    """For all poolings, CNNs and transformers, the parts add up to the logit to 1e-4."""
    preparation = Preparation(size=80, crop=64) if encoder == "alexnet" else PREPARATION
    predictor = make_predictor(tmp_path, 1, pooling, encoder, preparation)
    counts = np.random.default_rng(POOLINGS.index(pooling)).integers(1, 12, 3)
    exam = make_exam([(int(n), 70, 70) for n in counts])
    found = predictor.explain(exam)
    np.testing.assert_allclose(found.logits, logits_of(predictor, exam), rtol=0, atol=1e-5)
    np.testing.assert_allclose(total(found), found.logits, rtol=0, atol=1e-4)
    sums = found.bias + sum(found.series_sums.values())
    np.testing.assert_allclose(sums, found.logits, rtol=0, atol=1e-4)
    expected = predictor.predict([exam]).probabilities[0]
    np.testing.assert_allclose(found.probabilities, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("planes", [(Plane.CORONAL,), (Plane.AXIAL, Plane.SAGITTAL)])
def test_the_parts_add_up_with_missing_planes(tmp_path: Path, planes: tuple[Plane, ...]) -> None:
    """Present planes have the weight 3 / their number in the parts and in the logit."""
    predictor = make_predictor(tmp_path)
    exam = make_exam([(4, 48, 48)] * len(planes), planes)
    found = predictor.explain(exam)
    assert tuple(found.native) == planes
    np.testing.assert_allclose(found.logits, logits_of(predictor, exam), rtol=0, atol=1e-5)
    np.testing.assert_allclose(total(found), found.logits, rtol=0, atol=1e-4)


SIX = SeriesList(
    [
        Series("sag_pd_fs", Plane.SAGITTAL, "PD", True),
        Series("sag_pd", Plane.SAGITTAL, "PD", False),
        Series("cor_pd_fs", Plane.CORONAL, "PD", True),
        Series("cor_t1", Plane.CORONAL, "T1", False),
        Series("ax_pd_fs", Plane.AXIAL, "PD", True),
        Series("ax_t2", Plane.AXIAL, "T2", False),
    ]
)


@pytest.mark.parametrize("names", [SIX.names, SIX.names[1:4], SIX.names[-1:]])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_parts_of_six_series_add_up(
    tmp_path: Path, names: tuple[str, ...], pooling: SlicePooling
) -> None:
    """With six series, present ones have the weight 6 / their number."""
    findings = tuple(f"finding_{number:02}" for number in range(12))
    torch.manual_seed(0)
    settings = NetworkSettings(encoder="test_resnet", shared_encoder=True, slice_pooling=pooling)
    network = Network(settings, findings, series=SIX)
    save_checkpoint(tmp_path, network, PREPARATION.to_dict(), {})
    model = TorchModel(tmp_path)
    assert model.series == SIX
    rng = np.random.default_rng(0)
    stacks = {
        name: rng.integers(0, 256, (2 + i, 40, 48)).astype(np.uint8) for i, name in enumerate(names)
    }
    exam = Exam("0007", stacks, series=SIX)
    found = model.explain(exam)
    assert tuple(found.native) == names
    np.testing.assert_allclose(found.logits, logits_of(model, exam), rtol=0, atol=1e-5)
    np.testing.assert_allclose(total(found), found.logits, rtol=0, atol=1e-4)
    np.testing.assert_allclose(
        model.predict(exam).probabilities[0], found.probabilities, rtol=0, atol=1e-5
    )
    if len(names) == 1 and pooling in FEATURE_POOLINGS:  # a single series has the weight of six
        (name,) = names
        maps = model.network.encode(name, network_input(model, exam)[0][name])
        vector = model.network.read({name: maps}).weights[name] * maps.mean(dim=(2, 3))
        place = SIX.names.index(name) * network.width
        head = model.network.head.weight[:, place : place + network.width]
        alone = model.network.head.bias + 6 * head @ vector.sum(dim=0)
        np.testing.assert_allclose(found.logits, alone.detach().numpy(), rtol=0, atol=1e-5)


# Larger and smaller than the crop, odd margins in both directions, scaled down and up, padded, and
# so narrow that complete cells are in the padding.
SHAPES = [(48, 48), (41, 47), (45, 40), (100, 75), (20, 20), (64, 30), (37, 48), (90, 9)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("cells", [1, 2, 7, 32])
def test_full_resolution_keeps_the_sums(shape: tuple[int, int], cells: int) -> None:
    """The heat of each slice adds up to its score for any preparation of the stack."""
    native = np.random.default_rng(0).normal(size=(3, 4, cells, cells)).astype(np.float32)
    nothing = np.zeros(3)
    found = Explanation(
        "0007", FINDINGS, nothing, nothing, nothing,
        {Plane.CORONAL: native}, {Plane.CORONAL: (4, *shape)}, PREPARATION,
    )  # fmt: skip
    heat = all_heat(found, Plane.CORONAL)
    assert heat.shape == (3, 4, *shape)
    sums = heat.sum(axis=(2, 3), dtype=np.float64)
    np.testing.assert_allclose(sums, found.slice_scores(Plane.CORONAL), rtol=0, atol=1e-4)
    assert (heat[..., ~found.seen(Plane.CORONAL)] == 0).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_heat_is_mapped_to_the_pixels_of_the_stack(shape: tuple[int, int]) -> None:
    """With one cell per pixel of the crop, heat is at the position where the pixel came from.

    The stack is a ramp, so the grey of each pixel of the crop is its position.
    """
    for axis, side in enumerate(shape):
        ramp = np.linspace(10, 250, side)
        stack = np.broadcast_to(ramp[:, None] if axis == 0 else ramp, shape).astype(np.uint8)
        framed = PREPARATION.frame(torch.tensor(stack[None]))[0].numpy()
        middle = PREPARATION.crop // 2
        line = framed[:, middle] if axis == 0 else framed[middle]
        lies = PREPARATION.axes(*shape)[axis]
        weights = spread(side, lies, PREPARATION.crop, PREPARATION).astype(float)
        np.testing.assert_allclose(weights.sum(axis=0), 1, atol=1e-5)
        inside = np.flatnonzero(line > framed.min())[:-1]  # neither padding nor the edges
        # the mean grey of a cell's pixels equals the grey of the cell, to the step of a pixel
        step = 240 / (side - 1)
        np.testing.assert_allclose((weights.T @ ramp)[inside], line[inside], atol=step)


def test_the_heat_of_one_cell_is_at_its_position() -> None:
    """256 pixels, crop 224, 7 cells of 32: cell 2 covers pixels 80 to 112 of the slice."""
    weights = spread(256, Preparation().axes(256, 256)[0], 7, Preparation())
    assert 94 <= weights[:, 2].argmax() <= 97
    assert not weights[:16].any()
    assert not weights[240:].any()
    assert (weights[16:240].sum(axis=1) > 0).all()


def captum_layer(
    network: Network, slices: dict[str, Tensor], lengths: dict[str, Tensor], plane: str, row: int
) -> np.ndarray:
    """Returns Captum's gradient times activation of the plane's feature map, over all channels."""
    # a second of processor time, which other tests need not wait for
    from captum.attr import LayerGradientXActivation  # type: ignore[import-untyped]

    others = {p: s for p, s in slices.items() if p != plane}

    def forward(own: Tensor) -> Float[Tensor, "1 findings"]:
        logits: Tensor = network({**others, plane: own}, lengths)
        return logits

    method = LayerGradientXActivation(forward, network.encoder(plane))
    found: Tensor = method.attribute(slices[plane].requires_grad_(), target=row)
    return found.detach().sum(dim=1).numpy()


# the contributions of log-sum-exp are shares of the pooled value, not gradients times features
@pytest.mark.parametrize("pooling", [p for p in POOLINGS if p != "evidence_logsumexp"])
def test_maps_equal_captums_gradient_times_activation(
    tmp_path: Path, pooling: SlicePooling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Maps equal Captum's, with the weights of slices and cells held fixed in both."""
    predictor = make_predictor(tmp_path, pooling=pooling)
    network, exam = predictor.network, make_exam()
    found = predictor.explain(exam)
    slices, lengths = network_input(predictor, exam)
    if pooling not in ("max", "mean"):
        softmax, exp = torch.softmax, torch.Tensor.exp
        monkeypatch.setattr(torch, "softmax", lambda *a, **k: softmax(*a, **k).detach())
        monkeypatch.setattr(torch.Tensor, "exp", lambda own: exp(own).detach())
    for plane in PLANES:
        for row in range(len(FINDINGS)):
            expected = captum_layer(network, slices, lengths, plane, row)
            assert np.abs(expected).max() > 1e-4
            np.testing.assert_allclose(found.native[plane][row], expected, rtol=1e-4, atol=1e-7)


def test_explaining_does_not_change_the_network(tmp_path: Path) -> None:
    """No gradients and hooks remain, and predictions are unchanged."""
    predictor = make_predictor(tmp_path)
    exam = make_exam()
    before = logits_of(predictor, exam)
    predictor.explain(exam)
    assert all(weight.grad is None for weight in predictor.network.parameters())
    for module in predictor.network.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._backward_hooks
        assert not module.training
    assert (logits_of(predictor, exam) == before).all()


def test_ties_go_to_the_first_slice() -> None:
    """Of equal slices, max pooling gives the first one the weight 1."""
    features = torch.zeros(4, 2)
    features[2, 1] = features[3, 1] = 5.0
    weights = MaxPooling(2)(features).weights
    assert weights.tolist() == [[1, 0], [0, 0], [0, 1], [0, 0]]


def test_slices_are_not_rescaled(tmp_path: Path) -> None:
    """There is one scale for all slices, planes and findings."""
    predictor = make_predictor(tmp_path, pooling="mean", shared=True)
    exam = make_exam([(4, 48, 48)] * 3)
    dim = dict(exam.stacks)
    dim[Plane.CORONAL] = exam.stacks[Plane.CORONAL].copy()
    dim[Plane.CORONAL][1] //= 16
    found = predictor.explain(Exam("dim", dim))
    everything = np.concatenate(
        [np.abs(all_heat(found, p)).reshape(len(FINDINGS), -1) for p in PLANES], 1
    )
    assert found.scale == everything.max()
    per_slice = np.abs(all_heat(found, Plane.CORONAL)).max(axis=(0, 2, 3))
    assert per_slice.min() < 0.9 * per_slice.max()


def test_signs_are_kept(tmp_path: Path) -> None:
    """Inverting the sign of the head inverts the maps."""
    predictor = make_predictor(tmp_path, shared=True)
    exam = make_exam()
    before = predictor.explain(exam)
    with torch.no_grad():
        predictor.network.head.weight.neg_()
    after = predictor.explain(exam)
    for plane in PLANES:
        np.testing.assert_array_equal(after.native[plane], -before.native[plane])
    assert min(before.native[plane].min() for plane in PLANES) < 0


def test_the_most_raising_and_the_most_lowering_slice(tmp_path: Path) -> None:
    """Both slices are found by the signed score over all planes, and written to the JSON."""
    found = make_predictor(tmp_path, shared=True).explain(make_exam())
    found.write_numbers(tmp_path / "out")
    written = json.loads((tmp_path / "out" / "explanation.json").read_text())["findings"]
    for row, finding in enumerate(FINDINGS):
        for (plane, index), most, name in (
            (found.most_raising(finding), np.max, "most_raising_slice"),
            (found.most_lowering(finding), np.min, "most_lowering_slice"),
        ):
            score = found.slice_scores(plane)[row, index]
            assert score == most([most(found.slice_scores(p)[row]) for p in PLANES])
            assert written[finding][name] == {"series": plane, "slice": index, "score": score}
        assert found.most_raising(finding) != found.most_lowering(finding)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_fixed_attention_is_reported(tmp_path: Path, pooling: SlicePooling) -> None:
    """`attention_fixed` is true if weights depend on the images."""
    predictor = make_predictor(tmp_path, pooling=pooling, shared=True)
    assert predictor.explain(make_exam()).attention_fixed == (pooling not in ("max", "mean"))


@pytest.mark.parametrize("part", ["head", "encoder"])
def test_random_weights_change_the_map(tmp_path: Path, part: str) -> None:
    """Maps of networks with other weights are not correlated (Adebayo et al. 2018)."""
    predictor = make_predictor(tmp_path)
    network, exam = predictor.network, make_exam([(6, 48, 48)] * 3)
    before = predictor.explain(exam)
    torch.manual_seed(99)
    if part == "head":
        network.head.reset_parameters()
    else:
        other = Network(network.settings, FINDINGS).eval()
        network.encoders.load_state_dict(other.encoders.state_dict())
    after = predictor.explain(exam)
    for plane in PLANES:
        correlation = spearmanr(before.native[plane].ravel(), after.native[plane].ravel()).statistic
        assert abs(correlation) < 0.5


def test_the_decomposition_can_be_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`torch.export` accepts any number of slices and gives the same results."""
    # shape checks don't work with a tracer, whose sizes are symbols
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    network = make_predictor(tmp_path, shared=True).network

    class Exported(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, axial: Tensor, coronal: Tensor, sagittal: Tensor) -> tuple[Tensor, ...]:
            maps = {"axial": axial, "coronal": coronal, "sagittal": sagittal}
            reading = self.network.read(maps)
            return reading.logits, *self.network.contributions(maps, reading).values()

    def maps(*counts: int) -> tuple[Tensor, ...]:
        return tuple(torch.randn(n, network.width, 2, 2) for n in counts)

    dims = tuple({0: torch.export.Dim(str(plane), min=2)} for plane in PLANES)
    program = torch.export.export(Exported(), maps(3, 4, 5), dynamic_shapes=dims).module()
    for given in (maps(7, 2, 9), maps(4, 30, 2)):
        for found, expected in zip(program(*given), Exported()(*given), strict=True):
            torch.testing.assert_close(found, expected)


def test_the_numbers_are_written(tmp_path: Path) -> None:
    """The NPZ has every array, and the numbers of the JSON add up to the logit."""
    found = make_predictor(tmp_path, shared=True).explain(make_exam())
    found.write_numbers(tmp_path / "out")
    arrays = np.load(tmp_path / "out" / "explanation.npz")
    assert str(arrays["exam"]) == "0007"
    for plane in PLANES:
        np.testing.assert_array_equal(arrays[f"native_{plane}"], found.native[plane])
        np.testing.assert_array_equal(arrays[f"heat_{plane}"], all_heat(found, plane))
        np.testing.assert_array_equal(arrays[f"slices_{plane}"], found.slice_scores(plane))
    np.testing.assert_array_equal(arrays["logits"], found.logits)
    text = json.loads((tmp_path / "out" / "explanation.json").read_text())
    assert text["adds_up"] is True
    for row, finding in enumerate(FINDINGS):
        part = text["findings"][finding]
        assert part["bias"] + sum(part["series"].values()) == pytest.approx(part["logit"], abs=1e-4)
        slices = sum(sum(scores) for scores in part["slices"].values())
        assert part["bias"] + slices == pytest.approx(part["logit"], abs=1e-4)
        assert part["probability"] == found.probabilities[row]


def test_whether_it_adds_up_is_computed(tmp_path: Path) -> None:
    """A logit, a bias or a map with an error above rounding makes `adds_up` false."""
    found = make_predictor(tmp_path, shared=True).explain(make_exam())
    assert found.adds_up
    assert (found.residuals <= found.allowed).all()
    axial = {**found.native, Plane.AXIAL: found.native[Plane.AXIAL] + np.float32(0.01)}
    for other in (
        replace(found, logits=found.logits + 0.01),
        replace(found, bias=found.bias - 0.01),
        replace(found, native=axial),
    ):
        assert not other.adds_up
        text = other.description()
        assert text["adds_up"] is False
        assert "differs from the logit" in text["note"]
        part = text["findings"]["acl"]
        assert part["residual"] > part["allowed_residual"]


def test_invalid_explanations_are_refused(tmp_path: Path) -> None:
    """Arrays of wrong shape or with NaN are refused."""
    found = make_predictor(tmp_path, shared=True).explain(make_exam())
    maps = found.native[Plane.CORONAL]
    holes = maps.copy()
    holes[0, 0, 0, 0] = np.nan
    jaxtyping.config.update("jaxtyping_disable", True)  # as shapes from files are not checked
    try:
        for wrong in (maps[:, 1:], maps[:2], maps[..., :0], maps[0], maps[None], holes):
            with pytest.raises(MrkneeError, match="coronal heat maps"):
                replace(found, native={**found.native, Plane.CORONAL: wrong})
        for name in ("logits", "bias", "probabilities"):
            for vector in (np.array([np.nan] * 3), np.zeros(2), np.zeros((3, 1))):
                wrong_part: dict[str, Any] = {name: vector}
                with pytest.raises(MrkneeError, match=f"the {name}"):
                    replace(found, **wrong_part)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
