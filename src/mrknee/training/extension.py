"""Resuming a run with another number of epochs: the effect on the learning rate."""

from __future__ import annotations

from math import isclose

from mrknee.training.optimization import cosine_factor
from mrknee.training.recipe import Recipe


def extension_note(
    recipe: Recipe, epochs_before: int, *, rate: float, step: int, steps: int
) -> str | None:
    """Describes the effect of resuming with more, or fewer, epochs than before.

    Args:
        recipe: the current settings.
        epochs_before: `epochs` at the last start.
        rate: current learning rate of the run.
        step: number of finished optimizer steps.
        steps: optimizer steps of the extended run, the length of the cosine schedule.

    Returns:
        A sentence; None if the number of epochs is the same or has no other effect.
    """
    base, schedule = recipe.optimizer.learning_rate, recipe.schedule
    if schedule.name == "plateau" and recipe.epochs != epochs_before:
        return (
            f"{recipe.epochs} epochs instead of {epochs_before}: the learning rate continues at "
            f"{rate:.3g}, as reduced by the plateau schedule"
        )
    # compare rates, not epochs: a start that was killed before it saved a state has changed
    # `epochs` in settings.yaml, but not the learning rate
    if schedule.name != "cosine" or isclose(rate, base * cosine_factor(step, steps, schedule)):
        return None
    return (
        f"the cosine schedule now spans {recipe.epochs} epochs, so the learning rate jumps from "
        f"{rate:.3g} to {base * cosine_factor(step + 1, steps, schedule):.3g}; the result differs "
        f"from that of a new run of {recipe.epochs} epochs"
    )
