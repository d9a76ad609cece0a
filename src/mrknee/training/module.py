"""The one LightningModule: a batch of bytes to a loss, an epoch's predictions to AUCs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NoReturn

import lightning
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mrknee.errors import MrkneeError, TrainingError
from mrknee.networks.reader import Reader
from mrknee.scoring.discrimination import auc
from mrknee.tensors.batches import Batch, unfold
from mrknee.training.objective import summed_loss
from mrknee.training.processes import gather
from mrknee.training.recipe import OptimizerSettings, Recipe, ScheduleSettings

_MAX_NAMED = 8  # exams of a batch that an error lists


class EpochResult:
    """What an epoch's exams were predicted to be, gathered batch by batch.

    Attributes:
        ids: exams in the order they came.
        losses: each batch's loss, the mean over its known labels.
        latest: exams in the latest batch.
    """

    def __init__(self, findings: tuple[str, ...]) -> None:
        self.findings = findings
        self.ids: list[str] = []
        self.losses: list[float] = []
        self.latest = 0
        self._logits: list[Tensor] = []
        self._labels: list[Tensor] = []

    def add(
        self,
        ids: Sequence[str],
        logits: Float[Tensor, "exams findings"],
        labels: Float[Tensor, "exams findings"],
        loss: float,
    ) -> int:
        """Takes one batch's logits, labels and summed loss; returns its number of known labels."""
        known = int((~labels.isnan()).sum())
        self.latest = len(ids)
        self.ids.extend(ids)
        self.losses.append(loss / max(known, 1))
        self._logits.append(logits)
        self._labels.append(labels)
        return known

    def state(self) -> dict[str, Any]:
        """All of it in plain values and tensors, for a run that is interrupted."""
        return {
            "ids": self.ids,
            "losses": self.losses,
            "logits": self._logits,
            "labels": self._labels,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes back what `state` gave."""
        self.ids, self.losses = list(state["ids"]), list(state["losses"])
        self._logits, self._labels = list(state["logits"]), list(state["labels"])

    @property
    def labels(self) -> Float[np.ndarray, "exams findings"]:
        """1, 0 or NaN (not known)."""
        return torch.cat(self._labels).double().numpy()

    @property
    def probabilities(self) -> Float[np.ndarray, "exams findings"]:
        """0 to 1."""
        return torch.cat(self._logits).double().sigmoid().numpy()

    def loss(self) -> float:
        """The mean of the batches' losses, each weighed by its known labels; NaN without any."""
        known = [int((~labels.isnan()).sum()) for labels in self._labels]
        return float(np.average(self.losses, weights=known)) if any(known) else math.nan

    def aucs(self) -> dict[str, float]:
        """AUC of each finding and `mean`, over the findings that have one; NaN where none can be.

        An AUC needs both classes: a finding that shows one class only has none.
        """
        labels, probabilities = self.labels, self.probabilities
        each = {
            name: auc(labels[:, i], probabilities[:, i]).value
            for i, name in enumerate(self.findings)
        }
        known = [value for value in each.values() if not math.isnan(value)]
        return {**each, "mean": float(np.mean(known)) if known else math.nan}


class TrainingModule(lightning.LightningModule):
    """Trains a reader by a recipe.

    Args:
        reader: preparation and network.
        recipe: the settings.
        pos_weight: float32 (findings,), from the exams trained on; it weighs the validation
            loss too, so that the two can be compared and no validation label steers training.
        steps: optimizer steps of the whole run: the cosine's length.
    """

    def __init__(
        self,
        reader: Reader,
        recipe: Recipe,
        pos_weight: Float[Tensor, " findings"],
        steps: int = 1,
    ) -> None:
        super().__init__()
        self.reader, self.recipe, self.steps = reader, recipe, steps
        self.register_buffer("pos_weight", pos_weight, persistent=False)
        self.findings = tuple(reader.network.findings)
        self.train_result = EpochResult(self.findings)
        self.valid_result = EpochResult(self.findings)
        self._plateau: torch.optim.lr_scheduler.ReduceLROnPlateau | None = None
        self._plateau_state: dict[str, Any] | None = None
        self._known: list[int] = []  # known labels of each batch of the step so far

    def _step(self, batch: Batch, result: EpochResult) -> tuple[Tensor, int]:
        """This process's summed loss, and the known labels of the batch in all processes."""
        labels = batch.labels
        if len(batch):
            logits = self.reader(batch).float()
            loss = summed_loss(logits, labels, self.pos_weight)  # type: ignore[arg-type]  # a buffer
        else:  # nothing to add, but every parameter wants its gradient
            logits = labels = torch.zeros((0, len(self.findings)))
            trained = [p.sum() for p in self.parameters() if p.requires_grad]
            loss = 0.0 * torch.stack(trained).sum()
        parts = gather((batch.ids, logits.detach().cpu(), labels.cpu(), float(loss.detach())))
        ids, all_logits, all_labels, losses = zip(*parts, strict=True)
        known = result.add(
            [exam_id for part in ids for exam_id in part],
            torch.cat(all_logits),
            torch.cat(all_labels),
            sum(losses),
        )
        return loss, known

    def on_before_batch_transfer(self, batch: Batch | MrkneeError, dataloader_idx: int) -> Batch:  # noqa: ARG002  # Lightning's
        """Raises the error of an exam that couldn't be read."""
        return unfold(batch)

    def on_train_epoch_start(self) -> None:
        """Starts the epoch's record."""
        self.train_result = EpochResult(self.findings)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One batch's loss; dropout is drawn from (seed, epoch, batch), so a run can be resumed.

        What is returned is scaled so that, after `on_before_optimizer_step`, the gradient is that
        of the mean over the known labels of all batches of the step, in all processes.
        """
        place = [self.recipe.seed, self.current_epoch, batch_idx, self.global_rank]
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))
        loss, known = self._step(batch, self.train_result)
        self._known.append(known)
        mean = self.train_result.losses[-1]
        exams = self.train_result.latest
        if not math.isfinite(mean):
            self._stop(f"a training loss of {mean}", batch_idx, self.train_result)
        self.log("train/loss_step", mean, on_step=True, on_epoch=False, batch_size=exams)
        # Lightning divides by the batches a step, and averages over the processes
        return loss / max(self._known[0], 1) * (self.recipe.accumulate * self.trainer.world_size)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:  # noqa: ARG002  # Lightning's
        """Divides by the known labels of the whole step; the first batch's were known before."""
        factor = max(self._known[0], 1) / max(sum(self._known), 1)
        self._known = []
        self._refuse_infinite_gradients()
        if factor != 1:
            for parameter in self.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(factor)

    def _refuse_infinite_gradients(self) -> None:
        """Stops before a step that would make weights infinite or NaN.

        With float16 the gradient scaler skips such steps and lowers its scale, so they are left
        to it. In several processes gradients are averaged already: all processes stop together.
        """
        if self.recipe.precision == "16-mixed":
            return
        largest = [
            torch.linalg.vector_norm(parameter.grad, ord=math.inf)
            for parameter in self.parameters()
            if parameter.grad is not None and parameter.grad.numel()
        ]
        if largest and not bool(torch.stack(largest).isfinite().all()):
            batch = len(self.train_result.losses) - 1
            self._stop("gradients that are infinite or NaN", batch, self.train_result)

    def _stop(self, found: str, batch_idx: int, result: EpochResult) -> NoReturn:
        """Ends a training whose loss or gradient is not finite; every process does so alike.

        Args:
            found: what is not finite.
            batch_idx: the batch in its epoch, from 0.
            result: holds the exams of that batch as its latest.

        Raises:
            MrkneeError: always, in the first process.
            SystemExit: always, in the others, which leave the message to the first.
        """
        if self.global_rank:
            raise SystemExit(1)
        ids = result.ids[len(result.ids) - result.latest :]
        exams = ", ".join(ids[:_MAX_NAMED]) + (", ..." if len(ids) > _MAX_NAMED else "")
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        what_to_do = ["a lower optimizer.learning_rate"]
        if self.recipe.optimizer.clip_norm == 0:
            what_to_do.append("optimizer.clip_norm 1")
        if self.recipe.precision == "16-mixed":
            what_to_do.append("precision bf16-mixed or 32-true")
        raise TrainingError(
            "training diverged and was stopped before another step",
            code="diverged",
            exam=ids[0] if len(ids) == 1 else None,
            expected="finite losses and gradients",
            found=f"{found} in epoch {self.current_epoch + 1}, batch {batch_idx + 1} (optimizer "
            f"step {self.trainer.global_step + 1} of the run), at learning rate {rate:.3g}; "
            f"exams of the batch: {exams}",
            advice=f"start a new run with {', or '.join(what_to_do)}; if it happens at the first "
            "step already, look at these exams with `mrknee check`",
        )

    def on_train_epoch_end(self) -> None:
        """Says which epoch comes next; Lightning tells samplers, but not batch samplers."""
        loader = self.trainer.train_dataloader
        assert loader is not None  # noqa: S101  # fit has one
        loader.batch_sampler.set_epoch(self.current_epoch + 1)

    def on_validation_epoch_start(self) -> None:
        """Starts the epoch's record."""
        self.valid_result = EpochResult(self.findings)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """One batch's predictions (Lightning has turned gradients off)."""
        self._step(batch, self.valid_result)
        loss, exams = self.valid_result.losses[-1], self.valid_result.latest
        if not math.isfinite(loss):
            self._stop(f"a validation loss of {loss}", batch_idx, self.valid_result)
        self.log("val/loss_step", loss, on_step=True, on_epoch=False, batch_size=exams)

    def on_validation_epoch_end(self) -> None:
        """Logs the epoch's loss and AUCs, computed once from all its predictions.

        Lightning validates before it ends the training epoch, so both are logged here.
        """
        results = {"val": self.valid_result}
        if self.train_result.ids:
            results["train"] = self.train_result
        for part, result in results.items():
            self.log(f"{part}/loss", result.loss(), batch_size=1)
            for name, value in result.aucs().items():
                self.log(f"{part}/auc_{name}", value, batch_size=1)
        self.log("learning_rate", self.trainer.optimizers[0].param_groups[0]["lr"], batch_size=1)
        if self._plateau is not None:
            self._plateau.step(self.valid_result.loss())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the epoch so far, and the plateau's count.

        Lightning would step the plateau only after the checkpoint.
        """
        checkpoint["train_result"] = self.train_result.state()
        if self._plateau is not None:
            checkpoint["plateau"] = self._plateau.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes them back; Lightning makes the optimizer later.

        In the middle of an epoch Lightning goes on without `on_train_epoch_start`.
        """
        self.train_result.restore(checkpoint["train_result"])
        self._plateau_state = checkpoint.get("plateau")

    def configure_optimizers(self) -> Any:  # noqa: ANN401  # Lightning's union of many forms
        """The recipe's optimizer and schedule, over the parameters that are not frozen."""
        parameters = [p for p in self.parameters() if p.requires_grad]
        optimizer = make_optimizer(parameters, self.recipe.optimizer)
        settings = self.recipe.schedule
        if settings.name == "constant":
            return optimizer
        if settings.name == "plateau":
            self._plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimizer,
                patience=settings.patience,
                factor=settings.factor,
                threshold=settings.threshold,
            )
            if self._plateau_state is not None:
                self._plateau.load_state_dict(self._plateau_state)
            return optimizer
        cosine = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: cosine_factor(step, self.steps, settings)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cosine, "interval": "step"}}


def make_optimizer(
    parameters: list[torch.nn.Parameter], settings: OptimizerSettings
) -> torch.optim.Optimizer:
    """The recipe's optimizer over these parameters."""
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.name == "adam":
        return torch.optim.Adam(parameters, lr=rate, weight_decay=decay)
    if settings.name == "adamw":
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
    return torch.optim.SGD(
        parameters,
        lr=rate,
        weight_decay=decay,
        momentum=settings.momentum,
        nesterov=settings.momentum > 0,
    )


def cosine_factor(step: int, steps: int, settings: ScheduleSettings) -> float:
    """The learning rate's factor at a step: linear from 0 in the warm-up, then a half cosine."""
    warm = settings.warmup * steps
    if step < warm:
        return (step + 1) / (warm + 1)
    return 0.5 * (1 + math.cos(math.pi * min((step - warm) / max(steps - warm, 1), 1.0)))
