from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mrknee.exams import Plane, read_exam, read_stack, remarks_of
from mrknee.exams.greyscale import BLACK, WHITE, to_bytes
from mrknee.sources.clinical import framing

BYTES = np.random.default_rng(0).integers(0, 256, (6, 64, 64)).astype(np.uint8)
SERIES = np.random.default_rng(1).normal(400, 100, (6, 64, 64)).clip(0, 900)
"""Grey values as a scanner writes them, without outliers."""


@pytest.mark.parametrize("dtype", ["int16", "uint16", "int64", "float32", "float64"])
def test_bytes_in_a_wider_type_are_kept(dtype: str) -> None:
    """Integral values from 0 to 255 are unchanged, whatever their contrast."""
    for stack in (BYTES, BYTES // 3 + 40):
        read, outliers = to_bytes(stack.astype(dtype))
        assert read.dtype == np.uint8
        np.testing.assert_array_equal(read, stack)
        assert outliers is None


@pytest.mark.parametrize("dtype", ["int16", "uint16", "int32", "float32", "float64"])
@pytest.mark.parametrize("hot", [30000, 5000])
def test_a_hot_pixel_does_not_reduce_contrast(dtype: str, hot: int) -> None:
    """A hot pixel changes all others by at most one grey value, and is reported."""
    series = np.rint(SERIES).astype(dtype)
    alone, none = to_bytes(series)
    assert none is None
    series[3, 20, 20] = hot
    read, outliers = to_bytes(series)
    others = np.ones(series.shape, bool)
    others[3, 20, 20] = False
    assert np.abs(read.astype(int) - alone)[others].max() <= 1
    assert read[3, 20, 20] == 255
    assert outliers is not None
    assert outliers.startswith("1 of 24,576 pixels")


def test_a_dead_pixel_does_not_reduce_contrast() -> None:
    """A single value far below the others is clipped to 0."""
    series = SERIES.copy()
    series[0, 0, 0] = -32768
    read, outliers = to_bytes(series)
    assert read[0, 0, 0] == 0
    assert np.percentile(read, 95) - np.percentile(read, 5) > 100
    assert outliers is not None


def test_the_scale_equals_that_of_import() -> None:
    """The percentiles are those of clinical import, and are mapped to 0 and 255."""
    assert (BLACK, WHITE) == (framing.BLACK, framing.WHITE)
    read, _ = to_bytes(SERIES)
    black, white = np.percentile(SERIES, (BLACK, WHITE))
    expected = np.rint(np.clip((SERIES - black) / (white - black), 0, 1) * 255)
    assert np.abs(read - expected).max() <= 1


def test_fractions_use_the_full_range() -> None:
    """Floats from 0 to 1 are scaled to 0 to 255."""
    read, outliers = to_bytes(BYTES / 255)
    assert (int(read.min()), int(read.max())) == (0, 255)
    assert np.abs(read.astype(int) - BYTES).max() <= 2
    assert outliers is None


def test_nearly_all_background_is_scaled_from_minimum_to_maximum() -> None:
    """If the percentiles are equal, minimum and maximum are used for scaling."""
    stack = np.zeros((4, 64, 64), np.int16)
    stack[2, 10:12, 10:12] = [[300, 600], [900, 1200]]
    read, outliers = to_bytes(stack)
    assert read[2, 10:12, 10:12].tolist() == [[64, 128], [191, 255]]
    assert outliers is None


def test_clipped_outliers_are_a_remark_on_the_exam(tmp_path: Path) -> None:
    """Reading an exam records clipped values; a uint8 file has no such remark."""
    series = np.rint(SERIES).astype(np.int16)
    series[3, 20, 20] = 32767
    np.save(tmp_path / "a.npy", series)
    np.save(tmp_path / "b.npy", BYTES)
    exam = read_exam({Plane.AXIAL: tmp_path / "a.npy", Plane.CORONAL: tmp_path / "b.npy"}, "1")
    assert [(r.code, r.series) for r in remarks_of(exam)] == [("outliers", "axial")]
    np.testing.assert_array_equal(read_stack(str(tmp_path / "b.npy")), BYTES)
