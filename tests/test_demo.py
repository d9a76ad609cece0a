from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mrknee import demo
from mrknee.cli import main
from mrknee.training import recipe
from mrknee.training.recipe import Recipe, load_recipe

pytestmark = pytest.mark.slow


def load_short_recipe(name: str, changes: Mapping[str, Any]) -> Recipe:
    """Returns the recipe with 3 epochs."""
    return load_recipe(name, {**changes, "epochs": 3})


def test_demo_runs_all_steps_and_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A small demo writes data, run, predictions and scorecard; a second start keeps them."""
    monkeypatch.setattr(demo, "TRAIN_EXAMS", 16)
    monkeypatch.setattr(demo, "VALID_EXAMS", 8)
    monkeypatch.setattr(demo, "PIXELS", 32)
    monkeypatch.setattr(demo, "SLICE_FACTOR", 0.2)
    monkeypatch.setattr(recipe, "load_recipe", load_short_recipe)
    assert main(["demo", "--out", str(tmp_path / "demo")]) == 0
    printed = capsys.readouterr().out
    assert "95 % interval" in printed
    assert "Research use only" in printed
    report, room = printed.splitlines()[-2:]
    assert report.endswith("/demo/scores/report.html")
    assert room.endswith(f"mrknee serve {tmp_path}/demo/run --exams {tmp_path}/demo/data")
    for name in ("data", "run", "predictions.csv", "scores/scorecard.json"):
        assert (tmp_path / "demo" / name).exists()
        assert str(tmp_path / "demo" / name) in printed
    card = json.loads((tmp_path / "demo" / "scores" / "scorecard.json").read_text())
    assert list(card["findings"]) == ["abnormal", "acl", "meniscus"]
    assert card["n_exams"] == 8
    written = (tmp_path / "demo" / "run" / "best" / "model.json").stat().st_mtime_ns
    assert main(["demo", "--out", str(tmp_path / "demo")]) == 0
    assert (tmp_path / "demo" / "run" / "best" / "model.json").stat().st_mtime_ns == written


def test_demo_has_as_many_validation_exams_as_mrnet() -> None:
    """With 120 validation exams, intervals are similarly wide as on MRNet."""
    assert demo.VALID_EXAMS == 120
