"""A copy of a data set with permuted labels beside the true ones, for sham comparisons.

    python benchmarks/permuted_labels.py DATA OUT [--seed 0]

If a network gains from learning a second finding, is it the finding, or just any second target
(regularisation)? A network that learns `acl` together with `permuted_abnormal` and
`permuted_meniscus` has as many targets, with the same prevalences, that tell nothing about its
exams.

OUT has the files of DATA, as hard links where the file system allows it (copies otherwise), and for
each finding a label file `train-permuted_FINDING.csv`: the training labels with the exams shuffled,
in one order for all findings, so that the permuted findings are related to each other as the true
ones are. Other splits have none, so the permuted findings are not scored there.

All arms of an experiment should be run on OUT, with `findings` stated: the inner split depends on
all label files of a data set, and on those alone, so all arms then have the same exams.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

import numpy as np

from mrknee.exams import read_labels, write_labels
from mrknee.files import atomic_write

SPLIT = "train"
PREFIX = "permuted_"


def copy_with_permuted_labels(data: Path, out: Path, *, seed: int = 0) -> list[Path]:
    """Writes the copy and its permuted label files.

    Args:
        data: a data set; label files of `train` name the findings.
        out: the folder to write; must not exist.
        seed: seed of the order of the exams.

    Returns:
        The permuted label files.
    """
    given = sorted(data.glob(f"{SPLIT}-*.csv"))
    shutil.copytree(data, out, copy_function=_link_or_copy)
    tables = {file.stem.removeprefix(f"{SPLIT}-"): read_labels(file, soft=True) for file in given}
    ids = sorted({exam_id for table in tables.values() for exam_id in table})
    order = np.random.default_rng(seed).permutation(len(ids))
    donors = {exam_id: ids[place] for exam_id, place in zip(ids, order, strict=True)}
    written = []
    for finding, table in tables.items():
        labels = {exam_id: table.get(donors[exam_id], float("nan")) for exam_id in ids}
        written.append(write_labels(out, SPLIT, PREFIX + finding, labels))
    with atomic_write(out / "permuted_labels.txt") as beside:
        beside.write_text(f"permuted labels of {data.resolve().name}, seed {seed}\n")
    return written


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)


def main() -> None:
    """Reads the command line and writes the data set."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="a data set with train/ and label files")
    parser.add_argument("out", type=Path, help="the folder to write; must not exist")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the exams")
    given = parser.parse_args()
    for file in copy_with_permuted_labels(given.data, given.out, seed=given.seed):
        print(f"wrote {file}")


if __name__ == "__main__":
    main()
