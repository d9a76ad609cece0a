"""Small experiments with real trainings: interrupted, continued, extended and refused."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from mrknee import experiment
from mrknee.cli import main
from mrknee.errors import DataError, MrkneeError, OutputError, SettingsError
from mrknee.exams import open_dataset
from mrknee.experiment import run_experiment
from mrknee.files import owned_folder
from mrknee.inference.model import load_model
from mrknee.metrics.predictions import Predictions
from mrknee.models.checkpoint import load_checkpoint
from mrknee.run_folder import RunFolder
from mrknee.several_runs import train_or_resume
from mrknee.training.recipe import Recipe
from tests.conftest import write_toy_dataset
from tests.processes import mrknee, start, until

PLAN = """\
recipe: small
settings:
  epochs: 2
  preparation: {size: 32, crop: 32}
  selection.fraction: 0.34
  network.shared_encoder: true
  calibration: none
  precision: 32-true
  loggers: none
arms:
  base: {}
  sgd: {optimizer.name: sgd}
seeds: [0, 1]
baseline: base
"""

pytestmark = pytest.mark.slow

RUNS = [f"{arm}/seed{seed}" for seed in (0, 1) for arm in ("base", "sgd")]


def toy(root: Path, train: int = 12, valid: int = 8, seed: int = 0) -> Path:
    """Writes a data set on which training takes about a second."""
    return write_toy_dataset(root, train, valid, pixels=32, slices=(1, 3), seed=seed)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set of these tests; tests that change it use a copy."""
    return toy(tmp_path_factory.mktemp("data") / "toy")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plan of these tests."""
    file = tmp_path_factory.mktemp("plan") / "plan.yaml"
    file.write_text(PLAN)
    return file


@pytest.fixture(scope="module")
def whole(plan: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of an uninterrupted experiment."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert main(["experiment", str(plan), str(data), str(out)]) == 0
    return out


@pytest.fixture
def out(whole: Path, tmp_path: Path) -> Path:
    """A copy of this output."""
    return Path(shutil.copytree(whole, tmp_path / "out"))


def changed_plan(folder: Path, *changes: tuple[str, str]) -> Path:
    """Writes the plan with some texts replaced."""
    text = PLAN
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    file = folder / "changed.yaml"
    file.write_text(text)
    return file


def rows(out: Path, name: str = "valid") -> list[dict[str, str]]:
    """Returns the rows of results.csv."""
    with (out / name / "results.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


def read(file: Path) -> str:
    """Returns the text of a file; empty if there is none yet."""
    return file.read_text() if file.exists() else ""


def times(out: Path) -> dict[str, int]:
    """Returns the modification time of each file."""
    return {
        str(file.relative_to(out)): file.stat().st_mtime_ns
        for file in sorted(out.rglob("*"))
        if file.is_file()
    }


def contents(out: Path) -> dict[str, bytes]:
    """Every file but logs, states, times, and what says when something was done."""
    passed_over = {"log.txt", "environment.json", "data.json", "resume", "times.json", "costs.csv"}
    found = {
        str(file.relative_to(out)): file.read_bytes()
        for file in sorted(out.rglob("*"))
        if file.is_file() and not passed_over.intersection(file.parts)
    }
    timeless = [{k: v for k, v in row.items() if "second" not in k} for row in rows(out)]
    return {**found, "valid/results.csv": json.dumps(timeless).encode()}


def test_every_arm_is_trained_with_every_seed(whole: Path) -> None:
    """Each run has its arm's settings, and the same exams as others with its seed."""
    for name in RUNS:
        run = whole / "runs" / name
        assert (run / "scorecard.json").is_file()
        settings = (run / "settings.yaml").read_text()
        assert ("name: sgd" in settings) == name.startswith("sgd")
        assert f"\nseed: {name[-1]}\n" in settings
    splits = [(whole / "runs" / name / "split.csv").read_text() for name in RUNS]
    assert splits[0] == splits[1] != splits[2] == splits[3]


def test_results_have_one_row_per_run(whole: Path) -> None:
    """A row has the AUCs of the scorecard, epochs, exams and seconds."""
    found = rows(whole)
    assert [f"{row['arm']}/seed{row['seed']}" for row in found] == RUNS
    for row, name in zip(found, RUNS, strict=True):
        card = json.loads((whole / "runs" / name / "scorecard.json").read_text())
        for finding, one in card["findings"].items():
            assert float(row[f"auc_{finding}"]) == pytest.approx(one["auc"], abs=1e-6)
        assert float(row["mean_auc"]) == pytest.approx(card["mean_auc"], abs=1e-6)
        model = json.loads((whole / "runs" / name / "best" / "model.json").read_text())
        assert int(row["best_epoch"]) == model["provenance"]["epoch"]
        assert (row["epochs"], row["train_exams"]) == ("2", "8")
        rate = 2 * 8 / float(row["seconds"])
        assert float(row["exams_per_second"]) == pytest.approx(rate, rel=0.1, abs=0.01)


def test_arms_are_compared(whole: Path) -> None:
    """comparison.json, .txt and the plot have means over seeds and differences to the baseline."""
    found = json.loads((whole / "valid" / "comparison.json").read_text())
    assert (found["baseline"], found["seeds"], found["n_exams"]) == ("base", [0, 1], 8)
    assert list(found["counts"]) == ["abnormal", "acl", "meniscus"]
    for arm in found["arms"]:
        values = [float(row["mean_auc"]) for row in rows(whole) if row["arm"] == arm["name"]]
        assert arm["aucs"]["mean"]["seeds"] == pytest.approx(values, abs=1e-6)
        assert arm["aucs"]["mean"]["value"] == pytest.approx(np.mean(values), abs=1e-6)
    assert {one["arm"] for one in found["differences"]} == {"sgd"}
    table = (whole / "valid" / "comparison.txt").read_text()
    assert "baseline base" in table
    assert table in (whole / "log.txt").read_text()
    assert (whole / "valid" / "arms.svg").read_text().startswith("<?xml")


def test_a_killed_experiment_continues_with_the_same_results(
    plan: Path, data: Path, whole: Path, out: Path
) -> None:
    """After SIGKILL, finished runs are kept, the interrupted one continues; equal results."""
    run, words = out / "runs" / RUNS[1], ["experiment", str(plan), str(data), str(out)]
    others = {name: times(out / "runs" / name) for name in RUNS if name != RUNS[1]}
    for _ in range(3):  # once, unless the kill comes too late
        shutil.rmtree(run)
        process = start(mrknee, *words)
        until((run / "resume" / "last.ckpt").exists, process)
        process.kill()
        process.join()
        if not (run / "scorecard.json").exists():
            break
    left = out / "valid" / ".results.csv.123"  # what an earlier process was writing when killed
    left.write_text("half")
    assert main(words) == 0
    assert not left.exists()
    assert {name: times(out / "runs" / name) for name in others} == others
    starts = json.loads((run / "environment.json").read_text())
    assert [start["after"]["epochs"] for start in starts] in ([0, 1], [0, 2])
    assert contents(out) == contents(whole)
    assert all(float(row["seconds"]) > 0 for row in rows(out))


def test_processes_share_the_runs(
    plan: Path, data: Path, whole: Path, out: Path, tmp_path: Path
) -> None:
    """Each run is trained once; both processes wait for one that is owned by neither."""
    for file in out.iterdir():
        if file.name != "plan.json":
            file.unlink() if file.is_file() else shutil.rmtree(file)
    words = ["experiment", str(plan), str(data), str(out)]
    logs = [tmp_path / "0.txt", tmp_path / "1.txt"]
    with owned_folder(out / "runs" / RUNS[-1]):
        both = [start(mrknee, *words, stdout=log) for log in logs]
        until(lambda: all(f"train {RUNS[-1]}" in read(log) for log in logs), *both)
        assert not (out / "valid" / "comparison.txt").exists()
    for process in both:
        process.join()
        assert process.exitcode == 0
    assert contents(out) == contents(whole)
    for name in RUNS:
        assert len(re.findall(rf": {name}$", (out / "log.txt").read_text(), re.M)) == 1
        assert len(json.loads((out / "runs" / name / "environment.json").read_text())) == 1
    table = (out / "valid" / "comparison.txt").read_text()
    assert all(table in log.read_text() for log in logs)
    assert [float(row["seconds"]) > 0 for row in rows(out)] == [True] * 4


def test_a_run_of_a_killed_process_is_continued_by_another(
    plan: Path, data: Path, whole: Path, out: Path, tmp_path: Path
) -> None:
    """A process that waits for a run of another trains it when the other is killed."""
    run, words = out / "runs" / RUNS[1], ["experiment", str(plan), str(data), str(out)]
    log = tmp_path / "second.txt"
    shutil.rmtree(run)
    first = start(mrknee, *words)
    until((run / "resume" / "last.ckpt").exists, first)
    os.kill(first.pid or 0, signal.SIGSTOP)
    second = start(mrknee, *words, stdout=log)
    if not (run / "scorecard.json").exists():
        until(lambda: f"train {RUNS[1]}" in read(log), second)
    first.kill()
    first.join()
    second.join()
    assert second.exitcode == 0
    assert contents(out) == contents(whole)


def test_seeds_and_arms_can_be_added(out: Path, data: Path, tmp_path: Path) -> None:
    """Only the new run is trained; one removed from the plan is kept and not compared."""
    before = times(out / "runs")
    file = changed_plan(
        tmp_path,
        ("  sgd: {optimizer.name: sgd}\n", "  adam: {optimizer.name: adam}\n"),
        ("seeds: [0, 1]", "seeds: [1]"),
    )
    found = run_experiment(file, data, out)
    assert list(found.aucs) == ["base", "adam"]
    after = times(out / "runs")
    assert {name: after[name] for name in before} == before
    assert {name.split("/")[0] for name in after.keys() - before.keys()} == {"adam"}
    assert [row["arm"] for row in rows(out)] == ["base", "adam"]
    recorded = json.loads((out / "plan.json").read_text())
    assert list(recorded["arms"]) == ["base", "sgd", "adam"]
    assert recorded["seeds"] == [0, 1]


def test_a_plan_for_other_findings_and_exams_can_be_run_into_the_folder(
    data: Path, tmp_path: Path
) -> None:
    """The folder belongs to a data set, whatever a plan uses of it."""
    out = tmp_path / "out"
    settings = PLAN[: PLAN.index("arms:")]
    for arm in ("few: {findings: [acl], max_exams: 9}", "all: {findings: [meniscus]}"):
        file = tmp_path / "plan.yaml"
        file.write_text(f"{settings}arms:\n  {arm}\nseeds: [0]\nbaseline: {arm[:3]}\n")
        run_experiment(file, data, out)
    assert sorted(folder.name for folder in (out / "runs").iterdir()) == ["all", "few"]


def refused(plan: Path, data: Path, out: Path, **options: Path | str) -> MrkneeError:
    """Returns the error; the folder must be unchanged."""
    before = times(out)
    with pytest.raises(MrkneeError) as raised:
        run_experiment(plan, data, out, **options)  # type: ignore[arg-type]
    assert times(out) == before
    return raised.value


@pytest.mark.parametrize(
    ("old", "new", "expected", "found"),
    [
        ("optimizer.name: sgd", "optimizer.name: adam", "optimizer.name=sgd", "=adam"),
        ("sgd: {", "sgd: {epochs: 3, ", "epochs=2", "epochs=3"),
    ],
)
def test_a_changed_arm_is_refused_by_name(
    old: str, new: str, expected: str, found: str, out: Path, data: Path, tmp_path: Path
) -> None:
    """The error names the arm and the setting that differs from its finished runs."""
    error = refused(changed_plan(tmp_path, (old, new)), data, out)
    assert isinstance(error, SettingsError)
    assert error.code == "other-settings"
    assert "the arm sgd" in str(error)
    assert expected in str(error.expected)
    assert found in str(error.found)


def test_another_seed_offset_is_refused(data: Path, tmp_path: Path) -> None:
    """Runs of an arm with another offset were trained with other seeds."""
    changes = ("seeds: [0, 1]", "seeds: [0]"), ("epochs: 2", "epochs: 1")
    arms = "  sgd: {optimizer.name: sgd}\n", "  again: {seed_offset: 10}\n"
    out = tmp_path / "out"
    run_experiment(changed_plan(tmp_path, *changes, arms), data, out)
    assert "\nseed: 10\n" in (out / "runs" / "again" / "seed0" / "settings.yaml").read_text()
    error = refused(
        changed_plan(tmp_path, *changes, (arms[0], arms[1].replace("10", "99"))), data, out
    )
    assert (error.code, error.expected, error.found) == (
        "other-settings",
        "seed_offset=10",
        "seed_offset=99",
    )


def test_a_recipe_file_that_changes_meanwhile_has_no_effect(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All runs have the settings that were read at the start."""
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("network: {encoder: test_byobnet}\nweights: none\n")
    file = changed_plan(
        tmp_path, ("recipe: small", "recipe: mine.yaml"), ("epochs: 2", "epochs: 1")
    )

    def train(data: Path, run: Path, recipe_read: Recipe) -> str:
        recipe.write_text("network: {encoder: test_resnet}\nweights: none\n")
        return train_or_resume(data, run, recipe_read)

    monkeypatch.setattr(experiment, "train_or_resume", train)
    run_experiment(file, data, tmp_path / "out")
    for settings in (tmp_path / "out" / "runs").rglob("settings.yaml"):
        assert "encoder: test_byobnet" in settings.read_text()


def test_seconds_of_a_run_that_is_trained_anew_are_its_own(
    plan: Path, out: Path, data: Path
) -> None:
    """Those of the deleted run folder don't count."""
    file = out / "times.json"
    known = json.loads(file.read_text())
    known["base/seed0"]["seconds"] = 1e6
    file.write_text(json.dumps(known))
    shutil.rmtree(out / "runs" / "base" / "seed0")
    run_experiment(plan, data, out)
    assert 0 < json.loads(file.read_text())["base/seed0"]["seconds"] < 1e6


def test_data_with_canonical_sides_are_not_mirrored(data: Path, tmp_path: Path) -> None:
    """Recipes of the package draw no mirrored exams, as in `mrknee train`."""
    copy = tmp_path / "sides"
    shutil.copytree(data, copy)
    ids = [name for split in ("train", "valid") for name in open_dataset(copy, split).ids]
    rows_of_sides = "".join(f"{name},left,0\n" for name in ids)
    (copy / "sides.csv").write_text(f"exam,side,mirrored\n{rows_of_sides}")
    file = changed_plan(tmp_path, ("seeds: [0, 1]", "seeds: [0]"), ("epochs: 2", "epochs: 1"))
    run_experiment(file, copy, tmp_path / "out")
    settings = (tmp_path / "out" / "runs" / "base" / "seed0" / "settings.yaml").read_text()
    assert "mirror: 0.0" in settings


def test_arms_of_single_series_need_no_others(data: Path, tmp_path: Path) -> None:
    """Exams that lack a series which no arm reads are trained on and scored.

    The folder belongs to all series: another baseline isn't another data set.
    """
    copy = tmp_path / "axial"
    shutil.copytree(data, copy)
    shutil.rmtree(copy / "valid" / "coronal")
    out, short = tmp_path / "out", (("seeds: [0, 1]", "seeds: [0]"), ("epochs: 2", "epochs: 1"))
    arms = (
        "  base: {}\n  sgd: {optimizer.name: sgd}\n",
        "  base: {series: [axial]}\n  two: {series: [axial, sagittal]}\n",
    )
    run_experiment(changed_plan(tmp_path, *short, arms), copy, out)
    found = {row["arm"]: row["mean_auc"] for row in rows(out)}
    assert list(found) == ["base", "two"]
    assert all(found.values())
    run_experiment(
        changed_plan(tmp_path, *short, arms, ("baseline: base", "baseline: two")), copy, out
    )


def test_soft_labels_are_scored_as_in_training(data: Path, tmp_path: Path) -> None:
    """Labels of at least 0.5 count as present, for all arms."""
    copy = tmp_path / "soft"
    shutil.copytree(data, copy)
    for file in copy.glob("*-acl.csv"):
        text = file.read_text().replace(",1\n", ",0.9\n").replace(",0\n", ",0.2\n")
        file.write_text(text)
    file = changed_plan(
        tmp_path,
        ("seeds: [0, 1]", "seeds: [0]"),
        ("epochs: 2", "epochs: 1"),
        ("  loggers: none", "  loggers: none\n  soft_labels: true"),
    )
    run_experiment(file, copy, tmp_path / "out")
    card = json.loads((tmp_path / "out" / "runs" / "base" / "seed0" / "scorecard.json").read_text())
    assert float(rows(tmp_path / "out")[0]["auc_acl"]) == pytest.approx(
        card["findings"]["acl"]["auc"], abs=1e-6
    )


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("  single: {findings: [acl]}\n", "no labels for the arm single"),
        ("within: acl\n", "nothing can be scored within acl"),
        ("within: acll\n", "nothing can be scored within acll"),
    ],
)
def test_labels_that_the_comparison_needs_are_checked_first(
    line: str, part: str, data: Path, tmp_path: Path
) -> None:
    """Nothing is trained for days if an arm, or `within`, can't be scored at the end."""
    copy = tmp_path / "unlabelled"
    shutil.copytree(data, copy)
    (copy / "valid-acl.csv").write_text(
        "".join(f"{name},\n" for name in open_dataset(copy, "valid").ids)
    )
    place = "arms:\n" if line.startswith(" ") else "seeds:"
    after = place + line if line.startswith(" ") else line + place
    error = refused(changed_plan(tmp_path, (place, after)), copy, tmp_path / "out")
    assert part in str(error)
    assert not (tmp_path / "out" / "runs").exists()


def test_a_damaged_plan_file_is_one_error(plan: Path, out: Path, data: Path) -> None:
    """It is of our own type, and names the file."""
    (out / "plan.json").write_text("[]")
    error = refused(plan, data, out)
    assert isinstance(error, DataError)
    assert error.file == str(out / "plan.json")


def test_settings_without_effect_may_change(out: Path, data: Path, tmp_path: Path) -> None:
    """Other numbers of reading processes or of log lines don't repeat finished runs."""
    before = times(out / "runs")
    file = changed_plan(tmp_path, ("  loggers: none", "  loggers: none\n  log_train: 5"))
    run_experiment(file, data, out)
    assert times(out / "runs") == before


def test_other_data_and_folders_are_refused(
    plan: Path, out: Path, data: Path, tmp_path: Path
) -> None:
    """Changed pixels, a missing split, and a folder with other files are refused."""
    other = Path(shutil.copytree(data, tmp_path / "data"))
    file = other / "train" / "axial" / "0003.npy"
    np.save(file, np.load(file) // 2)
    error = refused(plan, other, out)
    assert isinstance(error, DataError)
    assert error.code == "other-exams"
    assert "train/0003 (axial)" in str(error.found)
    assert isinstance(refused(plan, data, out, split="test"), DataError)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    assert isinstance(refused(plan, data, mine), OutputError)


def test_other_exams_are_predicted(plan: Path, out: Path, data: Path, tmp_path: Path) -> None:
    """`--test-data` trains nothing; its results have a separate folder and are kept."""
    test = toy(tmp_path / "far" / "test", 4, 10, seed=3)
    before = times(out / "runs")
    words = ["experiment", str(plan), str(data), str(out), "--test-data", str(test)]
    assert main(words) == 0
    assert times(out / "runs") == before
    folder = out / "test-valid"
    first = times(folder / "predictions")
    assert list(first) == sorted(f"{name}.csv" for name in RUNS)
    assert len(Predictions.read(folder / "predictions" / f"{RUNS[0]}.csv")) == 10
    assert json.loads((folder / "comparison.json").read_text())["split"] == "test-valid"
    assert main(words) == 0
    assert times(folder / "predictions") == first
    file = test / "valid" / "axial" / "0004.npy"
    np.save(file, np.load(file) // 2)
    with pytest.raises(DataError, match="another data set"):
        run_experiment(plan, data, out, test_data=test)


def test_a_failed_training_does_not_stop_the_others(out: Path, data: Path, tmp_path: Path) -> None:
    """Complete arms are compared; the error is raised at the end and names the run."""
    file = changed_plan(
        tmp_path,
        ("arms:\n", "arms:\n  lost: {weights: none.pth}\n"),
        ("seeds: [0, 1]", "seeds: [0]"),
    )
    with pytest.raises(MrkneeError, match="lost/seed0: ") as raised:
        run_experiment(file, data, out)
    assert "none.pth" in str(raised.value)
    assert [row["arm"] for row in rows(out)] == ["base", "sgd"]
    table = (out / "valid" / "comparison.txt").read_text()
    assert "note: left out, because a training failed: lost" in table


def test_folds_of_a_cross_validation(data: Path, tmp_path: Path) -> None:
    """With several data sets, one run per arm, seed and fold; AUCs are averaged over folds."""
    other = toy(tmp_path / "more", seed=5)
    file = changed_plan(
        tmp_path,
        ("  sgd: {optimizer.name: sgd}\n", ""),
        ("[0, 1]", "[0]"),
        ("epochs: 2", "epochs: 1"),
    )
    out = tmp_path / "out"
    assert main(["experiment", str(file), f"{data},{other}", str(out)]) == 0
    found = rows(out)
    assert [(row["fold"], row["seed"]) for row in found] == [("0", "0"), ("1", "0")]
    assert (out / "runs" / "base" / "more" / "seed0" / "scorecard.json").is_file()
    content = json.loads((out / "valid" / "comparison.json").read_text())
    assert content["n_exams"] == 16
    mean = content["arms"][0]["aucs"]["acl"]["value"]
    assert mean == pytest.approx(np.mean([float(row["auc_acl"]) for row in found]), abs=1e-6)
    assert "2 folds" in content["notes"][0]
    error = refused(file, data, out)
    assert isinstance(error, SettingsError)
    assert error.code == "other-settings"


COMBINED = """\
recipe: small
settings:
  epochs: 2
  max_exams: 11
  preparation: {size: 32, crop: 32}
  selection.fraction: 0.34
  network.shared_encoder: true
  precision: 32-true
  loggers: none
arms:
  joint: {}
  again: {seed_offset: 50}
  abnormal: {findings: [abnormal]}
  acl: {findings: [acl]}
  meniscus: {findings: [meniscus]}
combined:
  singles: [abnormal, acl, meniscus]
  ensemble: [joint, again]
compare: [singles, joint, ensemble]
seeds: [0]
baseline: singles
margin: 0.01
"""


@pytest.fixture(scope="module")
def combined(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment with combined arms."""
    folder = tmp_path_factory.mktemp("combined")
    (folder / "plan.yaml").write_text(COMBINED)
    run_experiment(folder / "plan.yaml", data, folder / "out")
    return folder


def test_combined_arms_are_compared_as_one(combined: Path) -> None:
    """Each finding's AUC is that of its network; the parts are trained and not compared."""
    out = combined / "out"
    found = json.loads((out / "valid" / "comparison.json").read_text())
    assert [arm["name"] for arm in found["arms"]] == ["singles", "joint", "ensemble"]
    each = {row["arm"]: row for row in rows(out)}
    assert list(each) == ["joint", "again", "abnormal", "acl", "meniscus"]
    for finding in ("abnormal", "acl", "meniscus"):
        value = float(each[finding][f"auc_{finding}"])
        assert found["arms"][0]["aucs"][finding]["value"] == pytest.approx(value, abs=1e-6)
    assert {one["arm"] for one in found["differences"]} == {"joint", "ensemble"}
    with (out / "valid" / "calibration.csv").open(newline="") as lines:
        calibration = {(row["arm"], row["finding"]): row for row in csv.DictReader(lines)}
    assert list(calibration) == [
        (arm, finding)
        for arm in ("singles", "joint", "ensemble")
        for finding in ("abnormal", "acl", "meniscus")
    ]
    card = json.loads((out / "runs" / "acl" / "seed0" / "scorecard.json").read_text())
    value = card["findings"]["acl"]["brier"]["value"]
    assert float(calibration["singles", "acl"]["brier"]) == pytest.approx(value, abs=1e-4)
    assert (out / "valid" / "differences.svg").read_text().startswith("<?xml")


def test_networks_of_one_finding_have_the_exams_of_the_joint_one(combined: Path) -> None:
    """`max_exams` and the inner split don't depend on the findings; another seed draws others."""
    runs = combined / "out" / "runs"
    splits = {
        folder.name: (folder / "seed0" / "split.csv").read_text() for folder in runs.iterdir()
    }
    for finding in ("abnormal", "acl", "meniscus"):
        assert splits[finding] == splits["joint"]
    assert splits["again"] != splits["joint"]
    assert "\nseed: 50\n" in (runs / "again" / "seed0" / "settings.yaml").read_text()


def test_costs_are_sums_over_the_networks(combined: Path) -> None:
    """costs.csv has one row per compared arm: parameters, storage, and seconds of training."""
    out = combined / "out"
    with (out / "valid" / "costs.csv").open(newline="") as lines:
        costs = {row["arm"]: row for row in csv.DictReader(lines)}
    assert [row["networks"] for row in costs.values()] == ["3", "1", "2"]
    single = load_checkpoint(out / "runs" / "acl" / "seed0" / "best").network
    numbers = sum(one.numel() for one in single.parameters())
    assert costs["singles"]["parameters"] == str(3 * numbers)
    seconds = {row["arm"]: float(row["seconds"]) for row in rows(out)}
    total = sum(seconds[one] for one in ("abnormal", "acl", "meniscus"))
    assert float(costs["singles"]["seconds"]) == pytest.approx(total, abs=0.2)
    for row in rows(out):
        metrics = RunFolder(out / "runs" / row["arm"] / "seed0").read_metrics()
        aucs = [one["val/auc_mean"] for one in metrics]
        assert int(row["epoch_95"]) == (1 if aucs[0] >= 0.95 * aucs[1] else 2)


def test_the_last_epoch_can_be_compared(combined: Path, data: Path) -> None:
    """`--epoch last` predicts with the last weights, without training, into its own folder."""
    out = combined / "out"
    before = times(out / "runs")
    words = ["experiment", str(combined / "plan.yaml"), str(data), str(out), "--epoch", "last"]
    assert main(words) == 0
    assert times(out / "runs") == before
    file = out / "valid-last" / "predictions" / "joint" / "seed0.csv"
    model = load_model(out / "runs" / "joint" / "seed0" / "last")
    expected = model.predict(open_dataset(data, "valid")).probabilities
    np.testing.assert_allclose(Predictions.read(file).probabilities, expected, atol=1e-6)
    found = json.loads((out / "valid-last" / "comparison.json").read_text())
    assert found["split"] == "valid-last"


def test_a_combined_arm_needs_all_its_parts(combined: Path, data: Path, tmp_path: Path) -> None:
    """If the training of a part fails, the combined arm is left out and named."""
    out = Path(shutil.copytree(combined / "out", tmp_path / "out"))
    file = tmp_path / "plan.yaml"
    file.write_text(
        COMBINED.replace("arms:\n", "arms:\n  lost: {weights: none.pth}\n", 1)
        .replace("[joint, again]", "[joint, lost]")
        .replace("  again: {seed_offset: 50}\n", "")
    )
    with pytest.raises(MrkneeError, match="lost/seed0: "):
        run_experiment(file, data, out)
    table = (out / "valid" / "comparison.txt").read_text()
    assert "note: left out, because a training failed: ensemble" in table
    assert "singles" in table
