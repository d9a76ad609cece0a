"""Runtimes of exported graphs: ONNX Runtime, or OpenVINO as an optional dependency.

Both compute on the CPU, in the number format of the file: float32 or 8 bits. By default OpenVINO
would replace float32 by bfloat16 if the CPU supports it; here this is a separate runtime. The
telemetry of both libraries is switched off.
"""

from __future__ import annotations

import contextlib
import io
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
from jaxtyping import Float32

from mrknee.errors import ModelError, MrkneeError, PlatformError, SettingsError
from mrknee.exams import SeriesList

PRESENT = "present"
"""Last input of the graph, optional: 1 for each series that is present, 0 for the others."""

RuntimeName = Literal["onnxruntime", "openvino", "openvino-bf16"]
"""`openvino-bf16` computes float32 parts of the graph in bfloat16: faster, but less exact."""


def outputs_of(series: SeriesList) -> tuple[str, ...]:
    """Returns the names of a graph's outputs, in order."""
    return (
        "probabilities",
        "logits",
        *(f"slices_{name}" for name in series.names),
        *(f"heat_{name}" for name in series.names),
    )


def needed_of(series: SeriesList) -> set[str]:
    """Returns the names of the outputs needed for predictions and explanations."""
    return {name for name in outputs_of(series) if not name.startswith("slices_")}


Outputs = Mapping[str, Float32[np.ndarray, "..."]]


@dataclass(frozen=True)
class Limits:
    """Limits of the computation of one exam; None: no limit.

    Attributes:
        seconds: wall-clock time. Checked between operators: a running operator is finished.
        memory: memory in bytes, with ONNX Runtime only; OpenVINO has no such limit. It applies to
            the complete process, from the first model opened with a limit.
    """

    seconds: float | None = None
    memory: int | None = None


NO_LIMITS = Limits()


@runtime_checkable
class Runtime(Protocol):
    """A graph that is ready to be computed."""

    def run(self, inputs: Mapping[str, np.ndarray]) -> Outputs:
        """Returns all outputs by name; `inputs` are one stack per series, and `present`.

        Raises:
            TimeoutError: the computation exceeds the time limit.
        """


def open_runtime(
    name: RuntimeName,
    model: bytes,
    file: Path,
    series: SeriesList,
    threads: int | None,
    limits: Limits = NO_LIMITS,
) -> Runtime:
    """Opens the graph of an exported file.

    Args:
        name: the runtime.
        model: content of the file.
        file: path of the file, for error messages.
        series: the series of the model.
        threads: number of CPU threads; None: one per core.
        limits: limits of time and memory per exam.

    Raises:
        MrkneeError: there is no such runtime, the library is not installed, or it can't compute
            the graph.
    """
    if name not in get_args(RuntimeName):
        raise SettingsError(
            "there is no such runtime",
            code="runtime",
            expected=", ".join(get_args(RuntimeName)),
            found=repr(name),
        )
    library = name.removesuffix("-bf16")
    try:
        if library == "openvino":
            return OpenVino(model, series, threads, limits, bfloat16=library != name)
        return OnnxRuntime(model, series, threads, limits)
    except MrkneeError:
        raise
    except Exception as fault:  # the errors of the libraries have no common class
        raise ModelError(
            f"{library} can't compute this model",
            code="runtime-failed",
            file=file,
            expected=f"inputs {', '.join(series.names)} of uint8, outputs "
            f"{', '.join(sorted(needed_of(series)))}, "
            "and operators supported by the installed version",
            found=" ".join(str(fault).split())[:400],
            advice=f"pip install --upgrade {library}, or export the model again",
        ) from fault


class OnnxRuntime:
    """A graph in ONNX Runtime."""

    def __init__(
        self, model: bytes, series: SeriesList, threads: int | None, limits: Limits
    ) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # errors are raised as exceptions
        # otherwise the format is guessed from the content of the file
        options.add_session_config_entry("session.load_model_format", "ONNX")
        if threads is not None:
            options.intra_op_num_threads = threads
        if limits.memory is not None:
            options.add_session_config_entry("session.use_env_allocators", "1")
            _limit_memory(limits.memory)
        self._session: Any = onnxruntime.InferenceSession(
            model,
            options,
            providers=["CPUExecutionProvider"],
            enable_fallback=0,  # would print the error and try again
        )
        inputs = {one.name: one.type for one in self._session.get_inputs()}
        outputs = {one.name for one in self._session.get_outputs()}
        if inputs != dict.fromkeys(series.names, "tensor(uint8)") or not outputs >= needed_of(
            series
        ):
            raise ValueError(f"inputs {inputs}, outputs {', '.join(sorted(outputs))}")
        self._names = [output.name for output in self._session.get_outputs()]
        self._new_options, self._seconds = onnxruntime.RunOptions, limits.seconds

    def run(self, inputs: Mapping[str, np.ndarray]) -> Outputs:
        """Returns all outputs by name."""
        options = self._new_options()
        stop = threading.Timer(self._seconds or 0, setattr, (options, "terminate", True))
        if self._seconds is not None:
            stop.start()
        try:
            found = self._session.run(None, dict(inputs), options)
        except Exception as fault:
            if options.terminate:
                raise TimeoutError from fault
            raise
        finally:
            stop.cancel()
        return {name: np.asarray(value) for name, value in zip(self._names, found, strict=True)}


def _limit_memory(memory: int) -> None:
    """Registers a memory pool of limited size, shared by the sessions that request it."""
    import onnxruntime as ort

    kind = ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    pool = ort.OrtMemoryInfo("Cpu", kind, 0, ort.OrtMemType.DEFAULT)
    # 1: grow by the requested size, not by powers of two; -1: default values
    sizes = {"max_mem": memory, "arena_extend_strategy": 1}
    others = dict.fromkeys(("initial_chunk_size_bytes", "max_dead_bytes_per_chunk"), -1)
    ort.create_and_register_allocator(pool, ort.OrtArenaCfg({**sizes, **others}))


class OpenVino:
    """A graph in OpenVINO, compiled once for any number of slices."""

    def __init__(
        self,
        model: bytes,
        series: SeriesList,
        threads: int | None,
        limits: Limits,
        *,
        bfloat16: bool = False,
    ) -> None:
        core, onnx = _openvino()
        if bfloat16 and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise PlatformError(
                "this processor does not support bfloat16",
                code="no-bfloat16",
                expected="a processor with AVX-512 BF16 or AMX",
                advice="use the runtime openvino",
            )
        graph = onnx.convert(onnx.load(io.BytesIO(model)))
        _open_present(graph)
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32",
            "PERFORMANCE_HINT": "LATENCY",
        }
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = str(threads)
        self._request: Any = core.compile_model(graph, "CPU", settings).create_infer_request()
        self._seconds = limits.seconds
        self._outputs = set(outputs_of(series))

    def run(self, inputs: Mapping[str, np.ndarray]) -> Outputs:
        """Returns all outputs by name."""
        if self._seconds is None:
            found = self._request.infer(dict(inputs))
        else:
            found = self._run_within(inputs, self._seconds)
        # a tensor may have several names
        return {
            name: value
            for output, value in found.items()
            for name in output.get_names() & self._outputs
        }

    def _run_within(self, inputs: Mapping[str, np.ndarray], seconds: float) -> dict[Any, Any]:
        self._request.start_async(dict(inputs))
        if not self._request.wait_for(round(1000 * seconds)):
            self._request.cancel()
            with contextlib.suppress(RuntimeError):  # raised because of the cancellation
                self._request.wait()
            raise TimeoutError
        return {
            one: self._request.get_tensor(one).data.copy() for one in self._request.model_outputs
        }


@cache
def _core(openvino: Any) -> Any:  # noqa: ANN401  # OpenVINO's
    """OpenVINO's core: one per process, which is never released.

    Each core (OpenVINO 2026.4) sets an alternate stack for signals and, when it is released,
    restores the one that it found. Of two cores, the second may so restore the freed stack of the
    first, and the next signal with a Python handler, such as Ctrl-C, is a segmentation fault.
    """
    return openvino.Core()


def _openvino() -> tuple[Any, Any]:
    """Imports OpenVINO without its telemetry; returns its core and its reader of ONNX files.

    The reader is selected by name, because OpenVINO would choose one by the content of the file. If
    `openvino_telemetry` can't be imported, OpenVINO uses a replacement that does nothing.
    """
    name = "openvino_telemetry"
    blocked = name not in sys.modules
    if blocked:
        sys.modules[name] = None  # type: ignore[assignment]  # makes the import fail
    try:
        import openvino
        from openvino.frontend import FrontEndManager

        reader = FrontEndManager().load_by_framework("onnx")
    except ModuleNotFoundError as missing:
        raise PlatformError(
            "OpenVINO is not installed",
            code="not-installed",
            expected="the package openvino",
            found=str(missing),
            advice="pip install 'mrknee[openvino]', or use ONNX Runtime",
        ) from None
    finally:
        if blocked:
            del sys.modules[name]
    return _core(openvino), reader


def _open_present(graph: Any) -> None:  # noqa: ANN401  # OpenVINO's model
    """Makes `present` an input again: OpenVINO converts inputs with a default to constants."""
    from openvino import opset13

    default = next(node for node in graph.get_ops() if node.get_friendly_name() == PRESENT)
    given = opset13.parameter(default.shape, np.float32, name=PRESENT)
    given.output(0).get_tensor().set_names({PRESENT})
    for place in default.output(0).get_target_inputs():
        place.replace_source_output(given.output(0))
    graph.add_parameters([given])
    graph.validate_nodes_and_infer_types()
