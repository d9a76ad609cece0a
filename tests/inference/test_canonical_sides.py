"""Prediction with models that were trained on knees that all look like left ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mrknee.errors import MrkneeWarning
from mrknee.exams import ExamSide, open_dataset, write_sides
from mrknee.inference.model import load_model
from mrknee.models.checkpoint import save_checkpoint
from mrknee.models.network import Network
from tests.inference.test_torch_model import FINDINGS, PREPARATION, SETTINGS


def test_other_sides_are_a_warning(toy: Path, tmp_path: Path) -> None:
    """Only such a model warns, and only of a data set whose sides.csv doesn't say the same."""
    torch.manual_seed(0)
    network, preparation = Network(SETTINGS, FINDINGS), PREPARATION.to_dict()
    save_checkpoint(tmp_path / "usual", network, preparation, {})
    save_checkpoint(tmp_path / "left", network, preparation, {"canonical_sides": True})
    exams = open_dataset(toy, "valid")
    load_model(tmp_path / "usual").predict(exams)
    model = load_model(tmp_path / "left")
    with pytest.warns(MrkneeWarning, match=r"sides\.csv"):
        model.predict(exams)
    write_sides(toy, {exam_id: ExamSide("right", True) for exam_id in exams.ids})
    model.predict(exams)
