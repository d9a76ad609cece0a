"""Several trained models that read exams as one; importing this file imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NoReturn

import numpy as np

from mrknee.errors import ModelError, SettingsError
from mrknee.exams import Exam, Exams, Findings, Plane, Remark, as_exams
from mrknee.inference.explanation import EXACT, Explanation, Method
from mrknee.inference.model import Model
from mrknee.scoring.predictions import Predictions
from mrknee.tensors.settings import PreparationSettings


class Ensemble:
    """Several models of the same findings; each probability is the mean of the members'.

    The mean is taken of the calibrated probabilities. It is not calibrated again, and has no
    operating points: both would have to be fitted on exams that no member was trained on.

    Args:
        members: two models or more.
        names: their names, for messages; one per member.

    Attributes:
        members: the models.
        findings: what all of them read, in order.
        planes: the planes that any of them was trained on. Each member leaves out the others of
            an exam by itself.
        notes: those of the members, each once.
        preparation: the first member's.
        provenance: what the members' provenance agrees on, and `members`: each one's own.
        decisions: `members`: each one's own, in plain form.

    Raises:
        ModelError: there are fewer than two, or their findings differ.
    """

    def __init__(self, members: Sequence[Model], names: Sequence[str]) -> None:
        self.members, self._names = tuple(members), tuple(names)
        if len(self.members) < 2:
            raise ModelError(
                "this is no ensemble",
                code="ensemble",
                expected="two models or more",
                found=", ".join(names) or "none",
            )
        for name, member in zip(self._names, self.members, strict=True):
            if member.findings != self.members[0].findings:
                self._refuse_findings(name, member)
        self.findings: Findings = self.members[0].findings
        self.planes: tuple[Plane, ...] = tuple(
            plane for plane in Plane if any(plane in member.planes for member in self.members)
        )
        self.notes = tuple(dict.fromkeys(n for member in self.members for n in member.notes))
        self.preparation: PreparationSettings = self.members[0].preparation
        self.provenance: Mapping[str, Any] = {
            **_agreed([member.provenance for member in self.members]),
            "members": [dict(member.provenance) for member in self.members],
        }
        self.decisions: Mapping[str, Any] = {
            "members": [dict(member.decisions) for member in self.members]
        }

    def _refuse_findings(self, name: str, member: Model) -> NoReturn:
        first = self.members[0].findings
        lacking = [finding for finding in first if finding not in member.findings]
        more = [finding for finding in member.findings if finding not in first]
        differences = [
            f"{name} {verb} {', '.join(which)}"
            for verb, which in (("lacks", lacking), ("also has", more))
            if which
        ]
        raise ModelError(
            "models of different findings are no ensemble",
            code="ensemble",
            file=name,
            expected=f"{', '.join(first)}, as {self._names[0]} has",
            found="; ".join(differences) or f"another order: {', '.join(member.findings)}",
            advice="predict with each model by itself; evaluate and compare take several tables, "
            "with commas between, as one model",
        )

    def predict(self, exams: Exams | Exam) -> Predictions:
        """Reads exams with every member.

        Args:
            exams: a Dataset, any other row of exams, or a single exam; read once per member.

        Returns:
            The mean of the members' calibrated probabilities per exam and finding, 0 to 1, in the
            exams' order, with the remarks of all of them.

        Raises:
            MrkneeError: an exam's files can't be used, or there are no exams.
        """
        row = as_exams(exams)
        tables = [member.predict(row) for member in self.members]
        probabilities = np.mean([table.probabilities for table in tables], axis=0)
        remarks = {
            exam_id: found
            for exam_id in tables[0].ids
            if (found := _each_once(table.remarks.get(exam_id, ()) for table in tables))
        }
        return Predictions(tables[0].ids, self.findings, probabilities, remarks)

    def explain(self, exam: Exam, *, method: Method | None = None) -> Explanation:
        """The mean of the members' logits, taken apart: the mean of their contributions.

        A member that was not trained on a plane contributes 0 there. The probabilities are the
        means of the members' calibrated ones, as `predict` gives them.

        Args:
            exam: the exam.
            method: `exact` or None, which is the same here.

        Raises:
            SettingsError: Grad-CAM is asked for, whose scale differs from model to model.
            ModelError: a member's logits can't be taken apart exactly, or the members' maps have
                different sizes.
        """
        if method == "grad-cam":
            raise SettingsError(
                "an ensemble can't do Grad-CAM: the members' maps have no common unit",
                code="method",
                expected="the method exact",
                found=method,
                advice="explain with each model by itself",
            )
        parts = [member.explain(exam, method=method) for member in self.members]
        for name, part in zip(self._names, parts, strict=True):
            if part.method != EXACT:
                self._refuse_maps(exam, "exact explanations of all", f"{part.method} of {name}")
        frames = [(part.preparation.size, part.preparation.crop) for part in parts]
        if len(set(frames)) > 1:
            sizes = [f"{size} and {crop}" for size, crop in frames]
            self._refuse_maps(exam, "one size and crop of all", self._listed(sizes))
        planes = [plane for plane in Plane if any(plane in part.native for part in parts)]
        native, shapes = {}, {}
        for plane in planes:
            having = [part for part in parts if plane in part.native]
            cells = [part.native[plane].shape[2:] for part in having]
            if len(set(cells)) > 1:
                found = self._listed([f"{rows} x {cols}" for rows, cols in cells])
                self._refuse_maps(exam, "maps of one size", f"{plane}: {found}")
            total = sum(part.native[plane].astype(np.float64) for part in having)
            native[plane] = np.asarray(total / len(parts), dtype=np.float32)
            shapes[plane] = having[0].shapes[plane]
        reasons = [part.uncalibrated for part in parts]
        return replace(
            parts[0],
            logits=np.mean([part.logits for part in parts], axis=0),
            bias=np.mean([part.bias for part in parts], axis=0),
            probabilities=np.mean([part.probabilities for part in parts], axis=0),
            native=MappingProxyType(native),
            shapes=MappingProxyType(shapes),
            stacks=MappingProxyType({plane: exam.stacks[plane] for plane in planes}),
            attention_fixed=any(part.attention_fixed for part in parts),
            remarks=_each_once(part.remarks for part in parts),
            uncalibrated={name: why for one in reversed(reasons) for name, why in one.items()},
        )

    def _listed(self, values: Sequence[str]) -> str:
        return ", ".join(f"{v} ({name})" for v, name in zip(values, self._names, strict=False))

    def _refuse_maps(self, exam: Exam, expected: str, found: str) -> NoReturn:
        raise ModelError(
            "the explanations of these models have no mean",
            code="ensemble",
            exam=exam.id,
            expected=expected,
            found=found,
            advice="explain with each model by itself",
        )


def _agreed(several: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The entries that are the same in all of them."""
    first, *others = several
    return {
        key: value
        for key, value in first.items()
        if all(key in one and one[key] == value for one in others)
    }


def _each_once(several: Iterable[Sequence[Remark]]) -> tuple[Remark, ...]:
    return tuple(dict.fromkeys(remark for remarks in several for remark in remarks))
