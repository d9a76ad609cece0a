"""8-bit quantisation of an exported graph, and its effect on the AUCs.

Static quantisation of the encoders by ONNX Runtime: scales are per channel for weights and per
tensor for activations, the latter from their values on training exams. Preparation, pooling, head
and decomposition stay in float32, so that heat maps still add up to the logit. The change of the
AUCs is measured on labelled exams, and quantisation is refused beyond a limit.
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
from mrknee.metrics.comparison import Comparison, compare

CALIBRATION_EXAMS = 32
"""Number of training exams used for the scales of activations: some thousand slices."""

OPERATORS = ("Conv", "Gemm", "MatMul", "Add", "Relu", "Clip", "MaxPool")
"""Operators of the encoders that are computed in 8 bits."""

FLOAT, INT8 = "float32", "int8"

ENCODER = "encoder/"
"""Prefix of the names of the encoders' nodes."""


@dataclass(frozen=True)
class Cost:
    """Effect of quantisation on labelled exams.

    Attributes:
        comparison: AUCs of both models, and their differences with intervals.
        calibrated_on: number of training exams used for the scales.
        probability: largest change of any probability.
        limit: largest accepted decrease of an AUC.
    """

    comparison: Comparison
    calibrated_on: int
    probability: float
    limit: float

    def text(self) -> str:
        """Returns a text with one line per finding."""
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
            f"largest change of a probability: {self.probability:.3f}; largest accepted decrease "
            f"of an AUC: {self.limit:g}"
        )
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Returns the content for the file's metadata."""
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
    """Inputs of the graph for training exams, one exam at a time."""

    def __init__(self, exams: Exams, chosen: list[int]) -> None:
        self._left: Iterator[int] = iter(chosen)
        self._exams = exams

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Returns the inputs of the next exam, or None after the last."""
        index = next(self._left, None)
        if index is None:
            return None
        exam = self._exams[index]
        return inputs_of(exam, exam.series)


def quantise(graph: onnx.ModelProto, exams: Exams) -> tuple[onnx.ModelProto, int]:
    """Quantises the encoders of a graph to 8 bits.

    Weights use 7 of their 8 bits, because processors without VNNI add pairs of products in 16 bits,
    which would overflow.

    Args:
        graph: graph returned by `export.trace`.
        exams: training exams with the model's series; `CALIBRATION_EXAMS` are drawn (seed 0).

    Returns:
        The quantised graph, and the number of exams used for its scales.

    Raises:
        MrkneeError: the graph has no encoder that can be quantised.
    """
    nodes = [node.name for node in graph.graph.node if node.name.startswith(ENCODER)]
    if not nodes:
        raise ModelError(
            "no part of this model can be computed in 8 bits",
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


def measure_auc_loss(
    float32: OnnxModel, int8: OnnxModel, data: Path, split: str, *, exams: int, limit: float
) -> Cost:
    """Measures the effect of quantisation on a labelled split.

    Args:
        float32: the original model.
        int8: the quantised model.
        data: folder of the data set.
        split: split of the data set; should not be `train`, whose AUCs are optimistic.
        exams: number of training exams used for the scales.
        limit: largest accepted decrease of an AUC.

    Raises:
        MrkneeError: an AUC decreases by more than `limit`, or can't be computed.
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
            "quantisation changes this model too much, so it was not written",
            code="quantisation-loss",
            expected=f"no AUC that decreases by more than {limit:g} on {split}",
            found=cost.text(),
            advice="export without --int8, or with another --auc-limit",
        )
    return cost


@contextlib.contextmanager
def quiet_logging() -> Iterator[None]:
    """Suppresses log messages below errors, of which exporter and quantiser write many."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
