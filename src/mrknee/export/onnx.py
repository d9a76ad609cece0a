"""Export of a trained model as one ONNX file, verified against the run folder.

`export` traces the network to a graph (`trace`), compares the outputs of file and run folder on
exams of noise (`prove`), optionally quantises the encoders to 8 bits, and adds the metadata.
"""

from __future__ import annotations

import copy
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
from mrknee.export.graph import ExamGraph
from mrknee.export.quantisation import (
    ENCODER,
    FLOAT,
    INT8,
    Cost,
    measure_auc_loss,
    quantise,
    quiet_logging,
)
from mrknee.files import atomic_write
from mrknee.inference.model import with_warnings
from mrknee.inference.onnx_file import FORMAT, METADATA, seal
from mrknee.inference.onnx_model import OnnxModel
from mrknee.inference.runtimes import PRESENT, outputs_of
from mrknee.inference.torch_model import TorchModel
from mrknee.inference.trained_series import TrainedSeries
from mrknee.run_folder import WEIGHTS_FILE
from mrknee.transforms.settings import PreparationSettings
from mrknee.transforms.traced import TRANSLATIONS

LIMIT = 1e-4
"""Largest accepted difference between file and run folder, in logit, a series' contribution to a
logit, or probability, for any exam tried."""

SLICE_COUNTS = (1, 2, 17, 61)
"""Slice counts that are tried: small ones, and MRNet's range (17 to 61 slices per series)."""

_LAYER = 2**24  # maximum number of weights; no first layer has as many

OPSET = 18
"""Version of ONNX's operators that torch writes and that `frame_stack` uses."""


@dataclass(frozen=True)
class Parity:
    """Differences between the outputs of the exported file and of the run folder.

    Attributes:
        exams: number of exams of noise that were read by both.
        slices: slice counts of the exams' stacks.
        sizes: rows and columns of the exams' slices, in pixels.
        logit: largest difference of any logit.
        series_sum: largest difference of any series' contribution to any logit.
        probability: largest difference of any calibrated probability.
    """

    exams: int
    slices: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]
    logit: float
    series_sum: float
    probability: float

    def text(self) -> str:
        """Returns the differences in words."""
        counts = ", ".join(map(str, self.slices))
        sizes = ", ".join(f"{rows} x {cols}" for rows, cols in self.sizes)
        return (
            f"the file gives the results of the run folder: {self.exams} exams of noise, {counts} "
            f"slices per series, {sizes} pixels\nlargest differences: logit {self.logit:.1g}, "
            f"contribution of a series {self.series_sum:.1g}, probability {self.probability:.1g} "
            f"(limit {LIMIT:g})"
        )


@dataclass(frozen=True)
class Int8:
    """Request to compute the encoders in 8 bits, and the largest accepted loss of AUC.

    Attributes:
        data: folder of the data set whose training exams determine the scales.
        split: labelled split of this data set on which AUCs are compared.
        limit: largest accepted decrease of any finding's AUC.
    """

    data: Path
    split: str = "valid"
    limit: float = 0.005


@dataclass(frozen=True, repr=False)
class Exported:
    """Properties of an exported file.

    Attributes:
        parity: differences from the run folder, before quantisation to 8 bits.
        cost: changes by quantisation to 8 bits; None if it wasn't requested.
        uncalibrated: finding -> the reason why its probability isn't calibrated.
    """

    parity: Parity
    cost: Cost | None
    uncalibrated: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        lines = [self.parity.text(), *(f"{name}: {why}" for name, why in self.uncalibrated.items())]
        return "\n".join([*lines, *([] if self.cost is None else [self.cost.text()])])


def export(model: str | Path, out: str | Path, *, int8: Int8 | None = None) -> Exported:
    """Writes a run folder's model as an ONNX file, after verifying the file's outputs.

    Args:
        model: a run folder.
        out: the file to write; it is written only if the verification succeeds.
        int8: compute the encoders in 8 bits, unless AUCs decrease too much; None doesn't quantise.

    Returns:
        The differences between the file and the run folder.

    Raises:
        MrkneeError: there is no model, it can't be exported, the file's outputs differ from the
            run folder's by more than `LIMIT`, or 8 bits decrease an AUC too much.
    """
    model, out = Path(model), Path(out)
    trained = with_warnings(TorchModel(model))
    trained.network.refuse_unexplainable()
    trained.network.to("cpu")
    graph = trace(trained)
    facts = _facts(trained)
    with atomic_write(out) as beside:
        beside.write_bytes(_finished(graph, facts))
        float32 = OnnxModel(beside)
        parity = prove(trained, float32)
        if not max(parity.logit, parity.series_sum, parity.probability) <= LIMIT:  # not NaN either
            raise ModelError(
                "the exported model gives other results than the run folder, so it was not written",
                code="export-differs",
                file=out,
                expected=f"differences of at most {LIMIT:g}",
                found=f"logit {parity.logit:.2g}, contribution of a series "
                f"{parity.series_sum:.2g}, probability {parity.probability:.2g}",
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
    """Returns the model as a graph for stacks of any number of slices and any in-plane size.

    Raises:
        MrkneeError: torch can't express the encoder as such a graph.
    """
    network, names = model.network, model.series.names
    if network.settings.shared_encoder:  # otherwise the exporter folds normalisations itself
        network = copy.deepcopy(network)
        side = model.preparation.crop
        with torch.no_grad():
            image = torch.zeros(1, model.preparation.channels, side, side)
            network.encoder(names[0]).fold(image)
    module = ExamGraph(
        network, model.preparation, model.decisions.calibration, model.trained
    ).eval()
    # several slices, and different sizes: the graph may require sizes that are equal in the example
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
            warnings.simplefilter("ignore")  # torch's, about its own internals
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
            # the first layer's summed weights become constants; otherwise quantisation would treat
            # them as computed from pixels
            fold_constants(program.model, input_size_limit=_LAYER, output_size_limit=_LAYER)
    except Exception as fault:  # torch's exporter raises exceptions of many types
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
    """Removes torch's metadata, whose stack traces name folders of the exporting machine.

    Before that, nodes that belong to an encoder are marked in their names.
    """
    for node in graph.node:
        scopes = [e.value for e in node.metadata_props if e.key == "pkg.torch.onnx.name_scopes"]
        if any("'network.encoders." in one for one in scopes):
            node.name = ENCODER + node.name
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
        for attribute in node.attribute:
            if attribute.HasField("g"):  # the subgraph of a branch
                _strip(attribute.g)
    for value in (*graph.value_info, *graph.input, *graph.output):
        value.ClearField("metadata_props")
    for tensor in graph.initializer:
        tensor.ClearField("metadata_props")
    graph.ClearField("metadata_props")


def prove(model: TorchModel, exported: OnnxModel) -> Parity:
    """Reads exams of noise with both models and returns the differences of their outputs."""
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
    """Generates four exams: two of MRNet's in-plane size, two that need scaling and padding.

    The series differ in slice counts. The scale is 1/2, for which interpolation weights are
    multiples of 1/8; with other scales, torch and the file round some grey values differently, by
    amounts that the tests of the preparation bound.
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
    """Generates noise with a different brightness and contrast in each slice."""
    low, high = rng.integers(0, 80, shape[0]), rng.integers(120, 256, shape[0])
    noise = rng.random(shape) * (high - low)[:, None, None] + low[:, None, None]
    return np.asarray(noise, dtype=np.uint8)


def _facts(model: TorchModel) -> dict[str, Any]:
    """Returns the metadata of the file, without the result of the verification."""
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
    """Returns the file's bytes: graph, default value of `present`, metadata, and checksum."""
    finished = onnx.ModelProto()
    finished.CopyFrom(graph)
    all_there = np.ones(len(facts["series"]), dtype=np.float32)
    finished.graph.initializer.append(onnx.numpy_helper.from_array(all_there, PRESENT))
    finished.ClearField("metadata_props")
    text = json.dumps(facts, allow_nan=False)
    finished.metadata_props.append(onnx.StringStringEntryProto(key=METADATA, value=text))
    return seal(finished.SerializeToString())
