"""Predictions without some series or slices of an exam."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mrknee.errors import DataError
from mrknee.exams import PLANES, Exam
from mrknee.inference.model import load_model
from mrknee.inference.torch_model import TorchModel
from mrknee.models.settings import NetworkSettings
from mrknee.transforms.preparation import Preparation
from tests.export.test_onnx import make_run
from tests.server.client import random_exam

pytestmark = pytest.mark.slow

POOLINGS = ("max", "mean", "attention", "evidence", "evidence_logsumexp", "finding_attention", "transformer")  # fmt: skip # noqa: E501


def make_model(folder: Path, pooling: str, preparation: Preparation | None = None) -> TorchModel:
    """Returns a model of random weights with a pooling."""
    settings = NetworkSettings(encoder="test_resnet", slice_pooling=pooling, shared_encoder=True)  # type: ignore[arg-type]
    return TorchModel(make_run(folder, settings, preparation or Preparation(size=48, crop=32)))


def scaled_alike(seed: int) -> Exam:
    """Returns an exam whose slices all have the grey values 0 and 255 in the crop.

    So the scaling of a series doesn't depend on which slices are left out.
    """
    stacks = {name: stack.copy() for name, stack in random_exam(seed).stacks.items()}
    for stack in stacks.values():
        stack[:, 24, 28], stack[:, 25, 28] = 0, 255
    return Exam("0001", stacks)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_an_exam_without_slices_equals_the_shorter_exam(tmp_path: Path, pooling: str) -> None:
    """For any pooling, pooling the remaining features equals reading the shorter exam."""
    model = make_model(tmp_path, pooling)
    exam = scaled_alike(3)
    ablation = model.ablation(exam)
    assert ablation.origin == "features"
    assert ablation.size > 0
    complete = model.predict(exam).probabilities[0]
    np.testing.assert_allclose(ablation.without().probabilities, complete, rtol=0, atol=1e-6)
    stacks = dict(exam.stacks)
    stacks["sagittal"] = stacks["sagittal"][[0, 2, 4]]
    del stacks["coronal"]
    expected = model.predict(Exam("0001", stacks)).probabilities[0]
    found = ablation.without(["coronal"], {"sagittal": [1, 3]})
    np.testing.assert_allclose(found.probabilities, expected, rtol=0, atol=1e-6)
    assert not np.allclose(found.probabilities, complete, rtol=0, atol=1e-6)
    alone = ablation.without(slices={"coronal": range(4)})  # the same as the series
    np.testing.assert_array_equal(alone.logits, ablation.without(["coronal"]).logits)


def test_features_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After `ablation`, the network encodes no slice again."""
    model = make_model(tmp_path, "max")
    ablation = model.ablation(random_exam(1))

    def refuse(*_: object) -> torch.Tensor:
        raise AssertionError("encoded again")

    monkeypatch.setattr(model.network, "encode", refuse)
    assert np.isfinite(ablation.without(["axial"]).logits).all()


def test_slices_that_are_not_read_change_nothing(tmp_path: Path) -> None:
    """With `preparation.read_slices`, leaving out the other slices has no effect."""
    model = make_model(tmp_path, "max", Preparation(size=48, crop=32, read_slices=2))
    exam = random_exam(1, (4, 5, 6))
    ablation = model.ablation(exam)
    read = {name: model.preparation.slices_read(len(s)) for name, s in exam.stacks.items()}
    others = {n: set(range(len(s))) - set(read[n]) for n, s in exam.stacks.items()}
    complete = ablation.without()
    np.testing.assert_array_equal(ablation.without(slices=others).logits, complete.logits)
    with pytest.raises(DataError) as caught:
        ablation.without(slices=read)
    assert caught.value.code == "nothing-left"


def test_an_exported_file_reads_the_shorter_exam(exported_once: tuple[Path, Path]) -> None:
    """The result is the prediction of the remaining slices; that of an ensemble is the mean."""
    run_folder, onnx_file = exported_once
    exam = scaled_alike(4)
    exported, run = load_model(onnx_file), load_model(run_folder)
    both = load_model(onnx_file, run_folder).ablation(exam)
    one, other = exported.ablation(exam), run.ablation(exam)
    assert (one.origin, other.origin, both.origin) == ("stacks", "features", "stacks")
    found = [each.without(["axial"], {"sagittal": [0]}) for each in (one, other, both)]
    np.testing.assert_allclose(found[0].logits, found[1].logits, rtol=0, atol=1e-4)
    mean = np.mean([found[0].probabilities, found[1].probabilities], axis=0)
    np.testing.assert_allclose(found[2].probabilities, mean, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("series", "slices", "code"),
    [
        (["knee"], {}, "series-name"),
        ([], {"knee": [0]}, "series-name"),
        ([], {"axial": [3]}, "slices"),
        ([], {"axial": [-1]}, "slices"),
        (list(PLANES), {}, "nothing-left"),
        (["axial", "coronal"], {"sagittal": range(5)}, "nothing-left"),
    ],
)
def test_parts_that_cannot_be_left_out(
    exported_once: tuple[Path, Path], series: list[str], slices: dict[str, list[int]], code: str
) -> None:
    """Unknown series and slices are refused, and leaving out everything."""
    with pytest.raises(DataError) as caught:
        load_model(exported_once[1]).ablation(random_exam(1)).without(series, slices)
    assert caught.value.code == code
