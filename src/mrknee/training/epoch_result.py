"""What an epoch's exams were predicted to be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mrknee.exams import cut_labels
from mrknee.scoring.discrimination import auc


class EpochResult:
    """What an epoch's exams were predicted to be, gathered batch by batch.

    Attributes:
        ids: exams in the order they came.
        losses: each batch's loss, the mean over its known labels.
        latest: exams in the latest batch.
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
        """Takes one batch's logits, labels and summed loss; returns its number of known labels."""
        known = int((~labels.isnan()).sum())
        self.latest = len(ids)
        self.ids.extend(ids)
        self.losses.append(loss / max(known, 1))
        self._logits.append(logits)
        self._labels.append(labels)
        return known

    def state(self) -> dict[str, Any]:
        """All of it in plain values and tensors, for a run that is interrupted."""
        return {
            "ids": self.ids,
            "losses": self.losses,
            "logits": self._logits,
            "labels": self._labels,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes back what `state` gave."""
        self.ids, self.losses = list(state["ids"]), list(state["losses"])
        self._logits, self._labels = list(state["logits"]), list(state["labels"])

    @property
    def labels(self) -> Float[np.ndarray, "exams findings"]:
        """1, 0, between them, or NaN (not known)."""
        return torch.cat(self._labels).double().numpy()

    @property
    def probabilities(self) -> Float[np.ndarray, "exams findings"]:
        """0 to 1."""
        return torch.cat(self._logits).double().sigmoid().numpy()

    def loss(self) -> float:
        """The mean of the batches' losses, each weighed by its known labels; NaN without any."""
        known = [int((~labels.isnan()).sum()) for labels in self._labels]
        return float(np.average(self.losses, weights=known)) if any(known) else math.nan

    def aucs(self) -> dict[str, float]:
        """AUC of each finding and `mean`, over the findings that have one; NaN where none can be.

        An AUC needs both classes: a finding that shows one class only has none. Soft labels are of
        the positive class from 0.5 on.
        """
        labels, probabilities = cut_labels(self.labels), self.probabilities
        each = {
            name: auc(labels[:, i], probabilities[:, i]).value
            for i, name in enumerate(self.findings)
        }
        known = [value for value in each.values() if not math.isnan(value)]
        return {**each, "mean": float(np.mean(known)) if known else math.nan}
