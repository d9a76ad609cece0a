from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import load_file
from sklearn.metrics import roc_auc_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from mrknee.errors import MrkneeError, TrainingError
from mrknee.exams import PLANES, Dataset, Plane
from mrknee.metrics.predictions import Predictions
from mrknee.models.settings import NetworkSettings
from mrknee.training.environment import json_safe
from mrknee.training.evaluation import OPTIMISTIC
from mrknee.training.loop import Objective
from mrknee.training.recipe import (
    OptimizerSettings,
    Recipe,
    ScheduleSettings,
    SelectionSettings,
)
from mrknee.training.run import train
from mrknee.transforms.batches import Batch
from mrknee.transforms.settings import PreparationSettings
from mrknee.untrusted import parse_json
from tests.conftest import write_toy_dataset

pytestmark = pytest.mark.slow

QUICK = Recipe(
    network=NetworkSettings(encoder="test_resnet", shared_encoder=True),
    weights="none",
    preparation=PreparationSettings(size=32, crop=32),
    optimizer=OptimizerSettings(learning_rate=1e-3),
    selection=SelectionSettings(fraction=0.34, early_stop=0),
    epochs=2,
    batch_exams=3,
    workers=0,
    log_train=4,
    log_valid=2,
)


def column(run: Path, name: str) -> list[float]:
    """Returns a column of a run's metrics."""
    header, *rows = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    return [float(row[header.index(name)]) for row in rows]


def weights_of(run: Path, which: str = "last") -> dict[str, np.ndarray]:
    """Returns the weights of a checkpoint of a run."""
    return load_file(run / which / "weights.safetensors")


def assert_same_weights(first: Path, second: Path) -> None:
    """Asserts that the last weights of two runs are bit-identical."""
    expected, actual = weights_of(first), weights_of(second)
    assert expected.keys() == actual.keys()
    for name, values in expected.items():
        assert np.array_equal(values, actual[name]), name


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Creates a data set and a run on it."""
    root = tmp_path_factory.mktemp("finished")
    data = write_toy_dataset(root / "toy", 12, 6)
    train(data, root / "run", QUICK)
    return data, root / "run"


def test_run_folder_has_the_documented_files(finished: tuple[Path, Path]) -> None:
    """It has settings, versions, split, logs, metrics, predictions, scorecard and checkpoints."""
    _, run = finished
    files = {p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file()}
    assert {
        "settings.yaml",
        "environment.json",
        "split.csv",
        "log.txt",
        "metrics.csv",
        "predictions-inner.csv",
        "predictions-valid.csv",
        "scorecard.json",
        "best/model.json",
        "best/weights.safetensors",
        "last/model.json",
        "last/weights.safetensors",
        "resume/last.ckpt",
    } <= files
    assert any(name.startswith("tensorboard/events") for name in files)
    settings = yaml.safe_load((run / "settings.yaml").read_text())
    assert settings["network"]["encoder"] == "test_resnet"
    assert json.loads((run / "environment.json").read_text())[0]["packages"]["torch"]


def test_parts_are_disjoint(finished: tuple[Path, Path]) -> None:
    """The inner exams come from train, and every exam is in one part."""
    _, run = finished
    rows = [line.split(",") for line in (run / "split.csv").read_text().splitlines()[1:]]
    parts = {part: {i for i, p in rows if p == part} for part in ("train", "inner", "valid")}
    assert [len(parts[p]) for p in ("train", "inner", "valid")] == [8, 4, 6]
    assert len({i for i, _ in rows}) == len(rows) == 18


def test_scorecard_agrees_with_scikit_learn(finished: tuple[Path, Path]) -> None:
    """The AUCs on valid are those that scikit-learn computes from the written predictions."""
    data, run = finished
    card = json.loads((run / "scorecard.json").read_text())
    predictions = Predictions.read(run / "predictions-valid.csv")
    labels = Dataset.of_split(data, "valid").labels
    for i, name in enumerate(predictions.findings):
        expected = roc_auc_score(labels[:, i], predictions.probabilities[:, i])
        assert card["findings"][name]["auc"] == pytest.approx(expected)
    assert card["split"] == "valid"
    assert OPTIMISTIC not in card["notes"]


def test_selection_on_valid_is_marked_optimistic(toy: Path, tmp_path: Path) -> None:
    """The scorecard states that the result is optimistic, as in the post."""
    selection = SelectionSettings(part="valid", early_stop=0)
    card = train(toy, tmp_path / "run", QUICK.replace(selection=selection, epochs=1))
    assert OPTIMISTIC in card.notes


def test_same_seed_gives_same_weights(finished: tuple[Path, Path], tmp_path: Path) -> None:
    """Two runs of the same recipe have bit-identical weights and metrics."""
    data, run = finished
    train(data, tmp_path / "again", QUICK)
    assert_same_weights(run, tmp_path / "again")
    assert (run / "metrics.csv").read_text() == (tmp_path / "again" / "metrics.csv").read_text()


def test_other_seed_gives_other_weights(finished: tuple[Path, Path], tmp_path: Path) -> None:
    """The seed has an effect."""
    data, run = finished
    train(data, tmp_path / "other", QUICK.replace(seed=1, epochs=1))
    first, other = weights_of(run), weights_of(tmp_path / "other")
    assert any(not np.array_equal(first[name], other[name]) for name in first)


def test_workers_do_not_change_the_result(finished: tuple[Path, Path], tmp_path: Path) -> None:
    """Weights are the same with two reading processes as with none."""
    data, run = finished
    train(data, tmp_path / "run", QUICK.replace(workers=2))
    assert_same_weights(run, tmp_path / "run")


PLATEAU = ScheduleSettings(name="plateau", patience=0, factor=0.5, threshold=0.9)


@pytest.mark.parametrize(
    "changes",
    [
        {"network": QUICK.network.replace(dropout=0.5), "schedule": PLATEAU},
        {"selection": SelectionSettings(fraction=0.34, early_stop=2)},
    ],
    ids=["dropout and plateau", "early stop"],
)
def test_resumed_run_equals_uninterrupted_run(
    toy: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    """Two epochs, then --resume to four, are bit-identical to four epochs without interruption."""
    recipe = QUICK.replace(epochs=4, **changes)
    uninterrupted, resumed = tmp_path / "uninterrupted", tmp_path / "resumed"
    train(toy, uninterrupted, recipe)
    train(toy, resumed, recipe.replace(epochs=2))
    train(toy, resumed, recipe, resume=True)
    assert_same_weights(uninterrupted, resumed)
    expected, metrics = ((run / "metrics.csv").read_text() for run in (uninterrupted, resumed))
    assert metrics == expected


def test_every_epoch_is_shuffled_and_augmented_differently(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each exam comes once per epoch, in a new order and with new augmentation."""
    seen: list[Batch] = []
    forward = Objective.forward

    def record_batch(self: Objective, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        if self.training:
            seen.append(batch)
        return forward(self, batch)

    monkeypatch.setattr(Objective, "forward", record_batch)
    train(toy, tmp_path / "run", QUICK.replace(batch_exams=1, epochs=3))
    assert len(seen) == 3 * 8
    epochs = [
        {b.ids[0]: b.slices[Plane.AXIAL] for b in seen[8 * epoch : 8 * epoch + 8]}
        for epoch in range(3)
    ]
    first, second, third = (list(views) for views in epochs)
    assert sorted(first) == sorted(second) == sorted(third)
    assert first != second != third != first
    same = [torch.equal(views, epochs[1][exam_id]) for exam_id, views in epochs[0].items()]
    assert not any(same)


def test_bfloat16_losses_are_close_to_float32(toy: Path, tmp_path: Path) -> None:
    """With bfloat16, losses are similar to those of float32, and weights stay float32."""
    for precision in ("32-true", "bf16-mixed"):
        train(toy, tmp_path / precision, QUICK.replace(precision=precision))
    float32 = column(tmp_path / "32-true", "train/loss")
    bfloat16 = column(tmp_path / "bf16-mixed", "train/loss")
    assert float32 != bfloat16
    np.testing.assert_allclose(bfloat16, float32, rtol=0.05)
    dtypes = {str(values.dtype) for values in weights_of(tmp_path / "bf16-mixed").values()}
    assert dtypes == {"float32", "int64"}, "int64 counts batches"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU supports float16")
def test_float16_needs_a_gpu(toy: Path, tmp_path: Path) -> None:
    """It is refused before anything is written, rather than replaced by bfloat16."""
    with pytest.raises(MrkneeError, match="precision"):
        train(toy, tmp_path / "run", QUICK.replace(precision="16-mixed"))
    assert not (tmp_path / "run").exists()


def test_input_too_small_for_the_encoder_is_refused(toy: Path, tmp_path: Path) -> None:
    """AlexNet needs more than 32 pixels: the error comes before writing, with advice."""
    recipe = QUICK.replace(network=QUICK.network.replace(encoder="alexnet"))
    with pytest.raises(MrkneeError, match=r"size(.|\n)*preparation.crop 32"):
        train(toy, tmp_path / "run", recipe)
    assert not (tmp_path / "run").exists()


def test_accumulated_batches_equal_one_large_batch(toy: Path, tmp_path: Path) -> None:
    """Three batches of one exam give the step of one of three, also with missing labels.

    Of 8 exams, the last step has two batches only. A mean of the means of batches would give
    another gradient, and one third too small in the last step.
    """
    labels = (toy / "train-acl.csv").read_text().splitlines()
    (toy / "train-acl.csv").write_text("\n".join(labels[:-4]) + "\n")
    sgd = OptimizerSettings(name="sgd", learning_rate=1e-2)
    recipe = QUICK.replace(optimizer=sgd, epochs=1)  # rounding grows with the steps
    train(toy, tmp_path / "large", recipe)
    train(toy, tmp_path / "small", recipe.replace(batch_exams=1, accumulate=3))
    large, small = (weights_of(tmp_path / name) for name in ("large", "small"))
    for name, values in large.items():
        np.testing.assert_allclose(values, small[name], rtol=0, atol=1e-6, err_msg=name)


def test_batch_slices_varies_the_number_of_batches(toy: Path, tmp_path: Path) -> None:
    """Every epoch trains on every exam, whatever the number of batches."""
    recipe = QUICK.replace(epochs=4, batch_exams=4, batch_slices=26, log_train=1)
    train(toy, tmp_path / "run", recipe)
    lines = (tmp_path / "run" / "log.txt").read_text().splitlines()
    batches = []
    for epoch in range(1, 5):
        last = [line for line in lines if line.startswith(f"train epoch {epoch} ")][-1].split()
        assert last[6] == "8"
        batches.append(last[4])
    assert len(set(batches)) > 1, "all epochs have the same number of batches"


def test_learning_rate_falls_after_patience(toy: Path, tmp_path: Path) -> None:
    """The rate is reduced if the loss has not fallen enough for more than `patience` epochs."""
    train(toy, tmp_path / "run", QUICK.replace(epochs=4, schedule=PLATEAU))
    rates = column(tmp_path / "run", "learning_rate")
    assert rates == pytest.approx([1e-3, 1e-3, 5e-4, 2.5e-4])


def test_best_is_the_epoch_with_the_highest_auc(toy: Path, tmp_path: Path) -> None:
    """`best/` holds the first epoch with the highest mean AUC, `last/` the last epoch."""
    train(toy, tmp_path / "run", QUICK.replace(epochs=5, batch_exams=2))
    aucs = column(tmp_path / "run", "val/auc_mean")
    provenance = {
        which: json.loads((tmp_path / "run" / which / "model.json").read_text())["provenance"]
        for which in ("best", "last")
    }
    assert provenance["best"]["epoch"] == 1 + int(np.argmax(aucs))
    assert provenance["last"]["epoch"] == 5


def test_resuming_with_other_exams_is_refused(finished: tuple[Path, Path], tmp_path: Path) -> None:
    """Another data set would mix exams trained on with exams that select."""
    other = write_toy_dataset(tmp_path / "other", 15, 6)
    with pytest.raises(MrkneeError, match="other exams"):
        train(other, finished[1], QUICK, resume=True)


def test_missing_data_set_leaves_no_run_folder(tmp_path: Path) -> None:
    """The corrected command can use the same folder."""
    with pytest.raises(MrkneeError):
        train(tmp_path / "nowhere", tmp_path / "run", QUICK)
    assert not (tmp_path / "run").exists()


def test_resuming_a_finished_run_changes_nothing(finished: tuple[Path, Path]) -> None:
    """Its scorecard is returned, and no file changes."""
    data, run = finished
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    card = train(data, run, QUICK, resume=True)
    assert card.n_exams == 6
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == before


def test_nonempty_folder_is_refused(finished: tuple[Path, Path]) -> None:
    """Without --resume, a folder that isn't empty is refused."""
    data, run = finished
    with pytest.raises(MrkneeError, match="not empty"):
        train(data, run, QUICK)


def test_resuming_with_other_settings_is_refused(finished: tuple[Path, Path]) -> None:
    """The error names the setting that differs."""
    data, run = finished
    with pytest.raises(MrkneeError, match="batch_exams"):
        train(data, run, QUICK.replace(batch_exams=2), resume=True)


def test_single_finding_gives_one_output(toy: Path, tmp_path: Path) -> None:
    """`findings: acl` gives a network with one output."""
    card = train(toy, tmp_path / "run", QUICK.replace(findings="acl", epochs=1))
    assert list(card.findings) == ["acl"]
    assert weights_of(tmp_path / "run")["head.bias"].shape == (1,)


def test_number_of_findings_is_not_limited(tmp_path: Path) -> None:
    """The number of findings is that of the data set."""
    names = [f"finding{i:02d}" for i in range(12)]
    data = write_toy_dataset(tmp_path / "toy", 6, 2, findings=names)
    for name in names:  # both classes of each finding in both splits
        for split, ids in (("train", range(6)), ("valid", range(6, 8))):
            lines = [f"{i:04d},{i % 2}\n" for i in ids]
            (data / f"{split}-{name}.csv").write_text("".join(lines))
    card = train(data, tmp_path / "run", QUICK.replace(epochs=1))
    assert list(card.findings) == names


def test_early_stopping(toy: Path, tmp_path: Path) -> None:
    """With early_stop 1 and almost no learning rate, the second epoch is the last.

    When the run is resumed without scores, only these are computed.
    """
    recipe = QUICK.replace(
        optimizer=OptimizerSettings(name="sgd", learning_rate=1e-30, weight_decay=0.0),
        selection=SelectionSettings(fraction=0.34, early_stop=1),
        epochs=6,
    )
    train(toy, tmp_path / "run", recipe)
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) == 1 + 2
    (tmp_path / "run" / "scorecard.json").unlink()
    train(toy, tmp_path / "run", recipe, resume=True)
    assert (tmp_path / "run" / "scorecard.json").exists()
    assert len(column(tmp_path / "run", "val/loss")) == 2


def test_keep_every_epoch(toy: Path, tmp_path: Path) -> None:
    """The folders are named after the epoch and its AUCs."""
    train(toy, tmp_path / "run", QUICK.replace(keep_every_epoch=True))
    names = sorted(p.name for p in (tmp_path / "run" / "epochs").iterdir())
    assert [name.split("_")[0] for name in names] == ["epoch001", "epoch002"]
    assert all("acl-" in name and "mean-" in name for name in names)


def test_log_has_the_lines_of_the_reference(finished: tuple[Path, Path]) -> None:
    """Log lines give epoch, batch, mean loss, AUC and learning rate at fixed numbers of exams."""
    log = (finished[1] / "log.txt").read_text()
    for part in ("train", "val"):
        assert f"{part} epoch 1 batch" in log
    for name in ("mean loss", "AUC", "learning rate"):
        assert name in log


def test_tensorboard_has_the_scalars_of_the_reference(finished: tuple[Path, Path]) -> None:
    """They are loss and AUC of training and validation, per step, per epoch and per finding."""
    events = EventAccumulator(str(finished[1] / "tensorboard"))
    events.Reload()
    scalars = set(events.Tags()["scalars"])
    for part in ("train", "val"):
        for name in ("abnormal", "acl", "meniscus", "mean"):
            assert {f"{part}/auc_{name}", f"{part}/running_auc_{name}"} <= scalars
        assert {f"{part}/loss", f"{part}/loss_step"} <= scalars
    assert len(events.Scalars("val/auc_mean")) == 2
    assert "learning_rate" in scalars


def test_validation_loss_uses_weights_of_training_labels(tmp_path: Path) -> None:
    """Other labels in valid don't change the weights in the validation loss.

    The reference uses weights from validation labels, and this loss controls its learning rate.
    """
    data = write_toy_dataset(tmp_path / "toy", 12, 6)
    selection = SelectionSettings(part="valid", early_stop=0)
    recipe = QUICK.replace(selection=selection, epochs=1)
    train(data, tmp_path / "all", recipe)
    for finding in ("abnormal", "acl", "meniscus"):  # valid: the first two exams have labels
        file = data / f"valid-{finding}.csv"
        kept = file.read_text().splitlines()[:2]
        file.write_text("".join(f"{line}\n" for line in kept))
    train(data, tmp_path / "two", recipe)
    assert_same_weights(tmp_path / "all", tmp_path / "two")
    table = Predictions.read(tmp_path / "two" / "predictions-valid.csv").probabilities[:2]
    labels = Dataset.of_split(data, "valid").labels[:2]
    rows = (tmp_path / "two" / "split.csv").read_text().splitlines()[1:]
    positions = [i for i, row in enumerate(rows) if row.endswith("train")]
    known = Dataset.of_split(data, "train").labels[positions]
    weight = (known == 0).sum(0) / (known == 1).sum(0)
    losses = -(weight * labels * np.log(table) + (1 - labels) * np.log(1 - table))
    header, last = (tmp_path / "two" / "metrics.csv").read_text().splitlines()[:2]
    loss = float(dict(zip(header.split(","), last.split(","), strict=True))["val/loss"])
    assert loss == pytest.approx(losses.mean(), rel=1e-4)


def test_data_set_without_labels_is_refused(toy: Path, tmp_path: Path) -> None:
    """The error says which files are expected."""
    for file in toy.glob("*.csv"):
        file.unlink()
    with pytest.raises(MrkneeError, match="train-<finding>"):
        train(toy, tmp_path / "run", QUICK)


def test_without_valid_the_inner_exams_are_scored(toy: Path, tmp_path: Path) -> None:
    """The scorecard states that this is optimistic."""
    for file in toy.glob("valid-*.csv"):
        file.unlink()
    (toy / "valid").rename(tmp_path / "elsewhere")
    card = train(toy, tmp_path / "run", QUICK.replace(epochs=1))
    assert card.split == "inner"
    assert OPTIMISTIC in card.notes


def test_missing_series_can_be_allowed(toy: Path, tmp_path: Path) -> None:
    """They are an error by default; with the setting, the network pools over present planes."""
    (toy / "train" / "sagittal" / "0003.npy").unlink()
    with pytest.raises(MrkneeError, match="sagittal"):
        train(toy, tmp_path / "a", QUICK)
    train(toy, tmp_path / "b", QUICK.replace(allow_missing_plane=True, epochs=1))


def test_model_stores_its_run_and_series(finished: tuple[Path, Path], toy: Path) -> None:
    """It stores the number of training exams per series, and the identity of the run."""
    _, run = finished
    (start,) = json.loads((run / "environment.json").read_text())
    for name in ("best", "last"):
        provenance = json.loads((run / name / "model.json").read_text())["provenance"]
        assert provenance["series"] == dict.fromkeys(PLANES, provenance["trained_on"])
        assert provenance["run"] == start["run"]
    for plane in ("axial", "coronal"):
        shutil.rmtree(toy / "train" / plane)
        shutil.rmtree(toy / "valid" / plane)
    other = toy.parent / "other"
    train(toy, other, QUICK.replace(allow_missing_plane=True, epochs=1))
    provenance = json.loads((other / "best" / "model.json").read_text())["provenance"]
    assert provenance["series"] == {"axial": 0, "coronal": 0, "sagittal": provenance["trained_on"]}
    assert provenance["run"] != start["run"]


def test_name_that_is_not_utf8_is_stored_as_valid_json() -> None:
    """The name of a data set that isn't UTF-8 is stored as JSON that can be read again."""
    stored = json_safe({"data": os.fsdecode(b"knees \xff"), "seed": 3})
    assert stored == {"data": "knees ?", "seed": 3}
    assert parse_json(json.dumps(stored), None, "run") == stored


def test_a_batch_too_small_for_its_statistics_is_reported(tmp_path: Path) -> None:
    """One slice with a feature map of one cell has no variance."""
    data = write_toy_dataset(tmp_path / "data", 8, 4, pixels=32, slices=(1, 2))
    recipe = QUICK.replace(
        network=QUICK.network.replace(batchnorm="trained"),
        preparation=QUICK.preparation.replace(size=32, crop=32),
        batch_exams=1,
    )
    with pytest.raises(TrainingError) as raised:
        train(data, tmp_path / "run", recipe)
    assert raised.value.code == "batch-statistics"
    assert raised.value.exam is not None
    assert "batch_exams" in str(raised.value.advice)
