"""The CLAIM checklist: the items that a run's record answers, and no others."""

from __future__ import annotations

from pathlib import Path

from mrknee.reports.claim import SUBJECTS, claim_items
from mrknee.reports.evaluation import gather
from tests.reports.examples import PROVENANCE, write_case, write_model_case

OF_THE_MODEL = {9, 19, 22, 23, 24, 25, 26}


def test_predictions_alone_answer_no_item_about_a_model(tmp_path: Path) -> None:
    """Without a model only the items on data set, exams and unknown labels are answered."""
    found = {item.number: item for item in claim_items(gather(write_case(tmp_path), tmp_path))}
    assert set(found) == {7, 12, 21}
    assert found[12].subject == "Missing data"
    assert "4 of acl" in found[12].answer
    assert found[21].answer == "all 120 exams of split valid that have a prediction"


def test_a_model_fills_its_items_from_its_provenance(tmp_path: Path) -> None:
    """Splits, architecture, versions, settings and selection are those recorded by training."""
    counted = {**PROVENANCE, "series": {"axial": 8, "coronal": 8, "sagittal": 7}}
    data, run, predictions = write_model_case(tmp_path, provenance=counted)
    table = claim_items(gather(predictions, data, model=run))
    answers = {item.number: item.answer for item in table}
    assert list(answers) == sorted(SUBJECTS)
    assert set(answers) >= OF_THE_MODEL
    assert "trained on 590" in answers[19]
    assert "epoch selected on 106 (inner: drawn from train at random by seed 3" in answers[19]
    assert answers[19].endswith("scored on 24 (valid, as provided by the data set)")
    assert answers[22].startswith(
        "slices of each series (axial, coronal, sagittal) through test_resnet"
    )
    assert "torch 9.8.7" in answers[23]
    assert "learning_rate 0.001" in answers[25]
    assert answers[26].startswith("epoch 4, by mean_auc on 106")
    assert answers[27] == "none: one network"
    assert "24 exams" in answers[32]
