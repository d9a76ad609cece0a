"""Names that are too long for the system: an error of our own, whatever they are given for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import mrknee
from mrknee.errors import MrkneeError
from mrknee.experiment import run_experiment
from mrknee.inference.submission import ListedExams

PLANES = ("axial", "coronal", "sagittal")


def listed(form: str) -> Callable[[str, Path, Path], object]:
    """Returns a function that reads an exam of a list of paths of a form."""

    def read(name: str, _: Path, folder: Path) -> object:
        file = folder / "paths.csv"
        file.write_text("".join(f"{form.format(plane=plane, name=name)}\n" for plane in PLANES))
        return ListedExams(file)[0]

    return read


def planned(name: str, data: Path, folder: Path) -> None:
    """Runs an experiment whose recipe has the name."""
    plan = folder / "plan.yaml"
    plan.write_text(f"recipe: {name}\narms: {{a: {{}}}}\nseeds: [0]\nbaseline: a\n")
    run_experiment(plan, data, folder / "out")


def declared(name: str, data: Path, folder: Path) -> object:
    """Opens a data set with a series of the name."""
    rows = ["name,plane,weighting,fat_suppressed", "axial,axial,,", f"{name},coronal,,"]
    (folder / "train").symlink_to(data / "train")
    (folder / "series.csv").write_text("\n".join(rows))
    return mrknee.open_dataset(folder, "train")


USES: dict[str, Callable[[str, Path, Path], object]] = {
    "files of a submission": listed("x/{plane}/{name}é.npy"),
    "folders of a submission": listed("{name}/{plane}/é.npy"),
    "recipe of a plan": planned,
    "series of a data set": declared,
    "weights": lambda name, data, folder: mrknee.train(
        data, "small", out=folder / "run", weights=name
    ),
    "weights of a run": lambda name, data, folder: mrknee.train(
        data, "small", out=folder / "run", weights=f"run:{name}"
    ),
    "feature cache": lambda name, data, folder: mrknee.train(
        data, "frozen", out=folder / "run", weights="none", feature_cache=name
    ),
    "recipe": lambda name, data, folder: mrknee.train(data, name, out=folder / "run"),
    "output": lambda name, data, _: mrknee.train(data, "small", out=name),
    "data set": lambda name, _, __: mrknee.open_dataset(name, "train"),
    "split": lambda name, data, _: mrknee.open_dataset(data, name),
    "data set to check": lambda name, _, __: mrknee.check_dataset(name),
    "model": lambda name, _, __: mrknee.load_model(name),
    "predictions": lambda name, data, _: mrknee.evaluate(name, data),
    "DICOM": lambda name, _, __: mrknee.Exam.from_dicom(name),
}


NAME = "é" * 200
"""Fewer than 256 characters, but more bytes than file systems allow."""


@pytest.mark.parametrize("use", USES)
def test_long_names_are_refused(
    use: str, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By an error that a caller of the library can catch, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MrkneeError):
        USES[use](NAME, toy, tmp_path)
    assert not (tmp_path / "run").exists()
