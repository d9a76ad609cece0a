"""Series: split into stacks, sorted by position, turned upright."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import generate_uid

from mrknee.exams import PLANES, Plane
from mrknee.sources.clinical.geometry import SHOWN, nearest_plane, upright
from mrknee.sources.clinical.header import read_header
from mrknee.sources.clinical.locate import Location
from mrknee.sources.clinical.pixels import read_volume
from mrknee.sources.clinical.series import sort_into_series
from tests.sources.clinical.hospital import ROOT, Scan, datasets, enhanced, knee, write
from tests.sources.clinical.test_pixels import series_of

STACK = knee()[Plane.SAGITTAL].astype(np.uint16)
SCAN = Scan(Plane.SAGITTAL)


@given(
    plane=st.sampled_from(PLANES),
    turned=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    transposed=st.booleans(),
    tilt=st.floats(-34.0, 34.0),
    centre=st.tuples(*[st.floats(-150.0, 150.0)] * 3),
    multi_frame=st.booleans(),
    shuffle=st.randoms(use_true_random=False),
    data=st.data(),
)
@settings(max_examples=25, deadline=None)
def test_what_is_written_is_read_whatever_way_it_lies(
    tmp_path_factory: pytest.TempPathFactory,
    plane: Plane,
    turned: tuple[bool, bool, bool],
    transposed: bool,
    tilt: float,
    centre: tuple[float, float, float],
    multi_frame: bool,
    shuffle: object,
    data: st.DataObject,
) -> None:
    """Write -> read gives the same stack, plane and angle for any way of acquiring it."""
    shape = data.draw(st.tuples(st.integers(1, 5), st.integers(2, 9), st.integers(2, 9)))
    stack = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    scan = Scan(plane, turned=turned, transposed=transposed, tilt=tilt, centre=centre)
    written = [enhanced(stack, scan)] if multi_frame else datasets(stack, scan)
    shuffle.shuffle(written)  # type: ignore[attr-defined]
    (series,) = series_of(written, tmp_path_factory.mktemp("series"))
    assert series.plane is not None
    assert series.plane[0] == plane
    assert series.plane[1] == pytest.approx(abs(tilt), abs=0.01)
    volume = upright(read_volume(series), plane)
    np.testing.assert_array_equal(volume.values, stack)
    np.testing.assert_allclose(volume.centre, centre, atol=1e-3)
    assert ((volume.axes * SHOWN[plane]).sum(axis=1) > 0.8).all()


def test_a_plane_is_the_nearest_with_its_angle() -> None:
    """A normal 30 degrees off the sagittal plane is sagittal, 30 degrees off."""
    normal = np.array([np.cos(np.radians(30)), np.sin(np.radians(30)), 0.0])
    plane, angle = nearest_plane(normal)
    assert plane is Plane.SAGITTAL
    assert angle == pytest.approx(30.0)


def test_order_is_by_position_not_by_number_or_name(tmp_path: Path) -> None:
    """Instance numbers that run in another order, as interleaved ones do, change nothing."""
    found = datasets(STACK, SCAN)
    for dataset, number in zip(found, np.random.default_rng(3).permutation(11), strict=True):
        dataset.InstanceNumber = int(number) + 1
    (series,) = series_of(found, tmp_path)
    np.testing.assert_array_equal(upright(read_volume(series), Plane.SAGITTAL).values, STACK)
    assert series.notes == ()
    assert series.spacing_mm == pytest.approx(4.0, abs=1e-3)


def test_echoes_are_told_apart(tmp_path: Path) -> None:
    """Two echoes in one series are two stacks."""
    early = datasets(STACK, replace(SCAN, te=15.0, elements={"EchoNumbers": 1}), "a", "same")
    late = datasets(STACK // 2, replace(SCAN, te=75.0, elements={"EchoNumbers": 2}), "a", "same")
    first, second = series_of(early + late, tmp_path)
    assert (first.first.te_ms, second.first.te_ms) == (15.0, 75.0)
    np.testing.assert_array_equal(upright(read_volume(second), Plane.SAGITTAL).values, STACK // 2)


@pytest.mark.parametrize("keyword", ["AcquisitionNumber", "TemporalPositionIdentifier", None])
def test_acquisitions_at_the_same_places_are_told_apart(
    tmp_path: Path, keyword: str | None
) -> None:
    """A repeated acquisition is a stack of its own, by its number or by its order."""
    elements = [{keyword: 1}, {keyword: 2}] if keyword else [{}, {}]
    first = datasets(STACK, replace(SCAN, elements=elements[0]), "a", "same")
    second = datasets(STACK // 2, replace(SCAN, elements=elements[1]), "a", "same")
    for index, dataset in enumerate(second):
        dataset.SOPInstanceUID = generate_uid(ROOT, [f"again {index}"])
        dataset.InstanceNumber += 100
    one, two = series_of(first + second, tmp_path)
    np.testing.assert_array_equal(upright(read_volume(one), Plane.SAGITTAL).values, STACK)
    np.testing.assert_array_equal(upright(read_volume(two), Plane.SAGITTAL).values, STACK // 2)


def test_passes_that_interleave_are_one_stack(tmp_path: Path) -> None:
    """Odd and even slices acquired one after the other stay together."""
    found = datasets(STACK, SCAN)
    for index, dataset in enumerate(found):
        dataset.AcquisitionNumber = 1 + index % 2
    (series,) = series_of(found, tmp_path)
    assert len(series.images) == 11


def test_orientations_are_told_apart(tmp_path: Path) -> None:
    """One series with three orientations is three stacks, and says so."""
    found = []
    for plane in PLANES:
        found += datasets(knee()[plane][:3], Scan(plane, te=10.0 + len(plane)), "a", "same")
    stacks = series_of(found, tmp_path)
    assert {series.plane[0] for series in stacks if series.plane} == set(PLANES)
    assert {series.orientations for series in stacks} == {3}


def test_copies_count_once(tmp_path: Path) -> None:
    """The same files in two folders are one series."""
    images = []
    for folder in "ab":
        for index, dataset in enumerate(datasets(STACK, SCAN)):
            path = write(dataset, tmp_path / folder / f"{index}.dcm")
            with path.open("rb") as file:
                images += read_header(file, Location(path))
    (series,) = sort_into_series(images)
    assert len(series.images) == 11


def test_a_missing_slice_is_noted(tmp_path: Path) -> None:
    """A gap in a stack doesn't go unsaid."""
    found = datasets(STACK, SCAN)
    del found[4]
    (series,) = series_of(found, tmp_path)
    assert series.notes == ("slices are unevenly spaced; one may be missing",)


def test_frames_without_places_are_no_stack(tmp_path: Path) -> None:
    """A multi-frame file that says one position for all its frames is not taken for a slice."""
    found = datasets(STACK[:1], replace(SCAN, elements={"NumberOfFrames": 15_000}))
    (series,) = series_of(found, tmp_path)
    assert len(series.images) == 1
    assert series.plane is None


def test_without_orientation_there_is_no_plane(tmp_path: Path) -> None:
    """Headers that don't say how a series lies give a series without a plane, not a guess."""
    scan = replace(SCAN, elements={"ImageOrientationPatient": None})
    (series,) = series_of(datasets(STACK, scan), tmp_path)
    assert series.plane is None
    assert series.spacing_mm is None
