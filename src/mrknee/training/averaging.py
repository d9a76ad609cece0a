"""Averages of the weights over training, which replace the weights in evaluation and saving.

Both kinds are computed by torch's `AveragedModel`. Buffers, such as the statistics of batch
normalisation, are not averaged: they are those of the current network.
"""

from __future__ import annotations

import copy
from collections import deque
from typing import Any, cast

from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mrknee.models.network import Network
from mrknee.training.recipe import Recipe


class WeightAverage:
    """The average of a network's weights over steps (`ema`) or epochs (`average_last`).

    Exactly one of the two settings is given.

    Args:
        network: the network that is trained, on its device.
        ema: decay per step of the exponential moving average. It starts with the weights after the
            first step.
        last: number of epochs whose final weights are averaged, the current epoch included; fewer
            in the first epochs.

    Attributes:
        network: a network with the averaged weights, in evaluation mode.
    """

    def __init__(self, network: Network, ema: float | None, last: int | None) -> None:
        self._ema = ema
        self._model = AveragedModel(
            network, multi_avg_fn=None if ema is None else get_ema_multi_avg_fn(ema)
        )
        self._snapshots: deque[Network] = deque(maxlen=last)  # of the last epochs
        self.network = cast(Network, self._model.module).eval()

    @classmethod
    def of(cls, network: Network, recipe: Recipe) -> WeightAverage | None:
        """Returns the average that the recipe asks for; None if it asks for none."""
        if recipe.ema is None and recipe.average_last is None:
            return None
        return cls(network, recipe.ema, recipe.average_last)

    def add_step(self, network: Network) -> None:
        """Adds the weights after an optimizer step."""
        if self._ema is not None:
            self._model.update_parameters(network)

    def add_epoch(self, network: Network) -> None:
        """Adds the weights at the end of an epoch."""
        if self._ema is None:
            self._snapshots.append(copy.deepcopy(network))
            self._average_snapshots()

    def _average_snapshots(self) -> None:
        self._model.n_averaged.zero_()
        for snapshot in self._snapshots:
            self._model.update_parameters(snapshot)

    def state(self) -> dict[str, Any]:
        """Returns the state needed to continue: tensors and plain values."""
        return {
            "model": self._model.state_dict(),
            "snapshots": [snapshot.state_dict() for snapshot in self._snapshots],
        }

    def restore(self, state: dict[str, Any], network: Network) -> None:
        """Restores a `state`; the network gives its architecture only."""
        self._model.load_state_dict(state["model"])
        self._snapshots.clear()
        for weights in state["snapshots"]:
            snapshot = copy.deepcopy(network)
            snapshot.load_state_dict(weights)
            self._snapshots.append(snapshot)
