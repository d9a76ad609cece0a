"""The worst mistakes, each with the slice that did most towards it, and its heat map.

Of a finding wrongly stated that is the slice that raised its logit most, of one wrongly denied the
slice that lowered it most.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from mrknee.errors import DataError, ModelError
from mrknee.exams import Dataset, Exam
from mrknee.inference.explanation import Explanation
from mrknee.inference.model import Model
from mrknee.progress import Progress
from mrknee.report.contents import Failure
from mrknee.report.pictures import data_uri, jpeg, overlay, slice_in_words, smaller
from mrknee.scoring.predictions import Predictions

GALLERY_SIDE = 224
"""Longer side of a picture in the page, in pixels; larger slices are scaled down to it."""

SAME = 0.01
"""Predictions further than this from the model's own were not made by it."""


def refuse_foreign(predictor: Model, predictions: Predictions, exams: Dataset) -> None:
    """Refuses predictions that the model did not make: its thresholds would mean nothing there.

    One exam is read to know; `with_pictures` holds against it each exam that it explains.

    Raises:
        MrkneeError: other findings, an exam that isn't there, or another probability.
    """
    if predictor.findings != predictions.findings:
        raise ModelError(
            "the model reads other findings than were predicted",
            code="findings",
            expected=", ".join(predictions.findings),
            found=", ".join(predictor.findings),
            advice="give the model that made the predictions, or none",
        )
    first = predictions.ids[0]
    again = predictor.predict([exams[exams.index(first)]]).probabilities[0]
    _refuse_apart(predictions, first, again)


def _refuse_apart(
    predictions: Predictions, exam_id: str, again: Float[np.ndarray, " findings"]
) -> None:
    said = predictions.probabilities[predictions.ids.index(exam_id)]
    apart = np.abs(again - said)
    if apart.max() > SAME:
        worst = int(apart.argmax())
        raise DataError(
            "the predictions were not made by this model",
            code="predictions-model",
            exam=exam_id,
            expected=f"{again[worst]:.3f} for {predictions.findings[worst]}, as the model reads it",
            found=f"{said[worst]:.3f}",
            advice="predict again with this model, or give the model that made the predictions",
        )


def with_pictures(
    failures: Mapping[str, tuple[Failure, ...]],
    predictor: Model,
    predictions: Predictions,
    exams: Dataset,
) -> Mapping[str, tuple[Failure, ...]]:
    """Adds to every failure the slice that did most towards it, plain and with heat.

    Args:
        failures: finding -> its failures.
        predictor: the model that made them.
        predictions: the table they are from.
        exams: where the exams are.

    Raises:
        MrkneeError: the table says something else of one of these exams than the model does.
    """
    needed = sorted({one.exam for group in failures.values() for one in group})
    drawn: dict[tuple[str, str], Failure] = {}
    with Progress(len(needed), "explaining failures") as progress:
        for exam_id in needed:
            exam = exams[exams.index(exam_id)]
            explanation = predictor.explain(exam)
            _refuse_apart(predictions, exam_id, explanation.probabilities)
            for finding, group in failures.items():
                for one in group:
                    if one.exam == exam_id:
                        drawn[finding, exam_id] = _draw(one, finding, explanation, exam)
            progress.advance()
    return {
        finding: tuple(drawn[finding, one.exam] for one in group)
        for finding, group in failures.items()
    }


def _draw(failure: Failure, finding: str, explanation: Explanation, exam: Exam) -> Failure:
    raising = failure.kind == "false positive"
    find = explanation.most_raising if raising else explanation.most_lowering
    name, index = find(finding)
    picture = np.asarray(exam.stacks[name][index])
    heat = explanation.slice_heat(name, explanation.findings.index(finding), index)
    warm = overlay(picture, heat, explanation.scale)
    return replace(
        failure,
        where=slice_in_words(explanation, finding, raising=raising),
        slice_uri=data_uri(jpeg(smaller(picture, GALLERY_SIDE))),
        heat_uri=data_uri(jpeg(smaller(warm, GALLERY_SIDE))),
    )
