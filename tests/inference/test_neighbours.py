"""Neighbouring slices as channels: the setting `preparation.neighbours`, from exam to result."""

from __future__ import annotations

from pathlib import Path

import jaxtyping
import numpy as np
import onnx
import pytest
import torch

from mrknee.exams import MRNET_SERIES, Exam, Plane, open_dataset
from mrknee.export.onnx import Int8, export
from mrknee.inference.model import Model, load_model
from mrknee.models.checkpoint import load_checkpoint, save_checkpoint
from mrknee.models.feature_cache import FeatureCache
from mrknee.models.network import Network
from mrknee.models.settings import NetworkSettings
from mrknee.training.estimate import estimate
from mrknee.training.parts import split_exams
from mrknee.training.run import train
from mrknee.transforms.batches import frame_exam, join
from mrknee.transforms.preparation import Preparation
from mrknee.transforms.settings import AugmentationSettings, PreparationSettings
from tests.conftest import write_toy_dataset
from tests.models.examples import FINDINGS, describe
from tests.training.test_run import QUICK, assert_same_weights

pytestmark = pytest.mark.slow

SERIES = MRNET_SERIES.only(["sagittal"])
PREPARATION = PreparationSettings(size=64, crop=48, read_slices=5, neighbours=True)
NETWORK = NetworkSettings(
    encoder="test_resnet", feature_maps=(2, 3), channels=8, slice_pooling="evidence"
)


def make_exam(slices: int, exam_id: str = "0", seed: int = 0) -> Exam:
    """Returns an exam of noise."""
    noise = np.random.default_rng(seed).integers(0, 255, (slices, 64, 64), dtype=np.uint8)
    return Exam(exam_id, {"sagittal": noise}, series=SERIES)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    """A model with neighbours, its exported file, and the same network without neighbours."""
    root = tmp_path_factory.mktemp("neighbours")
    torch.manual_seed(0)
    network = Network(NETWORK, FINDINGS, series=SERIES).eval()
    save_checkpoint(root / "three", network, PREPARATION.to_dict(), {"data": "none"})
    alone = PREPARATION.replace(neighbours=False).to_dict()
    save_checkpoint(root / "one", network, alone, {"data": "none"})
    jaxtyping.config.update("jaxtyping_disable", True)  # a tracer's sizes are symbols
    export(root / "three", root / "three.onnx")
    jaxtyping.config.update("jaxtyping_disable", False)
    return {
        "run": load_model(root / "three"),
        "file": load_model(root / "three.onnx", threads=1),
        "one": load_model(root / "one"),
    }


@pytest.mark.parametrize("slices", [1, 2, 12])
def test_the_exported_file_gives_the_results_of_the_run_folder(
    slices: int, models: dict[str, Model]
) -> None:
    """Logits and heat maps are equal, whatever the number of slices."""
    expected, found = (models[kind].explain(make_exam(slices)) for kind in ("run", "file"))
    np.testing.assert_allclose(found.logits, expected.logits, rtol=0, atol=1e-5)
    np.testing.assert_allclose(
        found.native["sagittal"], expected.native["sagittal"], rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("kind", ["run", "file"])
def test_explanations_add_up(kind: str, models: dict[str, Model]) -> None:
    """The parts are on the slices that are read, and add up to another logit than without."""
    explained = models[kind].explain(make_exam(12))
    assert explained.adds_up
    scores = explained.slice_scores("sagittal")
    assert (scores != 0).any(axis=0).nonzero()[0].tolist() == [1, 3, 6, 8, 10]
    assert np.abs(explained.logits - models["one"].explain(make_exam(12)).logits).max() > 1e-3


def test_equal_slices_are_one_grey_slice(models: dict[str, Model]) -> None:
    """If a slice equals its neighbours, the three channels are those of a grey image."""
    exam = make_exam(1)
    repeated = Exam("0", {"sagittal": exam.stacks["sagittal"].repeat(4, axis=0)}, series=SERIES)
    for one in (exam, repeated):
        expected, found = (models[kind].explain(one).logits for kind in ("one", "run"))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_an_exam_is_the_same_alone_and_in_a_batch(models: dict[str, Model]) -> None:
    """Slices of the exams before and after it in a batch are not its neighbours."""
    exams = [make_exam(n, str(n), n) for n in (3, 1, 4)]
    together = models["run"].predict(exams).probabilities
    for index, exam in enumerate(exams):
        alone = models["run"].predict(exam).probabilities[0]
        np.testing.assert_allclose(together[index], alone, rtol=0, atol=1e-6)


def test_an_older_model_has_no_neighbours(tmp_path: Path) -> None:
    """A model whose preparation doesn't state the setting reads grey slices, as before."""
    network = Network(NetworkSettings(encoder="test_resnet", shared_encoder=True), FINDINGS)
    save_checkpoint(tmp_path, network, PREPARATION.to_dict(), {"data": "none"})
    describe(tmp_path, lambda described: described["preparation"].pop("neighbours"))
    assert "neighbours" not in load_checkpoint(tmp_path).preparation
    assert not load_model(tmp_path).preparation.neighbours


def test_a_mirrored_exam_has_its_sagittal_channels_reversed() -> None:
    """Mirroring reverses the order of sagittal slices, so previous and next slice change places."""
    preparation = Preparation(size=64, crop=48, neighbours=True)
    exam = make_exam(4)
    mirror = AugmentationSettings(rotation=0, translation=0, mirror=1)
    plain, mirrored = (
        join([frame_exam(exam, preparation, how)]).prepared(preparation)["sagittal"]
        for how in (None, mirror)
    )
    torch.testing.assert_close(mirrored, plain.flip(0).flip(1))


def test_neighbours_are_among_the_slices_that_are_drawn_or_read() -> None:
    """With fewer slices, the channels are those of the remaining ones."""
    exam = make_exam(9)
    read = Preparation(size=64, crop=48, neighbours=True, read_slices=3)
    batch = join([frame_exam(exam, read)])
    channels = batch.prepared(read)["sagittal"]
    assert batch.lengths["sagittal"].tolist() == [3]
    kept = Exam("0", {"sagittal": exam.stacks["sagittal"][[1, 4, 7]]}, series=SERIES)
    expected = join([frame_exam(kept, read)]).prepared(read)["sagittal"]
    assert torch.equal(channels, expected)
    assert torch.equal(channels[1, 0], channels[0, 1])
    whole = read.replace(read_slices=None)
    drawn = join([frame_exam(exam, whole, slices_per_series=3)]).prepared(whole)["sagittal"]
    assert torch.equal(drawn[1, 0], drawn[0, 1])
    assert torch.equal(drawn[1, 2], drawn[2, 1])


def test_stored_feature_maps_are_those_of_the_three_channels(tmp_path: Path) -> None:
    """The cache stores maps computed with neighbours, apart from those without."""
    torch.manual_seed(0)
    network = Network(NETWORK.replace(frozen_stages=4), FINDINGS, series=SERIES).eval()
    sizes = []
    for neighbours in (False, True):
        preparation = Preparation(size=64, crop=48, neighbours=neighbours)
        batch = join([frame_exam(make_exam(n, str(n)), preparation) for n in (2, 3)])
        with torch.no_grad():
            maps = FeatureCache(tmp_path, network, preparation).maps(batch)["sagittal"]
            found = network.encoder("sagittal").combine_standardised(maps)
            expected = network.encode("sagittal", batch.prepared(preparation)["sagittal"])
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-2)
        sizes.append(len(list(tmp_path.rglob("*.npz"))))
    assert sizes == [2, 4]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set."""
    return write_toy_dataset(tmp_path_factory.mktemp("neighbours") / "toy")


def test_a_run_is_trained_resumed_and_exported_in_8_bits(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run stopped after an epoch ends with the weights of an uninterrupted one.

    Of the exported file, the first layer's weights, three channels of them, are in 8 bits.
    """
    recipe = QUICK.replace(
        series=["sagittal"],
        network=NETWORK,
        preparation=QUICK.preparation.replace(neighbours=True),
        epochs=2,
    )
    train(toy, tmp_path / "whole", recipe)
    train(toy, tmp_path / "parts", recipe.replace(epochs=1))
    train(toy, tmp_path / "parts", recipe, resume=True)
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    file = tmp_path / "model.onnx"
    export(tmp_path / "whole", file, int8=Int8(toy, limit=1.0))
    weights = {one.name: one for one in onnx.load(str(file)).graph.initializer}
    kernels = [one for one in weights.values() if len(one.dims) == 4 and one.dims[1] == 3]
    assert kernels
    assert all(one.data_type == onnx.TensorProto.INT8 for one in kernels)
    expected, found = (
        load_model(path).predict(open_dataset(toy, "valid")).probabilities
        for path in (tmp_path / "whole", file)
    )
    assert np.abs(found - expected).max() < 0.1


def test_the_estimate_counts_three_channels(toy: Path) -> None:
    """The input takes three times the memory, which is all that differs before the encoder."""
    recipe = QUICK.replace(network=NetworkSettings(encoder="test_resnet", shared_encoder=True))
    wide = recipe.replace(preparation=recipe.preparation.replace(neighbours=True))
    network = Network(recipe.network, FINDINGS)
    parts = split_exams(toy, recipe)
    memory = [
        estimate(network, parts, one, "32-true", workers=0, processes=1) for one in (recipe, wide)
    ]
    assert memory[0].largest == memory[1].largest
    input_bytes = memory[0].largest * recipe.preparation.crop**2 * 4
    assert memory[1].memory - memory[0].memory > input_bytes


def test_series_never_mix() -> None:
    """Neighbours of a slice are of its own series, also if another one has no slices."""
    preparation = Preparation(size=16, crop=16, neighbours=True)
    stacks = {p: np.full((2, 16, 16), k, np.uint8) for k, p in enumerate(Plane)}
    for number, stack in enumerate(stacks.values()):
        stack[1] += 100 + number
    batch = join([frame_exam(Exam("0", stacks), preparation)])
    for channels in batch.prepared(preparation).values():
        assert torch.equal(channels[0, 0], channels[0, 1])
        assert torch.equal(channels[0, 2], channels[1, 1])
        assert torch.equal(channels[1, 2], channels[1, 1])
