"""Example evaluations for the tests in this folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mrknee.exams import MRNET_FINDINGS, Dataset, Findings, write_labels
from mrknee.inference.torch_model import TorchModel
from mrknee.metrics.operating_point import OperatingPoint
from mrknee.metrics.predictions import Predictions
from mrknee.models.checkpoint import save_checkpoint
from mrknee.models.network import Network
from mrknee.models.settings import NetworkSettings
from mrknee.transforms.preparation import Preparation
from tests.conftest import write_toy_dataset

PROVENANCE: Mapping[str, Any] = {
    "data": "toy",
    "trained_on": 590,
    "selected_on": {"part": "inner", "exams": 106},
    "seed": 3,
    "epoch": 4,
    "environment": {"packages": {"torch": "9.8.7"}},
    "recipe": {
        "network": {"encoder": "test_resnet", "shared_encoder": True, "slice_pooling": "max"},
        "weights": "none",
        "preparation": {"size": 48, "crop": 40},
        "optimizer": {"name": "adam", "learning_rate": 0.001},
        "schedule": {"name": "cosine"},
        "augmentation": {"rotation": 25},
        "selection": {"metric": "mean_auc"},
        "epochs": 6,
        "batch_exams": 4,
        "seed": 3,
    },
}


def write_case(root: Path, exams: int = 120, *, seed: int = 0, skill: float = 2.0) -> Path:
    """Writes label files of `valid`, and correlated predictions `<root>/<seed>.csv`.

    The share of each finding is MRNet's; four labels of acl are unknown.
    """
    rng = np.random.default_rng(seed)
    shares = dict(zip(MRNET_FINDINGS, (0.79, 0.45, 0.43), strict=True))
    ids = [f"{number:04d}" for number in range(exams)]
    columns = []
    for finding, share in shares.items():
        labels = (np.arange(exams) < share * exams).astype(float)
        np.random.default_rng(len(finding)).shuffle(labels)  # the same for every seed
        logits = rng.normal(size=exams) + skill * (labels - 0.5)
        columns.append(1 / (1 + np.exp(-logits)))
        if finding == "acl":
            labels[:4] = np.nan
        write_labels(root, "valid", finding, dict(zip(ids, labels.tolist(), strict=True)))
    table = Predictions(tuple(ids), Findings(MRNET_FINDINGS), np.stack(columns, axis=1))
    path = root / f"{seed}.csv"
    table.write(path)
    return path


def write_model_case(
    root: Path, *, pixels: int = 48, provenance: Mapping[str, Any] = PROVENANCE
) -> tuple[Path, Path, Path]:
    """Writes exams with labels, a model of random weights with thresholds, and its predictions.

    4 exams of `train` (in `split.csv` 3 train, 1 inner), 24 of `valid`. Two fifths of the
    probabilities are below the first threshold: about half of its predictions are wrong, with more
    false positives than false negatives.

    Returns:
        The data set, the run folder and the predictions.
    """
    data = write_toy_dataset(root / "toy", 4, 24, pixels=pixels, slices=(2, 5))
    torch.manual_seed(0)
    settings = NetworkSettings(encoder="test_resnet", shared_encoder=True)
    network = Network(settings, MRNET_FINDINGS)
    preparation = Preparation(size=48, crop=40)
    run = root / "run"
    save_checkpoint(run / "best", network, preparation.to_dict(), provenance)
    table = TorchModel(run).predict(Dataset.of_split(data, "valid"))
    decisions = {
        "operating_points": {
            finding: [
                OperatingPoint("Youden", float(np.quantile(column, 0.4)), 40, 66).to_dict(),
                OperatingPoint("sensitivity >= 0.90", float(column.min()) * 0.9, 40, 66).to_dict(),
            ]
            for finding, column in zip(table.findings, table.probabilities.T, strict=True)
        }
    }
    save_checkpoint(run / "best", network, preparation.to_dict(), provenance, decisions)
    ids = [exam_id for split in ("train", "valid") for exam_id in Dataset(data / split).ids]
    parts = ["train", "train", "train", "inner", *["valid"] * 24]
    lines = [f"{exam_id},{part}\n" for exam_id, part in zip(ids, parts, strict=True)]
    (run / "split.csv").write_text("exam,part\n" + "".join(lines))
    predictions = root / "predictions.csv"
    table.write(predictions)
    return data, run, predictions
