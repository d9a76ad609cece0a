from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mrknee.command_line import Parser
from mrknee.errors import MrkneeError, SettingsError
from mrknee.training.arguments import train_arguments
from mrknee.training.loss import label_weights, positive_weights, summed_loss
from mrknee.training.recipe import Recipe, load_recipe
from mrknee.training.run import train
from tests.training.test_run import QUICK, column

# MRNet's joint label counts in train: none / abnormal / meniscus / ACL / both
MRNET = np.repeat(
    [[0, 0, 0], [1, 0, 0], [1, 0, 1], [1, 1, 0], [1, 1, 1]], [217, 433, 272, 83, 125], axis=0
).astype(float)
NAMES = ("abnormal", "acl", "meniscus")


def test_positive_weights_of_mrnet_are_the_published_ones() -> None:
    """Negatives / positives of MRNet's training labels are .24, 4.43, 1.85."""
    weights = positive_weights(MRNET, NAMES)
    np.testing.assert_allclose(weights.numpy(), [0.24, 4.43, 1.85], atol=0.005)


def test_unknown_labels_do_not_change_weights() -> None:
    """NaN labels don't change the weights."""
    labels = np.vstack([MRNET, np.full((50, 3), np.nan)])
    assert torch.equal(positive_weights(labels, NAMES), positive_weights(MRNET, NAMES))


def test_finding_with_one_class_is_refused() -> None:
    """Without a positive exam, an error names the finding."""
    with pytest.raises(MrkneeError, match="acl"):
        positive_weights(np.array([[1.0, 0.0], [0.0, 0.0]]), ("abnormal", "acl"))


def test_loss_with_known_labels_is_that_of_torch() -> None:
    """It is the sum of BCEWithLogitsLoss with pos_weight over exams and findings."""
    torch.manual_seed(0)
    logits, labels = torch.randn(5, 3), (torch.rand(5, 3) > 0.5).float()
    weights = torch.tensor([0.24, 4.43, 1.85])
    expected = torch.nn.BCEWithLogitsLoss(pos_weight=weights, reduction="sum")(logits, labels)
    torch.testing.assert_close(summed_loss(logits, labels, weights), expected)


def test_unknown_label_has_no_gradient() -> None:
    """A logit with a NaN label has no gradient; the sum is over the others."""
    logits = torch.zeros(2, 2, requires_grad=True)
    labels = torch.tensor([[1.0, float("nan")], [0.0, 1.0]])
    loss = summed_loss(logits, labels, torch.ones(2))
    loss.backward()
    assert loss.item() == pytest.approx(3 * np.log(2))
    assert logits.grad is not None
    assert logits.grad[0, 1] == 0
    assert (logits.grad.abs() > 0).sum() == 3


def test_loss_without_known_labels_is_zero() -> None:
    """A batch without labels has no gradients."""
    logits = torch.zeros(2, 1, requires_grad=True)
    loss = summed_loss(logits, torch.full((2, 1), float("nan")), torch.ones(1))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_a_findings_weight_multiplies_its_loss() -> None:
    """It is torch's loss with both kinds of weights; the others have 1, without weights nothing."""
    torch.manual_seed(0)
    logits, labels = torch.randn(5, 3), (torch.rand(5, 3) > 0.5).float()
    positive = torch.tensor([0.24, 4.43, 1.85])
    weight = label_weights({"acl": 2.5}, NAMES)
    assert weight is not None
    assert weight.tolist() == [1, 2.5, 1]
    torchs = torch.nn.BCEWithLogitsLoss(weight, pos_weight=positive, reduction="sum")
    found = summed_loss(logits, labels, positive, weight)
    torch.testing.assert_close(found, torchs(logits, labels))
    assert label_weights(None, NAMES) is None


@pytest.mark.slow
def test_a_weight_of_a_finding_that_is_not_learned_is_refused(toy: Path, tmp_path: Path) -> None:
    """The error lists the learned findings, and comes before anything is written."""
    recipe = QUICK.replace(findings=["acl"], finding_weights={"meniscus": 2.0})
    with pytest.raises(SettingsError, match="finding_weights") as caught:
        train(toy, tmp_path / "run", recipe)
    assert (caught.value.expected, caught.value.found) == (
        "some of the learned findings: acl",
        "meniscus",
    )
    assert not list((tmp_path / "run").glob("*"))


@pytest.mark.slow
def test_a_run_uses_the_weights_in_both_losses(toy: Path, tmp_path: Path) -> None:
    """With a weight of 2 for the only finding, the first losses are twice as large."""
    still = QUICK.optimizer.replace(name="sgd", learning_rate=1e-30)
    plain = QUICK.replace(findings=["acl"], optimizer=still, epochs=1, loggers=[])
    train(toy, tmp_path / "plain", plain)
    train(toy, tmp_path / "twice", plain.replace(finding_weights={"acl": 2.0}))
    for name in ("train/loss", "val/loss"):
        (once,), (twice,) = (column(tmp_path / run, name) for run in ("plain", "twice"))
        assert twice == pytest.approx(2 * once, rel=1e-6)


def test_the_weights_are_read_from_recipes_and_the_command_line(tmp_path: Path) -> None:
    """A recipe's file and an option take {acl: 2}; the help of such a recipe can be shown."""
    file = tmp_path / "mine.yaml"
    file.write_text("finding_weights: {acl: 2}\nepochs: 3\n")
    assert load_recipe(str(file)).finding_weights == {"acl": 2.0}
    words = ["--recipe", str(file), "--finding_weights", "{meniscus: 0.5}"]
    parser = Parser(prog="mrknee train")
    parser.add_argument("--recipe")
    given = train_arguments(parser, words)
    recipe = load_recipe(str(file), {"finding_weights": given["finding_weights"]})
    assert recipe.finding_weights == {"meniscus": 0.5}
    assert "finding_weights" in parser.format_help()


@pytest.mark.parametrize("bad", [{"acl": 0.0}, {"acl": "2"}, 2.0, ["acl"]])
def test_only_positive_numbers_by_name_are_weights(bad: object) -> None:
    """Anything else is an error that names the setting."""
    with pytest.raises(SettingsError, match="the setting finding_weights can't be used"):
        Recipe(finding_weights=bad)  # type: ignore[arg-type]
