"""Speed of mrknee, compared with the published system's loop and with the limits of the machine.

python benchmarks/speed.py [--quick] [--out speed.json]      (`make bench` runs the quick version)

The sides of each row are measured alternately (A B A B) in one process, after a warm-up round;
start-up and peak memory are measured in separate processes. Medians and ratios are printed, and
written as JSON with the machine and versions. The exams are synthetic knees of MRNet's size; the
weights are random, since speed doesn't depend on them. `memory.py` measures how memory grows with
the number of exams, `speed_auc.py` the AUCs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from floors import bandwidth, operations, peaks, synchronise
from memory import peak_in_child
from reference_loop import FINDINGS, ReferenceExams, ReferenceLoop, ReferenceNetwork
from scoring_speed import processor
from torch import Tensor

from mrknee.exams import PLANES, Dataset
from mrknee.export.onnx import Int8, export
from mrknee.inference.model import Model, load_model
from mrknee.models.checkpoint import save_checkpoint
from mrknee.models.network import Network
from mrknee.models.prediction import device_here
from mrknee.models.settings import NetworkSettings
from mrknee.sources.phantom.cohort import write_cohort
from mrknee.training.environment import describe_environment, has_bfloat16
from mrknee.training.loop import TrainingLoop
from mrknee.training.loss import summed_loss
from mrknee.training.parts import make_loader, split_exams
from mrknee.training.recipe import Recipe, load_recipe
from mrknee.transforms.batches import Batch, frame_exam, join
from mrknee.transforms.preparation import Preparation
from mrknee.transforms.settings import AugmentationSettings

HISTORY = 565
"""Number of exams over which the reference computes AUCs in a step: half of MRNet's training
exams."""

PAUSE = 0.2
"""Pause in seconds between two sides: a library's threads may busy-wait for a while after their
work, and would occupy a core during the next measurement."""

BATCH_EXAMS = 4
"""Number of exams in a batch of mrknee."""

REFERENCE = "reference"


class NoCallbacks:
    """Callbacks of the training loop that do nothing."""

    def on_train_start(self, *_: object) -> None:
        """Does nothing."""

    on_train_batch_end = on_validation_batch_end = on_epoch_end = on_train_start
    on_train_end = on_train_start

    def should_stop(self) -> bool:
        """Returns False: training never stops early."""
        return False


@dataclass
class Row:
    """The results of one measurement.

    Attributes:
        name: what was measured.
        unit: unit of the figures, such as "s/exam".
        figures: side -> median.
        spread: side -> minimum and maximum.
        n: number of measurements per side.
        floor: minimum for the same work on this machine, in the same unit; None if unknown.
        floor_of: the side that is compared with the floor.
        notes: name -> additional figure or text.
    """

    name: str
    unit: str
    figures: dict[str, float]
    spread: dict[str, tuple[float, float]]
    n: int
    floor: float | None = None
    floor_of: str | None = None
    notes: dict[str, float | str] = field(default_factory=dict)

    def lines(self) -> Iterator[str]:
        """Yields one line per side, with the ratio to the reference, then the notes."""
        for side, figure in self.figures.items():
            low, high = self.spread[side]
            line = f"{self.name:<28}{side:<26}{figure:>10.4g} ({low:.4g} to {high:.4g}) {self.unit}"
            if REFERENCE in self.figures:
                line += f"  x{self.figures[REFERENCE] / figure:.2f}"
            if self.floor is not None and side == self.floor_of:
                line += f"  floor {self.floor:.4g}, reached {self.floor / figure:.2f}"
            yield line
        for name, value in self.notes.items():
            shown = f"{value:.4g}" if isinstance(value, float) else value
            yield f"{'':<28}{name}: {shown}"


def in_turn(
    sides: Mapping[str, Callable[[], object]], rounds: int, per: int = 1, device: str = "cpu"
) -> tuple[dict[str, float], dict[str, tuple[float, float]], dict[str, list[float]]]:
    """Measures seconds per unit of all sides alternately, after one warm-up round.

    Args:
        sides: side -> function to measure.
        rounds: number of measurements per side.
        per: number of units processed in one call.
        device: device that computes.

    Returns:
        Medians, ranges and all measurements, each by side.
    """
    times: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(rounds + 1):
        for side, work in sides.items():
            time.sleep(PAUSE)
            seconds = timed(work, device)
            if number:
                times[side].append(seconds / per)
    return (
        {side: statistics.median(t) for side, t in times.items()},
        {side: (min(t), max(t)) for side, t in times.items()},
        times,
    )


def timed(work: Callable[[], object], device: str) -> float:
    """Returns the seconds of one call, from the system's clock or from events of the device."""
    if device == "cpu":
        start = time.perf_counter()
        work()
        return time.perf_counter() - start
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    synchronise(device)
    begin.record()
    work()
    end.record()
    synchronise(device)
    return float(begin.elapsed_time(end)) / 1000


@contextmanager
def one_thread() -> Iterator[None]:
    """Restricts torch to one thread within the context."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Prepared(torch.nn.Module):
    """Preparation and network in one module, from bytes to logits."""

    def __init__(self, preparation: Preparation, network: Network) -> None:
        super().__init__()
        self.preparation, self.network = preparation, network

    def forward(self, batch: Batch) -> torch.Tensor:
        """Computes one logit per exam and finding."""
        logits: torch.Tensor = self.network(batch.prepared(self.preparation), batch.lengths)
        return logits


class Bench:
    """The measurements, with their exams and the limits of the machine."""

    def __init__(self, folder: Path, *, train: int, valid: int, rounds: int) -> None:
        self.folder, self.rounds, self.device = folder, rounds, device_here()
        self.data = folder / "data"
        write_cohort(self.data, train=train, valid=valid, seed=0)
        self.train = Dataset.of_split(self.data, "train")
        self.valid = Dataset.of_split(self.data, "valid")
        self.preparation = Preparation()
        self.plain = {
            augment: ReferenceExams(self.data, "train", augment=augment, size=256, crop=224)
            for augment in (False, True)
        }
        self.plain_valid = ReferenceExams(self.data, "valid", augment=False, size=256, crop=224)
        torch.manual_seed(0)
        self.weights = torch.tensor([0.24, 4.43, 1.85])
        self.peaks, self.bandwidth = peaks(), bandwidth()
        self.bfloat16 = has_bfloat16()
        self.precision = "bfloat16" if self.bfloat16 else "float32"

    def network(self, findings: int = len(FINDINGS)) -> Network:
        """Creates mrknee's network with random weights."""
        return Network(NetworkSettings(), FINDINGS[:findings])

    def loop(self, findings: int = len(FINDINGS), device: str = "cpu") -> ReferenceLoop:
        """Creates the reference loop, for a network with random weights."""
        return ReferenceLoop(ReferenceNetwork(findings), self.weights[:findings], device=device)

    def batch(self, count: int) -> Batch:
        """Returns a batch of the first training exams."""
        return join([frame_exam(self.train[i], self.preparation) for i in range(count)])

    def work(self, exams: Dataset, *, backward: bool = False) -> float:
        """Returns the operations of mrknee's network for an exam with the mean slice count."""
        one = self.batch(1)
        reader = Prepared(self.preparation, self.network()).train(backward)
        slices = sum(sum(map(len, exam.stacks.values())) for exam in exams) / len(exams)
        counted = operations(reader, one, backward=backward)
        return counted * slices / sum(map(len, one.slices.values()))

    # --- rows -----------------------------------------------------------------------------------

    def pipeline(self, *, augment: bool) -> Row:
        """Measures reading: from files to batches, and to the network's input; one thread."""
        plain, view = self.plain[augment], AugmentationSettings(draw="plane") if augment else None
        count = min(len(self.train), 8)

        def framed() -> list[Batch]:
            exams = (frame_exam(self.train[i], self.preparation, view) for i in range(count))
            return [join([exam]) for exam in exams]

        def prepared() -> None:
            for batch in framed():
                for plane in PLANES:
                    self.preparation.normalise(batch.slices[plane], batch.lengths[plane])

        sides = {
            REFERENCE: lambda: [plain[i] for i in range(count)],
            "mrknee": framed,
            "mrknee, to network input": prepared,
        }
        with one_thread():
            figures, spread, _ = in_turn(sides, self.rounds, per=count)
            narrow = bandwidth()
        moved = sum(2 * s.nbytes for b in framed() for s in b.slices.values()) / count
        name = "input, augmented" if augment else "input"
        return Row(name, "s/exam", figures, spread, self.rounds, moved / narrow, "mrknee")

    def step(self, device: str = "cpu") -> Row:
        """Measures a training step with exams in memory and an AUC history of half an epoch."""
        loop = self.loop(device=device)
        stacks, labels = self.plain[False][0]
        rng = np.random.default_rng(0)
        history = [row.astype(np.float32) for row in rng.integers(0, 2, (HISTORY, len(FINDINGS)))]

        def plainly() -> None:
            loop.truth, loop.predictions = list(history), list(rng.random((HISTORY, 3)))
            loop.step(stacks, labels)

        one = self.batch(1)
        sides: dict[str, Callable[[], object]] = {REFERENCE: plainly}
        sides["mrknee float32, 1 exam"] = self._stepper(one, device, bfloat16=False)
        if self.bfloat16 or device != "cpu":
            sides["mrknee bfloat16, 1 exam"] = self._stepper(one, device, bfloat16=True)
            name = f"mrknee bfloat16, {BATCH_EXAMS} exams"
            # the same exam repeated, so that all sides have the same number of slices per exam
            sides[name] = self._stepper(join_same(one, BATCH_EXAMS), device, bfloat16=True)
        figures, spread, _ = in_turn(sides, self.rounds, device=device)
        for side in figures:
            if side.endswith("exams"):
                figures[side] /= BATCH_EXAMS
                spread[side] = (spread[side][0] / BATCH_EXAMS, spread[side][1] / BATCH_EXAMS)
        work = operations(Prepared(self.preparation, self.network()), one, backward=True)
        last = list(figures)[-1]
        name = "training step" + ("" if device == "cpu" else f", {device}")
        limit = self.peaks if device == "cpu" else peaks(device)
        return Row(
            name, "s/exam", figures, spread, self.rounds, work / limit[self.precision], last,
            {"slices of the exam": float(sum(map(len, one.slices.values()))), "TFLOP": work / 1e12},
        )  # fmt: skip

    def _stepper(
        self, batch: Batch, device: str, *, bfloat16: bool, findings: int = len(FINDINGS)
    ) -> Callable[[], None]:
        """Returns a function for a training step of mrknee: forward, loss, backward, Adam."""
        reader = Prepared(self.preparation, self.network(findings)).to(device).train()
        adam = torch.optim.Adam(reader.parameters(), lr=1e-5, weight_decay=0.01)
        weights, here = self.weights[:findings].to(device), batch.to(device)
        labels = here.labels[:, :findings]

        def step() -> None:
            adam.zero_grad()
            with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
                logits = reader(here).float()
            torch.autograd.backward(summed_loss(logits, labels, weights) / labels.numel())
            adam.step()

        return step

    def one_network_or_three(self) -> Row:
        """Measures a training step of one network for three findings, and of three networks."""
        batch = self.batch(1)
        three = [self._stepper(batch, "cpu", bfloat16=self.bfloat16, findings=1) for _ in FINDINGS]
        sides = {
            "three networks": lambda: [step() for step in three],
            "one network": self._stepper(batch, "cpu", bfloat16=self.bfloat16),
        }
        figures, spread, _ = in_turn(sides, self.rounds)
        share = figures["one network"] / figures["three networks"]
        notes: dict[str, float | str] = {"share of three networks' time": share}
        return Row("three findings, per step", "s", figures, spread, self.rounds, notes=notes)

    def epoch(self) -> Row:
        """Measures an epoch of training and validation, with each side's own loaders."""
        loop = self.loop()
        count = len(self.train)

        def plainly() -> None:
            loop.train(self.plain[True])
            loop.evaluate(self.plain_valid)

        sides: dict[str, Callable[[], object]] = {REFERENCE: plainly}
        recipe = load_recipe("reference").replace(weights="none", precision="auto", epochs=1)
        sides["mrknee, 1 exam"] = lambda: self._fit(recipe)
        several = recipe.replace(batch_exams=BATCH_EXAMS)
        sides[f"mrknee, {BATCH_EXAMS} exams"] = lambda: self._fit(several)
        figures, spread, _ = in_turn(sides, max(self.rounds // 3, 1), per=count)
        notes: dict[str, float | str] = {
            "exams": f"{count} trained on, {len(self.valid)} validated"
        }
        rounds = max(self.rounds // 3, 1)
        work = self.work(self.train, backward=True)
        work += self.work(self.valid) * len(self.valid) / count
        floor, last = work / self.peaks[self.precision], list(figures)[-1]
        return Row("epoch", "s/training exam", figures, spread, rounds, floor, last, notes)

    def _fit(self, recipe: Recipe) -> None:
        parts = split_exams(self.data, recipe)
        loop = TrainingLoop(
            Network(recipe.network, FINDINGS),
            recipe,
            self.weights,
            precision="bf16-mixed" if self.bfloat16 else "32-true",
        )
        training = make_loader(parts.train, parts.train_positions, recipe, training=True)
        loop.fit(
            training, make_loader(parts.selection, parts.selection_positions, recipe), NoCallbacks()
        )

    def models(self) -> dict[str, Model]:
        """Creates a run folder with random weights and its exports; returns name -> model."""
        run = self.folder / "run"
        save_checkpoint(run / "best", self.network(), self.preparation.to_dict(), {}, {})
        export(run, self.folder / "float32.onnx")
        export(run, self.folder / "int8.onnx", int8=Int8(self.data, limit=1.0))
        found = {"mrknee, run folder": load_model(run)}
        for name in ("float32", "int8"):
            found[f"mrknee, {name}.onnx"] = load_model(self.folder / f"{name}.onnx")
            for runtime in ("openvino", "openvino-bf16") if has_openvino() else ():
                if runtime == "openvino" or self.bfloat16:
                    found[f"mrknee, {name}.onnx, {runtime}"] = load_model(
                        self.folder / f"{name}.onnx", runtime=runtime
                    )
        return found

    def latency(self, models: Mapping[str, Model]) -> Row:
        """Measures one exam from its files to its probabilities."""
        network = ReferenceNetwork().eval()
        turn = iter(range(10**9))

        def plainly() -> Tensor:
            stacks, _ = self.plain_valid[next(turn) % len(self.plain_valid)]
            return torch.sigmoid(network(stacks))

        def with_model(model: Model) -> Callable[[], object]:
            turn = iter(range(10**9))
            return lambda: model.predict([self.valid[next(turn) % len(self.valid)]])

        sides: dict[str, Callable[[], object]] = {REFERENCE: plainly}
        sides.update({name: with_model(model) for name, model in models.items()})
        rounds = self.rounds * 3
        figures, spread, times = in_turn(sides, rounds)
        slices = [sum(map(len, exam.stacks.values())) for exam in self.valid]
        work = self.work(self.valid)
        notes: dict[str, float | str] = {
            f"p99 {side}": float(np.quantile(t, 0.99)) for side, t in times.items()
        }
        notes["slices an exam"] = f"{statistics.mean(slices):.0f} ({min(slices)} to {max(slices)})"
        for kind, peak in self.peaks.items():
            notes[f"floor at the {kind} peak"] = work / peak
        best = min((s for s in figures if "int8" in s), key=figures.__getitem__)
        return Row(
            "one exam from its files", "s", figures, spread, rounds,
            work / self.peaks["int8"], best, notes,
        )  # fmt: skip

    def cohort(self, models: Mapping[str, Model]) -> Row:
        """Measures the prediction of all validation exams, in each side's own way."""
        loop = self.loop()
        sides: dict[str, Callable[[], object]] = {
            REFERENCE: lambda: loop.evaluate(self.plain_valid),
            **{name: (lambda m=model: m.predict(self.valid)) for name, model in models.items()},  # type: ignore[misc]
        }
        rounds = max(self.rounds // 2, 1)
        figures, spread, _ = in_turn(sides, rounds, per=len(self.valid))
        best = min((s for s in figures if "int8" in s), key=figures.__getitem__)
        floor = self.work(self.valid) / self.peaks["int8"]
        return Row("evaluation of a cohort", "s/exam", figures, spread, rounds, floor, best)

    def memory(self, sides: Mapping[str, str], what: str) -> Row:
        """Measures the peak memory of each side in its own process; `memory.py` has the tasks."""
        peaks = {side: peak_in_child(does, self.data, self.folder) for side, does in sides.items()}
        spread = {side: (peak, peak) for side, peak in peaks.items()}
        return Row(f"peak memory in MB, {what}", "MB", peaks, spread, 1)

    def start_up(self) -> Row:
        """Measures the --help, and the prediction of one exam, from process start."""
        mrknee = [sys.executable, "-m", "mrknee"]
        one = self.folder / "one"
        for plane in PLANES:
            (one / plane).mkdir(parents=True, exist_ok=True)
            name = f"{self.valid.ids[0]}.npy"
            if not (one / plane / name).exists():
                os.link(self.data / "valid" / plane / name, one / plane / name)
        bare = "python, doing nothing"
        commands = {bare: [sys.executable, "-c", "pass"], "--help": [*mrknee, "--help"]}
        for kind in ("float32", "int8"):
            commands[f"predict {kind}.onnx, 1 exam"] = [
                *mrknee, "predict", str(self.folder / f"{kind}.onnx"), str(one),
                "--out", str(self.folder / "one.csv"),
            ]  # fmt: skip
        sides = {name: partial(run_quietly, command) for name, command in commands.items()}
        figures, spread, _ = in_turn(sides, self.rounds)
        return Row("start-up", "s", figures, spread, self.rounds, figures[bare], "--help")


def join_same(one: Batch, count: int) -> Batch:
    """Returns a batch that repeats one exam."""
    return Batch(
        one.ids * count,
        {plane: stack.repeat(count, 1, 1) for plane, stack in one.slices.items()},
        {plane: lengths.repeat(count) for plane, lengths in one.lengths.items()},
        one.labels.repeat(count, 1),
    )


def run_quietly(command: list[str]) -> None:
    """Runs a command without showing its output."""
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603  # our own


def has_openvino() -> bool:
    """Returns whether the extra is installed."""
    try:
        import openvino  # type: ignore[import-untyped, unused-ignore]  # noqa: F401
    except ImportError:
        return False
    return True


def rows(bench: Bench) -> Iterator[Row]:
    """Makes all measurements."""
    yield bench.pipeline(augment=False)
    yield bench.pipeline(augment=True)
    yield bench.step()
    if bench.device != "cpu":
        yield bench.step(bench.device)
    yield bench.one_network_or_three()
    models = bench.models()
    yield bench.latency(models)
    yield bench.cohort(models)
    yield bench.start_up()
    files = {f"mrknee, {name}.onnx": f"read {name}.onnx" for name in ("float32", "int8")}
    yield bench.memory({REFERENCE: "read", "mrknee, run folder": "read run", **files}, "reading")
    yield bench.memory({REFERENCE: "train", "mrknee": "train reference"}, "training")
    yield bench.epoch()


def main() -> None:
    """Runs all measurements, prints and writes the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a version of about five minutes")
    parser.add_argument("--out", type=Path, default=Path("speed.json"))
    arguments = parser.parse_args()
    # warnings of loaders and training concern settings that were chosen on purpose
    warnings.simplefilter("ignore")
    environment: dict[str, Any] = {"processor": processor(), **describe_environment()}
    with TemporaryDirectory() as folder:
        exams = {"train": 5, "valid": 5} if arguments.quick else {"train": 24, "valid": 16}
        bench = Bench(Path(folder), **exams, rounds=2 if arguments.quick else 7)
        print(json.dumps(environment, indent=1))
        ops = ", ".join(f"{kind} {peak / 1e9:.0f}" for kind, peak in bench.peaks.items())
        print(f"peaks in Gop/s: {ops}; copy {bench.bandwidth / 1e9:.1f} GB/s")
        print("figure (lowest to highest); xN: times as fast as the first side\n")
        done = []
        for row in rows(bench):
            print("\n".join(row.lines()), flush=True)
            done.append(asdict(row))
        result = {
            "environment": environment,
            "peaks": bench.peaks,
            "bandwidth": bench.bandwidth,
            "quick": arguments.quick,
            "rows": done,
        }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"\nwrote {arguments.out}")


if __name__ == "__main__":
    main()
