"""The optimizer of a recipe, and the schedules that depend on the step only."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import torch

from mrknee.training.parameter_groups import ParameterGroup
from mrknee.training.recipe import OptimizerSettings, ScheduleSettings

DIV_FACTOR = 25.0
"""`learning_rate` divided by the initial rate of one_cycle: the default of PyTorch's OneCycleLR."""

FINAL_DIV_FACTOR = 1e4
"""Initial rate of one_cycle divided by its last rate: the default of PyTorch's OneCycleLR."""


def make_optimizer(
    parameters: Iterable[torch.nn.Parameter] | Iterable[ParameterGroup],
    settings: OptimizerSettings,
) -> torch.optim.Optimizer:
    """Creates the recipe's optimizer for parameters, or for groups with rates of their own."""
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.name == "adam":
        return torch.optim.Adam(parameters, lr=rate, weight_decay=decay)
    if settings.name == "adamw":
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
    return torch.optim.SGD(
        parameters,
        lr=rate,
        weight_decay=decay,
        momentum=settings.momentum,
        nesterov=settings.momentum > 0,
    )


def cosine_factor(step: int, steps: int, settings: ScheduleSettings) -> float:
    """Returns the factor of the learning rate at a step: linear warm-up, then half a cosine."""
    warm = settings.warmup * steps
    if step < warm:
        return (step + 1) / (warm + 1)
    return 0.5 * (1 + math.cos(math.pi * min((step - warm) / max(steps - warm, 1), 1.0)))


def one_cycle_factor(step: int, steps: int, settings: ScheduleSettings) -> float:
    """Returns the factor of the learning rate at a step, as PyTorch's OneCycleLR computes it.

    The factor rises from 1 / `DIV_FACTOR` to 1 and falls to 1 / (`DIV_FACTOR` x
    `FINAL_DIV_FACTOR`), each along half a cosine.
    """
    first = 1 / DIV_FACTOR
    peak, last = settings.pct_start * steps - 1, steps - 1
    if step < peak:
        return _between(first, 1.0, step / peak)
    return _between(1.0, first / FINAL_DIV_FACTOR, min((step - peak) / (last - peak), 1.0))


def _between(start: float, end: float, share: float) -> float:
    """Returns the value of half a cosine from `start` to `end` after a share of its length."""
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


FACTORS: Mapping[str, Callable[[int, int, ScheduleSettings], float]] = {
    "cosine": cosine_factor,
    "one_cycle": one_cycle_factor,
}
"""Name of a schedule -> factor of the learning rate at a step, given the number of all steps."""
