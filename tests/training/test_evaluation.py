from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit, logit

from mrknee.exams import Dataset, Findings, open_dataset, read_labels, write_labels
from mrknee.inference.torch_model import TorchModel
from mrknee.metrics.operating_point import at_sensitivity, youden
from mrknee.metrics.predictions import Predictions
from mrknee.training.evaluation import FITTED, fit_decisions
from mrknee.training.recipe import Recipe, SelectionSettings
from mrknee.training.run import train
from tests.conftest import write_toy_dataset
from tests.training.test_run import QUICK

pytestmark = pytest.mark.slow

RECIPE = QUICK.replace(epochs=1)


def decisions(run: Path, which: str = "best") -> dict[str, object]:
    """Returns the decisions stored in a checkpoint."""
    content: dict[str, object] = json.loads((run / which / "model.json").read_text())["decisions"]
    return content


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Creates a data set of 24 + 12 exams and a run on it."""
    root = tmp_path_factory.mktemp("evaluation")
    data = write_toy_dataset(root / "toy", 24, 12)
    train(data, root / "run", RECIPE)
    return data, root / "run"


def test_calibration_and_operating_points_are_fitted_on_inner_exams(
    finished: tuple[Path, Path],
) -> None:
    """Inverting the calibration and fitting it again on the inner exams gives the saved one."""
    data, run = finished
    model = TorchModel(run)
    assert model.decisions.calibration is not None
    inner = Predictions.read(run / "predictions-inner.csv")
    slopes = np.array([model.decisions.calibration.slopes[name] for name in inner.findings])
    intercepts = np.array([model.decisions.calibration.intercepts[name] for name in inner.findings])
    raw = expit((logit(inner.probabilities) - intercepts) / slopes)
    exams = Dataset.of_split(data, "train")
    labels = exams.labels[[exams.ids.index(i) for i in inner.ids]]
    refitted, points = fit_decisions(Predictions(inner.ids, inner.findings, raw), labels, RECIPE)
    assert refitted is not None
    for name in inner.findings:
        assert refitted.slopes[name] == pytest.approx(
            model.decisions.calibration.slopes[name], rel=1e-3
        )
        assert refitted.intercepts[name] == pytest.approx(
            model.decisions.calibration.intercepts[name], rel=1e-3, abs=1e-3
        )
        saved_points = model.decisions.operating_points[name]
        for point, saved in zip(points[name], saved_points, strict=True):
            assert point.threshold == pytest.approx(saved.threshold, rel=1e-3)


def test_labels_of_valid_do_not_affect_the_model(
    finished: tuple[Path, Path], tmp_path: Path
) -> None:
    """With inverted labels in valid, calibration, thresholds and weights are bit-identical."""
    data, run = finished
    write_toy_dataset(tmp_path / "toy", 24, 12)
    for finding in ("abnormal", "acl", "meniscus"):
        inverted = {i: 1 - y for i, y in read_labels(data / f"valid-{finding}.csv").items()}
        write_labels(tmp_path / "toy", "valid", finding, inverted)
    train(tmp_path / "toy", tmp_path / "run", RECIPE)
    assert (tmp_path / "run/best/model.json").read_text() == (run / "best/model.json").read_text()
    card, inverted_card = (
        json.loads((r / "scorecard.json").read_text()) for r in (run, tmp_path / "run")
    )
    for name in ("abnormal", "acl", "meniscus"):
        auc = inverted_card["findings"][name]["auc"]
        assert card["findings"][name]["auc"] == pytest.approx(1 - auc)


def test_predict_writes_calibrated_probabilities(finished: tuple[Path, Path]) -> None:
    """`predict` gives the run's own predictions, which differ from the network's sigmoid."""
    data, run = finished
    model = TorchModel(run)
    calibrated = model.predict(open_dataset(data, "valid"))
    written = Predictions.read(run / "predictions-valid.csv")
    np.testing.assert_allclose(calibrated.probabilities, written.probabilities, atol=1e-6)
    uncalibrated = TorchModel(run / "last").predict(open_dataset(data, "valid"))
    assert np.abs(uncalibrated.probabilities - calibrated.probabilities).max() > 0.01
    assert (
        np.argsort(uncalibrated.probabilities, 0) == np.argsort(calibrated.probabilities, 0)
    ).all()


def test_operating_points_are_on_the_calibrated_scale() -> None:
    """Thresholds by Youden's index and by sensitivity are those of calibrated probabilities."""
    rng = np.random.default_rng(0)
    labels = (rng.random((200, 1)) < 0.3).astype(float)
    raw = expit(rng.normal(size=(200, 1)) + 2 * labels + 1)
    table = Predictions(tuple(map(str, range(200))), Findings(["acl"]), raw)
    calibration, points = fit_decisions(table, labels, Recipe().replace(sensitivity=0.95))
    assert calibration is not None
    calibrated = calibration.apply(table.findings, raw)[:, 0]
    assert points["acl"] == (
        youden(labels[:, 0], calibrated),
        at_sensitivity(labels[:, 0], calibrated, 0.95),
    )
    assert "0.95" in points["acl"][1].rule
    uncalibrated, raw_points = fit_decisions(table, labels, Recipe().replace(calibration="none"))
    assert uncalibrated is None
    assert raw_points["acl"][0] == youden(labels[:, 0], raw[:, 0])


def test_selection_on_valid_fits_no_calibration(toy: Path, tmp_path: Path) -> None:
    """Without inner exams, the model has no calibration and no operating points."""
    train(toy, tmp_path / "run", RECIPE.replace(selection=SelectionSettings(part="valid")))
    assert decisions(tmp_path / "run") == {}
    model = TorchModel(tmp_path / "run")
    assert model.decisions.calibration is None
    assert model.decisions.operating_points == {}


def test_without_valid_scorecard_is_marked_optimistic(tmp_path: Path) -> None:
    """The scorecard states that calibration and thresholds are optimistic."""
    data = write_toy_dataset(tmp_path / "toy", 24, 0)
    for file in data.glob("valid-*"):
        file.unlink()
    card = train(data, tmp_path / "run", RECIPE)
    assert card.split == "inner"
    assert FITTED in card.notes


def test_max_exams_keeps_the_mix_of_labels(tmp_path: Path) -> None:
    """16 of 24 exams are used, half of them positive as before, and all of valid."""
    data = write_toy_dataset(tmp_path / "toy", 24, 6)
    train(data, tmp_path / "run", RECIPE.replace(max_exams=16))
    rows = [r.split(",") for r in (tmp_path / "run/split.csv").read_text().splitlines()[1:]]
    used = [i for i, part in rows if part in ("train", "inner")]
    assert len(used) == 16
    assert sum(part == "valid" for _, part in rows) == 6
    acl = read_labels(data / "train-acl.csv")
    assert sum(acl[i] for i in used) == 8


def test_inner_split_does_not_depend_on_findings(tmp_path: Path) -> None:
    """The inner split is stratified by all labels, so it is the same for one finding."""
    data = write_toy_dataset(tmp_path / "toy", 24, 6)
    train(data, tmp_path / "three", RECIPE)
    train(data, tmp_path / "one", RECIPE.replace(findings=["acl"]))
    three, one = ((tmp_path / run / "split.csv").read_text() for run in ("three", "one"))
    assert three == one
