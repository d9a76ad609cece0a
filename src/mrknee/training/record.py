"""Writes the run folder while training goes on, and shows how far it is."""

from __future__ import annotations

import math
import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from mrknee.files import sync
from mrknee.networks.checkpoint import save_checkpoint
from mrknee.progress import Progress
from mrknee.tensors.batches import Batch
from mrknee.training.extension import extension_note
from mrknee.training.module import EpochResult, TrainingModule
from mrknee.training.recipe import Recipe, SelectionSettings
from mrknee.training.resumption import RESUME, Done, write_metrics

Metrics = dict[str, float]


class RunRecord(Callback):
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

    def say(self, text: str) -> None:
        """Shows a text to the person who waits, and keeps it in log.txt."""
        if not self.writes:
            return
        if self._progress is None:
            print(text, flush=True)
        else:
            self._progress.say(text)
        self._log(text)

    def _log(self, text: str) -> None:
        if not self.writes:
            return
        with (self.out / "log.txt").open("a", encoding="utf-8") as file:
            file.write(text.rstrip("\n") + "\n")

    # --- what Lightning calls, in the order in which it does

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run has to know: plain values only; `read_done` reads them."""
        return self.done.to_dict()

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Starts the progress bar over all epochs that are left."""
        if trainer.world_size > 1:
            # Lightning's handler talks to the other processes in the middle of what they say to
            # each other: they fail, or wait for ever. The state is safe against a sudden end.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        loader = trainer.train_dataloader
        assert loader is not None and isinstance(module, TrainingModule)  # noqa: S101, PT018  # fit has one
        if not self.done.batches:
            trainer.should_stop = self._has_stalled()
        if self.writes:
            self._tell_extension(trainer, module)
        exams = len(loader.batch_sampler.positions) * (self.recipe.epochs - self.done.epoch)
        if self.done.batches:
            exams -= len(module.train_result.ids)
        if self.writes:
            self._progress = Progress(exams, "training").__enter__()

    def _tell_extension(self, trainer: lightning.Trainer, module: TrainingModule) -> None:
        """Says what more epochs than at the last start will do; log.txt knows nothing of starts."""
        if self.epochs_before is None:
            return
        note = extension_note(
            self.recipe,
            self.epochs_before,
            rate=trainer.optimizers[0].param_groups[0]["lr"],
            step=trainer.global_step,
            steps=module.steps,
        )
        if trainer.should_stop and self.done.epoch < self.recipe.epochs:
            note = (
                f"the run had stopped early after epoch {self.done.epoch}, because nothing had "
                f"improved for {self.recipe.selection.early_stop} epochs: no more are trained"
            )
        if note is not None:
            print(f"note: {note}", flush=True)

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        module: lightning.LightningModule,
        outputs: Any,  # noqa: ANN401, ARG002  # Lightning's
        batch: Batch,  # noqa: ARG002  # Lightning's
        batch_idx: int,
    ) -> None:
        """A log line and points every `log_train` exams; the state every `save_every` steps."""
        assert isinstance(module, TrainingModule)  # noqa: S101
        result, every = module.train_result, self.recipe.log_train
        if self._progress is not None:
            epoch = f"epoch {trainer.current_epoch + 1}/{self.recipe.epochs}"
            self._progress.advance(result.latest, note=epoch)
        if _passed(len(result.ids), result.latest, every):
            self._log_so_far("train", trainer, batch_idx, result, trainer.global_step)
        batches, every = batch_idx + 1, self.recipe.save_every * self.recipe.accumulate
        # the epoch's last batch is saved with its validation, in `on_train_epoch_end`
        if every and batches % every == 0 and batches < trainer.num_training_batches:
            self._save(trainer, trainer.current_epoch, batches)

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        module: lightning.LightningModule,
        outputs: Any,  # noqa: ANN401, ARG002  # Lightning's
        batch: Batch,  # noqa: ARG002  # Lightning's
        batch_idx: int,
        dataloader_idx: int = 0,  # noqa: ARG002  # Lightning's
    ) -> None:
        """A log line, and points in TensorBoard, every `log_valid` validation exams."""
        assert isinstance(module, TrainingModule)  # noqa: S101
        result, every = module.valid_result, self.recipe.log_valid
        if _passed(len(result.ids), result.latest, every):
            step = trainer.current_epoch * int(sum(trainer.num_val_batches)) + batch_idx
            self._log_so_far("val", trainer, batch_idx, result, step)

    def _log_so_far(
        self,
        part: str,
        trainer: lightning.Trainer,
        batch_idx: int,
        result: EpochResult,
        step: int,
    ) -> None:
        aucs = result.aucs()
        for logger in trainer.loggers:
            points = {f"{part}/running_auc_{name}": value for name, value in aucs.items()}
            logger.log_metrics(points, step=step)
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        self._log(
            f"{part} epoch {trainer.current_epoch + 1} batch {batch_idx + 1} exams "
            f"{len(result.ids)} mean loss {result.loss():.4f} AUC {_aucs_text(aucs)} "
            f"learning rate {rate:.3g}"
        )

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule
    ) -> None:
        """Keeps the epoch's numbers and weights; validation has run already."""
        assert isinstance(module, TrainingModule)  # noqa: S101
        measured = {name: float(v) for name, v in trainer.callback_metrics.items()}
        self.rows.append({"epoch": trainer.current_epoch + 1, **measured})
        better = self._is_better()
        folders = [self.out / "last"]
        if better:
            folders.append(self.out / "best")
        if self.recipe.keep_every_epoch:
            folders.append(self.out / "epochs" / _epoch_name(self.rows[-1]))
        provenance = {
            **self.provenance,
            "epoch": trainer.current_epoch + 1,
            "metrics": _plain(measured),
        }
        for folder in folders if self.writes else ():
            save_checkpoint(
                folder,
                module.reader.network,
                module.reader.preparation.to_dict(),
                provenance,
            )
        trainer.should_stop = self._has_stalled()
        if self.writes:
            write_metrics(self.out, self.rows)
        row = self.rows[-1]
        aucs = {name.removeprefix("val/auc_"): v for name, v in row.items() if "val/auc_" in name}
        losses = f"loss {row['train/loss']:.3f}, {self.recipe.selection.part} {row['val/loss']:.3f}"
        mark = " (best so far)" if better else ""
        self.say(
            f"epoch {trainer.current_epoch + 1}/{self.recipe.epochs}: "
            f"{losses}, AUC {_aucs_text(aucs)}{mark}"
        )
        self._save(trainer, trainer.current_epoch + 1, 0)

    def _is_better(self) -> bool:
        """Whether the latest epoch is the best so far."""
        return best_epoch(self.rows, self.recipe.selection) == len(self.rows)

    def _has_stalled(self) -> bool:
        """Whether the metric has not improved for as many epochs as the recipe waits."""
        wait, values = self.recipe.selection.early_stop, _metric(self.rows, self.recipe.selection)
        if not wait or len(values) <= wait:
            return False
        before, lately = (
            [v for v in part if not math.isnan(v)] for part in (values[:-wait], values[-wait:])
        )
        return bool(before) and (not lately or max(lately) <= max(before))

    def _save(self, trainer: lightning.Trainer, epoch: int, batches: int) -> None:
        """Saves all that a later start needs; everything that it knows of is written by now."""
        log, written = self.out / "log.txt", 0
        if log.exists():
            written = log.stat().st_size
            if self.writes:
                sync([log])
        self.done = replace(
            self.done, epoch=epoch, batches=batches, log_bytes=written, rows=self.rows
        )
        trainer.save_checkpoint(self.out / RESUME, weights_only=False)

    def on_train_end(self, _trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        """Ends the progress bar."""
        self._end_progress()

    def on_exception(
        self,
        trainer: lightning.Trainer,  # noqa: ARG002  # Lightning's
        module: lightning.LightningModule,  # noqa: ARG002  # Lightning's
        exception: BaseException,  # noqa: ARG002  # Lightning's
    ) -> None:
        """Gives the terminal back before the error is told."""
        self._end_progress()

    def _end_progress(self) -> None:
        if self._progress is not None:
            self._progress.__exit__(None, None, None)
            self._progress = None


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


def _passed(exams: int, latest: int, every: int) -> bool:
    """Whether a multiple of `every` lies among the `latest` of so many exams."""
    return exams // every > (exams - latest) // every


def _aucs_text(aucs: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in aucs.items())


def _epoch_name(row: Metrics) -> str:
    aucs = {n.removeprefix("val/auc_"): v for n, v in row.items() if n.startswith("val/auc_")}
    return "_".join([f"epoch{int(row['epoch']):03d}", *(f"{n}-{v:.4f}" for n, v in aucs.items())])


def _plain(metrics: Metrics) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in metrics.items()}
