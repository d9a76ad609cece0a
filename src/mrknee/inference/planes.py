"""Planes that a model was not trained on are left out, as if the exam lacked them.

The encoder and the head of such a plane have the weights they started with: what they make of a
slice means nothing. Training notes how many exams had each plane (`provenance.planes`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mrknee.errors import DataError
from mrknee.exams import PLANES, Exam, Exams, Plane


class TrainedPlanes:
    """Exams with only those planes that a model was trained on.

    Args:
        exams: any row of exams.
        planes: the model's.
    """

    def __init__(self, exams: Exams, planes: Sequence[Plane]) -> None:
        self._exams, self._planes = exams, planes

    def __len__(self) -> int:
        return len(self._exams)

    def __getitem__(self, index: int) -> Exam:
        return only(self._exams[index], self._planes)


def only(exam: Exam, planes: Sequence[Plane]) -> Exam:
    """The exam with only these planes.

    Raises:
        MrkneeError: it has none of them.
    """
    stacks = {plane: stack for plane, stack in exam.stacks.items() if plane in planes}
    if not stacks:
        raise DataError(
            "an exam has no plane that the model was trained on",
            code="missing-plane",
            exam=exam.id,
            expected="at least one of " + ", ".join(planes),
            found=", ".join(exam.stacks),
            advice="add such a plane, or use a model that was trained on these",
        )
    return exam if len(stacks) == len(exam.stacks) else replace(exam, stacks=stacks)


def left_out(planes: Sequence[Plane]) -> tuple[str, ...]:
    """What to say of a model that was trained on these planes; nothing where it was on all."""
    others = [plane for plane in PLANES if plane not in planes]
    if not others:
        return ()
    return (
        f"the model was trained on {' and '.join(planes)} only; "
        f"the {' and '.join(others)} plane is left out, as if the exams lacked it",
    )
