"""mrknee as a library: public names and typical use in a notebook."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

import mrknee
from mrknee.exams import PLANES, write_stack
from mrknee.sources.phantom import Truth, render_exam
from tests.conftest import write_toy_dataset
from tests.inference.test_torch_model import make_model

PUBLIC = [
    "Checkup",
    "Comparison",
    "DataError",
    "Dataset",
    "Exam",
    "Explanation",
    "ModelError",
    "MrkneeError",
    "OutputError",
    "PlatformError",
    "Predictions",
    "Run",
    "Scorecard",
    "SettingsError",
    "TrainingError",
    "check_dataset",
    "compare",
    "cross_validate",
    "evaluate",
    "export_onnx",
    "list_encoders",
    "load_model",
    "make_phantom",
    "open_dataset",
    "show_progress",
    "train",
    "validate_maps",
]


def test_public_names() -> None:
    """Exactly the listed names are public; all are importable and documented."""
    assert mrknee.__all__ == PUBLIC
    for name in PUBLIC:
        assert name in dir(mrknee)
        assert (getattr(mrknee, name).__doc__ or "").strip()
    with pytest.raises(AttributeError, match="nothing"):
        mrknee.nothing  # noqa: B018  # its absence is the test


@pytest.mark.slow
def test_import_loads_no_heavy_packages() -> None:
    """`import mrknee` needs no numpy; its names load no torch and no matplotlib."""
    code = """import sys, mrknee
first = {'numpy', 'torch', 'scipy'} & set(sys.modules)
for name in mrknee.__all__:
    getattr(mrknee, name)
print(sorted(first | {'torch', 'matplotlib'} & set(sys.modules)))"""
    done = subprocess.run(  # noqa: S603  # our own command
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_exam_from_arrays_of_any_numeric_type() -> None:
    """uint8 is unchanged, other types are scaled by percentiles, and planes have synonyms."""
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (4, 32, 32), dtype=np.uint8)
    wide = rng.normal(800, 100, (3, 32, 40)).astype(np.float32)
    exam = mrknee.Exam.from_arrays({"Sag": grey, "axial": wide}, id="7", labels={"ACL": 1})
    assert list(exam.stacks) == ["axial", "sagittal"]
    assert exam.stacks["sagittal"] is grey  # a plane is its name
    assert exam.stacks["axial"].dtype == np.uint8
    assert (exam.stacks["axial"].min(), exam.stacks["axial"].max()) == (0, 255)
    assert repr(exam) == "Exam('7': axial 3 x 32 x 40, sagittal 4 x 32 x 32; acl 1)"


@pytest.mark.parametrize(
    ("array", "code"),
    [
        (np.zeros((3, 4), np.uint8), "stack"),
        (np.zeros((3, 4, 4), bool), "stack"),
        (np.full((3, 4, 4), np.nan), "not-finite"),
    ],
)
def test_invalid_arrays_are_rejected(array: np.ndarray, code: str) -> None:
    """Arrays that can't be a stack raise an error with a code."""
    with pytest.raises(mrknee.DataError) as caught:
        mrknee.Exam.from_arrays({"axial": array})
    assert caught.value.code == code


def test_phantom_is_an_exam_with_masks_of_lesions() -> None:
    """A phantom equals that of `mrknee phantom` for the same seed; its masks fit its stacks."""
    knee = mrknee.make_phantom(3, ["acl"], size=64, slice_factor=0.2, id="a")
    truth = Truth(abnormal=True, acl=True, meniscus=False)
    rendered = render_exam(3, truth, size=64, slice_factor=0.2)
    assert dict(knee.labels) == {"abnormal": 1.0, "acl": 1.0, "meniscus": 0.0}
    assert sorted(knee.lesions) == ["abnormal", "acl"]
    for plane in PLANES:
        difference = knee.stacks[plane].astype(int) - rendered.stacks[plane]
        assert np.abs(difference).max() <= 1, "another number of BLAS threads rounds otherwise"
        assert knee.lesions["acl"][plane].shape == knee.stacks[plane].shape
    with pytest.raises(mrknee.SettingsError, match="unknown finding"):
        mrknee.make_phantom(3, ["oedema"])


def test_predict_and_explain(tmp_path: Path) -> None:
    """Paths may be text, exams are found by id or position, and tables become data frames."""
    data = mrknee.open_dataset(str(write_toy_dataset(tmp_path / "toy", 1, 6)))
    model = mrknee.load_model(str(make_model(tmp_path / "run")))
    assert data.labels.shape == (6, 3)
    first = data.ids[0]
    assert data[first].id == data[0].id == first
    assert "6 exams, labels of abnormal, acl, meniscus" in repr(data)
    table = model.predict(data)
    assert len(table) == 6
    assert (table["acl"] == table.probabilities[:, 1]).all()
    frame = table.to_frame()
    assert isinstance(frame, pd.DataFrame)
    assert float(frame["acl"].iloc[0]) == table["acl"][0]
    assert repr(table).startswith(f"Predictions of 6 exams\n  {first}: abnormal 0.")
    why = model.explain(data[first])
    heat = why.heat("sagittal", "acl")
    assert heat.shape == data[first].stacks["sagittal"].shape
    sums = sum(float(scores.sum()) for scores in why.slices("acl").values())
    assert why.bias[1] + sums == pytest.approx(why.logits[1], abs=1e-4)
    assert "acl: probability" in repr(why)
    for plane, finding in (("sagittal", "ACL tear"), ("oblique", "acl")):
        with pytest.raises(mrknee.DataError, match="does not contain the"):
            why.heat(plane, finding)
    with pytest.raises(mrknee.DataError) as caught:
        data["999"]
    assert caught.value.code == "unknown-exam"


def test_folder_without_splits_can_be_opened(tmp_path: Path) -> None:
    """A folder of planes without labels, as `mrknee import` writes it, can be opened."""
    for plane in PLANES:
        write_stack(tmp_path / "exams", plane, "0000", np.ones((2, 8, 8), np.uint8))
    data = mrknee.open_dataset(tmp_path / "exams")
    assert (data.ids, data.findings) == (("0000",), None)


@pytest.fixture(scope="module")
def toy_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A toy data set, and a run folder with a network of random weights."""
    root = tmp_path_factory.mktemp("toy")
    return write_toy_dataset(root / "toy", 12, 6), make_model(root / "run")


@pytest.mark.slow
def test_train_with_an_opened_data_set_and_settings(
    toy_run: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The findings of an opened data set are used; nothing is printed if progress is off."""
    data = mrknee.open_dataset(toy_run[0], findings=["acl"])
    settings: dict[str, Any] = {
        "preparation.size": 48,
        "preparation.crop": 40,
        "selection.fraction": 0.34,
    }
    mrknee.show_progress(False)
    try:
        run = mrknee.train(data, "small", out=tmp_path / "run", epochs=1, **settings)
    finally:
        mrknee.show_progress(True)
    assert capsys.readouterr() == ("", "")
    assert (tmp_path / "run" / "log.txt").read_text()
    assert list(run.scorecard.findings) == ["acl"]
    assert run.load_model().findings == ("acl",)
    assert run.to_frame().index.tolist() == [1]
    assert "6 exams of valid" in repr(run)
    with pytest.raises(mrknee.SettingsError) as caught:
        mrknee.train(data, out=tmp_path / "other", batch_size=2)
    assert caught.value.code == "unknown-setting"
    with pytest.raises(mrknee.SettingsError, match="epochs"):
        mrknee.train(data, out=tmp_path / "other", epochs="many")
    assert not (tmp_path / "other").exists()
    with pytest.raises(mrknee.ModelError, match="no metrics"):
        mrknee.Run(tmp_path / "other").to_frame()
    assert "not finished" in repr(mrknee.Run(tmp_path / "other"))


def test_evaluation_of_a_table_and_its_file_is_the_same(
    toy_run: tuple[Path, Path], tmp_path: Path
) -> None:
    """The scores don't depend on whether data set and table are objects or paths."""
    folder, run = toy_run
    data = mrknee.open_dataset(folder)
    table = mrknee.load_model(run).predict(data)
    table.write(tmp_path / "p.csv")
    card = mrknee.evaluate(table, data)
    written = mrknee.evaluate(str(tmp_path / "p.csv"), str(folder), tmp_path / "scores")
    assert written.findings["acl"].auc == card.findings["acl"].auc
    assert mrknee.Scorecard.read(tmp_path / "scores" / "scorecard.json") == written
    card.report(tmp_path / "page.html")
    assert "Research use only" in (tmp_path / "page.html").read_text()
    assert repr(card) == card.table().rstrip()
    frame = card.to_frame()
    assert list(frame.index) == ["abnormal", "acl", "meniscus", "mean"]
    assert float(frame.loc["acl", "auc"]) == card.findings["acl"].auc.value
    inside = mrknee.open_dataset(folder / "valid")
    assert mrknee.evaluate(table, inside).findings["acl"].auc == card.findings["acl"].auc
    with pytest.raises(mrknee.OutputError, match="would replace"):
        card.report(folder / "valid-acl.csv")


def test_comparison_of_tables_with_and_without_names(toy_run: tuple[Path, Path]) -> None:
    """Unnamed models are numbered; there is one row per finding and one for the mean."""
    data = mrknee.open_dataset(toy_run[0])
    table = mrknee.load_model(toy_run[1]).predict(data)
    other = replace(table, probabilities=1 - table.probabilities)
    found = mrknee.compare(table, other, data)
    assert found.names == ("table 1", "table 2")
    frame = mrknee.compare(table, other, toy_run[0], names=["a", "b"]).to_frame()
    assert list(frame["finding"]) == ["abnormal", "acl", "meniscus", "mean"]
    assert set(frame["second"]) == {"b"}
    aucs = frame["second_auc"] - frame["first_auc"]
    assert np.allclose(aucs, frame["difference"])
    with pytest.raises(mrknee.DataError, match="names"):
        mrknee.compare(table, other, data, names=["a"])


def test_checkup_lists_problems(tmp_path: Path) -> None:
    """`ok` is false after an error; the frame has one row per problem; `repr` is the table."""
    data = write_toy_dataset(tmp_path / "toy", 12, 6)
    assert mrknee.check_dataset(str(data)).ok
    (data / "train" / "axial" / "0001.npy").write_bytes(b"not an array")
    checkup = mrknee.check_dataset(mrknee.open_dataset(data))
    assert not checkup.ok
    frame = checkup.to_frame()
    assert "not-npy" in set(frame["code"])
    assert "a file is not a `.npy` file" in repr(checkup)


def test_the_axes_of_an_opened_data_set_are_used(
    toy_run: tuple[Path, Path], tmp_path: Path
) -> None:
    """`evaluate` and `check_dataset` read its stacks as `train` does."""
    folder, run = tmp_path / "toy", toy_run[1]
    shutil.copytree(toy_run[0], folder)
    table = mrknee.load_model(run).predict(mrknee.open_dataset(folder))
    for file in folder.rglob("*.npy"):
        np.save(file, np.moveaxis(np.load(file), 0, 2))
    opened = mrknee.open_dataset(folder, axes="rows,cols,slices")
    before = mrknee.evaluate(table, toy_run[0])
    for found in (
        mrknee.evaluate(table, opened),
        mrknee.evaluate(table, opened, model=run),
        mrknee.evaluate(table, folder, axes="rows,cols,slices"),
    ):
        assert found.contents.slices == before.contents.slices
    assert mrknee.check_dataset(opened).ok
    assert not mrknee.check_dataset(folder).ok


def test_plots_return_axes(toy_run: tuple[Path, Path]) -> None:
    """Each call creates a figure, exams have one colour scale, and missing series are errors."""
    mpl.use("Agg")
    data = mrknee.open_dataset(toy_run[0])
    exam = data[0]
    assert exam.plot("sag", [0]).shape == (1, 1)
    shown = exam.plot()[0, 0].images[0].get_array()
    assert (np.asarray(shown) == exam.stacks["axial"][1]).any()
    why = mrknee.load_model(toy_run[1]).explain(exam)
    axes = why.plot("acl")
    assert axes.shape == (2, 3)
    heats = [place.images[1] for place in axes[0]]
    assert {heat.get_clim() for heat in heats} == {(-why.scale, why.scale)}
    index = int(why.slices("acl")[PLANES[0]].argmax())
    assert np.allclose(heats[0].get_array(), why.heat("axial", "acl")[index])
    assert np.array_equal(axes[0, 0].images[0].get_array(), exam.stacks[PLANES[0]][index])
    bars = [bar.get_height() for bar in axes[1, 0].patches]
    assert np.allclose(bars, why.slices("acl")[PLANES[0]])
    assert why.plot("acl", "coronal").shape == (2, 1)
    card = mrknee.evaluate(mrknee.load_model(toy_run[1]).predict(data), data)
    titles = [place.get_title() for place in card.plot()]
    assert all(title.startswith(name) for title, name in zip(titles, card.findings, strict=True))
    assert "mean" in mrknee.Scorecard.plot(card).get_yticklabels()[-1].get_text()
    for wrong in ({"series": "oblique"}, {"slices": [99]}, {"slices": 0}):
        with pytest.raises(mrknee.DataError):
            exam.plot(**wrong)
    for names in (["ACL tear"], ["acl", "oblique"]):
        with pytest.raises(mrknee.DataError):
            why.plot(*names)
    plt.close("all")
