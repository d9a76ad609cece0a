"""The loss: weighted binary cross-entropy over the known labels."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from mrknee.errors import DataError


def positive_weights(
    labels: Float[np.ndarray, "exams findings"], findings: tuple[str, ...]
) -> Float[Tensor, " findings"]:
    """Returns the number of negatives divided by that of positives, per finding.

    A soft label counts as a share of each: 0.3 is 0.3 of a positive and 0.7 of a negative. Unknown
    labels count as neither.

    Args:
        labels: labels of the exams trained on only: 0 to 1, or NaN (unknown).
        findings: names of the findings, for the error.

    Returns:
        float32; for MRNet's training labels 0.24, 4.43, 1.85.

    Raises:
        MrkneeError: a finding has no positive or no negative exam.
    """
    positives, negatives = np.nansum(labels, axis=0), np.nansum(1 - labels, axis=0)
    for finding, pos, neg in zip(findings, positives, negatives, strict=True):
        if not pos or not neg:
            raise DataError(
                f"{finding} can't be learned from these exams",
                code="no-labels",
                expected="at least one positive and one negative exam to train on",
                found=f"{pos:g} positive, {neg:g} negative",
                advice="select the findings to learn with --findings",
            )
    return torch.from_numpy(negatives / positives).float()


def summed_loss(
    logits: Float[Tensor, "exams findings"],
    labels: Float[Tensor, "exams findings"],
    pos_weight: Float[Tensor, " findings"],
) -> Float[Tensor, ""]:
    """Returns the sum of the weighted cross-entropy over the known labels; 0 if there are none.

    Sums over parts of a batch add up to the sum over the batch; means don't if labels are missing.
    """
    known = ~torch.isnan(labels)
    losses = functional.binary_cross_entropy_with_logits(
        logits, labels.nan_to_num(), pos_weight=pos_weight, reduction="none"
    )
    return (losses * known).sum()
