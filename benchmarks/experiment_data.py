"""Data sets for experiments, in MRNet's layout: what `experiments/*.yaml` are run on.

    python benchmarks/experiment_data.py phantom OUT [--size 96] [--slice-factor 0.35]
    python benchmarks/experiment_data.py hippocampus OUT --volumes msd_hippocampus_260_uint8.npz
    python benchmarks/experiment_data.py adrenal OUT --volumes adrenalmnist3d.npz [--planes 3]

`phantom` writes `OUT/data` (1,130 training exams as in MRNet, 400 in `valid` for the choice of
recipes) and `OUT/test` (1,000 in its `valid`, of another seed, for claims: predicted once each
with `--test-data OUT/test`; its `train` has one exam). A repeated call continues where it stopped.

`hippocampus` writes `OUT/fold0` to `OUT/fold4`, a cross-validation by patient: each patient's exams
are in `valid` of one fold. `groups.csv` states the patients, so that the inner split is by patient
too. Exams and findings are those of `hippocampus.py`; each fold's thresholds are medians of its own
training exams.

`adrenal` writes AdrenalMNIST3D with its official splits: `train`, `valid` (its val) and `test`. The
finding is `hyperplasia`. With `--planes 1` an exam is one series, the volume as it is stored; with
3 it is the three orthogonal stacks of the volume, whose names (axial, ...) are not anatomical.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import hippocampus
import numpy as np
from jaxtyping import UInt8
from sklearn.model_selection import GroupKFold

from mrknee.exams import (
    MRNET_SERIES,
    Series,
    SeriesList,
    write_groups,
    write_labels,
    write_series,
    write_stack,
)
from mrknee.sources.phantom.cohort import write_cohort

TRAIN, VALID, TEST = 1130, 400, 1000
"""Numbers of phantom exams."""

FOLDS = 5

FINDING = "hyperplasia"
"""AdrenalMNIST3D's label 1; its label 0 is a normal gland."""

SPLITS = {"train": "train", "val": "valid", "test": "test"}
"""Name of a split in the file -> name of its folder."""


SEEDS = {"data": 101, "test": 202}
"""Seeds of the phantom's knees: 0 to 9 are those of the demo and the tests."""


def write_phantom(out: Path, *, size: int, slice_factor: float) -> None:
    """Writes `data` and `test`."""
    for name, train, valid in (("data", TRAIN, VALID), ("test", 1, TEST)):
        write_cohort(
            out / name,
            train=train,
            valid=valid,
            seed=SEEDS[name],
            size=size,
            slice_factor=slice_factor,
        )


def write_hippocampus(npz: Path, out: Path, *, seed: int) -> None:
    """Writes the folds of a cross-validation by patient."""
    volumes = hippocampus.read_volumes(npz)
    folds = GroupKFold(FOLDS, shuffle=True, random_state=seed)
    for number, (train, _) in enumerate(folds.split(volumes.names, groups=volumes.patients)):
        fold = out / f"fold{number}"
        in_train = np.zeros(len(volumes.names), dtype=bool)
        in_train[train] = True
        hippocampus.write_division(volumes, in_train, fold)
        exams = json.loads((fold / "source.json").read_text())["exams"]
        write_groups(fold, {i: f"patient{one['patient']}" for i, one in exams.items()})


def write_adrenal(npz: Path, out: Path, *, planes: int) -> None:
    """Writes AdrenalMNIST3D with its official splits.

    Args:
        npz: the official file: `{split}_images`, uint8 (volumes, 28 or 64, same, same), and
            `{split}_labels`, (volumes, 1).
        out: the data set's folder.
        planes: 1 or 3 series per exam.
    """
    series = MRNET_SERIES if planes == 3 else SeriesList([Series("volume", "axial")])
    if planes == 1:
        write_series(out, series)
    number = 0
    with np.load(npz) as stored:
        for split, folder in SPLITS.items():
            labels: dict[str, float] = {}
            for volume, label in zip(
                stored[f"{split}_images"], stored[f"{split}_labels"].ravel(), strict=True
            ):
                exam_id = f"{number:04d}"
                number += 1
                labels[exam_id] = float(label)
                for name, stack in _stacks(volume, planes).items():
                    write_stack(out / folder, name, exam_id, stack, among=series)
            write_labels(out, folder, FINDING, labels)


def _stacks(
    volume: UInt8[np.ndarray, "slices rows cols"], planes: int
) -> dict[str, UInt8[np.ndarray, "_ _ _"]]:
    """Returns the stored volume, or its three orthogonal stacks."""
    if planes == 1:
        return {"volume": volume}
    return {
        "axial": volume,
        "coronal": volume.transpose(1, 0, 2),
        "sagittal": volume.transpose(2, 0, 1),
    }


def main() -> None:
    """Writes one of the data sets."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind in ("phantom", "hippocampus", "adrenal"):
        one = kinds.add_parser(kind)
        one.add_argument("out", type=Path, help="the folder to write")
        if kind != "phantom":
            one.add_argument("--volumes", type=Path, required=True, help="the npz file")
    phantom, adrenal = kinds.choices["phantom"], kinds.choices["adrenal"]
    kinds.choices["hippocampus"].add_argument("--seed", type=int, default=0, help="of the folds")
    phantom.add_argument("--size", type=int, default=96, help="rows and columns, in pixels")
    phantom.add_argument("--slice-factor", type=float, default=0.35, help="on MRNet's counts")
    adrenal.add_argument("--planes", type=int, choices=(1, 3), default=1, help="series per exam")
    given = parser.parse_args()
    if given.kind == "phantom":
        write_phantom(given.out, size=given.size, slice_factor=given.slice_factor)
    elif given.kind == "hippocampus":
        write_hippocampus(given.volumes, given.out, seed=given.seed)
    else:
        write_adrenal(given.volumes, given.out, planes=given.planes)


if __name__ == "__main__":
    main()
