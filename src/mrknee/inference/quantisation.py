"""An exported graph in whole numbers of 8 bits: smaller and faster, and how much worse.

Static quantisation of the encoders by ONNX Runtime: every weight's channel and every activation
gets a scale, the activations' from what training exams make them be. Preparation, pooling, head and
decomposition stay as they are, so that heat maps still add up to the logit. What it costs is
measured on labelled exams, and refused beyond a limit.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)

from mrknee.errors import ModelError
from mrknee.exams import Dataset, Exams
from mrknee.inference.onnx_model import OnnxModel, inputs_of
from mrknee.scoring.comparison import Comparison, compare

CALIBRATION_EXAMS = 32
"""Training exams that the activations' scales are taken from: some thousand slices."""

OPERATORS = ("Conv", "Gemm", "MatMul", "Add", "Relu", "MaxPool")
"""What is computed in 8 bits, inside the encoders."""

FLOAT, INT8 = "float32", "int8"

ENCODER = "encoder/"
"""What the names of the encoders' nodes start with."""


@dataclass(frozen=True)
class Cost:
    """What 8 bits change, on labelled exams.

    Attributes:
        comparison: the AUCs of both, and their differences with intervals.
        calibrated_on: how many training exams the scales were taken from.
        probability: the largest change of any probability.
        limit: the largest fall of an AUC that is let through.
    """

    comparison: Comparison
    calibrated_on: int
    probability: float
    limit: float

    def text(self) -> str:
        """For a person: a line a finding."""
        lines = [
            f"int8, scales from {self.calibrated_on} training exams; AUC on {self.comparison.split}"
        ]
        lines.extend(
            f"{one.finding}: {one.first_auc:.4f} -> {one.second_auc:.4f}, change "
            f"{one.difference:+.4f} ({one.low:+.4f} to {one.high:+.4f}), "
            f"n = {one.n_positive} with, {one.n_negative} without"
            for one in self.comparison.differences
        )
        lines.append(
            f"largest change of a probability: {self.probability:.3f}; an AUC may fall by at most "
            f"{self.limit:g}"
        )
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """For the file's metadata."""
        return {
            "calibrated_on": {"split": "train", "exams": self.calibrated_on},
            "split": self.comparison.split,
            "limit": self.limit,
            "probability": self.probability,
            "auc": {
                one.finding: {
                    FLOAT: one.first_auc,
                    INT8: one.second_auc,
                    "low": one.low,
                    "high": one.high,
                    "n_positive": one.n_positive,
                    "n_negative": one.n_negative,
                }
                for one in self.comparison.differences
            },
        }


class _Exams(CalibrationDataReader):  # type: ignore[misc]  # ONNX Runtime ships no types
    """Training exams, one at a time, as the graph takes them."""

    def __init__(self, exams: Exams, chosen: list[int]) -> None:
        self._left: Iterator[int] = iter(chosen)
        self._exams = exams

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next exam's inputs, or None after the last."""
        index = next(self._left, None)
        if index is None:
            return None
        exam = self._exams[index]
        return inputs_of(exam, exam.series)


def quantise(graph: onnx.ModelProto, exams: Exams) -> tuple[onnx.ModelProto, int]:
    """The graph with its encoders in 8 bits.

    Weights keep 7 of their 8 bits, because processors without VNNI add pairs of products in 16
    bits, which would overflow.

    Args:
        graph: from `export.trace`.
        exams: training exams with the model's series; `CALIBRATION_EXAMS` are drawn (seed 0).

    Returns:
        The graph and how many exams its scales come from.

    Raises:
        MrkneeError: the graph has no encoder to quantise.
    """
    nodes = [node.name for node in graph.graph.node if node.name.startswith(ENCODER)]
    if not nodes:
        raise ModelError(
            "nothing in this model can be computed in 8 bits",
            code="cannot-quantise",
            expected="an encoder with " + ", ".join(OPERATORS),
        )
    count = min(CALIBRATION_EXAMS, len(exams))
    chosen = np.random.default_rng(0).permutation(len(exams))[:count].tolist()
    with TemporaryDirectory() as folder, quiet_logging():
        before, after = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        onnx.save(graph, before)
        quantize_static(
            before,
            after,
            _Exams(exams, chosen),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=nodes,
            op_types_to_quantize=list(OPERATORS),
        )
        return onnx.load(after), count


def price(
    float32: OnnxModel, int8: OnnxModel, data: Path, split: str, *, exams: int, limit: float
) -> Cost:
    """What 8 bits change on a labelled split.

    Args:
        float32: the model before.
        int8: the model after.
        data: the data set's folder.
        split: which split; `train` would flatter neither, but its AUCs are no finding's.
        exams: how many training exams the scales come from.
        limit: the largest fall of an AUC that is let through.

    Raises:
        MrkneeError: an AUC falls by more than `limit`, or can't be computed.
    """
    folder = Dataset(data / split, allow_missing_plane=True)
    before, after = float32.predict(folder), int8.predict(folder)
    comparison = compare(
        (FLOAT, INT8),
        before.findings,
        before.labels(data, split),
        (before.probabilities, after.probabilities),
        split=split,
    )
    change = float(np.abs(before.probabilities - after.probabilities).max())
    cost = Cost(comparison, exams, change, limit)
    worst = [one for one in comparison.differences if not -one.difference <= limit]  # NaN too
    if worst:
        raise ModelError(
            "8 bits change this model too much, so it was not written",
            code="quantisation-loss",
            expected=f"no AUC that falls by more than {limit:g} on {split}",
            found=cost.text(),
            advice="export without --int8, or state another --auc-limit",
        )
    return cost


@contextlib.contextmanager
def quiet_logging() -> Iterator[None]:
    """Meanwhile only errors are logged; exporter and quantiser have much to say to their makers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
