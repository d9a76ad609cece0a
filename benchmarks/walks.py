"""Numbers of files that a reader visits when following seven tasks through the package.

Each task is run on small synthetic data, by the command line or an HTTP request, while all calls of
the package's functions are recorded. *Files* is the number of files with a function that was
called, *turns* how often the file of the called function changed. ARCHITECTURE.md has the results.

    python benchmarks/walks.py OUT
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import numpy as np

import mrknee
from mrknee.cli import main

PACKAGE = str(Path(mrknee.__file__).parent)
PLANES = ("axial", "coronal", "sagittal")


class StopWalkError(Exception):
    """Ends a walk."""


def walk(way: Callable[[], object], until: str | None = None) -> tuple[int, int]:
    """Runs a task and counts its files and turns.

    Args:
        way: the task.
        until: name of a function at whose first call the task is ended.
    """
    visited: list[str] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        file = frame.f_code.co_filename
        if event != "call" or not file.startswith(PACKAGE) or frame.f_code.co_name == "<module>":
            return
        if not visited or visited[-1] != file:
            visited.append(file)
        if frame.f_code.co_name == until:
            raise StopWalkError

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        way()
    except (StopWalkError, SystemExit):
        pass
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return len(set(visited)), len(visited)


def run(*words: object) -> None:
    """Runs one command of mrknee."""
    main([str(word) for word in words])


def prepare(out: Path) -> None:
    """Writes a data set of small synthetic knees, a run, its export, and a DICOM study."""
    run("phantom", out / "data", "--train", 8, "--valid", 4, "--size", 64)
    settings = ["--network.encoder", "test_resnet", "--weights", "none", "--epochs", 1]
    settings += ["--preparation.size", 64, "--preparation.crop", 48, "--loggers", "none"]
    settings += ["--selection.part", "valid", "--workers", 0]
    run("train", out / "data", "--out", out / "run", "--recipe", "reference", *settings)
    run("export", out / "run", "--out", out / "model.onnx")
    from tests.sources.clinical.hospital import export_study

    export_study(out / "study")


def upload(model: Path, data: Path) -> None:
    """Sends one exam to a service."""
    from starlette.testclient import TestClient

    from mrknee.inference.model import load_model
    from mrknee.server.app import create_app
    from mrknee.server.service import Service

    service = Service(load_model(model), "model")
    exam = sorted((data / "valid" / "axial").glob("*.npy"))[0].name
    files = {p: (data / "valid" / p / exam).read_bytes() for p in PLANES}
    client = TestClient(create_app(service), base_url="http://127.0.0.1")
    answer = client.post("/predict", files={p: (exam, b) for p, b in files.items()})
    assert answer.status_code == 200, answer.text


def main_walks() -> None:
    """Prints the figures of the table, one line per task."""
    out = Path(sys.argv[1])
    if not (out / "model.onnx").exists():
        prepare(out)
    data, exam = out / "data", sorted((out / "data/valid/axial").glob("*.npy"))[0].stem
    predictions = out / "p.csv"
    new = out / f"new{np.random.default_rng().integers(10**9)}"
    train = ["train", data, "--out", new / "t", "--recipe", "reference", "--weights", "none"]
    ways: dict[str, tuple[Callable[[], object], str | None]] = {
        "stacks -> predictions": (
            lambda: run("predict", out / "run", data, "--out", predictions),
            None,
        ),
        "predictions -> scorecard": (
            lambda: run("evaluate", predictions, data, "--out", new / "e"),
            None,
        ),
        "DICOM -> stacks": (lambda: run("import", out / "study", new / "i"), None),
        "recipe -> optimizer": (lambda: run(*train), "make_optimizer"),
        "explanation -> HTML": (
            lambda: run("explain", out / "run", data, "--exam", exam, "--out", new / "x"),
            None,
        ),
        "upload -> answer": (lambda: upload(out / "model.onnx", data), None),
        "seed -> phantom": (phantom, None),
    }
    for name, (way, until) in ways.items():
        files, turns = walk(way, until)
        print(f"| {name} | {files} | {turns} |", flush=True)


def phantom() -> None:
    """Generates one synthetic knee in this process."""
    from mrknee.sources.phantom import Truth, render_exam

    render_exam(1, Truth(abnormal=True, acl=True, meniscus=False), size=64, slice_factor=0.3)


if __name__ == "__main__":
    main_walks()
