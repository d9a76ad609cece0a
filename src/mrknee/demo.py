"""The demonstration, `mrknee demo`: synthetic knees, training, predictions and a report."""

from __future__ import annotations

import time
from pathlib import Path

TRAIN_EXAMS = 700
VALID_EXAMS = 120
"""The size of MRNet's validation set, so that confidence intervals are similarly wide."""

PIXELS = 96
SLICE_FACTOR = 0.35
"""About a third of MRNet's slices, at 96 pixels: small enough for two cores, and large enough for
tears to be visible."""


def run_demo(out: str | Path, seed: int = 0) -> None:
    """Writes a phantom data set, trains one network on it, predicts and evaluates.

    An interrupted demo is continued: existing results are kept.

    Args:
        out: the output folder.
        seed: random seed of the knees and of the training.

    Raises:
        MrkneeError: the folder contains other files.
    """
    from mrknee.exams import open_dataset
    from mrknee.inference.model import load_model
    from mrknee.ranges import SEED
    from mrknee.reports.evaluation import evaluate
    from mrknee.sources.phantom.cohort import write_cohort
    from mrknee.training.recipe import load_recipe
    from mrknee.training.run import train

    SEED.check("the seed", seed)
    started = time.monotonic()
    out = Path(out)
    data, run = out / "data", out / "run"
    predictions_file, scores = out / "predictions.csv", out / "scores"

    _print_heading(f"1. {TRAIN_EXAMS} + {VALID_EXAMS} synthetic knees")
    write_cohort(
        data,
        train=TRAIN_EXAMS,
        valid=VALID_EXAMS,
        seed=seed,
        size=PIXELS,
        slice_factor=SLICE_FACTOR,
    )
    _print_heading("2. training: one network for three findings, from random weights")
    train(data, run, load_recipe("demo", {"seed": seed}), resume=run.exists())
    _print_heading("3. predictions for the validation exams, not used for training")
    predictions = load_model(run).predict(open_dataset(data, "valid"))
    predictions.write(predictions_file)
    _print_heading("4. evaluation")
    print(evaluate(str(predictions_file), data, scores, model=run).table())
    outputs = {
        "data set": data,
        "run folder": run,
        "predictions": predictions_file,
        "scorecard": scores / "scorecard.json",
    }
    for name, path in outputs.items():
        print(f"{name:12} {path}")
    print(
        f"took {time.monotonic() - started:.0f} s. The knees are synthetic: the scores show that "
        "all steps work, and nothing about patients. Research use only."
    )
    print(f"open the report in a browser: {(scores / 'report.html').resolve().as_uri()}")


def _print_heading(text: str) -> None:
    print(f"\n{text}", flush=True)
