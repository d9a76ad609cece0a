"""The CLAIM checklist: 44 items, filled with what is known and nothing else."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import pytest

from mrknee.report.claim import ITEMS, NOT_STATED, claim_table, fill
from mrknee.report.evaluation import gather
from tests.report.examples import write_case, write_model_case

OF_THE_MODEL = {1, 9, 19, 20, 22, 23, 24, 25, 26, 27, 31}


def test_there_are_44_items_in_whole_sections() -> None:
    """CLAIM 2024 has 44 items; a section's items stand together, no subject comes twice."""
    assert len(ITEMS) == 44
    sections = [section for section, _ in groupby(section for section, _ in ITEMS)]
    assert len(sections) == len(set(sections))
    assert [item.number for item in fill({})] == list(range(1, 45))


def test_what_nobody_told_is_not_stated() -> None:
    """Without answers every item is "not stated", and an item that isn't there is refused."""
    assert {item.answer for item in fill({})} == {NOT_STATED}
    assert fill({7: "MRNet"})[6].answer == "MRNet"
    for wrong in (0, 45):
        with pytest.raises(ValueError, match="1 to 44"):
            fill({wrong: "something"})


def test_predictions_alone_say_nothing_of_a_model(tmp_path: Path) -> None:
    """Without a model its items, and all that only authors know, are not stated."""
    table = claim_table(gather(str(write_case(tmp_path)), tmp_path))
    stated = {item.number for item in table if item.stated}
    assert not stated & OF_THE_MODEL
    assert not stated & {2, 3, 4, 5, 8, 15, 16, 17, 18, 34, 36, 40, 41, 42, 44}
    assert {7, 12, 21, 28, 29, 35, 37} <= stated
    assert "4 of acl" in table[11].answer
    assert table[20].answer.startswith("120 exams")


def test_a_model_fills_its_items_from_its_provenance(tmp_path: Path) -> None:
    """Partitions, architecture, versions, settings and selection are what training noted."""
    data, run, predictions = write_model_case(tmp_path)
    table = claim_table(gather(str(predictions), data, model=run))
    answers = {item.number: item.answer for item in table}
    assert all(table[number - 1].stated for number in OF_THE_MODEL)
    assert "trained on 590" in answers[19]
    assert "epoch chosen on 106 (inner: drawn from train at random by seed 3" in answers[19]
    assert answers[19].endswith("scored on 24 (valid: as the data set ships it)")
    assert answers[1] == "deep learning: one multi-task network for abnormal, acl, meniscus"
    assert answers[29].startswith("95 % intervals on every measure of this model;")
    assert "test_resnet" in answers[22]
    assert "torch 9.8.7" in answers[23]
    assert "learning_rate 0.001" in answers[25]
    assert answers[26].startswith("epoch 4, by mean_auc on 106")
    assert answers[33] == NOT_STATED
    assert "24 exams" in answers[32]
