"""Predictions and explanations of one exam with one model.

`Service.predict`, `Service.explain` and `Service.page` are called from the thread of the request
queue.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from mrknee import __version__
from mrknee.errors import DataError, MrkneeError
from mrknee.exams import Exam
from mrknee.exams.axes import Axes
from mrknee.exams.remark import Remark
from mrknee.explanations.explanation import Explanation
from mrknee.inference.model import Model
from mrknee.inference.runtimes import Limits
from mrknee.metrics.operating_point import OperatingPoint
from mrknee.reports.exam_page import exam_page
from mrknee.server import schemas
from mrknee.server.limits import DEFAULT_LIMITS, ServiceLimits
from mrknee.server.refusal import RefusalError
from mrknee.server.uploads import MAX_PIXELS, MAX_SIDE, MAX_SLICES, Received

Content = TypeVar("Content")


@dataclass(frozen=True)
class Answered(Generic[Content]):
    """An answer, and the parts of it that the audit log records.

    Attributes:
        content: the body of the response.
        probabilities: finding -> probability.
        remarks: unusual properties of the exam.
    """

    content: Content
    probabilities: Mapping[str, float]
    remarks: Sequence[Remark]


LIMITS = Limits(seconds=120, memory=4 * 2**30)
"""Limits of one exam with an exported model. On two cores, an exam of MRNet's size takes seconds
and less than 1 GB, the largest accepted exam (`MAX_PIXELS`) twice that."""


UNEXPLAINABLE = ("no-explanation", "ensemble")
"""Codes of errors of models that predict, but whose logits can't be decomposed."""


class Service:
    """A model and the responses computed with it.

    Args:
        model: the model.
        name: name of the model in responses.
        digest: the SHA-256 of the model's files, as returned by `mrknee.server.serving.digest_of`.
        allow_missing_plane: whether to accept exams that lack series.
        axes: order of the axes in the files; None expects (slices, rows, cols) and refuses stacks
            that seem to be in another order.

    Raises:
        MrkneeError: the model's operating points can't be read.
    """

    def __init__(
        self,
        model: Model,
        name: str,
        *,
        digest: str = "",
        allow_missing_plane: bool = False,
        axes: Axes | None = None,
        limits: ServiceLimits = DEFAULT_LIMITS,
    ) -> None:
        self.limits = limits
        self.model, self.name, self.allow_missing_plane = model, name, allow_missing_plane
        self.digest, self.axes = digest, axes
        self.operating_points = model.decisions.operating_points

    @property
    def required_series(self) -> tuple[str, ...]:
        """The series without which an exam is refused."""
        return () if self.allow_missing_plane else self.model.trained.names

    @property
    def calibrated(self) -> bool:
        """Whether the probabilities of all findings are calibrated."""
        return not self.uncalibrated

    @property
    def uncalibrated(self) -> Mapping[str, str]:
        """Uncalibrated finding -> reason."""
        return self.model.uncalibrated

    def predict(self, received: Received, request_id: str) -> Answered[schemas.Prediction]:
        """Returns the probabilities of an exam.

        Raises:
            RefusalError: the model failed.
        """
        exam = received.exam
        try:
            table = self.model.predict([exam])
        except MrkneeError as fault:
            raise refusal_of(fault) from fault
        remarks = table.remarks.get(exam.id, ())
        found = dict(zip(table.findings, table.probabilities[0].tolist(), strict=True))
        findings = {}
        for name, number in found.items():
            calls = [_call(point, number) for point in self.operating_points.get(name, ())]
            reason = self.uncalibrated.get(name)
            findings[name] = schemas.FindingRead(
                probability=number, calibrated=reason is None, uncalibrated=reason, calls=calls
            )
        content = schemas.Prediction(
            **self.origin(exam, request_id),
            order=list(self.model.findings),
            calibrated=self.calibrated,
            findings=findings,
            remarks=[schemas.ExamRemark.model_validate(remark.to_dict()) for remark in remarks],
        )
        return Answered(content, found, remarks)

    def explain(self, received: Received, request_id: str) -> Answered[schemas.Explained]:
        """Returns the decomposition of an exam's logits.

        Raises:
            RefusalError: as `predict`.
        """
        exam = received.exam
        explanation = self.explanation(exam)
        content = schemas.Explained(**self.origin(exam, request_id), **explanation.description())
        return Answered(content, _probabilities(explanation), explanation.remarks)

    def page(self, received: Received, request_id: str) -> Answered[str]:
        """Returns the decomposition of an exam's logits as an HTML page.

        Raises:
            RefusalError: as `predict`.
        """
        exam = received.exam
        explanation = self.explanation(exam)
        text = exam_page(
            exam, explanation, model=self.name, digest=self.digest, request_id=request_id
        )
        return Answered(text, _probabilities(explanation), explanation.remarks)

    def origin(self, exam: Exam, request_id: str) -> dict[str, Any]:
        """Returns the fields that all JSON answers about an exam have."""
        return {
            "request_id": request_id,
            "model": self.name,
            "model_digest": self.digest,
            "mrknee": __version__,
            "missing_series": self.missing(exam),
        }

    def facts(self) -> schemas.ModelFacts:
        """Returns the properties of the model and the limits of a request."""
        return schemas.ModelFacts(
            model=self.name,
            model_digest=self.digest,
            mrknee=__version__,
            findings=list(self.model.findings),
            series=[schemas.Series.model_validate(one) for one in self.model.series.to_dicts()],
            preparation=schemas.Preparation(**self.model.preparation.to_dict()),
            decisions=self.model.decisions.to_dict(),
            provenance=dict(self.model.provenance),
            limits=schemas.Limits(
                body_bytes=self.limits.body_bytes,
                slices=MAX_SLICES,
                side=MAX_SIDE,
                pixels=MAX_PIXELS,
                upload_seconds=self.limits.upload_seconds,
                exams_at_once=self.limits.max_waiting,
                missing_series=self.allow_missing_plane,
            ),
        )

    def missing(self, exam: Exam) -> list[str]:
        """Returns the series that were not used: not sent, or not used in training."""
        read = set(exam.stacks).intersection(self.model.trained.names)
        return [name for name in self.model.series.names if name not in read]

    def explanation(self, exam: Exam) -> Explanation:
        """Returns the decomposition of an exam's logits.

        Raises:
            RefusalError: the model failed.
        """
        try:
            return self.model.explain(exam)
        except MrkneeError as fault:
            raise refusal_of(fault) from fault


def refusal_of(fault: MrkneeError) -> RefusalError:
    """Converts an error of the model: of its input, of what it can't do, or of the model itself."""
    if isinstance(fault, DataError):
        return RefusalError(422, fault)
    return RefusalError(409 if fault.code in UNEXPLAINABLE else 500, fault)


def _call(point: OperatingPoint, probability: float) -> schemas.Call:
    has_threshold = not math.isnan(point.threshold)
    return schemas.Call(
        rule=point.rule,
        threshold=point.threshold if has_threshold else None,
        positive=probability >= point.threshold if has_threshold else None,
        reason=point.reason,
    )


def _probabilities(explanation: Explanation) -> dict[str, float]:
    return dict(zip(explanation.findings, explanation.probabilities.tolist(), strict=True))
