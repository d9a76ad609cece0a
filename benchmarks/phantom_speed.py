"""Duration of generating one synthetic exam on one core: medians over several exams.

OPENBLAS_NUM_THREADS=1 python benchmarks/phantom_speed.py [--exams 9] [--studies 6]

Exams are rendered; studies in the form of RSNA's challenge are rendered and written.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

THREADS = "OPENBLAS_NUM_THREADS"
CASES = ((256, 1.0, 3.0), (128, 1.0, None), (128, 0.5, 0.3), (96, 1.0, None), (96, 0.5, 0.3))
"""Image side in pixels, factor on MRNet's slice counts, limit in seconds (None: no limit)."""
STUDY_CASES = ((128, 0.34), (128, 1.0), (512, 1.0))
"""Median side in pixels, and factor on the numbers of slices, of studies."""


def time_studies(studies: int) -> None:
    """Prints a table of the mean processor time per study."""
    from mrknee.sources.phantom.rsna.cohort import sites_of
    from mrknee.sources.phantom.rsna.study import draw_study, write_study

    print(f"means of {studies} studies of --layout rsna2026, on one thread of one core")
    print(f"{'px':>5}{'slices x':>10}{'files':>8}{'CPU s':>8}")
    sites = sites_of(7)
    for size, factor in STUDY_CASES:
        cpu, files = [], 0
        for index in range(studies):
            study = draw_study(
                7, "train", index, sites, enriched=False, size=size, slice_factor=factor
            )
            with tempfile.TemporaryDirectory() as folder:
                start = time.process_time()
                write_study(study, size, Path(folder))
                cpu.append(time.process_time() - start)
                files += sum(1 for _ in Path(folder).rglob("*.dcm"))
        row = f"{size:>5}{factor:>10g}{files / studies:>8.0f}{statistics.mean(cpu):>8.2f}"
        print(row, flush=True)


def main() -> int:
    """Prints tables; returns 1 if a limit for exams is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--exams", type=int, default=9)
    parser.add_argument("--studies", type=int, default=6)
    arguments = parser.parse_args()
    exams = arguments.exams
    if arguments.studies:
        time_studies(arguments.studies)
    if not exams:
        return 0
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
