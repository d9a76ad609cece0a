from __future__ import annotations

import numpy as np
import pytest
import torch

from mrknee.errors import MrkneeError
from mrknee.exams import Exam, Plane
from mrknee.transforms.augmentation import View, apply_view, draw_views
from mrknee.transforms.batches import frame_exam
from mrknee.transforms.preparation import Preparation
from mrknee.transforms.settings import AugmentationSettings

SMALL = Preparation(size=32, crop=28)
IMAGE = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (3, 32, 32), dtype=np.uint8))
STILL = View(angle=0.0, shift=(0.0, 0.0), flip=False, reverse=False)
MIRROR_ONLY = AugmentationSettings(rotation=0, translation=0, mirror=1)


@pytest.mark.parametrize("cols", [32, 20], ids=["square", "narrow"])
def test_the_identity_view_is_the_frame(cols: int) -> None:
    """Without rotation, shift and mirroring, the view equals the input in evaluation."""
    image = IMAGE[:, :, :cols]
    assert torch.equal(apply_view(image.numpy(), STILL, SMALL), SMALL.frame(image))


def test_the_draw_depends_on_seed_epoch_and_exam_only() -> None:
    """The view is determined by these three, and changes with each of them."""
    first = draw_views(AugmentationSettings(), 1, 2, "0003")
    assert draw_views(AugmentationSettings(), 1, 2, "0003") == first
    for other in ((2, 2, "0003"), (1, 3, "0003"), (1, 2, "0004")):
        assert draw_views(AugmentationSettings(), *other) != first


@pytest.mark.parametrize("draw", ["exam", "plane"])
def test_draws_stay_in_range_and_use_it(draw: str) -> None:
    """Angles fill +-25 degrees, shifts +-11 %, and half the views are mirrored."""
    augmentation = AugmentationSettings(draw=draw)  # type: ignore[arg-type]
    views = [v for i in range(400) for v in draw_views(augmentation, 0, i, "a").values()]
    angles = np.array([v.angle for v in views])
    shifts = np.array([v.shift for v in views])
    assert 24 < np.abs(angles).max() <= 25
    assert 0.105 < np.abs(shifts).max() <= 0.11
    mirrored = np.mean([v.flip or v.reverse for v in views])
    assert abs(mirrored - 0.5) < 4 * 0.5 / np.sqrt(400)


def test_a_mirrored_exam_is_mirrored_in_all_planes() -> None:
    """Mirroring flips axial and coronal slices and reverses the order of sagittal slices.

    The reference mirrors each plane separately, so that left and right differ between planes.
    """
    volume = np.random.default_rng(1).integers(0, 255, (28, 28, 28), dtype=np.uint8)

    def exam(knee: np.ndarray) -> Exam:
        # axes of the volume: left-right, front-back, up-down
        return Exam(
            "0",
            {
                Plane.AXIAL: np.ascontiguousarray(knee.transpose(2, 1, 0)),
                Plane.CORONAL: np.ascontiguousarray(knee.transpose(1, 2, 0)),
                Plane.SAGITTAL: np.ascontiguousarray(knee.transpose(0, 2, 1)),
            },
        )

    mirrored = frame_exam(exam(volume), Preparation(size=28, crop=28), MIRROR_ONLY)
    really = frame_exam(exam(volume[::-1]), Preparation(size=28, crop=28))
    for plane in Plane:
        assert torch.equal(mirrored.slices[plane], really.slices[plane])


def test_one_shift_in_space_is_seen_by_all_planes() -> None:
    """With one draw per exam, two planes with a common axis have the same shift along it."""
    views = draw_views(AugmentationSettings(draw="exam"), 0, 0, "a")
    axial, coronal, sagittal = (views[p].shift for p in Plane)
    assert axial[1] == coronal[1]  # left-right
    assert axial[0] == sagittal[1]  # front-back
    assert coronal[0] == sagittal[0]  # up-down


def test_planes_can_be_drawn_separately_as_in_the_reference() -> None:
    """With one draw per plane, in some exams only some planes are mirrored."""
    flips = [
        {v.flip for v in draw_views(AugmentationSettings(draw="plane"), 0, i, "a").values()}
        for i in range(50)
    ]
    assert {True, False} in flips


def test_a_rotation_by_90_degrees_equals_rot90() -> None:
    """A rotation by 90 degrees moves every pixel as numpy's rot90 does, in all slices."""
    square = Preparation(size=32, crop=32)
    turned = apply_view(IMAGE.numpy(), View(90.0, (0.0, 0.0), flip=False, reverse=False), square)
    ways = [torch.rot90(IMAGE, k, (1, 2)) for k in (1, -1)]
    assert any((turned.int() - way.int()).abs().max() <= 1 for way in ways)


def test_a_shift_moves_by_its_share_of_the_crop() -> None:
    """As published, a quarter of a crop of 16 is 4 rows, whatever the image's size."""
    middle = Preparation(size=32, crop=16)
    moved = apply_view(IMAGE.numpy(), View(0.0, (0.25, 0.0), flip=False, reverse=False), middle)
    assert torch.equal(moved, IMAGE[:, 12:28, 8:24])


def test_pixels_outside_the_crop_are_rotated_into_it() -> None:
    """The image is cropped after the rotation, so that no edge pixels are repeated."""
    image = torch.zeros((1, 32, 32), dtype=torch.uint8)
    image[:, :2] = 200  # outside the central 28
    assert not SMALL.frame(image).any()
    moved = apply_view(image.numpy(), View(0.0, (-2 / 28, 0.0), flip=False, reverse=False), SMALL)
    assert (moved[:, :2] == 200).all()


@pytest.mark.parametrize("bad", [{"rotation": -1}, {"translation": 1.5}, {"mirror": 2}])
def test_ranges_are_checked(bad: dict[str, int]) -> None:
    """An impossible range is an error."""
    with pytest.raises(MrkneeError):
        AugmentationSettings(**bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(32, 32), (40, 29), (1, 30), (30, 1)])
def test_it_interpolates_as_torch_does(size: tuple[int, int]) -> None:
    """Any view of any size equals `grid_sample` with border padding within 1 grey value."""
    rng = np.random.default_rng(sum(size))
    image = torch.from_numpy(rng.integers(0, 256, (3, *size), dtype=np.uint8))
    square = Preparation(size=40, crop=24)
    whole = square.resize(image)
    rows, cols = whole.shape[1:]
    view = View(21.0, (0.09, -0.3), flip=True, reverse=False)
    steps = torch.arange(24, dtype=torch.float32) - 11.5
    up, over = torch.meshgrid(steps, -steps, indexing="ij")
    cos, sin = np.cos(np.deg2rad(21.0)), np.sin(np.deg2rad(21.0))
    x = cos * over - sin * up - 0.3 * 24
    y = sin * over + cos * up + 0.09 * 24
    expected = torch.nn.functional.grid_sample(
        whole[None].float(),
        torch.stack([x * (2 / cols), y * (2 / rows)], dim=-1)[None].float(),
        padding_mode="border",
        align_corners=False,
    )[0]
    found = apply_view(image.numpy(), view, square)
    assert found.shape == (3, 24, 24)
    assert (found.float() - expected).abs().max() <= 0.501
