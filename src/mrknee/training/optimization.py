"""The recipe's optimizer and its learning rate."""

from __future__ import annotations

import math

import torch

from mrknee.training.recipe import OptimizerSettings, ScheduleSettings


def make_optimizer(
    parameters: list[torch.nn.Parameter], settings: OptimizerSettings
) -> torch.optim.Optimizer:
    """The recipe's optimizer over these parameters."""
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
    """The learning rate's factor at a step: linear from 0 in the warm-up, then a half cosine."""
    warm = settings.warmup * steps
    if step < warm:
        return (step + 1) / (warm + 1)
    return 0.5 * (1 + math.cos(math.pi * min((step - warm) / max(steps - warm, 1), 1.0)))
