"""Selection of the series that a model was trained on.

The encoder and the head of a series without training exams have their initial weights, so their
outputs are meaningless. Training records how many exams had each series (`provenance.series`).
"""

from __future__ import annotations

from mrknee.errors import DataError
from mrknee.exams import Exam, Exams, SeriesList


class TrainedSeries:
    """Exams reduced to the series that a model was trained on.

    Args:
        exams: any sequence of exams.
        series: all series of the model.
        trained: the series that it was trained on.
    """

    def __init__(self, exams: Exams, series: SeriesList, trained: SeriesList) -> None:
        self._exams, self._series, self._trained = exams, series, trained

    def __len__(self) -> int:
        return len(self._exams)

    def __getitem__(self, index: int) -> Exam:
        return select_trained(self._exams[index], self._series, self._trained)


def select_trained(exam: Exam, series: SeriesList, trained: SeriesList) -> Exam:
    """Returns the exam with the model's series, reduced to those that it was trained on.

    Args:
        exam: the exam; its series are matched by name.
        series: all series of the model.
        trained: the series that the model was trained on.

    Raises:
        DataError: the exam has none of these series, or one of them in another plane.
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
                "a series of an exam is not of the plane that the model was trained on",
                code="series",
                exam=exam.id,
                expected=f"{name} {series.planes[name]}",
                found=f"{name} {exam.series.planes[name]}",
                advice="rename the series, in series.csv and its folder",
            )
    return Exam(exam.id, stacks, exam.labels, exam.remarks, series)


def note_on_untrained(series: SeriesList, trained: SeriesList) -> tuple[str, ...]:
    """Returns a note about the series that a model was not trained on; empty if there are none."""
    others = [name for name in series.names if name not in trained.names]
    if not others:
        return ()
    return (
        f"the model was trained on {' and '.join(trained.names)} only; "
        f"{' and '.join(others)} will be ignored, as if missing from the exams",
    )
