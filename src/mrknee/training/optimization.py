"""The optimizer and the cosine schedule of a recipe."""

from __future__ import annotations

import math

import torch

from mrknee.training.recipe import OptimizerSettings, ScheduleSettings


def make_optimizer(
    parameters: list[torch.nn.Parameter], settings: OptimizerSettings
) -> torch.optim.Optimizer:
    """Creates the recipe's optimizer for the given parameters."""
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
