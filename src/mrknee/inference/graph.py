"""The network that is exported: one exam's bytes in, everything that is known of it out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from mrknee.exams import PLANES, Findings, Plane
from mrknee.inference.decomposition import contributions, slice_weights
from mrknee.networks.network import Network
from mrknee.scoring.calibration import Calibration
from mrknee.tensors.settings import PreparationSettings
from mrknee.tensors.traced import TracedPreparation


class ExamGraph(nn.Module):
    """Preparation, network, decomposition and calibration of one exam.

    Args:
        network: one that `why_not_exact` has nothing against.
        preparation: how a stack becomes its input.
        calibration: fitted; None leaves probabilities as the network states them.
        planes: those that the network was trained on; the others count as missing, whatever
            `present` says of them.
    """

    def __init__(
        self,
        network: Network,
        preparation: PreparationSettings,
        calibration: Calibration | None,
        planes: Sequence[Plane] = PLANES,
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
        self.register_buffer("slopes", torch.tensor(slopes))
        self.register_buffer("intercepts", torch.tensor(intercepts))
        self.trained = [float(plane in planes) for plane in PLANES]

    def forward(
        self,
        axial: UInt8[Tensor, "_ _ _"],
        coronal: UInt8[Tensor, "_ _ _"],
        sagittal: UInt8[Tensor, "_ _ _"],
        present: Float[Tensor, " planes"],
    ) -> tuple[Tensor, ...]:
        """One exam.

        Args:
            axial: (slices, rows, cols) as read, one slice or more, any size.
            coronal: the same.
            sagittal: the same.
            present: 1 for each plane that is there, 0 for each that is not (whatever is given in
                its place counts nothing, and the others count 3 / their number). If none is left
                that the network was trained on, every output is NaN.

        Returns:
            What `OUTPUTS` names: calibrated probabilities and logits (findings,), slice scores
            (findings, slices) and heat maps (findings, slices, map rows, map cols) of each plane.
        """
        network = self.network
        if 0.0 in self.trained:
            present = present * torch.tensor(self.trained)
        shares = present * (len(PLANES) / present.sum())
        heads = network.head.weight.split(network.width, dim=1)
        pooled, heat = [], []
        for number, stack in enumerate((axial, coronal, sagittal)):
            plane, share = PLANES[number], shares[number]
            maps = network.encode(plane, self.preparation(stack))
            pooling = network.poolings[plane]
            pooled.append(pooling(maps.mean(dim=(2, 3))) * share)
            weights = slice_weights(pooling, maps)
            heat.append(contributions(maps, weights, heads[number]) * share)
        logits = network.head(torch.cat(pooled))
        probabilities = torch.sigmoid(self.slopes * logits + self.intercepts)
        return probabilities, logits, *(part.sum(dim=(2, 3)) for part in heat), *heat
