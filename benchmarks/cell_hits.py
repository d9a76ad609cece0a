"""How often the hottest cell of a model's maps lies on the lesion, on exams with known lesions.

    python benchmarks/cell_hits.py RUN DATA [--split valid] [--exams 400] [--only-map 0]

The hottest cell is that of all series together; it counts as a hit if it contains a pixel of the
lesion, after the model's scaling and crop. Networks with larger cells hit more often by chance,
which is the mean share of cells that contain a pixel. `mrknee validate-maps` measures the hottest
pixel instead, which lies in the middle of the hottest cell. `--only-map` leaves one of several
feature maps (0 is the finest) to a network with `network.channels`: which of them points where?
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from mrknee import load_model, open_dataset
from mrknee.explanations.explanation import Explanation
from mrknee.explanations.map_validation import Masks, read_masks
from mrknee.inference.torch_model import TorchModel
from mrknee.metrics.proportions import wilson
from mrknee.models.neck import Neck
from mrknee.models.network import Network
from mrknee.progress import track
from mrknee.transforms.preparation import Preparation


def cells_of(
    masks: Masks, native: Mapping[str, np.ndarray], preparation: Preparation
) -> list[np.ndarray]:
    """Returns which cells of each series contain a pixel of the lesion."""
    found = []
    for name, mask in masks.items():
        framed = preparation.frame(torch.from_numpy(mask.astype(np.uint8) * 255))
        cells = functional.adaptive_max_pool2d(framed[:, None].float(), native[name].shape[2:])
        found.append((cells[:, 0] > 127).numpy())
    return found


def hit(made: Explanation, finding: str, masks: Masks) -> tuple[bool, float]:
    """Returns whether the hottest cell is a hit, and the chance of a random one."""
    preparation = Preparation.of(made.preparation)
    inside = cells_of(masks, made.native, preparation)
    index = made.findings.index(finding)
    heats = [made.native[name][index] for name in masks]
    hottest = max(range(len(heats)), key=lambda number: float(heats[number].max()))
    chance = np.concatenate([one.ravel() for one in inside]).mean()
    return bool(inside[hottest].ravel()[heats[hottest].argmax()]), float(chance)


def keep_one_map(network: Network, kept: int) -> None:
    """Sets the weights and biases that reduce the other feature maps to 0."""
    for module in network.modules():
        if isinstance(module, Neck):
            for index, convolve in enumerate(module.convolutions):
                if index != kept:
                    for parameter in convolve.parameters():
                        torch.nn.init.zeros_(parameter)


def main() -> None:
    """Reads the command line and prints the hit rates."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", default="valid")
    parser.add_argument("--exams", type=int, help="the first so many exams; all if not given")
    parser.add_argument("--only-map", type=int, metavar="INDEX", help="default: all")
    given = parser.parse_args()
    model, exams = load_model(given.model), open_dataset(given.data, split=given.split)
    if given.only_map is not None:
        if not isinstance(model, TorchModel):
            parser.error("--only-map needs a run folder")
        keep_one_map(model.network, given.only_map)
    labelled = list(exams.findings or ())
    names = [name for name in model.findings if name in labelled]
    found: dict[str, list[tuple[bool, float]]] = {name: [] for name in names}
    pairs = list(islice(zip(exams.ids, exams.labels, strict=True), given.exams))
    for exam_id, labels in track(pairs, len(pairs), "explaining"):
        having = [name for name in names if labels[labelled.index(name)] == 1]
        if having:
            made = model.explain(exams[exam_id])
            for name in having:
                masks = read_masks(exams, name, made)
                if masks is not None:
                    found[name].append(hit(made, name, masks))
    for name, each in found.items():
        if each:
            hits, chances = zip(*each, strict=True)
            rate = wilson(sum(hits), len(hits))
            print(
                f"{name}: {rate.count} of {rate.n}, {rate.value:.3f} ({rate.low:.3f} to "
                f"{rate.high:.3f}); by chance {np.mean(chances):.4f}"
            )


if __name__ == "__main__":
    main()
