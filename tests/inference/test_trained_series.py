"""A model that was trained on some planes only leaves the others out, whatever reads it."""

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
from mrknee.inference.export import export
from mrknee.inference.model import Model, load_model
from mrknee.inference.onnx_model import OnnxModel
from mrknee.inference.torch_model import TorchModel
from mrknee.networks.checkpoint import load_checkpoint, save_checkpoint
from mrknee.networks.network import Network
from mrknee.networks.settings import NetworkSettings
from mrknee.tensors.preparation import Preparation
from mrknee.web.service import Service
from mrknee.web.uploads import Received
from tests.inference.test_export import make_exam, make_run

KNEE = SeriesList([Series("knee", "sagittal")])
SAGITTAL = {"axial": 0, "coronal": 0, "sagittal": 12}
EVERYTHING = make_exam((3, 48, 48), (5, 48, 48), (4, 48, 48))
ONLY = Exam("0007", {Plane.SAGITTAL: EVERYTHING.stacks[Plane.SAGITTAL]})
OTHERS = Exam("0007", {p: EVERYTHING.stacks[p] for p in (Plane.AXIAL, Plane.CORONAL)})


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory, untraced: None) -> tuple[Path, Path]:  # noqa: ARG001
    """A run folder whose training saw sagittal planes only, and the file exported from it."""
    folder = tmp_path_factory.mktemp("sagittal")
    run = make_run(folder / "run", NetworkSettings(encoder="test_resnet"))
    made = load_checkpoint(run / "best")
    provenance = {**made.provenance, "series": SAGITTAL}
    save_checkpoint(run / "best", made.network, made.preparation, provenance, made.decisions)
    with pytest.warns(MrkneeWarning, match="trained on sagittal only"):
        export(run, folder / "model.onnx")
    return run, folder / "model.onnx"


@pytest.fixture(params=["run folder", "exported"])
def model(request: pytest.FixtureRequest, paths: tuple[Path, Path]) -> Model:
    """Either."""
    return TorchModel(paths[0]) if request.param == "run folder" else OnnxModel(paths[1])


def test_planes_that_were_not_trained_on_change_nothing(model: Model) -> None:
    """Three planes give what the sagittal one gives alone: probabilities and explanation."""
    both = model.predict([EVERYTHING, ONLY]).probabilities
    np.testing.assert_array_equal(both[0], both[1])
    explained = model.explain(EVERYTHING)
    assert list(explained.native) == [Plane.SAGITTAL]
    assert explained.adds_up
    np.testing.assert_array_equal(explained.logits, model.explain(ONLY).logits)


def test_an_exam_without_a_trained_plane_is_refused(model: Model) -> None:
    """Nothing could be said of it."""
    for read in (lambda: model.predict([OTHERS]), lambda: model.explain(OTHERS)):
        with pytest.raises(MrkneeError, match="no series that the model was trained on"):
            read()


def test_opening_it_says_which_planes_are_left_out(paths: tuple[Path, Path]) -> None:
    """A warning, and the same for a run folder and a file."""
    for path in paths:
        with pytest.warns(MrkneeWarning, match="axial and coronal is left out"):
            opened = load_model(path)
        assert opened.trained.names == ("sagittal",)


def test_the_exported_graph_leaves_them_out_by_itself(paths: tuple[Path, Path]) -> None:
    """In any software, whether or not `present` is given; NaN where nothing is left."""
    session = onnxruntime.InferenceSession(paths[1])
    stacks: dict[str, Any] = {str(p): stack for p, stack in EVERYTHING.stacks.items()}
    expected = OnnxModel(paths[1]).predict([ONLY]).probabilities[0]
    for more in ({}, {"present": np.array([0, 0, 1], np.float32)}):
        (found,) = session.run(["probabilities"], {**stacks, **more})
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    nothing = {**stacks, "present": np.array([1, 1, 0], np.float32)}
    assert np.isnan(session.run(["probabilities"], nothing)[0]).all()


@pytest.mark.parametrize("kind", [0, 1])
def test_verbs_say_it_in_one_line(
    paths: tuple[Path, Path],
    toy: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    kind: int,
) -> None:
    """predict, submit and explain go on, with a note on standard error."""
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
        said = capsys.readouterr().err
        assert said.startswith(f"mrknee {command[0]}: note: the model was trained on sagittal only")
    page = (tmp_path / "out" / "index.html").read_text()
    assert "The axial and the coronal series was not read" in page


def test_a_service_says_which_planes_it_did_not_read(paths: tuple[Path, Path]) -> None:
    """They count as missing in its answers."""
    service = Service(OnnxModel(paths[1]), "model.onnx")
    read = service.predict(Received(EVERYTHING, {}), "request").content
    assert read.missing_series == [Plane.AXIAL, Plane.CORONAL]
    assert service.facts().provenance["series"] == SAGITTAL


def test_without_a_note_all_planes_are_read(tmp_path: Path) -> None:
    """Models of earlier versions say nothing of their planes."""
    run = make_run(tmp_path / "run", NetworkSettings(encoder="test_resnet", shared_encoder=True))
    model = TorchModel(run)
    assert model.trained == model.series == MRNET_SERIES
    assert model.notes == ()
    assert model.decisions.calibration is not None


def test_a_series_of_another_plane_is_refused(tmp_path: Path) -> None:
    """Its name is the model's, its slices are not what the model learned from."""
    network = Network(NetworkSettings(encoder="test_resnet"), ["acl"], series=KNEE)
    save_checkpoint(tmp_path, network, Preparation(size=48, crop=48).to_dict(), {})
    model = load_model(tmp_path)
    stacks = {"knee": EVERYTHING.stacks[Plane.SAGITTAL]}
    assert len(model.predict(Exam("0007", stacks, series=KNEE))) == 1
    other = SeriesList([Series("knee", "coronal")])
    with pytest.raises(MrkneeError, match="not of the plane"):
        model.predict(Exam("0007", stacks, series=other))


def test_other_series_of_an_exam_are_left_out(model: Model) -> None:
    """A data set that declares more series than the model reads gives the same probabilities."""
    more = SeriesList([Series("cor_t1", "coronal", "T1"), *MRNET_SERIES])
    stacks = {"cor_t1": EVERYTHING.stacks["coronal"], "sagittal": EVERYTHING.stacks["sagittal"]}
    found = model.predict(Exam("0007", stacks, series=more))
    np.testing.assert_array_equal(found.probabilities, model.predict(ONLY).probabilities)
