"""An exam to an answer, with one model. Everything here is called from the desk's one thread."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import BinaryIO

from mrknee import __version__
from mrknee.errors import MrkneeError
from mrknee.exams import PLANES, Exam, Plane
from mrknee.inference.decisions import operating_points_of
from mrknee.inference.explanation import Explanation
from mrknee.inference.model import Model
from mrknee.inference.runtimes import Limits
from mrknee.report.exam_page import exam_page
from mrknee.scoring.operating_point import OperatingPoint
from mrknee.web import schemas
from mrknee.web.desk import PLACES
from mrknee.web.refusal import RefusalError
from mrknee.web.uploads import (
    MAX_BODY_BYTES,
    MAX_PIXELS,
    MAX_SIDE,
    MAX_SLICES,
    UPLOAD_SECONDS,
    read_exam,
)

Files = Mapping[Plane, BinaryIO]

LIMITS = Limits(seconds=120, memory=4 * 2**30)
"""What one exam may take with an exported model. An exam of MRNet's size takes seconds and less
than 1 GB on two cores, the largest one that may be sent (`MAX_PIXELS`) twice that."""


class Service:
    """A model, and what is answered with it.

    Args:
        model: ready to read exams.
        name: what it is called in answers.
        allow_missing_plane: read exams that lack one or two planes too.

    Raises:
        MrkneeError: the model's operating points can't be read.
    """

    def __init__(self, model: Model, name: str, *, allow_missing_plane: bool = False) -> None:
        self.model, self.name, self.allow_missing_plane = model, name, allow_missing_plane
        self.operating_points = operating_points_of(model.decisions)

    @property
    def calibrated(self) -> bool:
        """Whether the model's probabilities were calibrated."""
        return self.model.decisions.get("calibration") is not None

    def predict(self, files: Files) -> schemas.Prediction:
        """Reads an exam.

        Raises:
            RefusalError: the files are no exam, or the model can't read it.
        """
        exam = read_exam(files)
        try:
            table = self.model.predict([exam])
        except MrkneeError as fault:
            raise RefusalError(500, fault) from fault  # not the upload's
        findings = {}
        for name, number in zip(table.findings, table.probabilities[0].tolist(), strict=True):
            calls = [_call(point, number) for point in self.operating_points.get(name, ())]
            findings[name] = schemas.FindingRead(probability=number, calls=calls)
        return schemas.Prediction(
            model=self.name,
            order=list(self.model.findings),
            calibrated=self.calibrated,
            findings=findings,
            missing_planes=self._missing(exam),
        )

    def explain(self, files: Files) -> schemas.Explained:
        """Takes an exam's logits apart, in numbers.

        Raises:
            RefusalError: as `predict`.
        """
        exam = read_exam(files)
        found = self._explanation(exam).description()
        return schemas.Explained(model=self.name, missing_planes=self._missing(exam), **found)

    def page(self, files: Files) -> str:
        """Takes an exam's logits apart, as a page.

        Raises:
            RefusalError: as `predict`.
        """
        exam = read_exam(files)
        return exam_page(exam, self._explanation(exam), model=self.name)

    def facts(self) -> schemas.ModelFacts:
        """What is served, and what a request may hold."""
        return schemas.ModelFacts(
            model=self.name,
            mrknee=__version__,
            findings=list(self.model.findings),
            preparation=schemas.Preparation(**self.model.preparation.to_dict()),
            decisions=dict(self.model.decisions),
            provenance=dict(self.model.provenance),
            limits=schemas.Limits(
                body_bytes=MAX_BODY_BYTES,
                slices=MAX_SLICES,
                side=MAX_SIDE,
                pixels=MAX_PIXELS,
                upload_seconds=UPLOAD_SECONDS,
                exams_at_once=PLACES,
                missing_plane=self.allow_missing_plane,
            ),
        )

    def _missing(self, exam: Exam) -> list[Plane]:
        """Planes that were not read: not sent, or not among those the model was trained on."""
        return [p for p in PLANES if p not in exam.stacks or p not in self.model.planes]

    def _explanation(self, exam: Exam) -> Explanation:
        try:
            return self.model.explain(exam)
        except MrkneeError as fault:
            raise RefusalError(500, fault) from fault  # not the upload's


def _call(point: OperatingPoint, probability: float) -> schemas.Call:
    there = not math.isnan(point.threshold)
    return schemas.Call(
        rule=point.rule,
        threshold=point.threshold if there else None,
        positive=probability >= point.threshold if there else None,
        reason=point.reason,
    )
