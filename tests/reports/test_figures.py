"""Figures: marks are at the positions of the data, and descriptions contain the numbers."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from mrknee.exams import MRNET_FINDINGS
from mrknee.metrics.curves import precision_recall, roc, roc_band
from mrknee.metrics.operating_point import OperatingPoint, score_operating_point
from mrknee.metrics.proportions import wilson
from mrknee.metrics.reliability import reliability
from mrknee.reports.figures import (
    SQUARE_AREA,
    AucRow,
    auc_plot,
    precision_recall_plot,
    reliability_plot,
    roc_plot,
)
from mrknee.reports.plot import Plot
from mrknee.reports.published import (
    AUCS,
    RADIOLOGISTS,
    READINGS,
    aucs_of,
    means_of,
    readings_of,
)
from mrknee.reports.words import number, one_or_each, share, unbroken, with_interval

LEFT, TOP, RIGHT, BOTTOM = SQUARE_AREA


def case(exams: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Returns labels and correlated probabilities."""
    rng = np.random.default_rng(0)
    labels = (rng.random(exams) < 0.45).astype(float)
    return labels, 1 / (1 + np.exp(-rng.normal(size=exams) - 2 * (labels - 0.5)))


def marks(svg: str, kind: str) -> list[ET.Element]:
    """Returns the marks of a class."""
    return [e for e in ET.fromstring(svg).iter() if kind in e.get("class", "").split()]  # noqa: S314  # our own


def points(mark: ET.Element) -> np.ndarray:
    """Returns a line's points in data coordinates of the square figures."""
    pairs = np.array([p.split(",") for p in mark.get("points", "").split()], dtype=float)
    return np.stack(
        [(pairs[:, 0] - LEFT) / (RIGHT - LEFT), (BOTTOM - pairs[:, 1]) / (BOTTOM - TOP)]
    ).T


def test_the_drawn_roc_curve_is_the_computed_one() -> None:
    """The points of the line and of the band equal the computed ones to a tenth of a pixel."""
    labels, scores = case()
    curve, band = roc(labels, scores), roc_band(labels, scores, seed=0)
    svg = roc_plot("acl", "ACL tear", curve, band, [], [])
    drawn = points(marks(svg, "curve")[0])
    np.testing.assert_allclose(drawn, np.stack([curve.fpr, curve.tpr], axis=1), atol=5e-4)
    edge = points(marks(svg, "band")[0])
    np.testing.assert_allclose(edge[: len(band.fpr), 1], band.low, atol=5e-4)
    np.testing.assert_allclose(edge[len(band.fpr) :, 1], band.high[::-1], atol=5e-4)


def test_points_in_the_roc_plot_are_at_sensitivity_and_specificity() -> None:
    """Operating points and published readers are at (1 - specificity, sensitivity)."""
    labels, scores = case()
    point = score_operating_point(OperatingPoint("Youden", 0.5, 40, 66), labels, scores)
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
    assert model.tag.endswith(
        "polygon"
    )  # not a diamond, which is the blog post in the plot of AUCs
    corners = points(model)
    assert (corners[:, 0].min() + corners[:, 0].max()) / 2 == pytest.approx(1 - 0.968, abs=1e-3)
    assert (corners[:, 1].min() + corners[:, 1].max()) / 2 == pytest.approx(0.759, abs=1e-3)
    (square,) = marks(svg, "radiologist")
    middle = float(square.get("x", "nan")) + float(square.get("width", "nan")) / 2
    assert (middle - LEFT) / (RIGHT - LEFT) == pytest.approx(1 - 0.933, abs=1e-3)
    assert f"{RADIOLOGISTS}, other exams: sensitivity 0.906" in svg
    assert f"n {point.sensitivity.n})" in svg


def test_a_missing_threshold_is_not_drawn() -> None:
    """An operating point without threshold has no dot, and the description says none."""
    labels, scores = case()
    point = score_operating_point(
        OperatingPoint("Youden", math.nan, 0, 9, "one class only"), labels, scores
    )
    band = roc_band(labels, scores, seed=0)
    svg = roc_plot("acl", "ACL tear", roc(labels, scores), band, [point], [])
    assert not marks(svg, "point")
    assert "Operating point Youden: none" in svg


def test_the_area_under_the_precision_recall_curve_is_the_average_precision() -> None:
    """The line consists of the steps that average precision sums, without interpolation."""
    labels, scores = case()
    curve = precision_recall(labels, scores)
    drawn = points(marks(precision_recall_plot("acl", "ACL tear", curve), "curve")[0])
    area = -np.sum(np.diff(drawn[:, 0]) * (drawn[1:, 1] + drawn[:-1, 1]) / 2)
    assert area == pytest.approx(curve.average_precision, abs=2e-3)


def test_every_bin_is_a_dot() -> None:
    """There is one dot per bin, at (mean probability, observed share)."""
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
        assert f"observed in {one.observed.count} of {one.observed.n}" in svg


def test_aucs_below_chance_stay_in_the_plot() -> None:
    """The axis includes the lowest interval; an AUC of NaN is not drawn."""
    rows = [
        AucRow("this model", 0.4, 0.24, 0.58, True),
        AucRow("LearnOpenCV", 0.8, math.nan, math.nan, False),
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


def test_text_is_escaped() -> None:
    """Names are escaped in title, description and marks."""
    plot = Plot("a", "<b>", 'x"&<script>', size=(9, 9), area=(0, 0, 9, 9))
    plot.text(1, 1, "<i>")
    root = ET.fromstring(plot.svg())  # noqa: S314  # our own
    assert [e.text for e in root] == ["<b>", 'x"&<script>', "<i>"]
    assert "<script>" not in unbroken("<script> (1)")


def test_numbers_come_with_their_interval() -> None:
    """Halves are rounded up, shares have count and n, NaN is a dash."""
    assert number(0.965, 2) == "0.97"
    assert with_interval(0.9154, 0.8621, 0.9476) == "0.915 (0.862–0.948)"  # noqa: RUF001
    assert with_interval(0.8943, math.nan, math.nan) == "0.894 (no interval)"
    assert with_interval(math.nan, math.nan, math.nan) == "—"
    assert share(wilson(49, 54)) == "49 of 54 (91 %; 80–96 %)"  # noqa: RUF001
    assert share(wilson(0, 0)) == "0 of 0"
    assert number(-0.0004) == "0.000"
    assert number(-0.0006) == "-0.001"


def test_equal_texts_about_findings_are_joined() -> None:
    """Equal texts appear once; different texts are listed with their findings."""
    assert one_or_each({"A": "x", "B": "x"}) == "x"
    assert one_or_each({"A": "x", "B": "y", "C": "x"}) == "A, C: x; B: y"


def test_published_values_state_their_origin() -> None:
    """Bien's values have intervals, LearnOpenCV's are marked as not reproduced; all have n 120."""
    for one in AUCS:
        assert one.n == 120
        if one.source == "LearnOpenCV":
            assert math.isnan(one.low)
            assert "stated in the blog post" in one.note
            assert "not reproduced" in one.note
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
