"""The nested protocol as its user runs it: a script, killed and started again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from mrknee.exams import PLANES, Stack, read_labels, write_labels, write_stack
from mrknee.sources.phantom.cohort import KINDS, draw_truths
from mrknee.sources.phantom.exam import FINDINGS, render_exam
from mrknee.sources.phantom.scanner import draw_slice_count

SCRIPT = Path(__file__).parents[2] / "runs" / "mrnet.sh"
COUNTS = {"train": 1130, "valid": 120}
NAMES = ("reference", "default", *FINDINGS)


def write_mrnet_layout(root: Path, pixels: int = 32) -> Path:
    """A phantom with MRNet's layout, counts, ids, labels and slice counts, in small.

    Rendering 1250 knees takes minutes, so two of each kind are rendered, and each exam is one of
    its kind, brought to slice counts of its own by repeating or leaving out slices.
    """
    rng = np.random.default_rng(0)
    knees = {truth: [render_exam(seed, truth, size=pixels) for seed in (0, 1)] for truth in KINDS}
    number = 0
    for split, count in COUNTS.items():
        labels: dict[str, dict[str, float]] = {finding: {} for finding in FINDINGS}
        for truth in draw_truths(split, count, seed=0):
            exam_id = f"{number:04d}"
            number += 1
            knee = knees[truth][rng.integers(2)]
            for plane in PLANES:
                stack = with_slices(knee.stacks[plane], draw_slice_count(rng, plane.value))
                write_stack(root / split, plane, exam_id, stack)
            for finding in FINDINGS:
                labels[finding][exam_id] = float(getattr(truth, finding))
        for finding in FINDINGS:
            write_labels(root, split, finding, labels[finding])
    return root


def with_slices(stack: Stack, count: int) -> Stack:
    """The stack at `count` slices, each the nearest of its own."""
    nearest: Stack = stack[np.linspace(0, len(stack) - 1, count).round().astype(int)]
    return nearest


@pytest.fixture(scope="module")
def mrnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantom in MRNet's clothes."""
    return write_mrnet_layout(tmp_path_factory.mktemp("data") / "MRNet-v1.0")


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts the script in a process group of its own; what still runs at the end is killed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    started: list[subprocess.Popen[str]] = []

    def start_script(*words: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(  # noqa: S603  # our own script
            ["/bin/bash", str(SCRIPT), *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"},
        )
        started.append(process)
        return process

    yield start_script
    for process in started:
        if process.returncode is None:
            kill(process)


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL to the script and all that it has started."""
    os.killpg(process.pid, signal.SIGKILL)
    finish(process)


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Waits for the script; its exit status and all that it said."""
    said, _ = process.communicate()
    return process.returncode, said


def identities(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of every file: whoever writes one again changes them."""
    return {
        str(f.relative_to(folder)): (f.stat().st_ino, f.stat().st_mtime_ns)
        for f in sorted(folder.rglob("*"))
        if f.is_file()
    }


def wait_for(path: Path, process: subprocess.Popen[str], seconds: float = 300) -> None:
    """Until the path is there; fails where the process ends first."""
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, finish(process)[1]
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.005)


def test_the_phantom_is_laid_out_like_mrnet(mrnet: Path) -> None:
    """1130 and 120 exams, ids 0000-1129 and 1130-1249, MRNet's label counts and slice range."""
    expected = {
        "train": ([f"{i:04d}" for i in range(1130)], (913, 208, 397)),
        "valid": ([f"{i:04d}" for i in range(1130, 1250)], (95, 54, 52)),
    }
    ranges = {"axial": (19, 61), "coronal": (17, 58), "sagittal": (17, 51)}
    for split, (ids, positives) in expected.items():
        for plane in PLANES:
            files = sorted((mrnet / split / plane).iterdir())
            assert [f.name for f in files] == [f"{i}.npy" for i in ids]
            counts = [len(np.load(f, mmap_mode="r")) for f in files]
            low, high = ranges[plane]
            assert low <= min(counts) <= np.median(counts) <= max(counts) <= high
        for finding, count in zip(FINDINGS, positives, strict=True):
            labels = read_labels(mrnet / f"{split}-{finding}.csv")
            assert list(labels) == ids
            assert sum(labels.values()) == count


@pytest.mark.timeout(900)  # a dozen processes that import torch, on cores shared with other tests
def test_the_protocol_killed_midway_completes_what_is_missing(
    start: Start, mrnet: Path, tmp_path: Path
) -> None:
    """Check, five trainings, pages, comparison; killed once, nothing complete is done again."""
    out = tmp_path / "out"
    first = start(mrnet, out, "--smoke")
    wait_for(out / "default" / "seed0", first)  # the second training has begun
    kill(first)
    assert not (out / "default" / "seed0" / "scorecard.json").exists()
    complete = identities(out / "reference" / "seed0")
    assert "scorecard.json" in complete, "killed before anything was complete"

    status, said = finish(start(mrnet, out, "--smoke"))
    assert status == 0, said
    assert "reference/seed0: trained before" in said
    after = identities(out / "reference" / "seed0")
    assert {name: after[name] for name in complete} == complete

    for name in NAMES:
        run = out / name / "seed0"
        settings = (run / "settings.yaml").read_text()
        assert "part: inner" in settings
        assert "keep_every_epoch: false" in settings
        inner = [x for x in (run / "split.csv").read_text().splitlines() if x.endswith(",inner")]
        assert len(inner) == 6  # 15 % of 40
        card = json.loads((run / "scorecard.json").read_text())
        findings = [name] if name in FINDINGS else list(FINDINGS)
        assert (card["split"], card["n_exams"]) == ("valid", 120)
        assert list(card["findings"]) == findings
        assert not [note for note in card["notes"] if "optimistic" in note]
        page = (run / "report" / "report.html").read_text()
        assert "<html" in page
    splits = {(out / name / "seed0" / "split.csv").read_text() for name in NAMES}
    assert len(splits) == 1, "networks that are compared are trained on the same exams"
    comparison = json.loads((out / "comparison" / "systems" / "comparison.json").read_text())
    assert len(comparison["models"]) == 3
    assert [list(model["findings"]) for model in comparison["models"]] == [list(FINDINGS)] * 3
    assert json.loads((out / "check.json").read_text())["errors"] == 0
    for page in ("report/report.html", "comparison/systems/comparison.txt"):
        assert (out / page).is_file()
    assert "report/report.html  " in said.split("Where everything is")[1]
    assert said.splitlines()[-2] in (out / "log.txt").read_text()

    everything = identities(out)
    status, said = finish(start(mrnet, out, "--smoke"))
    assert status == 0, said
    changed = {name for name, state in identities(out).items() if everything.get(name) != state}
    assert changed <= {"check.json", "protocol.txt", "log.txt", ".lock"}
    assert "training\n" not in said
    assert "evaluating" not in said
    assert "comparing" not in said

    # the folder belongs to this data set and to --smoke
    status, said = finish(start(mrnet, out))
    assert status == 1
    assert "belongs to something else" in said
    assert identities(out / "reference") == {
        name.removeprefix("reference/"): state
        for name, state in everything.items()
        if name.startswith("reference/")
    }


@pytest.mark.parametrize("missing", [["train-acl.csv"], ["train-acl.csv", "valid-acl.csv"]])
def test_a_faulty_data_set_stops_it_before_anything_is_trained(
    missing: list[str], start: Start, mrnet: Path, tmp_path: Path
) -> None:
    """A label file is missing, in one split or both: told by name, exit status 1, no run begun."""
    data = tmp_path / "data"
    shutil.copytree(mrnet, data, copy_function=os.link)
    for name in missing:
        (data / name).unlink()
    status, said = finish(start(data, tmp_path / "out", "--smoke"))
    assert status == 1
    assert missing[0] in said
    assert not list((tmp_path / "out").glob("*/seed0"))


def test_two_at_once_are_refused(start: Start, mrnet: Path, tmp_path: Path) -> None:
    """While one works in a folder, another that is started there says so and ends."""
    out = tmp_path / "out"
    first = start(mrnet, out, "--smoke")
    wait_for(out / "check.json", first)
    status, said = finish(start(mrnet, out, "--smoke"))
    kill(first)
    assert status == 1
    assert "is in use" in said


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        ((), 2, "DATA is missing"),
        (("nowhere",), 1, "there is no folder nowhere"),
        (("a", "b", "c"), 2, "one word too many"),
        (("a", "--fast"), 2, "unknown option --fast"),
        (("--help",), 0, "usage: runs/mrnet.sh"),
    ],
)
def test_a_command_line_that_is_wrong_is_told(
    start: Start, words: tuple[str, ...], status: int, says: str
) -> None:
    """What is wrong, in one line, and nothing is written."""
    ended, said = finish(start(*words))
    assert ended == status
    assert says in said
