"""Duration of generating one synthetic exam on one core: medians over several exams.

OPENBLAS_NUM_THREADS=1 python benchmarks/phantom_speed.py [--exams 9]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time

THREADS = "OPENBLAS_NUM_THREADS"
CASES = ((256, 1.0, 3.0), (128, 1.0, None), (128, 0.5, 0.3), (96, 1.0, None), (96, 0.5, 0.3))
"""Image side in pixels, factor on MRNet's slice counts, limit in seconds (None: no limit)."""


def main() -> int:
    """Prints a table of medians; returns 1 if a limit is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--exams", type=int, default=9)
    exams = parser.parse_args().exams
    from mrknee.sources.phantom import Truth, render_exam

    truth = Truth(abnormal=True, acl=True, meniscus=True)
    print(f"medians of {exams} exams with both tears, on one thread of one core")
    print(f"{'px':>5}{'slices x':>10}{'wall s':>9}{'CPU s':>8}{'limit':>7}")
    broken = False
    for size, factor, limit in CASES:
        render_exam(0, truth, size=size, slice_factor=factor)
        wall, cpu = [], []
        for seed in range(exams):
            start, start_cpu = time.perf_counter(), time.process_time()
            render_exam(seed, truth, size=size, slice_factor=factor)
            wall.append(time.perf_counter() - start)
            cpu.append(time.process_time() - start_cpu)
        # The limit applies to processor time; wall-clock time is longer if the machine is busy.
        mean_wall, mean_cpu = statistics.median(wall), statistics.median(cpu)
        broken |= limit is not None and mean_cpu > limit
        shown = "-" if limit is None else f"{limit:g}"
        print(f"{size:>5}{factor:>10g}{mean_wall:>9.2f}{mean_cpu:>8.2f}{shown:>7}")
    return int(broken)


if __name__ == "__main__":
    if os.environ.get(THREADS) != "1":
        # The number of threads is fixed when numpy is imported, so restart with one.
        os.environ[THREADS] = "1"
        os.execv(sys.executable, [sys.executable, *sys.argv])  # noqa: S606 - this very program
    sys.exit(main())
