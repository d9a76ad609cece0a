"""Images of the worst errors: the slice that contributed most, and its heat map.

For a false positive that is the slice that raised the finding's logit most, for a false negative
the slice that lowered it most.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from mrknee.errors import DataError, ModelError
from mrknee.exams import Dataset, Exam
from mrknee.explanations.explanation import Explanation
from mrknee.inference.model import Model
from mrknee.metrics.predictions import Predictions
from mrknee.progress import Progress
from mrknee.reports.contents import Failure
from mrknee.reports.pictures import data_uri, jpeg, overlay, slice_in_words, smaller

GALLERY_SIDE = 224
"""Longer side of an image in the report, in pixels; larger slices are scaled down."""

TOLERANCE = 0.01
"""Largest difference between predictions and the probabilities that the model computes again."""


def refuse_other_model(predictor: Model, predictions: Predictions, exams: Dataset) -> None:
    """Refuses predictions made by another model, for which the thresholds would be meaningless.

    Only the first exam is predicted again; `add_pictures` checks each exam that it explains.

    Raises:
        MrkneeError: the findings differ, the exam is missing, or the probabilities differ.
    """
    if predictor.findings != predictions.findings:
        raise ModelError(
            "the model has other findings than the predictions",
            code="findings",
            expected=", ".join(predictions.findings),
            found=", ".join(predictor.findings),
            advice="use the model that made the predictions, or none",
        )
    first = predictions.ids[0]
    again = predictor.predict([exams[exams.index(first)]]).probabilities[0]
    _refuse_different(predictions, first, again)


def _refuse_different(
    predictions: Predictions, exam_id: str, again: Float[np.ndarray, " findings"]
) -> None:
    predicted = predictions.probabilities[predictions.ids.index(exam_id)]
    differences = np.abs(again - predicted)
    if differences.max() > TOLERANCE:
        worst = int(differences.argmax())
        raise DataError(
            "the predictions were not made by this model",
            code="predictions-model",
            exam=exam_id,
            expected=f"{again[worst]:.3f} for {predictions.findings[worst]}, as computed now",
            found=f"{predicted[worst]:.3f}",
            advice="predict again with this model, or use the model that made the predictions",
        )


def add_pictures(
    failures: Mapping[str, tuple[Failure, ...]],
    predictor: Model,
    predictions: Predictions,
    exams: Dataset,
) -> Mapping[str, tuple[Failure, ...]]:
    """Adds to every failure the slice that contributed most, with and without heat map.

    Args:
        failures: finding -> failures.
        predictor: the model that made the predictions.
        predictions: the predictions.
        exams: the exams.

    Returns:
        The failures with images.

    Raises:
        MrkneeError: the predictions of one of these exams differ from those of the model.
    """
    needed = sorted({one.exam for group in failures.values() for one in group})
    drawn: dict[tuple[str, str], Failure] = {}
    with Progress(len(needed), "explaining failures") as progress:
        for exam_id in needed:
            exam = exams[exams.index(exam_id)]
            explanation = predictor.explain(exam)
            _refuse_different(predictions, exam_id, explanation.probabilities)
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
