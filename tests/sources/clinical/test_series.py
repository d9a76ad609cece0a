"""Series: splitting into stacks, sorting by position, orientation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import generate_uid

from mrknee.exams import PLANES, Plane
from mrknee.sources.clinical import series as series_module
from mrknee.sources.clinical.completeness import missing_slices
from mrknee.sources.clinical.geometry import (
    SHOWN,
    Axes,
    Volume,
    nearest_plane,
    turned_degrees,
    upright,
)
from mrknee.sources.clinical.header import Image, read_header
from mrknee.sources.clinical.locate import Location
from mrknee.sources.clinical.pixels import read_volume
from mrknee.sources.clinical.series import sort_into_series
from tests.sources.clinical.headers import images
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
    """Writing and reading gives the same stack, plane and angle for any orientation of a scan."""
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
    """Instance numbers in another order, such as interleaved ones, change nothing."""
    found = datasets(STACK, SCAN)
    for dataset, number in zip(found, np.random.default_rng(3).permutation(11), strict=True):
        dataset.InstanceNumber = int(number) + 1
    (series,) = series_of(found, tmp_path)
    np.testing.assert_array_equal(upright(read_volume(series), Plane.SAGITTAL).values, STACK)
    assert series.notes == ()
    assert series.spacing_mm == pytest.approx(4.0, abs=1e-3)


def test_echoes_are_separated(tmp_path: Path) -> None:
    """Two echoes in one series are two stacks."""
    early = datasets(STACK, replace(SCAN, te=15.0, elements={"EchoNumbers": 1}), "a", "same")
    late = datasets(STACK // 2, replace(SCAN, te=75.0, elements={"EchoNumbers": 2}), "a", "same")
    first, second = series_of(early + late, tmp_path)
    assert (first.first.te_ms, second.first.te_ms) == (15.0, 75.0)
    np.testing.assert_array_equal(upright(read_volume(second), Plane.SAGITTAL).values, STACK // 2)


@pytest.mark.parametrize("keyword", ["AcquisitionNumber", "TemporalPositionIdentifier", None])
def test_acquisitions_at_the_same_positions_are_separated(
    tmp_path: Path, keyword: str | None
) -> None:
    """A repeated acquisition is a separate stack, by its number or by its order."""
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
    """Odd and even slices acquired in two passes are one stack."""
    found = datasets(STACK, SCAN)
    for index, dataset in enumerate(found):
        dataset.AcquisitionNumber = 1 + index % 2
    (series,) = series_of(found, tmp_path)
    assert len(series.images) == 11


def test_orientations_are_separated(tmp_path: Path) -> None:
    """A series with three orientations becomes three stacks that record this number."""
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
    """A gap in a stack gives a note."""
    found = datasets(STACK, SCAN)
    del found[4]
    (series,) = series_of(found, tmp_path)
    assert series.notes == ("slices are unevenly spaced; one may be missing",)


def test_frames_without_positions_are_not_a_stack(tmp_path: Path) -> None:
    """A multi-frame file with one position for all frames is not used as a slice."""
    found = datasets(STACK[:1], replace(SCAN, elements={"NumberOfFrames": 15_000}))
    (series,) = series_of(found, tmp_path)
    assert len(series.images) == 1
    assert series.plane is None


def test_without_orientation_there_is_no_plane(tmp_path: Path) -> None:
    """Headers without orientation give a series without a plane."""
    scan = replace(SCAN, elements={"ImageOrientationPatient": None})
    (series,) = series_of(datasets(STACK, scan), tmp_path)
    assert series.plane is None
    assert series.spacing_mm is None


def spread(
    blocks: list[tuple[float, float, float]], plane: Plane, *, start: float = 2.0
) -> list[Image]:
    """Slabs at several positions in one series, each `start` mm further along the normal."""
    found: list[Image] = []
    for index, centre in enumerate(blocks):
        along = index * start * SHOWN[plane][0]
        place = np.array(centre) + along
        found += images(plane, 20, centre=tuple(place), first=1 + 20 * index)
    return found


@pytest.mark.parametrize("interleaved", [True, False])
@pytest.mark.parametrize(
    ("plane", "apart"),
    [
        (Plane.AXIAL, (100.0, 0.0, 0.0)),
        (Plane.AXIAL, (60.0, 12.0, 0.0)),
        (Plane.CORONAL, (90.0, 0.0, 0.0)),
        (Plane.CORONAL, (5.0, 0.0, 0.0)),
        (Plane.SAGITTAL, (0.0, 0.0, 30.0)),
        (Plane.SAGITTAL, (100.0, 0.0, 0.0)),
        (Plane.SAGITTAL, (55.0, 3.0, 2.0)),
    ],
)
def test_slabs_with_a_gap_between_them_are_separated(
    plane: Plane, apart: tuple[float, float, float], interleaved: bool
) -> None:
    """Two slabs of one series become two stacks, with a note."""
    right, left = (-apart[0], -apart[1], -apart[2]), apart
    found = spread([right, left], plane)
    if interleaved:
        found = [found[k // 2 + 20 * (k % 2)] for k in range(40)]
        found = [replace(image, number=k + 1) for k, image in enumerate(found)]
    stacks = sort_into_series(found)
    assert [len(stack.images) for stack in stacks] == [20, 20]
    assert all(stack.spacing_mm == pytest.approx(4.0, abs=0.01) for stack in stacks)
    assert all("several blocks" in note for stack in stacks for note in stack.notes)


@pytest.mark.parametrize("plane", PLANES)
def test_a_wide_gap_does_not_split_a_stack(plane: Plane) -> None:
    """Several missing slices in a row are a gap within a stack, not between two knees."""
    whole = images(plane, 20)
    (stack,) = sort_into_series(whole[:5] + whole[8:])
    assert len(stack.images) == 17
    assert missing_slices(stack) == 3


def test_slices_of_both_sides_are_two_stacks_however_close() -> None:
    """Images of one series whose codes name both knees are never one stack."""
    right = images(count=20, centre=(-44.0, 0.0, 0.0), lateralities=("R",))
    left = images(count=20, centre=(44.0, 0.0, 0.0), first=21, lateralities=("L",))
    stacks = sort_into_series(right + left)
    assert [{image.lateralities for image in one.images} for one in stacks] == [{("R",)}, {("L",)}]
    some = [replace(image, lateralities=("R",) if k % 3 else ()) for k, image in enumerate(right)]
    (stack,) = sort_into_series(some)
    assert len(stack.images) == 20


def test_three_slabs_and_a_sheared_one() -> None:
    """Three slabs are separated; slices with a constant in-plane shift are one slab."""
    places = [(-100.0, 0.0, 0.0), (0.0, 40.0, 0.0), (100.0, 0.0, 0.0)]
    assert len(sort_into_series(spread(places, Plane.AXIAL))) == 3
    (sheared,) = sort_into_series(images(Plane.AXIAL, shift=(1.5, 0.7, 0.0)))
    assert len(sheared.images) == 20
    assert sheared.notes == ()


def test_slices_of_one_slab_may_be_few_missing_or_rounded() -> None:
    """A few missing slices and positions of two digits don't make two slabs."""
    found = [
        replace(image, position=tuple(round(place, 1) for place in image.position))
        for image in images(Plane.AXIAL, 20, centre=(33.333, 44.444, 55.555))
    ]
    del found[8:10]
    (stack,) = sort_into_series(found)
    assert len(stack.images) == 18
    assert stack.notes == ("slices are unevenly spaced; one may be missing",)


def test_one_instance_uid_for_all_images_of_a_series(tmp_path: Path) -> None:
    """Images that share one SOPInstanceUID are kept separate, but copies are dropped."""
    same = replace(SCAN, elements={"SOPInstanceUID": "1.2.3"})
    (series,) = series_of(datasets(STACK, same) + datasets(STACK, same), tmp_path)
    np.testing.assert_array_equal(upright(read_volume(series), Plane.SAGITTAL).values, STACK)
    assert len(series.notes) == 1
    assert "one SOPInstanceUID" in series.notes[0]


def test_one_instance_uid_for_echoes_and_frames() -> None:
    """Images at one position with one SOPInstanceUID are separated by echo and acquisition."""
    found = [
        image
        for te, acquisition in ((10.0, 1), (40.0, 2), (40.0, 3))
        for image in images(te_ms=te, acquisition=acquisition, instance="1.2.3")
    ]
    assert [len(stack.images) for stack in sort_into_series(found)] == [20, 20, 20]


def test_a_series_uid_for_each_image() -> None:
    """Images with one SeriesInstanceUID each are joined by number and name."""
    found = [
        replace(image, series=f"series {number} {k}", series_number=number)
        for number in (1, 2)
        for k, image in enumerate(images(series_number=number, names=(f"SAG {number}", "")))
    ]
    stacks = sort_into_series(found)
    assert [len(stack.images) for stack in stacks] == [20, 20]
    assert all("its own SeriesInstanceUID" in stack.notes[0] for stack in stacks)


def test_many_orientations_take_linear_time() -> None:
    """Each image is compared with a bounded number of orientations, not with all."""
    rng = np.random.default_rng(0)

    def comparisons(count: int, monkeypatch: pytest.MonkeyPatch) -> int:
        normals = rng.normal(size=(count, 2, 3))
        rows = normals[:, 0] / np.linalg.norm(normals[:, 0], axis=1)[:, None]
        cols = np.cross(rows, normals[:, 1])
        cols /= np.linalg.norm(cols, axis=1)[:, None]
        turned = [
            replace(one, orientation=(*row, *col), location=Location(Path(str(k))))
            for k, (one, row, col) in enumerate(zip(images(count=count), rows, cols, strict=True))
        ]
        calls = 0

        def counted(one: Axes | None, other: Axes | None) -> bool:
            nonlocal calls
            calls += 1
            return parallel(one, other)

        parallel = series_module._parallel
        with monkeypatch.context() as patch:
            patch.setattr(series_module, "_parallel", counted)
            found = sort_into_series(turned)
        assert found[0].orientations > 0.9 * count
        return calls

    with pytest.MonkeyPatch.context() as patch:
        few, many = comparisons(150, patch), comparisons(600, patch)
    assert many < 600 * 12
    assert many < 12 * few


@pytest.mark.parametrize("angle", [0.0, 12.0, 33.0, 44.0])
def test_a_turn_within_the_plane_is_measured(angle: float) -> None:
    """The rotation left after axes were exchanged is the angle within the plane."""
    along, down = np.radians(angle), np.radians(angle + 90.0)
    slices, rows, cols = SHOWN[Plane.SAGITTAL]
    axes = np.stack(
        [
            slices,
            np.cos(down) * cols + np.sin(down) * rows,
            np.cos(along) * cols + np.sin(along) * rows,
        ]
    )
    volume = Volume(np.zeros((1, 2, 2), np.float32), axes, (1.0, 1.0), np.zeros(3))
    for turn in ([0, 1, 2], [0, 2, 1]):
        turned = replace(volume, axes=volume.axes[turn])
        assert turned_degrees(upright(turned, Plane.SAGITTAL), Plane.SAGITTAL) == pytest.approx(
            angle, abs=0.01
        )


def test_the_age_replaces_a_missing_birth_date(tmp_path: Path) -> None:
    """If the birth date was removed, the age distinguishes patients."""
    scan = replace(SCAN, elements={"PatientBirthDate": "", "PatientAge": "070Y"})
    (series,) = series_of(datasets(STACK, scan), tmp_path)
    assert series.first.person[1] == "070Y"
