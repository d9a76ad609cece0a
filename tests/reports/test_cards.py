from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mrknee.errors import DataError
from mrknee.reports.cards import CARDS, DATA_CARD, MARK, MODEL_CARD, render_card
from mrknee.reports.evaluation import evaluate, gather
from tests.reports.examples import write_case, write_model_case


def test_an_evaluation_writes_both_cards(tmp_path: Path) -> None:
    """Recorded facts are filled in: AUCs as in the scorecard, exams, settings, versions."""
    data, run, predictions = write_model_case(tmp_path)
    evaluate(str(predictions), data, tmp_path / "out", model=run)
    model, about = ((tmp_path / "out" / name).read_text() for name in (MODEL_CARD, DATA_CARD))
    scores = json.loads((tmp_path / "out" / "scorecard.json").read_text())["findings"]
    for title, finding in (("Abnormal", "abnormal"), ("ACL tear", "acl")):
        row = next(line for line in model.splitlines() if line.startswith(f"| {title} | "))
        assert row.startswith(f"| {title} | {scores[finding]['auc']:.3f} (")
        assert row.endswith(
            f"| {scores[finding]['n_positive']} | {scores[finding]['n_negative']} |"
        )
    assert "trained on 590 exams of the data set “toy”" in model
    assert "| network.encoder | test_resnet |" in model
    assert "torch 9.8.7" in model
    assert "| sensitivity |" in model
    assert "24 exams" in about
    assert "| sagittal | 24 |" in about
    assert MARK in model
    assert MARK in about


def test_the_card_without_a_model(tmp_path: Path) -> None:
    """Nothing is stated about a model that was not given."""
    card = render_card(MODEL_CARD, gather(str(write_case(tmp_path)), tmp_path))
    assert "nothing is known about it" in card
    assert "## Settings" not in card
    assert "No operating points are known." in card


def test_sections_written_by_hand_are_kept(tmp_path: Path) -> None:
    """A second evaluation rewrites the numbers and keeps the sections that were filled in."""
    first, second = write_case(tmp_path, seed=0), write_case(tmp_path, seed=1)
    out = tmp_path / "out"
    evaluate(str(first), tmp_path, out)
    before = (out / MODEL_CARD).read_text()
    section = before[before.index("<!-- by hand: intended-use -->") :].partition("<!-- end -->")[0]
    ours = "<!-- by hand: intended-use -->\nTeaching only | <b>never</b> in a clinic.\n"
    (out / MODEL_CARD).write_text(before.replace(section, ours))
    evaluate(str(second), tmp_path, out)
    after = (out / MODEL_CARD).read_text()
    assert ours + "<!-- end -->" in after
    assert after.count(MARK) == before.count(MARK) - 1
    assert after.partition("## Results")[2] != before.partition("## Results")[2]


def test_names_from_files_stay_text(tmp_path: Path) -> None:
    """A title with HTML or a bar neither becomes markup nor ends a cell of a table."""
    contents = gather(str(write_case(tmp_path)), tmp_path)
    odd = replace(contents, titles={"acl": "A <script> | tear"})
    for name in CARDS:
        text = render_card(name, odd)
        assert "<script" not in text
        assert "A &lt;script> \\| tear" in text


def test_an_unreadable_card_is_refused_first(tmp_path: Path) -> None:
    """The evaluation is refused before anything is written."""
    predictions, out = write_case(tmp_path), tmp_path / "out"
    evaluate(str(predictions), tmp_path, out)
    (out / DATA_CARD).write_bytes(b"\xff\xfe")
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    with pytest.raises(DataError, match="not text"):
        evaluate(str(write_case(tmp_path, seed=1)), tmp_path, out)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
