"""An exported model: one ONNX file, read without torch.

`onnx_file` reads and checks it, one of `runtimes` computes its graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import numpy as np
from jaxtyping import Float64

from mrknee.errors import ModelError, SettingsError
from mrknee.exams import PLANES, Exam, Exams, Findings, Inspected, as_exams, remarks_of
from mrknee.exams.exam import refuse_no_exam
from mrknee.exams.plausibility import sizes_from
from mrknee.inference.explanation import EXACT, Explanation, Method
from mrknee.inference.model import uncalibrated
from mrknee.inference.onnx_file import read_exported
from mrknee.inference.planes import left_out, only
from mrknee.inference.runtimes import (
    NO_LIMITS,
    PRESENT,
    Limits,
    Outputs,
    RuntimeName,
    open_runtime,
)
from mrknee.networks.description import trained_planes
from mrknee.progress import Progress
from mrknee.scoring.predictions import Predictions
from mrknee.tensors.settings import PreparationSettings, known_settings


def inputs_of(exam: Exam) -> dict[str, np.ndarray]:
    """An exam as the graph takes it; one black pixel stands in for a plane that is missing."""
    nothing = np.zeros((1, 1, 1), dtype=np.uint8)
    stacks = {str(p): np.ascontiguousarray(exam.stacks.get(p, nothing)) for p in PLANES}
    present = np.array([plane in exam.stacks for plane in PLANES], dtype=np.float32)
    return {**stacks, PRESENT: present}


class OnnxModel:
    """A model that `mrknee export` wrote, ready to read exams on the processor.

    Args:
        file: the ONNX file.
        threads: processor threads to compute with; None takes one for each core.
        runtime: what computes the graph; OpenVINO is an extra.
        limits: what computing one exam may take.

    Attributes:
        findings: what it reads, in order.
        planes: the planes it was trained on; an exam's others are left out.
        notes: what whoever uses it should know, as sentences.
        preparation: how a stack becomes input; the graph does it.
        provenance: data, recipe, seed, versions, as training noted them.
        decisions: calibration (which the graph applies) and operating points, in plain form.
        facts: all of the file's own metadata.

    Raises:
        MrkneeError: no such file, no ONNX file, one that mrknee didn't write, or a damaged one;
            or the runtime is not installed or can't compute it.
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
        self.findings = Findings(self.facts["findings"])
        self.planes = trained_planes(self.facts["provenance"])
        self.notes = left_out(self.planes)
        self.preparation = PreparationSettings(**known_settings(self.facts["preparation"]))
        self._runtime = open_runtime(runtime, content, file, threads, limits)
        self._file, self._limits = file, limits
        self.provenance: Mapping[str, Any] = self.facts["provenance"]
        self.decisions: Mapping[str, Any] = self.facts["decisions"]

    def run(self, exam: Exam) -> Outputs:
        """All outputs of the graph by name; planes that are not read have none."""
        refuse_no_exam(exam)
        exam = only(exam, self.planes)
        try:
            found = self._runtime.run(inputs_of(exam))
        except TimeoutError as fault:
            raise ModelError(
                "the exported model takes too long for an exam",
                code="timeout",
                file=self._file,
                exam=exam.id,
                expected=f"at most {self._limits.seconds:g} s",
                found="no result by then",
                advice="read a smaller exam, or use another model",
            ) from fault
        except Exception as fault:  # neither runtime's errors have a class in common
            raise ModelError(
                "the exported model can't read an exam",
                code="runtime-failed",
                file=self._file,
                exam=exam.id,
                expected="a graph that takes any exam, as `mrknee export` writes it",
                found=str(fault).split(" : ")[-1].strip(),
                advice="export it again",
            ) from fault
        given = found["probabilities"]
        if given.shape != (len(self.findings),) or not ((given >= 0) & (given <= 1)).all():
            raise ModelError(
                "the exported model's probabilities are none",
                code="outputs",
                file=self._file,
                exam=exam.id,
                expected=f"{len(self.findings)} numbers from 0 to 1",
                found=str(given),
                advice="export it again",
            )
        absent = tuple(f"_{plane}" for plane in PLANES if plane not in exam.stacks)
        return {n: v for n, v in found.items() if not absent or not n.endswith(absent)}

    def predict(self, exams: Exams | Exam) -> Predictions:
        """Reads exams, one by one.

        Args:
            exams: a Dataset, any other row of exams, or a single exam.

        Returns:
            One calibrated probability an exam and finding, 0 to 1, in the exams' order, with
            remarks on exams that are odd.

        Raises:
            MrkneeError: an exam's files can't be used, or there are no exams.
        """
        ids: list[str] = []
        rows: list[Float64[np.ndarray, " findings"]] = []
        inspected = Inspected(as_exams(exams), sizes_from(self.provenance.get("stack_sizes")))
        with Progress(len(inspected), "reading") as progress:
            for index in range(len(inspected)):
                exam = inspected[index]
                ids.append(exam.id)
                rows.append(self.run(exam)["probabilities"].astype(np.float64))
                progress.advance()
        return Predictions(tuple(ids), self.findings, np.stack(rows), inspected.remarks())

    def explain(self, exam: Exam, *, method: Method | None = None) -> Explanation:
        """Takes the logits of one exam apart; the graph computes it beside the logits.

        Args:
            exam: the exam; planes it lacks are missing from the result.
            method: `exact` or None, which is the same here.

        Raises:
            MrkneeError: Grad-CAM is asked for, which needs gradients.
        """
        if method == "grad-cam":
            raise SettingsError(
                "an exported model has no gradients, so it can't do Grad-CAM",
                code="method",
                expected="the method exact",
                found=method,
                advice="explain with the run folder",
            )
        exam = only(exam, self.planes)
        outputs = self.run(exam)
        return Explanation(
            exam=exam.id,
            findings=tuple(self.findings),
            method=EXACT,
            logits=outputs["logits"].astype(np.float64),
            bias=np.array(self.facts["bias"], dtype=np.float64),
            probabilities=outputs["probabilities"].astype(np.float64),
            native=MappingProxyType({plane: outputs[f"heat_{plane}"] for plane in exam.stacks}),
            shapes=MappingProxyType({p: cast(Any, s.shape) for p, s in exam.stacks.items()}),
            preparation=self.preparation,
            attention_fixed=self.facts["attention_fixed"],
            remarks=remarks_of(exam, sizes_from(self.provenance.get("stack_sizes"))),
            uncalibrated=uncalibrated(self.decisions, self.findings),
            stacks=exam.stacks,
        )
