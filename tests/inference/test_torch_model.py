from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from mrknee.errors import MrkneeError
from mrknee.exams import PLANES, Dataset, Exam, Plane, StackSizes, open_dataset
from mrknee.inference.torch_model import TorchModel
from mrknee.models import prediction as predicting
from mrknee.models.checkpoint import load_checkpoint, save_checkpoint
from mrknee.models.network import Network
from mrknee.models.settings import NetworkSettings
from mrknee.transforms.preparation import Preparation
from tests.conftest import write_toy_dataset

SETTINGS = NetworkSettings(encoder="test_resnet", shared_encoder=True)
PREPARATION = Preparation(size=48, crop=40)
FINDINGS = ("abnormal", "acl", "meniscus")


def make_model(folder: Path, findings: tuple[str, ...] = FINDINGS) -> Path:
    """Writes a run folder with a model of random weights."""
    torch.manual_seed(0)
    network = Network(SETTINGS, findings)
    save_checkpoint(folder / "best", network, PREPARATION.to_dict(), {})
    return folder


def test_predictions_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    """Exams predicted together or separately have the same probabilities to 1e-5."""
    data = write_toy_dataset(tmp_path / "toy", 12, 1, slices=(1, 20))
    predictor = TorchModel(make_model(tmp_path / "run"))
    exams = Dataset.of_split(data, "train")
    together = predictor.predict(exams)
    alone = np.vstack([predictor.predict([exam]).probabilities for exam in exams])
    assert together.ids == exams.ids
    np.testing.assert_allclose(together.probabilities, alone, rtol=0, atol=1e-5)


def test_batches_have_a_maximum_number_of_slices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches do not exceed the maximum, except for a single larger exam."""
    monkeypatch.setattr(predicting, "BATCH_SLICES", 30)
    data = write_toy_dataset(tmp_path / "toy", 12, 1, slices=(1, 12))
    predictor = TorchModel(make_model(tmp_path / "run"))
    read: list[tuple[int, int]] = []
    predictor.network.register_forward_pre_hook(
        lambda _, given: read.append(
            (len(given[1]["axial"]), sum(int(lengths.sum()) for lengths in given[1].values()))
        )
    )
    predictor.predict(Dataset.of_split(data, "train"))
    assert sum(exams for exams, _ in read) == 12
    assert all(slices <= 30 or exams == 1 for exams, slices in read)
    assert any(exams > 1 for exams, _ in read)
    assert any(slices > 30 for _, slices in read)


def test_predictions_are_probabilities_that_differ(toy: Path, tmp_path: Path) -> None:
    """Probabilities are between 0 and 1 and differ between exams."""
    table = TorchModel(make_model(tmp_path / "run")).predict(open_dataset(toy, "train"))
    assert table.probabilities.shape == (12, 3)
    assert ((table.probabilities > 0) & (table.probabilities < 1)).all()
    assert (table.probabilities.std(axis=0) > 0).all()


def test_a_data_set_or_a_folder_of_planes_can_be_read(toy: Path) -> None:
    """`DATA --split train` and `DATA/train` are the same exams."""
    assert open_dataset(toy, "train").ids == open_dataset(toy / "train", "valid").ids
    with pytest.raises(MrkneeError, match="no exams"):
        open_dataset(toy, "test")


def test_a_model_reads_without_labels(toy: Path, tmp_path: Path) -> None:
    """Prediction does not need label files."""
    for file in toy.glob("*.csv"):
        file.unlink()
    predictor = TorchModel(make_model(tmp_path / "run"))
    assert len(predictor.predict(open_dataset(toy, "valid")).ids) == 6


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    """The error names the missing file."""
    with pytest.raises(MrkneeError, match=r"model\.json"):
        TorchModel(tmp_path)


def test_a_missing_plane_is_accepted_if_allowed(toy: Path, tmp_path: Path) -> None:
    """A missing plane is an error by default; if allowed, the other planes are used."""
    (toy / "valid" / "axial" / "0012.npy").unlink()
    with pytest.raises(MrkneeError, match="axial"):
        open_dataset(toy, "valid")
    exams = open_dataset(toy, "valid", allow_missing_plane=True)
    table = TorchModel(make_model(tmp_path / "run")).predict(exams)
    assert np.isfinite(table.probabilities).all()


def test_a_damaged_exam_is_named(toy: Path, tmp_path: Path) -> None:
    """The error of a truncated file names the exam."""
    broken = toy / "valid" / "coronal" / "0014.npy"
    broken.write_bytes(broken.read_bytes()[:200])
    predictor = TorchModel(make_model(tmp_path / "run"))
    with pytest.raises(MrkneeError, match="truncated") as error:
        predictor.predict(open_dataset(toy, "valid"))
    assert error.value.exam == "0014"


def test_unusual_exams_have_remarks(tmp_path: Path) -> None:
    """An all-zero plane and an unusual size cause remarks in predictions and explanations."""
    torch.manual_seed(0)
    sizes = dict.fromkeys(map(str, PLANES), StackSizes((2, 9), (40, 60), (40, 60)).to_dict())
    network = Network(SETTINGS, FINDINGS)
    provenance = {"stack_sizes": sizes}
    save_checkpoint(tmp_path / "best", network, PREPARATION.to_dict(), provenance)
    rng = np.random.default_rng(0)
    fine = {p: rng.integers(0, 200, (4, 48, 48), dtype=np.uint8) for p in PLANES}
    black = np.zeros((4, 48, 48), np.uint8)
    large = rng.integers(0, 200, (19, 64, 64), dtype=np.uint8)
    exams = [Exam("a", fine), Exam("b", fine | {Plane.AXIAL: black})]
    exams += [Exam("c", fine | {Plane.CORONAL: large})]
    predictor = TorchModel(str(tmp_path))
    table = predictor.predict(exams)
    codes = {i: [(r.code, r.series) for r in found] for i, found in table.remarks.items()}
    assert codes == {
        "b": [("all-zero", "axial")],
        "c": [("other-size", "coronal"), ("other-slices", "coronal")],
    }
    explained = predictor.explain(exams[1])
    assert explained.remarks == table.remarks["b"]
    assert explained.description()["remarks"][0]["code"] == "all-zero"


def test_a_single_exam_can_be_predicted(tmp_path: Path, toy: Path) -> None:
    """A single exam is accepted; a path or stacks are refused."""
    predictor = TorchModel(make_model(tmp_path / "run"))
    exam = Dataset.of_split(toy, "train")[0]
    assert predictor.predict(exam).ids == (exam.id,)
    for wrong in (str(toy), exam.stacks, [exam.stacks], []):
        with pytest.raises(MrkneeError, match=r"no exams|not an exam|not a sequence of exams"):
            predictor.predict(wrong)  # type: ignore[arg-type]


def note_run(run: Path, identity: str) -> None:
    """Writes the record of a run's starts as training does."""
    (run / "environment.json").write_text(json.dumps([{"run": identity, "started": "now"}]))


def make_model_of(folder: Path, identity: str) -> Path:
    """Writes a run folder and a model that belongs to it."""
    run = make_model(folder)
    loaded = load_checkpoint(run / "best")
    save_checkpoint(run / "best", loaded.network, loaded.preparation, {"run": identity})
    note_run(run, identity)
    return run


@pytest.mark.parametrize("place", [".", "best", "epochs/epoch001"])
def test_a_model_of_another_run_is_refused(tmp_path: Path, place: str) -> None:
    """`best/` copied from another run is refused, but accepted outside of a run folder."""
    first = make_model_of(tmp_path / "first", "a" * 64)
    second = make_model_of(tmp_path / "second", "b" * 64)
    part = "best" if place == "." else place
    if part != "best":
        shutil.copytree(second / "best", second / part)
    TorchModel(second / place)
    shutil.rmtree(second / part)
    shutil.copytree(first / "best", second / part)
    with pytest.raises(MrkneeError, match="belongs to another run than its folder"):
        TorchModel(second / place)
    shutil.copytree(first / "best", tmp_path / "alone")
    TorchModel(tmp_path / "alone")  # outside of a run folder


def test_a_run_of_an_earlier_version_is_accepted(tmp_path: Path) -> None:
    """A run whose starts and model do not record a run identity is accepted."""
    run = make_model(tmp_path / "run")
    (run / "environment.json").write_text(json.dumps([{"started": "then"}, {"run": "a" * 64}]))
    TorchModel(run)
    for broken in ("[3]", "{}", "["):
        (run / "environment.json").write_text(broken)
        with pytest.raises(MrkneeError, match="list of starts can't be read"):
            TorchModel(run)
