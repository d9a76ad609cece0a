"""A transformer over the slices of all series: `network.slice_pooling: transformer`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mrknee.errors import ModelError
from mrknee.exams import MRNET_SERIES, PLANES, Exam, open_dataset
from mrknee.export.onnx import export
from mrknee.inference.model import load_model
from mrknee.models.checkpoint import load_checkpoint, save_checkpoint
from mrknee.models.network import Network
from mrknee.models.settings import NetworkSettings
from mrknee.models.slice_transformer import TOKEN, SliceTransformer, positions
from mrknee.models.transfer import transfer_weights
from mrknee.reports.evaluation import evaluate
from mrknee.run_folder import RunFolder
from mrknee.training.run import train
from mrknee.transforms.preparation import Preparation
from tests.conftest import write_toy_dataset
from tests.models.examples import FINDINGS, random_batch, read_alone_and_together
from tests.training.test_run import QUICK, assert_same_weights

pytestmark = pytest.mark.slow

SETTINGS = NetworkSettings(encoder="test_resnet", shared_encoder=True, slice_pooling="transformer")


def network(seed: int = 0, settings: NetworkSettings = SETTINGS) -> Network:
    """Returns a network of random weights."""
    torch.manual_seed(seed)
    return Network(settings, FINDINGS)


@pytest.mark.parametrize("encoder", ["test_resnet", "test_vit"])
def test_an_exam_is_the_same_alone_and_in_a_batch(encoder: str) -> None:
    """Other exams, and series that they lack, have no effect; any number of slices is taken."""
    model = network(settings=SETTINGS.replace(encoder=encoder)).eval()
    assert read_alone_and_together(model).std() > 1e-3


def test_every_weight_is_trained() -> None:
    """All weights have a gradient, also those of the embeddings and of the class token."""
    model = network().train()
    logits = model(*random_batch([(2, 1, 3), (2, 3, 1)]))
    loss = functional.binary_cross_entropy_with_logits(logits, torch.eye(3)[:2])
    torch.autograd.backward(loss)
    gradients = {name: weight.grad for name, weight in model.named_parameters()}
    assert all(one is not None for one in gradients.values())
    own = [one for name, one in gradients.items() if not name.startswith("encoders.")]
    assert all(one is not None and one.any() for one in own)


def test_slices_of_different_series_and_positions_are_told_apart() -> None:
    """The same features in another series or another order give another result."""
    torch.manual_seed(0)
    transformer = SliceTransformer(6, 3, 0.0).eval()
    features = torch.randn(5, 6)

    def result(given: dict[int, Tensor]) -> Tensor:
        with torch.no_grad():
            found: Tensor = transformer(given)
        return found

    first = result({0: features})
    assert first.shape == (TOKEN,)
    for other in (
        {1: features},
        {0: features.flip(0)},
        {0: features[:4]},
        {0: features, 2: features},
    ):
        assert (result(other) - first).abs().max() > 1e-3


def test_positions_are_those_of_the_paper() -> None:
    """Position p has the sines and cosines of p / 10000^(2i / width)."""
    found = positions(torch.arange(4)).double()
    for place in range(4):
        for index in range(TOKEN // 2):
            angle = place / 10_000 ** (2 * index / TOKEN)
            assert float(found[place, index]) == pytest.approx(np.sin(angle), abs=1e-6)
            assert float(found[place, TOKEN // 2 + index]) == pytest.approx(np.cos(angle), abs=1e-6)


def test_saving_and_loading_keeps_the_logits(tmp_path: Path) -> None:
    """A loaded network computes the same logits bit for bit."""
    model = network().eval()
    save_checkpoint(tmp_path, model, Preparation(size=64, crop=64).to_dict(), {})
    given = random_batch([(2, 1, 3)])
    with torch.no_grad():
        assert torch.equal(load_checkpoint(tmp_path).network(*given), model(*given))


def test_weights_are_transferred(tmp_path: Path) -> None:
    """A new network of the same kind has all weights; one of fewer series those of its series."""
    old = network(seed=1)
    save_checkpoint(tmp_path, old, Preparation(size=64, crop=64).to_dict(), {})
    new = network(seed=2)
    assert transfer_weights(new, tmp_path).random == ()
    for name, weight in old.state_dict().items():
        assert torch.equal(new.state_dict()[name], weight), name
    fewer = Network(SETTINGS, ("acl",), series=MRNET_SERIES.only(["sagittal"]))
    assert transfer_weights(fewer, tmp_path).random == ()
    transformer, source = fewer.transformer, old.transformer
    assert transformer is not None
    assert source is not None
    assert torch.equal(transformer.series.weight[0], source.series.weight[2])
    assert torch.equal(fewer.head.weight[0], old.head.weight[1])
    other = network(seed=2, settings=SETTINGS.replace(slice_pooling="max"))
    assert "head of acl" in transfer_weights(other, tmp_path).random
    save_checkpoint(tmp_path / "max", other, Preparation(size=64, crop=64).to_dict(), {})
    assert "transformer over slices" in transfer_weights(new, tmp_path / "max").random


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A data set and a run on it."""
    root = tmp_path_factory.mktemp("transformer")
    toy = write_toy_dataset(root / "toy")
    recipe = QUICK.replace(network=SETTINGS.replace(dropout=0.1))
    train(toy, root / "run", recipe)
    return toy, root / "run"


def test_an_interrupted_run_is_resumed(trained: tuple[Path, Path], tmp_path: Path) -> None:
    """A run stopped after an epoch and continued ends with the same weights, dropout included."""
    toy, run = trained
    recipe = QUICK.replace(network=SETTINGS.replace(dropout=0.1))
    train(toy, tmp_path / "parts", recipe.replace(epochs=1))
    train(toy, tmp_path / "parts", recipe, resume=True)
    assert_same_weights(run, tmp_path / "parts")


def test_what_needs_an_explanation_is_refused(trained: tuple[Path, Path], tmp_path: Path) -> None:
    """`explain` and `export` name the setting, and nothing is written."""
    toy, run = trained
    model = load_model(run)
    assert not model.explainable
    for refused in (
        lambda: model.explain(open_dataset(toy, "valid")[0]),
        lambda: export(run, tmp_path / "model.onnx"),
    ):
        with pytest.raises(ModelError, match="no exact explanation") as caught:
            refused()
        assert caught.value.code == "no-explanation"
        assert "transformer" in (caught.value.found or "")
    assert not list(tmp_path.iterdir())


def test_a_report_has_no_pictures_and_says_why(trained: tuple[Path, Path], tmp_path: Path) -> None:
    """`evaluate` with the model lists the worst errors without images."""
    toy, run = trained
    evaluate(RunFolder(run).predictions("valid"), toy, tmp_path, model=run)
    page = (tmp_path / "report.html").read_text()
    assert "no exact explanation, so there are no images" in page
    assert "<img" not in page.split('id="failures"')[1].split("</section>")[0]


def test_missing_series_are_predicted(trained: tuple[Path, Path]) -> None:
    """An exam with one series has probabilities, which depend on that series."""
    toy, run = trained
    exam = open_dataset(toy, "valid")[0]
    model = load_model(run)
    probabilities = [
        model.predict(Exam(exam.id, {plane: exam.stacks[plane]})).probabilities for plane in PLANES
    ]
    assert all(np.isfinite(one).all() for one in probabilities)
    assert np.abs(probabilities[0] - probabilities[2]).max() > 1e-6
