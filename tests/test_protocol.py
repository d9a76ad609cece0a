"""The nested protocol: smoke runs, one of them killed and continued; the full protocol; errors.

The steps of the full protocol, and interruptions at each of them, are tested with stand-ins for
training, evaluation and comparison, because fifteen trainings would take too long.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mrknee import protocol, several_runs
from mrknee.checks.facts import Checkup
from mrknee.cli import main
from mrknee.errors import DataError, MrkneeError, OutputError, SettingsError
from mrknee.exams import PLANES, open_dataset, write_labels, write_stack
from mrknee.files import owned_folder
from mrknee.inference.model import load_model
from mrknee.library import check_dataset
from mrknee.metrics.combination import fit_combination
from mrknee.metrics.predictions import Predictions
from mrknee.protocol import run_protocol
from mrknee.sources.phantom.cohort import KINDS
from mrknee.sources.phantom.exam import FINDINGS, render_exam
from mrknee.training.recipe import Recipe, load_recipe
from mrknee.training.run import train
from tests.conftest import write_toy_dataset
from tests.processes import mrknee, start, until
from tests.training.test_run import QUICK

pytestmark = pytest.mark.slow

COUNTS = {"train": 10, "valid": 5}
NAMES = ("reference", "default", *FINDINGS)


def write_phantom(root: Path, counts: dict[str, int] = COUNTS) -> Path:
    """Writes a phantom with MRNet's layout, findings and ids, but few exams, pixels and slices.

    One knee of each kind is rendered. An exam contains every tenth slice of one of them, with noise
    added, so that no exam is a copy of another.
    """
    rng = np.random.default_rng(0)
    knees = [render_exam(0, truth, size=32) for truth in KINDS]
    number = 0
    for split, count in counts.items():
        labels: dict[str, dict[str, float]] = {finding: {} for finding in FINDINGS}
        for kind in np.arange(count) % len(KINDS):
            exam_id = f"{number:04d}"
            number += 1
            for plane in PLANES:
                stack = knees[kind].stacks[plane][::10]
                noise = rng.integers(0, 3, stack.shape, dtype=np.uint8)
                write_stack(root / split, plane, exam_id, np.minimum(stack, 250) + noise)
            for finding in FINDINGS:
                labels[finding][exam_id] = float(getattr(KINDS[kind], finding))
        for finding in FINDINGS:
            write_labels(root, split, finding, labels[finding])
    return root


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set of these tests; tests that change it use a copy (`data`)."""
    return write_phantom(tmp_path_factory.mktemp("phantom") / "MRNet-v1.0")


@pytest.fixture
def data(phantom: Path, tmp_path: Path) -> Path:
    """A copy of the data set."""
    return Path(shutil.copytree(phantom, tmp_path / "data"))


@pytest.fixture(scope="module")
def uninterrupted(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of an uninterrupted smoke protocol."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert main(["protocol", str(phantom), str(out), "--smoke"]) == 0
    return out


def results(out: Path) -> dict[str, bytes]:
    """Returns the contents of all files except logs, resumable states and records with times."""
    ignored = {"log.txt", "environment.json", "data.json", "resume", "tensorboard"}
    return {
        str(file.relative_to(out)): file.read_bytes()
        for file in sorted(out.rglob("*"))
        if file.is_file() and not ignored.intersection(file.parts)
    }


def file_states(out: Path) -> dict[str, tuple[int, int]]:
    """Returns inode and modification time of every file; they change if it is written again."""
    return {
        str(file.relative_to(out)): (file.stat().st_ino, file.stat().st_mtime_ns)
        for file in sorted(out.rglob("*"))
        if file.is_file()
    }


def test_the_smoke_protocol_trains_evaluates_and_compares(uninterrupted: Path) -> None:
    """It trains five networks, and writes their reports, a joint report and a comparison."""
    for name in NAMES:
        run = uninterrupted / name / "seed0"
        settings = (run / "settings.yaml").read_text()
        assert "part: inner" in settings
        assert "keep_every_epoch: false" in settings
        assert (run / "split.csv").read_text().count(",inner\n") == 2  # 15 % of 10
        assert len((run / "metrics.csv").read_text().splitlines()) == 1 + 2  # epochs
        card = json.loads((run / "scorecard.json").read_text())
        assert (card["split"], card["n_exams"]) == ("valid", COUNTS["valid"])
        assert list(card["findings"]) == ([name] if name in FINDINGS else list(FINDINGS))
        assert not [note for note in card["notes"] if "optimistic" in note]
        assert "<html" in (run / "report" / "report.html").read_text()
    splits = {(uninterrupted / name / "seed0" / "split.csv").read_text() for name in NAMES}
    assert len(splits) == 1, "networks that are compared are trained on the same exams"
    systems = uninterrupted / "comparison" / "systems"
    found = json.loads((systems / "comparison.json").read_text())
    assert [one["name"] for one in found["models"]] == ["reference", "singles", "default"]
    assert [list(one["findings"]) for one in found["models"]] == [list(FINDINGS)] * 3
    assert not (uninterrupted / "comparison" / "seeds-reference").exists()
    page = (uninterrupted / "report" / "report.html").read_text()
    assert "Scored: reference/seed0" in page
    assert "abnormal + acl + meniscus" in page
    assert str(uninterrupted) not in page
    log = (uninterrupted / "log.txt").read_text()
    assert "step 12 of 12" in log
    assert (systems / "comparison.txt").read_text() in log
    assert json.loads((uninterrupted / "check.json").read_text())["errors"] == 0


def test_killed_protocol_continues_with_the_same_results(
    phantom: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    """After SIGKILL while a network is trained again, the results are those without a kill.

    Only files that depend on that network are written again: its report, the report of `reference`,
    which is compared with the single-finding networks, the joint report and the comparison.
    """
    out = Path(shutil.copytree(uninterrupted, tmp_path / "out"))
    for file in out.rglob("*"):  # so that files written later differ in time
        os.utime(file, (0, 0))
    shutil.rmtree(out / "acl" / "seed0")
    before = file_states(out)
    run, words = out / "acl" / "seed0", ["protocol", str(phantom), str(out), "--smoke"]
    for _ in range(3):  # once, unless the kill comes too late
        process = start(mrknee, *words)
        until((run / "resume" / "last.ckpt").exists, process)
        process.kill()
        process.join()
        if not (run / "scorecard.json").exists():
            break
        shutil.rmtree(run)
    assert main(words) == 0
    starts = json.loads((run / "environment.json").read_text())
    assert [start["after"]["epochs"] for start in starts] == [0, 1]
    new = {name for name, state in file_states(out).items() if before.get(name) != state}
    assert {str(Path(name).parent) for name in new if name.endswith("report.html")} == {
        "reference/seed0/report",
        "acl/seed0/report",
        "report",
    }
    assert "comparison/systems/comparison.txt" in new
    weights = {name for name in new if name.endswith(".safetensors")}
    assert weights == {f"acl/seed0/{name}/weights.safetensors" for name in ("best", "last")}
    assert results(out) == results(uninterrupted)


# --- without training


class StandIn:
    """Records calls of train, evaluate and compare, and writes the files that later steps read.

    Attributes:
        calls: function, folder and arguments, in order.
        stop: whether each call raises KeyboardInterrupt the first time, alternately before and
            after writing.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, Path, Any]] = []
        self.stop = False
        self._stopped: set[Path] = set()
        patch.setattr(several_runs, "train_owned", self.train)
        for command in ("evaluate", "compare"):
            patch.setattr(protocol, command, getattr(self, command))

    def _write(self, file: Path, text: str) -> None:
        first, before = self.stop and file not in self._stopped, len(self._stopped) % 2 == 0
        self._stopped.add(file)
        if first and before:
            raise KeyboardInterrupt
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        if first:
            raise KeyboardInterrupt

    def train(self, _data: Path, out: Path, recipe: Recipe) -> None:
        """Writes equal probabilities for all exams, unless the file exists."""
        file = out / "predictions-valid.csv"
        if not file.exists():
            self.calls.append(("train", out, recipe))
            findings = recipe.findings or FINDINGS
            rows = [f"{i:04d}" + ",0.5" * len(findings) for i in range(10, 15)]
            self._write(file, "\n".join([",".join(["exam", *findings]), *rows]) + "\n")

    def evaluate(
        self,
        table: Predictions,
        _data: Path,
        out: Path,
        *,
        model: Path | None,
        against: Predictions | None,
    ) -> StandIn:
        """Writes a report that names its tables."""
        sources = table.source, None if against is None else against.source
        self.calls.append(("evaluate", out, (*sources, model)))
        self._write(out / "report.html", str(sources))
        return self

    def compare(
        self,
        first: Predictions,
        second: Predictions,
        _data: Path,
        *,
        others: list[Predictions],
        names: list[str],
        out: Path,
    ) -> StandIn:
        """Writes a comparison that names its tables."""
        sources = [one.source for one in (first, second, *others)]
        self.calls.append(("compare", out, dict(zip(names, sources, strict=True))))
        self._write(out / "comparison.json", str(sources))
        return self

    def table(self) -> str:
        """Returns a text in place of the table of a scorecard or comparison."""
        return "a table"


@pytest.fixture(scope="module")
def checkup(phantom: Path) -> Checkup:
    """The check of the data set, which finds no error."""
    return check_dataset(phantom)


@pytest.fixture
def unchecked_stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Replaces training, evaluation and comparison."""
    return StandIn(monkeypatch)


@pytest.fixture
def stand_in(
    unchecked_stand_in: StandIn, checkup: Checkup, monkeypatch: pytest.MonkeyPatch
) -> StandIn:
    """Replaces also the check of the data by that of the unchanged data, to save time."""
    monkeypatch.setattr(protocol, "check_dataset", lambda _: checkup)
    return unchecked_stand_in


def test_the_full_protocol_trains_and_compares_every_seed(
    stand_in: StandIn, phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The steps are 15 trainings, 16 reports and 4 comparisons, as documented."""
    out = tmp_path / "out"
    run_protocol(phantom, out)
    seeds, nested = (0, 1, 2), {"selection.part": "inner", "keep_every_epoch": False}

    def runs(names: tuple[str, ...], seeds: tuple[int, ...]) -> str:
        return ",".join(f"{name}/seed{seed}" for seed in seeds for name in names)

    assert [call for call in stand_in.calls if call[0] == "train"] == [
        (
            "train",
            out / f"{name}/seed{seed}",
            load_recipe(
                "default" if name == "default" else "reference",
                {**nested, "seed": seed} | ({"findings": [name]} if name in FINDINGS else {}),
            ),
        )
        for seed in seeds
        for name in NAMES
    ]
    pages: list[tuple[str, Path, Any]] = [
        (
            "evaluate",
            out / f"{name}/seed{seed}/report",
            (
                f"{name}/seed{seed}",
                runs(FINDINGS, (seed,)) if name == "reference" else None,
                out / f"{name}/seed{seed}",
            ),
        )
        for seed in seeds
        for name in NAMES
    ]
    systems = {
        "reference": runs(("reference",), seeds),
        "singles": runs(FINDINGS, seeds),
        "default": runs(("default",), seeds),
    }
    pages += [("evaluate", out / "report", (systems["reference"], systems["singles"], None))]
    assert [call for call in stand_in.calls if call[0] == "evaluate"] == pages
    assert [call for call in stand_in.calls if call[0] == "compare"] == [
        ("compare", out / "comparison/systems", systems),
        *(
            (
                "compare",
                out / f"comparison/seeds-{title}",
                {f"{title}, seed {seed}": runs(names, (seed,)) for seed in seeds},
            )
            for title, names in (
                ("reference", ("reference",)),
                ("singles", FINDINGS),
                ("default", ("default",)),
            )
        ),
    ]
    assert "step 35 of 35" in capsys.readouterr().out


def test_named_systems_are_trained_and_compared(
    stand_in: StandIn, phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each system all networks are trained, those of one are combined, others are compared.

    The folder can't be continued with other systems.
    """
    combined: list[tuple[Path, dict[str, list[Path]]]] = []

    def combine(_: Path, folder: Path, runs: dict[str, list[Path]]) -> str:
        combined.append((folder, runs))
        folder.mkdir(parents=True)
        rows = "".join(f"{i:04d},0.5,0.5,0.5\n" for i in range(10, 15))
        (folder / "predictions-valid.csv").write_text("exam,abnormal,acl,meniscus\n" + rows)
        return "combined"

    monkeypatch.setattr(protocol, "_combine", combine)
    out, systems = tmp_path / "out", ["bien2018", "reference", "elnet", "slice-transformer"]
    run_protocol(phantom, out, systems=systems, smoke=True)
    trained = {call[1].parent.name: call[2] for call in stand_in.calls if call[0] == "train"}
    nine = [f"bien2018-{plane}-{finding}" for plane in PLANES for finding in FINDINGS]
    elnets = [f"elnet-{finding}" for finding in FINDINGS]
    assert list(trained) == ["reference", *nine, *elnets, "slice-transformer"]
    assert list(trained["bien2018-coronal-acl"].series) == ["coronal"]
    assert list(trained["bien2018-coronal-acl"].findings) == ["acl"]
    expected = {
        finding: [out / f"bien2018-{plane}-{finding}" / "seed0" for plane in PLANES]
        for finding in FINDINGS
    }
    assert combined == [(out / "bien2018/seed0", expected)]
    (comparison,) = [call[2] for call in stand_in.calls if call[0] == "compare"]
    assert list(comparison) == systems
    assert comparison["bien2018"] == "bien2018/seed0"
    models = {call[1]: call[2][2] for call in stand_in.calls if call[0] == "evaluate"}
    assert models[out / "report"] is None  # a combined system has no model
    assert comparison["elnet"] == ",".join(f"{name}/seed0" for name in elnets)
    assert error_of(phantom, out).code == "other-settings"


@pytest.mark.parametrize("systems", [[], ["reference"], ["reference", "best"], ["elnet"] * 2])
def test_unknown_systems_are_refused(systems: list[str], tmp_path: Path) -> None:
    """The message lists all systems, and nothing is written."""
    with pytest.raises(SettingsError, match="can't be compared") as caught:
        run_protocol(tmp_path / "data", tmp_path / "out", systems=systems)
    assert "slice-transformer" in (caught.value.expected or "")
    assert not list(tmp_path.iterdir())


def test_the_settings_of_all_systems_are_valid() -> None:
    """Each network's changes, also with those of the smoke protocol, give a recipe."""
    for name, (recipe, changes) in protocol.SYSTEMS.items():
        for settings in ({}, protocol.SMOKE):
            made = load_recipe(recipe, {**settings, **changes})
            assert made.findings == changes.get("findings"), name


def test_networks_are_combined_by_a_regression_on_their_training_exams(tmp_path: Path) -> None:
    """The weights are those fitted on the exams of `train` in the split; valid is predicted."""
    data = write_toy_dataset(tmp_path / "toy", findings=["acl"])
    runs = [tmp_path / plane for plane in PLANES[:2]]
    for plane, run in zip(PLANES, runs, strict=False):
        train(data, run, QUICK.replace(series=[str(plane)], epochs=1, calibration="none"))
    protocol._combine(data, tmp_path / "both", {"acl": runs})
    (made,) = json.loads((tmp_path / "both" / "combination.json").read_text())
    split = (runs[0] / "split.csv").read_text()
    trained_on = [line.split(",")[0] for line in split.splitlines() if line.endswith(",train")]
    assert made["exams"] == len(trained_on) == 8
    exams = open_dataset(data, "train")
    tables = [load_model(run).predict([exams[i] for i in trained_on]) for run in runs]
    labels = np.array([exams[i].labels["acl"] for i in trained_on])
    expected = fit_combination("acl", tables, labels)
    np.testing.assert_allclose(made["weights"], expected.weights, atol=1e-4)
    found = Predictions.read(tmp_path / "both" / "predictions-valid.csv")
    valid = [Predictions.read(run / "predictions-valid.csv") for run in runs]
    np.testing.assert_allclose(found["acl"], expected.apply(valid)["acl"], atol=1e-4)
    state = file_states(tmp_path / "both")
    assert protocol._combine(data, tmp_path / "both", {"acl": runs}) == "up to date"
    assert file_states(tmp_path / "both") == state


def test_protocol_interrupted_at_every_step_has_the_same_results(
    stand_in: StandIn, phantom: Path, tmp_path: Path
) -> None:
    """Interruptions before or after each write don't change the final files."""
    run_protocol(phantom, tmp_path / "whole", smoke=True)
    steps = len(stand_in.calls)
    stand_in.stop = True
    stops = 0
    while True:
        try:
            run_protocol(phantom, tmp_path / "out", smoke=True)
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops == steps
    assert results(tmp_path / "out") == results(tmp_path / "whole")


def error_of(data: Path, out: Path, *, smoke: bool = True) -> MrkneeError:
    """Returns the error; the folder must be unchanged."""
    before = file_states(out)
    with pytest.raises(MrkneeError) as raised:
        run_protocol(data, out, smoke=smoke)
    assert file_states(out) == before
    return raised.value


def test_output_folder_of_the_other_protocol_is_rejected(
    stand_in: StandIn, phantom: Path, tmp_path: Path
) -> None:
    """The full protocol can't continue a smoke protocol, nor the reverse; nothing is changed."""
    for smoke in (True, False):
        out = tmp_path / f"out-{smoke}"
        run_protocol(phantom, out, smoke=smoke)
        error = error_of(phantom, out, smoke=not smoke)
        assert isinstance(error, SettingsError)
        assert error.code == "other-settings"
        assert str(out) in str(error)
    assert stand_in.calls


def change_labels(data: Path) -> str:
    """Swaps the labels of two exams of valid, so that all counts stay equal."""
    file = data / "valid-acl.csv"
    lines = [line.split(",") for line in file.read_text().splitlines()]
    first = next(line for line in lines if float(line[1]) == 0)
    second = next(line for line in lines if float(line[1]) == 1)
    first[1], second[1] = second[1], first[1]
    file.write_text("\n".join(map(",".join, lines)) + "\n")
    return "other labels in 2 exams: valid/0010 (acl)"


def change_pixels(data: Path) -> str:
    """Changes the pixels of one stack."""
    file = data / "train" / "coronal" / "0003.npy"
    np.save(file, np.load(file) // 2)
    return "other pixels in 1 exam: train/0003 (coronal)"


def add_exam(data: Path) -> str:
    """Adds a validation exam with its labels."""
    for plane in PLANES:
        stack = np.load(data / "valid" / plane / "0011.npy")
        np.save(data / "valid" / plane / "0099.npy", stack // 2)
    for finding in FINDINGS:
        with (data / f"valid-{finding}.csv").open("a") as file:
            file.write("0099,0\n")
    return "16 exams, not the 15 of the first start"


@pytest.mark.parametrize("change", [change_labels, change_pixels, add_exam])
def test_changed_data_are_rejected(
    change: Callable[[Path], str], stand_in: StandIn, data: Path, tmp_path: Path
) -> None:
    """If the data differ from the first start, the error states how, and nothing is changed."""
    run_protocol(data, tmp_path / "out", smoke=True)
    found = change(data)
    error = error_of(data, tmp_path / "out")
    assert isinstance(error, DataError)
    assert error.code == "other-exams"
    assert found in str(error.found)
    assert stand_in.calls


def test_moved_data_are_accepted(stand_in: StandIn, data: Path, tmp_path: Path) -> None:
    """A copy with another name and other times is the same data set: nothing is repeated."""
    run_protocol(data, tmp_path / "out", smoke=True)
    moved = shutil.copytree(data, tmp_path / "moved", copy_function=shutil.copyfile)
    stand_in.calls.clear()
    run_protocol(moved, tmp_path / "out", smoke=True)
    assert not stand_in.calls


@pytest.mark.usefixtures("stand_in")
def test_folder_with_other_files_is_rejected(phantom: Path, tmp_path: Path) -> None:
    """Other files are kept and rejected; a temporary file of a killed process is not."""
    out = tmp_path / "out"
    out.mkdir()
    (out / ".protocol.json.123").write_text("{")
    (out / "notes.txt").write_text("mine")
    with pytest.raises(OutputError) as raised:
        run_protocol(phantom, out, smoke=True)
    assert raised.value.code == "not-empty"
    assert "notes.txt" in str(raised.value.found)
    (out / "notes.txt").unlink()
    run_protocol(phantom, out, smoke=True)


@pytest.mark.usefixtures("unchecked_stand_in")
def test_data_with_errors_are_rejected_before_writing(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unreadable stack is listed as by `mrknee check`; no output folder is created."""
    (data / "train" / "axial" / "0003.npy").write_bytes(b"no stack")
    assert main(["protocol", str(data), str(tmp_path / "out"), "--smoke"]) == 1
    printed = capsys.readouterr()
    assert "0003.npy" in printed.out
    assert "the data set has errors" in printed.err
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("unchecked_stand_in")
@pytest.mark.parametrize("missing", [["train-acl.csv"], ["valid-acl.csv", "train-acl.csv"]])
def test_missing_label_file_can_be_added(missing: list[str], data: Path, tmp_path: Path) -> None:
    """A missing label file is an error without output; with the file, the same call works."""
    texts = {name: (data / name).read_text() for name in missing}
    for name in missing:
        (data / name).unlink()
    with pytest.raises(DataError) as raised:
        run_protocol(data, tmp_path / "out", smoke=True)
    assert raised.value.code in ("no-labels", "faulty-data")
    assert not (tmp_path / "out").exists()
    for name, text in texts.items():
        (data / name).write_text(text)
    run_protocol(data, tmp_path / "out", smoke=True)


def test_second_process_is_rejected(phantom: Path, tmp_path: Path) -> None:
    """Only one process can write to an output folder."""
    with owned_folder(tmp_path / "out"), pytest.raises(OutputError) as raised:
        run_protocol(phantom, tmp_path / "out", smoke=True)
    assert raised.value.code == "in-use"
