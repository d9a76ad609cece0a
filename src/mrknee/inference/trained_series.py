"""An exam as a model reads it: with the series that the model was trained on, and no others.

The encoder and the head of a series without training exams have the weights they started with:
what they make of a slice means nothing. Training notes how many exams had each series
(`provenance.series`).
"""

from __future__ import annotations

from mrknee.errors import DataError
from mrknee.exams import Exam, Exams, SeriesList


class TrainedSeries:
    """Exams with only those series that a model was trained on.

    Args:
        exams: any row of exams.
        series: all series of the model.
        trained: those that it was trained on.
    """

    def __init__(self, exams: Exams, series: SeriesList, trained: SeriesList) -> None:
        self._exams, self._series, self._trained = exams, series, trained

    def __len__(self) -> int:
        return len(self._exams)

    def __getitem__(self, index: int) -> Exam:
        return as_read(self._exams[index], self._series, self._trained)


def as_read(exam: Exam, series: SeriesList, trained: SeriesList) -> Exam:
    """The exam with only the series that a model was trained on, and with the model's declaration.

    Args:
        exam: the exam; its series are those of the model that have the same name.
        series: all series of the model.
        trained: those that it was trained on.

    Raises:
        DataError: it has none of them, or one of them in another plane.
    """
    if exam.series == series and len(trained) == len(series):
        return exam
    stacks = {name: exam.stacks[name] for name in trained.names if name in exam.stacks}
    if not stacks:
        raise DataError(
            "an exam has no series that the model was trained on",
            code="missing-plane",
            exam=exam.id,
            expected="at least one of " + ", ".join(trained.names),
            found=", ".join(exam.stacks),
            advice="add such a series, or use a model that was trained on these",
        )
    for name in stacks:
        if exam.series.planes[name] != series.planes[name]:
            raise DataError(
                "an exam's series is not of the plane that the model was trained on",
                code="series",
                exam=exam.id,
                expected=f"{name} {series.planes[name]}",
                found=f"{name} {exam.series.planes[name]}",
                advice="rename the series, in series.csv and its folder",
            )
    return Exam(exam.id, stacks, exam.labels, exam.remarks, series)


def left_out(series: SeriesList, trained: SeriesList) -> tuple[str, ...]:
    """What to say of a model that was trained on these series; nothing where it was on all."""
    others = [name for name in series.names if name not in trained.names]
    if not others:
        return ()
    return (
        f"the model was trained on {' and '.join(trained.names)} only; "
        f"{' and '.join(others)} is left out, as if the exams lacked it",
    )
