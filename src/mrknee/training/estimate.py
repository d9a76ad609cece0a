"""Estimates of peak memory and time per epoch before a run starts.

A few slices are measured in a copy of one encoder. The result is scaled to the largest batch that
the data set can give, by the numbers of slices in the headers of its files. The run's weights,
statistics and random numbers are unaffected. docs/how-to/save-memory.md compares estimates with
measured peaks.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mrknee.exams import Dataset
from mrknee.models.feature_cache import KEPT_BYTES
from mrknee.models.network import Network, slices_per_call
from mrknee.models.prediction import device_here
from mrknee.training.memory import free_memory, resident_memory
from mrknee.training.out_of_memory import memory_advice
from mrknee.training.parts import KEPT_FRAMES_BYTES, Parts
from mrknee.training.recipe import Recipe

AUTOMATIC_SLICES = {"cpu": 4, "cuda": 64}
"""Type of device -> number of slices for `slices_at_once: -1`. On a processor, 4 and 8 slices took
about the same time; a GPU needs many for full use (64 is not measured)."""

MAX_HEADERS = 2000
"""Maximum number of exams whose headers are read; of more exams, an evenly spaced selection."""

TIMED_SECONDS = 0.5
"""Target duration of the timing; shorter ones would mostly measure the overhead of calls."""

MAX_TIMED_SLICES = 64
"""Maximum number of slices that are timed."""

WORKER_BYTES = 80_000_000
"""Memory of a worker process in addition to its batches: assumed, not measured."""


@dataclass(frozen=True)
class Probe:
    """Measurements of one encoder, in bytes and seconds per slice.

    Attributes:
        saved: bytes that autograd saves for the gradients.
        largest: bytes of the largest saved tensor.
        feature_map: bytes of the feature map.
        stored: bytes of the feature maps that `feature_cache` stores.
        forward: seconds of encoding without gradients.
        forward_backward: seconds of encoding and gradients.
    """

    saved: float
    largest: float
    feature_map: float
    stored: float
    forward: float
    forward_backward: float


@dataclass(frozen=True)
class Estimate:
    """Estimated memory and time of a run.

    Attributes:
        memory: peak bytes: memory of the GPU, otherwise memory of all processes of this start.
        free: bytes available for the run; None if unknown.
        seconds: duration of one epoch, including validation.
        exams: numbers of exams trained on and validated on per epoch.
        largest: slices of the largest possible batch.
        device: cpu or cuda.
        advice: settings to change if memory is insufficient.
        first_epoch_only: whether `seconds` holds for the first epoch only, because later ones read
            stored feature maps.
    """

    memory: int
    free: int | None
    seconds: float
    exams: tuple[int, int]
    largest: int
    device: str
    advice: str
    first_epoch_only: bool = False

    @property
    def fits(self) -> bool:
        """Whether memory suffices; True if the free memory is unknown."""
        return self.free is None or self.memory <= self.free

    def text(self) -> str:
        """Returns the estimate as two or three lines of text, with a warning if memory is low."""
        memory = "GPU memory" if self.device == "cuda" else "memory"
        free = "" if self.free is None else f" ({self.free / 1e9:.1f} GB available)"
        epoch = "for the first epoch" if self.first_epoch_only else "per epoch"
        lines = [
            f"estimate: at most {self.memory / 1e9:.1f} GB of {memory}{free}, for batches of up to "
            f"{self.largest} slices",
            f"estimate: {_duration(self.seconds)} {epoch} of {self.exams[0]} training exams and "
            f"{self.exams[1]} validation exams, if no other program uses this machine",
        ]
        if not self.fits:
            lines.append(
                "WARNING: this run may need more memory than is available and may be killed by the "
                f"system. To avoid this, {self.advice}"
            )
        return "\n".join(lines)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def slices_at_once(recipe: Recipe) -> int | None:
    """Returns how many slices pass through an encoder together in training; None means all."""
    if recipe.slices_at_once < 0:
        # batch statistics of a few slices differ from those of all
        trained = recipe.network.batchnorm == "trained"
        return None if trained else AUTOMATIC_SLICES[device_here()]
    return recipe.slices_at_once or None


def estimate(
    network: Network, parts: Parts, recipe: Recipe, precision: str, *, workers: int, processes: int
) -> Estimate:
    """Estimates a run's peak memory and time per epoch.

    Args:
        network: the network before training; a copy of one encoder is measured.
        parts: the exams of each part.
        recipe: the settings.
        precision: precision of the training loop.
        workers: number of worker processes of all loaders together.
        processes: number of processes that share a batch, on all machines.
    """
    device = device_here()
    train_counts = _slice_counts(parts.train, parts.train_positions, recipe.slices_per_series)
    selection_counts = _slice_counts(
        parts.selection, parts.selection_positions, recipe.preparation.read_slices
    )
    batch = max(
        _largest_batch(counts, recipe, processes) for counts in (train_counts, selection_counts)
    )
    probe = _probe(network, recipe, precision, device)
    memory = _peak_memory(network, recipe, probe, batch, device)
    if device == "cuda":
        memory += sum(p.nbytes for p in network.parameters())
        free: int | None = torch.cuda.mem_get_info()[0]
    else:
        resident = resident_memory() or 0
        # each worker has two batches ready, and one in progress
        pixels = recipe.preparation.crop**2
        memory += resident + workers * (WORKER_BYTES + 3 * batch * pixels)
        if recipe.feature_cache is not None:
            slices = _total(train_counts, len(parts.train_positions))
            slices += _total(selection_counts, len(parts.selection_positions))
            memory += min(slices * probe.stored, KEPT_BYTES)
            memory += min(slices * pixels, KEPT_FRAMES_BYTES)
        free = free_memory()
        free = None if free is None else free + resident
    seconds_per_slice = probe.forward_backward + (
        0 if slices_at_once(recipe) is None else probe.forward
    )
    seconds = _total(train_counts, len(parts.train_positions)) * seconds_per_slice
    seconds += _total(selection_counts, len(parts.selection_positions)) * probe.forward
    return Estimate(
        memory=round(memory),
        free=free,
        seconds=seconds / processes,
        exams=(len(parts.train_positions), len(parts.selection_positions)),
        largest=batch,
        device=device,
        advice=memory_advice(recipe),
        first_epoch_only=recipe.feature_cache is not None,
    )


def _peak_memory(network: Network, recipe: Recipe, probe: Probe, batch: int, device: str) -> float:
    """Returns the peak bytes of the largest batch in training or validation, without the weights.

    Args:
        network: the network before training.
        recipe: the settings.
        probe: measurements of an encoder.
        batch: number of slices of the largest batch.
        device: cpu or cuda.
    """
    chunk = slices_at_once(recipe)
    in_memory = batch if chunk is None else min(chunk, batch)
    pixels = recipe.preparation.crop**2
    stored = pixels * (1 + 4 * recipe.preparation.channels)  # bytes, and float32
    trained = sum(p.nbytes for p in network.parameters() if p.requires_grad)
    states = {"adam": 2, "adamw": 2, "sgd": 1}[recipe.optimizer.name]
    # copies of the weights: the average, and the epochs that it is computed from
    copies = 0 if recipe.ema is None else 1
    copies += 0 if recipe.average_last is None else 1 + min(recipe.average_last, recipe.epochs)
    averages = copies * sum(p.nbytes for p in network.parameters())
    training = (
        trained * (1 + states)  # gradients and the optimizer's averages
        + batch * stored
        + batch * probe.feature_map * 2  # feature maps and their gradients
        + in_memory * (probe.saved + 2 * probe.largest)
    )
    # validation saves nothing for gradients
    encoder = network.encoder(network.series.names[0])  # all are of one kind
    inference = slices_per_call(encoder, device, batch) * 3 * probe.largest
    validation = trained * states + batch * (stored + probe.feature_map) + inference
    return averages + max(training, validation)


def _slice_counts(exams: Dataset, positions: Sequence[int], most: int | None = None) -> list[int]:
    """Returns the number of slices of each exam, all series together, from the headers.

    `most` is the maximum number of slices that are used per series; None: all.
    """
    step = -(-len(positions) // MAX_HEADERS)
    if most is None:
        return [exams.count_slices(position) for position in positions[::step]]
    shapes = [exams.shapes(position).values() for position in positions[::step]]
    return [sum(min(slices, most) for slices, _, _ in those) for those in shapes]


def _total(counts: Sequence[int], exams: int) -> float:
    """Extrapolates the slice counts of some exams to the given number of exams."""
    return sum(counts) / len(counts) * exams


def _largest_batch(counts: Sequence[int], recipe: Recipe, processes: int) -> int:
    """Returns the number of slices of the largest possible batch, per process."""
    exams = -(-recipe.batch_exams // processes)
    slices = sum(sorted(counts)[-exams:])
    if recipe.batch_slices is not None:
        slices = min(slices, max(recipe.batch_slices, max(counts)))
    return slices


def _probe(network: Network, recipe: Recipe, precision: str, device: str) -> Probe:
    """Measures encoding and gradients of a few slices in a copy of the first encoder."""
    encoder = copy.deepcopy(network.encoder(network.series.names[0])).to(device)
    weights = [p for p in encoder.parameters() if p.requires_grad]
    side, channels = recipe.preparation.crop, recipe.preparation.channels
    dtype = torch.float16 if precision == "16-mixed" else torch.bfloat16
    autocast = torch.autocast(device, dtype, enabled=precision != "32-true")

    def now() -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def run(count: int) -> tuple[int, int, int, float]:
        grey = torch.linspace(-1, 1, count * side * side * channels, device=device)
        images = grey.view(count, side, side, channels).permute(0, 3, 1, 2)
        begin = now()
        with _SavedTensors(encoder) as saved, autocast:
            maps = encoder(images)
        if weights:
            torch.autograd.grad(maps.float().sum(), weights, allow_unused=True)
        return saved.total, saved.largest, maps.nbytes, now() - begin

    with torch.random.fork_rng(), torch.enable_grad():
        # BatchNorm can't compute statistics of one slice if its feature map has one cell
        two, *_ = run(2)
        four, largest, maps, seconds = run(4)
        limit = min(slices_at_once(recipe) or MAX_TIMED_SLICES, MAX_TIMED_SLICES)
        count = max(4, min(int(4 * TIMED_SECONDS / seconds), limit))
        if count > 4:
            *_, seconds = run(count)
        images = torch.zeros(count, channels, side, side, device=device)
        with torch.no_grad(), autocast:
            encoder.maps(images[:2])  # folds batch normalisations, as a run does once
            begin = now()
            stored = encoder.maps(images)
            encoder.combine(stored)
            forward = now() - begin
    return Probe(
        saved=max(four - two, 0) / 2,  # excludes memory that doesn't depend on the slices
        largest=largest / 4,
        feature_map=maps / 4,
        stored=sum(one.numel() for one in stored) * torch.float16.itemsize / count,
        forward=forward / count,
        forward_backward=seconds / count,
    )


class _SavedTensors:
    """Counts the bytes that autograd saves for gradients, each storage once.

    Attributes:
        total: bytes, without the weights.
        largest: bytes of the largest storage.
    """

    def __init__(self, module: nn.Module) -> None:
        self.total = self.largest = 0
        self._seen = {t.untyped_storage().data_ptr() for t in module.state_dict().values()}
        self._hooks: Any = torch.autograd.graph.saved_tensors_hooks(self._count, lambda t: t)

    def _count(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self.total += storage.nbytes()
            self.largest = max(self.largest, storage.nbytes())
        return tensor

    def __enter__(self) -> _SavedTensors:
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._hooks.__exit__(*error)
