"""CLAIM 2024, item by item: what an evaluation knows, and "not stated" where it doesn't.

A. S. Tejani et al., "Checklist for Artificial Intelligence in Medical Imaging (CLAIM): 2024
Update", Radiology: Artificial Intelligence 6 (2024) e240300: 44 items, here in our own short
words. Their numbers and order were checked against two independent summaries, not against the
published table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mrknee import __version__
from mrknee.exams import MRNET_SERIES
from mrknee.report.contents import Contents, ModelFacts
from mrknee.report.words import exams, number, quoted

NOT_STATED = "not stated"

ITEMS: tuple[tuple[str, str], ...] = (
    ("Title and abstract", "Names AI and its kind"),
    ("Title and abstract", "Summary with design, methods, results, conclusions"),
    ("Introduction", "Background, intended use, clinical role"),
    ("Introduction", "Aims and hypotheses"),
    ("Study design", "Prospective or retrospective"),
    ("Study design", "Goal of the study"),
    ("Data", "Sources of the data"),
    ("Data", "Who and what was included and excluded"),
    ("Data", "Preparation of the images"),
    ("Data", "Choice of subsets"),
    ("Data", "De-identification"),
    ("Data", "Missing data"),
    ("Data", "How images were acquired"),
    ("Reference standard", "Definition"),
    ("Reference standard", "Why this one"),
    ("Reference standard", "Who annotated, with what training"),
    ("Reference standard", "How the test exams were annotated"),
    ("Reference standard", "How far annotators agree"),
    ("Data partitions", "How exams were put into partitions"),
    ("Data partitions", "Level on which partitions are disjoint"),
    ("Testing data", "Number of test exams and how it was chosen"),
    ("Model", "Architecture"),
    ("Model", "Software and versions"),
    ("Model", "Where the weights start"),
    ("Training", "Procedure and settings"),
    ("Training", "How the final model was chosen"),
    ("Training", "Ensembles"),
    ("Evaluation", "Measures of performance"),
    ("Evaluation", "Uncertainty and significance"),
    ("Evaluation", "Robustness"),
    ("Evaluation", "Explanations and whether they hold"),
    ("Evaluation", "Testing on internal data"),
    ("Evaluation", "Testing on external data"),
    ("Evaluation", "Registration of a clinical trial"),
    ("Results: data", "Numbers included and excluded"),
    ("Results: data", "Demographic and clinical characteristics per partition"),
    ("Results: performance", "Performance against the reference standard, per partition"),
    ("Results: performance", "Diagnostic accuracy with its precision"),
    ("Results: performance", "Failures"),
    ("Discussion", "Limitations"),
    ("Discussion", "Implications for practice"),
    ("Other information", "Full protocol, further technical details"),
    ("Other information", "Where software, model and data can be had"),
    ("Other information", "Funding and the funders' role"),
)
"""Section and subject of items 1 to 44."""


@dataclass(frozen=True)
class ClaimItem:
    """One line of the filled checklist.

    Attributes:
        number: 1 to 44.
        section: of the checklist.
        subject: what the item asks for.
        answer: what is known, or `NOT_STATED`.
    """

    number: int
    section: str
    subject: str
    answer: str

    @property
    def stated(self) -> bool:
        """Whether there is an answer."""
        return self.answer != NOT_STATED


def fill(answers: Mapping[int, str]) -> tuple[ClaimItem, ...]:
    """The whole checklist.

    Args:
        answers: item number, 1 to 44 -> what is known of it.

    Raises:
        ValueError: an answer to an item that isn't there.
    """
    if not answers.keys() <= set(range(1, len(ITEMS) + 1)):
        raise ValueError(f"CLAIM has the items 1 to {len(ITEMS)}; given {sorted(answers)}")
    return tuple(
        ClaimItem(number, section, subject, answers.get(number, NOT_STATED))
        for number, (section, subject) in enumerate(ITEMS, start=1)
    )


def claim_table(contents: Contents) -> tuple[ClaimItem, ...]:
    """The checklist of one evaluation: what data, model and scores tell, and nothing else."""
    model = {} if contents.model is None else _of_model(contents.model, contents)
    return fill({**_of_data(contents), **_of_scores(contents), **model})


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
        10: f"all {exams(card.n_exams)} of split {card.split} that have a prediction",
        12: "an exam counts for the findings whose label is known; not known: "
        + (lacking or "none"),
        21: f"{exams(card.n_exams)}; how the number was chosen: {NOT_STATED}",
        35: f"{exams(card.n_exams)} scored; labels not known: {lacking or 'none'}; excluded before "
        f"that: {NOT_STATED}",
    }
    if contents.slices:
        stacks = ", ".join(
            f"{plane} {one.median:g} slices ({one.least} to {one.most})"
            for plane, one in contents.slices.items()
        )
        answers[13] = f"{stacks}; scanners and sequences: {NOT_STATED}"
    if contents.synthetic:
        answers[11] = "no patient behind the exams"
        answers[14] = "the lesions that were drawn"
    return answers


def _of_scores(contents: Contents) -> dict[int, str]:
    card = contents.card
    values = ", ".join(
        f"{name} {number(one.auc.value)} ({number(one.auc.low)} to {number(one.auc.high)}, "
        f"n {one.auc.n_positive} + {one.auc.n_negative})"
        for name, one in card.findings.items()
    )
    tests = "" if contents.comparison is None else "; paired tests against a second model"
    ensemble = {}
    if len(contents.sources) > 1:
        which = "the mean over the tables" if contents.joined else "the one table"
        ensemble[27] = (
            f"{len(contents.sources)} tables of predictions as one model: for each finding {which} "
            "with it"
        )
    return ensemble | {
        6: "to estimate how well findings are read: retrospective scoring of predictions",
        28: "AUC, average precision, Brier score, expected calibration error; sensitivity, "
        "specificity and predictive values where thresholds are known",
        29: "95 % intervals on every measure of this model; the mean AUC by "
        f"{card.mean.method}{tests}",
        37: f"AUC on {card.split}: {values}; other partitions: {NOT_STATED}",
        38: "ROC with a 95 % band, precision-recall and reliability in this page",
        39: "the worst false positives and false negatives of each finding in this page",
        43: f"software: mrknee {__version__}, Apache-2.0; model and data: {NOT_STATED}",
    }


def _of_model(model: ModelFacts, contents: Contents) -> dict[int, str]:
    known = model.provenance
    recipe: Mapping[str, Any] = known.get("recipe", {})
    network: Mapping[str, Any] = recipe.get("network", {})
    selected: Mapping[str, Any] = known.get("selected_on", {})
    packages: Mapping[str, str] = known.get("environment", {}).get("packages", {})
    findings = contents.card.findings
    kind = "multi-task network" if len(findings) > 1 else "network"
    answers = {
        1: f"deep learning: one {kind} for {', '.join(findings)}",
        31: _explanations(contents),
    }
    members = known.get("members")
    if members:
        answers[1] = f"deep learning: {len(members)} networks for {', '.join(findings)}"
        answers[27] = f"the mean of the calibrated probabilities of {len(members)} networks"
    elif len(contents.sources) == 1:
        answers[27] = "none: one network"
    if _internal(model, contents):
        answers[32] = (
            f"this evaluation: {exams(contents.card.n_exams)} of {quoted(contents.data)}, by name "
            "and ids the data set trained on"
        )
    if selected:
        answers[19] = (
            f"trained on {known.get('trained_on')}; epoch chosen on {selected['exams']} (inner: "
            f"drawn from train at random by seed {known.get('seed')}, stratified by labels)"
            if selected["part"] == "inner"
            else f"trained on {known.get('trained_on')}; epoch chosen on {selected['part']}"
        )
        answers[19] += (
            f"; scored on {contents.card.n_exams} ({contents.card.split}: as the data set ships it)"
        )
        answers[20] = f"exam; patients: {NOT_STATED}"
        metric = recipe.get("selection", {}).get("metric", NOT_STATED)
        answers[26] = (
            f"epoch {known.get('epoch')}, by {metric} on {selected['exams']} exams of the part "
            f"{selected['part']}"
        )
    series = known.get("series", known.get("planes", MRNET_SERIES.names))
    if recipe:

        def part(name: str) -> str:
            return _settings(recipe.get(name, {})) or NOT_STATED

        def value(name: str) -> Any:  # noqa: ANN401  # what JSON gives
            return recipe.get(name, NOT_STATED)

        answers |= {
            9: "crop, scale, normalise: " + part("preparation"),
            22: f"series of slices ({', '.join(series)}) into "
            f"{network.get('encoder', NOT_STATED)}, "
            f"{'one for all series' if network.get('shared_encoder') else 'one per series'}; "
            f"slices pooled by {network.get('slice_pooling', NOT_STATED)}; one linear output per "
            "finding",
            24: f"encoder weights: {value('weights')}",
            25: f"at most {value('epochs')} epochs of {value('batch_exams')} exam(s) a step; "
            f"{part('optimizer')}; schedule {part('schedule')}; "
            f"augmentation {part('augmentation')}; seed {value('seed')}",
        }
    if packages:
        answers[23] = ", ".join(f"{name} {version}" for name, version in packages.items())
    return answers


def _internal(model: ModelFacts, contents: Contents) -> bool:
    """Whether data set and ids are the run's own; another name alone doesn't make data external."""
    shared = model.shared or {}
    return model.provenance.get("data") == contents.data and sum(shared.values()) > 0


def _explanations(contents: Contents) -> str:
    drawn = any(one.where for group in contents.failures.values() for one in group)
    return f"heat maps of the failures; validation: {NOT_STATED}" if drawn else NOT_STATED


def _settings(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())
