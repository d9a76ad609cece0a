"""The network that is exported: one exam's bytes in, everything that is known of it out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mrknee.exams import Findings, SeriesList
from mrknee.networks.network import Network
from mrknee.scoring.calibration import Calibration
from mrknee.tensors.settings import PreparationSettings
from mrknee.tensors.traced import TracedPreparation


class ExamGraph(nn.Module):
    """Preparation, network, contributions and calibration of one exam.

    Args:
        network: the network.
        preparation: how a stack becomes its input.
        calibration: fitted; None leaves probabilities as the network states them.
        trained: the series that the network was trained on; the others count as missing, whatever
            `present` says of them.
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
        """One exam.

        Args:
            inputs: for each series in order, uint8 (slices, rows, cols) as read, one slice or more,
                any size; then `present`, float32 (series,): 1 for each series that is there, 0 for
                each that is not (whatever is given in its place counts nothing, and the others
                count series / their number). If none is left that the network was trained on,
                every output is NaN.

        Returns:
            What `outputs_of` names: calibrated probabilities and logits (findings,), slice scores
            (findings, slices) and heat maps (findings, slices, map rows, map cols) of each series.
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
        heat = network.contributions(maps, reading).values()
        logits = reading.logits[0]
        probabilities = torch.sigmoid(self.slopes * logits + self.intercepts)
        return probabilities, logits, *(part.sum(dim=(2, 3)) for part in heat), *heat
