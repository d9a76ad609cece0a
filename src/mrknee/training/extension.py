"""A run that goes on with another number of epochs: what that does to its learning rate."""

from __future__ import annotations

from math import isclose

from mrknee.training.optimization import cosine_factor
from mrknee.training.recipe import Recipe


def extension_note(
    recipe: Recipe, epochs_before: int, *, rate: float, step: int, steps: int
) -> str | None:
    """What a person should know before a run goes on with more, or fewer, epochs than before.

    Args:
        recipe: the settings now.
        epochs_before: its `epochs` at the last start.
        rate: the learning rate the run has reached.
        step: optimizer steps made so far.
        steps: optimizer steps of the whole run now, the cosine's length.

    Returns:
        A sentence; None where the number of epochs is the same, or changes nothing else.
    """
    base, schedule = recipe.optimizer.learning_rate, recipe.schedule
    if schedule.name == "plateau" and recipe.epochs != epochs_before:
        return (
            f"{recipe.epochs} epochs in place of {epochs_before}: the learning rate goes on from "
            f"{rate:.3g}, where the plateau has brought it"
        )
    # a start that was killed before it saved has left its `epochs` in settings.yaml, but not in
    # the learning rate
    if schedule.name != "cosine" or isclose(rate, base * cosine_factor(step, steps, schedule)):
        return None
    return (
        f"the cosine is drawn anew over {recipe.epochs} epochs, so the learning rate jumps from "
        f"{rate:.3g} to {base * cosine_factor(step + 1, steps, schedule):.3g}; the result is not "
        f"that of one run of {recipe.epochs} epochs, which needs a new run folder"
    )
