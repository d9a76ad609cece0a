"""Duration of `mrknee check` on a data set of MRNet's size, on all cores, with an empty file cache.

    python benchmarks/check_speed.py [--exams 1250] [--folder DIR]

Three phantoms are rendered. Each exam is one of them, stretched to MRNet's mean slice counts,
cropped to a random window, resized to 256 x 256 and changed in brightness, so that no two stacks
are identical. Many pairs are as similar as altered copies, which is the worst case for the
comparison. Before the check, the files are dropped from the system's cache if the system supports
it; they are removed at the end.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from hippocampus import REPOSITORY
from scoring_speed import processor

from mrknee.exams import PLANES, Stack, write_labels, write_stack
from mrknee.progress import track
from mrknee.sources.phantom import Truth, render_exam

SIDE = 256
SLICES = {"axial": 34, "coronal": 30, "sagittal": 30}
LIMIT = 180.0
"""Maximum duration in seconds for 1250 exams on two cores."""


def knees() -> list[dict[str, Stack]]:
    """Renders three phantoms with the slice counts of the benchmark."""
    rendered = []
    for seed in track(range(3), 3, "rendering"):
        exam = render_exam(seed, Truth(abnormal=True, acl=False, meniscus=False), size=SIDE)
        rendered.append({plane: nearest(s, SLICES[plane], 0) for plane, s in exam.stacks.items()})
    return rendered


def nearest(stack: Stack, count: int, axis: int) -> Stack:
    """Resamples a stack to `count` positions along an axis by nearest neighbour."""
    places = np.linspace(0, stack.shape[axis] - 1, count).round().astype(int)
    return np.take(stack, places, axis=axis)


def variant(stack: Stack, rng: np.random.Generator) -> Stack:
    """Crops to 75 to 100 % of rows and columns, resizes to 256 x 256 and changes brightness."""
    for axis in (1, 2):
        side = int(SIDE * rng.uniform(0.75, 1))
        start = rng.integers(SIDE - side + 1)
        stack = nearest(np.take(stack, range(start, start + side), axis=axis), SIDE, axis)
    table = np.clip(np.arange(256) * rng.uniform(0.7, 1.2) + rng.uniform(0, 20), 0, 255)
    bright: Stack = table.astype(np.uint8)[stack]
    return bright


def write_exams(root: Path, exams: int) -> int:
    """Writes the data set and returns its size in bytes."""
    rng = np.random.default_rng(0)
    some = knees()
    size = 0
    train = round(exams * 1130 / 1250)
    for number in track(range(exams), exams, "writing"):
        split = "train" if number < train else "valid"
        for plane in PLANES:
            stack = variant(some[number % len(some)][plane], rng)
            size += write_stack(root / split, plane, f"{number:04d}", stack).stat().st_size
    for split, ids in (("train", range(train)), ("valid", range(train, exams))):
        for k, finding in enumerate(("abnormal", "acl", "meniscus")):
            write_labels(root, split, finding, {f"{i:04d}": float(i % 3 == k) for i in ids})
    return size


def forget(root: Path) -> str:
    """Drops the files from the system's cache; returns a text on whether it was possible."""
    if not hasattr(os, "posix_fadvise"):
        return "files perhaps still in memory"
    os.sync()
    for path in root.rglob("*.npy"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return "files not in memory"


def main() -> int:
    """Prints the times; returns 1 if the complete check exceeds the limit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--exams", type=int, default=1250)
    parser.add_argument("--folder", type=Path, help="where the data set is written for the time")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        started = time.perf_counter()
        size = write_exams(Path(folder), given.exams)
        print(f"{given.exams} exams, {size / 1e9:.1f} GB, written in ", end="")
        print(
            f"{time.perf_counter() - started:.0f} s; {forget(Path(folder))}; {processor()}, ",
            end="",
        )
        print(f"{len(os.sched_getaffinity(0))} cores", flush=True)
        started = time.perf_counter()
        done = subprocess.run(  # noqa: S603  # our own command
            [sys.executable, "-m", "mrknee", "check", folder],
            stdout=subprocess.PIPE,
            check=False,
            cwd=REPOSITORY,
        )
        seconds = time.perf_counter() - started
        children = os.times()
        print(done.stdout.decode()[-900:])
        print(
            f"mrknee check: {seconds:.0f} s by the clock, exit status {done.returncode}; ", end=""
        )
        print(f"{children.children_user + children.children_system:.0f} s of processor time")
        within = seconds <= LIMIT * given.exams / 1250
        print(f"limit: {LIMIT * given.exams / 1250:.0f} s: {'kept' if within else 'BROKEN'}")
    return int(not within)


if __name__ == "__main__":
    sys.exit(main())
