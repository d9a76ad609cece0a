"""Missing slices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mrknee.errors import MrkneeError
from mrknee.exams import Plane
from mrknee.sources.clinical.completeness import holes, missing_slices
from mrknee.sources.clinical.pixels import read_volume
from mrknee.sources.clinical.series import Series
from tests.sources.clinical.hospital import PROTOCOL, datasets, knee
from tests.sources.clinical.test_pixels import series_of

SAGITTAL = replace(PROTOCOL[0], pixel=2.5)


@pytest.mark.parametrize(
    ("gaps", "missing"),
    [
        ([4, 4, 4, 4], 0),
        ([4, 4, 8, 4], 1),
        ([4, 12, 4, 4, 8], 3),
        ([4.01, 3.99, 8.02, 4], 1),
        ([4, 4, 7.4, 4], 1),
        ([3, 4, 5, 3, 4], 0),
        ([4, 4, 6, 4], 0),
        ([4, 8], 0),
        ([0, 0, 0], 0),
    ],
)
def test_gaps_of_whole_slice_distances_are_missing_slices(gaps: list[float], missing: int) -> None:
    """A gap of twice the median is one missing slice; irregular gaps are not counted."""
    assert holes(gaps) == missing


def series_without(folder: Path, *numbers: int) -> Series:
    """Eleven slices without the given ones."""
    found = datasets(knee()[Plane.SAGITTAL][:, ::4, ::4].astype(np.uint16), SAGITTAL)
    (series,) = series_of([d for n, d in enumerate(found) if n not in numbers], folder)
    return series


def test_the_missing_are_counted_between_the_first_and_the_last(tmp_path: Path) -> None:
    """Slices missing in gaps are counted, but not those beyond the ends."""
    assert missing_slices(series_without(tmp_path / "a", 3, 6, 7)) == 3
    assert missing_slices(series_without(tmp_path / "b", 0, 1, 10)) == 0


def test_a_series_that_lacks_more_than_a_quarter_is_refused(tmp_path: Path) -> None:
    """Two missing slices of eleven are accepted, three are refused."""
    assert len(read_volume(series_without(tmp_path / "a", 3, 6)).values) == 9
    with pytest.raises(MrkneeError, match="too many slices"):
        read_volume(series_without(tmp_path / "b", 3, 6, 7))
