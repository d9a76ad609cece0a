"""The loss: weighted binary cross-entropy over the labels that are known."""

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
    """Negatives divided by positives, per finding; unknown labels count as neither.

    A soft label counts as a share of each: 0.3 is 0.3 of a positive and 0.7 of a negative.

    Args:
        labels: of the exams trained on, and of no others: 1, 0, between them, or NaN (not known).
        findings: their names, for the error.

    Returns:
        float32; on MRNet's training labels 0.24, 4.43, 1.85.

    Raises:
        MrkneeError: a finding has no positive or no negative exam.
    """
    positives, negatives = np.nansum(labels, axis=0), np.nansum(1 - labels, axis=0)
    for name, pos, neg in zip(findings, positives, negatives, strict=True):
        if not pos or not neg:
            raise DataError(
                f"{name} can't be learned from these exams",
                code="no-labels",
                expected="at least one positive and one negative exam to train on",
                found=f"{pos:g} positive, {neg:g} negative",
                advice="name the findings to learn with --findings",
            )
    return torch.from_numpy(negatives / positives).float()


def summed_loss(
    logits: Float[Tensor, "exams findings"],
    labels: Float[Tensor, "exams findings"],
    pos_weight: Float[Tensor, " findings"],
) -> Float[Tensor, ""]:
    """The sum of the weighted cross-entropy over the known labels; 0 where none is known.

    Sums of parts of a batch add up to the batch's; means don't, when labels are missing.
    """
    known = ~torch.isnan(labels)
    each = functional.binary_cross_entropy_with_logits(
        logits, labels.nan_to_num(), pos_weight=pos_weight, reduction="none"
    )
    return (each * known).sum()
