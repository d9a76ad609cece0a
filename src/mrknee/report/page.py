"""Contents become one page: what is said about the numbers, and their figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any

from markupsafe import Markup

from mrknee import __version__
from mrknee.exams import MRNET_FINDINGS
from mrknee.report import figures, words
from mrknee.report.claim import claim_table
from mrknee.report.contents import Contents
from mrknee.report.published import aucs_of, readings_of
from mrknee.report.templates import templates
from mrknee.scoring.curves import precision_recall, roc, roc_band
from mrknee.scoring.operating_point import OperatingScore
from mrknee.scoring.scorecard import FindingScore

FEW = 100
"""Exams with, and without, a finding that an evaluation should have at least.

G. S. Collins, E. O. Ogundimu, D. G. Altman, "Sample size considerations for the external
validation of a multivariable prognostic model: a resampling study", Statistics in Medicine 35
(2016) 214-226: at least 100 of each, better 200.
"""

OURS = "this model"


@dataclass(frozen=True)
class Part:
    """A finding's part of the page.

    Attributes:
        name: the finding.
        title: the finding in words.
        score: its scores.
        roc: the ROC figure, empty where there is no curve.
        precision_recall: the precision-recall figure, or empty.
        reliability: the reliability figure, or empty.
        verdict: what the AUC means, in a sentence.
        calls: what the first operating point does, in a sentence; empty without one.
        undecided: whether the AUC's interval holds 0.5.
        band_method: how the ROC curve's band was made.
        mistakes: kind, what is so instead, and how many there are at the first operating point
            (None without one).
    """

    name: str
    title: str
    score: FindingScore
    roc: Markup
    precision_recall: Markup
    reliability: Markup
    verdict: str
    calls: str
    undecided: bool
    band_method: str
    mistakes: tuple[tuple[str, str, int | None], ...]


def render(contents: Contents) -> str:
    """The page as HTML: self-contained, no script, nothing loaded."""
    environment = templates()
    environment.filters["unbroken"] = words.unbroken
    environment.globals.update(
        number=words.number,
        with_interval=lambda *given: words.unbroken(words.with_interval(*given)),
        share=lambda one: words.unbroken(words.share(one)),
        percent=words.percent,
        p_value=words.p_value,
        difference=lambda one: words.unbroken(words.difference(one)),
        outcome=words.outcome,
        aucs_of=aucs_of,
        title_of=heading,
        isnan=isnan,
    )
    parts = [_part(contents, column, name) for column, name in enumerate(contents.card.findings)]
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    return environment.get_template("report.html").render(
        c=contents,
        card=contents.card,
        parts=parts,
        style=Markup(style),  # noqa: S704  # our own file
        readings=any(readings_of(part.name) for part in parts),
        readings_of=readings_of,
        marks=figures.MARKS,
        aucs=_svg(figures.auc_plot(_auc_groups(contents))),
        warnings=warnings_of(contents),
        origin=split_origin(contents),
        claim=claim_table(contents),
        band_method=next((p.band_method for p in parts if p.roc), "none"),
        version=__version__,
    )


def heading(finding: str) -> str:
    """A finding in words, to start a line with."""
    title = words.title_of(finding)
    return title[0].upper() + title[1:]


def _svg(text: str) -> Markup:
    return Markup(text)  # noqa: S704  # made by report.plot, which escapes every word


def _part(contents: Contents, column: int, name: str) -> Part:
    one = contents.card.findings[name]
    labels, scores = contents.labels[:, column], contents.probabilities[:, column]
    title = heading(name)
    curve, recall = roc(labels, scores), precision_recall(labels, scores)
    band = roc_band(labels, scores, seed=contents.card.seed)
    drawn = figures.roc_plot(name, title, curve, band, one.operating, readings_of(name))
    return Part(
        name=name,
        title=title,
        score=one,
        roc=_svg(drawn if len(curve.fpr) else ""),
        precision_recall=_svg(
            figures.precision_recall_plot(name, title, recall) if len(recall.recall) else ""
        ),
        reliability=_svg(
            figures.reliability_plot(name, title, one.reliability) if one.reliability.points else ""
        ),
        verdict=_verdict(one),
        calls=_calls(one.operating),
        undecided=one.auc.low <= 0.5 <= one.auc.high,
        band_method=band.method,
        mistakes=_mistakes(one.operating),
    )


def _verdict(one: FindingScore) -> str:
    auc = one.auc
    if isnan(auc.value):
        return f"No AUC: {auc.reason}."
    ranked = (
        f"Of 100 pairs of one knee with and one without it, {100 * auc.value:.0f} are ranked "
        f"right ({100 * auc.low:.0f} to {100 * auc.high:.0f})."
    )
    if auc.low <= 0.5 <= auc.high:
        return ranked + " That can't be told from guessing (50)."
    return ranked


def _calls(operating: Sequence[OperatingScore]) -> str:
    if not operating or isnan(operating[0].point.threshold):
        return ""
    found, spared = operating[0].sensitivity, operating[0].specificity
    if isnan(found.value) or isnan(spared.value):
        return ""
    alarms = words.percent(1 - spared.value, 1 - spared.high, 1 - spared.low)
    return (
        f"At its threshold it finds {words.share(found)} and raises a false alarm in "
        f"{operating[0].fp} of {spared.n} without it ({alarms})."
    )


def _mistakes(operating: Sequence[OperatingScore]) -> tuple[tuple[str, str, int | None], ...]:
    fixed = [one for one in operating[:1] if not isnan(one.point.threshold)]
    alarms, missed = (fixed[0].fp, fixed[0].fn) if fixed else (None, None)
    return (("false positive", "has it not", alarms), ("false negative", "has it", missed))


def _auc_groups(contents: Contents) -> list[tuple[str, list[figures.AucRow]]]:
    groups = []
    for name, one in contents.card.findings.items():
        auc = one.auc
        rows = [figures.AucRow(OURS, auc.value, auc.low, auc.high, ours=True), *_stated(name)]
        head = f"{heading(name)}: {auc.n_positive} with, {auc.n_negative} without"
        groups.append((head, rows))
    mean = contents.card.mean
    stated = _stated("mean") if mean.findings == MRNET_FINDINGS else []
    rows = [figures.AucRow(OURS, mean.value, mean.low, mean.high, ours=True), *stated]
    return [*groups, (f"Mean of {len(mean.findings)}: {words.exams(contents.card.n_exams)}", rows)]


def _stated(name: str) -> list[figures.AucRow]:
    return [figures.AucRow(p.source, p.value, p.low, p.high, ours=False) for p in aucs_of(name)]


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
        auc = one.auc
        if auc.reason is not None:
            found.append(f"{heading(name)} has no AUC: {auc.reason}.")
        elif auc.low <= 0.5 <= auc.high:
            found.append(
                f"{heading(name)} can't be told from guessing: the AUC's interval "
                f"({auc.low:.2f} to {auc.high:.2f}) holds 0.5."
            )
    few = {
        heading(name): min(one.auc.n_positive, one.auc.n_negative)
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


def split_origin(contents: Contents) -> list[str]:
    """Where the exams and the split came from, as sentences."""
    facts, split = contents.model, contents.card.split
    if facts is None:
        return [
            "No model was named, so this page doesn't know which exams it was trained on, nor "
            "whether these were among them. mrknee evaluate --model RUN tells, and adds operating "
            "points, calibration and heat maps."
        ]
    known = facts.provenance
    said = [f"The model {facts.name} was trained on {known.get('trained_on', 'unknown')} exams of "]
    said[0] += f"the data set {known.get('data', 'unknown')}."
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
        said.append(f"Fixed on the exams that chose the epoch: {' and '.join(fixed)}.")
    if known.get("data") == contents.data:
        said.append(f"Scored here is the split {split} of the data set of that name.")
    else:
        said.append(f"Scored here is the split {split} of another data set, {contents.data}.")
    said.append("Splits are by exam; whether a patient is in two of them is not known.")
    return said
