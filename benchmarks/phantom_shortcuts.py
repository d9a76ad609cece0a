"""Test for shortcuts: whether slice counts and histograms predict the phantom's labels.

A logistic regression is fitted to the three slice counts and the intensity histogram of each stack,
which a network could use without looking at the knee. It is cross-validated in five folds on
MRNet's mix of training labels, with several strengths of regularisation. The best strength is
reported, which favours the shortcut. For acl and meniscus, the AUC must not exceed 0.65.

    python benchmarks/phantom_shortcuts.py [--exams 500] [--size 128] [--seed 7]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mrknee.exams import PLANES, Dataset
from mrknee.sources.phantom.cohort import write_cohort

LIMIT = 0.65
MUST_HOLD = ("acl", "meniscus")
BINS = 32
STRENGTHS = (0.0003, 0.003, 0.03, 0.3)


def shortcut_features(folder: Dataset) -> np.ndarray:
    """Returns slice counts and histograms: (exams, 3 + 3 * BINS)."""
    rows = []
    for exam in folder:
        stacks = [np.asarray(exam.stacks[plane]) for plane in PLANES]
        shares = [np.bincount(s.ravel() // (256 // BINS), minlength=BINS) / s.size for s in stacks]
        rows.append(np.concatenate([[len(s) for s in stacks], *shares]))
    return np.array(rows)


def shortcut_auc(features: np.ndarray, labels: np.ndarray) -> tuple[float, float, float]:
    """Returns the out-of-fold AUC of the best strength, with its 95 % bootstrap interval."""
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    best, best_scores = -1.0, np.zeros(len(labels))
    for strength in STRENGTHS:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=5000))
        scores = cross_val_predict(model, features, labels, cv=folds, method="predict_proba")[:, 1]
        auc = float(roc_auc_score(labels, scores))
        if auc > best:
            best, best_scores = auc, scores
    rng = np.random.default_rng(0)
    draws: list[float] = []
    while len(draws) < 2000:
        pick = rng.integers(len(labels), size=len(labels))
        if 0 < labels[pick].sum() < len(labels):
            draws.append(float(roc_auc_score(labels[pick], best_scores[pick])))
    low, high = np.percentile(draws, (2.5, 97.5))
    return best, float(low), float(high)


def main() -> int:
    """Writes the exams, fits the regression and prints a table; returns 1 if an AUC is too high."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--exams", type=int, default=500)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "phantom"
        write_cohort(root, train=arguments.exams, valid=0, seed=arguments.seed, size=arguments.size)
        folder = Dataset.of_split(root, "train")
        features, labels = shortcut_features(folder), np.asarray(folder.labels)
        findings = tuple(folder.findings or ())
    print(f"{arguments.exams} exams of {arguments.size} px, MRNet's slice counts and label mix")
    print(f"{'finding':<10}{'positive':>10}{'AUC':>8}   95 % interval")
    failed = False
    for index, finding in enumerate(findings):
        target = labels[:, index].astype(int)
        auc, low, high = shortcut_auc(features, target)
        wrong = finding in MUST_HOLD and auc > LIMIT
        failed |= wrong
        print(
            f"{finding:<10}{target.sum():>10}{auc:>8.3f}   {low:.3f} to {high:.3f}"
            f"{'   ABOVE ' + str(LIMIT) if wrong else ''}"
        )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
