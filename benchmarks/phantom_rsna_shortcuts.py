"""Test for shortcuts in `--layout rsna2026`: do headers and grey values predict the findings?

A logistic regression is fitted per finding to what a network could use without looking at the knee:
header elements (manufacturer, model, field strength, times, matrix, spacing, number and kinds of
series and slices) and statistics of the grey values of each plane and contrast. It is
cross-validated in five folds, drawn at random, and drawn so that studies of one scanner model and
language or with the same report stay together. The best of four strengths of regularisation is
reported, which favours the shortcut. Under grouped splits no AUC should exceed 0.65.

    python benchmarks/phantom_rsna_shortcuts.py [--studies 600] [--size 96] [--slice-factor 0.34]
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from pydicom import dcmread
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mrknee.exams import RSNA_2026_FINDINGS
from mrknee.sources.phantom.rsna.cohort import write_rsna_cohort

LIMIT = 0.65
STRENGTHS = (0.0001, 0.001, 0.01, 0.1)
PERCENTILES = (1, 5, 25, 50, 75, 90, 95, 99, 99.9)
HEADER_NUMBERS = ("RepetitionTime", "EchoTime", "SliceThickness", "SpacingBetweenSlices", "Rows")
STUDY_NUMBERS = ("MagneticFieldStrength", "ImagingFrequency")
STUDY_WORDS = ("Manufacturer", "ManufacturerModelName", "BodyPartExamined", "PatientSex")
PLANES = ("Axial", "Coronal", "Sagittal")


def study_features(root: Path, study: str, rows: pd.DataFrame) -> dict[str, float]:
    """Returns the features of one study by name; a series that it lacks has none."""
    features: dict[str, float] = {"series": len(rows)}
    for row in rows.itertuples():
        slot = f"{row.Anatomical_Plane} {row.Fat_Suppression}"
        features[f"{slot} series"] = features.get(f"{slot} series", 0.0) + 1.0
        if features[f"{slot} series"] > 1:
            continue
        files = sorted((root / "train_series" / study / row.SeriesInstanceUID).iterdir())
        first = dcmread(files[0], stop_before_pixels=True)
        for name in STUDY_NUMBERS:
            features[name] = float(first[name].value)
        for name in (*STUDY_WORDS, "Laterality"):
            features[f"{name} {first.get(name, '')}"] = 1.0
        for name in HEADER_NUMBERS:
            features[f"{slot} {name}"] = float(first[name].value)
        features[f"{slot} pixel"] = float(first.PixelSpacing[0])
        features[f"{slot} slices"] = len(files)
        try:
            values = np.stack([dcmread(file).pixel_array for file in files])
        except (ValueError, AttributeError, EOFError):  # a corrupt series
            continue
        peak = float(values.max())
        features[f"{slot} peak"] = np.log(peak)
        shares = np.percentile(values, PERCENTILES) / peak
        for percentile, share in zip(PERCENTILES, shares, strict=True):
            features[f"{slot} p{percentile}"] = share
        inside = values[values > 0.05 * peak] / peak
        features |= {f"{slot} mean": inside.mean(), f"{slot} sd": inside.std()}
        for index, share in enumerate(np.histogram(inside, 16, (0.0, 1.0))[0] / inside.size):
            features[f"{slot} bin{index}"] = share
    return features


def feature_table(root: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns features (studies, features), and the group of each study."""
    series = pd.read_csv(root / "train_series.csv", dtype=str)
    reports = pd.read_csv(root / "train.csv", dtype=str, keep_default_na=False)
    languages = pd.read_csv(root / "truth" / "studies.csv", dtype=str).set_index(
        "StudyInstanceUID"
    )["language"]
    rows, keys = [], []
    for study, report in zip(reports["StudyInstanceUID"], reports["Report"], strict=True):
        features = study_features(root, study, series[series["StudyInstanceUID"] == study])
        rows.append(features)
        scanner = [name for name in features if name.startswith("Manufacturer")]
        keys.append(
            (
                " ".join([*sorted(scanner), languages[study]]),
                hashlib.sha256(report.encode()).hexdigest(),
            )
        )
    table = pd.DataFrame(rows)
    words = table.columns[[name.startswith((*STUDY_WORDS, "Laterality")) for name in table]]
    table[words] = table[words].fillna(0.0)
    absent = table.isna().astype(float).add_suffix(" absent")
    absent = absent.loc[:, absent.nunique() > 1]
    table = pd.concat([table.fillna(table.median()), absent], axis=1)
    return table.to_numpy(float), joined_groups(keys)


def joined_groups(keys: Sequence[tuple[str, str]]) -> np.ndarray:
    """Returns groups such that studies which share any key are in one group."""
    parent = list(range(len(keys)))

    def root(index: int) -> int:
        while parent[index] != index:
            index = parent[index]
        return index

    first: dict[str, int] = {}
    for index, own in enumerate(keys):
        for key in own:
            parent[root(index)] = root(first.setdefault(key, index))
    return np.array([root(index) for index in range(len(keys))])


def shortcut_auc(
    features: np.ndarray, labels: np.ndarray, groups: np.ndarray | None
) -> tuple[float, float, float]:
    """Returns the out-of-fold AUC of the best strength, with its 95 % bootstrap interval."""
    folds = (
        StratifiedKFold(5, shuffle=True, random_state=0)
        if groups is None
        else StratifiedGroupKFold(5, shuffle=True, random_state=0)
    )
    best, scores = -1.0, np.zeros(len(labels))
    for strength in STRENGTHS:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=3000))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            own = cross_val_predict(
                model, features, labels, groups=groups, cv=folds, method="predict_proba"
            )[:, 1]
        auc = float(roc_auc_score(labels, own))
        if auc > best:
            best, scores = auc, own
    rng = np.random.default_rng(0)
    draws: list[float] = []
    while len(draws) < 1000:
        pick = rng.integers(len(labels), size=len(labels))
        if 0 < labels[pick].sum() < len(labels):
            draws.append(float(roc_auc_score(labels[pick], scores[pick])))
    low, high = np.percentile(draws, (2.5, 97.5))
    return best, float(low), float(high)


def main() -> int:
    """Writes the studies, fits the regressions, prints a table; returns 1 if an AUC is too high."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=600)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--slice-factor", type=float, default=0.34)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--data", type=Path, help="a set written before, instead of a new one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = arguments.data or Path(name) / "set"
        if arguments.data is None:
            write_rsna_cohort(
                root,
                train=arguments.studies,
                test=0,
                seed=arguments.seed,
                size=arguments.size,
                slice_factor=arguments.slice_factor,
            )
        features, groups = feature_table(root)
        with (root / "truth" / "labels.csv").open(encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["split"] == "train"]
    labels = np.array([[int(row[title]) for title in RSNA_2026_FINDINGS.values()] for row in rows])
    counts = f"{features.shape[0]} studies, {features.shape[1]} features"
    print(f"{counts}, {len(np.unique(groups))} groups")
    print(f"{'finding':<18}{'positive':>9}{'random':>8}  {'95 % interval':<16}", end="")
    print(f"{'grouped':>8}  95 % interval")
    failed = False
    for index, name in enumerate(RSNA_2026_FINDINGS):
        target = labels[:, index]
        free, grouped = (shortcut_auc(features, target, each) for each in (None, groups))
        failed |= grouped[0] > LIMIT
        print(
            f"{name:<18}{target.sum():>9}{free[0]:>8.3f}  {free[1]:.3f} to {free[2]:.3f}"
            f"{grouped[0]:>10.3f}  {grouped[1]:.3f} to {grouped[2]:.3f}"
            f"{f'   ABOVE {LIMIT}' if grouped[0] > LIMIT else ''}",
            flush=True,
        )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
