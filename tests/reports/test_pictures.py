"""Pixels of overlays and contact sheets."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from jaxtyping import Float32, UInt8
from matplotlib import pyplot as plt
from PIL import Image, ImageColor

from mrknee.exams import PLANES, Exam, Plane
from mrknee.explanations.explanation import Explanation
from mrknee.reports.exam_page import exam_page
from mrknee.reports.pictures import (
    GAP,
    LOWERS,
    MARGIN,
    MARK,
    MARK_LOW,
    MOST_OPAQUE,
    RAISES,
    WIDTH,
    contact_sheet,
    data_uri,
    jpeg,
    overlay,
    png,
    probability_text,
    seen_box,
    signed,
    slice_in_words,
)
from mrknee.transforms.preparation import Preparation

SIDE = 40
SEEN_WHOLE = Preparation(size=SIDE, crop=SIDE)
ROWS = np.arange(SIDE)


def explanation_of(
    native: Mapping[Plane, np.ndarray] | Mapping[str, np.ndarray], side: int = SIDE
) -> Explanation:
    """Returns an exact explanation of one finding from maps (slices, rows, cols) per plane."""
    total = float(sum(maps.sum() for maps in native.values()))
    return Explanation(
        exam="0007",
        findings=("acl",),
        logits=np.array([total]),
        bias=np.zeros(1),
        probabilities=np.array([0.75]),
        native={plane: maps[None].astype(np.float32) for plane, maps in native.items()},
        shapes={plane: (len(maps), side, side) for plane, maps in native.items()},
        preparation=SEEN_WHOLE,
    )


def even_exam(greys: Mapping[Plane, Sequence[int]]) -> Exam:
    """Returns an exam whose slices are of constant grey."""
    stacks = {
        plane: np.stack([np.full((SIDE, SIDE), g, np.uint8) for g in values])
        for plane, values in greys.items()
    }
    return Exam("0007", stacks)


def noise(seed: int) -> tuple[UInt8[np.ndarray, "r c"], Float32[np.ndarray, "r c"]]:
    """Returns a noisy slice, and noisy heat from -1 to 1."""
    rng = np.random.default_rng(seed)
    grey = rng.integers(0, 256, (SIDE, SIDE)).astype(np.uint8)
    return grey, rng.uniform(-1, 1, (SIDE, SIDE)).astype(np.float32)


def places(sheet: np.ndarray, grey: int) -> np.ndarray:
    """Returns rows and columns of the pixels of exactly this grey."""
    return np.argwhere((sheet == grey).all(axis=2))


def test_without_heat_the_slice_is_unchanged() -> None:
    """Zero heat, or a scale of zero, gives the grey values in all channels."""
    grey, heat = noise(0)
    for picture in (overlay(grey, 0 * heat, 1.0), overlay(grey, heat, 0.0)):
        np.testing.assert_array_equal(picture, np.repeat(grey[..., None], 3, axis=2))


def test_equal_heat_has_equal_colour_in_all_slices() -> None:
    """The colour of a pixel does not depend on the heat of other pixels."""
    grey, heat = noise(1)
    hotter = heat.copy()
    hotter[0] = 100.0
    np.testing.assert_array_equal(overlay(grey, heat, 100.0)[1:], overlay(grey, hotter, 100.0)[1:])


def test_the_colour_shows_the_sign() -> None:
    """On any grey, positive heat is orange and negative heat blue, with equal opacity."""
    grey, heat = noise(2)
    picture = overlay(grey, heat, 1.0).astype(int)
    strong = np.abs(heat) > 0.2
    red, blue = picture[..., 0], picture[..., 2]
    np.testing.assert_array_equal(red[strong] > blue[strong], heat[strong] > 0)
    black = np.zeros((1, 2), np.uint8)
    up, down = overlay(black, np.array([[0.5, -0.5]]), 1.0)[0].astype(float)
    np.testing.assert_allclose(up * max(LOWERS), np.array(RAISES) * down.max(), atol=255)
    np.testing.assert_allclose(down * max(RAISES), np.array(LOWERS) * up.max(), atol=255)


def test_opacity_increases_with_heat_up_to_a_limit() -> None:
    """Opacity increases with heat; at and above the scale, a fifth of the slice remains visible."""
    heat = np.linspace(0.0, 2.0, 21)[None]
    white = overlay(np.full(heat.shape, 255, np.uint8), heat, 1.0).astype(int)
    black = overlay(np.zeros(heat.shape, np.uint8), heat, 1.0).astype(int)
    through = (white - black)[0, :, 0] / 255
    assert (np.diff(through) <= 0).all()
    assert through[0] == 1.0
    np.testing.assert_allclose(through[10:], 1 - MOST_OPAQUE, atol=0.01)


def test_png_is_lossless_and_jpeg_nearly() -> None:
    """PNG preserves grey and RGB pixels; the mean error of JPEG is below 4 of 255."""
    grey = noise(3)[0] // 8 + (np.add.outer(ROWS, ROWS) * 2).astype(np.uint8)
    picture = overlay(grey, np.full(grey.shape, 0.3), 1.0)
    for shown in (grey, picture):
        np.testing.assert_array_equal(_read(png(shown)), shown)
        assert np.abs(_read(jpeg(shown)).astype(int) - shown).mean() < 4


def _read(file: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(file)))


def test_a_data_uri_contains_the_file() -> None:
    """The data URI has the type of the file and decodes to its bytes."""
    for kind, file in (("png", png(noise(4)[0])), ("jpeg", jpeg(noise(4)[0]))):
        head, _, body = data_uri(file).partition(",")
        assert head == f"data:image/{kind};base64"
        assert base64.b64decode(body) == file


def test_the_area_used_by_the_network_is_a_box() -> None:
    """The box is left, top, right, bottom as shares of the slice's sides."""
    seen = np.zeros((10, 20), np.bool_)
    seen[2:8, 5:20] = True
    assert seen_box(seen) == (0.25, 0.2, 1.0, 0.8)


def test_values_that_round_to_zero_have_no_minus() -> None:
    """-0.001 with two decimals is +0.00; -0.01 keeps its sign."""
    assert (signed(-0.001, 2), signed(-0.01, 2), signed(0.0, 3)) == ("+0.00", "-0.01", "+0.000")


def test_no_probability_is_shown_as_certain() -> None:
    """Probabilities that would round to 0 or 1 are shown as <0.01 or >0.99."""
    shown = [probability_text(p) for p in (0.0, 0.004, 0.006, 0.5, 0.994, 0.996, 1.0)]
    assert shown == ["<0.01", "<0.01", "0.01", "0.50", "0.99", ">0.99", ">0.99"]


@pytest.mark.parametrize("slices", [(1, 1, 1), (5, 9, 14), (61, 40, 70)])
def test_a_sheet_contains_every_slice_in_order(slices: tuple[int, ...]) -> None:
    """Every slice is drawn as a square, in reading order."""
    greys = iter(range(60, 254))
    exam = even_exam(
        {p: [next(greys) for _ in range(n)] for p, n in zip(PLANES, slices, strict=True)}
    )
    maps = {p: np.zeros((n, 4, 4)) for p, n in zip(PLANES, slices, strict=True)}
    sheet = contact_sheet(exam, explanation_of(maps), "acl")
    assert sheet.shape[1] == WIDTH
    order = []
    for stack in exam.stacks.values():
        for grey in stack[:, 0, 0].tolist():
            found = places(sheet, grey)
            middle = np.median(found, axis=0)
            near = (np.abs(found - middle) <= 20).all(axis=1)  # the tile, not the edge of a letter
            assert near.sum() > 1500
            order.append((round(middle[0] / 10), middle[1]))
    assert order == sorted(order)


def test_a_sheet_of_two_planes_contains_both() -> None:
    """For an exam with two planes, both are drawn."""
    exam = even_exam({Plane.CORONAL: [70, 80], Plane.SAGITTAL: [90]})
    maps = {p: np.zeros((len(s), 4, 4)) for p, s in exam.stacks.items()}
    sheet = contact_sheet(exam, explanation_of(maps), "acl")
    assert all(len(places(sheet, grey)) > 1500 for grey in (70, 80, 90))


def test_slices_of_a_sheet_share_one_scale() -> None:
    """Slices of equal heat have equal colour, and less heat is paler."""
    exam = even_exam({Plane.AXIAL: [100, 100, 100, 100, 90, 90]})
    heat = np.array([1.0, 1.0, 0.25, 4.0, 0.0, 0.0])[:, None, None] * np.ones((1, 4, 4))
    sheet = contact_sheet(exam, explanation_of({Plane.AXIAL: heat}), "acl")
    row, right = np.median(places(sheet, 90), axis=0).astype(int)  # between the last two slices
    step = (WIDTH - 2 * MARGIN + GAP) // 6
    columns = [right - step // 2 - k * step for k in (4, 3, 2, 1)]
    first, second, pale, hot = (sheet[row, column].astype(int) for column in columns)
    np.testing.assert_array_equal(first, second)
    assert 0 < pale[0] - pale[2] < first[0] - first[2] < hot[0] - hot[2]


def test_slices_that_the_network_does_not_read_are_not_named() -> None:
    """Their contribution is 0, which is more than that of slices that lower the logit."""
    native = np.zeros((6, 2, 2), np.float32)
    native[[1, 4]] = np.array([-0.25, -0.5], np.float32)[:, None, None]
    few = SEEN_WHOLE.replace(read_slices=2)
    explanation = replace(explanation_of({Plane.AXIAL: native}), preparation=few)
    assert explanation.slices_read("axial") == [1, 4]
    assert explanation.most_raising("acl") == ("axial", 1)
    assert explanation.most_lowering("acl") == ("axial", 4)
    assert slice_in_words(explanation, "acl", raising=True) == "lowered least by axial slice 2 of 6"
    exam = even_exam({Plane.AXIAL: (0,) * 6})
    page = " ".join(exam_page(exam, explanation, model="m").split())
    assert (
        "No slice of this series raises the logit; slice 2 lowers it least: \N{MINUS SIGN}1.00"
        in page
    )
    sheet = contact_sheet(exam, explanation, "acl")
    whole = contact_sheet(exam, replace(explanation, preparation=SEEN_WHOLE), "acl")
    assert (sheet != whole).any()  # other slices are framed
    axes = explanation.plot("acl")
    assert axes[0, 0].get_title() == "axial[1], raises most"
    plt.close(axes[0, 0].figure)


@pytest.mark.parametrize("strongest", [1, 2, 4])
@pytest.mark.parametrize("lowest", [-0.9, -0.05])
def test_the_slices_of_extreme_scores_are_framed(strongest: int, lowest: float) -> None:
    """Each plane has a frame around the largest score; for negative logits, also the smallest."""
    greys = {p: [60 + 10 * k + j for k in range(5)] for j, p in enumerate(PLANES)}
    maps = {p: np.zeros((5, 4, 4)) for p in PLANES}
    for plane in PLANES:
        maps[plane][0], maps[plane][strongest] = lowest, 0.1
    sheet = contact_sheet(even_exam(greys), explanation_of(maps), "acl")
    for plane in PLANES:
        grey_ones = [k for k in range(1, 5) if k != strongest]
        middles = np.array([np.median(places(sheet, greys[plane][k]), axis=0) for k in grey_ones])
        step, start = np.polyfit(grey_ones, middles[:, 1], 1)
        for colour, at in ((MARK, strongest), (MARK_LOW, 0)):
            frame = (sheet == ImageColor.getrgb(colour)).all(axis=2)
            edges = np.flatnonzero(frame[round(middles[0, 0])])
            if colour == MARK_LOW and lowest > -0.1:
                assert len(edges) == 0
                continue
            assert abs(edges.mean() - (start + step * at)) < 3
            assert np.ptp(edges) < step


@pytest.mark.parametrize("exam_id", ["x" * 300, "膝" * 40, "膝", "Ünïcode-é", "W" * 60, "a\nb"])
def test_the_title_of_a_sheet_does_not_reach_the_colour_bar(exam_id: str) -> None:
    """For any exam id, the title ends left of the colour bar."""
    exam = even_exam({Plane.AXIAL: [70, 80]})
    short = explanation_of({Plane.AXIAL: np.ones((2, 4, 4))})
    sheet, usual = (
        contact_sheet(exam, replace(short, exam=name), "acl") for name in (exam_id, "1")
    )
    bar = WIDTH - MARGIN - 280
    np.testing.assert_array_equal(sheet[:138, bar - 20 :], usual[:138, bar - 20 :])
    assert (sheet[:50, :bar] != usual[:50, :bar]).any()


def test_ids_of_other_scripts_are_distinguishable() -> None:
    """Characters that the font lacks are written as escapes."""
    exam = even_exam({Plane.AXIAL: [70]})
    explanation = explanation_of({Plane.AXIAL: np.ones((1, 4, 4))})
    one, other = (
        contact_sheet(exam, replace(explanation, exam=name), "acl") for name in ("膝", "骨")
    )
    assert (one != other).any()


@pytest.mark.parametrize(
    ("values", "raising", "words"),
    [
        ((0.5, -2.0), True, "raised most by axial slice 1 of 2"),
        ((0.5, -2.0), False, "lowered most by axial slice 2 of 2"),
        ((-0.5, -2.0), True, "lowered least by axial slice 1 of 2"),
        ((0.0, 0.0), True, "no slice raises the logit, for example axial slice 1 of 2"),
    ],
)
def test_the_text_about_the_extreme_slice(
    values: tuple[float, float], raising: bool, words: str
) -> None:
    """The text states whether the slice raises or lowers the logit."""
    maps = np.array(values)[:, None, None] * np.ones((1, 4, 4))
    explanation = explanation_of({Plane.AXIAL: maps})
    assert slice_in_words(explanation, "acl", raising=raising) == words
