"""Tests that a run can be resumed after a power loss, with the result of an uninterrupted run."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from mrknee.errors import MrkneeError
from mrknee.inference.torch_model import TorchModel
from mrknee.models.checkpoint import load_checkpoint, save_checkpoint
from mrknee.run_folder import RunFolder
from mrknee.training.recipe import Recipe
from mrknee.training.recovery import broken_files, run_identity
from mrknee.training.resumption import read_state
from mrknee.training.run import train
from mrknee.training.run_writer import RunWriter
from tests.conftest import write_toy_dataset
from tests.training.test_resumption import assert_same_run
from tests.training.test_run import QUICK

pytestmark = pytest.mark.slow

Run = tuple[Path, Path]

RECIPE = QUICK.replace(epochs=3, loggers=[])


class KilledError(Exception):
    """Simulates the power loss."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Creates a data set and a finished run on it."""
    root = tmp_path_factory.mktemp("finished")
    data = write_toy_dataset(root / "toy", 6, 4)
    train(data, root / "run", RECIPE)
    return data, root / "run"


@pytest.fixture(scope="module")
def interrupted(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Creates a run of the same recipe, interrupted after two of three epochs."""
    out = tmp_path_factory.mktemp("interrupted") / "run"
    save = RunWriter._save

    def save_and_stop(self: RunWriter, *args: object) -> None:
        save(self, *args)  # type: ignore[arg-type]
        if len(self.rows) == 2:
            raise KilledError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunWriter, "_save", save_and_stop)
        with pytest.raises(KilledError):
            train(finished[0], out, RECIPE)
    return out


def copy(run: Path, tmp_path: Path) -> Path:
    """Returns a copy of a run."""
    return Path(shutil.copytree(run, tmp_path / "run"))


def damage(file: Path, how: str) -> None:
    """Damages a file as a power loss may."""
    content = file.read_bytes()
    damaged = {"empty": b"", "zeros": bytes(len(content)), "cut": content[: len(content) // 2]}
    file.write_bytes(damaged[how])


def latest_start(out: Path) -> dict[str, object]:
    """Returns the record of the latest start."""
    record: dict[str, object] = json.loads((out / "environment.json").read_text())[-1]
    return record


def broken(out: Path, split: str) -> list[str]:
    """Returns the broken files of a finished run."""
    run = run_identity(out, RECIPE, split)
    return broken_files(out, RECIPE, split, run, read_state(RunFolder(out).state)[0])


REWRITABLE = [
    *("scorecard.json", "predictions-valid.csv", "predictions-inner.csv", "settings.yaml"),
    *("environment.json", "split.csv", "metrics.csv", "best", "last"),
]


@pytest.mark.parametrize("how", ["empty", "zeros", "cut"])
def test_broken_files_of_finished_run_are_found(how: str, finished: Run, tmp_path: Path) -> None:
    """Exactly the broken file is named, and none of an intact run."""
    run = finished[1]
    split = (run / "split.csv").read_text()
    assert broken(run, split) == []
    out = copy(run, tmp_path)
    for name in REWRITABLE:
        files = [out / name]
        if files[0].is_dir():
            files = [files[0] / "model.json", files[0] / "weights.safetensors"]
        for file in files:
            before = file.read_bytes()
            damage(file, how)
            assert broken(out, split) == [name], file
            file.write_bytes(before)


@pytest.mark.parametrize("how", ["empty", "cut"])
def test_broken_files_are_written_again(how: str, finished: Run, tmp_path: Path) -> None:
    """If all are broken, including weights of the last epoch, --resume restores the same bytes."""
    data, run = finished
    out = copy(run, tmp_path)
    for name in (*REWRITABLE[:-2], "best/model.json", "last/weights.safetensors"):
        damage(out / name, how)
    train(data, out, RECIPE, resume=True)
    assert_same_run(run, out)
    assert latest_start(out)["notes"]


@pytest.mark.parametrize("how", ["empty", "cut"])
def test_previous_state_is_used_if_latest_is_broken(
    how: str, finished: Run, interrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the state after two epochs, the run continues after the first and reports it."""
    out = copy(interrupted, tmp_path)
    damage(RunFolder(out).state, how)
    train(finished[0], out, RECIPE, resume=True)
    assert "note: training continues from the previous state" in capsys.readouterr().out
    assert latest_start(out)["after"] == {"epochs": 1, "batches": 0}
    assert_same_run(finished[1], out)


def test_state_with_damaged_values_is_not_used(
    finished: Run, interrupted: Path, tmp_path: Path
) -> None:
    """Zeros in the middle of the file are detected, although torch reads them as weights."""
    out = copy(interrupted, tmp_path)
    content = bytearray(RunFolder(out).state.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4096] = bytes(4096)
    RunFolder(out).state.write_bytes(content)
    train(finished[0], out, RECIPE, resume=True)
    assert latest_start(out)["after"] == {"epochs": 1, "batches": 0}
    assert_same_run(finished[1], out)


def test_kill_between_renames_of_a_state(finished: Run, interrupted: Path, tmp_path: Path) -> None:
    """The previous state is used, and the half-written one is removed."""
    out = copy(interrupted, tmp_path)
    RunFolder(out).state.rename(out / "resume" / ".last.ckpt.123")
    train(finished[0], out, RECIPE, resume=True)
    assert_same_run(finished[1], out)
    assert not list(out.rglob(".*"))


def test_run_restarts_without_any_state(finished: Run, interrupted: Path, tmp_path: Path) -> None:
    """If both states, all weights and model.json are empty, the run starts from the beginning."""
    out = copy(interrupted, tmp_path)
    for file in [*out.glob("resume/*"), *out.glob("*/model.json"), *out.glob("*/*.safetensors")]:
        damage(file, "empty")
    train(finished[0], out, RECIPE, resume=True)
    assert latest_start(out)["after"] == {"epochs": 0, "batches": 0}
    assert_same_run(finished[1], out)


def test_unrelated_state_file_is_refused_and_kept(
    finished: Run, interrupted: Path, tmp_path: Path
) -> None:
    """A file with other content than a state is refused and kept."""
    out = copy(interrupted, tmp_path)
    RunFolder(out).previous_state.unlink()
    RunFolder(out).state.write_bytes(b"another program's")
    with pytest.raises(MrkneeError, match="state to resume from") as caught:
        train(finished[0], out, RECIPE, resume=True)
    assert "resume/" in str(caught.value.advice)
    assert RunFolder(out).state.read_bytes() == b"another program's"


def test_kill_between_renames_of_weights(finished: Run, interrupted: Path, tmp_path: Path) -> None:
    """With new weights and the old model.json, the new model.json, not yet renamed, is used."""
    out = copy(interrupted, tmp_path)
    new = (out / "best" / "model.json").read_text()
    (out / "best" / ".model.json.123").write_text(new)
    digest = json.loads(new)["weights_sha256"]
    (out / "best" / "model.json").write_text(new.replace(digest, "0" * 64))
    train(finished[0], out, RECIPE, resume=True)
    assert latest_start(out)["after"] == {"epochs": 2, "batches": 0}
    assert_same_run(finished[1], out)


def test_lost_settings_are_read_from_the_state(
    finished: Run, interrupted: Path, tmp_path: Path
) -> None:
    """With a broken settings.yaml, other settings are refused, and the same ones continue.

    The state is one of an earlier version, which had fewer settings.
    """
    out = copy(interrupted, tmp_path)
    saved = torch.load(RunFolder(out).state, weights_only=True)
    del saved["done"]["settings"]["axes"]
    torch.save(saved, RunFolder(out).state)
    damage(out / "settings.yaml", "cut")
    other: Recipe = RECIPE.replace(batch_exams=2)
    with pytest.raises(MrkneeError, match="other settings"):
        train(finished[0], out, other, resume=True)
    train(finished[0], out, RECIPE, resume=True)
    assert_same_run(finished[1], out)


def assign_to_another_run(folder: Path) -> None:
    """Makes a model look like that of another run: doubled weights, another identity."""
    model = load_checkpoint(folder)
    with torch.no_grad():
        for weights in model.network.parameters():
            weights.mul_(2)
    provenance = {**model.provenance, "run": "another"}
    save_checkpoint(folder, model.network, model.preparation, provenance, model.decisions)


@pytest.mark.parametrize("part", ["best", "last"])
def test_weights_of_another_run_are_replaced(part: str, finished: Run, tmp_path: Path) -> None:
    """In a finished run, they are detected and replaced by those of the run."""
    data, run = finished
    out = copy(run, tmp_path)
    assign_to_another_run(out / part)
    train(data, out, RECIPE, resume=True)
    assert_same_run(run, out)
    assert part in str(latest_start(out)["notes"])


def test_state_of_another_run_is_not_used(finished: Run, interrupted: Path, tmp_path: Path) -> None:
    """The run's own previous state is used; without one, the run is refused, not restarted."""
    out = copy(interrupted, tmp_path)
    saved = torch.load(RunFolder(out).state, weights_only=True)
    saved["done"]["settings"]["seed"] = 5
    torch.save(saved, RunFolder(out).state)
    only_state = Path(shutil.copytree(out, tmp_path / "only-state"))
    train(finished[0], out, RECIPE, resume=True)
    assert latest_start(out)["after"] == {"epochs": 1, "batches": 0}
    assert_same_run(finished[1], out)
    RunFolder(only_state).previous_state.unlink()
    with pytest.raises(MrkneeError, match="belongs to another run"):
        train(finished[0], only_state, RECIPE, resume=True)
    assert RunFolder(only_state).state.exists()


@pytest.mark.parametrize("content", ["null", '[1, {"a": []}]', '[{"run": "another"}]'])
def test_starts_of_another_run_are_replaced(content: str, finished: Run, tmp_path: Path) -> None:
    """This includes an environment.json of another structure; then the model can be used again."""
    data, run = finished
    out = copy(run, tmp_path)
    (out / "environment.json").write_text(content)
    with pytest.raises(MrkneeError):
        TorchModel(out)
    split = (run / "split.csv").read_text()
    assert broken(out, split) == ["environment.json"]
    train(data, out, RECIPE, resume=True)
    assert latest_start(out)["run"] == latest_start(run)["run"]
    TorchModel(out)
    assert_same_run(run, out)


@pytest.mark.parametrize(
    "name", ["best/model.json", "last", "environment.json", "predictions-valid.csv"]
)
@pytest.mark.parametrize("kind", ["folder", "pipe", "link to nothing"])
def test_unwritable_path_is_refused_before_anything_is_removed(
    name: str, kind: str, finished: Run, tmp_path: Path
) -> None:
    """Otherwise training would fail later, after the states have been removed."""
    if (name, kind) == ("last", "folder"):
        pytest.skip("last is a folder")
    out = copy(finished[1], tmp_path)
    if (out / name).is_dir():
        shutil.rmtree(out / name)
    else:
        (out / name).unlink()
    if kind == "folder":
        (out / name).mkdir()
    elif kind == "pipe":
        os.mkfifo(out / name)
    else:
        (out / name).symlink_to("nowhere")
    with pytest.raises(MrkneeError, match="can't be written"):
        train(finished[0], out, RECIPE, resume=True)
    for kept in (
        "resume/last.ckpt",
        "resume/previous.ckpt",
        "scorecard.json",
        "best/weights.safetensors",
    ):
        assert (out / kept).is_file()
