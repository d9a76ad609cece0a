"""Tests of soft labels and groups of exams in a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mrknee.errors import MrkneeError
from mrknee.exams import read_labels, write_labels
from mrknee.metrics.predictions import Predictions
from mrknee.training.evaluation import SOFT
from mrknee.training.loss import positive_weights, summed_loss
from mrknee.training.parts import split_exams
from mrknee.training.recipe import load_recipe
from mrknee.training.run import train
from tests.conftest import write_toy_dataset

CHANGES = {
    "epochs": 1,
    "preparation.size": 32,
    "preparation.crop": 32,
    "precision": "32-true",
    "soft_labels": True,
}


@pytest.fixture
def soft(tmp_path: Path) -> Path:
    """Creates a data set with soft ACL labels: 0.1 for absent, 0.8 for present."""
    root = write_toy_dataset(tmp_path / "soft", 16, 8, pixels=32, slices=(1, 3))
    for split in ("train", "valid"):
        labels = read_labels(root / f"{split}-acl.csv")
        write_labels(root, split, "acl", {i: 0.8 if v else 0.1 for i, v in labels.items()})
    return root


def test_positive_weights_count_soft_labels_as_shares() -> None:
    """0.25 counts as 0.25 positive and 0.75 negative; unknown labels count as neither."""
    labels = np.array([[0.25, 1], [1, 0], [0, 0], [np.nan, 0]])
    weights = positive_weights(labels, ("acl", "meniscus"))
    assert weights.tolist() == pytest.approx([1.75 / 1.25, 3])


def test_positive_weights_of_hard_labels_are_exact() -> None:
    """They are exactly the number of negatives divided by that of positives."""
    labels = np.repeat([[0.0], [1.0], [np.nan]], [922, 208, 7], axis=0)
    weight = positive_weights(labels, ("acl",))
    assert torch.equal(weight, torch.from_numpy(np.array([922]) / np.array([208])).float())


def test_loss_is_linear_in_soft_labels() -> None:
    """The loss is the mean of those of both hard labels, weighted by the soft label."""
    logits, weight = torch.tensor([[0.3]]), torch.tensor([2.0])
    losses = [float(summed_loss(logits, torch.tensor([[y]]), weight)) for y in (0.0, 1.0, 0.3)]
    assert losses[2] == pytest.approx(0.7 * losses[0] + 0.3 * losses[1])


def test_soft_labels_are_refused_by_default(soft: Path) -> None:
    """By default, soft labels are refused, and the advice names the setting."""
    with pytest.raises(MrkneeError, match="neither 0 nor 1") as error:
        split_exams(soft, load_recipe("small"))
    assert "soft_labels" in (error.value.advice or "")


@pytest.mark.slow
def test_run_with_soft_labels_is_scored_with_hard_labels(soft: Path, tmp_path: Path) -> None:
    """Scores are of labels cut at 0.5, as the scorecard states; later scoring refuses them."""
    card = train(soft, tmp_path / "run", load_recipe("small", CHANGES))
    assert SOFT in card.notes
    assert (card.findings["acl"].auc.n_positive, card.findings["acl"].auc.n_negative) == (4, 4)
    table = Predictions.read(tmp_path / "run" / "predictions-valid.csv")
    with pytest.raises(MrkneeError, match="neither 0 nor 1") as error:
        table.labels(soft, "valid")
    assert "scores need 0 and 1" in (error.value.advice or "")


def test_exams_of_a_group_are_in_one_part(soft: Path) -> None:
    """A group is either trained on or selects the epoch; the other exams are drawn as before."""
    recipe = load_recipe("small", {**CHANGES, "selection.fraction": 0.3})
    ungrouped = split_exams(soft, recipe)
    group = [
        ungrouped.train.ids[ungrouped.train_positions[0]],
        ungrouped.train.ids[ungrouped.selection_positions[0]],
    ]
    (soft / "groups.csv").write_text("exam,group\n" + "".join(f"{i},p\n" for i in group))
    parts = split_exams(soft, recipe)
    rows = dict(line.split(",") for line in parts.split_csv().splitlines()[1:])
    assert len({rows[exam_id] for exam_id in group}) == 1
    assert len(parts.selection_positions) in (
        len(ungrouped.selection_positions) - 1,
        len(ungrouped.selection_positions),
        len(ungrouped.selection_positions) + 1,
    )
