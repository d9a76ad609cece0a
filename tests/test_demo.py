from __future__ import annotations

import json
from pathlib import Path

import pytest

from mrknee import demo
from mrknee.cli import main

pytestmark = pytest.mark.slow


def test_the_demo_goes_the_whole_way_and_can_be_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A small demo writes data, run, predictions and scorecard, prints them, and keeps them."""
    monkeypatch.setattr(demo, "TRAIN_EXAMS", 24)
    monkeypatch.setattr(demo, "VALID_EXAMS", 12)
    monkeypatch.setattr(demo, "PIXELS", 32)
    assert main(["demo", "--out", str(tmp_path / "demo")]) == 0
    shown = capsys.readouterr().out
    assert "95 % interval" in shown
    assert "Research use only" in shown
    assert shown.splitlines()[-1].endswith("/demo/scores/report.html")
    for name in ("data", "run", "predictions.csv", "scores/scorecard.json"):
        assert (tmp_path / "demo" / name).exists()
        assert str(tmp_path / "demo" / name) in shown
    card = json.loads((tmp_path / "demo" / "scores" / "scorecard.json").read_text())
    assert list(card["findings"]) == ["abnormal", "acl", "meniscus"]
    assert card["n_exams"] == 12
    written = (tmp_path / "demo" / "run" / "best" / "model.json").stat().st_mtime_ns
    assert main(["demo", "--out", str(tmp_path / "demo")]) == 0
    assert (tmp_path / "demo" / "run" / "best" / "model.json").stat().st_mtime_ns == written


def test_the_demos_exams_are_as_many_as_mrnets_validation() -> None:
    """So that the intervals it prints are as wide as MRNet's."""
    assert demo.VALID_EXAMS == 120
