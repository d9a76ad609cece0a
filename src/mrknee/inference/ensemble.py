"""Several trained models that read exams as one; importing this file imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NoReturn

import numpy as np

from mrknee.errors import ModelError
from mrknee.exams import Exam, Exams, Remark, Series, SeriesList, as_exams
from mrknee.inference.explanation import Explanation
from mrknee.inference.model import Model
from mrknee.scoring.predictions import Predictions


class Ensemble(Model):
    """Several models of the same findings; each probability is the mean of the members'.

    The mean is taken of the calibrated probabilities. It is not calibrated again, and has no
    operating points: both would have to be fitted on exams that no member was trained on.

    Args:
        members: two models or more.
        names: their names, for messages; one per member.

    Attributes:
        members: the models.
        series: the series of all members, each once. Each member leaves out those of an exam that
            it was not trained on by itself.
        preparation: the first member's.
        provenance: what the members' provenance agrees on, and `members`: each one's own.

    Raises:
        ModelError: there are fewer than two, or their findings differ, or a series of one name is
            of different planes.
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
        first = self.members[0]
        super().__init__(
            findings=first.findings,
            series=_joined([member.trained for member in self.members]),
            preparation=first.preparation,
            provenance={
                **_agreed([member.provenance for member in self.members]),
                "members": [dict(member.provenance) for member in self.members],
            },
            decisions={},
        )
        self.notes = tuple(dict.fromkeys(n for member in self.members for n in member.notes))

    @property
    def uncalibrated(self) -> dict[str, str]:
        """A mean is calibrated only where all members are."""
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

    def explain(self, exam: Exam) -> Explanation:
        """The mean of the members' logits, taken apart: the mean of their contributions.

        A member that was not trained on a series contributes 0 there. The probabilities are the
        means of the members' calibrated ones, as `predict` gives them.

        Args:
            exam: the exam.

        Raises:
            ModelError: the members' maps have different sizes.
        """
        parts = [member.explain(exam) for member in self.members]
        frames = [(part.preparation.size, part.preparation.crop) for part in parts]
        if len(set(frames)) > 1:
            sizes = [f"{size} and {crop}" for size, crop in frames]
            self._refuse_maps(exam, "one size and crop of all", self._listed(sizes))
        names = [n for n in self.series.names if any(n in part.native for part in parts)]
        native, shapes = {}, {}
        for name in names:
            having = [part for part in parts if name in part.native]
            cells = [part.native[name].shape[2:] for part in having]
            if len(set(cells)) > 1:
                found = self._listed([f"{rows} x {cols}" for rows, cols in cells])
                self._refuse_maps(exam, "maps of one size", f"{name}: {found}")
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


def _joined(several: Sequence[SeriesList]) -> SeriesList:
    """The series of all, each once, in the order in which they come first."""
    found: dict[str, Series] = {}
    for one in (one for series in several for one in series):
        if found.setdefault(one.name, one).plane != one.plane:
            raise ModelError(
                "models whose series differ are no ensemble",
                code="ensemble",
                expected=f"{one.name} of the plane {found[one.name].plane} in all",
                found=f"{one.name} of the plane {one.plane}",
            )
    return SeriesList(found.values())


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
