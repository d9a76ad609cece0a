"""A model in an ONNX file, without torch.

`onnx_file` reads and checks the file; one of the `runtimes` computes its graph.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from jaxtyping import Float64

from mrknee.errors import ModelError
from mrknee.exams import Exam, Exams, SeriesList
from mrknee.inference.ablation import AblatedPrediction, Ablation
from mrknee.inference.model import Contributions, SingleModel
from mrknee.inference.onnx_file import read_exported
from mrknee.inference.runtimes import (
    NO_LIMITS,
    PRESENT,
    Limits,
    Outputs,
    RuntimeName,
    open_runtime,
)
from mrknee.models.description import series_of
from mrknee.progress import Progress
from mrknee.settings import settings_from_model
from mrknee.transforms.settings import PreparationSettings


def inputs_of(exam: Exam, series: SeriesList) -> dict[str, np.ndarray]:
    """Returns the graph's inputs for an exam; missing series are replaced by one black pixel."""
    nothing = np.zeros((1, 1, 1), dtype=np.uint8)
    stacks = {n: np.ascontiguousarray(exam.stacks.get(n, nothing)) for n in series.names}
    present = np.array([name in exam.stacks for name in series.names], dtype=np.float32)
    return {**stacks, PRESENT: present}


class OnnxModel(SingleModel):
    """A model in an ONNX file written by `mrknee export`, computed on the CPU.

    Args:
        file: the ONNX file.
        threads: number of CPU threads; None: one per core.
        runtime: runtime of the graph; OpenVINO is an optional dependency.
        limits: limits of time and memory per exam.

    Attributes:
        facts: the metadata of the file.

    Raises:
        MrkneeError: the file does not exist, is not an ONNX file, was not written by mrknee or is
            damaged; or the runtime is not installed or can't compute the graph.
    """

    def __init__(
        self,
        file: str | Path,
        *,
        threads: int | None = None,
        runtime: RuntimeName = "onnxruntime",
        limits: Limits = NO_LIMITS,
    ) -> None:
        file = Path(file)
        content, self.facts = read_exported(file)
        super().__init__(
            findings=self.facts["findings"],
            series=series_of(self.facts),
            preparation=settings_from_model(PreparationSettings, self.facts["preparation"]),
            provenance=self.facts["provenance"],
            decisions=self.facts["decisions"],
        )
        self._runtime = open_runtime(runtime, content, file, self.series, threads, limits)
        self._file, self._limits = file, limits

    def run(self, exam: Exam) -> Outputs:
        """Returns the outputs of the graph by name, without those of missing series."""
        try:
            found = self._runtime.run(inputs_of(exam, self.series))
        except TimeoutError as fault:
            raise ModelError(
                "the exported model takes too long for an exam",
                code="timeout",
                file=self._file,
                exam=exam.id,
                expected=f"at most {self._limits.seconds:g} s",
                found="no result in this time",
                advice="use a smaller exam or another model",
            ) from fault
        except Exception as fault:  # the errors of the runtimes have no common class
            raise ModelError(
                "the exported model can't compute an exam",
                code="runtime-failed",
                file=self._file,
                exam=exam.id,
                expected="a graph for any exam, as written by `mrknee export`",
                found=str(fault).split(" : ")[-1].strip(),
                advice="export the model again",
            ) from fault
        given = found["probabilities"]
        if given.shape != (len(self.findings),) or not ((given >= 0) & (given <= 1)).all():
            raise ModelError(
                "the exported model returned values that are not probabilities",
                code="outputs",
                file=self._file,
                exam=exam.id,
                expected=f"{len(self.findings)} numbers from 0 to 1",
                found=str(given),
                advice="export the model again",
            )
        absent = [name for name in self.series.names if name not in exam.stacks]
        without = {f"{part}_{name}" for name in absent for part in ("slices", "heat")}
        return {name: value for name, value in found.items() if name not in without}

    def _probabilities(
        self, exams: Exams
    ) -> tuple[tuple[str, ...], Float64[np.ndarray, "exams findings"]]:
        ids: list[str] = []
        rows: list[Float64[np.ndarray, " findings"]] = []
        with Progress(len(exams), "reading") as progress:
            for index in range(len(exams)):
                exam = exams[index]
                ids.append(exam.id)
                rows.append(self.run(exam)["probabilities"].astype(np.float64))
                progress.advance()
        return tuple(ids), np.stack(rows)

    def _ablation(self, exam: Exam) -> Ablation:
        """Keeps the stacks of the exam: the graph has no input for features."""
        return _OnnxAblation(self, exam)

    def _contributions(self, exam: Exam) -> Contributions:
        """Returns the contributions, which the graph computes together with the logits."""
        outputs = self.run(exam)
        return Contributions(
            logits=outputs["logits"].astype(np.float64),
            bias=np.array(self.facts["bias"], dtype=np.float64),
            probabilities=outputs["probabilities"].astype(np.float64),
            native={name: outputs[f"heat_{name}"] for name in exam.stacks},
            attention_fixed=self.facts["attention_fixed"],
        )


class _OnnxAblation(Ablation):
    """An exam that is read again without some slices."""

    def __init__(self, model: OnnxModel, exam: Exam) -> None:
        self._model, self._stacks, self._declared = model, exam.stacks, exam.series
        self.exam = exam.id
        self.counts = {name: len(stack) for name, stack in exam.stacks.items()}
        self.origin = "stacks"
        self.size = sum(stack.nbytes for stack in exam.stacks.values())

    def without(
        self,
        series: Collection[str] = (),
        slices: Mapping[str, Collection[int]] = MappingProxyType({}),
    ) -> AblatedPrediction:
        """Predicts the exam without some series and slices."""
        kept = self.kept_slices(series, slices)
        stacks = {name: self._stacks[name][indices] for name, indices in kept.items()}
        outputs = self._model.run(Exam(self.exam, stacks, series=self._declared))
        return AblatedPrediction(
            outputs["logits"].astype(np.float64), outputs["probabilities"].astype(np.float64)
        )
