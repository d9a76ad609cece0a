"""An exported file gives the results of its run folder, or is not written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from mrknee.cli import main
from mrknee.errors import MrkneeError
from mrknee.exams import MRNET_SERIES, PLANES, Exam, Plane, open_dataset
from mrknee.export import onnx as exporting
from mrknee.export.onnx import LIMIT, Int8, Parity, export
from mrknee.export.quantisation import ENCODER
from mrknee.inference.model import Model, load_model
from mrknee.inference.onnx_file import METADATA, seal
from mrknee.inference.onnx_model import OnnxModel
from mrknee.inference.runtimes import outputs_of
from mrknee.inference.submission import submit
from mrknee.inference.torch_model import TorchModel
from mrknee.metrics.calibration import fit_calibration
from mrknee.metrics.operating_point import OperatingPoint
from mrknee.models.checkpoint import load_checkpoint, save_checkpoint
from mrknee.models.network import Network
from mrknee.models.settings import NetworkSettings
from mrknee.reports.evaluation import gather
from mrknee.transforms.preparation import Preparation
from tests.conftest import write_toy_dataset
from tests.explanations.test_explanation import all_heat

pytestmark = pytest.mark.slow

FINDINGS = ("abnormal", "acl", "meniscus")
PREPARATION = Preparation(size=48, crop=32)


def make_run(
    folder: Path,
    settings: NetworkSettings,
    preparation: Preparation = PREPARATION,
    *,
    calibrated: bool = True,
    planes: Sequence[Plane] = PLANES,
) -> Path:
    """Writes a run folder with random weights."""
    torch.manual_seed(0)
    network = Network(settings, FINDINGS, series=MRNET_SERIES.only(planes))
    decisions: dict[str, Any] = {}
    if calibrated:
        rng = np.random.default_rng(0)
        labels = (np.arange(90).reshape(30, 3) % 2).astype(float)
        probabilities = 1 / (1 + np.exp(-(labels - 0.5 + rng.normal(size=(30, 3)))))
        calibration = fit_calibration(FINDINGS, labels, probabilities)
        point = OperatingPoint("Youden", 0.4, 15, 15).to_dict()
        decisions["calibration"] = calibration.to_dict()
        decisions["operating_points"] = {finding: [point] for finding in FINDINGS}
    provenance = {"data": "toy", "trained_on": 12, "seed": 3}
    save_checkpoint(folder / "best", network, preparation.to_dict(), provenance, decisions)
    return folder


def make_exam(*shapes: tuple[int, int, int], planes: tuple[Plane, ...] = PLANES) -> Exam:
    """Returns an exam of noise."""
    rng = np.random.default_rng(0)
    stacks = {
        p: rng.integers(0, 256, s).astype(np.uint8) for p, s in zip(planes, shapes, strict=True)
    }
    return Exam("0007", stacks)


@pytest.fixture(scope="module")
def exported(untraced: None, exported_once: tuple[Path, Path]) -> tuple[Path, Path]:  # noqa: ARG001
    """A run folder and the file exported from it."""
    return exported_once


def assert_same(run: Model, file: Model, exam: Exam, atol: float = LIMIT) -> None:
    """Asserts equal logits, bias, probabilities and heat maps."""
    expected, found = run.explain(exam), file.explain(exam)
    np.testing.assert_allclose(found.logits, expected.logits, rtol=0, atol=atol)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, rtol=0, atol=atol)
    np.testing.assert_array_equal(found.bias, expected.bias)
    assert found.findings == expected.findings
    assert found.attention_fixed == expected.attention_fixed
    assert list(found.native) == list(expected.native)
    assert found.shapes == expected.shapes
    for plane in expected.native:
        np.testing.assert_allclose(found.native[plane], expected.native[plane], rtol=0, atol=atol)
        np.testing.assert_allclose(
            all_heat(found, plane), all_heat(expected, plane), rtol=0, atol=atol
        )


@pytest.mark.parametrize(
    "settings",
    [
        NetworkSettings(encoder="test_resnet", slice_pooling="mean"),
        NetworkSettings(encoder="test_vit", slice_pooling="attention", shared_encoder=True),
        NetworkSettings(encoder="alexnet", slice_pooling="max"),
        NetworkSettings(
            encoder="test_resnet", feature_maps=(2, 3), channels=8, slice_pooling="evidence"
        ),
        NetworkSettings(
            encoder="test_byobnet", slice_pooling="evidence_logsumexp", shared_encoder=True
        ),
        NetworkSettings(encoder="test_resnet", slice_pooling="finding_attention"),
    ],
    ids=lambda s: f"{s.encoder}-{s.slice_pooling}",
)
@pytest.mark.usefixtures("untraced")
def test_every_kind_of_network_agrees(tmp_path: Path, settings: NetworkSettings) -> None:
    """Logits agree to 1e-4, for 1 to 61 slices and for sizes that need resizing.

    Each series is traced separately, so two suffice to save time, except for one network.

    The weights of every convolution are stored, including the summed ones of the first layer:
    8-bit quantisation would treat computed weights as pixels, with one scale for all channels.
    Batch normalisations are part of them, also in an encoder that series share.
    """
    preparation = Preparation(size=80, crop=64) if settings.encoder == "alexnet" else PREPARATION
    if settings.slice_pooling == "mean":  # the centre of small stacks is enlarged
        preparation = Preparation(size=48, min_size=48, crop=32)
    calibrated = settings.slice_pooling != "mean"
    planes = (Plane.AXIAL, Plane.SAGITTAL) if calibrated else PLANES
    run = make_run(tmp_path / "run", settings, preparation, calibrated=calibrated, planes=planes)
    parity = export(run, tmp_path / "model.onnx").parity
    assert parity.slices == (1, 2, 17, 61)
    assert len(parity.sizes) == 2
    assert max(parity.logit, parity.series_sum, parity.probability) <= LIMIT
    models = load_model(run), load_model(tmp_path / "model.onnx")
    side = preparation.size
    shapes = [(9, side, side), (1, side // 2, side // 3), (30, side, 70)]
    exam = make_exam(*shapes[-len(planes) :], planes=planes)
    assert_same(*models, exam)
    found = models[1].explain(exam)
    plain = np.abs(found.probabilities - 1 / (1 + np.exp(-found.logits))).max()
    assert (plain > 100 * LIMIT) == calibrated
    graph = onnx.load(str(tmp_path / "model.onnx")).graph
    stored = {one.name for one in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert convolutions
    assert {node.input[1] for node in convolutions} <= stored
    assert not any(node.op_type == "BatchNormalization" for node in graph.node)


SHAPES = [
    ((1, 48, 48), (1, 48, 48), (1, 48, 48)),
    ((3, 48, 40), (2, 33, 47), (5, 20, 20)),
    ((2, 96, 96), (4, 192, 144), (1, 8, 6)),
    ((61, 48, 48), (1, 1, 1), (7, 32, 32)),
]


@pytest.mark.parametrize("shapes", SHAPES)
def test_any_slices_and_sizes_are_read(
    exported: tuple[Path, Path], shapes: tuple[tuple[int, int, int], ...]
) -> None:
    """One file accepts any number of slices and any in-plane size, different for each plane."""
    run, file = map(load_model, exported)
    assert_same(run, file, make_exam(*shapes))


@pytest.mark.parametrize("planes", [(Plane.CORONAL,), (Plane.AXIAL, Plane.SAGITTAL)])
def test_missing_series_count_as_in_the_run_folder(
    exported: tuple[Path, Path], planes: tuple[Plane, ...]
) -> None:
    """Present series are scaled by 3 / their number, and missing ones have no maps."""
    run, file = map(load_model, exported)
    assert_same(run, file, make_exam(*[(4, 48, 48)] * len(planes), planes=planes))


def test_other_software_needs_three_inputs_only(exported: tuple[Path, Path]) -> None:
    """ONNX's checker accepts the file; without the input `present`, all planes count as present."""
    run, file = exported
    onnx.checker.check_model(str(file), full_check=True)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    stacks = dict(make_exam((2, 48, 48), (3, 50, 48), (4, 48, 50)).stacks)
    names = ["probabilities", "logits", "slices_coronal", "heat_coronal"]
    found = session.run(names, {str(p): s for p, s in stacks.items()})
    expected = TorchModel(run).explain(Exam("x", stacks))
    np.testing.assert_allclose(found[0], expected.probabilities, rtol=0, atol=LIMIT)
    np.testing.assert_allclose(found[1], expected.logits, rtol=0, atol=LIMIT)
    scores = expected.slice_scores(Plane.CORONAL)
    np.testing.assert_allclose(found[2], scores, rtol=0, atol=LIMIT)
    assert found[3].shape == expected.native[Plane.CORONAL].shape
    assert [output.name for output in session.get_outputs()] == list(outputs_of(MRNET_SERIES))


def test_the_file_names_no_folder_of_the_exporting_machine(exported: tuple[Path, Path]) -> None:
    """Stack traces that torch stores in the graph are removed."""
    content = exported[1].read_bytes()
    assert str(Path(exporting.__file__).parent).encode() not in content
    assert b".py" not in content


def test_predictions_of_a_data_set_agree(exported: tuple[Path, Path], toy: Path) -> None:
    """Ids, findings and calibrated probabilities agree."""
    exams = open_dataset(toy, "train")
    expected, found = (load_model(path).predict(exams) for path in exported)
    assert (found.ids, found.findings) == (expected.ids, expected.findings)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, rtol=0, atol=LIMIT)


def test_the_file_contains_its_description(exported: tuple[Path, Path]) -> None:
    """Findings, preparation, provenance, calibration, operating points and parity are stored."""
    run, file = exported
    predictor, model = TorchModel(run), OnnxModel(file)
    assert model.findings == predictor.findings
    assert model.preparation.to_dict() == predictor.preparation.to_dict()
    assert model.provenance == predictor.provenance
    assert model.decisions.calibration == predictor.decisions.calibration
    assert model.decisions.operating_points == predictor.decisions.operating_points
    made = model.facts["export"]
    saved = json.loads((run / "best" / "model.json").read_text())
    assert made["weights_sha256"] == saved["weights_sha256"]
    assert made["parity"]["slices"] == [1, 2, 17, 61]
    assert 0 <= made["parity"]["logit"] <= made["parity"]["limit"] == LIMIT


def traced(file: Path) -> onnx.ModelProto:
    """Returns the graph of the file as `trace` had returned it."""
    graph = onnx.load(str(file))
    del graph.graph.initializer[[one.name for one in graph.graph.initializer].index("present")]
    return graph


@pytest.mark.parametrize("wrong", [0.01, np.nan])
def test_a_file_with_other_results_is_not_written(
    tmp_path: Path, exported: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, wrong: float
) -> None:
    """A graph with another bias is refused, and the previous file is unchanged."""
    run, file = exported
    out = tmp_path / "out" / "model.onnx"
    out.parent.mkdir()
    out.write_bytes(b"before")
    graph = traced(file)
    bias = next(one for one in graph.graph.initializer if one.name == "network.head.bias")
    values = onnx.numpy_helper.to_array(bias) + np.float32(wrong)
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    monkeypatch.setattr(exporting, "trace", lambda _: graph)
    with pytest.raises(MrkneeError, match=r"was not written|values that are not probabilities"):
        export(run, out)
    assert out.read_bytes() == b"before"
    assert list(out.parent.iterdir()) == [out]


def other_onnx(file: Path) -> bytes:
    """Returns a valid ONNX file of another program."""
    proto = onnx.load(str(file))
    proto.ClearField("metadata_props")
    return bytes(proto.SerializeToString())


def resaved(file: Path) -> bytes:
    """Returns the file as saved again by other software, with its checksum at another place."""
    proto = onnx.load(str(file))
    kept = [entry for entry in proto.metadata_props if entry.key == METADATA]
    proto.ClearField("metadata_props")
    proto.metadata_props.extend(kept)
    return bytes(proto.SerializeToString())


def with_facts(file: Path, **changes: object) -> bytes:
    """Returns the file with changed metadata and a correct checksum."""
    proto = onnx.load(str(file))
    facts = json.loads(next(e.value for e in proto.metadata_props if e.key == METADATA))
    facts.update(changes)
    proto.ClearField("metadata_props")
    text = json.dumps({name: value for name, value in facts.items() if value is not None})
    proto.metadata_props.append(onnx.StringStringEntryProto(key=METADATA, value=text))
    return seal(proto.SerializeToString())


def flipped(file: Path) -> bytes:
    """Returns the file with one bit of a weight changed."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    return bytes(content)


BROKEN: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "text": (lambda _: b"exam,acl\n0001,0.5\n", "no ONNX file"),
    "empty": (lambda _: b"", "no ONNX file"),
    "truncated": (lambda file: file.read_bytes()[:-1000], "no ONNX file, or a damaged one"),
    "one bit": (flipped, "damaged"),
    "another program": (other_onnx, "not one that mrknee wrote"),
    "changed": (resaved, "was changed after its export"),
    "newer": (lambda file: with_facts(file, format=99), "unknown format"),
    "no findings": (lambda file: with_facts(file, findings=None), "'findings'"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_other_files_are_refused(exported: tuple[Path, Path], tmp_path: Path, what: str) -> None:
    """Other, truncated and changed files give one error that states the difference."""
    make, words = BROKEN[what]
    file = tmp_path / "model.onnx"
    file.write_bytes(make(exported[1]))
    with pytest.raises(MrkneeError, match=words) as error:
        load_model(file)
    assert error.value.file == str(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A missing file raises a MrkneeError."""
    with pytest.raises(MrkneeError, match="No such file"):
        load_model(tmp_path / "model.onnx")


def test_threads_are_a_positive_number(exported: tuple[Path, Path]) -> None:
    """The number of threads is at least one and doesn't change the result."""
    exam = make_exam(*[(3, 48, 48)] * 3)
    one, two = (load_model(exported[1], threads=n).explain(exam).logits for n in (1, 2))
    np.testing.assert_allclose(one, two, rtol=0, atol=1e-5)
    with pytest.raises(MrkneeError, match="threads"):
        load_model(exported[1], threads=0)
    before = torch.get_num_threads()
    load_model(exported[0], threads=1)
    assert torch.get_num_threads() == 1
    torch.set_num_threads(before)


def test_parity_as_text() -> None:
    """The text states the compared inputs and the largest differences."""
    text = Parity(4, (1, 61), ((48, 48), (96, 72)), 2e-6, 3e-7, 1e-7).text()
    assert "1, 61 slices" in text
    assert "96 x 72" in text
    assert "logit 2e-06" in text


def test_the_weights_are_the_run_folders(exported: tuple[Path, Path]) -> None:
    """The bias of the head is stored exactly."""
    checkpoint = load_checkpoint(exported[0] / "best")
    assert OnnxModel(exported[1]).facts["bias"] == checkpoint.network.head.bias.tolist()


LOADS_NO_TORCH = """
import json
import sys
from mrknee.cli import main
for words in json.loads(sys.argv[1]):
    status = main(words)
    heavy = {"torch", "onnx", "sklearn"} & set(sys.modules)
    if status or heavy:
        sys.exit(f"{words[0]} ended with {status}, loaded {heavy}")
"""


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_reading_an_exported_model_imports_no_torch(
    exported: tuple[Path, Path], toy: Path, tmp_path: Path, runtime: str
) -> None:
    """In a separate process, each command that reads models succeeds without loading torch.

    Nothing is written to the user's home folder, where libraries with telemetry store an
    identifier.
    """
    model = str(exported[1])
    paths = tmp_path / "paths.csv"
    paths.write_text("".join(f"{toy}/valid/{plane}/0012.npy\n" for plane in PLANES))
    outs = [tmp_path / command for command in ("predicted", "submitted", "explained")]
    commands = [
        ["predict", model, str(toy), "--out", str(outs[0]), "--threads", "1"],
        ["submit", model, str(paths), str(outs[1])],
        ["explain", model, str(toy), "--exam", "0012", "--out", str(outs[2])],
    ]
    given = json.dumps([[*words, "--runtime", runtime] for words in commands])
    home = tmp_path / "home"
    home.mkdir()
    bare = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run(  # noqa: S603  # our own command
        [sys.executable, "-c", LOADS_NO_TORCH, given],
        env={**bare, "HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert all(out.exists() for out in outs)
    assert not list(home.iterdir())


def test_a_submission_is_the_run_folders(
    exported: tuple[Path, Path], toy: Path, tmp_path: Path
) -> None:
    """Run folder and exported file give the same submission."""
    paths = tmp_path / "paths.csv"
    lines = [f"{toy}/valid/{plane}/{i}.npy\n" for i in ("0014", "0012") for plane in PLANES]
    paths.write_text("".join(lines))
    for number, model in enumerate(exported):
        assert submit(model, paths, tmp_path / str(number)) == 2
    first, second = (np.loadtxt(tmp_path / str(n), delimiter=",") for n in (0, 1))
    np.testing.assert_allclose(first, second, rtol=0, atol=LIMIT)


def test_a_report_accepts_an_exported_model(exported: tuple[Path, Path], tmp_path: Path) -> None:
    """`evaluate --model FILE` reads thresholds, provenance and heat maps from the file."""
    data = write_toy_dataset(tmp_path / "toy", 2, 20, slices=(2, 4))
    load_model(exported[1]).predict(open_dataset(data, "valid")).write(tmp_path / "p.csv")
    pages = [gather(str(tmp_path / "p.csv"), data, model=model) for model in exported]
    assert pages[0].model is not None
    assert pages[1].model is not None
    assert pages[1].model.operating_points == pages[0].model.operating_points
    assert pages[1].model.calibration == pages[0].model.calibration
    drawn = [one for group in pages[1].failures.values() for one in group]
    assert drawn
    assert all(one.heat_uri for one in drawn)


def test_quantisation_reduces_the_size_and_reports_its_cost(
    exported: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is smaller, AUCs before and after are reported with n, and maps add up."""
    run, file = exported
    data = write_toy_dataset(tmp_path / "toy", 8, 16, slices=(2, 4))
    monkeypatch.setattr(exporting, "trace", lambda _: traced(file))
    out = tmp_path / "int8.onnx"
    cost = export(run, out, int8=Int8(data, "valid", limit=1.0)).cost
    assert cost is not None
    assert out.stat().st_size < 0.5 * file.stat().st_size
    assert cost.calibrated_on == 8
    text = cost.text()
    for finding in FINDINGS:
        assert f"{finding}: 0." in text
    assert "n = 8 with, 8 without" in text
    model = OnnxModel(out)
    made = model.facts["export"]
    assert made["precision"] == "int8"
    assert made["int8"]["auc"]["acl"]["n_positive"] == 8
    found = model.explain(make_exam(*[(3, 48, 48)] * 3))
    total = found.bias + sum(found.series_sums.values())
    np.testing.assert_allclose(total, found.logits, rtol=0, atol=LIMIT)
    exact = OnnxModel(file).explain(make_exam(*[(3, 48, 48)] * 3))
    assert 0 < np.abs(found.logits - exact.logits).max() < 0.5


@pytest.mark.usefixtures("untraced")
def test_relu6_is_quantised_with_its_convolution(tmp_path: Path) -> None:
    """Otherwise the scale of a convolution covers values that the ReLU6 after it cuts off."""
    settings = NetworkSettings(encoder="tf_efficientnet_lite0", feature_maps=(0,), channels=4)
    run = make_run(tmp_path / "run", settings, PREPARATION)
    data = write_toy_dataset(tmp_path / "toy", 4, 8, slices=(2, 4))
    export(run, tmp_path / "float32.onnx")
    export(run, tmp_path / "int8.onnx", int8=Int8(data, "valid", limit=1.0))

    def rectifiers(name: str) -> int:
        nodes = onnx.load(str(tmp_path / name)).graph.node
        return sum(one.op_type == "Clip" and one.name.startswith(ENCODER) for one in nodes)

    assert rectifiers("float32.onnx") > 0
    assert rectifiers("int8.onnx") == 0  # part of the scales from 0 to 6


def test_quantisation_above_the_limit_is_refused(
    exported: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a limit that every change exceeds, the export is refused and writes no file."""
    run, file = exported
    data = write_toy_dataset(tmp_path / "toy", 4, 8, slices=(2, 4))
    monkeypatch.setattr(exporting, "trace", lambda _: traced(file))
    with pytest.raises(MrkneeError, match="changes this model too much") as error:
        export(run, tmp_path / "int8.onnx", int8=Int8(data, "valid", limit=-1.0))
    assert "n = 4 with, 4 without" in str(error.value)
    assert not (tmp_path / "int8.onnx").exists()


@pytest.mark.parametrize("words", [["--int8"], ["--data", "nowhere"]])
def test_quantisation_needs_exams(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    """`--int8` without `--data`, or the reverse, is refused before anything is read."""
    out = tmp_path / "model.onnx"
    assert main(["export", str(tmp_path / "run"), "--out", str(out), *words]) == 1
    assert "--int8 and --data, or neither" in capsys.readouterr().err
    assert not out.exists()
