"""Tests of findings that lack labels or a class in a part of the data set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mrknee.errors import MrkneeError
from mrknee.exams import write_labels
from mrknee.metrics.predictions import Predictions
from mrknee.training.coverage import coverage_notes
from mrknee.training.evaluation import OPTIMISTIC
from mrknee.training.parts import split_exams
from mrknee.training.recipe import Recipe, SelectionSettings
from mrknee.training.run import train
from tests.training.test_run import QUICK

pytestmark = pytest.mark.slow

BY_LOSS = SelectionSettings(part="valid", metric="loss")
ON_VALID = QUICK.replace(selection=SelectionSettings(part="valid", early_stop=0), epochs=1)


def notes(data: Path, recipe: Recipe) -> list[str]:
    """Returns the notes without that on meniscus, whose inner exams are all negative."""
    found = coverage_notes(split_exams(data, recipe), recipe)
    return [note for note in found if not note.startswith("meniscus: all 4 exams with a label")]


@pytest.mark.parametrize(
    ("missing", "findings"), [("no file", None), ("no label", ["abnormal", "acl"])]
)
def test_finding_without_labels_in_valid_has_no_auc(
    toy: Path,
    tmp_path: Path,
    missing: str,
    findings: list[str] | None,
) -> None:
    """It is reported before training; its scores are null with a reason; others are scored."""
    if missing == "no file":
        (toy / "valid-acl.csv").unlink()
    else:
        (toy / "valid-acl.csv").write_text("0012,\n0013,\n")
    card = train(toy, tmp_path / "run", QUICK.replace(epochs=1, findings=findings))
    log = (tmp_path / "run" / "log.txt").read_text()
    note = "note: acl: no exam has a label in valid: no AUC"
    assert log.index(note) < log.index("train epoch 1")
    assert card.split == "valid"
    written = json.loads((tmp_path / "run" / "scorecard.json").read_text())
    assert written["findings"]["abnormal"]["auc"] is not None
    assert written["findings"]["acl"]["auc"] is None
    assert written["findings"]["acl"]["reason"] == "no exam has a known label"
    assert written["mean_auc_left_out"] == ["acl"]
    read = Predictions.read(tmp_path / "run" / "predictions-valid.csv")
    assert "acl" in read.findings


def test_mean_auc_excludes_findings_without_both_classes(toy: Path, tmp_path: Path) -> None:
    """Findings without labels, or with one class only, don't count in the mean AUC."""
    (toy / "valid-acl.csv").unlink()
    write_labels(toy, "valid", "meniscus", {f"{number:04d}": 1.0 for number in range(12, 18)})
    assert notes(toy, ON_VALID) == [
        "acl: no exam has a label in valid: not counted in the mean AUC that selects the epoch, "
        "no AUC",
        "meniscus: all 6 exams with a label are positive in valid: not counted in the mean AUC "
        "that selects the epoch, no AUC",
    ]
    card = train(toy, tmp_path / "run", ON_VALID)
    assert card.mean.findings == ("abnormal",)
    assert OPTIMISTIC in card.notes


def test_valid_without_labels_cannot_select_epoch(toy: Path) -> None:
    """It is refused before training, with the advice to use an inner split."""
    for file in toy.glob("valid-*.csv"):
        file.write_text("")
    with pytest.raises(MrkneeError, match="can't be selected on valid") as caught:
        split_exams(toy, ON_VALID)
    assert "inner" in (caught.value.advice or "")


def test_note_if_no_finding_has_an_auc(toy: Path) -> None:
    """It is reported before training, unless the loss selects the epoch."""
    ids = [f"{number:04d}" for number in range(12, 18)]
    for finding in ("abnormal", "acl", "meniscus"):
        write_labels(toy, "valid", finding, dict.fromkeys(ids, 0.0))
    assert notes(toy, ON_VALID)[-1].endswith("epochs can't be compared, and the last one is kept")
    assert not notes(toy, ON_VALID.replace(selection=BY_LOSS))[-1].endswith("kept")


def test_inner_split_with_one_class_is_noted_and_not_calibrated(toy: Path, tmp_path: Path) -> None:
    """It is reported per finding before training and in the notes of the scorecard."""
    write_labels(toy, "train", "acl", {f"{n:04d}": float(n == 3) for n in range(12)})
    recipe = QUICK.replace(epochs=1)
    assert notes(toy, recipe) == [
        "acl: all 4 exams with a label are negative in inner: not counted in the mean AUC that "
        "selects the epoch, not calibrated, no thresholds"
    ]
    card = train(toy, tmp_path / "run", recipe)
    assert "acl: not calibrated: one class only: 0 of 4 are positive" in card.notes
    assert card.findings["acl"].auc.reason is None  # valid has both classes


def test_finding_without_labels_in_train_is_refused(toy: Path, tmp_path: Path) -> None:
    """It can't be learned, even with labels in valid; nothing is written."""
    (toy / "train-acl.csv").write_text("")
    with pytest.raises(MrkneeError, match="acl can't be learned"):
        train(toy, tmp_path / "run", QUICK)
    assert not (tmp_path / "run").exists()


def test_complete_labels_give_no_notes(toy: Path) -> None:
    """There are no notes if every finding has both classes in all parts."""
    assert notes(toy, QUICK) == []
    assert notes(toy, ON_VALID) == []


def test_without_labels_in_valid_inner_exams_are_scored(toy: Path) -> None:
    """The inner exams are scored, as without valid; one note reports it before training."""
    for file in toy.glob("valid-*.csv"):
        file.unlink()
    assert notes(toy, QUICK) == ["no exam in valid has a label: the inner exams are scored instead"]
    assert not split_exams(toy, QUICK).scores_valid


def test_missing_split_or_label_file_is_noted(toy: Path) -> None:
    """Reported: no folder valid/ (it may be misnamed), and a finding with labels in valid only."""
    (toy / "train-acl.csv").unlink()
    assert notes(toy, QUICK)[-1] == "acl: no label file in train: not learned"
    assert not any("not learned" in n for n in notes(toy, QUICK.replace(findings=["abnormal"])))
    (toy / "valid").rename(toy / "val")
    assert f"{toy} has no folder valid/: the inner exams are scored instead" in notes(toy, QUICK)
