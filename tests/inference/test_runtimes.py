"""Runtimes of exported files give the same results."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from mrknee.cli import main
from mrknee.errors import MrkneeError, SettingsError
from mrknee.exams import MRNET_SERIES, PLANES, Dataset, Exam, Plane, open_dataset
from mrknee.export import onnx as exporting
from mrknee.export.onnx import Int8, export
from mrknee.inference.model import load_model
from mrknee.inference.onnx_file import seal
from mrknee.inference.onnx_model import OnnxModel, inputs_of
from mrknee.inference.runtimes import Limits, OpenVino, RuntimeName, open_runtime
from tests.conftest import write_toy_dataset
from tests.export.test_onnx import flipped, make_exam, traced
from tests.hostile.exported import finished, graph

pytestmark = pytest.mark.slow

RUNTIMES: tuple[RuntimeName, ...] = ("onnxruntime", "openvino")

Files = tuple[Path, Path, Path]


@pytest.fixture(scope="module")
def files(
    tmp_path_factory: pytest.TempPathFactory,
    untraced: None,  # noqa: ARG001
    exported_once: tuple[Path, Path],
) -> Files:
    """A run folder, the exported file, and the exported 8-bit file."""
    folder = tmp_path_factory.mktemp("files")
    data = write_toy_dataset(folder / "toy", 8, 8, slices=(2, 4))
    run, float32 = exported_once
    int8 = folder / "int8.onnx"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "trace", lambda _: traced(float32))
        export(run, int8, int8=Int8(data, "valid", limit=1.0))
    return run, float32, int8


SHAPES = [
    *([(count, 48, 48)] * 3 for count in (1, 2, 17, 61)),
    [(3, 48, 40), (2, 33, 47), (5, 20, 20)],
    [(2, 96, 96), (4, 192, 144), (1, 8, 6)],
]


def both(file: Path, exam: Exam) -> list[dict[str, np.ndarray]]:
    """Returns the outputs of ONNX Runtime and of OpenVINO."""
    return [dict(OnnxModel(file, runtime=name).run(exam)) for name in RUNTIMES]


def test_openvino_equals_onnx_runtime(files: Files) -> None:
    """For all slice counts and sizes, every output is equal to 1e-5."""
    models = [OnnxModel(files[1], runtime=name) for name in RUNTIMES]
    for shapes in SHAPES:
        expected, found = (model.run(make_exam(*shapes)) for model in models)
        assert list(found) == list(expected)
        for name, values in expected.items():
            assert found[name].dtype == values.dtype
            np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("planes", [(Plane.CORONAL,), (Plane.AXIAL, Plane.SAGITTAL)])
def test_missing_series_have_the_same_effect(files: Files, planes: tuple[Plane, ...]) -> None:
    """`present` is an input in OpenVINO too, which would make it a constant."""
    expected, found = both(files[1], make_exam(*[(4, 48, 48)] * len(planes), planes=planes))
    assert list(found) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-5, err_msg=name)
    whole, _ = both(files[1], make_exam(*[(4, 48, 48)] * 3))
    assert np.abs(whole["logits"] - found["logits"]).max() > 1e-3


def test_eight_bit_results_are_similar(files: Files) -> None:
    """The runtimes differ by less than a tenth of the effect of quantisation (rounding of ties)."""
    exam = make_exam(*[(9, 48, 48)] * 3)
    expected, found = (out["logits"] for out in both(files[2], exam))
    float32 = OnnxModel(files[1]).run(exam)["logits"]
    change = np.abs(expected - float32).max()
    assert np.abs(found - expected).max() < 0.1 * change


def test_openvino_uses_float32_and_the_given_threads(files: Files) -> None:
    """OpenVINO does not use bfloat16, which is its default on CPUs that support it."""
    runtime = open_runtime("openvino", files[1].read_bytes(), files[1], MRNET_SERIES, 1)
    compiled = cast(OpenVino, runtime)._request.get_compiled_model()
    assert compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1


@pytest.mark.parametrize("name", ["OpenVINO", "onnxruntime-bf16"])
def test_an_unknown_runtime_is_refused(files: Files, name: str) -> None:
    """The error lists those that there are."""
    with pytest.raises(SettingsError) as raised:
        load_model(files[1], runtime=name)  # type: ignore[arg-type]
    assert raised.value.expected == "onnxruntime, openvino, openvino-bf16"


def test_bfloat16_is_a_separate_runtime(files: Files) -> None:
    """`openvino-bf16` gives less exact logits, or an error if the CPU does not support it."""
    exam = make_exam(*[(9, 48, 48)] * 3)
    exact = load_model(files[1]).explain(exam)
    try:
        model = load_model(files[1], runtime="openvino-bf16")
    except MrkneeError as error:
        assert "not support bfloat16" in str(error)  # noqa: PT017  # depends on the processor
        return
    rounded = model.explain(exam)
    assert 1e-5 < np.abs(rounded.logits - exact.logits).max() < 0.05 * np.abs(exact.logits).max()


def test_results_are_not_overwritten_by_the_next_exam(files: Files) -> None:
    """Outputs are not in memory that the runtime reuses."""
    for name in RUNTIMES:
        model = OnnxModel(files[1], runtime=name)
        first = model.run(make_exam(*[(5, 48, 48)] * 3))
        before = {output: values.copy() for output, values in first.items()}
        model.run(Exam("black", {p: np.zeros((5, 48, 48), np.uint8) for p in PLANES}))
        for output, values in before.items():
            np.testing.assert_array_equal(first[output], values)


def test_predict_with_openvino(files: Files, toy: Path, tmp_path: Path) -> None:
    """`predict --runtime openvino` gives the ids and probabilities of ONNX Runtime."""
    out = tmp_path / "p.csv"
    words = ["predict", str(files[1]), str(toy), "--split", "train", "--out", str(out)]
    assert main([*words, "--runtime", "openvino"]) == 0
    exams: Dataset = open_dataset(toy, "train")
    expected = load_model(files[1]).predict(exams)
    found = type(expected).read(out)
    assert found.ids == expected.ids
    np.testing.assert_allclose(found.probabilities, expected.probabilities, rtol=0, atol=1e-5)


def test_a_damaged_file_is_refused_before_it_is_computed(files: Files, tmp_path: Path) -> None:
    """Both runtimes check the file's checksum."""
    file = tmp_path / "model.onnx"
    file.write_bytes(flipped(files[1]))
    for name in RUNTIMES:
        with pytest.raises(MrkneeError, match="damaged"):
            load_model(file, runtime=name)


@pytest.mark.parametrize("name", RUNTIMES)
def test_an_unsupported_operator_is_reported(
    files: Files, tmp_path: Path, name: RuntimeName
) -> None:
    """A graph with an unknown operator is one error that names the runtime."""
    graph = traced(files[1])
    graph.graph.node[0].op_type = "OfTomorrow"
    file = tmp_path / "model.onnx"
    with pytest.raises(MrkneeError, match="can't compute this model") as error:
        open_runtime(name, seal(graph.SerializeToString()), file, MRNET_SERIES, None)
    assert name in str(error.value)
    assert "OfTomorrow" in str(error.value)


def slow_graph(operators: int) -> bytes:
    """Returns a graph of matrix products, which takes long without a loop."""
    sizes = numpy_helper.from_array(np.array([1500, 1500]), "sizes")
    nodes = [
        helper.make_node("Cast", ["axial"], ["grey"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["grey"], ["one"], keepdims=0),
        helper.make_node("ReduceMax", ["present"], ["there"], keepdims=0),
        helper.make_node("Mul", ["one", "there"], ["sum"]),
        helper.make_node("Expand", ["sum", "sizes"], ["m0"]),
    ]
    nodes += [
        helper.make_node("MatMul", [f"m{i}", f"m{i}"], [f"m{i + 1}"]) for i in range(operators)
    ]
    nodes.append(helper.make_node("ReduceSum", [f"m{operators}"], ["slow"], keepdims=0))
    return graph(nodes, [sizes], logits="slow")


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_computation_above_the_time_limit_is_stopped(name: RuntimeName) -> None:
    """A computation is stopped between operators, and the next one works."""
    inputs = inputs_of(make_exam((1, 4, 4), (1, 4, 4), (1, 4, 4)), MRNET_SERIES)
    if name == "openvino":  # has no inputs that the graph does not use
        inputs = {"axial": inputs["axial"], "present": inputs["present"]}
    for seconds, operators in ((0.2, 200), (60, 1)):
        file = Path("slow.onnx")
        runtime = open_runtime(
            name, slow_graph(operators), file, MRNET_SERIES, 1, Limits(seconds=seconds)
        )
        if operators == 1:
            expected = 1500**3 * float(inputs["axial"].sum()) ** 2
            assert runtime.run(inputs)["logits"] == pytest.approx(
                expected, rel=1e-2
            )  # sums in float32
            continue
        for _ in range(2):
            with pytest.raises(TimeoutError):
                runtime.run(inputs)


def test_the_error_of_the_time_limit(tmp_path: Path) -> None:
    """The error names the file, the exam and the limit."""
    file = tmp_path / "slow.onnx"
    file.write_bytes(finished(slow_graph(200)))
    model = OnnxModel(file, threads=1, limits=Limits(seconds=0.2))
    with pytest.raises(MrkneeError, match="takes too long") as caught:
        model.predict([make_exam((1, 4, 4), (1, 4, 4), (1, 4, 4))])
    assert caught.value.file == str(file)
    assert "0.2 s" in (caught.value.expected or "")


def test_a_graph_above_the_memory_limit_is_stopped(tmp_path: Path) -> None:
    """ONNX Runtime does not allocate 3 GB with a limit of 1 GB; smaller graphs are computed."""
    sizes = numpy_helper.from_array(np.array([30_000, 25_000]), "sizes")
    nodes = [
        helper.make_node("Cast", ["axial"], ["grey"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["grey"], ["one"], keepdims=0),
        helper.make_node("Expand", ["one", "sizes"], ["large"]),
        helper.make_node("ReduceMax", ["large"], ["much"], keepdims=0),
    ]
    exam = make_exam((1, 4, 4), (1, 4, 4), (1, 4, 4))
    file, limits = tmp_path / "large.onnx", Limits(memory=2**30)
    file.write_bytes(finished(graph(nodes, [sizes], logits="much")))
    with pytest.raises(MrkneeError, match="can't compute an exam") as caught:
        OnnxModel(file, limits=limits).run(exam)
    assert "memory" in (caught.value.found or "").lower()
    file.write_bytes(finished(graph()))
    assert OnnxModel(file, limits=limits).predict([exam]).probabilities == 0.5


SIGNAL = """
import gc, signal, sys
from mrknee.inference.model import load_model

signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
first, second = (load_model(sys.argv[1], runtime="openvino") for _ in range(2))
del first
gc.collect()
del second
gc.collect()
signal.raise_signal(signal.SIGUSR1)
"""


def test_signals_are_handled_after_openvino_models_are_released(files: Files) -> None:
    """After two models are released in the order of opening, a signal's handler still runs."""
    command = [sys.executable, "-c", SIGNAL, str(files[1])]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    assert (ended.returncode, ended.stdout) == (0, "handled\n"), ended.stderr


def test_without_openvino_the_error_states_how_to_install_it(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the package to install, and ONNX Runtime still works."""
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MrkneeError, match=r"mrknee\[openvino\]"):
        load_model(files[1], runtime="openvino")
    load_model(files[1])


def test_a_runtime_for_a_run_folder_is_refused(files: Files) -> None:
    """A run folder is always computed by torch, so a given runtime is refused."""
    with pytest.raises(MrkneeError, match="computed by torch"):
        load_model(files[0], runtime="openvino")
