"""Where the curves of a run go, beside metrics.csv and log.txt, which are always written."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from mrknee.errors import MrkneeError
from mrknee.training.recipe import LoggerName, Recipe, logger_names


def make_loggers(out: Path, recipe: Recipe) -> list[Logger]:
    """The loggers that the recipe names.

    TensorBoard writes to `out/tensorboard`; W&B to its server, or to `out/wandb` where
    WANDB_MODE=offline; MLflow to the server that MLFLOW_TRACKING_URI names, or to `out/mlflow.db`.

    Raises:
        MrkneeError: a logger's package is not installed.
    """
    return [_make(name, out, recipe) for name in logger_names(recipe.loggers)]


def _make(name: LoggerName, out: Path, recipe: Recipe) -> Logger:
    if name == "tensorboard":
        return TensorBoardLogger(out, name="", version="tensorboard")
    try:
        if name == "wandb":
            run = hashlib.sha256(str(out.resolve()).encode()).hexdigest()[:16]
            return WandbLogger(
                project="mrknee",
                name=out.name,
                save_dir=out,
                id=run,  # a run that is resumed goes on in the same curves
                config=recipe.to_dict(),
            )
        uri = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{out.resolve()}/mlflow.db")
        return MLFlowLogger(experiment_name="mrknee", run_name=out.name, tracking_uri=uri)
    except ModuleNotFoundError:
        raise MrkneeError(
            f"the logger {name} is not installed",
            expected=f"the package {name}",
            advice=f"pip install 'mrknee[{name}]'",
        ) from None
