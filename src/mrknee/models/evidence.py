"""Pooling of scores: each cell of each slice has a score per finding, and scores are pooled.

Features that are averaged over a slice lose a lesion of a few pixels. Here the linear layer is
applied to each cell of the feature maps first, and its scores are pooled over the cells and slices
of an exam. A pooling returns the contribution of each cell, and the logit is defined as their sum
plus the bias: training, explanation and export use the same numbers.

To add a pooling of scores, write its class here, add it to `EVIDENCE_POOLINGS`, and its name to
`SlicePooling` in `mrknee.models.settings`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mrknee.models.pooling import ATTENTION_WIDTH
from mrknee.models.settings import SlicePooling


class EvidencePooling(nn.Module, ABC):
    """Base class of poolings of the scores of one exam.

    Args:
        width: number of features per cell.
        findings: number of findings.
        series: number of series that an exam can have.

    Attributes:
        uses_features: whether `forward` needs the features.
    """

    uses_features = False

    @abstractmethod
    def __init__(self, width: int, findings: int, series: int) -> None:
        super().__init__()

    @abstractmethod
    def forward(
        self,
        scores: Mapping[int, Float[Tensor, "_ findings _ _"]],
        features: Mapping[int, Float[Tensor, "_ width"]],
        shares: Float[Tensor, " series"],
    ) -> dict[int, Float[Tensor, "_ findings _ _"]]:
        """Returns the contribution of each cell to each logit of one exam.

        Args:
            scores: index of the series -> (slices, findings, map rows, map cols), for all series of
                the exam.
            features: index of the series -> (slices, width), the features of each slice, averaged
                over its cells; empty if the pooling does not use them.
            shares: number of series divided by the number that the exam has; 0 for missing series.

        Returns:
            Index of the series -> contributions in the shape of the scores.
        """

    @abstractmethod
    def copy_finding(self, row: int, source: Any, old_row: int, series: Mapping[int, int]) -> None:  # noqa: ANN401
        """Copies the weights of a finding from a pooling of the same class.

        Args:
            row: index of the finding.
            source: the other pooling.
            old_row: index of the finding there.
            series: index of a series -> its index there.
        """


class SoftmaxEvidence(EvidencePooling):
    """Average of the scores of a series, weighted by the softmax of the scores themselves.

    With sharpness k, finding by finding: sum of softmax(k s) s over all cells of all slices of a
    series, summed over series. It is the mean for k = 0 and approaches the maximum for large k. k
    is learned per series and finding; it is stored as its logarithm, which is 1 at first: small
    lesions are learned some epochs earlier than with 0 (experiments/LOG.md, "the demo learns
    meniscal tears").
    """

    def __init__(self, width: int, findings: int, series: int) -> None:
        super().__init__(width, findings, series)
        self.log_sharpness = nn.Parameter(torch.ones(series, findings))

    def forward(
        self,
        scores: Mapping[int, Float[Tensor, "_ findings _ _"]],
        features: Mapping[int, Float[Tensor, "_ width"]],
        shares: Float[Tensor, " series"],
    ) -> dict[int, Float[Tensor, "_ findings _ _"]]:
        """Returns weight * `_weighted` of each cell."""
        del features
        return {
            index: shares[index] * self._weights(index, own) * self._weighted(index, own)
            for index, own in scores.items()
        }

    def copy_finding(self, row: int, source: Any, old_row: int, series: Mapping[int, int]) -> None:  # noqa: ANN401
        """Copies the sharpness."""
        for index, old_index in series.items():
            self.log_sharpness[index, row] = source.log_sharpness[old_index, old_row]

    def _weighted(self, index: int, scores: Tensor) -> Tensor:
        """Returns what the weights are multiplied by, (findings, 1, 1) or in the scores' shape."""
        del index
        return scores

    def _weights(self, index: int, scores: Tensor) -> Tensor:
        """Computes the softmax over all dimensions but the findings'."""
        sharpness = self.log_sharpness[index].exp()[:, None]
        flat = scores.permute(1, 0, 2, 3).flatten(1)
        weights = torch.softmax(sharpness * flat, dim=1)
        slices, findings, rows, cols = scores.shape
        return weights.view(findings, slices, rows, cols).permute(1, 0, 2, 3)


class LogSumExpEvidence(SoftmaxEvidence):
    """Log-mean-exp of the scores of a series: log(mean(exp(k s))) / k, with learned sharpness k.

    It lies between the mean (small k) and the maximum (large k), and its gradient is the softmax.
    The contribution of a cell is its softmax weight times the pooled value, so that contributions
    add up to it.
    """

    def _weighted(self, index: int, scores: Tensor) -> Tensor:
        """Returns the pooled value of each finding."""
        sharpness = self.log_sharpness[index].exp()
        flat = sharpness[:, None] * scores.permute(1, 0, 2, 3).flatten(1)
        count = torch.zeros_like(flat).logsumexp(dim=1)  # the logarithm of the number of cells
        value: Tensor = (flat.logsumexp(dim=1) - count) / sharpness
        return value[:, None, None]


class FindingAttention(EvidencePooling):
    """Average of scores over all slices of all series, with learned weights per finding.

    The weight of a slice is the softmax, over all slices of all series of the exam, of
    v tanh(U features), with one v per finding (Ilse et al., "Attention-based Deep Multiple Instance
    Learning", ICML 2018, equations 7 and 8). All cells of a slice have the same weight. No factor
    is needed for missing series.
    """

    uses_features = True

    def __init__(self, width: int, findings: int, series: int) -> None:
        super().__init__(width, findings, series)
        self.hidden = nn.Linear(width, ATTENTION_WIDTH, bias=False)
        self.queries = nn.Linear(ATTENTION_WIDTH, findings, bias=False)

    def forward(
        self,
        scores: Mapping[int, Float[Tensor, "_ findings _ _"]],
        features: Mapping[int, Float[Tensor, "_ width"]],
        shares: Float[Tensor, " series"],
    ) -> dict[int, Float[Tensor, "_ findings _ _"]]:
        """Returns attention * score / cells of each cell."""
        keys = {
            index: self.queries(torch.tanh(self.hidden(own)))
            + shares[index].clamp(max=1).log()  # weight 0 for a missing series
            for index, own in features.items()
        }
        # the softmax over the slices of all series
        total = torch.stack([own.logsumexp(dim=0) for own in keys.values()]).logsumexp(dim=0)
        return {
            index: (keys[index] - total).exp()[:, :, None, None]
            * own
            / (own.shape[2] * own.shape[3])
            for index, own in scores.items()
        }

    def copy_finding(self, row: int, source: Any, old_row: int, series: Mapping[int, int]) -> None:  # noqa: ANN401
        """Copies the weights of the attention, of which the first layer belongs to all findings."""
        del series
        self.hidden.load_state_dict(source.hidden.state_dict())
        self.queries.weight[row] = source.queries.weight[old_row]


EVIDENCE_POOLINGS: Mapping[SlicePooling, type[EvidencePooling]] = {
    "evidence": SoftmaxEvidence,
    "evidence_logsumexp": LogSumExpEvidence,
    "finding_attention": FindingAttention,
}
