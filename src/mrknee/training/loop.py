"""The training loop: epochs of optimizer steps, each followed by a validation.

A batch holds a few exams. An optimizer step follows `accumulate` batches; its gradient is that of
the mean loss over all known labels of these batches, in all processes. The state of the loop can
be saved after any step; a loop that restores it continues with bit-identical results.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Literal, NoReturn, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from mrknee.errors import MrkneeError, TrainingError
from mrknee.models.feature_cache import FeatureCache
from mrknee.models.network import Network
from mrknee.models.prediction import device_here
from mrknee.training.averaging import WeightAverage
from mrknee.training.distributed import Processes, gather
from mrknee.training.epoch_result import EpochResult
from mrknee.training.loss import label_weights, summed_loss
from mrknee.training.optimization import FACTORS, make_optimizer
from mrknee.training.parameter_groups import parameter_groups
from mrknee.training.recipe import Recipe
from mrknee.transforms.batches import Batch, EpochBatches, raise_if_error
from mrknee.transforms.preparation import Preparation

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
"""Arithmetic of encoders and head: float32, or mixed with bfloat16 or float16."""

Loader = DataLoader[Batch | MrkneeError]

_MAX_NAMED = 8  # maximum number of exams listed in an error


@runtime_checkable
class Callbacks(Protocol):
    """Callbacks of the training loop; `RunWriter` implements them and writes the run folder."""

    def on_train_start(self, loop: TrainingLoop, batches: EpochBatches) -> None:
        """Called before the first batch; `batches` are those of the training exams."""

    def on_train_batch_end(self, loop: TrainingLoop, batch: int, batches: int) -> None:
        """Called after training batch `batch` (from 1) of `batches` in an epoch."""

    def on_validation_batch_end(self, loop: TrainingLoop, batch: int, batches: int) -> None:
        """Called after validation batch `batch` (from 1) of `batches`."""

    def on_epoch_end(self, loop: TrainingLoop, learning_rate: float) -> None:
        """Called after the validation of epoch `loop.epoch` (from 1); the rate is its last one."""

    def should_stop(self) -> bool:
        """Returns whether training should stop before the next epoch."""

    def on_train_end(self) -> None:
        """Called after training, also after an error."""


class Objective(nn.Module):
    """A network and its loss as one module, which DistributedDataParallel can wrap.

    Args:
        network: the network.
        preparation: converts slices to the network's input.
        pos_weight: float32 (findings,): weight of the positive labels of each finding.
        weight: float32 (findings,): weight of all labels of each finding; None: 1.
        feature_cache: folder of the feature maps of frozen encoders; None: they aren't stored.
    """

    def __init__(
        self,
        network: Network,
        preparation: Preparation,
        pos_weight: Float[Tensor, " findings"],
        weight: Float[Tensor, " findings"] | None = None,
        feature_cache: str | None = None,
    ) -> None:
        super().__init__()
        self._cache = None
        if feature_cache is not None:
            self._cache = FeatureCache(feature_cache, network, preparation)
        self.network, self.preparation = network, preparation
        self.findings = network.findings
        self.register_buffer("pos_weight", pos_weight, persistent=False)
        self.register_buffer("weight", weight, persistent=False)

    def forward(
        self, batch: Batch
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "exams findings"], Float[Tensor, "exams findings"]]:
        """Returns the loss summed over the batch's known labels, its logits, and its labels."""
        if len(batch):
            logits = self._logits(batch).float()
            loss = summed_loss(logits, batch.labels, self.pos_weight, self.weight)  # type: ignore[arg-type]  # buffers
            return loss, logits, batch.labels
        # an empty batch contributes nothing, but every parameter needs a gradient
        trained = [p.sum() for p in self.parameters() if p.requires_grad]
        empty = torch.zeros((0, len(self.findings)))
        return 0.0 * torch.stack(trained).sum(), empty, empty

    def _logits(self, batch: Batch) -> Float[Tensor, "exams findings"]:
        if self._cache is not None:
            return self._cache.logits(batch)
        logits: Tensor = self.network(batch.prepared(self.preparation), batch.lengths)
        return logits


class TrainingLoop:
    """Trains a network by a recipe.

    Args:
        network: the network; moved to the GPU if there is one.
        recipe: the settings.
        pos_weight: float32 (findings,), from the exams trained on; used in the validation loss too,
            so that the two losses can be compared and no validation label influences training.
        steps: optimizer steps of the complete run: the length of the schedule.
        precision: arithmetic of encoders and head.
        processes: rank and number of the processes that train together.

    Attributes:
        epoch: number of finished epochs.
        step: number of finished optimizer steps.
        train_result: training predictions of the current epoch.
        valid_result: predictions of the latest validation.
    """

    def __init__(
        self,
        network: Network,
        recipe: Recipe,
        pos_weight: Float[Tensor, " findings"],
        steps: int = 1,
        *,
        precision: Precision = "32-true",
        processes: Processes | None = None,
    ) -> None:
        self.network, self.recipe, self.steps = network, recipe, steps
        self.processes = Processes() if processes is None else processes
        self.device = device_here()
        weight = label_weights(recipe.finding_weights, network.findings)
        preparation, cache = Preparation.of(recipe.preparation), recipe.feature_cache
        self.objective = Objective(network, preparation, pos_weight, weight, cache).to(self.device)
        self.average = WeightAverage.of(network, recipe)
        self._evaluated = self.objective  # the network as it is, or with averaged weights
        if self.average is not None:
            averaged = self.average.network
            self._evaluated = Objective(averaged, preparation, pos_weight, weight, cache).to(
                self.device
            )
        self.findings = self.objective.findings
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        groups = parameter_groups(network, recipe.optimizer)
        self.optimizer = make_optimizer(groups, recipe.optimizer)
        self._rates: list[float] = [group["lr"] for group in groups]  # without the schedule
        self.plateau: torch.optim.lr_scheduler.ReduceLROnPlateau | None = None
        if recipe.schedule.name == "plateau":
            self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
                self.optimizer,
                patience=recipe.schedule.patience,
                factor=recipe.schedule.factor,
                threshold=recipe.schedule.threshold,
            )
        self.precision = precision
        self.scaler = torch.amp.GradScaler(self.device, enabled=precision == "16-mixed")
        self.epoch = self.step = self._batches = 0
        self.train_result = EpochResult(self.findings)
        self.valid_result = EpochResult(self.findings)
        self._known_labels: list[
            int
        ] = []  # number of known labels of each batch of the current step
        self._set_learning_rate()

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step: `optimizer.learning_rate` and the schedule.

        Groups of parameters with other rates have other multiples of it.
        """
        multiple = self.recipe.optimizer.learning_rate / self._rates[0]
        return float(self.optimizer.param_groups[0]["lr"]) * multiple

    @property
    def evaluated_network(self) -> Network:
        """The network that is evaluated and saved; with an average, it has averaged weights."""
        return self._evaluated.network

    def state(self) -> dict[str, Any]:
        """Returns the state needed to continue training: tensors and plain values."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "plateau": None if self.plateau is None else self.plateau.state_dict(),
            "average": None if self.average is None else self.average.state(),
            "step": self.step,
            "train_result": self.train_result.state(),
        }

    def restore(self, state: dict[str, Any], epoch: int, batches: int) -> None:
        """Restores a `state` saved after `epoch` epochs and `batches` batches of the next one."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.plateau is not None:
            self.plateau.load_state_dict(state["plateau"])
        if self.average is not None:
            self.average.restore(state["average"], self.network)
        self.epoch, self._batches, self.step = epoch, batches, state["step"]
        if batches:
            self.train_result.restore(state["train_result"])

    def fit(self, training: Loader, validation: Loader, callbacks: Callbacks) -> None:
        """Trains until the recipe's last epoch, or until `callbacks.should_stop()`.

        Args:
            training: the exams to train on; its sampler starts at the restored batch.
            validation: the exams to validate on.
            callbacks: called at fixed points of training.

        Raises:
            MrkneeError: an exam can't be read, or a loss or a gradient isn't finite.
        """
        module: Callable[[Batch], Any] = self.objective
        if self.processes.world_size > 1:
            # if an exam lacks a plane, the encoder of that plane gets no gradient
            unused = self.recipe.allow_missing_plane
            module = DistributedDataParallel(self.objective, find_unused_parameters=unused)
        sampler = training.batch_sampler
        assert isinstance(sampler, EpochBatches)  # noqa: S101  # created by load_batches
        callbacks.on_train_start(self, sampler)
        try:
            while self.epoch < self.recipe.epochs and not (
                self._batches == 0 and callbacks.should_stop()
            ):
                self._train_epoch(module, training, callbacks)
                if self.average is not None:
                    self.average.add_epoch(self.network)
                self._validate(validation, callbacks)
                rate = self.learning_rate
                if self.plateau is not None:
                    self.plateau.step(self.valid_result.loss())
                self.epoch, self._batches = self.epoch + 1, 0
                sampler.set_epoch(self.epoch)
                callbacks.on_epoch_end(self, rate)
        finally:
            callbacks.on_train_end()

    def _train_epoch(
        self, module: Callable[[Batch], Any], loader: Loader, callbacks: Callbacks
    ) -> None:
        if not self._batches:
            self.train_result = EpochResult(self.findings)
        self.objective.train()
        total = len(loader)
        for index, loaded in enumerate(loader, start=self._batches):
            batch = raise_if_error(loaded).to(self.device, non_blocking=True)
            # dropout depends on seed, epoch, batch and rank only, so a run can be resumed
            entropy = [self.recipe.seed, self.epoch, index, self.processes.rank]
            torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
            last = (index + 1) % self.recipe.accumulate == 0 or index + 1 == total
            with (
                module.no_sync()
                if isinstance(module, DistributedDataParallel) and not last
                else nullcontext()
            ):
                with self._autocast():
                    outputs = self._outputs(module, batch)
                    loss = self._record_batch(outputs, batch, self.train_result)
                self._stop_if_loss_nonfinite("training", index, self.train_result)
                # divided by the first batch's number of known labels, corrected in `_take_step`;
                # times the number of processes, because their gradients are averaged
                mean = loss / max(self._known_labels[0], 1) * self.processes.world_size
                self.scaler.scale(mean).backward()
            if last:
                self._take_step(index)
            callbacks.on_train_batch_end(self, index + 1, total)

    def _outputs(
        self, module: Callable[[Batch], tuple[Tensor, Tensor, Tensor]], batch: Batch
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns what the objective computes; raises TrainingError for too few slices."""
        try:
            return module(batch)
        except ValueError as fault:
            if "more than 1 value per channel" not in str(fault):  # torch's BatchNorm
                raise
            raise TrainingError(
                "batch statistics can't be computed from one slice",
                code="batch-statistics",
                exam=batch.ids[0] if len(batch) == 1 else None,
                expected="at least two slices of each series in a batch, or feature maps of more "
                "than one cell",
                found=f"a series with one slice in the batch of {', '.join(batch.ids)}",
                advice="a larger batch_exams or preparation.crop, or network.batchnorm frozen",
            ) from None

    def _record_batch(
        self, outputs: tuple[Tensor, Tensor, Tensor], batch: Batch, result: EpochResult
    ) -> Tensor:
        """Adds the predictions of all processes to the result; returns the loss of this one."""
        loss, logits, labels = outputs
        gathered = gather((batch.ids, logits.detach().cpu(), labels.cpu(), float(loss.detach())))
        ids, all_logits, all_labels, losses = zip(*gathered, strict=True)
        known = result.add(
            [exam_id for process_ids in ids for exam_id in process_ids],
            torch.cat(all_logits),
            torch.cat(all_labels),
            sum(losses),
        )
        if result is self.train_result:
            self._known_labels.append(known)
        return loss

    def _take_step(self, index: int) -> None:
        self.scaler.unscale_(self.optimizer)
        # all gradients were divided by the first batch's number of known labels
        factor = max(self._known_labels[0], 1) / max(sum(self._known_labels), 1)
        self._known_labels = []
        self._stop_if_gradients_nonfinite(index)
        if factor != 1:
            for parameter in self.parameters:
                if parameter.grad is not None:
                    parameter.grad.mul_(factor)
        if self.recipe.optimizer.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.recipe.optimizer.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.step += 1
        if self.average is not None:
            self.average.add_step(self.network)
        self._set_learning_rate()

    def _set_learning_rate(self) -> None:
        factor_of = FACTORS.get(self.recipe.schedule.name)
        if factor_of is not None:
            factor = factor_of(self.step, self.steps, self.recipe.schedule)
            for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
                group["lr"] = rate * factor

    @torch.inference_mode()
    def _validate(self, loader: Loader, callbacks: Callbacks) -> None:
        self.valid_result = EpochResult(self.findings)
        self._evaluated.eval()
        total = len(loader)
        for index, loaded in enumerate(loader):
            batch = raise_if_error(loaded).to(self.device, non_blocking=True)
            with self._autocast():
                self._record_batch(self._evaluated(batch), batch, self.valid_result)
            self._stop_if_loss_nonfinite("validation", index, self.valid_result)
            callbacks.on_validation_batch_end(self, index + 1, total)

    def _autocast(self) -> torch.autocast:
        dtype = torch.float16 if self.precision == "16-mixed" else torch.bfloat16
        return torch.autocast(
            self.device,
            dtype,
            enabled=self.precision != "32-true",
            # a cached copy of a weight would sum the gradients of all planes in 16 bits
            cache_enabled=False,
        )

    def _stop_if_loss_nonfinite(self, part: str, index: int, result: EpochResult) -> None:
        if not math.isfinite(result.losses[-1]):
            self._stop(f"a {part} loss of {result.losses[-1]}", index, result)

    def _stop_if_gradients_nonfinite(self, index: int) -> None:
        """Stops before a step that would make weights infinite or NaN.

        With float16, the gradient scaler skips such steps and lowers its scale. With several
        processes, gradients are averaged already, so all processes stop together.
        """
        if self.precision == "16-mixed":
            return
        largest = [
            torch.linalg.vector_norm(parameter.grad, ord=math.inf)
            for parameter in self.parameters
            if parameter.grad is not None and parameter.grad.numel()
        ]
        if largest and not bool(torch.stack(largest).isfinite().all()):
            self._stop("gradients that are infinite or NaN", index, self.train_result)

    def _stop(self, found: str, index: int, result: EpochResult) -> NoReturn:
        """Ends training because a loss or gradient is not finite, in all processes.

        Args:
            found: the value that is not finite.
            index: index of the batch in its epoch, from 0.
            result: holds the exams of the batch as its latest.

        Raises:
            MrkneeError: always, in the first process.
            SystemExit: always, in the others; only the first reports the error.
        """
        if self.processes.rank:
            raise SystemExit(1)
        ids = result.ids[len(result.ids) - result.latest :]
        exams = ", ".join(ids[:_MAX_NAMED]) + (", ..." if len(ids) > _MAX_NAMED else "")
        changes = ["a lower optimizer.learning_rate"]
        if self.recipe.optimizer.clip_norm == 0:
            changes.append("optimizer.clip_norm 1")
        if self.precision == "16-mixed":
            changes.append("precision bf16-mixed or 32-true")
        raise TrainingError(
            "training diverged and was stopped",
            code="diverged",
            exam=ids[0] if len(ids) == 1 else None,
            expected="finite losses and gradients",
            found=f"{found} in epoch {self.epoch + 1}, batch {index + 1} (optimizer "
            f"step {self.step + 1} of the run), at learning rate {self.learning_rate:.3g}; "
            f"exams of the batch: {exams}",
            advice=f"start a new run with {', or '.join(changes)}; if the first step diverges, "
            "check these exams with `mrknee check`",
        )
