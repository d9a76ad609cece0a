"""Training and evaluation on real MRI volumes: does the package learn anatomy from real images?

    python benchmarks/hippocampus.py OUT

The volumes are 260 crops of T1-weighted brain MRI around one hippocampus each, with voxels of 1 mm
and a mask of its anterior and posterior part (Medical Segmentation Decathlon, task 4,
CC BY-SA 4.0), written in MRNet's layout. They are not knees: the question is whether the package
learns shape from three planes of real images.

Three findings are derived from the line between the two parts' centroids, inside the window:

- `long`: the centroids are farther apart than the training median.
- `steep`: the line falls more steeply towards the front than the training median (sagittal plane).
- `turned`: the line points farther to +x at its front than the training median (axial plane).

Measures against leaks:

- The window has the same size for all volumes and lies in the middle of the crop, regardless of the
  mask, because the size of the crop depends on the size of the hippocampus.
- The split is by patient. Volumes 2k - 1 and 2k are the two hippocampi of one patient, one of them
  mirrored. The data don't state this, but the masks' volumes correlate at 0.91 over the 90 such
  pairs, and at 0.06 over the 91 pairs 2k and 2k + 1.
- The findings were chosen among about 30 shape measures by cross-validation on training exams:
  volumes and widths leak (AUC up to 0.76), these three don't. `leak_check` measures what stack
  sizes and global intensity statistics alone reveal about the findings.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64, UInt8
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from mrknee.cli import main as mrknee
from mrknee.exams import Dataset, write_labels, write_stack
from mrknee.metrics.discrimination import Auc, auc

REPOSITORY = Path(__file__).resolve().parents[1]
RECIPE = Path(__file__).with_suffix(".yaml")
VOLUMES = "msd_hippocampus_260_uint8.npz"
ANTERIOR, POSTERIOR = 1, 2  # values in the masks

WINDOW = (30, 40, 24)
"""Window size in voxels along x, y, z: the largest even sizes that fit into all crops (the smallest
are 31, 40 and 24). It contains 97 % of the hippocampus on average. Padding would reveal the crop's
size."""

TRAIN_EXAMS = 180
MOST_LEAK = 0.65
"""Maximum AUC of a model of sizes and intensities, from the project's plan."""


def volumes_file() -> Path:
    """Returns the file of volumes: in `$MRKNEE_DATA`, or in `../shared/data` of the repository."""
    folder = os.environ.get("MRKNEE_DATA") or REPOSITORY.parent / "shared" / "data"
    path = Path(folder) / VOLUMES
    if not path.is_file():
        sys.exit(f"the volumes are not there: {path}\nset MRKNEE_DATA to the folder of {VOLUMES}")
    return path


@dataclass(frozen=True)
class Volumes:
    """The volumes of the file, cut to the window.

    Attributes:
        file: name of the file.
        names: names of the volumes.
        patients: number of each volume's patient.
        images: uint8 (volumes, x, y, z).
        shapes: per volume, finding -> measure (`shape_measures`).
    """

    file: str
    names: list[str]
    patients: Int64[np.ndarray, " volumes"]
    images: UInt8[np.ndarray, "volumes wx wy wz"]
    shapes: list[dict[str, float]]


def read_volumes(npz: Path) -> Volumes:
    """Reads the volumes and measures their shapes.

    Args:
        npz: file with `NNN_img` and `NNN_seg`, uint8 (x, y, z), x to the right, y to the front,
            z upwards.
    """
    with np.load(npz) as stored:
        names = sorted(key.removesuffix("_img") for key in stored.files if key.endswith("_img"))
        images = np.stack([central_window(stored[f"{name}_img"]) for name in names])
        shapes = [shape_measures(central_window(stored[f"{name}_seg"])) for name in names]
    patients = np.array([(int(name) + 1) // 2 for name in names])
    return Volumes(npz.name, names, patients, images, shapes)


def write_exams(npz: Path, out: Path, seed: int) -> None:
    """Writes the data set: 180 exams for training, 80 for validation, three findings.

    Args:
        npz: the file of volumes.
        out: the data set's folder.
        seed: random seed of the split.
    """
    volumes = read_volumes(npz)
    write_division(volumes, split_by_patient(volumes.patients, TRAIN_EXAMS, seed), out)


def write_division(volumes: Volumes, in_train: Bool[np.ndarray, " volumes"], out: Path) -> None:
    """Writes a data set of `train` and `valid`; thresholds of findings are medians of train.

    In addition to MRNet's layout, `source.json` contains the window, the thresholds, and the volume
    and patient of each exam.

    Args:
        volumes: the volumes.
        in_train: which of them are training exams; the others are validation exams.
        out: the data set's folder.
    """
    # train first, so that the ids of valid follow those of train, as in MRNet
    order = np.argsort(~in_train, kind="stable")
    source: dict[str, dict[str, object]] = {}
    for number, index in enumerate(order):
        split, exam_id = "train" if in_train[index] else "valid", f"{number:04d}"
        for plane, stack in three_planes(volumes.images[index]).items():
            write_stack(out / split, plane, exam_id, stack)
        source[exam_id] = {
            "split": split,
            "volume": volumes.names[index],
            "patient": int(volumes.patients[index]),
        }
    thresholds = {}
    for finding in volumes.shapes[0]:
        measure = np.array([volumes.shapes[index][finding] for index in order])
        thresholds[finding] = float(np.median(measure[: in_train.sum()]))
        present = (measure > thresholds[finding]).astype(float)
        for split in ("train", "valid"):
            ids = [exam_id for exam_id, one in source.items() if one["split"] == split]
            write_labels(out, split, finding, {i: float(present[int(i)]) for i in ids})
    (out / "source.json").write_text(
        json.dumps(
            {"file": volumes.file, "window": WINDOW, "thresholds": thresholds, "exams": source},
            indent=1,
        )
    )


def central_window(volume: UInt8[np.ndarray, "x y z"]) -> UInt8[np.ndarray, "wx wy wz"]:
    """Crops the window from the middle of a volume."""
    starts = [(size - window) // 2 for size, window in zip(volume.shape, WINDOW, strict=True)]
    return volume[tuple(slice(s, s + w) for s, w in zip(starts, WINDOW, strict=True))]


def shape_measures(mask: UInt8[np.ndarray, "wx wy wz"]) -> dict[str, float]:
    """Measures the line from the posterior to the anterior part's centroid.

    Returns:
        Finding -> the value that is compared with the median: in millimetres for `long`, in degrees
        for the others.
    """
    front = np.argwhere(mask == ANTERIOR).mean(axis=0)
    back = np.argwhere(mask == POSTERIOR).mean(axis=0)
    x, y, z = front - back
    return {
        "long": float(np.linalg.norm(front - back)),
        "steep": float(np.degrees(np.arctan2(-z, np.hypot(x, y)))),
        "turned": float(np.degrees(np.arctan2(x, y))),
    }


def split_by_patient(
    patients: Int64[np.ndarray, " exams"], train_exams: int, seed: int
) -> Bool[np.ndarray, " exams"]:
    """Draws complete patients for the training set until it has this many exams."""
    rng = np.random.default_rng(seed)
    in_train = np.zeros(len(patients), dtype=bool)
    for patient in rng.permutation(np.unique(patients)):
        exams = patients == patient
        if in_train.sum() + exams.sum() <= train_exams:
            in_train |= exams
    return in_train


def three_planes(
    image: UInt8[np.ndarray, "x y z"],
) -> dict[str, UInt8[np.ndarray, "slices rows cols"]]:
    """Returns the three orthogonal stacks; the first row is the front (axial) or the top."""
    return {
        "axial": image.transpose(2, 1, 0)[:, ::-1],
        "coronal": image.transpose(1, 2, 0)[:, ::-1],
        "sagittal": image.transpose(0, 2, 1)[:, ::-1],
    }


def leak_check(root: Path) -> dict[str, dict[str, Auc]]:
    """Measures how well stack sizes and global intensity statistics predict each finding.

    The model is a logistic regression (scikit-learn's defaults on standardised columns) on
    `global_statistics`.

    Args:
        root: a data set written by `write_exams`.

    Returns:
        Finding -> method -> AUC. The methods are: fitted on train and scored on valid; and
        five-fold cross-validation over all exams, with each patient in one fold.
    """
    patient_of = json.loads((root / "source.json").read_text())["exams"]
    train, valid = (Dataset.of_split(root, split) for split in ("train", "valid"))
    fitted_on, scored_on = global_statistics(train), global_statistics(valid)
    everything = np.concatenate([fitted_on, scored_on])
    patients = np.array([patient_of[i]["patient"] for i in (*train.ids, *valid.ids)])
    folds = GroupKFold(5, shuffle=True, random_state=0)
    table: dict[str, dict[str, Auc]] = {}
    for column, finding in enumerate(train.findings or ()):
        y_train, y_valid = train.labels[:, column], valid.labels[:, column]
        y = np.concatenate([y_train, y_valid])
        held_out = _model().fit(fitted_on, y_train).decision_function(scored_on)
        crossed = cross_val_predict(
            _model(), everything, y, groups=patients, cv=folds, method="decision_function"
        )
        table[finding] = {"train -> valid": auc(y_valid, held_out), "5 folds": auc(y, crossed)}
    return table


def _model() -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))


def global_statistics(exams: Dataset) -> Float64[np.ndarray, "exams columns"]:
    """Returns size, mean, SD, seven percentiles and a histogram of 16 bins of each stack."""
    return np.array([np.concatenate([_of_stack(s) for s in e.stacks.values()]) for e in exams])


def _of_stack(stack: UInt8[np.ndarray, "slices rows cols"]) -> Float[np.ndarray, " columns"]:
    bins, _ = np.histogram(stack, bins=16, range=(0, 256))
    percentiles = np.percentile(stack, [1, 5, 25, 50, 75, 95, 99])
    return np.concatenate(
        [stack.shape, [stack.mean(), stack.std()], percentiles, bins / stack.size]
    )


def leak_table(leaks: dict[str, dict[str, Auc]]) -> str:
    """Formats the result of the leak check as plain text."""
    lines = [
        "Sizes and global intensities alone (logistic regression):",
        f"{'finding':<10}{'scored by':<16}{'AUC':>6}   {'95 % interval':<16}"
        f"{'positive':>9}{'negative':>9}",
    ]
    for finding, ways in leaks.items():
        for way, one in ways.items():
            over = f"   above {MOST_LEAK}" if one.value > MOST_LEAK else ""
            lines.append(
                f"{finding:<10}{way:<16}{one.value:>6.3f}   {one.low:.3f} to {one.high:.3f}  "
                f"{one.n_positive:>9}{one.n_negative:>9}{over}"
            )
    return "\n".join(lines)


def main() -> None:
    """Writes the exams, checks them for leaks, then trains, predicts and evaluates."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="folder for the data set, the run and its results")
    parser.add_argument("--seed", type=int, default=0, help="of the split")
    given = parser.parse_args()
    data = given.out / "data"
    write_exams(volumes_file(), data, given.seed)
    print(leak_table(leak_check(data)), flush=True)
    run, predictions, recipe = given.out / "run", given.out / "predictions.csv", str(RECIPE)
    for command in (
        ["train", str(data), "--out", str(run), "--recipe", recipe, "--seed", str(given.seed)],
        ["predict", str(run), str(data), "--out", str(predictions)],
        ["evaluate", str(predictions), str(data), "--out", str(given.out)],
    ):
        print("\nmrknee " + " ".join(command), flush=True)
        if mrknee(command):
            raise SystemExit(1)


if __name__ == "__main__":
    main()
