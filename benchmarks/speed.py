"""How fast mrknee is, beside the published system's loop and beside what the machine allows.

python benchmarks/speed.py [--quick] [--out speed.json]      (`make bench` is the quick one)

All this runs in one process, the sides of a row in turn (A B A B), after one round to warm up;
medians and ratios are printed, and written as JSON with machine and versions. Start-up and peak
memory are other processes' (how memory grows with the exams is `memory.py`'s, AUCs are
`speed_auc.py`'s). The exams are synthetic knees of MRNet's size; weights are random,
since speed doesn't depend on them.
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
from mrknee.inference.export import Int8, export
from mrknee.inference.model import Model, load_model
from mrknee.networks.checkpoint import save_checkpoint
from mrknee.networks.network import Network
from mrknee.networks.prediction import device_here
from mrknee.networks.settings import NetworkSettings
from mrknee.sources.phantom.cohort import write_cohort
from mrknee.tensors.batches import Batch, frame_exam, join
from mrknee.tensors.preparation import Preparation
from mrknee.tensors.settings import AugmentationSettings
from mrknee.training.environment import describe_environment, has_bfloat16
from mrknee.training.loop import TrainingLoop
from mrknee.training.objective import summed_loss
from mrknee.training.parts import divide, load_part
from mrknee.training.recipe import Recipe, load_recipe

HISTORY = 565
"""Exams the reference's AUCs run over at a step: half of MRNet's training exams."""

PAUSE = 0.2
"""Seconds between two sides: a library's threads wait busily for a while after their work, and
would take a core from the next one."""

BATCH_EXAMS = 4
"""Exams in a batch of ours."""

REFERENCE = "reference"


class Unrecorded:
    """Writes and shows nothing while a training loop runs."""

    def start(self, *_: object) -> None:
        """Nothing."""

    trained = validated = end_epoch = end = start

    def has_stalled(self) -> bool:
        """Never."""
        return False


@dataclass
class Row:
    """One thing measured.

    Attributes:
        name: what.
        unit: of the figures, such as "s/exam".
        figures: side -> its median.
        spread: side -> lowest and highest.
        n: how often each side was measured.
        floor: the machine's least for the same work, in the same unit, and whose side it is held
            against; None where there is none.
        notes: what a reader must know.
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
        """A line a side, the reference first, with the ratio to it."""
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
    """Seconds a unit of each side, run in turn; `per` units a run. One round first warms up."""
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
    """Seconds of one run: the processor's clock, or the device's own events."""
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
    """Meanwhile torch computes with one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Prepared(torch.nn.Module):
    """Preparation and network together: what a batch costs from bytes to logits."""

    def __init__(self, preparation: Preparation, network: Network) -> None:
        super().__init__()
        self.preparation, self.network = preparation, network

    def forward(self, batch: Batch) -> torch.Tensor:
        """One logit per exam and finding."""
        logits: torch.Tensor = self.network(batch.prepared(self.preparation), batch.lengths)
        return logits


class Bench:
    """The exams, both networks with the same random weights, and the machine's limits."""

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
        """Ours, of random weights."""
        return Network(NetworkSettings(), FINDINGS[:findings])

    def loop(self, findings: int = len(FINDINGS), device: str = "cpu") -> ReferenceLoop:
        """The reference's, of random weights."""
        return ReferenceLoop(ReferenceNetwork(findings), self.weights[:findings], device=device)

    def batch(self, count: int) -> Batch:
        """The first exams, framed."""
        return join([frame_exam(self.train[i], self.preparation) for i in range(count)])

    def work(self, exams: Dataset, *, backward: bool = False) -> float:
        """Operations of our network for an exam of the mean number of slices."""
        one = self.batch(1)
        reader = Prepared(self.preparation, self.network()).train(backward)
        slices = sum(sum(map(len, exam.stacks.values())) for exam in exams) / len(exams)
        counted = operations(reader, one, backward=backward)
        return counted * slices / sum(map(len, one.slices.values()))

    # --- rows -----------------------------------------------------------------------------------

    def pipeline(self, *, augment: bool) -> Row:
        """Files to what the loader hands over, and to the network's input; one thread, one core."""
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
        """One training step, the exams in memory; the AUC history half an epoch long."""
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
            # the same exam several times, so that sides have the same slices an exam
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
        """Our step as training makes it: forward, loss, backward, Adam."""
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
        """A training step of three findings in one network, and of three networks of one each."""
        batch = self.batch(1)
        three = [self._stepper(batch, "cpu", bfloat16=self.bfloat16, findings=1) for _ in FINDINGS]
        sides = {
            "three networks": lambda: [step() for step in three],
            "one network": self._stepper(batch, "cpu", bfloat16=self.bfloat16),
        }
        figures, spread, _ = in_turn(sides, self.rounds)
        share = figures["one network"] / figures["three networks"]
        notes: dict[str, float | str] = {"share of three networks' time": share}
        return Row("three findings, a step", "s", figures, spread, self.rounds, notes=notes)

    def epoch(self) -> Row:
        """A whole epoch, training and validation, each through its own loaders."""
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
        parts = divide(self.data, recipe)
        loop = TrainingLoop(
            Network(recipe.network, FINDINGS),
            recipe,
            self.weights,
            precision="bf16-mixed" if self.bfloat16 else "32-true",
        )
        training = load_part(parts.train, parts.fit, recipe, training=True)
        loop.fit(training, load_part(parts.selecting, parts.chosen, recipe), Unrecorded())

    def models(self) -> dict[str, Model]:
        """A run folder of random weights and what can be exported from it."""
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
        """One exam, from its files to its probabilities."""
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
        """All validation exams, read one after another as each side does it."""
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
        """Peak memory of each side in a process of its own; what they do is `memory.py`'s."""
        peaks = {side: peak_in_child(does, self.data, self.folder) for side, does in sides.items()}
        spread = {side: (peak, peak) for side, peak in peaks.items()}
        return Row(f"peak memory in MB, {what}", "MB", peaks, spread, 1)

    def start_up(self) -> Row:
        """Each verb's --help, and one exam's prediction from process start."""
        verbs = ["phantom", "import", "check", "train", "predict", "submit", "evaluate", "compare"]
        verbs += ["explain", "export", "serve", "encoders", "demo"]
        mrknee = [sys.executable, "-m", "mrknee"]
        one = self.folder / "one"
        for plane in PLANES:
            (one / plane).mkdir(parents=True, exist_ok=True)
            name = f"{self.valid.ids[0]}.npy"
            if not (one / plane / name).exists():
                os.link(self.data / "valid" / plane / name, one / plane / name)
        bare = "python, doing nothing"
        commands = {bare: [sys.executable, "-c", "pass"], "--help": [*mrknee, "--help"]}
        commands.update({f"{verb} --help": [*mrknee, verb, "--help"] for verb in verbs})
        for kind in ("float32", "int8"):
            commands[f"predict {kind}.onnx, 1 exam"] = [
                *mrknee, "predict", str(self.folder / f"{kind}.onnx"), str(one),
                "--out", str(self.folder / "one.csv"),
            ]  # fmt: skip
        sides = {name: partial(run_quietly, command) for name, command in commands.items()}
        figures, spread, _ = in_turn(sides, self.rounds)
        return Row("start-up", "s", figures, spread, self.rounds, figures[bare], "--help")


def join_same(one: Batch, count: int) -> Batch:
    """A batch of one exam, several times."""
    return Batch(
        one.ids * count,
        {plane: stack.repeat(count, 1, 1) for plane, stack in one.slices.items()},
        {plane: lengths.repeat(count) for plane, lengths in one.lengths.items()},
        one.labels.repeat(count, 1),
    )


def run_quietly(command: list[str]) -> None:
    """Runs a command to its end; what it prints is not shown."""
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603  # our own


def has_openvino() -> bool:
    """Whether the extra is installed."""
    try:
        import openvino  # type: ignore[import-untyped, unused-ignore]  # noqa: F401
    except ImportError:
        return False
    return True


def rows(bench: Bench) -> Iterator[Row]:
    """All rows."""
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
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a version of about five minutes")
    parser.add_argument("--out", type=Path, default=Path("speed.json"))
    arguments = parser.parse_args()
    # what loaders and trainers have to say is about settings chosen on purpose
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
