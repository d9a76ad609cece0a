"""Writes the run folder while training goes on, and shows how far it is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mrknee.files import sync
from mrknee.networks.checkpoint import save_checkpoint
from mrknee.progress import Progress, report
from mrknee.run_folder import RunFolder
from mrknee.scoring.plain import plain
from mrknee.tensors.batches import EpochBatches
from mrknee.training.curves import Curves, open_curves
from mrknee.training.epoch_result import EpochResult
from mrknee.training.extension import extension_note
from mrknee.training.loop import TrainingLoop
from mrknee.training.recipe import Recipe, SelectionSettings
from mrknee.training.resumption import Done, save_state, write_metrics

Metrics = dict[str, float]


class RunRecord:
    """Log lines, metrics, checkpoints and progress of one run.

    Args:
        out: the run folder.
        recipe: the run's settings.
        provenance: what is written into every checkpoint's `model.json`.
        done: how far the run has come in earlier starts.
        epochs_before: the recipe's `epochs` at the last start; None for a new run.
        writes: whether this process writes and shows anything; of several, one does.
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
        """Shows a text to the person who waits, and keeps it in log.txt."""
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

    # --- what the loop calls, in the order in which it does

    def start(self, loop: TrainingLoop, batches: EpochBatches) -> None:
        """Starts the curves, and the progress bar over all epochs that are left."""
        if not self.writes:
            return
        self._curves = open_curves(self.out, self.recipe)
        self._report_extension(loop)
        exams = len(batches.positions) * (self.recipe.epochs - self.done.epoch)
        if self.done.batches:
            exams -= len(loop.train_result.ids)
        self._progress = Progress(exams, "training").__enter__()

    def _report_extension(self, loop: TrainingLoop) -> None:
        """Says what more epochs than at the last start will do; log.txt knows nothing of starts."""
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
        """A log line and points every `log_train` exams; the state every `save_every` steps."""
        result, every = loop.train_result, self.recipe.log_train
        if self._progress is not None:
            epoch = f"epoch {loop.epoch + 1}/{self.recipe.epochs}"
            self._progress.advance(result.latest, note=epoch)
        at = loop.epoch * batches + batch
        self._plot({"train/loss_step": result.losses[-1]}, at)
        if _passed(len(result.ids), result.latest, every):
            self._log_so_far("train", loop, batch, result, at)
        every = self.recipe.save_every * self.recipe.accumulate
        # the epoch's last batch is saved with its validation, in `end_epoch`
        if every and batch % every == 0 and batch < batches:
            self._save(loop, loop.epoch, batch)

    def validated(self, loop: TrainingLoop, batch: int, batches: int) -> None:
        """A log line, and points of the curves, every `log_valid` validation exams."""
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
        """Keeps the epoch's numbers and weights."""
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
        provenance = {**self.provenance, "epoch": loop.epoch, "metrics": plain(measured)}
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
        """Whether the latest epoch is the best so far."""
        return best_epoch(self.rows, self.recipe.selection) == len(self.rows)

    def has_stalled(self) -> bool:
        """Whether the metric has not improved for as many epochs as the recipe waits."""
        wait, values = self.recipe.selection.early_stop, _metric(self.rows, self.recipe.selection)
        if not wait or len(values) <= wait:
            return False
        before, lately = (
            [v for v in part if not math.isnan(v)] for part in (values[:-wait], values[-wait:])
        )
        return bool(before) and (not lately or max(lately) <= max(before))

    def _save(self, loop: TrainingLoop, epoch: int, batches: int) -> None:
        """Saves all that a later start needs; everything that it knows of is written by now."""
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
        """Ends the progress bar and the curves."""
        if self._progress is not None:
            self._progress.__exit__(None, None, None)
            self._progress = None
        for curves in self._curves:
            curves.close()
        self._curves = []


def best_epoch(rows: Sequence[Metrics], selection: SelectionSettings) -> int:
    """Which epoch is selected, from 1; the latest while the metric can't be computed for any.

    Args:
        rows: the metrics of each epoch.
        selection: names the metric.
    """
    best, highest = 0, math.nan
    for epoch, value in enumerate(_metric(rows, selection), start=1):
        if math.isnan(highest) or value > highest:
            best, highest = epoch, value
    return best


def _metric(rows: Sequence[Metrics], selection: SelectionSettings) -> list[float]:
    """What the epoch is selected by, for each epoch; more is better."""
    sign = 1 if selection.mode == "max" else -1
    return [sign * row["val/" + selection.monitor] for row in rows]


def _numbers(result: EpochResult) -> Metrics:
    return {"loss": result.loss(), **{f"auc_{n}": value for n, value in result.aucs().items()}}


def _passed(exams: int, latest: int, every: int) -> bool:
    """Whether a multiple of `every` lies among the `latest` of so many exams."""
    return exams // every > (exams - latest) // every


def _aucs_text(aucs: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in aucs.items())


def _epoch_name(row: Metrics) -> str:
    aucs = {n.removeprefix("val/auc_"): v for n, v in row.items() if n.startswith("val/auc_")}
    return "_".join([f"epoch{int(row['epoch']):03d}", *(f"{n}-{v:.4f}" for n, v in aucs.items())])
