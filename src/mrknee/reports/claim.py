"""Items of the CLAIM 2024 checklist that can be answered from the record of an evaluation.

A. S. Tejani et al., "Checklist for Artificial Intelligence in Medical Imaging (CLAIM): 2024
Update", Radiology: Artificial Intelligence 6 (2024) e240300. Of its 44 items, this module contains
those that the data set, the predictions and the model's provenance answer, with the checklist's
numbers and our own short titles. The numbers were checked against two independent summaries, not
against the published table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mrknee.exams import MRNET_SERIES
from mrknee.metrics.formatting import format_exams
from mrknee.reports.contents import Contents, ModelFacts
from mrknee.reports.words import quoted

SUBJECTS: Mapping[int, str] = {
    7: "Sources of the data",
    9: "Preparation of the images",
    12: "Missing data",
    13: "How images were acquired",
    19: "How exams were put into partitions",
    21: "Number of test exams",
    22: "Architecture",
    23: "Software and versions",
    24: "Where the weights start",
    25: "Training: procedure and settings",
    26: "How the final model was chosen",
    27: "Ensembles",
    32: "Testing on internal data",
}
"""Item number -> subject of the item."""


@dataclass(frozen=True)
class ClaimItem:
    """One item of the checklist and its answer.

    Attributes:
        number: the item's number in the checklist, 1 to 44.
        subject: the subject of the item.
        answer: the answer from the record.
    """

    number: int
    subject: str
    answer: str


def claim_items(contents: Contents) -> tuple[ClaimItem, ...]:
    """Returns the items that the record of an evaluation answers, sorted by number."""
    answers = _of_data(contents)
    if contents.model is not None:
        answers |= _of_model(contents.model, contents)
    return tuple(ClaimItem(n, SUBJECTS[n], answer) for n, answer in sorted(answers.items()))


def _of_data(contents: Contents) -> dict[int, str]:
    drawn = " (synthetic, drawn by mrknee phantom)" if contents.synthetic else ""
    card = contents.card
    unknown = {
        name: card.n_exams - one.auc.n_positive - one.auc.n_negative
        for name, one in card.findings.items()
    }
    lacking = ", ".join(f"{count} of {name}" for name, count in unknown.items() if count)
    answers = {
        7: f"data set {quoted(contents.data)}{drawn}",
        12: "an exam counts for the findings whose label is known; not known: "
        + (lacking or "none"),
        21: f"all {format_exams(card.n_exams)} of split {card.split} that have a prediction",
    }
    if contents.slices:
        answers[13] = ", ".join(
            f"{series} {one.median:g} slices ({one.least} to {one.most})"
            for series, one in contents.slices.items()
        )
    if len(contents.sources) > 1:
        which = "the mean over the tables" if contents.joined else "the one table"
        answers[27] = (
            f"{len(contents.sources)} tables of predictions as one model: for each finding {which} "
            "with it"
        )
    return answers


def _of_model(model: ModelFacts, contents: Contents) -> dict[int, str]:
    known = model.provenance
    recipe: Mapping[str, Any] = known.get("recipe", {})
    selected: Mapping[str, Any] = known.get("selected_on", {})
    packages: Mapping[str, str] = known.get("environment", {}).get("packages", {})
    members = known.get("members")
    answers: dict[int, str] = {}
    if members:
        answers[27] = f"the mean of the calibrated probabilities of {len(members)} networks"
    elif len(contents.sources) == 1:
        answers[27] = "none: one network"
    if _internal(model, contents):
        answers[32] = (
            f"this evaluation: {format_exams(contents.card.n_exams)} of "
            f"{quoted(contents.data)}, by name and ids the data set trained on"
        )
    if selected:
        drawn = f"drawn from train at random by seed {known.get('seed')}, stratified by labels"
        inner = selected["part"] == "inner"
        on = f"{selected['exams']} (inner: {drawn})" if inner else selected["part"]
        answers[19] = (
            f"trained on {known.get('trained_on')}; epoch chosen on {on}; scored on "
            f"{contents.card.n_exams} ({contents.card.split}: as the data set ships it)"
        )
        metric = recipe.get("selection", {}).get("metric", "an unknown measure")
        answers[26] = (
            f"epoch {known.get('epoch')}, by {metric} on {selected['exams']} exams of the part "
            f"{selected['part']}"
        )
    if recipe:
        answers |= _of_recipe(recipe, known.get("series", known.get("planes", MRNET_SERIES.names)))
    if packages:
        answers[23] = ", ".join(f"{name} {version}" for name, version in packages.items())
    return answers


def _of_recipe(recipe: Mapping[str, Any], series: Iterable[str]) -> dict[int, str]:
    """Answers items on architecture and training; settings not in the recipe are "not stated"."""

    def value(name: str) -> Any:  # noqa: ANN401  # any JSON value
        return recipe.get(name, "not stated")

    def part(name: str) -> str:
        settings = ", ".join(f"{key} {one}" for key, one in recipe.get(name, {}).items())
        return settings or "not stated"

    network: Mapping[str, Any] = recipe.get("network", {})
    return {
        9: "crop, scale, normalise: " + part("preparation"),
        22: f"series of slices ({', '.join(series)}) into {network.get('encoder', 'not stated')}, "
        f"{'one for all series' if network.get('shared_encoder') else 'one per series'}; "
        f"network.slice_pooling {network.get('slice_pooling', 'not stated')}; one linear output "
        "per finding",
        24: f"encoder weights: {value('weights')}",
        25: f"at most {value('epochs')} epochs of {value('batch_exams')} exam(s) a step; "
        f"{part('optimizer')}; schedule {part('schedule')}; "
        f"augmentation {part('augmentation')}; seed {value('seed')}",
    }


def _internal(model: ModelFacts, contents: Contents) -> bool:
    """Returns whether the data set has the name of the training data and shares exam ids with it.

    A different name alone doesn't make data external.
    """
    shared = model.shared or {}
    return model.provenance.get("data") == contents.data and sum(shared.values()) > 0
