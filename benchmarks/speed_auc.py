"""AUCs of the published and of mrknee's training loop, and of 8 bits, on synthetic knees.

python benchmarks/speed_auc.py OUT [--train 700] [--valid 500] [--epochs 6] [--seed 0]

The reference network is trained from the same random weights (initialised as in He et al. 2015) by
the published loop (one exam per step, float32) and by mrknee (one and four exams per step, in
bfloat16 if the processor supports it). Then mrknee's model in 8 bits is compared with float32. The
knees have 96 pixels, of which the central 64 are read, and half of MRNet's slices. The last epoch
is used, without selection. `--seed` determines the order of exams, the augmentation and the initial
weights of the head, not the knees. OUT can be used again with the same options: existing results
are kept.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from reference_loop import FINDINGS, ReferenceExams, ReferenceLoop, ReferenceNetwork
from torch import nn

from mrknee.exams import Dataset, Findings
from mrknee.export.onnx import Int8, export
from mrknee.inference.model import load_model
from mrknee.metrics.comparison import compare
from mrknee.metrics.predictions import Predictions
from mrknee.progress import track
from mrknee.sources.phantom.cohort import write_cohort
from mrknee.training.loss import positive_weights
from mrknee.training.recipe import load_recipe
from mrknee.training.run import train

SIZE, CROP = 96, 64
RATE = 1e-4
"""Learning rate; the published one, 1e-5, is for weights pretrained on ImageNet."""

EXAMS = (1, 4)
"""Exams per step of mrknee. The learning rate is proportional to the square root of their number,
as is usual for Adam."""


def initial_weights(file: Path) -> Path:
    """Writes AlexNet's convolutions, initialised by He's rule, as the start of both loops."""
    if not file.exists():
        torch.manual_seed(0)
        features = ReferenceNetwork().planes[0]
        for layer in features.children():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # AlexNet's have one
        torch.save({f"features.{k}": v for k, v in features.state_dict().items()}, file)
    return file


def train_plainly(data: Path, start: Path, epochs: int, seed: int, out: Path) -> Predictions:
    """Trains by the published loop; returns the predictions on valid after the last epoch."""
    if out.exists():
        return Predictions.read(out)
    torch.manual_seed(seed)
    network = ReferenceNetwork()
    state = torch.load(start, weights_only=True)
    for plane in network.planes:
        plane.load_state_dict({k.removeprefix("features."): v for k, v in state.items()})
    labels = Dataset.of_split(data, "train").labels
    loop = ReferenceLoop(network, positive_weights(labels, FINDINGS), RATE)
    exams = ReferenceExams(data, "train", augment=True, size=SIZE, crop=CROP)
    for _ in track(range(epochs), epochs, "the published loop", "epochs"):
        loop.train(exams)
    valid = ReferenceExams(data, "valid", augment=False, size=SIZE, crop=CROP)
    found = Predictions(
        tuple(valid.ids), Findings(FINDINGS), loop.evaluate(valid).astype(np.float64)
    )
    found.write(out)
    return found


def train_ours(data: Path, start: Path, epochs: int, seed: int, exams: int, run: Path) -> Path:
    """Trains by mrknee with the reference recipe; returns the model of the last epoch."""
    recipe = load_recipe(
        "reference",
        {
            "weights": str(start), "preparation.size": SIZE, "preparation.crop": CROP,
            "optimizer.learning_rate": RATE * exams**0.5, "schedule.name": "constant",
            "epochs": epochs, "seed": seed, "batch_exams": exams, "precision": "auto",
            "keep_every_epoch": False, "loggers": [],
        },
    )  # fmt: skip
    train(data, run, recipe, resume=True)
    return run / "last"


def main() -> None:
    """Trains, exports, compares and writes OUT/speed_auc.json."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--train", type=int, default=700)
    parser.add_argument("--valid", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    data = given.out / "data"
    write_cohort(data, train=given.train, valid=given.valid, seed=5, size=SIZE, slice_factor=0.5)
    start = initial_weights(given.out / "start.pt")
    lasts = {
        f"mrknee, {n} a step": train_ours(
            data, start, given.epochs, given.seed, n, given.out / f"run-{n}"
        )
        for n in EXAMS
    }
    plainly = train_plainly(data, start, given.epochs, given.seed, given.out / "plain.csv")
    valid = Dataset.of_split(data, "valid")
    found = {"published loop": plainly}
    found.update({name: load_model(last).predict(valid) for name, last in lasts.items()})
    first = next(iter(lasts.values()))
    export(first, given.out / "float32.onnx")
    int8 = Int8(data, limit=1.0)  # accepts any loss of AUC, which is reported below
    export(first, given.out / "int8.onnx", int8=int8)
    for name in ("float32.onnx", "int8.onnx"):
        found[name] = load_model(given.out / name).predict(valid)
    results = []
    pairs = [*(("published loop", name) for name in lasts), ("float32.onnx", "int8.onnx")]
    for pair in pairs:
        probabilities = tuple(found[name].probabilities for name in pair)
        comparison = compare(pair, FINDINGS, valid.labels, probabilities, split="valid")
        print(comparison.table())
        results.append(json.loads(comparison.to_json()))
    (given.out / "speed_auc.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
