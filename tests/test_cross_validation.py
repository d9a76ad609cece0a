"""Small trainings with several folds and seeds."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mrknee
from mrknee.cli import main
from mrknee.errors import DataError, ModelError, OutputError, SettingsError
from mrknee.exams import open_dataset
from mrknee.files import owned_folder
from mrknee.inference.ensemble import Ensemble
from mrknee.inference.model import load_model
from mrknee.metrics.predictions import Predictions
from mrknee.run_folder import RunFolder
from tests.conftest import write_toy_dataset
from tests.processes import mrknee as mrknee_command
from tests.processes import start, until

pytestmark = pytest.mark.slow

SMALL: dict[str, Any] = {
    "epochs": 2,
    "preparation.size": 32,
    "preparation.crop": 32,
    "selection.fraction": 0.25,
    "network.shared_encoder": True,
    "loggers": "none",
}
WORDS = [word for name, value in SMALL.items() for word in (f"--{name}", str(value).lower())]
GROUPS = 8
"""Number of groups of the 24 training exams."""


def toy(root: Path) -> Path:
    """Writes 24 training exams in groups of three, and 8 validation exams."""
    write_toy_dataset(root, 24, 8, pixels=32, slices=(1, 3))
    lines = [f"{number:04d},g{number % GROUPS}" for number in range(24)]
    (root / "groups.csv").write_text("\n".join(["exam,group", *lines]) + "\n")
    return root


def command(data: Path, out: Path, *more: str) -> list[str]:
    """Returns the command line of these trainings."""
    return ["train", str(data), "--out", str(out), "--recipe", "small", *WORDS, *more]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set of these tests."""
    return toy(tmp_path_factory.mktemp("data") / "toy")


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of three folds and two seeds."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert main(command(data, out, "--folds", "3", "--seeds", "0,1")) == 0
    return out


@pytest.fixture
def out(whole: Path, tmp_path: Path) -> Path:
    """A copy of this output."""
    return Path(shutil.copytree(whole, tmp_path / "out"))


RUNS = [f"fold{fold}/seed{seed}" for seed in (0, 1) for fold in (1, 2, 3)]


def test_each_exam_is_held_out_once_with_its_group(whole: Path) -> None:
    """The parts of each run are disjoint and whole groups; the folds are those of every seed."""
    held_out: dict[str, list[frozenset[str]]] = {}
    for name in RUNS:
        parts = RunFolder(whole / name).read_split()
        assert parts is not None
        groups = {part: {int(i) % GROUPS for i in ids} for part, ids in parts.items()}
        assert sum(map(len, parts.values())) == 24
        assert sum(map(len, groups.values())) == GROUPS
        held_out.setdefault(name[-5:], []).append(parts["valid"])
    assert held_out["seed0"] == held_out["seed1"]
    assert frozenset.union(*held_out["seed0"]) == {f"{number:04d}" for number in range(24)}


def test_out_of_fold_predictions_are_those_of_the_runs_that_held_an_exam_out(
    whole: Path, data: Path
) -> None:
    """They are the mean over the seeds, in the order of train, and are scored."""
    table = Predictions.read(whole / "predictions-out-of-fold.csv")
    exams = open_dataset(data, "train")
    assert table.ids == exams.ids
    for fold in (1, 2, 3):
        models = [load_model(whole / f"fold{fold}" / f"seed{seed}") for seed in (0, 1)]
        ids = Predictions.read(whole / f"fold{fold}" / "seed0" / "predictions-valid.csv").ids
        for exam_id in ids:
            expected = np.mean([m.predict(exams[exam_id]).probabilities[0] for m in models], axis=0)
            found = table.probabilities[table.ids.index(exam_id)]
            np.testing.assert_allclose(found, expected, atol=1e-5)
    card = mrknee.Run(whole).scorecard
    assert (card.split, card.n_exams) == ("train", 24)
    assert any("out-of-fold" in note for note in card.notes)
    again = mrknee.evaluate(table, exams)
    assert again.findings["acl"].auc.value == card.findings["acl"].auc.value


def test_results_have_one_row_per_run(whole: Path) -> None:
    """A row has the AUCs of the run's scorecard."""
    with (whole / "results.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [f"fold{row['fold']}/seed{row['seed']}" for row in rows] == RUNS
    for row, name in zip(rows, RUNS, strict=True):
        card = json.loads((whole / name / "scorecard.json").read_text())
        assert float(row["auc_acl"]) == pytest.approx(card["findings"]["acl"]["auc"], abs=1e-6)
        assert int(row["exams"]) == card["n_exams"]


def test_the_folder_is_an_ensemble(whole: Path, data: Path, tmp_path: Path) -> None:
    """`load_model` and `predict` read it as the six networks; a seventh can be added."""
    model = load_model(whole)
    assert isinstance(model, Ensemble)
    assert len(model.members) == 6
    assert len(load_model(whole, whole / "fold1" / "seed0" / "last").members) == 7  # type: ignore[attr-defined]
    exams = open_dataset(data, "valid")
    expected = np.mean([load_model(whole / r).predict(exams).probabilities for r in RUNS], axis=0)
    np.testing.assert_allclose(model.predict(exams).probabilities, expected, atol=1e-7)
    table = tmp_path / "predictions.csv"
    assert main(["predict", str(whole), str(data), "--out", str(table)]) == 0
    np.testing.assert_allclose(Predictions.read(table).probabilities, expected, atol=1e-6)


def test_a_killed_training_continues_with_the_same_results(
    data: Path, whole: Path, out: Path
) -> None:
    """After SIGKILL, finished runs are kept, the interrupted one continues; equal results."""
    words = command(data, out, "--folds", "3", "--seeds", "0,1", "--resume")
    for name in ("ensemble.json", "scorecard.json", "predictions-out-of-fold.csv"):
        (out / name).unlink()
    kept = (out / RUNS[0] / "scorecard.json").stat().st_mtime_ns
    for _ in range(3):  # once, unless the kill comes too late
        shutil.rmtree(out / RUNS[4])
        process = start(mrknee_command, *words)
        until((out / RUNS[4] / "resume" / "last.ckpt").exists, process)
        process.kill()
        process.join()
        if not (out / RUNS[4] / "scorecard.json").exists():
            break
    assert main(words) == 0
    assert (out / RUNS[0] / "scorecard.json").stat().st_mtime_ns == kept
    for name in ("ensemble.json", "scorecard.json", "predictions-out-of-fold.csv", "results.csv"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()


def test_processes_share_the_runs(data: Path, whole: Path, out: Path) -> None:
    """With --resume, a second process trains what the first one doesn't; both end well."""
    words = command(data, out, "--folds", "3", "--seeds", "0,1", "--resume")
    for name in RUNS[2:]:
        shutil.rmtree(out / name)
    with owned_folder(out / RUNS[2]):  # both pass it over, and share the others
        both = [start(mrknee_command, *words) for _ in range(2)]
        until(lambda: all((out / n / "scorecard.json").exists() for n in RUNS[3:]), *both)
    for process in both:
        process.join()
        assert process.exitcode == 0
    for name in RUNS:
        assert len(json.loads((out / name / "environment.json").read_text())) == 1
    for name in ("ensemble.json", "scorecard.json", "predictions-out-of-fold.csv", "results.csv"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()


def test_seeds_can_be_added(data: Path, out: Path) -> None:
    """Only the new runs are trained; the ensemble is that of the seeds of the last call."""
    kept = (out / RUNS[0] / "scorecard.json").stat().st_mtime_ns
    run = mrknee.cross_validate(data, "small", out=out, folds=3, seeds=[0, 7], resume=True, **SMALL)
    assert (out / RUNS[0] / "scorecard.json").stat().st_mtime_ns == kept
    assert len(run.load_model().members) == 6  # type: ignore[attr-defined]
    members = json.loads((out / "ensemble.json").read_text())["members"]
    assert members[3:] == ["fold1/seed7", "fold2/seed7", "fold3/seed7"]


def test_several_seeds_without_folds_score_valid(data: Path, tmp_path: Path) -> None:
    """The runs differ in their seeds, and the scorecard is that of their mean on valid."""
    assert main(command(data, tmp_path / "out", "--seeds", "3,4")) == 0
    table = Predictions.read(tmp_path / "out" / "predictions-valid.csv")
    runs = [tmp_path / "out" / f"seed{seed}" / "predictions-valid.csv" for seed in (3, 4)]
    expected = np.mean([Predictions.read(run).probabilities for run in runs], axis=0)
    np.testing.assert_allclose(table.probabilities, expected, atol=1e-8)
    assert mrknee.Run(tmp_path / "out").scorecard.split == "valid"


def test_single_fold_is_a_run(data: Path, whole: Path, tmp_path: Path) -> None:
    """`--folds 3 --fold 2` trains what the folder of all folds has as its second."""
    assert main(command(data, tmp_path / "run", "--folds", "3", "--fold", "2")) == 0
    for name in ("predictions-valid.csv", "split.csv", "scorecard.json"):
        expected = (whole / "fold2" / "seed0" / name).read_bytes()
        assert (tmp_path / "run" / name).read_bytes() == expected


def test_selection_on_valid_selects_on_the_fold(data: Path, tmp_path: Path) -> None:
    """With selection on valid, the epoch is selected on the fold, which the scorecard reports."""
    more = ["--folds", "3", "--fold", "1", "--selection.part", "valid"]
    assert main(command(data, tmp_path / "run", *more)) == 0
    parts = RunFolder(tmp_path / "run").read_split()
    assert parts is not None
    assert set(parts) == {"train", "valid"}
    assert not parts["train"] & parts["valid"]
    assert any("optimistic" in note for note in mrknee.Run(tmp_path / "run").scorecard.notes)


def test_other_folders_settings_and_seeds_are_refused(
    data: Path, out: Path, tmp_path: Path
) -> None:
    """Refused before anything is written: a used folder, other settings or data, wrong seeds."""
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()

    def train(folder: Path, *, resume: bool = True, **more: Any) -> None:  # noqa: ANN401
        given = {**SMALL, "folds": 3, "seeds": [0, 1], **more}
        mrknee.cross_validate(data, "small", out=folder, resume=resume, **given)

    for folder, resume in ((out, False), (tmp_path / "used", True)):
        with pytest.raises(OutputError) as refused:
            train(folder, resume=resume)
        assert refused.value.code == "not-empty"
    others: list[dict[str, Any]] = [{"folds": 4}, {"epochs": 1}]
    for settings in others:
        with pytest.raises(SettingsError) as changed:
            train(out, **settings)
        assert changed.value.code == "other-settings"
    with pytest.raises(DataError, match="can't be divided into folds"):
        train(tmp_path / "new", folds=GROUPS + 1)
    wrong: list[dict[str, Any]] = [{"seeds": [1, 1]}, {"seeds": []}, {"seed": 3}, {"fold": 2}]
    for settings in wrong:
        with pytest.raises(SettingsError, match="seeds can't be used"):
            train(tmp_path / "new", **settings)
    with pytest.raises(SettingsError, match="which fold is held out"):
        mrknee.train(data, "small", out=tmp_path / "new", folds=3, **SMALL)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("text", ["[]", '{"members": []}', '{"members": ["../x"]}', "{"])
def test_invalid_list_of_members_is_refused(out: Path, text: str) -> None:
    """The members of an ensemble are folders inside it."""
    (out / "ensemble.json").write_text(text)
    with pytest.raises((ModelError, DataError)) as refused:
        load_model(out)
    assert refused.value.file == str(out / "ensemble.json")
