"""Fixtures and settings of all tests."""

from __future__ import annotations

import faulthandler
import gc
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
from playwright.sync_api import Browser, sync_playwright

from mrknee.exams import MRNET_FINDINGS, PLANES, write_labels, write_stack

Slices = tuple[int, int]

CHROMIUM = shutil.which("chromium")
SLOW_FIXTURES = {"browser", "untraced", "exported", "exported_once", "onnx_file", "served"}
"""Fixtures that start a browser or export a network."""

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves out files that `-m "not slow"` deselects as a whole.

    Otherwise they are imported first, with the libraries and the cases that only they need.
    """
    if config.option.markexpr != "not slow" or collection_path.suffix != ".py":
        return None
    text = collection_path.read_text(encoding="utf-8")
    return True if re.search(r"^pytestmark = \[?pytest\.mark\.slow\b", text, re.MULTILINE) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks tests that use a browser or export a network as slow, and runs slow files first.

    `make test` runs browsers in processes of their own: Playwright's greenlets switch stacks, and
    processes that had run them and then thousands of other tests sometimes ended by a segmentation
    fault. Slow files come first so that the processes end at about the same time.
    """
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker("browser")
        if SLOW_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("slow")
    # whole files, for the fixtures that their tests share
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """Keeps the garbage collector away from what is loaded now: modules and test functions stay.

    A full collection of all that took a second, and each training of an experiment ends with one.
    """
    gc.collect()
    gc.freeze()


def _faults_of(pid: int) -> Path:
    """Returns the file to which a worker process writes its stack if it crashes."""
    return Path(tempfile.gettempdir()) / f"mrknee-tests-{pid}.txt"


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Stores the stack of a worker that crashes, because its standard error is lost."""
    if hasattr(config, "workerinput"):
        faulthandler.enable(_faults_of(os.getpid()).open("w"))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Removes this file if the worker did not crash."""
    if hasattr(config, "workerinput"):
        faulthandler.disable()
        _faults_of(os.getpid()).unlink(missing_ok=True)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:  # noqa: ANN401  # pytest-xdist's
    """Reports how a worker process ended that crashed."""
    process = getattr(getattr(node.gateway, "_io", None), "popen", None)
    if error is not None and process is not None:
        print(f"\nworker {node.gateway.id} ended with the status {process.wait(10)}", flush=True)
        faults = _faults_of(process.pid)
        if faults.exists():
            print(faults.read_text(errors="replace"), flush=True)
            faults.unlink()


@pytest.fixture(autouse=True, scope="session")
def unsynced() -> Iterator[None]:
    """Disables fsync, which matters after a power loss only; tests of that restore it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


def limit_timing() -> None:
    """Limits the timing before each training, which takes as long as a training of the tests.

    If nothing has imported the module, which imports torch, it stays unloaded.
    """
    if (module := sys.modules.get("mrknee.training.estimate")) is not None:
        module.MAX_TIMED_SLICES = 4  # type: ignore[attr-defined]


@pytest.fixture(autouse=True, scope="session")
def briefly_timed() -> None:
    """Limits the timing before each training in this process."""
    limit_timing()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    with sync_playwright() as play:
        started = play.chromium.launch(executable_path=CHROMIUM)
        yield started
        started.close()


def write_toy_dataset(
    root: Path,
    train: int = 12,
    valid: int = 6,
    *,
    pixels: int = 48,
    slices: Slices = (2, 6),
    findings: Sequence[str] = MRNET_FINDINGS,
    seed: int = 0,
) -> Path:
    """Writes exams of noise in MRNet's layout; each finding is a bright square in half of them.

    Every split has both classes of every finding. The square of finding k is in slice 0 of
    every plane, in column k.
    """
    rng = np.random.default_rng(seed)
    number = 0
    for split, count in (("train", train), ("valid", valid)):
        labels: dict[str, dict[str, float]] = {name: {} for name in findings}
        for position in range(count):
            exam_id = f"{number:04d}"
            number += 1
            present = [(position >> k) % 2 == 1 for k in range(len(findings))]
            for plane in PLANES:
                shape = (int(rng.integers(*slices)), pixels, pixels)
                stack = rng.integers(0, 60, shape).astype(np.uint8)
                for k, there in enumerate(present):
                    side = pixels // (len(findings) + 1)
                    if there:
                        stack[0, 8 : 8 + side, k * side : (k + 1) * side] += 120
                write_stack(root / split, plane, exam_id, stack)
            for name, there in zip(findings, present, strict=True):
                labels[name][exam_id] = float(there)
        for name in findings:
            write_labels(root, split, name, labels[name])
    return root


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A toy data set of 12 training and 6 validation exams."""
    return write_toy_dataset(tmp_path / "toy")


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Disables checks of annotations, so that values reach the code as for a user.

    Simulations of thousands of data sets use it to save half of their time.
    """
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def untraced() -> Iterator[None]:
    """Disables shape checks, because a tracer's sizes are symbols."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def make_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Returns a folder that `make` fills once in a run of pytest, for all of its processes.

    No test may change its files. Processes that need it at the same time each fill one.
    """
    shared = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / name
    if not folder.exists():
        made = factory.mktemp(name)
        make(made)
        with suppress(OSError):  # another process was first
            made.rename(folder)
    return folder


@pytest.fixture(scope="session")
def exported_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run folder and the file exported from it, which no test may change.

    Exported once, because it takes as long as about a hundred other tests.
    """
    from mrknee.export.onnx import export
    from mrknee.models.settings import NetworkSettings
    from tests.export.test_onnx import make_run

    def make(folder: Path) -> None:
        run = make_run(folder / "run", NetworkSettings(encoder="test_resnet", shared_encoder=True))
        jaxtyping.config.update("jaxtyping_disable", True)  # as `untraced`, which is set up later
        export(run, folder / "model.onnx")
        jaxtyping.config.update("jaxtyping_disable", False)

    folder = make_once(tmp_path_factory, "exported", make)
    return folder / "run", folder / "model.onnx"
