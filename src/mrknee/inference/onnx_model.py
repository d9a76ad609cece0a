"""An exported model: one ONNX file, read with ONNX Runtime, without torch.

The file is what `export` writes: the graph, and in its metadata under `mrknee`, as JSON, what a
run folder's model.json says. Behind the graph lies a seal, the sha256 of all that comes before it,
as one more entry of the metadata (an ONNX file is a protobuf message, and messages written one
behind the other are one message): a damaged file is refused, and other software ignores the seal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import onnxruntime
from jaxtyping import Float32, Float64

from mrknee.errors import MrkneeError
from mrknee.exams import PLANES, Exam, Exams, Findings
from mrknee.inference.explanation import EXACT, Explanation, Method
from mrknee.inference.onnx_metadata import read_metadata
from mrknee.progress import Progress
from mrknee.scoring.predictions import Predictions
from mrknee.tensors.settings import PreparationSettings, known_settings
from mrknee.untrusted import DESCRIPTION_BYTES, parse_json, read_bytes

FORMAT = 1
"""Version of the inputs, outputs and metadata that this file reads and `export` writes."""

METADATA = "mrknee"
"""The key of our JSON in the file's metadata."""

SEAL = "mrknee_sha256"
"""The key of the seal in the file's metadata."""

PRESENT = "present"
"""The graph's fourth input, which may be left out: 1 for each plane that is there, else 0."""

_MAX_BYTES = 2**31 - 1  # of a protobuf message
_DIGITS = hashlib.sha256().digest_size * 2
# field 14 of ModelProto, metadata_props, holding field 1, the key, and field 2, the value
_SEAL_HEAD = (
    bytes([14 << 3 | 2, 4 + len(SEAL) + _DIGITS, 1 << 3 | 2, len(SEAL)])
    + SEAL.encode()
    + bytes([2 << 3 | 2, _DIGITS])
)

_KINDS = {
    "findings": list,
    "preparation": dict,
    "provenance": dict,
    "decisions": dict,
    "bias": list,
    "attention_fixed": bool,
}

Outputs = Mapping[str, Float32[np.ndarray, "..."]]


def seal(graph: bytes) -> bytes:
    """The file's bytes with the seal behind them."""
    return graph + _SEAL_HEAD + hashlib.sha256(graph).hexdigest().encode()


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
        threads: processor threads to compute with; None leaves it to ONNX Runtime, which takes
            one for each core.

    Attributes:
        findings: what it reads, in order.
        preparation: how a stack becomes input; the graph does it.
        provenance: data, recipe, seed, versions, as training noted them.
        decisions: calibration (which the graph applies) and operating points, in plain form.
        facts: all of the file's own metadata.

    Raises:
        MrkneeError: no such file, no ONNX file, one that mrknee didn't write, or a damaged one.
    """

    def __init__(self, file: Path, *, threads: int | None = None) -> None:
        content = _sound(file)
        self.facts = _facts(_metadata(content, file), file)
        self.findings = Findings(self.facts["findings"])
        self.preparation = PreparationSettings(**known_settings(self.facts["preparation"]))
        self._session = _open(content, file, threads)
        self._file = file
        self.provenance: Mapping[str, Any] = self.facts["provenance"]
        self.decisions: Mapping[str, Any] = self.facts["decisions"]

    def run(self, exam: Exam) -> Outputs:
        """All outputs of the graph by name; planes that the exam lacks have none."""
        names = [output.name for output in self._session.get_outputs()]
        try:
            values = self._session.run(None, inputs_of(exam))
        except Exception as fault:  # ONNX Runtime's errors have no class in common
            raise MrkneeError(
                "the exported model can't read an exam",
                file=self._file,
                exam=exam.id,
                expected="a graph that takes any exam, as `mrknee export` writes it",
                found=str(fault).split(" : ")[-1].strip(),
                advice="export it again",
            ) from fault
        found = dict(zip(names, values, strict=True))
        given = np.asarray(found["probabilities"])
        if given.shape != (len(self.findings),) or not ((given >= 0) & (given <= 1)).all():
            raise MrkneeError(
                "the exported model's probabilities are none",
                file=self._file,
                exam=exam.id,
                expected=f"{len(self.findings)} numbers from 0 to 1",
                found=str(given),
                advice="export it again",
            )
        absent = tuple(f"_{plane}" for plane in PLANES if plane not in exam.stacks)
        return {n: np.asarray(v) for n, v in found.items() if not absent or not n.endswith(absent)}

    def predict(self, exams: Exams) -> Predictions:
        """Reads exams, one by one.

        Args:
            exams: an ExamFolder, or any other row of exams.

        Returns:
            One calibrated probability an exam and finding, 0 to 1, in the exams' order.

        Raises:
            MrkneeError: an exam's files can't be used.
        """
        ids: list[str] = []
        rows: list[Float64[np.ndarray, " findings"]] = []
        with Progress(len(exams), "reading") as progress:
            for index in range(len(exams)):
                exam = exams[index]
                ids.append(exam.id)
                rows.append(self.run(exam)["probabilities"].astype(np.float64))
                progress.advance()
        return Predictions(tuple(ids), self.findings, np.stack(rows))

    def explain(self, exam: Exam, *, method: Method | None = None) -> Explanation:
        """Takes the logits of one exam apart; the graph computes it beside the logits.

        Args:
            exam: the exam; planes it lacks are missing from the result.
            method: `exact` or None, which is the same here.

        Raises:
            MrkneeError: Grad-CAM is asked for, which needs gradients.
        """
        if method == "grad-cam":
            raise MrkneeError(
                "an exported model has no gradients, so it can't do Grad-CAM",
                expected="the method exact",
                found=method,
                advice="explain with the run folder",
            )
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
        )


def _sound(file: Path) -> bytes:
    """The file's bytes; one whose seal is there and doesn't fit is refused."""
    content = read_bytes(file, "model", at_most=_MAX_BYTES)
    graph, given = content[: -len(_SEAL_HEAD) - _DIGITS], content[-_DIGITS:]
    if content[len(graph) : -_DIGITS] != _SEAL_HEAD:
        _refuse_unsealed(content, file)
    if hashlib.sha256(graph).hexdigest().encode() != given:
        raise MrkneeError(
            "the model is damaged, or was changed after its export",
            file=file,
            expected=f"sha256 {given.decode(errors='replace')}",
            found=f"sha256 {hashlib.sha256(graph).hexdigest()}",
            advice="copy it again, or export it again",
        )
    return content


def _refuse_unsealed(content: bytes, file: Path) -> None:
    """Says which it is: another's ONNX file, one of ours that was changed, or no ONNX file."""
    metadata = _metadata(content, file)
    if METADATA in metadata:
        raise MrkneeError(
            "the model was changed after its export",
            file=file,
            expected="the file as `mrknee export` wrote it",
            found="mrknee's metadata without its seal",
            advice="export it again",
        )
    raise MrkneeError(
        "this ONNX file is not one that mrknee wrote",
        file=file,
        expected="a file from `mrknee export`",
        found="metadata: " + (", ".join(metadata) or "none"),
    )


def _metadata(content: bytes, file: Path) -> dict[str, str]:
    try:
        return read_metadata(content)
    except ValueError as fault:
        raise _no_onnx(file, str(fault)) from None


def _no_onnx(file: Path, found: str) -> MrkneeError:
    return MrkneeError(
        "this is no ONNX file, or a damaged one",
        file=file,
        expected="a run folder, or an ONNX file that `mrknee export` wrote",
        found=found,
        advice="copy it again, or export it again",
    )


def _open(content: bytes, file: Path, threads: int | None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what is wrong is told in one message, below
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as fault:  # ONNX Runtime's errors have no class in common
        found = str(fault).split(" : ")[-1].strip() or f"{len(content)} bytes"
        raise _no_onnx(file, found) from fault
    found_inputs = {one.name: one.type for one in session.get_inputs()}
    found_outputs = {one.name for one in session.get_outputs()}
    wanted = {"logits", "probabilities", *(f"heat_{plane}" for plane in PLANES)}
    if found_inputs != dict.fromkeys(PLANES, "tensor(uint8)") or not wanted <= found_outputs:
        raise MrkneeError(
            "the exported model's graph is another one",
            file=file,
            expected=f"inputs {', '.join(PLANES)} of uint8, outputs {', '.join(sorted(wanted))}",
            found=f"inputs {found_inputs}, outputs {', '.join(sorted(found_outputs))}",
            advice="export it again",
        )
    return session


def _facts(metadata: Mapping[str, str], file: Path) -> dict[str, Any]:
    """What the file's metadata says, its parts of the right types."""
    text = metadata.get(METADATA, "{}")
    if len(text) > DESCRIPTION_BYTES:
        raise MrkneeError(
            "the exported model's metadata are too large",
            file=file,
            expected=f"at most {DESCRIPTION_BYTES:,} characters",
            found=f"{len(text):,}",
        )
    facts = parse_json(text, file, "exported model's metadata")
    version = facts.get("format") if isinstance(facts, dict) else None
    if version != FORMAT:
        raise MrkneeError(
            "the exported model has an unknown format",
            file=file,
            expected=f"format {FORMAT}",
            found=f"format {version}",
            advice="use the version of mrknee that exported it, or export it again",
        )
    for name, kind in _KINDS.items():
        if not isinstance(facts.get(name), kind):
            raise MrkneeError(
                "the exported model's metadata lacks a part",
                file=file,
                expected=f"{name!r} as a {kind.__name__}",
                found=repr(facts.get(name, "nothing")),
                advice="export it again",
            )
    findings, bias = Findings(facts["findings"]), facts["bias"]
    if list(findings) != facts["findings"] or [*map(type, bias)] != [float] * len(findings):
        raise MrkneeError(
            "the exported model's metadata contradicts itself",
            file=file,
            expected=f"findings in the order {', '.join(findings)}, and a bias for each",
            found=f"{facts['findings']}, {bias}",
            advice="export it again",
        )
    return dict(facts)
