"""A trained model as one ONNX file that runs anywhere, proven to say what the run folder says."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from jaxtyping import UInt8
from onnxscript.optimizer import fold_constants

from mrknee import __version__
from mrknee.errors import ModelError
from mrknee.exams import Dataset, Exam, SeriesList
from mrknee.files import whole_file
from mrknee.inference.graph import ExamGraph
from mrknee.inference.model import with_warnings
from mrknee.inference.onnx_file import FORMAT, METADATA, seal
from mrknee.inference.onnx_model import OnnxModel
from mrknee.inference.quantisation import (
    ENCODER,
    FLOAT,
    INT8,
    Cost,
    measure_auc_loss,
    quantise,
    quiet_logging,
)
from mrknee.inference.runtimes import PRESENT, outputs_of
from mrknee.inference.torch_model import TorchModel
from mrknee.inference.trained_series import TrainedSeries
from mrknee.run_folder import WEIGHTS_FILE
from mrknee.tensors.settings import PreparationSettings
from mrknee.tensors.traced import TRANSLATIONS

LIMIT = 1e-4
"""The largest difference in logit between the file and the run folder, for any exam tried."""

SLICE_COUNTS = (1, 2, 17, 61)
"""Slice counts that are tried: the least, and MRNet's range (17 to 61 slices per series)."""

_LAYER = 2**24  # numbers; no first layer has as many

OPSET = 18
"""Version of ONNX's operators: the one torch writes and `frame_stack` is written in."""


@dataclass(frozen=True)
class Parity:
    """How far the file is from the run folder.

    Attributes:
        exams: how many exams of noise were read by both.
        slices: slice counts among their stacks.
        sizes: rows and columns of their slices, in pixels.
        logit: the largest difference of any logit.
        series_sum: the largest difference of what any series adds to any logit.
        probability: the largest difference of any calibrated probability.
    """

    exams: int
    slices: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]
    logit: float
    series_sum: float
    probability: float

    def text(self) -> str:
        """For a person."""
        counts = ", ".join(map(str, self.slices))
        sizes = ", ".join(f"{rows} x {cols}" for rows, cols in self.sizes)
        return (
            f"the file says what the run folder says: {self.exams} exams of noise, {counts} slices "
            f"per series, {sizes} pixels\nlargest difference: logit {self.logit:.1g}, what a "
            f"series adds {self.series_sum:.1g}, probability {self.probability:.1g} "
            f"(limit {LIMIT:g})"
        )


@dataclass(frozen=True)
class Int8:
    """That the encoders are to be computed in 8 bits, and what that may cost.

    Attributes:
        data: a data set's folder: scales come from its training exams.
        split: its labelled split that AUCs are compared on.
        limit: the largest fall of any finding's AUC that is let through.
    """

    data: Path
    split: str = "valid"
    limit: float = 0.005


@dataclass(frozen=True, repr=False)
class Exported:
    """What is known of a file that was written.

    Attributes:
        parity: how far the file, before 8 bits, is from the run folder.
        cost: what 8 bits changed; None where they weren't asked for.
        uncalibrated: finding -> why its probability is the network's own.
    """

    parity: Parity
    cost: Cost | None
    uncalibrated: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        lines = [self.parity.text(), *(f"{name}: {why}" for name, why in self.uncalibrated.items())]
        return "\n".join([*lines, *([] if self.cost is None else [self.cost.text()])])


def export(model: str | Path, out: str | Path, *, int8: Int8 | None = None) -> Exported:
    """Writes a run folder's model as an ONNX file, if it reads exams of noise as the folder does.

    Args:
        model: a run folder.
        out: the file to write; nothing is left there unless it is proven.
        int8: compute the encoders in 8 bits, if AUCs allow it.

    Returns:
        How far the file is from the run folder.

    Raises:
        MrkneeError: there is no model, it can't be exported, the file differs from it by more
            than `LIMIT` in a logit, or 8 bits cost too much.
    """
    model, out = Path(model), Path(out)
    trained = with_warnings(TorchModel(model))
    trained.network.to("cpu")
    graph = trace(trained)
    facts = _facts(trained)
    with whole_file(out) as beside:
        beside.write_bytes(_finished(graph, facts))
        float32 = OnnxModel(beside)
        parity = prove(trained, float32)
        if not max(parity.logit, parity.series_sum, parity.probability) <= LIMIT:  # not NaN either
            raise ModelError(
                "the exported model doesn't say what the run folder says, so it was not written",
                code="export-differs",
                file=out,
                expected=f"differences of at most {LIMIT:g}",
                found=f"logit {parity.logit:.2g}, what a series adds {parity.series_sum:.2g}, "
                f"probability {parity.probability:.2g}",
            )
        facts["export"]["parity"] = {**asdict(parity), "limit": LIMIT}
        cost = None
        if int8 is not None:
            train = Dataset(int8.data / "train", allow_missing_plane=True)
            read = TrainedSeries(train, trained.series, trained.trained)
            graph, count = quantise(graph, read)
            facts["export"]["precision"] = INT8
            beside.write_bytes(_finished(graph, facts))
            cost = measure_auc_loss(
                float32, OnnxModel(beside), int8.data, int8.split, exams=count, limit=int8.limit
            )
            facts["export"]["int8"] = cost.to_dict()
        beside.write_bytes(_finished(graph, facts))
    return Exported(parity, cost, trained.uncalibrated)


def trace(model: TorchModel) -> onnx.ModelProto:
    """The model as a graph that takes stacks of any number of slices and any size in plane.

    Raises:
        MrkneeError: torch can't express the encoder as such a graph.
    """
    network, names = model.network, model.series.names
    module = ExamGraph(
        network, model.preparation, model.decisions.calibration, model.trained
    ).eval()
    # more than one slice, and all sizes differ: what is equal in the example may stay so for good
    side = model.preparation.size
    shapes = [(2 + n, side + 2 * n, side + 2 * n + 1) for n in range(len(names))]
    stacks = [torch.zeros(shape, dtype=torch.uint8) for shape in shapes]
    stacks[0][0, 0, 0] = 255
    free = [
        {
            axis: torch.export.Dim(f"{name}_{what}")
            for axis, what in enumerate(("slices", "rows", "cols"))
        }
        for name in names
    ]
    try:
        with warnings.catch_warnings(), quiet_logging(), torch.no_grad():
            warnings.simplefilter("ignore")  # torch's own, about its own parts
            program = torch.onnx.export(
                module,
                (*stacks, torch.ones(len(names))),
                dynamo=True,
                dynamic_shapes=((*free, None),),
                input_names=[*names, PRESENT],
                output_names=list(outputs_of(model.series)),
                opset_version=OPSET,
                verbose=False,
                custom_translation_table=TRANSLATIONS,
            )
            assert program is not None  # noqa: S101 - for the type checker: dynamo=True returns it
            # a first layer's summed weights: 8 bits would take what is computed for pixels
            fold_constants(program.model, input_size_limit=_LAYER, output_size_limit=_LAYER)
    except Exception as fault:  # whatever stops torch's exporter
        raise ModelError(
            "the network can't be expressed as an ONNX graph",
            code="cannot-export",
            expected="an encoder that torch.onnx.export takes with any number of slices",
            found=f"{network.settings.encoder}: {str(fault).splitlines()[0][:300]}",
            advice="train another encoder; alexnet, ResNets and vision transformers are known",
        ) from fault
    graph = program.model_proto
    _strip(graph.graph)
    return graph


def _strip(graph: onnx.GraphProto) -> None:
    """Takes torch's notes out: stack traces, which name the exporting machine's folders.

    What the notes tell of a node that matters goes into its name: whether an encoder is its origin.
    """
    for node in graph.node:
        scopes = [e.value for e in node.metadata_props if e.key == "pkg.torch.onnx.name_scopes"]
        if any("'network.encoders." in one for one in scopes):
            node.name = ENCODER + node.name
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
        for attribute in node.attribute:
            if attribute.HasField("g"):  # a branch
                _strip(attribute.g)
    for value in (*graph.value_info, *graph.input, *graph.output):
        value.ClearField("metadata_props")
    for tensor in graph.initializer:
        tensor.ClearField("metadata_props")
    graph.ClearField("metadata_props")


def prove(model: TorchModel, exported: OnnxModel) -> Parity:
    """Reads exams of noise with both and says how far they are apart."""
    differences = []
    exams = list(_noise(model.preparation, model.series))
    for exam in exams:
        expected, found = model.explain(exam), exported.explain(exam)
        sums = [
            np.abs(expected.series_sums[name] - found.series_sums[name]).max()
            for name in model.trained.names
        ]
        differences.append(
            (
                np.abs(expected.logits - found.logits).max(),
                max(sums),
                np.abs(expected.probabilities - found.probabilities).max(),
            )
        )
    largest = np.max(differences, axis=0)
    stacks = [stack for exam in exams for stack in exam.stacks.values()]
    return Parity(
        exams=len(exams),
        slices=tuple(sorted({stack.shape[0] for stack in stacks})),
        sizes=tuple(sorted({(stack.shape[1], stack.shape[2]) for stack in stacks})),
        logit=float(largest[0]),
        series_sum=float(largest[1]),
        probability=float(largest[2]),
    )


def _noise(preparation: PreparationSettings, series: SeriesList) -> Iterator[Exam]:
    """Exams whose series differ in slices: two as MRNet's in size, two to be scaled and padded.

    The scale is a half, whose weights are whole eighths: other scales round some grey values
    differently here and there, which the tests of the preparation bound.
    """
    rng = np.random.default_rng(0)
    side = preparation.size
    sizes = ((side, side), (2 * side, 2 * (side - side // 4)))
    for number in range(4):
        counts = np.resize(np.roll(SLICE_COUNTS, number), len(series))
        shapes = [(int(count), *sizes[number % 2]) for count in counts]
        stacks = [_slices(rng, shape) for shape in shapes]
        yield Exam(f"noise {number}", dict(zip(series.names, stacks, strict=True)), series=series)


def _slices(rng: np.random.Generator, shape: Sequence[int]) -> UInt8[np.ndarray, "_ _ _"]:
    """Noise of its own brightness and contrast in each slice."""
    low, high = rng.integers(0, 80, shape[0]), rng.integers(120, 256, shape[0])
    noise = rng.random(shape) * (high - low)[:, None, None] + low[:, None, None]
    return np.asarray(noise, dtype=np.uint8)


def _facts(model: TorchModel) -> dict[str, Any]:
    """What the file's metadata says, the proof aside."""
    weights = (model.folder / WEIGHTS_FILE).read_bytes()
    return {
        "format": FORMAT,
        "findings": list(model.findings),
        "series": model.series.to_dicts(),
        "preparation": model.preparation.to_dict(),
        "provenance": dict(model.provenance),
        "decisions": model.decisions.to_dict(),
        "bias": model.network.head.bias.tolist(),
        "attention_fixed": model.network.attends,
        "export": {
            "weights_sha256": hashlib.sha256(weights).hexdigest(),
            "precision": FLOAT,
            "mrknee": __version__,
            "torch": torch.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
            "opset": OPSET,
        },
    }


def _finished(graph: onnx.ModelProto, facts: Mapping[str, Any]) -> bytes:
    """The file's bytes: graph, what `present` is where it isn't given, metadata, seal."""
    finished = onnx.ModelProto()
    finished.CopyFrom(graph)
    all_there = np.ones(len(facts["series"]), dtype=np.float32)
    finished.graph.initializer.append(onnx.numpy_helper.from_array(all_there, PRESENT))
    finished.ClearField("metadata_props")
    text = json.dumps(facts, allow_nan=False)
    finished.metadata_props.append(onnx.StringStringEntryProto(key=METADATA, value=text))
    return seal(finished.SerializeToString())
