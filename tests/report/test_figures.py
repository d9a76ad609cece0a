"""Figures: what is drawn lies where the data is, and is told in words too."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from mrknee.exams import MRNET_FINDINGS
from mrknee.report.figures import (
    SQUARE_AREA,
    AucRow,
    auc_plot,
    precision_recall_plot,
    reliability_plot,
    roc_plot,
)
from mrknee.report.plot import Plot
from mrknee.report.published import (
    AUCS,
    RADIOLOGISTS,
    READINGS,
    aucs_of,
    means_of,
    readings_of,
)
from mrknee.report.words import number, one_or_each, share, unbroken, with_interval
from mrknee.scoring.curves import precision_recall, roc, roc_band
from mrknee.scoring.operating_point import OperatingPoint, operate
from mrknee.scoring.proportions import wilson
from mrknee.scoring.reliability import reliability

LEFT, TOP, RIGHT, BOTTOM = SQUARE_AREA


def case(exams: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities that know something of them."""
    rng = np.random.default_rng(0)
    labels = (rng.random(exams) < 0.45).astype(float)
    return labels, 1 / (1 + np.exp(-rng.normal(size=exams) - 2 * (labels - 0.5)))


def marks(svg: str, kind: str) -> list[ET.Element]:
    """The marks of a class."""
    return [e for e in ET.fromstring(svg).iter() if kind in e.get("class", "").split()]  # noqa: S314  # our own


def points(mark: ET.Element) -> np.ndarray:
    """A line's points in data coordinates of the square figures."""
    pairs = np.array([p.split(",") for p in mark.get("points", "").split()], dtype=float)
    return np.stack(
        [(pairs[:, 0] - LEFT) / (RIGHT - LEFT), (BOTTOM - pairs[:, 1]) / (BOTTOM - TOP)]
    ).T


def test_the_roc_drawn_is_the_roc() -> None:
    """The line's points are the curve's, to a tenth of a pixel, and the band holds the line."""
    labels, scores = case()
    curve, band = roc(labels, scores), roc_band(labels, scores, seed=0)
    svg = roc_plot("acl", "ACL tear", curve, band, [], [])
    drawn = points(marks(svg, "curve")[0])
    np.testing.assert_allclose(drawn, np.stack([curve.fpr, curve.tpr], axis=1), atol=5e-4)
    edge = points(marks(svg, "band")[0])
    np.testing.assert_allclose(edge[: len(band.fpr), 1], band.low, atol=5e-4)
    np.testing.assert_allclose(edge[len(band.fpr) :, 1], band.high[::-1], atol=5e-4)


def test_points_on_the_roc_lie_at_sensitivity_and_specificity() -> None:
    """Our threshold and the radiologists' point, each at (1 - specificity, sensitivity)."""
    labels, scores = case()
    point = operate(OperatingPoint("Youden", 0.5, 40, 66), labels, scores)
    band = roc_band(labels, scores, seed=0)
    svg = roc_plot("acl", "ACL tear", roc(labels, scores), band, [point], readings_of("acl"))
    dot = marks(svg, "point")[0]
    x = (float(dot.get("cx", "nan")) - LEFT) / (RIGHT - LEFT)
    y = (BOTTOM - float(dot.get("cy", "nan"))) / (BOTTOM - TOP)
    assert x == pytest.approx(1 - point.specificity.value, abs=1e-3)
    assert y == pytest.approx(point.sensitivity.value, abs=1e-3)
    upright, level = marks(svg, "cross")
    ends = [(BOTTOM - float(upright.get(end, "nan"))) / (BOTTOM - TOP) for end in ("y1", "y2")]
    assert ends == pytest.approx([point.sensitivity.low, point.sensitivity.high], abs=1e-3)
    ends = [(float(level.get(end, "nan")) - LEFT) / (RIGHT - LEFT) for end in ("x1", "x2")]
    expected = [1 - point.specificity.high, 1 - point.specificity.low]
    assert ends == pytest.approx(expected, abs=1e-3)
    (model,) = marks(svg, "bien")
    assert model.tag.endswith("polygon")  # no diamond: that is the post in the plot of AUCs
    corners = points(model)
    assert (corners[:, 0].min() + corners[:, 0].max()) / 2 == pytest.approx(1 - 0.968, abs=1e-3)
    assert (corners[:, 1].min() + corners[:, 1].max()) / 2 == pytest.approx(0.759, abs=1e-3)
    (square,) = marks(svg, "radiologist")
    middle = float(square.get("x", "nan")) + float(square.get("width", "nan")) / 2
    assert (middle - LEFT) / (RIGHT - LEFT) == pytest.approx(1 - 0.933, abs=1e-3)
    assert f"{RADIOLOGISTS}, other exams: sensitivity 0.906" in svg
    assert f"n {point.sensitivity.n})" in svg


def test_a_threshold_that_is_not_there_is_not_drawn() -> None:
    """One class only among those it was fixed on: no dot, and the description says none."""
    labels, scores = case()
    point = operate(OperatingPoint("Youden", math.nan, 0, 9, "one class only"), labels, scores)
    band = roc_band(labels, scores, seed=0)
    svg = roc_plot("acl", "ACL tear", roc(labels, scores), band, [point], [])
    assert not marks(svg, "point")
    assert "Operating point Youden: none" in svg


def test_the_area_under_the_precision_recall_steps_is_the_average_precision() -> None:
    """The line is drawn in the steps that average precision sums, not interpolated."""
    labels, scores = case()
    curve = precision_recall(labels, scores)
    drawn = points(marks(precision_recall_plot("acl", "ACL tear", curve), "curve")[0])
    area = -np.sum(np.diff(drawn[:, 0]) * (drawn[1:, 1] + drawn[:-1, 1]) / 2)
    assert area == pytest.approx(curve.average_precision, abs=2e-3)


def test_every_bin_is_a_dot_in_its_interval() -> None:
    """As many dots as bins, each at (mean probability, observed share)."""
    labels, scores = case()
    diagram = reliability(labels, scores)
    svg = reliability_plot("acl", "ACL tear", diagram)
    dots = marks(svg, "point")
    assert len(dots) == len(diagram.points) > 3
    for dot, one in zip(dots, diagram.points, strict=True):
        x = (float(dot.get("cx", "nan")) - LEFT) / (RIGHT - LEFT)
        y = (BOTTOM - float(dot.get("cy", "nan"))) / (BOTTOM - TOP)
        assert x == pytest.approx(one.mean_probability, abs=1e-3)
        assert y == pytest.approx(one.observed.value, abs=1e-3)
        assert f"so in {one.observed.count} of {one.observed.n}" in svg


def test_aucs_below_chance_stay_in_the_plot() -> None:
    """The axis reaches down to the lowest interval; an AUC of NaN is told, not drawn."""
    rows = [
        AucRow("this model", 0.4, 0.24, 0.58, True),
        AucRow("the post", 0.8, math.nan, math.nan, False),
    ]
    svg = auc_plot(
        [
            ("ACL tear", rows),
            ("Abnormal", [AucRow("this model", math.nan, math.nan, math.nan, True)]),
        ]
    )
    (dot,) = marks(svg, "dot")
    (line,) = marks(svg, "interval")
    assert (
        76
        <= float(line.get("x1", "nan"))
        < float(dot.get("cx", "nan"))
        < float(line.get("x2", "nan"))
    )
    assert len(marks(svg, "stated")) == 1
    assert "0.80, no interval" in svg
    assert "this model —" in svg


def test_words_of_a_data_set_can_not_break_out() -> None:
    """Names are escaped in title, description and marks."""
    plot = Plot("a", "<b>", 'x"&<script>', size=(9, 9), area=(0, 0, 9, 9))
    plot.text(1, 1, "<i>")
    root = ET.fromstring(plot.svg())  # noqa: S314  # our own
    assert [e.text for e in root] == ["<b>", 'x"&<script>', "<i>"]
    assert "<script>" not in unbroken("<script> (1)")


def test_numbers_come_with_their_interval() -> None:
    """Halves are rounded up, shares carry count and n, NaN is a dash."""
    assert number(0.965, 2) == "0.97"
    assert with_interval(0.9154, 0.8621, 0.9476) == "0.915 (0.862–0.948)"  # noqa: RUF001
    assert with_interval(0.8943, math.nan, math.nan) == "0.894 (no interval)"
    assert with_interval(math.nan, math.nan, math.nan) == "—"
    assert share(wilson(49, 54)) == "49 of 54 (91 %; 80–96 %)"  # noqa: RUF001
    assert share(wilson(0, 0)) == "0 of 0"
    assert number(-0.0004) == "0.000"
    assert number(-0.0006) == "-0.001"


def test_what_holds_for_all_findings_is_said_once() -> None:
    """The same text once; texts that differ with the findings they hold for."""
    assert one_or_each({"A": "x", "B": "x"}) == "x"
    assert one_or_each({"A": "x", "B": "y", "C": "x"}) == "A, C: x; B: y"


def test_published_values_say_what_they_are() -> None:
    """Bien's have intervals that hold them; the post's have none and are marked; all have n 120."""
    for one in AUCS:
        assert one.n == 120
        if one.source == "the post":
            assert math.isnan(one.low)
            assert "stated in the post" in one.standing
            assert "not reproduced" in one.standing
        else:
            assert one.low < one.value < one.high
    assert [one.finding for one in READINGS if one.reader == RADIOLOGISTS] == [
        "abnormal",
        "acl",
        "meniscus",
    ]
    assert readings_of("effusion") == ()
    assert aucs_of("mean") == ()  # a finding may be called so
    assert [one.value for one in means_of(MRNET_FINDINGS)] == [0.8943]
    assert means_of((*MRNET_FINDINGS, "effusion")) == ()
