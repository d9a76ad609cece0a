"""The costs of an experiment's arms: parameters, storage and training time, from run folders."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np

from mrknee.models.checkpoint import load_checkpoint
from mrknee.run_folder import WEIGHTS_FILE, RunFolder

SHARE_OF_FINAL = 0.95
"""An AUC counts as nearly reached at this share of its final value."""


@dataclass(frozen=True)
class ArmCost:
    """The cost of one arm, or of all networks of a combined arm together; means over the seeds.

    Attributes:
        networks: number of networks.
        parameters: number of weights, without statistics of normalisation layers.
        trained_parameters: the number of these that are not frozen.
        megabytes: size of the files with the weights, in 10^6 bytes. Networks with the same frozen
            encoder each contain a copy of it.
        seconds: seconds of training; NaN if not known.
        epochs_95: the first epoch whose AUC reaches 95 % of that of the last epoch
            (`epoch_nearly_final`), mean over the networks.
        seconds_95: seconds of training up to that epoch of each network; NaN if not known.
    """

    networks: int
    parameters: int
    trained_parameters: int
    megabytes: float
    seconds: float
    epochs_95: float
    seconds_95: float

    def cells(self) -> tuple[str, ...]:
        """Returns the values as text, in the order of `COLUMNS`; empty for NaN."""
        values = astuple(self)
        return tuple(
            str(value) if isinstance(value, int) else "" if math.isnan(value) else f"{value:.1f}"
            for value in values
        )


COLUMNS = tuple(field.name for field in fields(ArmCost))
"""Names of the columns of `costs.csv`, after the arm."""


def epoch_nearly_final(run: RunFolder) -> int | None:
    """Returns the first epoch, from 1, whose mean AUC is at least 95 % of that of the last epoch.

    The AUC is the one that selects the epoch: of the inner exams, or of valid. None if the last
    epoch has no AUC.
    """
    aucs = [row["val/auc_mean"] for row in run.read_metrics()]
    reached = [epoch for epoch, a in enumerate(aucs, 1) if a >= SHARE_OF_FINAL * aucs[-1]]
    return reached[0] if reached else None


def arm_cost(networks: Sequence[Sequence[tuple[Path, float]]]) -> ArmCost:
    """Returns the cost of networks that are used together.

    Args:
        networks: for each network, its run folders (one per seed and fold) and their seconds of
            training; NaN if not known.
    """
    sizes = [_size(RunFolder(runs[0][0])) for runs in networks]
    seconds, epochs, seconds_95 = [], [], []
    for runs in networks:
        times = np.array([taken for _, taken in runs])
        near = np.array([epoch_nearly_final(RunFolder(one)) or math.nan for one, _ in runs])
        trained = np.array([len(RunFolder(one).read_metrics()) for one, _ in runs])
        seconds.append(times.mean())
        epochs.append(near.mean())
        seconds_95.append((times * near / trained).mean())
    return ArmCost(
        len(networks),
        sum(one for one, _, _ in sizes),
        sum(one for _, one, _ in sizes),
        sum(one for _, _, one in sizes) / 1e6,
        float(np.sum(seconds)),
        float(np.mean(epochs)),
        float(np.sum(seconds_95)),
    )


def _size(run: RunFolder) -> tuple[int, int, int]:
    """Returns the numbers of parameters and of trained ones, and the bytes of the weights."""
    parameters = list(load_checkpoint(run.best).network.parameters())
    trained = sum(one.numel() for one in parameters if one.requires_grad)
    size = (run.best / WEIGHTS_FILE).stat().st_size
    return sum(one.numel() for one in parameters), trained, size
