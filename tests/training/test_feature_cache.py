"""Training on stored feature maps of frozen encoders."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from mrknee.errors import OutputError, SettingsError
from mrknee.exams import open_dataset
from mrknee.inference.model import load_model
from mrknee.inference.torch_model import TorchModel
from mrknee.metrics.predictions import Predictions
from mrknee.models.feature_cache import FeatureCache
from mrknee.models.network import Network
from mrknee.training.recipe import OptimizerSettings, Recipe
from mrknee.training.run import train
from mrknee.transforms.batches import Batch, frame_exam, join
from mrknee.transforms.preparation import Preparation
from mrknee.transforms.settings import AugmentationSettings
from tests.conftest import write_toy_dataset
from tests.training.test_run import QUICK, assert_same_weights

pytestmark = pytest.mark.slow

FROZEN = QUICK.replace(
    network=QUICK.network.replace(
        feature_maps=(2, 3), channels=8, slice_pooling="evidence", frozen_stages=4
    ),
    augmentation=AugmentationSettings(rotation=0, translation=0, mirror=0.5),
    optimizer=OptimizerSettings(name="sgd", learning_rate=0.05),
)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set."""
    return write_toy_dataset(tmp_path_factory.mktemp("cached") / "toy")


def with_cache(folder: Path) -> Recipe:
    """Returns the recipe with a folder for feature maps."""
    return FROZEN.replace(feature_cache=str(folder))


def some_batch(data: Path) -> tuple[Batch, Preparation]:
    """Returns three exams as a batch, and its preparation."""
    preparation = Preparation(size=48, crop=48)
    exams = open_dataset(data, "train")
    return join([frame_exam(exams[i], preparation) for i in range(3)]), preparation


def frozen_network(seed: int = 0) -> Network:
    """Returns a network with frozen encoders of random weights."""
    torch.manual_seed(seed)
    return Network(FROZEN.network, ("abnormal", "acl", "meniscus")).eval()


def test_networks_with_and_without_a_neck_share_a_folder(toy: Path, tmp_path: Path) -> None:
    """Maps in memory are standardised for a network with `channels`, and raw for one without."""
    batch, preparation = some_batch(toy)
    caches = []
    for channels in (0, 8):
        torch.manual_seed(0)
        settings = FROZEN.network.replace(
            feature_maps=(3,), channels=channels, slice_pooling="max", activation="relu"
        )
        network = Network(settings, ("abnormal", "acl", "meniscus")).eval()
        cache = FeatureCache(tmp_path, network, preparation)
        caches.append(cache)  # what the first one keeps in memory is not freed
        with torch.no_grad():
            expected = network(batch.prepared(preparation), batch.lengths)
            found = cache.logits(batch)
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-2)


def test_training_on_stored_maps_is_training(toy: Path, tmp_path: Path) -> None:
    """Weights after two epochs equal those without a cache, up to the rounding of float16."""
    train(toy, tmp_path / "plain", FROZEN)
    train(toy, tmp_path / "cached", with_cache(tmp_path / "maps"))
    plain, cached = (
        load_file(tmp_path / name / "last" / "weights.safetensors") for name in ("plain", "cached")
    )
    assert plain.keys() == cached.keys()
    before = frozen_network().state_dict()
    for name, values in plain.items():
        np.testing.assert_allclose(cached[name], values, rtol=0, atol=2e-3, err_msg=name)
    assert not np.allclose(plain["head.weight"], before["head.weight"].numpy(), atol=5e-3)
    exams = open_dataset(toy, "valid")
    expected, found = (
        load_model(tmp_path / name).predict(exams).probabilities for name in ("plain", "cached")
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-2)


def test_stored_maps_are_used(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second run computes no feature map of an exam for training, and gets the same weights."""
    train(toy, tmp_path / "first", with_cache(tmp_path / "maps"))
    computed = len(list((tmp_path / "maps").rglob("*.npz")))
    assert computed >= 12 * 3
    monkeypatch.setattr(FeatureCache, "_compute", None)
    left = tmp_path / "maps" / "ab" / ".abc.npz.123"  # by a process that was killed
    left.parent.mkdir(exist_ok=True)
    left.write_text("half")
    os.utime(left, (0, 0))
    train(toy, tmp_path / "second", with_cache(tmp_path / "maps"))
    assert_same_weights(tmp_path / "first", tmp_path / "second")
    assert not left.exists()


@pytest.mark.parametrize(
    ("changes", "noted"),
    [
        ({}, True),
        ({"epochs": 1}, False),
        ({"augmentation": AugmentationSettings(rotation=5, translation=0, mirror=0)}, False),
        ({"network": FROZEN.network.replace(frozen_stages=3)}, False),
        ({"feature_cache": "maps"}, False),
    ],
)
def test_the_cache_is_suggested_where_it_saves_time(
    changes: dict[str, object], noted: bool, toy: Path, tmp_path: Path
) -> None:
    """A note suggests it only if all epochs would compute the same feature maps."""
    if "feature_cache" in changes:
        changes = {"feature_cache": str(tmp_path / "maps")}
    train(toy, tmp_path / "run", FROZEN.replace(**changes))
    text = (tmp_path / "run" / "log.txt").read_text()
    assert ("note: the encoders are not trained" in text) == noted


def test_an_interrupted_run_is_resumed(toy: Path, tmp_path: Path) -> None:
    """One epoch, then another with a new and empty cache, equal two epochs."""
    train(toy, tmp_path / "whole", with_cache(tmp_path / "maps"))
    train(toy, tmp_path / "parts", with_cache(tmp_path / "maps").replace(epochs=1))
    train(toy, tmp_path / "parts", with_cache(tmp_path / "other"), resume=True)
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")


def test_a_resumed_run_finds_its_maps(toy: Path, tmp_path: Path) -> None:
    """Maps belong to the restored weights, not to those that a resumed network is created with."""
    still = with_cache(tmp_path / "maps").replace(
        augmentation=AugmentationSettings(rotation=0, translation=0, mirror=0)
    )
    counts = []
    for name, seed in (("a", 1), ("b", 2)):
        train(toy, tmp_path / f"from-{name}", FROZEN.replace(seed=seed, epochs=1))
        recipe = still.replace(weights=f"run:{tmp_path / f'from-{name}'}")
        train(toy, tmp_path / name, recipe.replace(epochs=1))
        counts.append(len(list((tmp_path / "maps").rglob("*.npz"))))
    assert counts[1] == 2 * counts[0], "other weights have files of their own"
    for name in ("a", "b"):
        recipe = still.replace(weights=f"run:{tmp_path / f'from-{name}'}")
        train(toy, tmp_path / name, recipe, resume=True)
        assert len(list((tmp_path / "maps").rglob("*.npz"))) == counts[1]


def test_an_unusable_folder_is_refused_before_anything_is_written(
    toy: Path, tmp_path: Path
) -> None:
    """A file in place of the folder is reported, and there is no run folder."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="file"):
        train(toy, tmp_path / "run", with_cache(tmp_path / "file"))
    assert not (tmp_path / "run").exists()
    assert (tmp_path / "file").read_text() == "mine"


def test_maps_equal_those_of_the_encoder(toy: Path, tmp_path: Path) -> None:
    """Computed and read maps are equal, and those of `encode` up to the rounding of float16."""
    network = frozen_network()
    batch, preparation = some_batch(toy)
    cache = FeatureCache(tmp_path, network, preparation)
    computed, read = cache.maps(batch), cache.maps(batch)
    for name, slices in batch.prepared(preparation).items():
        for one, other in zip(computed[name], read[name], strict=True):
            assert torch.equal(one, other)
        expected = network.encode(name, slices)
        found = network.encoder(name).combine_standardised(computed[name])
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-2)


def test_other_weights_and_preparations_have_files_of_their_own(toy: Path, tmp_path: Path) -> None:
    """Maps are found by what they were computed from."""
    batch, preparation = some_batch(toy)
    counts = []
    for network, other in (
        (frozen_network(), preparation),
        (frozen_network(), preparation),
        (frozen_network(seed=1), preparation),
        (frozen_network(), Preparation(size=48, crop=48, mean=60.0)),
    ):
        FeatureCache(tmp_path, network, other).maps(batch)
        counts.append(len(list(tmp_path.rglob("*.npz"))))
    assert counts == [9, 9, 18, 27]


def test_a_damaged_file_is_computed_again(toy: Path, tmp_path: Path) -> None:
    """Truncated and changed files don't reach training."""
    network = frozen_network()
    batch, preparation = some_batch(toy)
    cache = FeatureCache(tmp_path, network, preparation)
    before = cache.maps(batch)
    first, second, third, *_ = sorted(tmp_path.rglob("*.npz"))
    first.write_bytes(first.read_bytes()[:200])
    changed = bytearray(second.read_bytes())
    changed[len(changed) // 3] ^= 1
    second.write_bytes(changed)
    third.write_bytes(b"")
    after = cache.maps(batch)
    for name, maps in before.items():
        assert all(map(torch.equal, maps, after[name]))


def test_encoders_that_are_trained_are_refused(toy: Path, tmp_path: Path) -> None:
    """The error names the number of stages to freeze."""
    recipe = with_cache(tmp_path / "maps")
    thawed = recipe.replace(network=recipe.network.replace(frozen_stages=3))
    with pytest.raises(SettingsError, match="frozen_stages 4"):
        train(toy, tmp_path / "run", thawed)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"augmentation": AugmentationSettings(translation=0, mirror=0)},
        {"augmentation": FROZEN.augmentation.replace(noise=0.1)},
        {"slices_per_series": 3},
    ],
)
def test_slices_that_change_are_refused(changes: dict[str, object], tmp_path: Path) -> None:
    """Maps of slices that differ in each epoch would only fill the disk."""
    with pytest.raises(SettingsError, match="differ in each epoch"):
        with_cache(tmp_path).replace(**changes)


def test_a_cache_can_be_removed(toy: Path, tmp_path: Path) -> None:
    """A finished run needs nothing of it."""
    train(toy, tmp_path / "run", with_cache(tmp_path / "maps"))
    shutil.rmtree(tmp_path / "maps")
    assert isinstance(load_model(tmp_path / "run").predict(open_dataset(toy, "valid")).ids, tuple)


def test_predictions_use_stored_maps(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the end of a training, and with a loaded model that is given the folder."""
    train(toy, tmp_path / "run", with_cache(tmp_path / "maps"))
    exams = open_dataset(toy, "valid")
    plain = load_model(tmp_path / "run").predict(exams).probabilities
    model = TorchModel(tmp_path / "run")
    model.use_feature_cache(tmp_path / "maps")
    monkeypatch.setattr(FeatureCache, "_compute", None)
    found = model.predict(exams).probabilities
    np.testing.assert_allclose(found, plain, rtol=0, atol=1e-2)
    own = Predictions.read(tmp_path / "run" / "predictions-valid.csv").probabilities
    np.testing.assert_allclose(found, own, rtol=0, atol=1e-6)
