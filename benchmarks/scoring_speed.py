"""Duration of the paired DeLong test of two models on 200,000 exams, and of its parts.

OPENBLAS_NUM_THREADS=1 python benchmarks/scoring_speed.py [--exams 200000]
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

THREADS = "OPENBLAS_NUM_THREADS"
LIMIT = 1.0
"""Maximum duration of the test in seconds."""


def main() -> int:
    """Prints a table of medians; returns 1 if the test exceeds the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--exams", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()

    import numpy as np
    from scipy.stats import rankdata

    from mrknee.metrics.discrimination import auc, placements
    from mrknee.metrics.paired_tests import paired_delong

    rng = np.random.default_rng(0)
    labels = (rng.random(arguments.exams) < 0.4).astype(np.float64)
    scores = rng.normal(size=(2, arguments.exams)) + 1.5 * labels
    positive = labels == 1

    def by_midranks() -> None:
        # Sun & Xu's three rankings per model: among all, among positives, among negatives
        for among in (slice(None), positive, ~positive):
            rankdata(scores[:, among], axis=1)

    steps: dict[str, Callable[[], object]] = {
        "paired DeLong test": lambda: paired_delong(labels, *scores),
        "  of it: placements by one sort a model": lambda: placements(positive, scores),
        "  instead: three rankings a model (Sun & Xu)": by_midranks,
        "AUC with interval, one model": lambda: auc(labels, scores[0]),
    }
    print(f"{arguments.exams} exams, 2 models, one thread; median of {arguments.repeats}")
    print(f"{processor()}, {os.cpu_count()} cores; Python {platform.python_version()}, ", end="")
    print(f"numpy {np.__version__}")
    print(f"{'':<48}{'wall s':>8}{'CPU s':>8}")
    spent = {}
    for name, step in steps.items():
        step()
        wall, cpu = [], []
        for _ in range(arguments.repeats):
            start, start_cpu = time.perf_counter(), time.process_time()
            step()
            wall.append(time.perf_counter() - start)
            cpu.append(time.process_time() - start_cpu)
        spent[name] = statistics.median(wall)
        print(f"{name:<48}{spent[name]:>8.3f}{statistics.median(cpu):>8.3f}")
    within = spent["paired DeLong test"] <= LIMIT
    print(f"limit of the test: {LIMIT:g} s: {'kept' if within else 'BROKEN'}")
    return int(not within)


def processor() -> str:
    """Returns the name of the processor, if the system provides it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


if __name__ == "__main__":
    if os.environ.get(THREADS) != "1":
        # The number of threads is fixed when numpy is imported, so restart with one.
        os.environ[THREADS] = "1"
        os.execv(sys.executable, [sys.executable, *sys.argv])  # noqa: S606 - this very program
    sys.exit(main())
