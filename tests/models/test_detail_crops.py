"""A feature pyramid with pyramidal detail pooling: `network.detail_crops`."""

from __future__ import annotations

from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch
from torch.nn import functional

from mrknee.errors import SettingsError
from mrknee.exams import MRNET_SERIES, Exam
from mrknee.export.onnx import export
from mrknee.inference.model import load_model
from mrknee.models.checkpoint import save_checkpoint
from mrknee.models.neck import Pyramid
from mrknee.models.network import Network
from mrknee.models.settings import NetworkSettings, SlicePooling
from mrknee.models.transfer import transfer_weights
from mrknee.training.run import train
from mrknee.transforms.preparation import Preparation
from tests.conftest import write_toy_dataset
from tests.models.examples import FINDINGS, random_batch, read_alone_and_together
from tests.training.test_run import QUICK, assert_same_weights

pytestmark = pytest.mark.slow

SETTINGS = NetworkSettings(
    encoder="test_resnet", shared_encoder=True, feature_maps=(2, 3), channels=4, detail_crops=3
)
PREPARATION = Preparation(size=48, crop=48)


def network(seed: int = 0, settings: NetworkSettings = SETTINGS) -> Network:
    """Returns a network of random weights."""
    torch.manual_seed(seed)
    return Network(settings, FINDINGS)


def test_levels_are_added_from_the_coarsest_and_kept_apart() -> None:
    """The finest level depends on all maps, the coarsest only on its own."""
    torch.manual_seed(0)
    pyramid = Pyramid([6, 5, 4], 3)
    maps = [torch.randn(2, 6, 8, 8), torch.randn(2, 5, 4, 4), torch.randn(2, 4, 2, 2)]
    found = pyramid(maps)
    assert found.shape == (2, 9, 8, 8)
    assert torch.equal(found[:, 6:, ::4, ::4], found[:, 6:, 3::4, 3::4])
    changed = pyramid([torch.randn(2, 6, 8, 8), *maps[1:]])
    same = [torch.equal(changed[:, i : i + 3], found[:, i : i + 3]) for i in (0, 3, 6)]
    assert same == [False, True, True]
    changed = pyramid([*maps[:2], torch.randn(2, 4, 2, 2)])
    same = [torch.equal(changed[:, i : i + 3], found[:, i : i + 3]) for i in (0, 3, 6)]
    assert same == [False, False, False]


def test_one_crop_is_the_average_of_the_map() -> None:
    """With a single map and crop, logits are those without the setting."""
    plain = SETTINGS.replace(feature_maps=(3,), channels=0, detail_crops=0)
    given = random_batch([(2, 0, 3), (4, 3, 1)])
    with torch.no_grad():
        expected = network(settings=plain).eval()(*given)
        found = network(settings=plain.replace(detail_crops=1)).eval()(*given)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("pooling", ["max", "mean", "attention"])
def test_an_exam_is_the_same_alone_and_in_a_batch(pooling: SlicePooling) -> None:
    """Other exams, and series that they lack, have no effect."""
    model = network(settings=SETTINGS.replace(slice_pooling=pooling)).eval()
    read_alone_and_together(model)


def test_every_weight_is_trained() -> None:
    """All weights have a gradient, also those of the pyramid."""
    model = network().train()
    logits = model(*random_batch([(2, 1, 3), (2, 3, 1)]))
    loss = functional.binary_cross_entropy_with_logits(logits, torch.eye(3)[:2])
    torch.autograd.backward(loss)
    assert not [name for name, one in model.named_parameters() if one.grad is None]


@pytest.mark.parametrize("pooling", ["max", "attention"])
def test_explanations_add_up_and_the_file_has_the_same(
    pooling: SlicePooling, tmp_path: Path
) -> None:
    """Contributions of cells, which may be in several crops, add up; the export equals the run."""
    torch.manual_seed(0)
    model = Network(
        SETTINGS.replace(slice_pooling=pooling), FINDINGS, series=MRNET_SERIES.only(["sagittal"])
    )
    save_checkpoint(tmp_path / "run", model, PREPARATION.to_dict(), {"data": "none"})
    jaxtyping.config.update("jaxtyping_disable", True)  # a tracer's sizes are symbols
    export(tmp_path / "run", tmp_path / "model.onnx")
    jaxtyping.config.update("jaxtyping_disable", False)
    noise = np.random.default_rng(0).integers(0, 255, (7, 48, 48), dtype=np.uint8)
    exam = Exam("0", {"sagittal": noise}, series=model.series)
    expected, found = (load_model(tmp_path / name).explain(exam) for name in ("run", "model.onnx"))
    assert expected.adds_up
    assert found.adds_up
    np.testing.assert_allclose(found.logits, expected.logits, rtol=0, atol=1e-5)
    np.testing.assert_allclose(
        found.native["sagittal"], expected.native["sagittal"], rtol=0, atol=1e-5
    )
    assert expected.native["sagittal"].shape == (3, 7, 6, 6)


def test_an_interrupted_run_is_resumed(tmp_path: Path) -> None:
    """A run stopped after an epoch and continued ends with the same weights."""
    toy = write_toy_dataset(tmp_path / "toy")
    recipe = QUICK.replace(network=SETTINGS)
    train(toy, tmp_path / "whole", recipe)
    train(toy, tmp_path / "parts", recipe.replace(epochs=1))
    train(toy, tmp_path / "parts", recipe, resume=True)
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")


def test_weights_are_transferred(tmp_path: Path) -> None:
    """A network of the same crops has all weights, one of other crops those of the encoder."""
    old = network(seed=1)
    save_checkpoint(tmp_path, old, PREPARATION.to_dict(), {})
    new = network(seed=2)
    assert transfer_weights(new, tmp_path).random == ()
    for name, weight in old.state_dict().items():
        assert torch.equal(new.state_dict()[name], weight), name
    other = network(seed=2, settings=SETTINGS.replace(detail_crops=2))
    assert "head of acl" in transfer_weights(other, tmp_path).random


@pytest.mark.parametrize("pooling", ["evidence", "finding_attention", "transformer"])
def test_crops_need_a_pooling_of_features(pooling: SlicePooling) -> None:
    """With other poolings the setting would have no effect, and is refused."""
    with pytest.raises(SettingsError, match="detail_crops"):
        SETTINGS.replace(slice_pooling=pooling)
