"""The demonstration, `mrknee demo`: synthetic knees, training, predictions and a report."""

from __future__ import annotations

import time
from pathlib import Path
from shlex import quote

TRAIN_EXAMS = 700
VALID_EXAMS = 120
"""The size of MRNet's validation set, so that confidence intervals are similarly wide."""

PIXELS = 80
SLICE_FACTOR = 0.3
FOV_FACTOR = 0.7
"""About a third of MRNet's slices, with 80 pixels of 1.2 to 1.4 mm on the joint: few enough for two
cores, and fine enough for meniscal tears to be visible."""


def run_demo(out: str | Path, seed: int = 0) -> None:
    """Writes a phantom data set, trains one network on it, predicts and evaluates.

    Only the layers after EfficientNet-Lite0 with ImageNet weights are trained, so the extra `lite0`
    is needed. An interrupted demo is continued: existing results are kept.

    Args:
        out: the output folder.
        seed: random seed of the knees and of the training.

    Raises:
        MrkneeError: the folder contains other files, or the extra `lite0` is not installed.
    """
    from mrknee.exams import open_dataset
    from mrknee.inference.torch_model import TorchModel
    from mrknee.models.weights import lite0_file
    from mrknee.ranges import SEED
    from mrknee.reports.evaluation import evaluate
    from mrknee.sources.phantom.cohort import write_cohort
    from mrknee.training.recipe import load_recipe
    from mrknee.training.run import train

    SEED.check("the seed", seed)
    lite0_file()  # before any work
    started = time.monotonic()
    out = Path(out)
    data, run, features = out / "data", out / "run", out / "features"
    predictions_file, scores = out / "predictions.csv", out / "scores"

    _print_heading(f"1. {TRAIN_EXAMS} + {VALID_EXAMS} synthetic knees")
    write_cohort(
        data,
        train=TRAIN_EXAMS,
        valid=VALID_EXAMS,
        seed=seed,
        size=PIXELS,
        slice_factor=SLICE_FACTOR,
        fov_factor=FOV_FACTOR,
    )
    _print_heading("2. training: one network for three findings, on ImageNet features")
    recipe = load_recipe("demo", {"seed": seed, "feature_cache": str(features)})
    train(data, run, recipe, resume=run.exists())
    _print_heading("3. predictions for the validation exams, not used for training")
    model = TorchModel(run)
    model.use_feature_cache(features)
    predictions = model.predict(open_dataset(data, "valid"))
    predictions.write(predictions_file)
    _print_heading("4. evaluation")
    print(evaluate(str(predictions_file), data, scores, model=run).table())
    outputs = {
        "data set": data,
        "feature maps": features,
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
    print(f"open the reading room: mrknee serve {quote(str(run))} --exams {quote(str(data))}")


def _print_heading(text: str) -> None:
    print(f"\n{text}", flush=True)
