from __future__ import annotations

import numpy as np
import pytest
import torch

from mrknee.errors import MrkneeError
from mrknee.training.loss import positive_weights, summed_loss

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
