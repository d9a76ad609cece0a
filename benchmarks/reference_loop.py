"""The published system's training and evaluation loops, reimplemented for comparison.

One exam per step, prepared in float64 by the loader's workers; three separate AlexNets in float32;
after each step, the AUC of each finding over the complete history; gradients enabled in evaluation.
Faults that don't cost time are not reproduced. (LearnOpenCV, "MRNet - The Multi-Task Approach",
2020.)
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.models import alexnet  # type: ignore[import-untyped]

PLANES = ("axial", "coronal", "sagittal")
FINDINGS = ("abnormal", "acl", "meniscus")
WORKERS = 4
"""Number of the loader's workers in the published code."""

Item = tuple[list[Tensor], Tensor]


class ReferenceExams(Dataset[Item]):
    """Exams of one split, prepared one at a time on the CPU."""

    def __init__(self, data: Path, split: str, *, augment: bool, size: int, crop: int) -> None:
        self.folder, self.augment, self.margin = data / split, augment, (size - crop) // 2
        tables = [np.loadtxt(data / f"{split}-{f}.csv", delimiter=",", dtype=str) for f in FINDINGS]
        self.ids: list[str] = tables[0][:, 0].tolist()
        self.labels = np.stack([table[:, 1].astype(np.float32) for table in tables], axis=1)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Item:
        stacks = [np.load(self.folder / plane / f"{self.ids[index]}.npy") for plane in PLANES]
        return [self.prepare(stack) for stack in stacks], torch.from_numpy(self.labels[index])

    def prepare(self, stack: np.ndarray) -> Tensor:
        """Crops, augments, scales minimum to maximum and by mean and SD, and repeats channels."""
        edge = self.margin
        stack = stack[:, edge:-edge, edge:-edge].astype(np.float64)
        if self.augment:
            stack = self._turned(stack)
        stack = (stack - stack.min()) / (stack.max() - stack.min()) * 255
        stack = (stack - 58.09) / 49.73
        return torch.FloatTensor(np.stack((stack,) * 3, axis=1))

    def _turned(self, stack: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng(int(torch.randint(2**31, ())))
        angle = np.deg2rad(rng.uniform(-25, 25))
        shift = torch.tensor(rng.uniform(-0.11, 0.11, 2) * stack.shape[1])
        sin, cos = float(np.sin(angle)), float(np.cos(angle))
        turn = torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64)
        turned = interpolated(torch.from_numpy(stack), turn, torch.zeros(2))
        turned = interpolated(turned, torch.eye(2, dtype=torch.float64), shift)
        return np.asarray((turned.flip(2) if rng.random() < 0.5 else turned).numpy())


def interpolated(stack: Tensor, matrix: Tensor, shift: Tensor) -> Tensor:
    """Transforms all slices by matrix and shift, bilinearly, with four look-ups per pixel.

    The library called by the published code rotates and shifts in two separate steps of this kind.
    """
    side = stack.shape[1]
    steps = torch.arange(side, dtype=torch.float64)
    places = torch.cartesian_prod(steps, steps) - (side - 1) / 2
    places = (places @ matrix.T + shift + (side - 1) / 2).clamp(0, side - 1.001)
    corner = places.floor()
    part = (places - corner).T
    flat = stack.flatten(1)
    found = torch.zeros_like(flat)
    for down in (0, 1):
        for over in (0, 1):
            at = ((corner[:, 0] + down) * side + corner[:, 1] + over).long()
            weight = (part[0] if down else 1 - part[0]) * (part[1] if over else 1 - part[1])
            found += flat.gather(1, at.expand(len(flat), -1)) * weight
    return found.view_as(stack)


class ReferenceNetwork(nn.Module):
    """Three AlexNets, mean over pixels, maximum over slices, one linear layer."""

    def __init__(self, findings: int = len(FINDINGS)) -> None:
        super().__init__()
        self.planes = nn.ModuleList(alexnet(weights=None).features for _ in PLANES)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(len(PLANES) * 256, findings)

    def forward(self, stacks: list[Tensor]) -> Tensor:
        """Computes logits (findings,) from one stack (slices, 3, rows, cols) per plane."""
        pooled = [
            self.average(features(stack)).flatten(1).max(dim=0).values
            for features, stack in zip(self.planes, stacks, strict=True)
        ]
        logits: Tensor = self.classifier(torch.cat(pooled))
        return logits


class ReferenceLoop:
    """Training and evaluation of the reference network, one exam at a time.

    Args:
        network: the network to train.
        pos_weight: negatives / positives of each finding.
        rate: learning rate; the published one is 1e-5.
        device: device of the network.
    """

    def __init__(
        self, network: nn.Module, pos_weight: Tensor, rate: float = 1e-5, device: str = "cpu"
    ) -> None:
        self.network, self.device = network.to(device), device
        self.loss = nn.BCEWithLogitsLoss(pos_weight=pos_weight.to(device))
        self.adam = torch.optim.Adam(network.parameters(), lr=rate, weight_decay=0.01)
        self.truth: list[np.ndarray] = []
        self.predictions: list[np.ndarray] = []

    def forget(self) -> None:
        """Clears the history at the start of an epoch."""
        self.truth, self.predictions = [], []

    def read(self, stacks: list[Tensor], labels: Tensor) -> Tensor:
        """Computes an exam's loss, adds its prediction to the history and recomputes the AUCs."""
        logits = self.network([stack.to(self.device) for stack in stacks])
        loss: Tensor = self.loss(logits, labels.to(self.device))
        self.truth.append(labels.numpy())
        self.predictions.append(torch.sigmoid(logits).detach().cpu().numpy())
        truth, predictions = np.array(self.truth), np.array(self.predictions)
        for column in range(truth.shape[1]):
            if len(np.unique(truth[:, column])) > 1:
                roc_auc_score(truth[:, column], predictions[:, column])
        return loss

    def step(self, stacks: list[Tensor], labels: Tensor) -> float:
        """Makes one step of Adam on one exam."""
        self.adam.zero_grad()
        loss = self.read(stacks, labels)
        torch.autograd.backward(loss)
        self.adam.step()
        return float(loss.detach())

    def train(self, exams: ReferenceExams) -> None:
        """Trains one epoch on the shuffled exams."""
        self.network.train()
        self.forget()
        for stacks, labels in loaded(exams, shuffle=True):
            self.step(stacks, labels)

    def evaluate(self, exams: ReferenceExams) -> np.ndarray:
        """Returns probabilities (exams, findings), in order; as published, with gradients."""
        self.network.eval()
        self.forget()
        for stacks, labels in loaded(exams, shuffle=False):
            self.read(stacks, labels)
        return np.array(self.predictions)


def loaded(exams: ReferenceExams, *, shuffle: bool) -> Iterator[Item]:
    """Yields the exams from a loader with one exam per batch."""
    loader = DataLoader(exams, batch_size=1, shuffle=shuffle, num_workers=WORKERS)
    for stacks, labels in loader:
        yield [stack[0] for stack in stacks], labels[0]
