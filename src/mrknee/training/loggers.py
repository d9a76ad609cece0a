"""Loggers of training curves, in addition to metrics.csv and log.txt."""

from __future__ import annotations

import hashlib
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from mrknee.extras import not_installed
from mrknee.run_folder import RunFolder
from mrknee.training.recipe import LoggerName, Recipe

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


@runtime_checkable
class Logger(Protocol):
    """A logger of training curves."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Adds a point to each named curve at the given step of the horizontal axis."""

    def close(self) -> None:
        """Writes buffered points and closes the logger."""


class TensorBoard:
    """Curves in `out/tensorboard`; if they can't be written, training continues without them.

    The numbers of every epoch are in metrics.csv too. If other files can't be written (weights, the
    state to resume from), training ends with an error.
    """

    def __init__(self, out: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        self.folder = RunFolder(out).tensorboard
        self._writer: SummaryWriter | None = None
        with self._warn_on_error():
            self._writer = SummaryWriter(str(self.folder))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Adds a point to each named curve."""
        with self._warn_on_error():
            for name, value in values.items():
                if self._writer is not None:
                    self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Writes buffered points and closes the file."""
        with self._warn_on_error():
            if self._writer is not None:
                self._writer.close()

    @contextmanager
    def _warn_on_error(self) -> Iterator[None]:
        """Prints a warning and stops writing curves if the file system reports an error."""
        try:
            yield
        except OSError as error:
            self._writer = None
            print(
                f"warning: {self.folder} can't be written ({error.strerror or error}): training "
                "continues without TensorBoard; metrics.csv has the metrics of every epoch",
                file=sys.stderr,
                flush=True,
            )


class WeightsAndBiases:
    """Curves on the W&B server, or in `out/wandb` if WANDB_MODE=offline."""

    def __init__(self, out: Path, recipe: Recipe) -> None:
        import wandb

        run_id = hashlib.sha256(str(out.resolve()).encode()).hexdigest()[:16]
        self._run = wandb.init(
            project="mrknee",
            name=out.name,
            dir=out,
            id=run_id,  # a resumed run continues the same curves
            resume="allow",
            config=recipe.to_dict(),
        )
        self._run.define_metric("*", step_metric="at")

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Adds a point to each named curve."""
        self._run.log({**values, "at": step})

    def close(self) -> None:
        """Sends buffered points and ends the run."""
        self._run.finish()


class MLflow:
    """Curves on the server in MLFLOW_TRACKING_URI, or in `out/mlflow.db` if it isn't set."""

    def __init__(self, out: Path) -> None:
        from mlflow.tracking import MlflowClient

        uri = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{out.resolve()}/mlflow.db")
        self._client = MlflowClient(tracking_uri=uri)
        existing = self._client.get_experiment_by_name("mrknee")
        experiment = (
            existing.experiment_id if existing else self._client.create_experiment("mrknee")
        )
        self._run = self._client.create_run(experiment, run_name=out.name).info.run_id

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Adds a point to each named curve."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        points = [Metric(name, value, now, step) for name, value in values.items()]
        self._client.log_batch(self._run, metrics=points)

    def close(self) -> None:
        """Marks the run as finished."""
        self._client.set_terminated(self._run)


@contextmanager
def suppress_writer_tracebacks() -> Iterator[None]:
    """Suppresses tracebacks of TensorBoard's writer thread; the main thread raises its errors.

    Errors of other threads are printed as before.
    """
    original = threading.excepthook

    def hook(error: threading.ExceptHookArgs, /) -> None:
        from_writer = type(error.thread).__module__.startswith("tensorboard.")
        if not (from_writer and isinstance(error.exc_value, OSError)):
            original(error)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = original


def open_loggers(out: Path, recipe: Recipe) -> list[Logger]:
    """Opens the loggers in the recipe's `loggers`.

    Raises:
        MrkneeError: a logger's package is not installed.
    """
    return [_open(name, out, recipe) for name in recipe.loggers]


def _open(name: LoggerName, out: Path, recipe: Recipe) -> Logger:
    if name == "tensorboard":
        return TensorBoard(out)
    try:
        return WeightsAndBiases(out, recipe) if name == "wandb" else MLflow(out)
    except ModuleNotFoundError:
        raise not_installed(name, name) from None
