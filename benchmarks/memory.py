"""Peak memory of training, prediction and the service: does it grow with the number of exams?

python benchmarks/memory.py OUT [--few 100] [--many 2000]
python benchmarks/memory.py OUT --recipes [--slices 31]      # only the recipes of the package
python benchmarks/memory.py OUT --recipes reference default  # only these (part of `make bench`)

The exams have MRNet's size and slice counts; files of the large data set are links to those of the
small one, to save disk space. Both are used with a small network (exported, for prediction), so
that thousands of exams take minutes instead of an hour: only the bookkeeping could grow with their
number, and it is the same for any network. In addition, the script reports the peaks of the
reference network for a few exams, and of a service that reads and explains MRNet's largest exam,
3 x 61 slices, five times.

Each recipe of the package trains one epoch of RECIPE_EXAMS exams of this size, or of another number
of slices per series (MRNet's mean is 31). The script reports the peak memory of the training
process and of its largest worker, the estimate printed at the start, and the time per exam (wall
clock and processor).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

FINDINGS = ("abnormal", "acl", "meniscus")
SEEDS = 8
"""Number of different exams."""

RECIPE_EXAMS = 8
"""Exams in the training split with which recipes are measured; some are used for selection."""

PLAIN = {"weights": "none", "epochs": 1, "loggers": [], "precision": "auto"}
SMALL = {
    "network.encoder": "test_resnet",
    "preparation.size": 256,
    "preparation.crop": 64,
}


def make_exams(folder: Path) -> None:
    """Writes stacks of noise of MRNet's size; memory doesn't depend on their content."""
    from mrknee.exams import PLANES, write_stack

    rng = np.random.default_rng(0)
    for number in range(SEEDS):
        for plane in PLANES:
            shape = (int(rng.integers(17, 62)), 256, 256)
            write_stack(folder, plane, f"{number:04d}", rng.integers(0, 256, shape, np.uint8))


def link(folder: Path, root: Path, count: int) -> Path:
    """Creates a data set with `count` exams in each split, whose files are links."""
    from mrknee.exams import PLANES

    for split in ("train", "valid"):
        for plane in PLANES:
            (root / split / plane).mkdir(parents=True)
            for number in range(count):
                source = folder / plane / f"{number % SEEDS:04d}.npy"
                os.link(source, root / split / plane / f"{number:04d}.npy")
        for k, finding in enumerate(FINDINGS):
            lines = "".join(f"{number:04d},{(number >> k) & 1}\n" for number in range(count))
            (root / f"{split}-{finding}.csv").write_text(lines)
    return root


def write_exams(root: Path, slices: int) -> Path:
    """Writes RECIPE_EXAMS training and four validation exams of 3 x `slices` slices."""
    from mrknee.exams import PLANES, write_labels, write_stack

    rng = np.random.default_rng(0)
    for split, count in (("train", RECIPE_EXAMS), ("valid", 4)):
        for number in range(count):
            for plane in PLANES:
                stack = rng.integers(0, 256, (slices, 256, 256), np.uint8)
                write_stack(root / split, plane, f"{split}-{number}", stack)
        for k, finding in enumerate(FINDINGS):
            labels = {f"{split}-{n}": float((n >> k) & 1) for n in range(count)}
            if len(set(labels.values())) == 1:  # four exams have both classes of only two findings
                labels[f"{split}-0"] = 1.0 - labels[f"{split}-0"]
            write_labels(root, split, finding, labels)
    return root


def train_recipe(name: str, data: Path) -> dict[str, float]:
    """Trains one epoch with a recipe in this process; returns peaks in MB and seconds per exam."""
    from mrknee.training import run
    from mrknee.training.loop import Objective, TrainingLoop
    from mrknee.training.recipe import load_recipe
    from mrknee.training.run_writer import RunWriter
    from mrknee.transforms.batches import Batch

    weights = "lite0" if "efficientnet_lite0" in load_recipe(name).network.encoder else "none"
    recipe = load_recipe(name, {"weights": weights, "epochs": 1, "loggers": []})
    clock: list[tuple[float, float]] = []
    seconds: list[tuple[float, float]] = []
    ended = RunWriter.on_train_batch_end
    estimates: list[float] = []
    measure = run.estimate  # type: ignore[attr-defined]

    forward = Objective.forward

    def timed(objective: Objective, batch: Batch) -> Any:  # noqa: ANN401  # passed through
        clock.append((time.perf_counter(), time.process_time()))
        return forward(objective, batch)

    def end(writer: RunWriter, loop: TrainingLoop, batch: int, batches: int) -> None:
        now, exams = (time.perf_counter(), time.process_time()), loop.train_result.latest
        wall, cpu = ((now[i] - clock[-1][i]) / exams for i in (0, 1))
        seconds.append((wall, cpu))
        ended(writer, loop, batch, batches)

    def estimate(*given: Any, **named: Any) -> Any:  # noqa: ANN401  # passed through
        found = measure(*given, **named)
        estimates.append(found.memory / 1e6)
        return found

    Objective.forward = timed  # type: ignore[assignment, method-assign]
    RunWriter.on_train_batch_end = end  # type: ignore[assignment, method-assign]
    run.estimate = estimate  # type: ignore[attr-defined]
    with TemporaryDirectory() as folder:
        run.train(data, Path(folder) / "run", recipe)
    worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6
    return {
        "peak MB": peak_of("self") * 1.048576,
        "largest worker's peak MB": worker,
        "estimated MB": estimates[0],
        "s/exam": statistics.median(wall for wall, _ in seconds),
        "CPU s/exam": statistics.median(cpu for _, cpu in seconds),
        "steps": float(len(seconds)),
    }


def measure_recipes(out: Path, slices: int, names: list[str] | None) -> dict[str, dict[str, float]]:
    """Measures recipes of the package (all if no names are given), each in its own process."""
    from mrknee.training.recipe import recipe_names

    data = write_exams(out / f"slices-{slices}", slices)
    found: dict[str, dict[str, float]] = {}
    for name in names or recipe_names():
        command = [sys.executable, __file__, str(out), "--child", f"recipe {name}", str(data)]
        ran = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
        found[name] = json.loads(ran.stdout.splitlines()[-1])
        shown = ", ".join(f"{what} {value:,.1f}" for what, value in found[name].items())
        print(f"train {name}, 3 x {slices} slices: {shown}", flush=True)
    return found


def export_models(out: Path, data: Path) -> None:
    """Exports the reference network in 8 bits and float32, and a small network; random weights."""
    import torch

    from mrknee.export.onnx import Int8, export
    from mrknee.models.checkpoint import save_checkpoint
    from mrknee.models.network import Network
    from mrknee.models.settings import NetworkSettings
    from mrknee.transforms.preparation import Preparation

    torch.manual_seed(0)
    network = Network(NetworkSettings(), FINDINGS)
    save_checkpoint(out / "run" / "best", network, Preparation().to_dict(), {}, {})
    export(out / "run", out / "reference.onnx", int8=Int8(data, limit=1.0))
    export(out / "run", out / "float32.onnx")
    network = Network(NetworkSettings(encoder="test_resnet"), FINDINGS)
    preparation = Preparation(size=256, crop=64).to_dict()
    save_checkpoint(out / "small" / "best", network, preparation, {}, {})
    export(out / "small", out / "small.onnx")


def child(what: str, data: Path, out: Path) -> None:
    """Performs a task and prints the peak memory of this process in MiB.

    The tasks `read MODEL` (a file or folder in `out`) and `train small|reference` are mrknee's;
    `read` and `train` without a name are those of the published loop.
    """
    action, _, name = what.partition(" ")
    if action == "recipe":
        print(json.dumps(train_recipe(name, data)))
        return
    if not name:
        from reference_loop import ReferenceExams, ReferenceLoop, ReferenceNetwork
        from torch import ones

        exams = {"read": "valid", "train": "train"}[action]
        loop = ReferenceLoop(ReferenceNetwork(), ones(len(FINDINGS)))
        folder = ReferenceExams(data, exams, augment=action == "train", size=256, crop=224)
        if action == "train":
            loop.train(folder)
        else:
            loop.evaluate(folder)
    elif action == "read":
        from mrknee.exams import open_dataset
        from mrknee.inference.model import load_model

        load_model(out / name).predict(open_dataset(data, "valid"))
    else:
        from mrknee.training.recipe import load_recipe
        from mrknee.training.run import train

        recipe = load_recipe("reference", {**PLAIN, **(SMALL if name == "small" else {})})
        with TemporaryDirectory() as run:
            train(data, Path(run) / "run", recipe)
    print(peak_of("self"))


def peak_in_child(what: str, data: Path, out: Path) -> float:
    """Runs `child` in a new process and returns the peak memory that it prints."""
    command = [sys.executable, __file__, str(out), "--child", what, str(data)]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    return float(ran.stdout.split()[-1])


def peak_of(process: int | str) -> float:
    """Returns the peak memory of a process in MiB (2^20 bytes).

    getrusage isn't used because a child inherits its value from the parent process.
    """
    status = Path(f"/proc/{process}/status").read_text().splitlines()
    peak = next(line for line in status if line.startswith("VmHWM"))
    return int(peak.split()[1]) / 1024


def serve_largest(model: Path) -> float:
    """Returns the peak in MiB of a service that reads and explains 3 x 61 slices, with pages."""
    from mrknee.exams import PLANES

    body = b""
    for number, plane in enumerate(PLANES):
        file = io.BytesIO()
        noise = np.random.default_rng(number).integers(0, 256, (61, 256, 256), np.uint8)
        np.save(file, noise)
        head = f'--b\r\nContent-Disposition: form-data; name="{plane}"; filename="x"\r\n\r\n'
        body += head.encode() + file.getvalue() + b"\r\n"
    command = [sys.executable, "-m", "mrknee", "serve", str(model), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as service:  # noqa: S603
        assert service.stdout is not None
        port = int(service.stdout.readline().rpartition(":")[2])
        for _ in range(5):
            for path, accept in (("predict", "*/*"), ("explain", "*/*"), ("explain", "text/html")):
                client = HTTPConnection("127.0.0.1", port)
                headers = {"Content-Type": "multipart/form-data; boundary=b", "Accept": accept}
                client.request("POST", f"/{path}", body + b"--b--\r\n", headers)
                answer = client.getresponse()
                assert answer.read()
                assert answer.status == 200
                client.close()
        peak = peak_of(service.pid)
        service.terminate()
    return peak


def main() -> None:
    """Measures each task in its own process, prints the results and writes OUT/memory.json."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--few", type=int, default=100)
    parser.add_argument("--many", type=int, default=2000)
    parser.add_argument("--recipes", nargs="*", metavar="NAME", help="only these recipes, or all")
    parser.add_argument("--slices", type=int, default=61, help="per series, for recipes")
    parser.add_argument("--child", nargs=2, metavar=("WHAT", "DATA"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child[0], Path(given.child[1]), given.out)
        return
    recipes = measure_recipes(given.out, given.slices, given.recipes)
    (given.out / "recipes.json").write_text(json.dumps(recipes, indent=1) + "\n")
    if given.recipes is not None:
        return
    make_exams(given.out / "exams")
    sets = {count: given.out / f"exams-{count}" for count in (8, given.few, given.many)}
    for count, root in sets.items():
        link(given.out / "exams", root, count)
    export_models(given.out, sets[8])
    found: dict[str, float] = {}
    for what, count in (
        ("read reference.onnx", given.few), ("train reference", 8),
        ("read small.onnx", given.few), ("train small", given.few),
        ("read small.onnx", given.many), ("train small", given.many),
    ):  # fmt: skip
        found[f"{what}, {count} exams"] = peak = peak_in_child(what, sets[count], given.out)
        print(f"{what}, {count} exams: {peak} MiB", flush=True)
    for name in ("reference.onnx", "float32.onnx", "run"):
        found[f"serve {name}, 3 x 61 slices"] = peak = serve_largest(given.out / name)
        print(f"serve {name}, 3 x 61 slices: {peak} MiB", flush=True)
    for what in ("read small.onnx", "train small"):
        growth = found[f"{what}, {given.many} exams"] / found[f"{what}, {given.few} exams"] - 1
        found[f"growth of {what}"] = growth
        print(f"growth of {what}: {growth:+.1%}")
    (given.out / "memory.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
