"""A data set with declared series (some missing), findings and groups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mrknee
from mrknee.exams import write_findings, write_labels, write_series, write_stack
from mrknee.metrics.predictions import Predictions
from tests.exams.test_series import SIX

FINDINGS = {f"z{number:02d}": f"Finding {number}" for number in range(11, -1, -1)}
"""Twelve findings in reverse order of their names."""


@pytest.mark.slow
def test_training_prediction_and_explanation_of_a_declared_data_set(tmp_path: Path) -> None:
    """The data set can be opened, trained on with soft labels, predicted and explained."""
    data = tmp_path / "data"
    write_series(data, SIX)
    write_findings(data, FINDINGS)
    (data / "groups.csv").write_text("exam,group\n0000,a\n0005,a\n0007,a\n")
    rng = np.random.default_rng(0)
    for split, ids in (("train", range(12)), ("valid", range(12, 19))):
        for number in ids:
            for position, name in enumerate(SIX.names):
                if position != number % 7:
                    stack = rng.integers(0, 255, (2, 40, 40)).astype(np.uint8)
                    write_stack(data / split, name, f"{number:04d}", stack, among=SIX)
        for place, finding in enumerate(FINDINGS):
            labels = {f"{n:04d}": 0.9 if (n + place) % 2 else 0.1 for n in ids}
            write_labels(data, split, finding, labels)
    train = mrknee.open_dataset(data, split="train", allow_missing_plane=True, soft_labels=True)
    small: dict[str, Any] = {
        "preparation.size": 32,
        "preparation.crop": 32,
        "network.shared_encoder": True,
    }
    run = mrknee.train(train, recipe="small", out=tmp_path / "run", epochs=1, **small)
    parts = dict(line.split(",") for line in (run.folder / "split.csv").read_text().splitlines())
    assert len({parts[exam_id] for exam_id in ("0000", "0005", "0007")}) == 1
    model = mrknee.load_model(run.folder)
    assert model.findings == tuple(FINDINGS)
    assert model.series == SIX
    assert model.titles == FINDINGS
    valid = mrknee.open_dataset(data, split="valid", labels=False, allow_missing_plane=True)
    table = model.predict(valid)
    assert table.findings == tuple(FINDINGS)
    written = Predictions.read(run.folder / "predictions-valid.csv")
    assert written.findings == table.findings
    assert np.abs(written.probabilities - table.probabilities).max() < 1e-4  # auto precision
    why = model.explain(valid["0012"])
    assert tuple(why.native) == tuple(name for name in SIX.names if name != SIX.names[12 % 7])
    assert np.abs(why.residuals).max() < 1e-4
