"""Do the findings of a joint network pull its shared weights in the same direction?

    python benchmarks/gradient_cosines.py PLAN ARM DATA OUT [--seeds 0,1,2] [--batches 24]

For each seed, the network of an arm of an experiment is trained (a run folder `OUT/runs/seedN`,
resumed if it exists; seeds are those of the command, not of the plan). Before training and after
each epoch, the gradient of each finding's loss with respect to the shared weights is computed for
batches of training exams: always the same batches, without dropout and augmentation. Shared weights
are those before the head: encoders (their trained part, such as the 1x1 layer of
`network.channels`) and the pooling over slices.

`OUT/cosines.csv` has the mean cosines of two gradients of

- two findings, the same batch (`same`),
- two findings, two batches (`other`),
- one finding, two batches (`other`, with the same name twice): this is what noise leaves of a
  cosine of 1. If it is 0.2, then 0.2 between two findings means full agreement.

`corrected` is the cosine of two findings' gradients of two batches, divided by the geometric mean
of the two findings' own: an estimate of the cosine of the gradients over all exams. It is empty if
a finding's own cosine is not above 0. `OUT/cosines.svg` shows all of them, one panel per pair.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from mrknee.experiment_plan import arm_recipe, read_plan
from mrknee.files import atomic_write
from mrknee.library import train
from mrknee.models.checkpoint import load_checkpoint
from mrknee.models.feature_cache import FeatureCache
from mrknee.models.network import Network
from mrknee.models.prediction import device_here
from mrknee.run_folder import RunFolder
from mrknee.training.loss import positive_weights, summed_loss
from mrknee.training.parts import Parts, make_loader, split_exams
from mrknee.training.recipe import Recipe, load_recipe_for
from mrknee.transforms.batches import Batch, raise_if_error
from mrknee.transforms.preparation import Preparation
from mrknee.transforms.settings import AugmentationSettings

COLUMNS = ("seed", "epoch", "first", "second", "batches", "cosine", "corrected")


def networks(recipe: Recipe, parts: Parts, run: Path) -> Iterator[tuple[int, Network]]:
    """Yields epoch and network: 0 and the initial one, then those after each epoch."""
    torch.manual_seed(recipe.seed)
    findings = parts.train.findings or ()
    yield 0, Network(recipe.network, findings, recipe.weights, parts.train.series)
    for epoch, folder in enumerate(sorted(RunFolder(run).epochs.iterdir()), start=1):
        yield epoch, load_checkpoint(folder).network


def gradients(
    network: Network, recipe: Recipe, parts: Parts, batches: Sequence[Batch]
) -> Float[np.ndarray, "findings batches weights"]:
    """Returns the gradients of each finding's loss for each batch, divided by their norms.

    Gradients that are zero, or of batches without a label of the finding, are zeros.
    """
    network.to(device_here()).eval()
    preparation, cache = Preparation.of(recipe.preparation), None
    if recipe.feature_cache is not None:
        cache = FeatureCache(recipe.feature_cache, network, preparation)
    weight = positive_weights(parts.train.labels[list(parts.train_positions)], network.findings)
    weight = weight.to(device_here())
    shared = [
        parameter
        for name, parameter in network.named_parameters()
        if parameter.requires_grad and name.startswith(("encoders.", "poolings."))
    ]
    rows: list[list[Float[np.ndarray, " weights"]]] = [[] for _ in network.findings]
    for batch in batches:
        if cache is None:
            logits = network(batch.prepared(preparation), batch.lengths)
        else:
            logits = cache.logits(batch)
        for place, row in enumerate(rows):
            loss = summed_loss(logits[:, [place]], batch.labels[:, [place]], weight[[place]])
            found = torch.autograd.grad(
                loss, shared, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            flat = torch.cat([one.flatten() for one in found]).double()
            row.append((flat / flat.norm().clamp_min(1e-30)).cpu().numpy())
    return np.array(rows)


def cosines(
    each: Float[np.ndarray, "findings batches weights"], findings: Sequence[str]
) -> list[dict[str, Any]]:
    """Returns the mean cosines: one row per pair of findings, and of the same or other batches."""
    number = each.shape[1]
    apart = ~np.eye(number, dtype=bool)
    products = np.einsum("fbw,gcw->fgbc", each, each)
    own = [products[f, f][apart].mean() for f in range(len(findings))]
    rows = []
    for f, g in combinations_with_replacement(range(len(findings)), 2):
        names = {"first": findings[f], "second": findings[g]}
        other = products[f, g][apart].mean()
        if f != g:
            same = {"batches": "same", "cosine": np.diag(products[f, g]).mean()}
            rows.append({**names, **same, "corrected": math.nan})
        known = f != g and own[f] > 0 and own[g] > 0
        corrected = other / math.sqrt(own[f] * own[g]) if known else math.nan
        rows.append({**names, "batches": "other", "cosine": other, "corrected": corrected})
    return rows


def measure(
    recipe_name: str, data: Path, out: Path, settings: Mapping[str, Any], number: int
) -> list[dict[str, Any]]:
    """Trains with one seed and returns the cosines of all epochs."""
    recipe = load_recipe_for(data, recipe_name, settings)
    run = out / "runs" / f"seed{recipe.seed}"
    train(data, recipe_name, out=run, resume=True, **settings)
    parts = split_exams(data, recipe)
    still = recipe.replace(augmentation=AugmentationSettings(rotation=0, translation=0, mirror=0))
    loader = make_loader(parts.train, parts.train_positions, still, training=True)
    batches = [
        raise_if_error(one).to(device_here()) for one, _ in zip(loader, range(number), strict=False)
    ]
    rows = []
    for epoch, network in networks(recipe, parts, run):
        found = cosines(gradients(network, recipe, parts, batches), network.findings)
        rows += [{"seed": recipe.seed, "epoch": epoch, **row} for row in found]
    return rows


def write(rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Writes `cosines.csv` and `cosines.svg`."""
    with atomic_write(out / "cosines.csv") as beside, beside.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            numbers = {name: row[name] for name in ("cosine", "corrected")}
            texts = {n: "" if math.isnan(v) else f"{v:.6f}" for n, v in numbers.items()}
            writer.writerow({**row, **texts})
    from matplotlib import pyplot

    findings = list(dict.fromkeys(row["first"] for row in rows))
    pairs = list(combinations(findings, 2))
    figure, axes = pyplot.subplots(
        1,
        len(pairs),
        figsize=(4.2 * len(pairs), 3.4),
        squeeze=False,
        sharey=True,
        layout="constrained",
    )
    for area, (one, other) in zip(axes[0], pairs, strict=True):
        for names, batches, value, label in (
            ((one, other), "same", "cosine", "both, same batch"),
            ((one, other), "other", "cosine", "both, two batches"),
            ((one, other), "other", "corrected", "both, corrected for noise"),
            ((one, one), "other", "cosine", f"{one} alone, two batches"),
            ((other, other), "other", "cosine", f"{other} alone, two batches"),
        ):
            epochs, means = _over_seeds(rows, names, batches, value)
            area.plot(epochs, means, marker="o", markersize=3, label=label)
        area.axhline(0, color="grey", linestyle="--", linewidth=1)
        area.set_title(f"{one} and {other}")
        area.set_xlabel("epoch")
        area.legend(fontsize="x-small")
    axes[0, 0].set_ylabel("cosine of gradients, mean over seeds")
    with atomic_write(out / "cosines.svg") as beside:
        figure.savefig(beside, format="svg", metadata={"Date": None})
    pyplot.close(figure)


def _over_seeds(
    rows: Sequence[Mapping[str, Any]], names: tuple[str, str], batches: str, value: str
) -> tuple[list[int], list[float]]:
    each: dict[int, list[float]] = {}
    for row in rows:
        if ((row["first"], row["second"]), row["batches"]) == (names, batches):
            each.setdefault(row["epoch"], []).append(row[value])
    return list(each), [float(np.mean(found)) for found in each.values()]


def main() -> None:
    """Reads the command line, trains, measures and writes the table and the plot."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("plan", type=Path, help="an experiment's plan, such as question-*.yaml")
    parser.add_argument("arm", help="one of its arms, such as joint")
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--batches", type=int, default=24, help="number of batches per network")
    given = parser.parse_args()
    recipe, settings = arm_recipe(read_plan(given.plan), given.plan, given.arm)
    rows: list[dict[str, Any]] = []
    for seed in given.seeds.split(","):
        seeded = {**settings, "keep_every_epoch": True, "seed": int(seed)}
        rows += measure(recipe, given.data, given.out, seeded, given.batches)
        write(rows, given.out)
    print(f"wrote cosines.csv and cosines.svg to {given.out}")


if __name__ == "__main__":
    main()
