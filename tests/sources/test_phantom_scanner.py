from __future__ import annotations

from dataclasses import replace
from math import cos, exp, radians, sin

import numpy as np
import pytest

from mrknee.exams import Series
from mrknee.sources.phantom.scanner import (
    PLANES,
    SLICE_QUANTILES,
    Acquisition,
    acquire,
    draw_acquisition,
    draw_protocol,
    draw_slice_count,
    sample,
)
from mrknee.sources.phantom.shapes import Grid
from mrknee.sources.phantom.tissues import TISSUES, Tissue, gradient_echo, spin_echo

GRID = Grid(2.0, (120.0, 100.0, 80.0))
SERIES = Acquisition(
    plane="sagittal",
    slices=9,
    spacing=4.0,
    thickness=4.0,
    field_of_view=64.0,
    centre=(0.0, 0.0, 0.0),
    matrix=(256, 256),
    repetition_ms=4000,
    echo_ms=60,
    fat_left=1.0,
    noise=0.0,
    shading=(0.0,) * 9,
    window=(100.0, 1.0),
)


def test_spin_echo_is_the_textbook_equation() -> None:
    """Density 0.8, T1 = TR and T2 = TE at 1.5 T give 0.8 (1 - 1/e) / e."""
    tissue = Tissue(0.8, (1000, 1200), (50, 40))
    signal = spin_echo(tissue, tesla=1.5, repetition_ms=1000, echo_ms=50)
    assert signal == pytest.approx(0.8 * (1 - exp(-1)) * exp(-1))
    assert signal == pytest.approx(0.18604, abs=1e-5)


def test_three_tesla_uses_its_own_relaxation_times() -> None:
    """At 3 T the second values of T1 and T2 are used."""
    tissue = Tissue(1.0, (1e9, 500), (1.0, 100))
    signal = spin_echo(tissue, tesla=3.0, repetition_ms=500, echo_ms=100)
    assert signal == pytest.approx((1 - exp(-1)) * exp(-1))


def test_gradient_echo_is_the_textbook_equation() -> None:
    """Density 0.8, T1 = TR, T2 = TE at 1.5 T, flip angle 30 degrees: Ernst's equation."""
    tissue = Tissue(0.8, (500, 600), (20, 18))
    signal = gradient_echo(tissue, tesla=1.5, repetition_ms=500, echo_ms=20, flip_degrees=30)
    angle = radians(30)
    recovery = sin(angle) * (1 - exp(-1)) / (1 - cos(angle) * exp(-1))
    assert signal == pytest.approx(0.8 * recovery * exp(-1))


def test_dephasing_grows_with_the_field() -> None:
    """A tissue with R2' of 50 / s loses exp(-50 TE) at 1.5 T and exp(-100 TE) at 3 T."""
    even, uneven = (Tissue(1.0, (500, 500), (20, 20), 0.0, rate) for rate in (0.0, 50.0))
    for tesla, rate in ((1.5, 50.0), (3.0, 100.0)):
        first, second = (
            gradient_echo(one, tesla=tesla, repetition_ms=500, echo_ms=10, flip_degrees=30)
            for one in (even, uneven)
        )
        assert second / first == pytest.approx(exp(-rate * 0.010))


@pytest.mark.parametrize("tesla", [1.5, 3.0])
@pytest.mark.parametrize(
    ("weighting", "fat_suppressed", "bright_to_dark"),
    [
        ("T1", False, ["subcutaneous fat", "cartilage", "meniscus", "cortex"]),
        ("T1", True, ["muscle", "subcutaneous fat", "cortex"]),
        ("PD", True, ["fluid", "cartilage", "muscle", "marrow", "cortex"]),
        ("PD", False, ["subcutaneous fat", "cartilage", "meniscus", "cortex"]),
        ("T2", True, ["fluid", "cartilage", "subcutaneous fat", "cortex"]),
        ("T2", False, ["fluid", "marrow", "cartilage", "meniscus"]),
        ("GRE", False, ["fluid", "cartilage", "meniscus", "cortex"]),
        ("GRE", False, ["subcutaneous fat", "cartilage", "marrow"]),
        ("GRE", True, ["fluid", "cartilage", "muscle", "subcutaneous fat", "marrow"]),
    ],
)
def test_tissues_have_the_brightness_of_the_declared_contrast(
    tesla: float, weighting: str, fat_suppressed: bool, bright_to_dark: list[str]
) -> None:
    """Ten draws per declared contrast give the expected order of the tissues' brightness."""
    series = Series("one", "sagittal", weighting, fat_suppressed)
    for seed in range(10):
        one = draw_acquisition(np.random.default_rng(seed), series, tesla, 1.0)
        signals = [one.signal(TISSUES[name], tesla) for name in bright_to_dark]
        assert signals == sorted(signals, reverse=True)


def test_undeclared_properties_are_mrnets() -> None:
    """Without weighting and fat suppression a series is drawn like MRNet's of its plane."""
    usual = draw_protocol(np.random.default_rng(3), 1.0)
    rng = np.random.default_rng(3)
    rng.random()  # the field strength
    for name, plane in (("a", "axial"), ("b", "coronal"), ("c", "sagittal")):
        one = draw_acquisition(rng, Series(name, plane), usual.tesla, 1.0)
        assert one == usual.series[plane]


def test_fat_saturation_removes_fat_only() -> None:
    """With 10 % of the fat signal left, pure fat keeps 10 % and muscle everything."""
    for name, share in (("subcutaneous fat", 0.1), ("muscle", 1.0)):
        tissue = TISSUES[name]
        open_, saturated = (
            spin_echo(tissue, tesla=3.0, repetition_ms=3000, echo_ms=30, fat_left=left)
            for left in (1.0, 0.1)
        )
        assert saturated == pytest.approx(share * open_)


def test_contrasts_are_those_of_knees() -> None:
    """T1: fat > muscle > fluid; fat-saturated T2: fluid > cartilage > meniscus."""

    def t1(name: str) -> float:
        return spin_echo(TISSUES[name], tesla=1.5, repetition_ms=600, echo_ms=15)

    def t2(name: str) -> float:
        return spin_echo(TISSUES[name], tesla=1.5, repetition_ms=4000, echo_ms=60, fat_left=0.1)

    assert t1("marrow") > t1("muscle") > t1("fluid")
    assert t1("marrow") > t1("oedema")
    assert t2("fluid") > t2("oedema") > t2("cartilage") > t2("meniscus")
    assert t2("torn ligament") > 3 * t2("ligament")


@pytest.mark.parametrize("plane", PLANES)
def test_slice_counts_follow_mrnet(plane: str) -> None:
    """Counts are within MRNet's range and have its quartiles to within one slice."""
    rng = np.random.default_rng(0)
    counts = [draw_slice_count(rng, plane) for _ in range(4000)]  # type: ignore[arg-type]
    low, *quartiles, high = SLICE_QUANTILES[plane]
    assert low <= min(counts)
    assert max(counts) <= high
    assert np.abs(np.percentile(counts, (25, 50, 75)) - quartiles).max() <= 1


@pytest.mark.parametrize(
    ("plane", "mean", "sd"), [("axial", 34.3, 7.5), ("coronal", 29.8, 8.7), ("sagittal", 30.4, 7.0)]
)
def test_slice_counts_have_mrnets_mean_and_spread(plane: str, mean: float, sd: float) -> None:
    """Mean within 1 and SD within 1.5 slices of MRNet's training set."""
    rng = np.random.default_rng(1)
    counts = [draw_slice_count(rng, plane) for _ in range(4000)]  # type: ignore[arg-type]
    assert abs(float(np.mean(counts)) - mean) < 1.0
    assert abs(float(np.std(counts)) - sd) < 1.5


def test_both_field_strengths_and_fat_saturation_occur() -> None:
    """1.5 T and 3 T, sagittal with and without fat saturation; coronal T1 never has it."""
    protocols = [draw_protocol(np.random.default_rng(seed), 1.0) for seed in range(40)]
    assert {p.tesla for p in protocols} == {1.5, 3.0}
    assert {p.series["sagittal"].fat_left < 1 for p in protocols} == {True, False}
    assert {p.series["coronal"].fat_left for p in protocols} == {1.0}
    for protocol in protocols:
        for series in protocol.series.values():
            assert 2.2 <= series.thickness <= 4.6


def test_a_slice_is_the_mean_over_its_profile() -> None:
    """A ramp along x sampled with a symmetric profile gives the ramp at each slice's centre."""
    box = GRID.everything()
    volume = np.broadcast_to(box.x[None, None, :], GRID.shape).astype(np.float32)
    stack = sample(volume, box, SERIES, 16)
    centres = (np.arange(9) - 4) * 4.0
    assert np.allclose(stack[:, 8, 8], centres, atol=0.05)


def test_directions_of_rows_columns_and_slices() -> None:
    """Sagittal: slices from the right to the left, rows downwards, columns from the front."""
    box = GRID.everything()
    coordinates = (box.x[None, None, :], box.y[None, :, None], box.z[:, None, None])
    x, y, z = (
        sample(np.broadcast_to(c, GRID.shape).astype(np.float32), box, SERIES, 16)
        for c in coordinates
    )
    assert (np.diff(x[:, 8, 8]) > 0).all()
    assert (np.diff(y[4, 8, :]) > 0).all()
    assert (np.diff(z[4, :, 8]) < 0).all()


def test_outside_the_grid_is_air() -> None:
    """The rim of a field of view larger than the grid is black."""
    volume = np.ones(GRID.shape, np.float32)
    stack = sample(volume, GRID.everything(), replace(SERIES, field_of_view=200.0), 64)
    assert stack[4, 0].max() == 0
    assert stack[4, 32, 32] == pytest.approx(1.0)


def test_noise_is_rician() -> None:
    """In air the magnitude's mean is sigma sqrt(pi / 2): noise never averages to zero there."""
    volume = np.zeros(GRID.shape, np.float32)
    volume[20:40, 20:30, 15:25] = 1.0
    series = replace(SERIES, noise=0.02, field_of_view=100.0, matrix=(10_000, 10_000))
    stack = acquire(volume, GRID, series, 256, 1.0, np.random.default_rng(0))
    white = stack.max()
    air = stack[:, :20, :20].astype(float) / white
    assert air.mean() == pytest.approx(0.02 * np.sqrt(np.pi / 2), rel=0.2)


def test_fewer_k_space_samples_blur() -> None:
    """A quarter of the phase samples make an edge less than two thirds as steep."""
    volume = np.zeros(GRID.shape, np.float32)
    volume[:, 25:, :] = 1.0
    slopes = []
    for kept in (256, 48):
        series = replace(SERIES, matrix=(256, kept), field_of_view=200.0)
        stack = acquire(volume, GRID, series, 128, 1.0, np.random.default_rng(0))
        slopes.append(np.abs(np.diff(stack[4, 64].astype(int))).max())
    assert slopes[0] > 1.5 * slopes[1]
