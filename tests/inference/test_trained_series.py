"""Models trained on some planes only ignore the other planes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from mrknee.cli import main
from mrknee.errors import MrkneeError, MrkneeWarning
from mrknee.exams import MRNET_SERIES, PLANES, Dataset, Exam, Plane, Series, SeriesList
from mrknee.export.onnx import export
from mrknee.inference.model import Model, load_model
from mrknee.inference.onnx_model import OnnxModel
from mrknee.inference.torch_model import TorchModel
from mrknee.models.checkpoint import load_checkpoint, save_checkpoint
from mrknee.models.network import Network
from mrknee.models.settings import NetworkSettings
from mrknee.server.service import Service
from mrknee.server.uploads import Received
from mrknee.transforms.preparation import Preparation
from tests.export.test_onnx import make_exam, make_run

KNEE = SeriesList([Series("knee", "sagittal")])
SAGITTAL = {"axial": 0, "coronal": 0, "sagittal": 12}
EVERYTHING = make_exam((3, 48, 48), (5, 48, 48), (4, 48, 48))
ONLY = Exam("0007", {Plane.SAGITTAL: EVERYTHING.stacks[Plane.SAGITTAL]})
OTHERS = Exam("0007", {p: EVERYTHING.stacks[p] for p in (Plane.AXIAL, Plane.CORONAL)})


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory, untraced: None) -> tuple[Path, Path]:  # noqa: ARG001
    """A run folder trained on sagittal planes only, and the exported file."""
    folder = tmp_path_factory.mktemp("sagittal")
    run = make_run(folder / "run", NetworkSettings(encoder="test_resnet"))
    loaded = load_checkpoint(run / "best")
    provenance = {**loaded.provenance, "series": SAGITTAL}
    save_checkpoint(run / "best", loaded.network, loaded.preparation, provenance, loaded.decisions)
    with pytest.warns(MrkneeWarning, match="trained on sagittal only"):
        export(run, folder / "model.onnx")
    return run, folder / "model.onnx"


@pytest.fixture(params=["run folder", "exported"])
def model(request: pytest.FixtureRequest, paths: tuple[Path, Path]) -> Model:
    """The run folder or the exported file as a model."""
    return TorchModel(paths[0]) if request.param == "run folder" else OnnxModel(paths[1])


def test_untrained_planes_have_no_effect(model: Model) -> None:
    """Three planes give the probabilities and explanation of the sagittal plane alone."""
    both = model.predict([EVERYTHING, ONLY]).probabilities
    np.testing.assert_array_equal(both[0], both[1])
    explained = model.explain(EVERYTHING)
    assert list(explained.native) == [Plane.SAGITTAL]
    assert explained.adds_up
    np.testing.assert_array_equal(explained.logits, model.explain(ONLY).logits)


def test_an_exam_without_a_trained_plane_is_refused(model: Model) -> None:
    """An exam without any trained plane is refused."""
    for read in (lambda: model.predict([OTHERS]), lambda: model.explain(OTHERS)):
        with pytest.raises(MrkneeError, match="no series that the model was trained on"):
            read()


def test_loading_warns_about_untrained_planes(paths: tuple[Path, Path]) -> None:
    """Run folder and exported file give the same warning."""
    for path in paths:
        with pytest.warns(MrkneeWarning, match="axial and coronal will be ignored"):
            opened = load_model(path)
        assert opened.trained.names == ("sagittal",)


def test_the_exported_graph_ignores_untrained_planes(paths: tuple[Path, Path]) -> None:
    """In other software, untrained planes are ignored; without a trained plane outputs are NaN."""
    session = onnxruntime.InferenceSession(paths[1])
    stacks: dict[str, Any] = {str(p): stack for p, stack in EVERYTHING.stacks.items()}
    expected = OnnxModel(paths[1]).predict([ONLY]).probabilities[0]
    for more in ({}, {"present": np.array([0, 0, 1], np.float32)}):
        (found,) = session.run(["probabilities"], {**stacks, **more})
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    nothing = {**stacks, "present": np.array([1, 1, 0], np.float32)}
    assert np.isnan(session.run(["probabilities"], nothing)[0]).all()


@pytest.mark.parametrize("kind", [0, 1])
def test_commands_print_a_note_about_untrained_planes(
    paths: tuple[Path, Path],
    toy: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    kind: int,
) -> None:
    """predict, submit and explain print a note to standard error and continue."""
    model, exams = str(paths[kind]), Dataset(toy / "valid")
    listing = tmp_path / "paths.csv"
    listing.write_text(
        "\n".join(str(toy / "valid" / plane / f"{i}.npy") for i in exams.ids for plane in PLANES)
    )
    out = str(tmp_path / "out")
    commands = (
        ["predict", model, str(toy), "--out", out + ".csv"],
        ["submit", model, str(listing), out + "s.csv"],
        ["explain", model, str(toy), "--exam", exams.ids[0], "--out", out],
    )
    for command in commands:
        with warnings.catch_warnings():
            warnings.simplefilter("always", MrkneeWarning)
            assert main(command) == 0
        printed = capsys.readouterr().err
        note = f"mrknee {command[0]}: note: the model was trained on sagittal only"
        assert printed.startswith(note)
    page = (tmp_path / "out" / "index.html").read_text()
    assert "The axial and the coronal series were not used" in page


def test_the_service_reports_untrained_planes_as_missing(paths: tuple[Path, Path]) -> None:
    """Untrained planes are listed as missing series in responses."""
    service = Service(OnnxModel(paths[1]), "model.onnx")
    read = service.predict(Received(EVERYTHING, {}), "request").content
    assert read.missing_series == [Plane.AXIAL, Plane.CORONAL]
    assert service.facts().provenance["series"] == SAGITTAL


def test_without_a_record_all_planes_are_used(tmp_path: Path) -> None:
    """Models of earlier versions, which do not record their planes, use all planes."""
    run = make_run(tmp_path / "run", NetworkSettings(encoder="test_resnet", shared_encoder=True))
    model = TorchModel(run)
    assert model.trained == model.series == MRNET_SERIES
    assert model.notes == ()
    assert model.decisions.calibration is not None


def test_a_series_of_another_plane_is_refused(tmp_path: Path) -> None:
    """A series of the model's name but of another plane is refused."""
    network = Network(NetworkSettings(encoder="test_resnet"), ["acl"], series=KNEE)
    save_checkpoint(tmp_path, network, Preparation(size=48, crop=48).to_dict(), {})
    model = load_model(tmp_path)
    stacks = {"knee": EVERYTHING.stacks[Plane.SAGITTAL]}
    assert len(model.predict(Exam("0007", stacks, series=KNEE))) == 1
    other = SeriesList([Series("knee", "coronal")])
    with pytest.raises(MrkneeError, match="not of the plane"):
        model.predict(Exam("0007", stacks, series=other))


def test_additional_series_of_an_exam_are_ignored(model: Model) -> None:
    """Series that the model does not have do not change the probabilities."""
    more = SeriesList([Series("cor_t1", "coronal", "T1"), *MRNET_SERIES])
    stacks = {"cor_t1": EVERYTHING.stacks["coronal"], "sagittal": EVERYTHING.stacks["sagittal"]}
    found = model.predict(Exam("0007", stacks, series=more))
    np.testing.assert_array_equal(found.probabilities, model.predict(ONLY).probabilities)
