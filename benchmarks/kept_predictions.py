"""Comparison of arms from predictions that were kept: experiments/results/*/ARM/seedN-SPLIT.csv.

    python benchmarks/kept_predictions.py experiments/results/default-phantom OUT/test valid \
        --kept-as test --baseline reference --primary frozen

Trainings of several sessions and machines can be compared without their run folders. DATA and SPLIT
are the data set and split with the labels; `--kept-as` is the SPLIT in the names of the files, if
it is another one. Prints the table of `mrknee experiment` and writes FOLDER/comparison-KEPT_AS.json
and .txt.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from mrknee.files import write_text
from mrknee.metrics.arms import compare_arms
from mrknee.metrics.folds import read_fold
from mrknee.metrics.predictions import Predictions


def main() -> None:
    """Reads the command line and compares the arms."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("split")
    parser.add_argument("--kept-as")
    parser.add_argument("--arms", nargs="+", metavar="ARM", help="default: all")
    parser.add_argument("--baseline", required=True)
    parser.add_argument("--primary")
    given = parser.parse_args()
    kept_as = given.kept_as or given.split
    files: dict[str, dict[int, Path]] = {}
    for file in sorted(given.folder.glob(f"*/seed*-{kept_as}.csv")):
        number = re.match(r"seed(\d+)-", file.name)
        if number and (given.arms is None or file.parent.name in given.arms):
            files.setdefault(file.parent.name, {})[int(number[1])] = file
    if not files:
        parser.error(f"{given.folder} has no file ARM/seedN-{kept_as}.csv of these arms")
    seeds = sorted(set.intersection(*(set(one) for one in files.values())))
    tables = {arm: [Predictions.read(own[seed]) for seed in seeds] for arm, own in files.items()}
    found = compare_arms(
        [read_fold(given.data, given.split, tables)],
        baseline=given.baseline,
        seeds=seeds,
        split=kept_as,
        primary=given.primary,
    )
    name = "-".join(["comparison", kept_as, *(given.arms or ())])
    write_text(given.folder / f"{name}.txt", found.table())
    write_text(given.folder / f"{name}.json", found.to_json())
    print(found.table())


if __name__ == "__main__":
    main()
