"""Ensembles of models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

import mrknee
from mrknee.cli import main
from mrknee.errors import ModelError
from mrknee.exams import MRNET_SERIES, PLANES
from mrknee.inference.model import Model, ModelPaths, load_model, name_of
from mrknee.metrics.calibration import fit_calibration
from mrknee.models.checkpoint import save_checkpoint
from mrknee.models.network import Network
from mrknee.reports.evaluation import SELECTED
from mrknee.server.serving import digest_of
from mrknee.transforms.preparation import Preparation
from tests.conftest import write_toy_dataset
from tests.inference.test_torch_model import FINDINGS, PREPARATION, SETTINGS


def make_member(
    folder: Path,
    seed: int,
    *,
    findings: tuple[str, ...] = FINDINGS,
    preparation: Preparation = PREPARATION,
    calibrated: bool = True,
    provenance: Mapping[str, object] | None = None,
) -> Path:
    """Writes a run folder with random weights and a calibration that changes probabilities."""
    torch.manual_seed(seed)
    decisions = {}
    if calibrated:
        rng = np.random.default_rng(seed)
        labels = (np.arange(90).reshape(30, 3) % 2).astype(float)[:, : len(findings)]
        fitted = fit_calibration(findings, labels, rng.uniform(0.1, 0.9, labels.shape))
        decisions = {"calibration": fitted.to_dict(), "operating_points": {}}
    network = Network(SETTINGS, findings)
    save_checkpoint(
        folder / "best", network, preparation.to_dict(), dict(provenance or {}), decisions
    )
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy data set."""
    return write_toy_dataset(tmp_path_factory.mktemp("data") / "toy", 1, 6)


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two models; the second has no calibration."""
    root = tmp_path_factory.mktemp("members")
    return [make_member(root / "a", 1), make_member(root / "b", 2, calibrated=False)]


def test_probabilities_are_the_mean_of_the_calibrated_ones(data: Path, members: list[Path]) -> None:
    """Models may be given separately or as a list."""
    exams = mrknee.open_dataset(data)
    each = [load_model(one).predict(exams).probabilities for one in members]
    assert np.abs(each[0] - each[1]).max() > 0.01
    for both in (load_model(*members), load_model([str(one) for one in members])):
        assert isinstance(both, Model)
        table = both.predict(exams)
        np.testing.assert_array_equal(table.probabilities, np.mean(each, axis=0))
        assert table.ids == exams.ids
        assert both.predict(exams[2]).ids == (exams.ids[2],)


def test_a_finding_is_calibrated_only_if_it_is_in_all_members(members: list[Path]) -> None:
    """If one member has no calibration, no finding of the ensemble is calibrated."""
    first, both = load_model(members[0]), load_model(*members)
    assert not first.uncalibrated
    assert set(both.uncalibrated) == set(FINDINGS)


def test_an_explanation_is_the_mean_of_the_contributions(data: Path, members: list[Path]) -> None:
    """Contributions add up to the mean logit, and probabilities equal those of predict."""
    exam = mrknee.open_dataset(data)[0]
    each = [load_model(one).explain(exam) for one in members]
    both = load_model(*members)
    why = both.explain(exam)
    assert why.adds_up
    np.testing.assert_allclose(why.logits, np.mean([one.logits for one in each], axis=0))
    for plane in PLANES:
        mean = np.mean([one.heat(plane, "acl") for one in each], axis=0)
        np.testing.assert_allclose(why.heat(plane, "acl"), mean, atol=1e-7)
    np.testing.assert_allclose(why.probabilities, both.predict(exam).probabilities[0], atol=1e-6)
    assert set(why.uncalibrated) == set(FINDINGS)


def test_a_member_contributes_zero_to_a_plane_that_it_was_not_trained_on(
    data: Path, members: list[Path], tmp_path: Path
) -> None:
    """The mean adds up over the planes that any member was trained on."""
    planes = {"axial": 9, "coronal": 9, "sagittal": 0}
    with pytest.warns(mrknee.errors.MrkneeWarning, match="trained on"):
        both = load_model(members[0], make_member(tmp_path / "c", 3, provenance={"series": planes}))
    assert both.series == MRNET_SERIES
    exam = mrknee.open_dataset(data)[0]
    why = both.explain(exam)
    assert why.adds_up
    assert list(why.native) == list(PLANES)


def test_incompatible_models_are_refused(data: Path, members: list[Path], tmp_path: Path) -> None:
    """Different findings, a model given twice, no model, and different map sizes are refused."""
    other = make_member(tmp_path / "acl", 3, findings=("acl",))
    with pytest.raises(ModelError) as caught:
        load_model(members[0], other)
    assert caught.value.code == "ensemble"
    assert "lacks abnormal, meniscus" in str(caught.value)
    twice_and_none: list[list[ModelPaths]] = [[members[0], str(members[0])], [[]]]
    for models in twice_and_none:
        with pytest.raises(ModelError) as caught:
            load_model(*models)
        assert caught.value.code == "ensemble"
    exam = mrknee.open_dataset(data)[0]
    small = make_member(tmp_path / "small", 3, preparation=Preparation(size=48, crop=32))
    both = load_model(members[0], small)
    assert len(both.predict(exam)) == 1
    with pytest.raises(ModelError, match="can't be averaged"):
        both.explain(exam)
    with pytest.raises(ModelError, match="can't be exported"):
        mrknee.export_onnx(members, tmp_path / "both.onnx")


def test_every_verb_takes_several_models(
    data: Path, members: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """predict, submit, explain and evaluate accept several models, separated by commas."""
    models, table = ",".join(map(str, members)), tmp_path / "p.csv"
    assert main(["predict", models, str(data), "--out", str(table)]) == 0
    expected = load_model(*members).predict(mrknee.open_dataset(data))
    found = mrknee.Predictions.read(table)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-8)
    listing, entry = tmp_path / "paths.csv", tmp_path / "entry.csv"
    exam = expected.ids[0]
    listing.write_text("".join(f"{data}/valid/{plane}/{exam}.npy\n" for plane in PLANES))
    assert main(["submit", models, str(listing), str(entry)]) == 0
    numbers = np.loadtxt(entry, delimiter=",")
    np.testing.assert_allclose(numbers, expected.probabilities[0], atol=1e-8)
    why = tmp_path / "why"
    assert main(["explain", models, str(data), "--exam", exam, "--out", str(why)]) == 0
    assert json.loads((why / "explanation.json").read_text())["adds_up"]
    assert "a + b" in (why / "index.html").read_text()
    scores = tmp_path / "scores"
    words = ["evaluate", str(table), str(data), "--model", models, "--out", str(scores)]
    assert main(words) == 0
    assert "an ensemble of 2" in (scores / "report.html").read_text()
    assert name_of(members) == "a + b"
    assert digest_of(members) not in {digest_of(one) for one in members}
    capsys.readouterr()
    assert main(["predict", models, str(data), "--out", str(members[0] / "best/model.json")]) == 1
    assert "would replace" in capsys.readouterr().err


def test_a_member_selected_on_these_exams_is_noted(data: Path, tmp_path: Path) -> None:
    """Scores of an ensemble are noted as optimistic if those of any member are."""
    chosen = {"data": "toy", "selected_on": {"part": "valid", "exams": 6}}
    inner = {"data": "toy", "selected_on": {"part": "inner", "exams": 2}}
    members = [
        make_member(tmp_path / "a", 1, provenance=chosen),
        make_member(tmp_path / "b", 2, provenance=inner),
    ]
    exams = mrknee.open_dataset(data)
    lines = "".join(f"{exam_id},valid\n" for exam_id in exams.ids)
    (members[0] / "split.csv").write_text("exam,part\n" + lines)
    table = load_model(*members).predict(exams)
    card = mrknee.evaluate(table, exams, model=members)
    assert any(note.startswith(f"optimistic: by their ids, {SELECTED}") for note in card.notes)
