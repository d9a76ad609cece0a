"""The exported network: stacks of one exam -> probabilities, logits, slice scores, heat maps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mrknee.exams import Findings, SeriesList
from mrknee.metrics.calibration import Calibration
from mrknee.models.network import Network
from mrknee.transforms.settings import PreparationSettings
from mrknee.transforms.traced import TracedPreparation


class ExamGraph(nn.Module):
    """Preparation, network, contributions and calibration of one exam.

    Args:
        network: the network.
        preparation: preprocessing of the stacks.
        calibration: fitted calibration; None: probabilities are not calibrated.
        trained: the series that the network was trained on; others are treated as missing,
            regardless of `present`.
    """

    def __init__(
        self,
        network: Network,
        preparation: PreparationSettings,
        calibration: Calibration | None,
        trained: SeriesList,
    ) -> None:
        super().__init__()
        self.network = network
        self.preparation = TracedPreparation(preparation)
        findings = Findings(network.findings)
        slopes = [1.0] * len(findings)
        intercepts = [0.0] * len(findings)
        if calibration is not None:
            slopes = [calibration.slopes[finding] for finding in findings]
            intercepts = [calibration.intercepts[finding] for finding in findings]
        self.slopes = nn.Buffer(torch.tensor(slopes))
        self.intercepts = nn.Buffer(torch.tensor(intercepts))
        self.trained = [float(name in trained.names) for name in network.series.names]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Computes one exam.

        Args:
            inputs: for each series in order, uint8 (slices, rows, cols), at least one slice, any
                size; then `present`, float32 (series,): 1 for each series that is present, 0 for
                each missing one, whose stack is ignored. The present series have the weight number
                of series / number of present series. If no series is present that the network was
                trained on, all outputs are NaN.

        Returns:
            The outputs named by `outputs_of`: calibrated probabilities and logits (findings,),
            slice scores (findings, slices) and heat maps (findings, slices, map rows, map cols) of
            each series.
        """
        *stacks, present = inputs
        network = self.network
        if 0.0 in self.trained:
            present = present * torch.tensor(self.trained)
        maps = {
            name: network.encode(name, self.preparation(stack))
            for name, stack in zip(network.series.names, stacks, strict=True)
        }
        reading = network.read(maps, present=present)
        parts = network.contributions(maps, reading)
        heat = [
            self.preparation.on_all_slices(parts[name], stack)
            for name, stack in zip(network.series.names, stacks, strict=True)
        ]
        logits = reading.logits[0]
        probabilities = torch.sigmoid(self.slopes * logits + self.intercepts)
        return probabilities, logits, *(part.sum(dim=(2, 3)) for part in heat), *heat
