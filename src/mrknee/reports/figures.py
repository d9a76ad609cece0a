"""Figures of the evaluation report as inline SVG: AUCs, ROC, precision-recall, reliability.

The description of every figure contains its numbers as text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, isnan

from mrknee.metrics.curves import PrecisionRecall, Roc, RocBand
from mrknee.metrics.operating_point import OperatingScore
from mrknee.metrics.reliability import Reliability
from mrknee.reports.plot import Plot
from mrknee.reports.published import MODEL, RADIOLOGISTS, PublishedReading
from mrknee.reports.words import number, rule, with_interval

SQUARE = (320, 312)
"""Size of a curve's figure, in SVG units: the width of a phone, so that text is not shrunk."""

SQUARE_AREA = (52.0, 10.0, 312.0, 270.0)

WIDE, ROW, HEADING = 350, 21, 26
"""Plot of AUCs, in SVG units: width, height of a row, height of a finding's heading."""

TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)

MARKS = {RADIOLOGISTS: "radiologist", MODEL: "bien"}
"""Published reader -> class in the style sheet."""


@dataclass(frozen=True)
class AucRow:
    """A row of the plot of AUCs.

    Attributes:
        label: name of the model, at most about twelve letters.
        value: the AUC.
        low: lower limit of its 95 % interval; NaN if unknown.
        high: upper limit; NaN if unknown.
        ours: whether it is the AUC of the evaluated model.
    """

    label: str
    value: float
    low: float
    high: float
    ours: bool

    @property
    def words(self) -> str:
        """The AUC with its interval, two decimals."""
        if not self.ours and isnan(self.low):
            return f"{number(self.value, 2)}, no interval"
        return with_interval(self.value, self.low, self.high, 2)


def auc_plot(groups: Sequence[tuple[str, Sequence[AucRow]]]) -> str:
    """Draws AUCs as dots with their intervals, one group per finding.

    Args:
        groups: heading (finding and counts) and rows of each group.
    """
    rows = [row for _, group in groups for row in group]
    least = min((v for row in rows for v in (row.value, row.low) if not isnan(v)), default=0.5)
    left = min(0.5, floor(least * 10) / 10)
    top = 8
    bottom = top + sum(HEADING + ROW * len(group) for _, group in groups)
    texts = [f"{head}: " + ", ".join(f"{r.label} {r.words}" for r in g) for head, g in groups]
    plot = Plot(
        "aucs",
        "AUC per finding with 95 % intervals, and published values",
        ". ".join(texts) + ".",
        size=(WIDE, bottom + 40),
        area=(76.0, top, 230.0, bottom),
        x=(left, 1.0),
        y=(float(bottom), float(top)),
    )
    for tenth in range(round(left * 10), 11):
        at = tenth / 10
        plot.line((at, top), (at, bottom), "chance" if tenth == 5 else "grid")
        plot.text(plot.at(at, top)[0], bottom + 15, f"{at:g}", "tick mid")
    plot.text(plot.at(0.5, top)[0], bottom + 31, "chance", "tick mid")
    plot.text(plot.at(1.0, top)[0], bottom + 31, "perfect", "tick mid")
    y = float(top)
    for heading, group in groups:
        y += HEADING
        plot.text(0, y - 8, heading, "group")
        for row in group:
            _auc_row(plot, row, y + ROW / 2 - 4)
            y += ROW
    return plot.svg()


def _auc_row(plot: Plot, row: AucRow, y: float) -> None:
    kind = "ours" if row.ours else "other"
    plot.text(0, y + 4, row.label, f"row {kind}")
    plot.text(238, y + 4, row.words, f"row {kind}")
    if isnan(row.value):
        return
    if not isnan(row.low):
        plot.line((row.low, y), (row.high, y), f"interval {kind}")
    if isnan(row.low):
        plot.square((row.value, y), "stated", 3.6, turned=True)
    else:
        plot.dot((row.value, y), f"dot {kind}", 5.5 if row.ours else 4.0)


def roc_plot(
    finding: str,
    title: str,
    curve: Roc,
    band: RocBand,
    operating: Sequence[OperatingScore],
    readings: Sequence[PublishedReading],
) -> str:
    """Draws a ROC curve with its 95 % band, operating points and published readers.

    Args:
        finding: name of the finding, used in the figure's id.
        title: title of the finding.
        curve: the curve; must have points.
        band: its pointwise band; may have no points.
        operating: drawn as discs with the intervals of sensitivity and specificity.
        readings: published results on other exams, drawn as squares and triangles.
    """
    texts = [f"{_operating_text(one)}" for one in operating] + [
        f"{one.reader}, other exams: sensitivity {one.sensitivity:.3f}, specificity "
        f"{one.specificity:.3f}, n {one.n}"
        for one in readings
    ]
    plot = Plot(
        f"roc-{finding}",
        f"{title}: ROC curve",
        f"Sensitivity over 1 − specificity on {curve.n_positive} exams with and "  # noqa: RUF001
        f"{curve.n_negative} without the finding. " + ". ".join(texts),
        size=SQUARE,
        area=SQUARE_AREA,
    )
    plot.axes("1 − specificity", "sensitivity", TICKS)  # noqa: RUF001
    plot.line((0, 0), (1, 1), "chance")
    edge = [*zip(band.fpr, band.low, strict=True)]
    if edge:
        plot.region([*edge, *reversed([*zip(band.fpr, band.high, strict=True)])], "band")
    plot.path(zip(curve.fpr, curve.tpr, strict=True), "curve")
    for reading in readings:
        place = (1 - reading.specificity, reading.sensitivity)
        draw = plot.triangle if reading.reader == MODEL else plot.square
        draw(place, MARKS[reading.reader])
    for place_in_row, one in enumerate(operating):
        found, spared = one.sensitivity, one.specificity
        if isnan(found.value) or isnan(spared.value):
            continue
        place = (1 - spared.value, found.value)
        plot.line((place[0], found.low), (place[0], found.high), "cross")
        plot.line((1 - spared.high, place[1]), (1 - spared.low, place[1]), "cross")
        plot.dot(place, "point first" if place_in_row == 0 else "point")
    return plot.svg()


def _operating_text(one: OperatingScore) -> str:
    if isnan(one.sensitivity.value) or isnan(one.specificity.value):
        return f"Operating point {rule(one.point.rule)}: none"
    return (
        f"Operating point {rule(one.point.rule)}: sensitivity {one.sensitivity.value:.3f} "
        f"({one.sensitivity.low:.3f} to {one.sensitivity.high:.3f}, n {one.sensitivity.n}), "
        f"specificity {one.specificity.value:.3f} ({one.specificity.low:.3f} to "
        f"{one.specificity.high:.3f}, n {one.specificity.n})"
    )


def precision_recall_plot(finding: str, title: str, curve: PrecisionRecall) -> str:
    """Draws a precision-recall curve and the chance level.

    Args:
        finding: name of the finding, used in the figure's id.
        title: title of the finding.
        curve: the curve; must have points.
    """
    plot = Plot(
        f"pr-{finding}",
        f"{title}: precision-recall curve",
        f"Average precision {curve.average_precision:.3f}, 95 % interval {curve.low:.3f} to "
        f"{curve.high:.3f}, on {curve.n_positive} exams with and {curve.n_negative} without the "
        f"finding; chance level {curve.prevalence:.3f}.",
        size=SQUARE,
        area=SQUARE_AREA,
    )
    plot.axes("recall (sensitivity)", "precision (PPV)", TICKS)
    plot.line((0, curve.prevalence), (1, curve.prevalence), "chance")
    steps = [(float(r), float(p)) for r, p in zip(curve.recall, curve.precision, strict=True)]
    # between two thresholds the precision of the higher recall applies, as in average precision
    corners = [(steps[i + 1][0], steps[i][1]) for i in range(len(steps) - 1)]
    path = [steps[0], *(p for pair in zip(corners, steps[1:], strict=True) for p in pair)]
    plot.path(path, "curve")
    return plot.svg()


def reliability_plot(finding: str, title: str, diagram: Reliability) -> str:
    """Draws a reliability diagram: one dot per bin, with the interval of the observed share.

    Args:
        finding: name of the finding, used in the figure's id.
        title: title of the finding.
        diagram: the bins; at least one.
    """
    texts = [
        f"predicted {p.mean_probability:.2f}, observed in {p.observed.count} of {p.observed.n}"
        for p in diagram.points
    ]
    plot = Plot(
        f"reliability-{finding}",
        f"{title}: reliability diagram",
        f"Observed share over predicted probability on {diagram.n} exams, in bins: "
        + "; ".join(texts)
        + ".",
        size=SQUARE,
        area=SQUARE_AREA,
    )
    plot.axes("predicted probability", "observed share", TICKS)
    plot.line((0, 0), (1, 1), "chance")
    plot.path(((p.mean_probability, p.observed.value) for p in diagram.points), "thin")
    for point in diagram.points:
        x = point.mean_probability
        plot.line((x, point.observed.low), (x, point.observed.high), "cross")
        plot.dot((x, point.observed.value), "point first")
    return plot.svg()
