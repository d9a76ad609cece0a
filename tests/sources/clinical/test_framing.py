"""Framing: crop around the joint, 256 x 256 square pixels, 0 to 255."""

from __future__ import annotations

import numpy as np
import pytest

from mrknee.errors import MrkneeError
from mrknee.exams import PLANES, Plane
from mrknee.sources.clinical.framing import LARGEST_MM, SIZE, frame, joint_centre
from mrknee.sources.clinical.geometry import SHOWN, Volume
from mrknee.sources.phantom import Truth, render_exam
from tests.sources.clinical.expectation import framed
from tests.sources.clinical.hospital import knee


def volume(values: np.ndarray, plane: Plane, pixel_mm: tuple[float, float]) -> Volume:
    """An upright volume."""
    return Volume(values.astype(np.float32), SHOWN[plane], pixel_mm, np.zeros(3))


@pytest.mark.parametrize("seed", range(6))
def test_the_joint_is_found(seed: int) -> None:
    """In phantoms whose joint is known, it is found to within 12 mm along the leg, 15 across."""
    truth = Truth(abnormal=seed % 2 == 0, acl=False, meniscus=False)
    exam = render_exam((77, seed), truth, size=96, slice_factor=0.5)
    for plane in PLANES:
        series = exam.protocol.series[str(plane)]
        pixel = series.field_of_view / 96
        row, col = joint_centre(volume(exam.stacks[plane], plane, (pixel, pixel)), plane)
        # centre of the joint relative to that of the stack, in rows and columns of the image
        off = (np.array(exam.anatomy.offset) - np.array(series.centre)) @ SHOWN[plane].T
        found = (np.array([row, col]) - 95 / 2) * pixel
        along = 12.0 if plane is not Plane.AXIAL else 15.0
        assert abs(found[0] - off[1]) < along, (plane, found, off)
        assert abs(found[1] - off[2]) < 15.0, (plane, found, off)


@pytest.mark.parametrize("shift", [-40, -20, 20, 40])
def test_a_joint_off_centre_is_centred(shift: int) -> None:
    """A field shifted by up to 25 mm gives the same image of the tissue that it contains."""
    stack = knee()[Plane.CORONAL]
    here = frame(volume(stack, Plane.CORONAL, (0.625, 0.625)), Plane.CORONAL)
    moved = np.roll(stack, shift, axis=1)
    moved[:, slice(None, shift) if shift > 0 else slice(shift, None)] = 0
    there = frame(volume(moved, Plane.CORONAL, (0.625, 0.625)), Plane.CORONAL)
    assert there.joint[0] - here.joint[0] == pytest.approx(shift, abs=5)


def test_pixels_that_keep_their_size_are_copied() -> None:
    """A 160 mm field of 256 pixels is only shifted by whole pixels and scaled."""
    for plane, stack in knee().items():
        found = frame(volume(stack, plane, (0.625, 0.625)), plane)
        np.testing.assert_array_equal(found.stack, framed(stack, list(found.joint)))
        assert found.pixel_mm == 0.625


@pytest.mark.parametrize(
    ("shape", "pixel_mm", "step"),
    [
        ((512, 512), (0.3125, 0.3125), 0.625),
        ((128, 128), (1.25, 1.25), 0.625),
        ((256, 128), (0.625, 1.25), 0.625),
        ((320, 256), (0.5, 0.5), 0.625),
        ((512, 512), (0.6, 0.6), LARGEST_MM / SIZE),
    ],
)
def test_pixels_become_square_and_the_field_at_most_180_mm(
    shape: tuple[int, int], pixel_mm: tuple[float, float], step: float
) -> None:
    """Any matrix becomes 256 x 256; the window is the longer side of the field, up to 180 mm."""
    rows, cols = (np.arange(n) - (n - 1) / 2 for n in shape)
    disc = (rows[:, None] * pixel_mm[0]) ** 2 + (cols[None, :] * pixel_mm[1]) ** 2 < 30.0**2
    found = frame(volume(disc[None] * 100.0, Plane.AXIAL, pixel_mm), Plane.AXIAL)
    assert found.stack.shape == (1, SIZE, SIZE)
    assert found.pixel_mm == pytest.approx(step)
    half = found.stack[0] > 127
    for across in (half.any(axis=0), half.any(axis=1)):
        places = np.flatnonzero(across)
        assert len(places) * step == pytest.approx(60.0, abs=2.5)  # a circle, in mm
        assert abs(places.mean() - 128) < 2.0


def test_grey_values_are_scaled_by_percentiles_of_the_stack() -> None:
    """All slices are scaled together: a dark slice stays dark, and outliers have no effect."""
    rng = np.random.default_rng(0)
    values = rng.uniform(0, 1000, (10, 256, 256))
    values[3] /= 4
    values[:, 0, 0] = 1e6
    found = frame(volume(values, Plane.AXIAL, (0.6, 0.6)), Plane.AXIAL).stack
    assert found[3].mean() < 0.3 * found[4].mean()
    assert np.percentile(found[4], 50) == pytest.approx(127, abs=8)


def test_an_empty_series_is_refused() -> None:
    """A series of equal pixels is refused."""
    with pytest.raises(MrkneeError, match="is empty"):
        frame(volume(np.full((2, 8, 8), 7), Plane.AXIAL, (0.6, 0.6)), Plane.AXIAL)


def legs(centres: list[float], width: float, *, field: float = 400.0) -> np.ndarray:
    """Axial slices with round legs at positions from right to left (mm), in 2 mm pixels."""
    size = int(field / 2)
    rows, cols = (np.mgrid[:size, :size] - size / 2) * 2.0
    rng = np.random.default_rng(1)
    values = rng.normal(20.0, 4.0, (12, size, size))
    for centre in centres:
        values[:, rows**2 + (cols - centre) ** 2 < (width / 2) ** 2] += 400.0
    return values.astype(np.float32)


@pytest.mark.parametrize(
    ("centres", "width", "both"),
    [
        ([-90.0, 90.0], 110.0, True),
        ([-60.0, 60.0], 118.0, True),
        ([-62.0, 62.0], 130.0, True),  # they touch
        ([0.0], 130.0, False),
        ([-90.0], 120.0, False),
        ([-20.0, 190.0], 110.0, False),  # the edge of the other leg
    ],
)
@pytest.mark.parametrize("plane", [Plane.AXIAL, Plane.CORONAL])
def test_a_field_of_both_legs_is_refused(
    centres: list[float], width: float, both: bool, plane: Plane
) -> None:
    """A field of both legs is refused, but not one with the edge of the other leg."""
    found = volume(legs(centres, width), plane, (2.0, 2.0))
    if both:
        with pytest.raises(MrkneeError, match="both legs"):
            frame(found, plane)
    else:
        assert frame(found, plane).stack.shape == (12, 256, 256)


def test_a_very_wide_field_is_noted() -> None:
    """A very wide field, which may show both legs, gives a warning."""
    found = frame(volume(legs([0.0], 120.0), Plane.AXIAL, (2.0, 2.0)), Plane.AXIAL)
    assert len(found.warnings) == 1
