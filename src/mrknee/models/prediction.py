"""Prediction: probabilities from batches of exams."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor
from torch.utils.data import DataLoader

from mrknee.errors import MrkneeError
from mrknee.models.feature_cache import FeatureCache
from mrknee.models.network import Network
from mrknee.progress import Progress
from mrknee.transforms.batches import Batch, ExamDataset, load_batches, raise_if_error
from mrknee.transforms.preparation import Preparation

BATCH_EXAMS = 4
"""Maximum number of exams per batch; results depend on it by rounding only."""

BATCH_SLICES = 200
"""Maximum number of slices per batch, all series together; larger exams are computed alone.

Limits the memory. Two exams of MRNet (94 slices on average) fit into a batch.
"""


def device_here() -> str:
    """Returns `cuda` if available, else `cpu`; other devices lack operations that are used here."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def prediction_batches(
    dataset: ExamDataset, positions: Sequence[int], workers: int = -1
) -> DataLoader[Batch | MrkneeError]:
    """Returns a loader of the batches in which exams are predicted.

    At the end of training and later the batches are the same, whatever the recipe's: on some
    processors, convolutions of other batches round differently.

    Args:
        dataset: the exams.
        positions: positions of the exams to predict.
        workers: number of worker processes, as in `load_batches`.

    Raises:
        MrkneeError: an exam can't be opened.
    """
    return load_batches(dataset, positions, BATCH_EXAMS, batch_slices=BATCH_SLICES, workers=workers)


@torch.inference_mode()
def predict_batches(
    network: Network,
    preparation: Preparation,
    batches: Iterable[Batch | MrkneeError],
    total: int,
    what: str = "reading",
    cache: FeatureCache | None = None,
) -> tuple[tuple[str, ...], Float64[np.ndarray, "exams findings"]]:
    """Predicts batches of exams in evaluation mode without gradients.

    Args:
        network: the network, on the device to compute on.
        preparation: the preparation of slices for the network.
        batches: the exams.
        total: total number of exams, for the progress bar.
        what: text of the progress bar.
        cache: stored feature maps of the network's frozen encoders; None computes the maps.

    Returns:
        Ids of the exams, and uncalibrated probabilities, 0 to 1, in the order of the batches.

    Raises:
        MrkneeError: an exam can't be read.
    """
    network.eval()
    device = next(network.parameters()).device
    ids: list[str] = []
    logits: list[Tensor] = []
    with Progress(total, what) as progress:
        for loaded in batches:
            batch = raise_if_error(loaded).to(device)
            if cache is None:
                found = network(batch.prepared(preparation), batch.lengths)
            else:
                found = cache.logits(batch)
            logits.append(found.double().cpu())
            ids.extend(batch.ids)
            progress.advance(len(batch))
    return tuple(ids), torch.cat(logits).sigmoid().numpy()
