from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mrknee.exams import MRNET_SERIES, Series, SeriesList
from mrknee.sources.phantom import PhantomExam, Truth, make_phantom, render_exam
from mrknee.sources.phantom.anatomy import Anatomy, draw_anatomy
from mrknee.sources.phantom.bones import fibula, patella
from mrknee.sources.phantom.exam import EXTENT, draw_exam_lesions
from mrknee.sources.phantom.scanner import PLANES, draw_protocol, sample
from mrknee.sources.phantom.shapes import Box, Grid
from tests.sources.six import SIX

SIZE = 64
BOTH = Truth(abnormal=True, acl=True, meniscus=True)
NORMAL = Truth(abnormal=False, acl=False, meniscus=False)


@pytest.fixture(scope="module")
def torn() -> PhantomExam:
    """One exam with both tears."""
    return render_exam(11, BOTH, size=SIZE)


@pytest.fixture(scope="module")
def healthy() -> PhantomExam:
    """The same seed without lesions."""
    return render_exam(11, NORMAL, size=SIZE)


def test_stacks_are_mrnets_format(torn: PhantomExam) -> None:
    """Three planes are uint8 (slices, size, size) and use the complete range of grey."""
    assert tuple(torn.stacks) == PLANES
    for plane, stack in torn.stacks.items():
        assert stack.dtype == np.uint8
        assert stack.shape == (torn.protocol.series[plane].slices, SIZE, SIZE)
        assert stack.max() > 200
        assert stack.min() < 20
        assert stack.flags.c_contiguous


def test_masks_lie_in_the_stacks_grid(torn: PhantomExam) -> None:
    """Positive findings have a non-empty 0/1 mask of the stack's shape in every plane."""
    assert set(torn.masks) == {"abnormal", "acl", "meniscus"}
    for planes in torn.masks.values():
        for plane, mask in planes.items():
            assert mask.dtype == np.uint8
            assert mask.shape == torn.stacks[plane].shape
            assert set(np.unique(mask)) == {0, 1}
            assert mask.mean() < 0.1


def test_normal_exams_have_no_masks(healthy: PhantomExam) -> None:
    """Negative findings have no mask at all."""
    assert healthy.masks == {}
    assert healthy.lesions == ()


@pytest.mark.parametrize("acl", [True, False])
def test_only_positive_findings_have_masks(acl: bool) -> None:
    """An exam with one tear has the masks of that tear and of abnormal."""
    exam = render_exam(5, Truth(abnormal=True, acl=acl, meniscus=not acl), size=SIZE)
    assert set(exam.masks) == {"abnormal", "acl" if acl else "meniscus"}


@pytest.mark.parametrize("seed", range(6))
def test_every_tear_is_visible_in_every_plane(seed: int) -> None:
    """Masks of both tears are not empty in any plane, however subtle the tear."""
    exam = render_exam(seed, BOTH, size=SIZE, slice_factor=0.5)
    for finding in ("acl", "meniscus"):
        for plane in PLANES:
            assert exam.masks[finding][plane].any()


def test_the_abnormal_mask_holds_every_lesion(torn: PhantomExam) -> None:
    """The tears' masks lie within the mask of abnormal."""
    for finding in ("acl", "meniscus"):
        for plane in PLANES:
            part = torn.masks[finding][plane].astype(bool)
            assert torn.masks["abnormal"][plane][part].all()


def test_the_same_seed_gives_the_same_bytes(torn: PhantomExam) -> None:
    """Rendering twice gives identical stacks and masks."""
    again = render_exam(11, BOTH, size=SIZE)
    for plane in PLANES:
        assert torn.stacks[plane].tobytes() == again.stacks[plane].tobytes()
        for finding, planes in torn.masks.items():
            assert planes[plane].tobytes() == again.masks[finding][plane].tobytes()


def test_another_seed_gives_another_knee(torn: PhantomExam) -> None:
    """The next seed differs in anatomy and in protocol."""
    other = render_exam(12, NORMAL, size=SIZE)
    assert other.anatomy != torn.anatomy
    assert other.protocol != torn.protocol


def test_the_truth_changes_lesions_only(torn: PhantomExam, healthy: PhantomExam) -> None:
    """The same seed with another truth is the same knee in the same scanner."""
    assert torn.anatomy == healthy.anatomy
    assert torn.protocol == healthy.protocol
    assert torn.lesions


def test_lesions_can_be_drawn_without_rendering(torn: PhantomExam) -> None:
    """`draw_exam_lesions` returns the lesions that `render_exam` paints."""
    assert draw_exam_lesions(11, BOTH) == torn.lesions


def test_fewer_slices_on_request() -> None:
    """slice_factor halves the slice counts and keeps the covered width to within a third."""
    full, half = (render_exam(2, NORMAL, size=32, slice_factor=f) for f in (1.0, 0.5))
    for plane in PLANES:
        a, b = full.protocol.series[plane], half.protocol.series[plane]
        assert abs(b.slices - a.slices / 2) <= 0.5
        assert b.slices * b.spacing == pytest.approx(a.slices * a.spacing, rel=0.34)


@pytest.mark.parametrize("seed", range(4))
def test_a_smaller_field_of_view_shows_the_centre(seed: int) -> None:
    """With fov_factor 0.5 half the pixels show the middle of the same knee, with its tears."""
    usual = render_exam(seed, BOTH, size=2 * SIZE, slice_factor=0.5)
    near = render_exam(seed, BOTH, size=SIZE, slice_factor=0.25, fov_factor=0.5)
    for plane in PLANES:
        one, two = usual.protocol.series[plane], near.protocol.series[plane]
        assert two.field_of_view == pytest.approx(one.field_of_view / 2)
        assert two.slices * two.spacing < 0.7 * one.slices * one.spacing
        for finding in ("acl", "meniscus"):
            assert near.masks[finding][plane].any()
    # slices are thinner and lie elsewhere, so the most similar one is taken
    image = near.stacks["sagittal"][len(near.stacks["sagittal"]) // 2].ravel()

    def similarity(row: int, col: int) -> float:
        crops = usual.stacks["sagittal"][:, row : row + SIZE, col : col + SIZE]
        return float(max(np.corrcoef(image, one.ravel())[0, 1] for one in crops))

    elsewhere = [similarity(row, col) for row in (16, 32, 48) for col in (16, 32, 48)]
    assert similarity(32, 32) == max(elsewhere)


def test_an_exam_has_the_series_that_are_declared() -> None:
    """Six stacks in the declared order, each with its lesions' masks; two of a plane differ."""
    knee = make_phantom(4, ["acl"], size=32, slice_factor=0.3, series=SIX)
    assert knee.series == SIX
    assert tuple(knee.stacks) == SIX.names
    for finding in ("abnormal", "acl"):
        assert tuple(knee.lesions[finding]) == SIX.names
        for name, mask in knee.lesions[finding].items():
            assert mask.shape == knee.stacks[name].shape
            assert mask.any()
    first, second = (knee.stacks[name] for name in ("sag_pd_fs", "sag_pd"))
    assert first.shape != second.shape or (first != second).any()


def test_fat_is_dark_where_its_suppression_is_declared() -> None:
    """With fat suppression, bone has at most half the brightness that it has without."""
    knee = make_phantom(4, size=64, slice_factor=0.3, series=SIX)
    dark, bright = (np.median(knee.stacks[name][1:-1, 8:24, 24:40]) for name in SIX.names[:2])
    assert dark < bright / 2


def test_a_series_does_not_depend_on_the_others() -> None:
    """For one seed, a series' bytes and masks don't depend on the other series."""
    given: dict[str, Any] = {"size": 32, "slice_factor": 0.2}
    usual = make_phantom(8, ["meniscus"], **given)
    every = make_phantom(8, ["meniscus"], series=SeriesList([*SIX, *MRNET_SERIES]), **given)
    for part in (SIX[3:5], MRNET_SERIES[2:], [SIX[1], MRNET_SERIES[1]]):
        some = make_phantom(8, ["meniscus"], series=SeriesList(part), **given)
        for name, stack in some.stacks.items():
            assert np.array_equal(stack, every.stacks[name])
            assert np.array_equal(some.lesions["meniscus"][name], every.lesions["meniscus"][name])
    for name, stack in usual.stacks.items():
        assert np.array_equal(stack, every.stacks[name])


def test_a_planes_name_with_another_contrast_is_another_series() -> None:
    """A series named `coronal` that declares PD is not MRNet's coronal T1."""
    series = SeriesList([Series("coronal", "coronal", "PD", True)])
    knee = render_exam(3, NORMAL, size=32, slice_factor=0.2, series=series)
    usual = render_exam(3, NORMAL, size=32, slice_factor=0.2)
    assert knee.protocol.series["coronal"].repetition_ms > 2000
    assert usual.protocol.series["coronal"].repetition_ms < 1000


def straight_knee(right: bool) -> Anatomy:
    """An unrotated knee at the centre of the scanner."""
    knee = draw_anatomy(np.random.default_rng(0))
    pose = (0.0, 0.0, 0.0)
    return replace(knee, right=right, rotation_deg=pose, offset=pose, flexion_deg=5.0)


def centre_of_mass(knee: Anatomy, bone: str, plane: str) -> tuple[float, ...]:
    """Position of a bone in a plane's stack: slice, row, column, each from 0 to 1."""
    grid = Grid(2.0, EXTENT)
    shape = fibula(knee, grid) if bone == "fibula" else patella(knee, grid)[0]
    inside = (shape.distance < 0).astype(np.float32)
    series = draw_protocol(np.random.default_rng(0), 1.0).series[plane]
    series = replace(series, centre=(0.0, 0.0, 0.0), field_of_view=150.0)
    box = Box(shape.box.slices, shape.box.x, shape.box.y, shape.box.z)
    stack = sample(inside, box, series, 64)
    places = np.argwhere(stack > 0.3).mean(axis=0)
    return tuple(float(p / n) for p, n in zip(places, stack.shape, strict=True))


@pytest.mark.parametrize("right", [True, False])
def test_left_and_right_agree_in_all_planes(right: bool) -> None:
    """A right knee's fibula is at the image's left in axial and coronal, first in sagittal."""
    knee = straight_knee(right)
    axial = centre_of_mass(knee, "fibula", "axial")[2]
    coronal = centre_of_mass(knee, "fibula", "coronal")[2]
    sagittal = centre_of_mass(knee, "fibula", "sagittal")[0]
    for place in (axial, coronal, sagittal):
        assert (place < 0.4) if right else (place > 0.6)


def test_planes_have_radiological_orientation() -> None:
    """The patella is at the top of axial, left of sagittal and in the first coronal slices."""
    knee = straight_knee(True)
    assert centre_of_mass(knee, "patella", "axial")[1] < 0.35
    assert centre_of_mass(knee, "patella", "sagittal")[2] < 0.35
    assert centre_of_mass(knee, "patella", "coronal")[0] < 0.35
    assert centre_of_mass(knee, "patella", "coronal")[1] < 0.5
    assert centre_of_mass(knee, "fibula", "coronal")[1] > 0.6
    assert centre_of_mass(knee, "fibula", "sagittal")[1] > 0.6
    assert centre_of_mass(knee, "patella", "axial")[0] < centre_of_mass(knee, "fibula", "axial")[0]


def test_knees_differ_in_side_and_size() -> None:
    """Both sides occur and sizes vary by more than 10 %."""
    knees = [draw_anatomy(np.random.default_rng(seed)) for seed in range(60)]
    assert 15 < sum(knee.right for knee in knees) < 45
    sizes = [knee.scale for knee in knees]
    assert max(sizes) - min(sizes) > 0.1


def test_normal_knees_carry_distractors() -> None:
    """Some normal knees have meniscal degeneration, a bright ACL spot, and fluid."""
    knees = [draw_anatomy(np.random.default_rng(seed)) for seed in range(100)]
    assert 20 < sum(max(knee.degeneration) > 0 for knee in knees) < 80
    assert 20 < sum(knee.acl_bright_spot > 0 for knee in knees) < 60
    assert np.std([knee.fluid for knee in knees]) > 0.1
