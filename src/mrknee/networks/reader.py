"""Preparation and network together: a batch of bytes in, logits out."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from mrknee.errors import MrkneeError
from mrknee.networks.network import Network
from mrknee.progress import Progress
from mrknee.tensors.batches import Batch, unfold
from mrknee.tensors.preparation import Preparation


def device_here() -> str:
    """The device to compute on: the GPU where there is one that every operation used here knows."""
    return "cuda" if torch.cuda.is_available() else "cpu"


class Reader(nn.Module):
    """What reads an exam: the same whether it trains, serves or is exported.

    Args:
        preparation: from stack to input.
        network: from input to logits.
    """

    def __init__(self, preparation: Preparation, network: Network) -> None:
        super().__init__()
        self.preparation, self.network = preparation, network

    def prepare(self, batch: Batch) -> dict[str, Float[Tensor, "_ 1 _ _"]]:
        """The network's input, by plane: the batch's slices, normalised."""
        return {
            plane: self.preparation.normalise(stack, batch.lengths[plane])
            for plane, stack in batch.slices.items()
        }

    def forward(self, batch: Batch) -> Float[Tensor, "exams findings"]:
        """One logit a finding, in the network's order of findings."""
        logits: Tensor = self.network(self.prepare(batch), batch.lengths)
        return logits

    @torch.inference_mode()
    def read(
        self, batches: Iterable[Batch | MrkneeError], total: int, what: str = "reading"
    ) -> tuple[tuple[str, ...], Float64[np.ndarray, "exams findings"]]:
        """Reads exams, batch by batch, in evaluation mode and without gradients.

        Args:
            batches: the exams.
            total: how many exams they hold, for the progress bar.
            what: what the bar says.

        Returns:
            The exams' ids and one probability a finding, 0 to 1, in the batches' order.

        Raises:
            MrkneeError: an exam couldn't be read.
        """
        self.eval()
        device = next(self.parameters()).device
        ids: list[str] = []
        logits: list[Tensor] = []
        with Progress(total, what) as progress:
            for loaded in batches:
                batch = unfold(loaded)
                logits.append(self(batch.to(device)).double().cpu())
                ids.extend(batch.ids)
                progress.advance(len(batch))
        return tuple(ids), torch.cat(logits).sigmoid().numpy()
