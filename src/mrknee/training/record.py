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
from mrknee.training.curves import Curves, open_curves
from mrknee.training.epoch_result import EpochResult
from mrknee.training.extension import extension_note
from mrknee.training.loop import TrainingLoop
from mrknee.training.recipe import Recipe, SelectionSettings
from mrknee.training.resumption import Done, save_state, write_metrics
from mrknee.transforms.batches import EpochBatches

Metrics = dict[str, float]


class RunRecord:
    """Writes log lines, metrics and checkpoints of one run, and shows its progress.

    Args:
        out: the run folder.
        recipe: the run's settings.
        provenance: written into every checkpoint's `model.json`.
        done: progress of the run in earlier starts.
        epochs_before: the recipe's `epochs` at the last start; None for a new run.
        writes: whether this process writes and prints; True for one process only.
    """

    def __init__(
        self,
        out: Path,
        recipe: Recipe,
        provenance: Mapping[str, Any],
        done: Done,
        *,
        epochs_before: int | None = None,
        writes: bool = True,
    ) -> None:
        self.out, self.recipe, self.provenance = out, recipe, dict(provenance)
        self.done, self.writes = done, writes
        self.epochs_before = epochs_before
        self.rows: list[Metrics] = done.rows
        self._progress: Progress | None = None
        self._curves: list[Curves] = []

    def say(self, text: str) -> None:
        """Prints a text and appends it to log.txt."""
        if not self.writes:
            return
        if self._progress is None:
            report(text)
        else:
            self._progress.say(text)
        self._log(text)

    def _log(self, text: str) -> None:
        if not self.writes:
            return
        with RunFolder(self.out).log.open("a", encoding="utf-8") as file:
            file.write(text.rstrip("\n") + "\n")

    # --- callbacks of the loop, in the order of their calls

    def start(self, loop: TrainingLoop, batches: EpochBatches) -> None:
        """Opens the curves, and the progress bar over all remaining epochs."""
        if not self.writes:
            return
        self._curves = open_curves(self.out, self.recipe)
        self._report_extension(loop)
        exams = len(batches.positions) * (self.recipe.epochs - self.done.epoch)
        if self.done.batches:
            exams -= len(loop.train_result.ids)
        self._progress = Progress(exams, "training").__enter__()

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
        if not self.done.batches and self.has_stalled() and self.done.epoch < self.recipe.epochs:
            note = (
                f"the run had stopped early after epoch {self.done.epoch}, because nothing had "
                f"improved for {self.recipe.selection.early_stop} epochs: no more are trained"
            )
        if note is not None:
            report(f"note: {note}")

    def trained(self, loop: TrainingLoop, batch: int, batches: int) -> None:
        """Logs every `log_train` exams, and saves the state every `save_every` steps."""
        result, every = loop.train_result, self.recipe.log_train
        if self._progress is not None:
            epoch = f"epoch {loop.epoch + 1}/{self.recipe.epochs}"
            self._progress.advance(result.latest, note=epoch)
        at = loop.epoch * batches + batch
        self._plot({"train/loss_step": result.losses[-1]}, at)
        if _passed(len(result.ids), result.latest, every):
            self._log_so_far("train", loop, batch, result, at)
        every = self.recipe.save_every * self.recipe.accumulate
        # after the epoch's last batch, `end_epoch` saves the state
        if every and batch % every == 0 and batch < batches:
            self._save(loop, loop.epoch, batch)

    def validated(self, loop: TrainingLoop, batch: int, batches: int) -> None:
        """Logs every `log_valid` validation exams."""
        result, every = loop.valid_result, self.recipe.log_valid
        at = loop.epoch * batches + batch
        self._plot({"val/loss_step": result.losses[-1]}, at)
        if _passed(len(result.ids), result.latest, every):
            self._log_so_far("val", loop, batch, result, at)

    def _log_so_far(
        self, part: str, loop: TrainingLoop, batch: int, result: EpochResult, at: int
    ) -> None:
        aucs = result.aucs()
        self._plot({f"{part}/running_auc_{name}": value for name, value in aucs.items()}, at)
        self._log(
            f"{part} epoch {loop.epoch + 1} batch {batch} exams "
            f"{len(result.ids)} mean loss {result.loss():.4f} AUC {_aucs_text(aucs)} "
            f"learning rate {loop.learning_rate:.3g}"
        )

    def _plot(self, values: Mapping[str, float], at: int) -> None:
        for curves in self._curves:
            curves.log(values, at)

    def end_epoch(self, loop: TrainingLoop, learning_rate: float) -> None:
        """Writes the metrics and weights of the epoch, and saves the state."""
        measured = {
            f"{part}/{name}": value
            for part, result in (("train", loop.train_result), ("val", loop.valid_result))
            for name, value in _numbers(result).items()
        }
        measured["learning_rate"] = learning_rate
        self.rows.append({"epoch": loop.epoch, **measured})
        self._plot(measured, loop.epoch)
        better = self._is_better()
        folders = [RunFolder(self.out).last]
        if better:
            folders.append(RunFolder(self.out).best)
        if self.recipe.keep_every_epoch:
            folders.append(RunFolder(self.out).epochs / _epoch_name(self.rows[-1]))
        provenance = {**self.provenance, "epoch": loop.epoch, "metrics": to_json_values(measured)}
        for folder in folders if self.writes else ():
            save_checkpoint(folder, loop.network, loop.recipe.preparation.to_dict(), provenance)
        if self.writes:
            write_metrics(self.out, self.rows)
        row = self.rows[-1]
        aucs = {name.removeprefix("val/auc_"): v for name, v in row.items() if "val/auc_" in name}
        losses = f"loss {row['train/loss']:.3f}, {self.recipe.selection.part} {row['val/loss']:.3f}"
        mark = " (best so far)" if better else ""
        self.say(f"epoch {loop.epoch}/{self.recipe.epochs}: {losses}, AUC {_aucs_text(aucs)}{mark}")
        self._save(loop, loop.epoch, 0)

    def _is_better(self) -> bool:
        """Returns whether the latest epoch is the best so far."""
        return best_epoch(self.rows, self.recipe.selection) == len(self.rows)

    def has_stalled(self) -> bool:
        """Returns whether the metric has not improved for `selection.early_stop` epochs."""
        wait, values = self.recipe.selection.early_stop, _metric(self.rows, self.recipe.selection)
        if not wait or len(values) <= wait:
            return False
        before, lately = (
            [v for v in part if not math.isnan(v)] for part in (values[:-wait], values[-wait:])
        )
        return bool(before) and (not lately or max(lately) <= max(before))

    def _save(self, loop: TrainingLoop, epoch: int, batches: int) -> None:
        """Saves the state to resume from; the files that it refers to are already written."""
        if not self.writes:
            return
        log, written = RunFolder(self.out).log, 0
        if log.exists():
            written = log.stat().st_size
            sync([log])
        self.done = replace(
            self.done, epoch=epoch, batches=batches, log_bytes=written, rows=self.rows
        )
        save_state(self.out, self.done, loop.state())

    def end(self) -> None:
        """Closes the progress bar and the curves."""
        if self._progress is not None:
            self._progress.__exit__(None, None, None)
            self._progress = None
        for curves in self._curves:
            curves.close()
        self._curves = []


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


def _numbers(result: EpochResult) -> Metrics:
    return {"loss": result.loss(), **{f"auc_{n}": value for n, value in result.aucs().items()}}


def _passed(exams: int, latest: int, every: int) -> bool:
    """Returns whether the count passed a multiple of `every` within the `latest` exams."""
    return exams // every > (exams - latest) // every


def _aucs_text(aucs: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in aucs.items())


def _epoch_name(row: Metrics) -> str:
    aucs = {n.removeprefix("val/auc_"): v for n, v in row.items() if n.startswith("val/auc_")}
    return "_".join([f"epoch{int(row['epoch']):03d}", *(f"{n}-{v:.4f}" for n, v in aucs.items())])
