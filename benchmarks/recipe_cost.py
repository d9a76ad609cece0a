"""Operations of a training with recipes of this package, and the time that they take on a GPU.

    python benchmarks/recipe_cost.py [--studies 4349] [--series 5] [--slices 30] [--crop 224]
    python benchmarks/recipe_cost.py --studies 1130 --valid 120 --series 3 --slices 31 \
        --recipes reference default frozen

The first command is for RSNA's data, the second for MRNet's.

The operations of the encoder's convolutions and linear layers are counted for one slice (a
multiply-add counts as two); what follows it is less than a hundredth and is left out. In training,
trained stages take three times as many: the gradients of the input and of the weights of a layer
take as many operations each as the layer itself. They are multiplied by the slices of all epochs.

The time on a GPU is that of published trainings of `rsna2026`'s encoder, ConvNeXt-T: their
operations per second, from the same count (PUBLISHED), so that the share of the GPU's peak that a
training reaches needn't be assumed. Encoders with other layers reach other shares. No GPU was
available for a measurement.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mrknee.exams import RSNA_2026_FINDINGS, USUAL_SERIES
from mrknee.models.bodies import feature_maps
from mrknee.models.network import Network
from mrknee.training.recipe import Recipe, load_recipe

PUBLISHED_RECIPE = "rsna2026"
"""The recipe with the encoder of the published trainings."""

RECIPES = (PUBLISHED_RECIPE, "rsna2026-small")

PUBLISHED = {"RTX 4090": (1.5, 2.0), "T4": (6.0, 10.0)}
"""GPU -> hours of training ConvNeXt-T with the numbers below: docs/superpowers/plans/
2026-10-06-p69-convnext-plan.md in github.com/TianK003/RSNA-KneeMRI-kaggle-competition, read in
November 2026."""

PUBLISHED_STUDIES, PUBLISHED_SLICES, PUBLISHED_CROP, PUBLISHED_EPOCHS = 4349, 34, 288, 20


@dataclass(frozen=True)
class Cost:
    """Operations of one slice.

    Attributes:
        forward: of encoding it.
        trained: of these, the ones of trained stages; 0 if the encoder is frozen.
    """

    forward: int
    trained: int

    @property
    def training(self) -> int:
        """Operations of encoding a slice and of all gradients."""
        return self.forward + 2 * self.trained


def count(recipe: Recipe) -> Cost:
    """Counts the operations of a recipe's encoder for one slice."""
    network = Network(recipe.network, tuple(RSNA_2026_FINDINGS), "none", USUAL_SERIES)
    encoder = network.encoder(network.series.names[0])
    side = recipe.preparation.crop
    counted: list[int] = []
    trained: list[int] = []

    def add(layer: nn.Module, inputs: tuple[Tensor], result: Tensor) -> None:
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        each = layer.weight[0].numel()
        if isinstance(layer, nn.Conv2d):  # grey images need one of the three channels of weights
            each = inputs[0].shape[1] // layer.groups * layer.weight[0, 0].numel()
        done = 2 * result.numel() * each
        counted.append(done)
        trained.append(done if layer.weight.requires_grad else 0)

    for layer in encoder.body.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(add)
    channels = 3 if encoder.repeats else recipe.preparation.channels
    image = torch.zeros(1, channels, side, side)
    with torch.no_grad():
        feature_maps(encoder.body, image, recipe.network.feature_maps)
    return Cost(sum(counted), sum(trained))


def slices_of(recipe: Recipe, series: float, slices: int) -> tuple[float, float]:
    """Returns the slices of a study that are trained on per epoch, and read in prediction."""
    trained = min(slices, recipe.slices_per_series or slices)
    return series * trained, series * min(slices, recipe.preparation.read_slices or slices)


def total(
    recipe: Recipe, cost: Cost, studies: int, valid: int, series: float, slices: int
) -> float:
    """Returns the operations of a training, with the selection of the epoch after each one."""
    trained, read = slices_of(recipe, series, slices)
    on_inner = recipe.selection.part == "inner"
    inner = studies * recipe.selection.fraction if on_inner else 0
    selecting = inner if on_inner else valid
    epochs = recipe.epochs
    if not cost.trained:  # with --feature_cache, each slice is encoded once
        epochs, trained = 1, series * slices
    return epochs * ((studies - inner) * trained * cost.training + selecting * read * cost.forward)


def main() -> None:
    """Prints the counts and the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=PUBLISHED_STUDIES)
    parser.add_argument("--valid", type=int, default=0, help="studies in valid")
    parser.add_argument("--series", type=float, default=5, help="mean number of series per study")
    parser.add_argument("--slices", type=int, default=30, help="slices per series")
    parser.add_argument("--crop", type=int, default=224, help="another size for rsna2026")
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES))
    given = parser.parse_args()
    smaller = {"preparation.size": given.crop, "preparation.min_size": given.crop}
    recipes = {name: load_recipe(name) for name in given.recipes}
    if PUBLISHED_RECIPE in recipes:
        recipes[f"{PUBLISHED_RECIPE}, {given.crop} px"] = load_recipe(
            PUBLISHED_RECIPE, {**smaller, "preparation.crop": given.crop}
        )
    other = load_recipe(PUBLISHED_RECIPE)
    assert other.preparation.crop == PUBLISHED_CROP
    published = count(other)
    done = PUBLISHED_STUDIES * PUBLISHED_SLICES * PUBLISHED_EPOCHS * published.training
    print(f"published training: {done / 1e15:.0f}e15 operations")
    rates = {}
    for gpu, hours in PUBLISHED.items():
        rates[gpu] = [done / (hour * 3600) for hour in hours]
        shown = " to ".join(f"{rate / 1e12:.1f}" for rate in reversed(rates[gpu]))
        print(f"  {gpu}: {hours[0]:g} to {hours[1]:g} h, {shown}e12 per second")
    for name, recipe in recipes.items():
        cost = count(recipe)
        trained, read = slices_of(recipe, given.series, given.slices)
        whole = total(recipe, cost, given.studies, given.valid, given.series, given.slices)
        print(
            f"{name}: {cost.forward / 1e9:.2f}e9 operations per slice, in training "
            f"{cost.training / 1e9:.2f}e9; {trained:g} slices per study and epoch, {read:g} in "
            f"prediction ({read * cost.forward / 1e12:.2f}e12); {given.studies} studies, "
            f"{recipe.epochs} epochs: {whole / 1e15:.2f}e15"
        )
        for gpu, both in rates.items():
            low, high = (whole / rate / 3600 for rate in both)
            print(f"  {gpu}: {low:.2g} to {high:.2g} h")


if __name__ == "__main__":
    main()
