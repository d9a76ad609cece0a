"""Ensembles of trained models; importing this module does not import torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NoReturn

import numpy as np

from mrknee.errors import ModelError
from mrknee.exams import Exam, Exams, Remark, Series, SeriesList, as_exams
from mrknee.explanations.explanation import Explanation
from mrknee.inference.ablation import Ablation, MeanAblation
from mrknee.inference.model import Model
from mrknee.metrics.predictions import Predictions


class Ensemble(Model):
    """Several models of the same findings; probabilities are the means over the members.

    The mean is taken over the calibrated probabilities. It is not calibrated again and has no
    operating points: both would have to be fitted on exams not used for training any member.

    Args:
        members: at least two models.
        names: names of the members, for error messages.

    Attributes:
        members: the models.
        series: union of the members' series. Each member ignores series that it was not trained on.
        preparation: preparation of the first member.
        provenance: entries common to all members, and `members`: the provenance of each member.

    Raises:
        ModelError: there are fewer than two members, or their findings differ, or a series has
            different planes in different members.
    """

    def __init__(self, members: Sequence[Model], names: Sequence[str]) -> None:
        self.members, self._names = tuple(members), tuple(names)
        if len(self.members) < 2:
            raise ModelError(
                "an ensemble needs at least two models",
                code="ensemble",
                expected="at least two models",
                found=", ".join(names) or "none",
            )
        for name, member in zip(self._names, self.members, strict=True):
            if member.findings != self.members[0].findings:
                self._refuse_findings(name, member)
        first = self.members[0]
        super().__init__(
            findings=first.findings,
            series=_joined([member.trained for member in self.members]),
            preparation=first.preparation,
            provenance={
                **_common_entries([member.provenance for member in self.members]),
                "members": [dict(member.provenance) for member in self.members],
            },
            decisions={},
        )
        self.notes = tuple(dict.fromkeys(n for member in self.members for n in member.notes))

    @property
    def uncalibrated(self) -> dict[str, str]:
        """Uncalibrated finding -> reason; a finding is calibrated only if it is in all members."""
        each = [member.uncalibrated for member in self.members]
        return {name: why for one in reversed(each) for name, why in one.items()}

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
            "the models of an ensemble have different findings",
            code="ensemble",
            file=name,
            expected=f"{', '.join(first)}, as in {self._names[0]}",
            found="; ".join(differences) or f"another order: {', '.join(member.findings)}",
            advice="predict with each model separately; evaluate and compare accept several "
            "tables, separated by commas, as one model",
        )

    @property
    def explainable(self) -> bool:
        """Whether `explain` can decompose the logits of all members, and average their maps.

        Whether maps have the same number of cells is known only once an exam is explained.
        """
        frames = {(one.preparation.size, one.preparation.crop) for one in self.members}
        return len(frames) == 1 and all(member.explainable for member in self.members)

    def predict(self, exams: Exams | Exam) -> Predictions:
        """Predicts exams with every member.

        Args:
            exams: a Dataset, another sequence of exams, or a single exam; read once per member.

        Returns:
            Mean of the members' calibrated probabilities per exam and finding, 0 to 1, in the
            order of the exams, with the remarks of all members.

        Raises:
            MrkneeError: the files of an exam can't be used, or there are no exams.
        """
        row = as_exams(exams)
        tables = [member.predict(row) for member in self.members]
        probabilities = np.mean([table.probabilities for table in tables], axis=0)
        remarks = {
            exam_id: found
            for exam_id in tables[0].ids
            if (found := _unique(table.remarks.get(exam_id, ()) for table in tables))
        }
        return Predictions(tables[0].ids, self.findings, probabilities, remarks)

    def explain(self, exam: Exam) -> Explanation:
        """Returns the mean of the members' logits and of their contributions.

        A member that was not trained on a series contributes 0 to it. The probabilities are the
        means of the calibrated probabilities, as in `predict`.

        Args:
            exam: the exam.

        Raises:
            ModelError: the maps of the members have different sizes.
        """
        parts = [member.explain(exam) for member in self.members]
        frames = [(part.preparation.size, part.preparation.crop) for part in parts]
        if len(set(frames)) > 1:
            sizes = [f"{size} and {crop}" for size, crop in frames]
            self._refuse_maps(exam, "the same size and crop", self._listed(sizes))
        names = [n for n in self.series.names if any(n in part.native for part in parts)]
        native, shapes = {}, {}
        for name in names:
            having = [part for part in parts if name in part.native]
            cells = [part.native[name].shape[2:] for part in having]
            if len(set(cells)) > 1:
                found = self._listed([f"{rows} x {cols}" for rows, cols in cells])
                self._refuse_maps(exam, "maps of the same size", f"{name}: {found}")
            total = sum(part.native[name].astype(np.float64) for part in having)
            native[name] = np.asarray(total / len(parts), dtype=np.float32)
            shapes[name] = having[0].shapes[name]
        reasons = [part.uncalibrated for part in parts]
        return replace(
            parts[0],
            logits=np.mean([part.logits for part in parts], axis=0),
            bias=np.mean([part.bias for part in parts], axis=0),
            probabilities=np.mean([part.probabilities for part in parts], axis=0),
            native=MappingProxyType(native),
            shapes=MappingProxyType(shapes),
            stacks=MappingProxyType({name: exam.stacks[name] for name in names}),
            series=self.series,
            attention_fixed=any(part.attention_fixed for part in parts),
            remarks=_unique(part.remarks for part in parts),
            uncalibrated={name: why for one in reversed(reasons) for name, why in one.items()},
        )

    def ablation(self, exam: Exam) -> Ablation:
        """Prepares predictions without parts of an exam by every member."""
        return MeanAblation([member.ablation(exam) for member in self.members])

    def _listed(self, values: Sequence[str]) -> str:
        return ", ".join(f"{v} ({name})" for v, name in zip(values, self._names, strict=False))

    def _refuse_maps(self, exam: Exam, expected: str, found: str) -> NoReturn:
        raise ModelError(
            "the explanations of these models can't be averaged",
            code="ensemble",
            exam=exam.id,
            expected=expected,
            found=found,
            advice="explain with each model separately",
        )


def _joined(several: Sequence[SeriesList]) -> SeriesList:
    """Returns the union of the series, in the order of their first occurrence."""
    found: dict[str, Series] = {}
    for one in (one for series in several for one in series):
        if found.setdefault(one.name, one).plane != one.plane:
            raise ModelError(
                "a series has different planes in the models of an ensemble",
                code="ensemble",
                expected=f"{one.name} {found[one.name].plane} in all models",
                found=f"{one.name} {one.plane}",
            )
    return SeriesList(found.values())


def _common_entries(several: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the entries that all mappings have in common."""
    first, *others = several
    return {
        key: value
        for key, value in first.items()
        if all(key in one and one[key] == value for one in others)
    }


def _unique(several: Iterable[Sequence[Remark]]) -> tuple[Remark, ...]:
    return tuple(dict.fromkeys(remark for remarks in several for remark in remarks))
