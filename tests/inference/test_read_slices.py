"""Tests of reading at most N slices per series, the setting `preparation.read_slices`."""

from __future__ import annotations

from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch

from mrknee.exams import MRNET_SERIES, PLANES, Exam
from mrknee.export.onnx import export
from mrknee.inference.model import Model, load_model
from mrknee.models.checkpoint import load_checkpoint, save_checkpoint
from mrknee.models.network import Network
from mrknee.models.settings import NetworkSettings
from mrknee.training.parts import make_loader, split_exams
from mrknee.transforms.settings import PreparationSettings
from tests.conftest import write_toy_dataset
from tests.models.examples import FINDINGS, describe
from tests.training.test_run import QUICK

pytestmark = pytest.mark.slow

PREPARATION = PreparationSettings(size=64, crop=48, read_slices=3)
SERIES = MRNET_SERIES.only(["sagittal"])  # an export takes the longer, the more series there are


def make_exam(slices: int) -> Exam:
    """Returns an exam of noise."""
    noise = np.random.default_rng(0).integers(0, 255, (slices, 64, 64), dtype=np.uint8)
    return Exam("0", {"sagittal": noise}, series=SERIES)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    """Returns a model that reads few slices, its exported file, and one that reads all."""
    root = tmp_path_factory.mktemp("read")
    torch.manual_seed(0)
    settings = NetworkSettings(
        encoder="test_resnet", shared_encoder=True, slice_pooling="attention"
    )
    network = Network(settings, FINDINGS, series=SERIES).eval()
    save_checkpoint(root / "few", network, PREPARATION.to_dict(), {"data": "none"})
    every = PREPARATION.replace(read_slices=None).to_dict()
    save_checkpoint(root / "all", network, every, {"data": "none"})
    jaxtyping.config.update("jaxtyping_disable", True)  # a tracer's sizes are symbols
    export(root / "few", root / "few.onnx")
    jaxtyping.config.update("jaxtyping_disable", False)
    return {
        "few": load_model(root / "few"),
        "onnx": load_model(root / "few.onnx", threads=1),
        "all": load_model(root / "all"),
    }


def test_the_slices_are_the_middles_of_equal_segments() -> None:
    """They are symmetric up to one slice, and all where there are no more."""
    assert PREPARATION.slices_read(7) == [1, 3, 5]
    assert PREPARATION.slices_read(12) == [2, 6, 10]
    assert PREPARATION.slices_read(2) == [0, 1]
    assert PREPARATION.replace(read_slices=1).slices_read(9) == [4]
    assert PREPARATION.replace(read_slices=None).slices_read(9) == list(range(9))


@pytest.mark.parametrize("kind", ["few", "onnx"])
def test_the_others_are_not_read(kind: str, models: dict[str, Model]) -> None:
    """The probabilities are those of an exam that has these slices only."""
    whole, short = make_exam(12), make_exam(2)
    fewer = Exam("0", {"sagittal": whole.stacks["sagittal"][[2, 6, 10]]}, series=SERIES)
    expected = models["all"].predict(fewer).probabilities
    np.testing.assert_allclose(models[kind].predict(whole).probabilities, expected, atol=1e-5)
    assert np.abs(models["all"].predict(whole).probabilities - expected).max() > 1e-4
    expected = models["all"].predict(short).probabilities
    np.testing.assert_allclose(models[kind].predict(short).probabilities, expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["few", "onnx"])
def test_explanations_are_exact_and_on_the_slices_that_are_read(
    kind: str, models: dict[str, Model]
) -> None:
    """Contributions add up to the logits, and those of the other slices are 0.

    No other slice is named as the one that raises or lowers a logit most.
    """
    explained = models[kind].explain(make_exam(12))
    assert explained.adds_up
    scores = explained.slice_scores("sagittal")
    assert scores.shape == (3, 12)
    assert (scores != 0).all(axis=0).nonzero()[0].tolist() == [2, 6, 10]
    assert (scores != 0).any(axis=0).nonzero()[0].tolist() == [2, 6, 10]
    expected = models["few"].explain(make_exam(12)).native["sagittal"]
    np.testing.assert_allclose(explained.native["sagittal"], expected, atol=1e-5)
    for finding in FINDINGS:
        for extreme in (explained.most_raising(finding), explained.most_lowering(finding)):
            assert extreme[1] in (2, 6, 10)


def test_an_older_model_reads_all(tmp_path: Path) -> None:
    """A model whose preparation doesn't state the setting is loaded with its default."""
    network = Network(NetworkSettings(encoder="test_resnet", shared_encoder=True), FINDINGS)
    save_checkpoint(tmp_path, network, PREPARATION.to_dict(), {"data": "none"})
    describe(tmp_path, lambda described: described["preparation"].pop("read_slices"))
    assert "read_slices" not in load_checkpoint(tmp_path).preparation
    assert load_model(tmp_path).preparation.read_slices is None


def test_training_exams_are_not_affected(tmp_path: Path) -> None:
    """Validation reads at most so many slices, and training all or those that are drawn."""
    data = write_toy_dataset(tmp_path / "toy", 6, 4, slices=(5, 7))
    recipe = QUICK.replace(preparation=QUICK.preparation.replace(read_slices=2))
    parts = split_exams(data, recipe)

    def lengths(training: bool, most: int | None) -> set[int]:
        of_run = recipe.replace(slices_per_series=most)
        batches = make_loader(parts.train, [0, 1], of_run, training=training)
        return {
            int(count) for batch in batches for plane in PLANES for count in batch.lengths[plane]
        }

    assert lengths(training=False, most=None) == {2}
    assert lengths(training=False, most=4) == {2}
    assert lengths(training=True, most=4) == {4}
    assert lengths(training=True, most=None) <= {5, 6}
