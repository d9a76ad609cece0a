"""Where the curves of a run go, beside metrics.csv and log.txt, which are always written."""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from mrknee.errors import PlatformError
from mrknee.training.recipe import LoggerName, Recipe, logger_names


class _Curves(TensorBoardLogger):
    """TensorBoard's curves; where they can't be written, training goes on without them.

    They are a by-product: metrics.csv has the numbers of every epoch. What else the disk can't take
    (weights, the state to resume from) ends training with an error of its own.
    """

    _given_up = False

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Points of curves."""
        self._try(lambda: super(_Curves, self).log_metrics(metrics, step))

    def log_hyperparams(self, *given: Any, **named: Any) -> None:  # noqa: ANN401  # Lightning's
        """Settings."""
        self._try(lambda: super(_Curves, self).log_hyperparams(*given, **named))

    def save(self) -> None:
        """Writes what is waiting."""
        self._try(super().save)

    def finalize(self, status: str) -> None:
        """Writes what is waiting, and closes the file."""
        self._try(lambda: super(_Curves, self).finalize(status))

    def opens(self) -> bool:
        """Whether a file for the curves can be made."""
        self._try(lambda: self.experiment)
        return not self._given_up

    def _try(self, work: Callable[[], object]) -> None:
        if self._given_up:
            return
        try:
            work()
        except Exception as error:
            # Lightning makes a ValueError of an OSError
            fault = error if isinstance(error, OSError) else error.__cause__
            if not isinstance(fault, OSError):
                raise
            self._given_up = True
            print(
                f"warning: {self.log_dir} can't be written ({fault.strerror or fault}): training "
                "goes on without TensorBoard's curves; metrics.csv has every epoch's numbers",
                file=sys.stderr,
                flush=True,
            )


@contextmanager
def quiet_writers() -> Iterator[None]:
    """Keeps TensorBoard's writing thread from printing a traceback: its error is raised here too.

    Errors of other threads are shown as before.
    """
    before = threading.excepthook

    def hook(fault: threading.ExceptHookArgs, /) -> None:
        of_writer = type(fault.thread).__module__.startswith("tensorboard.")
        if not (of_writer and isinstance(fault.exc_value, OSError)):
            before(fault)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


def make_loggers(out: Path, recipe: Recipe) -> list[Logger]:
    """The loggers that the recipe names.

    TensorBoard writes to `out/tensorboard`, and is left out where it can't; W&B to its server, or
    to `out/wandb` where WANDB_MODE=offline; MLflow to the server that MLFLOW_TRACKING_URI names, or
    to `out/mlflow.db`.

    Raises:
        MrkneeError: a logger's package is not installed.
    """
    made = [_make(name, out, recipe) for name in logger_names(recipe.loggers)]
    return [logger for logger in made if not isinstance(logger, _Curves) or logger.opens()]


def _make(name: LoggerName, out: Path, recipe: Recipe) -> Logger:
    if name == "tensorboard":
        return _Curves(out, name="", version="tensorboard")
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
        raise PlatformError(
            f"the logger {name} is not installed",
            code="not-installed",
            expected=f"the package {name}",
            advice=f"pip install 'mrknee[{name}]'",
        ) from None
