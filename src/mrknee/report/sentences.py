"""What the page says in sentences: warnings, where the exams came from, how it was calibrated."""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan
from types import MappingProxyType
from typing import Any

from mrknee.exams import MRNET_FINDINGS
from mrknee.report import words
from mrknee.report.contents import Contents, ModelFacts
from mrknee.report.published import means_of
from mrknee.scoring.comparison import Comparison
from mrknee.scoring.text import exams

FEW = 100
"""Exams with, and without, a finding that an evaluation should have at least.

G. S. Collins, E. O. Ogundimu, D. G. Altman, "Sample size considerations for the external
validation of a multivariable prognostic model: a resampling study", Statistics in Medicine 35
(2016) 214-226: at least 100 of each, better 200.
"""


def warnings_of(contents: Contents) -> list[str]:
    """What must be known before any number is believed, the gravest first."""
    card = contents.card
    found = [note[0].upper() + note[1:] + "." for note in card.notes]
    if contents.synthetic:
        found.append(
            "Synthetic knees, drawn by mrknee phantom: nothing here says anything about patients. "
            "Published values are of real knees and stand here for scale only."
        )
    for name, one in card.findings.items():
        auc, title = one.auc, words.heading(name, contents.titles)
        if auc.reason is not None:
            found.append(f"{title} has no AUC: {auc.reason}.")
        elif auc.low <= 0.5 <= auc.high:
            found.append(
                f"{title} can't be told from guessing: the AUC's interval "
                f"({auc.low:.2f} to {auc.high:.2f}) holds 0.5."
            )
        elif auc.high < 0.5:
            found.append(
                f"{title} is ranked worse than by guessing: AUC {auc.value:.2f} "
                f"({auc.low:.2f} to {auc.high:.2f}). The usual cause is a fault: labels or columns "
                "swapped, or probabilities of its absence."
            )
    few = {
        words.heading(name, contents.titles): min(one.auc.n_positive, one.auc.n_negative)
        for name, one in card.findings.items()
        if 0 < min(one.auc.n_positive, one.auc.n_negative) < FEW
    }
    if few:
        least = ", ".join(f"{name} {count}" for name, count in few.items())
        found.append(
            f"Few exams: the smaller class has {least}; below {FEW} (Collins 2016) an interval "
            "is too wide to tell good systems apart."
        )
    return found


def scored(contents: Contents) -> str:
    """Which tables of predictions were scored."""
    sources = contents.sources
    if len(sources) == 1:
        return f"Scored: {next(iter(sources))}."
    named = "; ".join(f"{name} ({', '.join(findings)})" for name, findings in sources.items())
    if contents.joined:
        return (
            f"Scored as one model: {len(sources)} tables; for each finding, the mean over those "
            f"that have it. {named}."
        )
    return f"Scored as one model: {len(sources)} tables, each finding from one of them. {named}."


def split_origin(contents: Contents) -> list[str]:
    """Where the exams and the split came from, as sentences."""
    facts = contents.model
    if facts is None:
        return [
            "No model was named, so this page doesn't know which exams it was trained on, nor "
            "whether these were among them. mrknee evaluate --model RUN tells, and adds operating "
            "points, calibration and heat maps."
        ]
    known = facts.provenance
    trained_on = known.get("data")
    named = words.quoted(trained_on) if trained_on else "that is not stated"
    members = known.get("members")
    who = f"The model {words.quoted(facts.name)}"
    if members:
        who += f", an ensemble of {len(members)},"
    said = [
        f"{who} was trained on {known.get('trained_on', 'unknown')} exams of the data set {named}."
    ]
    selected: Mapping[str, Any] = known.get("selected_on", {})
    if selected.get("part") == "inner":
        said.append(
            f"Its epoch was chosen on {selected['exams']} inner exams: a stratified part of train "
            "that was not trained on."
        )
    elif selected:
        said.append(
            f"Its epoch was chosen on the {selected['exams']} exams of {selected['part']}: numbers "
            "on those exams are optimistic."
        )
    else:
        said.append("On which exams its epoch was chosen is not stated.")
    fixed = [
        what
        for what, there in (
            ("calibration", facts.calibration),
            ("thresholds", facts.operating_points),
        )
        if there
    ]
    if fixed:
        where = "the exams that chose the epoch" if selected else "exams that are not stated"
        said.append(f"Fixed on {where}: {' and '.join(fixed)}.")
    return [
        *said,
        _where_from(contents, facts),
        "Splits are by exam; whether a patient is in two of them is not known.",
    ]


def _where_from(contents: Contents, facts: ModelFacts) -> str:
    """Whether the exams scored are the run's own, as far as names and ids tell."""
    split = f"Scored here is the split {contents.card.split} of the data set "
    split += words.quoted(contents.data)
    if facts.shared is None:
        return (
            f"{split}. Whether its exams were trained on is not known: the run's split.csv is not "
            "there."
        )
    trained, chosen = (
        facts.shared.get(part, 0)
        for part in ("train", facts.provenance.get("selected_on", {}).get("part"))
    )
    ids = f"{trained} of its {exams(contents.card.n_exams)} have an id that was trained on, "
    ids += f"{chosen} one that chose the epoch"
    if facts.provenance.get("data") == contents.data:
        return f"{split}, which has the name of the one trained on. {ids}."
    return (
        f"{split}, which has not the name of the one trained on; whether these are other exams is "
        f"not known. {ids}."
    )


def calibration_of(contents: Contents) -> list[str]:
    """How the probabilities were calibrated, finding by finding, as sentences."""
    if contents.model is None:
        return [
            "Whether these probabilities were calibrated is not known without the model "
            "(--model RUN)."
        ]
    fitted = contents.model.calibration
    members = contents.model.provenance.get("members")
    if members:
        return [
            f"Each probability is the mean of {len(members)} models' calibrated probabilities; the "
            "mean is not calibrated again, and has no thresholds."
        ]
    if fitted is None:
        return ["This model's probabilities were not calibrated."]
    names = [name for name in contents.card.findings if name in fitted.exams]
    each = [
        f"{words.heading(n, contents.titles)} on {fitted.exams[n]}"
        for n in names
        if not isnan(fitted.prevalences[n])
    ]
    said = [
        f"{words.heading(name, contents.titles)}: {fitted.reasons[name]}."
        for name in names
        if name in fitted.reasons
    ]
    if each:
        by = f"Calibrated ({fitted.method}) on exams that were not trained on: "
        said.insert(0, f"{by}{', '.join(each)}.")
    return said


def mean_alone(contents: Contents) -> str:
    """Why no published mean stands beside this one, where a reader would look for it."""
    findings = contents.card.mean.findings
    if means_of(findings) or not set(findings) & set(MRNET_FINDINGS):
        return ""
    return (
        f"The stated means are of {', '.join(MRNET_FINDINGS)}; this one is of "
        f"{', '.join(findings)}, so none stands beside it."
    )


def compared(
    comparison: Comparison | None, titles: Mapping[str, str] = MappingProxyType({})
) -> list[str]:
    """What else a reader of the comparison must know: what was left out, and the methods."""
    if comparison is None:
        return []
    each = {words.heading(one.finding, titles): one for one in comparison.differences}
    means = comparison.mean_differences
    told = [note[0].upper() + note[1:] + "." for note in comparison.notes]
    reasons = {
        title: one.reason
        for title, one in each.items()
        if one.reason is not None and not isnan(one.difference)
    }
    if len(reasons) == len(each):
        told.append(f"All findings: {words.one_or_each(reasons)}.")
    else:
        told += [f"{title}: {reason}." for title, reason in reasons.items()]
    intervals = words.one_or_each({title: one.method for title, one in each.items()})
    told.append(f"Intervals of the differences: {intervals}.")
    told += [
        f"The mean's difference: {one.method}; it has no p."
        for one in means
        if not isnan(one.difference)
    ]
    return told
