"""Evaluation report: contents -> HTML, with verdicts in sentences and figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import isnan
from pathlib import Path
from typing import Any

from markupsafe import Markup

from mrknee import __version__
from mrknee.metrics.comparison import Comparison, Difference, MeanDifference
from mrknee.metrics.curves import precision_recall, roc, roc_band
from mrknee.metrics.formatting import format_exams
from mrknee.metrics.operating_point import OperatingScore
from mrknee.metrics.scorecard import FindingScore
from mrknee.reports import figures, sentences, words
from mrknee.reports.claim import claim_items
from mrknee.reports.contents import Contents
from mrknee.reports.published import PublishedAuc, aucs_of, means_of, readings_of
from mrknee.reports.templates import templates

OURS = "this model"


@dataclass(frozen=True)
class Part:
    """The part of the report about one finding.

    Attributes:
        name: name of the finding.
        title: title of the finding.
        score: its scores.
        roc: ROC figure; empty if there is no curve.
        precision_recall: precision-recall figure; may be empty.
        reliability: reliability figure; may be empty.
        verdict: the meaning of the AUC as a sentence.
        calls: result of the first operating point as a sentence; empty without one.
        doubtful: whether the AUC's interval contains 0.5 or lies below it.
        band_method: method of the ROC curve's band.
        mistakes: kind of error, true state of the finding, and number of errors at the first
            operating point (None without one).
    """

    name: str
    title: str
    score: FindingScore
    roc: Markup
    precision_recall: Markup
    reliability: Markup
    verdict: str
    calls: str
    doubtful: bool
    band_method: str
    mistakes: tuple[tuple[str, str, int | None], ...]


def render(contents: Contents) -> str:
    """Returns the report as one HTML page without scripts and external resources."""
    environment = templates()
    environment.filters["unbroken"] = words.unbroken
    environment.globals.update(
        number=words.number,
        with_interval=lambda *given: words.unbroken(words.with_interval(*given)),
        share=lambda one: words.unbroken(words.share(one)),
        percent=words.percent,
        p_value=words.p_value,
        difference=lambda one: words.unbroken(words.difference(one)),
        rule=words.rule,
        quoted=words.quoted,
        aucs_of=aucs_of,
        means_of=means_of,
        title_of=partial(words.heading, titles=contents.titles),
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
        published=published_of(parts),
        rules=_rules(parts),
        readings_of=readings_of,
        marks=figures.MARKS,
        aucs=_svg(figures.auc_plot(_auc_groups(contents))),
        warnings=sentences.warnings_of(contents),
        origin=[sentences.scored(contents), *sentences.split_origin(contents)],
        calibrated=sentences.calibration_of(contents),
        mean_alone=sentences.mean_alone(contents),
        verdict=_verdict_of(contents.comparison),
        compared=sentences.compared(contents.comparison, contents.titles),
        methods=_methods(parts),
        claim=claim_items(contents),
        version=__version__,
    )


def _svg(text: str) -> Markup:
    return Markup(text)  # noqa: S704  # created by report.plot, which escapes all text


def _part(contents: Contents, column: int, name: str) -> Part:
    one = contents.card.findings[name]
    labels, scores = contents.labels[:, column], contents.probabilities[:, column]
    title = words.heading(name, contents.titles)
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
        doubtful=one.auc.low <= 0.5,
        band_method=band.method,
        mistakes=_mistakes(one.operating),
    )


def _verdict(one: FindingScore) -> str:
    auc = one.auc
    if isnan(auc.value):
        return f"No AUC: {auc.reason}."
    ranked = (
        f"Of 100 pairs of one knee with and one without the finding, {100 * auc.value:.0f} are "
        f"ranked correctly ({100 * auc.low:.0f} to {100 * auc.high:.0f})."
    )
    if auc.low <= 0.5 <= auc.high:
        return ranked + " This is not distinguishable from chance (50)."
    if auc.high < 0.5:
        return ranked + " This is below chance (50)."
    return ranked


def _calls(operating: Sequence[OperatingScore]) -> str:
    if not operating or isnan(operating[0].point.threshold):
        return ""
    found, spared = operating[0].sensitivity, operating[0].specificity
    if isnan(found.value) or isnan(spared.value):
        return ""
    alarms = words.percent(1 - spared.value, 1 - spared.high, 1 - spared.low)
    return (
        f"At the model's first threshold, {words.share(found)} with the finding are "
        f"detected, and {operating[0].fp} of {spared.n} without it are false positives ({alarms})."
    )


def _mistakes(operating: Sequence[OperatingScore]) -> tuple[tuple[str, str, int | None], ...]:
    fixed = [one for one in operating[:1] if not isnan(one.point.threshold)]
    alarms, missed = (fixed[0].fp, fixed[0].fn) if fixed else (None, None)
    return (
        ("false positive", "finding absent", alarms),
        ("false negative", "finding present", missed),
    )


def _auc_groups(contents: Contents) -> list[tuple[str, list[figures.AucRow]]]:
    groups = []
    for name, one in contents.card.findings.items():
        auc = one.auc
        stated = [_published_row(one) for one in aucs_of(name)]
        rows = [figures.AucRow(OURS, auc.value, auc.low, auc.high, ours=True), *stated]
        title = words.heading(name, contents.titles)
        head = f"{title}: {auc.n_positive} with, {auc.n_negative} without"
        groups.append((head, rows))
    mean = contents.card.mean
    stated = [_published_row(one) for one in means_of(mean.findings)]
    rows = [figures.AucRow(OURS, mean.value, mean.low, mean.high, ours=True), *stated]
    return [*groups, (f"Mean of {len(mean.findings)}: {format_exams(contents.card.n_exams)}", rows)]


def _published_row(one: PublishedAuc) -> figures.AucRow:
    return figures.AucRow(one.source, one.value, one.low, one.high, ours=False)


def published_of(parts: Sequence[Part]) -> list[dict[str, Any]]:
    """Returns source, exams, and whether there is an interval, for each published AUC shown."""
    every = (one for part in parts for one in aucs_of(part.name))
    keys = dict.fromkeys((one.source, one.exams, not isnan(one.low)) for one in every)
    return [dict(zip(("source", "exams", "interval"), key, strict=True)) for key in keys]


def _rules(parts: Sequence[Part]) -> tuple[list[str], list[str]]:
    """Returns the rules of the operating points drawn as filled and as open discs."""
    drawn = [part.score.operating for part in parts]
    first = dict.fromkeys(words.rule(row[0].point.rule) for row in drawn if row)
    others = dict.fromkeys(words.rule(one.point.rule) for row in drawn for one in row[1:])
    return list(first), list(others)


def _methods(parts: Sequence[Part]) -> list[tuple[str, str]]:
    """Returns each measure with its method, per finding if the methods differ."""

    def joined(method: Callable[[Part], str]) -> str:
        return words.one_or_each({part.title: method(part) for part in parts})

    return [
        (
            "AUC: share of pairs in which the exam with the finding scores above the one without, "
            "ties counting one half. Interval",
            joined(lambda part: part.score.auc.method),
        ),
        ("ROC band", joined(lambda part: part.band_method)),
        ("Average precision", joined(lambda part: part.score.average_precision.method)),
        ("Brier score", joined(lambda part: part.score.brier.method)),
        ("Calibration error, bins", joined(lambda part: part.score.reliability.binning)),
        ("Calibration error, interval", joined(lambda part: part.score.reliability.method)),
    ]


def _verdict_of(comparison: Comparison | None) -> Callable[[Difference | MeanDifference], str]:
    def verdict(one: Difference | MeanDifference) -> str:
        return "" if comparison is None else comparison.verdict(one, second="the second")

    return verdict
