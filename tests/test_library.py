"""mrknee as a library: the public names, and what a notebook's first lines do."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mrknee
from mrknee.exams import PLANES, write_stack
from mrknee.sources.phantom import Truth, render_exam
from tests.conftest import write_toy_dataset
from tests.inference.test_torch_model import make_model

PUBLIC = [
    "DataError",
    "Exam",
    "Explanation",
    "ModelError",
    "MrkneeError",
    "OutputError",
    "PlatformError",
    "Predictions",
    "SettingsError",
    "TrainingError",
    "load_model",
    "make_phantom",
    "open_dataset",
]


def test_the_public_names_are_these() -> None:
    """What is listed can be had, is documented, and nothing else is promised."""
    assert mrknee.__all__ == PUBLIC
    for name in PUBLIC:
        assert name in dir(mrknee)
        assert (getattr(mrknee, name).__doc__ or "").strip()
    with pytest.raises(AttributeError, match="nothing"):
        mrknee.nothing  # noqa: B018  # its absence is the test


def test_importing_the_package_loads_nothing_else() -> None:
    """`import mrknee` needs neither numpy nor torch; names load what they need."""
    code = "import sys, mrknee; print(sorted({'numpy', 'torch', 'scipy'} & set(sys.modules)))"
    done = subprocess.run(  # noqa: S603  # our own command
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", PUBLIC)
def test_examples_in_docstrings_run(name: str) -> None:
    """Every example of a public name prints what it says."""
    runner = doctest.DocTestRunner()
    for test in doctest.DocTestFinder().find(getattr(mrknee, name), name, globs={}):
        runner.run(test)
    assert runner.summarize().failed == 0


def test_an_exam_is_made_from_arrays_of_any_numeric_type() -> None:
    """uint8 stays as it is, other types are scaled by percentiles, and planes have synonyms."""
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
def test_other_arrays_are_refused(array: np.ndarray, code: str) -> None:
    """One clear error with a code."""
    with pytest.raises(mrknee.DataError) as caught:
        mrknee.Exam.from_arrays({"axial": array})
    assert caught.value.code == code


def test_a_phantom_is_an_exam_with_its_lesions() -> None:
    """Its bytes are those of `mrknee phantom`'s knees of the seed; masks lie on its stacks."""
    knee = mrknee.make_phantom(3, ["acl"], size=64, slice_factor=0.2, id="a")
    truth = Truth(abnormal=True, acl=True, meniscus=False)
    rendered = render_exam(3, truth, size=64, slice_factor=0.2)
    assert dict(knee.labels) == {"abnormal": 1.0, "acl": 1.0, "meniscus": 0.0}
    assert sorted(knee.lesions) == ["abnormal", "acl"]
    for plane in PLANES:
        difference = knee.stacks[plane].astype(int) - rendered.stacks[plane]
        assert np.abs(difference).max() <= 1, "another number of BLAS threads rounds otherwise"
        assert knee.lesions["acl"][plane].shape == knee.stacks[plane].shape
    with pytest.raises(mrknee.SettingsError, match="can't be drawn"):
        mrknee.make_phantom(3, ["oedema"])


def test_a_notebook_predicts_and_explains(tmp_path: Path) -> None:
    """Text paths; exams by id and by position; names in place of positions; a pandas frame."""
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
        with pytest.raises(mrknee.DataError, match="explained"):
            why.heat(plane, finding)
    with pytest.raises(mrknee.DataError) as caught:
        data["999"]
    assert caught.value.code == "unknown-exam"


def test_the_readme_s_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines under "From Python", beside what `make demo` leaves."""
    text = (Path(__file__).parents[1] / "README.md").read_text()
    (lines,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    write_toy_dataset(tmp_path / "demo" / "data", 1, 6)
    make_model(tmp_path / "demo" / "run")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(lines, names)  # noqa: S102  # our own README
    assert names["table"]["acl"].shape == (6,)
    assert (tmp_path / "predictions.csv").exists()


def test_a_folder_without_splits_opens_too(tmp_path: Path) -> None:
    """As `mrknee import` writes it: planes' folders, no labels."""
    for plane in PLANES:
        write_stack(tmp_path / "exams", plane, "0000", np.ones((2, 8, 8), np.uint8))
    data = mrknee.open_dataset(tmp_path / "exams")
    assert (data.ids, data.findings) == (("0000",), None)
