"""Predictions, losses and AUCs of one epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mrknee.exams import cut_labels
from mrknee.metrics.discrimination import auc


class EpochResult:
    """Predictions and losses of one epoch, collected batch by batch.

    Attributes:
        ids: exam ids, in order of arrival.
        losses: loss per batch, the mean over its known labels.
        latest: number of exams in the latest batch.
    """

    def __init__(self, findings: tuple[str, ...]) -> None:
        self.findings = findings
        self.ids: list[str] = []
        self.losses: list[float] = []
        self.latest = 0
        self._logits: list[Tensor] = []
        self._labels: list[Tensor] = []

    def add(
        self,
        ids: Sequence[str],
        logits: Float[Tensor, "exams findings"],
        labels: Float[Tensor, "exams findings"],
        loss: float,
    ) -> int:
        """Adds a batch's logits, labels and summed loss; returns its number of known labels."""
        known = int((~labels.isnan()).sum())
        self.latest = len(ids)
        self.ids.extend(ids)
        self.losses.append(loss / max(known, 1))
        self._logits.append(logits)
        self._labels.append(labels)
        return known

    def state(self) -> dict[str, Any]:
        """Returns the content as plain values and tensors, to resume an interrupted run."""
        return {
            "ids": self.ids,
            "losses": self.losses,
            "logits": self._logits,
            "labels": self._labels,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restores the content returned by `state`."""
        self.ids, self.losses = list(state["ids"]), list(state["losses"])
        self._logits, self._labels = list(state["logits"]), list(state["labels"])

    @property
    def labels(self) -> Float[np.ndarray, "exams findings"]:
        """Labels: 0 to 1, or NaN (unknown)."""
        return torch.cat(self._labels).double().numpy()

    @property
    def probabilities(self) -> Float[np.ndarray, "exams findings"]:
        """Predicted probabilities, 0 to 1."""
        return torch.cat(self._logits).double().sigmoid().numpy()

    def loss(self) -> float:
        """Returns the mean loss over all known labels; NaN if there are none."""
        known = [int((~labels.isnan()).sum()) for labels in self._labels]
        return float(np.average(self.losses, weights=known)) if any(known) else math.nan

    def aucs(self) -> dict[str, float]:
        """Returns the AUC of each finding and their `mean` over the findings that have one.

        The AUC of a finding with labels of one class only is NaN, and so is the mean without any
        AUC. Soft labels of 0.5 and above count as positive.
        """
        labels, probabilities = cut_labels(self.labels), self.probabilities
        aucs = {
            name: auc(labels[:, i], probabilities[:, i]).value
            for i, name in enumerate(self.findings)
        }
        known = [value for value in aucs.values() if not math.isnan(value)]
        return {**aucs, "mean": float(np.mean(known)) if known else math.nan}
