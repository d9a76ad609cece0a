"""Comparison of `Network` with an independent implementation of the reference network."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mrknee.models.network import Network
from mrknee.models.settings import NetworkSettings
from tests.models.examples import FINDINGS, one_exam, random_batch

POS_WEIGHT = [0.24, 4.43, 1.85]
"""Negatives over positives in MRNet's training exams (reference: pos_weight)."""


def alexnet_features() -> nn.Sequential:
    """AlexNet's convolutions, layer by layer (Krizhevsky 2014, 'One weird trick')."""
    return nn.Sequential(
        nn.Conv2d(3, 64, kernel_size=11, stride=4, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(kernel_size=3, stride=2),
        nn.Conv2d(64, 192, kernel_size=5, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(kernel_size=3, stride=2),
        nn.Conv2d(192, 384, kernel_size=3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(384, 256, kernel_size=3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(256, 256, kernel_size=3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(kernel_size=3, stride=2),
    )


class PlainReference(nn.Module):
    """The reference network for one exam: three stacks to one row of logits."""

    def __init__(self, findings: int) -> None:
        super().__init__()
        self.axial = alexnet_features()
        self.coronal = alexnet_features()
        self.sagittal = alexnet_features()
        self.average = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(3 * 256, findings)

    def forward(self, axial: Tensor, coronal: Tensor, sagittal: Tensor) -> Tensor:
        """Computes logits from three stacks (slices, 1, rows, cols), repeated to three channels."""
        planes = []
        for features, stack in (
            (self.axial, axial),
            (self.coronal, coronal),
            (self.sagittal, sagittal),
        ):
            vectors = self.average(features(stack.repeat(1, 3, 1, 1))).flatten(1)  # (slices, 256)
            planes.append(torch.max(vectors, 0, keepdim=True)[0])  # (1, 256)
        logits: Tensor = self.classifier(torch.cat(planes, 1))
        return logits


def both(findings: int = 3) -> tuple[PlainReference, Network]:
    """Returns the independent network and `Network` with the same weights."""
    torch.manual_seed(5)
    plain = PlainReference(findings)
    ours = Network(NetworkSettings(), FINDINGS[:findings])
    with torch.no_grad():
        for there, here in zip(plain.parameters(), ours.parameters(), strict=True):
            here.copy_(there)
    return plain, ours


def test_it_has_the_references_size() -> None:
    """There are 7.41 million parameters for three findings, as published, 2.47 per encoder."""
    plain, ours = both()
    count = sum(p.numel() for p in ours.parameters())
    assert count == sum(p.numel() for p in plain.parameters()) == 7_411_395
    assert ours.head.in_features == 768


@pytest.mark.parametrize(("rows", "cols"), [(224, 224), (96, 130)])
def test_logits_equal_the_references(rows: int, cols: int) -> None:
    """For the same weights and exams, the logits of both networks are equal to 1e-5."""
    plain, ours = both()
    counts = [(4, 3, 5), (1, 2, 1)]
    slices, lengths = random_batch(counts, rows=rows, cols=cols)
    with torch.no_grad():
        logits = ours(slices, lengths)
        for exam in range(len(counts)):
            stacks, _ = one_exam(slices, lengths, exam)
            expected = plain(*stacks.values())[0]
            torch.testing.assert_close(logits[exam], expected, rtol=0, atol=1e-5)
    assert logits.std() > 1e-3, "logits that are all alike would prove little"


def test_one_finding_is_the_single_finding_system() -> None:
    """With one finding it is the network of the earlier publication, with one logit."""
    plain, ours = both(findings=1)
    slices, lengths = random_batch([(2, 3, 2)])
    with torch.no_grad():
        torch.testing.assert_close(
            ours(slices, lengths), plain(*slices.values()), rtol=0, atol=1e-5
        )


def adam_step(network: nn.Module, logits: Tensor, labels: Tensor) -> Tensor:
    """Takes one training step of the reference; returns the loss."""
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-5, weight_decay=0.01)
    loss = nn.BCEWithLogitsLoss(pos_weight=torch.tensor(POS_WEIGHT))(logits, labels)
    torch.autograd.backward(loss)
    optimiser.step()
    return torch.as_tensor(loss).detach()


def test_one_adam_step_equals_the_references() -> None:
    """One step of Adam from the same weights gives the same loss, gradients and weights.

    The first step of Adam changes each weight by about the learning rate, 1e-5, whatever its
    gradient: by 1e-5 * g / (|g| + 1e-8), where g includes the weight decay. An error of 1e-7 in g
    changes this by less than 1e-7 if |g| is above 1e-6; only weights with g closer to zero, where
    rounding may change the sign, may differ by twice the learning rate.
    """
    plain, ours = both()
    before = [p.detach().clone() for p in plain.parameters()]
    slices, lengths = random_batch([(4, 3, 5)], rows=96, cols=96)
    slices["axial"][1:] = slices["axial"][:1]  # slices alike: every feature ties
    labels = torch.tensor([[1.0, 0.0, 1.0]])
    expected = adam_step(plain, plain(*slices.values()), labels)
    found = adam_step(ours.train(), ours(slices, lengths), labels)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    weights = zip(before, plain.parameters(), ours.parameters(), strict=True)
    for start, there, here in weights:
        assert here.grad is not None
        assert there.grad is not None
        torch.testing.assert_close(here.grad, there.grad, rtol=1e-4, atol=1e-7)
        steep = (there.grad + 0.01 * start).abs() > 1e-6
        assert steep.float().mean() > 0.9
        torch.testing.assert_close(here[steep], there[steep], rtol=0, atol=1e-7)
        torch.testing.assert_close(here, there, rtol=0, atol=2e-5)
        assert (here - start).abs().max() > 5e-6, "the step moved nothing"
