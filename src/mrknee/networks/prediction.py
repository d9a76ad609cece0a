"""Batches of exams to probabilities."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from mrknee.errors import MrkneeError
from mrknee.networks.network import Network
from mrknee.progress import Progress
from mrknee.tensors.batches import Batch, unfold
from mrknee.tensors.preparation import Preparation


def device_here() -> str:
    """The device to compute on: the GPU where there is one that every operation used here knows."""
    return "cuda" if torch.cuda.is_available() else "cpu"


@torch.inference_mode()
def predict_batches(
    network: Network,
    preparation: Preparation,
    batches: Iterable[Batch | MrkneeError],
    total: int,
    what: str = "reading",
) -> tuple[tuple[str, ...], Float64[np.ndarray, "exams findings"]]:
    """Reads exams, batch by batch, in evaluation mode and without gradients.

    Args:
        network: on the device to compute on.
        preparation: how slices become its input.
        batches: the exams.
        total: how many exams they hold, for the progress bar.
        what: what the bar says.

    Returns:
        The exams' ids and one uncalibrated probability per finding, 0 to 1, in the batches' order.

    Raises:
        MrkneeError: an exam couldn't be read.
    """
    network.eval()
    device = next(network.parameters()).device
    ids: list[str] = []
    logits: list[Tensor] = []
    with Progress(total, what) as progress:
        for loaded in batches:
            batch = unfold(loaded).to(device)
            found = network(batch.prepared(preparation), batch.lengths)
            logits.append(found.double().cpu())
            ids.extend(batch.ids)
            progress.advance(len(batch))
    return tuple(ids), torch.cat(logits).sigmoid().numpy()
