"""Writing of the run folder and display of progress during training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mrknee.files import sync
from mrknee.metrics.json_values import to_json_values
from mrknee.models.checkpoint import save_checkpoint
from mrknee.progress import Progress, report
from mrknee.run_folder import RunFolder
from mrknee.training.epoch_result import EpochResult
from mrknee.training.extension import extension_note
from mrknee.training.loggers import Logger, open_loggers
from mrknee.training.loop import TrainingLoop
from mrknee.training.recipe import Recipe, SelectionSettings
from mrknee.training.resumption import RunProgress, save_state, write_metrics
from mrknee.transforms.batches import EpochBatches

Metrics = dict[str, float]


class RunWriter:
    """Writes log lines, metrics and checkpoints of one run, and shows its progress.

    Args:
        out: the run folder.
        recipe: the run's settings.
        provenance: written into every checkpoint's `model.json`.
        progress: progress of the run in earlier starts.
        epochs_before: the recipe's `epochs` at the last start; None for a new run.
        writes: whether this process writes and prints; True for one process only.
    """

    def __init__(
        self,
        out: Path,
        recipe: Recipe,
        provenance: Mapping[str, Any],
        progress: RunProgress,
        *,
        epochs_before: int | None = None,
        writes: bool = True,
    ) -> None:
        self.out, self.recipe, self.provenance = out, recipe, dict(provenance)
        self.progress, self.writes = progress, writes
        self.epochs_before = epochs_before
        self.rows: list[Metrics] = progress.rows
        self._bar: Progress | None = None
        self._loggers: list[Logger] = []

    def report(self, text: str) -> None:
        """Prints a text and appends it to log.txt."""
        if not self.writes:
            return
        if self._bar is None:
            report(text)
        else:
            self._bar.write(text)
        self._log(text)

    def _log(self, text: str) -> None:
        if not self.writes:
            return
        with RunFolder(self.out).log.open("a", encoding="utf-8") as file:
            file.write(text.rstrip("\n") + "\n")

    # --- callbacks of the loop, in the order of their calls

    def on_train_start(self, loop: TrainingLoop, batches: EpochBatches) -> None:
        """Opens the curves, and the progress bar over all remaining epochs."""
        if not self.writes:
            return
        self._loggers = open_loggers(self.out, self.recipe)
        self._report_extension(loop)
        exams = len(batches.positions) * (self.recipe.epochs - self.progress.epoch)
        if self.progress.batches:
            exams -= len(loop.train_result.ids)
        self._bar = Progress(exams, "training").__enter__()

    def _report_extension(self, loop: TrainingLoop) -> None:
        """Reports the effect of other `epochs` than at the last start; log.txt omits starts."""
        if self.epochs_before is None:
            return
        note = extension_note(
            self.recipe,
            self.epochs_before,
            rate=loop.learning_rate,
            step=loop.step,
            steps=loop.steps,
        )
        if (
            not self.progress.batches
            and self.should_stop()
            and self.progress.epoch < self.recipe.epochs
        ):
            note = (
                f"the run stopped early after epoch {self.progress.epoch}, without improvement in "
                f"{self.recipe.selection.early_stop} epochs: no further epochs are trained"
            )
        if note is not None:
            report(f"note: {note}")

    def on_train_batch_end(self, loop: TrainingLoop, batch: int, batches: int) -> None:
        """Logs every `log_train` exams, and saves the state every `save_every` steps."""
        result, every = loop.train_result, self.recipe.log_train
        if self._bar is not None:
            epoch = f"epoch {loop.epoch + 1}/{self.recipe.epochs}"
            self._bar.advance(result.latest, note=epoch)
        step = loop.epoch * batches + batch
        self._plot({"train/loss_step": result.losses[-1]}, step)
        if _is_due(len(result.ids), result.latest, every):
            self._log_running("train", loop, batch, result, step)
        every = self.recipe.save_every * self.recipe.accumulate
        # after the epoch's last batch, `on_epoch_end` saves the state
        if every and batch % every == 0 and batch < batches:
            self._save(loop, loop.epoch, batch)

    def on_validation_batch_end(self, loop: TrainingLoop, batch: int, batches: int) -> None:
        """Logs every `log_valid` validation exams."""
        result, every = loop.valid_result, self.recipe.log_valid
        step = loop.epoch * batches + batch
        self._plot({"val/loss_step": result.losses[-1]}, step)
        if _is_due(len(result.ids), result.latest, every):
            self._log_running("val", loop, batch, result, step)

    def _log_running(
        self, part: str, loop: TrainingLoop, batch: int, result: EpochResult, step: int
    ) -> None:
        aucs = result.aucs()
        self._plot({f"{part}/running_auc_{name}": value for name, value in aucs.items()}, step)
        self._log(
            f"{part} epoch {loop.epoch + 1} batch {batch} exams "
            f"{len(result.ids)} mean loss {result.loss():.4f} AUC {_aucs_text(aucs)} "
            f"learning rate {loop.learning_rate:.3g}"
        )

    def _plot(self, values: Mapping[str, float], step: int) -> None:
        for logger in self._loggers:
            logger.log(values, step)

    def on_epoch_end(self, loop: TrainingLoop, learning_rate: float) -> None:
        """Writes the metrics and weights of the epoch, and saves the state."""
        metrics = {
            f"{part}/{name}": value
            for part, result in (("train", loop.train_result), ("val", loop.valid_result))
            for name, value in _epoch_metrics(result).items()
        }
        metrics["learning_rate"] = learning_rate
        self.rows.append({"epoch": loop.epoch, **metrics})
        self._plot(metrics, loop.epoch)
        is_best = self._is_best()
        folders = [RunFolder(self.out).last]
        if is_best:
            folders.append(RunFolder(self.out).best)
        if self.recipe.keep_every_epoch:
            folders.append(RunFolder(self.out).epochs / _epoch_name(self.rows[-1]))
        provenance = {**self.provenance, "epoch": loop.epoch, "metrics": to_json_values(metrics)}
        for folder in folders if self.writes else ():
            save_checkpoint(
                folder, loop.evaluated_network, loop.recipe.preparation.to_dict(), provenance
            )
        if self.writes:
            write_metrics(self.out, self.rows)
        row = self.rows[-1]
        aucs = {name.removeprefix("val/auc_"): v for name, v in row.items() if "val/auc_" in name}
        losses = f"loss {row['train/loss']:.3f}, {self.recipe.selection.part} {row['val/loss']:.3f}"
        mark = " (best so far)" if is_best else ""
        self.report(
            f"epoch {loop.epoch}/{self.recipe.epochs}: {losses}, AUC {_aucs_text(aucs)}{mark}"
        )
        self._save(loop, loop.epoch, 0)

    def _is_best(self) -> bool:
        """Returns whether the latest epoch is the best so far."""
        return best_epoch(self.rows, self.recipe.selection) == len(self.rows)

    def should_stop(self) -> bool:
        """Returns whether the metric has not improved for `selection.early_stop` epochs."""
        patience, values = (
            self.recipe.selection.early_stop,
            _metric(self.rows, self.recipe.selection),
        )
        if not patience or len(values) <= patience:
            return False
        before, recent = (
            [value for value in part if not math.isnan(value)]
            for part in (values[:-patience], values[-patience:])
        )
        return bool(before) and (not recent or max(recent) <= max(before))

    def _save(self, loop: TrainingLoop, epoch: int, batches: int) -> None:
        """Saves the state to resume from; the files that it refers to are already written."""
        if not self.writes:
            return
        log, log_bytes = RunFolder(self.out).log, 0
        if log.exists():
            log_bytes = log.stat().st_size
            sync([log])
        self.progress = replace(
            self.progress, epoch=epoch, batches=batches, log_bytes=log_bytes, rows=self.rows
        )
        save_state(self.out, self.progress, loop.state())

    def on_train_end(self) -> None:
        """Closes the progress bar and the curves."""
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None
        for logger in self._loggers:
            logger.close()
        self._loggers = []


def best_epoch(rows: Sequence[Metrics], selection: SelectionSettings) -> int:
    """Returns the selected epoch, from 1; the latest if the metric is NaN for all epochs.

    Args:
        rows: the metrics of each epoch.
        selection: defines the metric.
    """
    best, highest = 0, math.nan
    for epoch, value in enumerate(_metric(rows, selection), start=1):
        if math.isnan(highest) or value > highest:
            best, highest = epoch, value
    return best


def _metric(rows: Sequence[Metrics], selection: SelectionSettings) -> list[float]:
    """Returns the selection metric of each epoch, with its sign changed if lower is better."""
    sign = 1 if selection.mode == "max" else -1
    return [sign * row["val/" + selection.monitor] for row in rows]


def _epoch_metrics(result: EpochResult) -> Metrics:
    return {"loss": result.loss(), **{f"auc_{n}": value for n, value in result.aucs().items()}}


def _is_due(exams: int, latest: int, every: int) -> bool:
    """Returns whether the count passed a multiple of `every` within the `latest` exams."""
    return exams // every > (exams - latest) // every


def _aucs_text(aucs: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in aucs.items())


def _epoch_name(row: Metrics) -> str:
    aucs = {n.removeprefix("val/auc_"): v for n, v in row.items() if n.startswith("val/auc_")}
    return "_".join([f"epoch{int(row['epoch']):03d}", *(f"{n}-{v:.4f}" for n, v in aucs.items())])
