"""Random views of an exam for training: drawn from (seed, epoch, exam id), then applied.

Because the draw depends on nothing else, any worker of any process can replay it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from mrknee.errors import SettingsError
from mrknee.exams import PLANES, Plane
from mrknee.tensors.preparation import Preparation

_AXES = {Plane.AXIAL: (1, 0), Plane.CORONAL: (2, 0), Plane.SAGITTAL: (2, 1)}
"""Plane -> which of the knee's axes (0 left-right, 1 front-back, 2 up-down) its rows and columns
run along."""


@dataclass(frozen=True)
class Augmentation:
    """What may be drawn; the ranges are the reference system's.

    Args:
        rotation: largest angle, in degrees, either way.
        translation: largest shift along each axis, as a share of the crop's side (the published
            code crops first).
        mirror: probability of a mirror image, 0 to 1.
        draw: "exam": one draw per exam, the same for all series of a plane. A mirrored knee is a
            mirrored knee: axial and coronal slices are flipped left to right and the order of the
            sagittal slices is reversed; the shift is one shift in space, seen by each plane along
            its own two axes; each plane turns about its own axis. "plane": each plane draws for
            itself, and the sagittal plane is flipped front to back, as the published code does
            (left and right then disagree between planes).

    Raises:
        MrkneeError: a value outside its range.
    """

    rotation: float = 25.0
    translation: float = 0.11
    mirror: float = 0.5
    draw: Literal["exam", "plane"] = "exam"

    def __post_init__(self) -> None:
        if (
            not 0 <= self.rotation <= 180
            or not 0 <= self.translation < 1
            or not 0 <= self.mirror <= 1
        ):
            raise SettingsError(
                "the augmentation is out of range",
                code="augmentation",
                expected="rotation 0..180 degrees, translation 0..1, mirror 0..1",
                found=f"{self.rotation}, {self.translation}, {self.mirror}",
            )

    @property
    def any(self) -> bool:
        """Whether anything is drawn at all."""
        return self.rotation > 0 or self.translation > 0 or self.mirror > 0


_CACHE_LINE = 64  # bytes, on every processor that torch runs on


@dataclass(frozen=True)
class View:
    """The draw for all series of one plane.

    Attributes:
        angle: degrees.
        shift: along rows and columns, as a share of the crop's side.
        flip: mirror the columns of every slice.
        reverse: reverse the order of the slices.
    """

    angle: float
    shift: tuple[float, float]
    flip: bool
    reverse: bool


def draw_views(
    augmentation: Augmentation, seed: int, epoch: int, exam_id: str
) -> dict[Plane, View]:
    """Draws one view a plane; the same arguments always give the same views."""
    rng = np.random.default_rng([seed, epoch, *exam_id.encode()])
    angles = rng.uniform(-1, 1, 3) * augmentation.rotation
    if augmentation.draw == "exam":
        space = rng.uniform(-1, 1, 3) * augmentation.translation
        mirrored = bool(rng.random() < augmentation.mirror)
        return {
            plane: View(
                angle=float(angle),
                shift=(float(space[_AXES[plane][0]]), float(space[_AXES[plane][1]])),
                flip=mirrored and plane is not Plane.SAGITTAL,
                reverse=mirrored and plane is Plane.SAGITTAL,
            )
            for plane, angle in zip(PLANES, angles, strict=True)
        }
    shifts = rng.uniform(-1, 1, (3, 2)) * augmentation.translation
    flips = rng.random(3) < augmentation.mirror
    return {
        plane: View(float(angle), (float(shift[0]), float(shift[1])), bool(flip), reverse=False)
        for plane, angle, shift, flip in zip(PLANES, angles, shifts, flips, strict=True)
    }


def apply_view(
    stack: UInt8[np.ndarray, "slices rows cols"], view: View, preparation: Preparation
) -> UInt8[Tensor, "slices crop crop"]:
    """Turns, shifts and mirrors a stack and cuts the centre square, in one interpolation.

    All slices turn together. The crop is cut from the turned image, not turned after the crop,
    so what turns into view is the knee's own surroundings; only beyond the image's border its
    edge pixels are repeated.
    """
    whole = stack
    if not preparation.only_cuts(stack.shape[1], stack.shape[2]):
        whole = preparation.resize(torch.from_numpy(np.array(stack))).numpy()
    rows, cols = whole.shape[1:]
    crop = preparation.crop
    radians = np.deg2rad(view.angle)
    cos, sin = float(np.cos(radians)), float(np.sin(radians))
    steps = torch.arange(crop, dtype=torch.float32) - (crop - 1) / 2  # from the image's centre
    across = -steps if view.flip else steps
    up, over = torch.meshgrid(steps, across, indexing="ij")
    x = cos * over - sin * up + view.shift[1] * crop + (cols - 1) / 2
    y = sin * over + cos * up + view.shift[0] * crop + (rows - 1) / 2
    turned = _interpolate(whole, y.flatten(), x.flatten()).view(len(whole), crop, crop)
    return turned.flip(0) if view.reverse else turned


def _interpolate(
    stack: UInt8[np.ndarray, "slices rows cols"],
    y: Float[Tensor, " places"],
    x: Float[Tensor, " places"],
) -> UInt8[Tensor, "slices places"]:
    """Every slice at the same places, bilinearly; beyond the border, its edge pixels.

    All slices of a pixel lie side by side, so that a place is one weighted sum of four rows: twice
    as fast as `grid_sample`, which gathers slice by slice.
    """
    slices, rows, cols = stack.shape
    y, x = y.clamp(0, rows - 1), x.clamp(0, cols - 1)
    top, left = y.floor().clamp_(max=max(rows - 2, 0)), x.floor().clamp_(max=max(cols - 2, 0))
    down, over = y - top, x - left
    right, below = min(cols - 1, 1), min(rows - 1, 1) * cols
    first = (top * cols + left).int()
    places = torch.empty((len(first), 4), dtype=torch.int32)
    weights = torch.empty((len(first), 4))
    for corner, step in enumerate((0, right, below, below + right)):
        places[:, corner] = first + step
        weights[:, corner] = (over if corner % 2 else 1 - over) * (down if corner > 1 else 1 - down)
    # slices a power of two apart would push each other out of the cache while they are turned
    apart = np.empty((slices, rows * cols + _CACHE_LINE), dtype=np.uint8)
    apart[:, : rows * cols] = stack.reshape(slices, -1)
    # numpy turns bytes, and makes them floats and back, several times faster than torch
    pixels = np.ascontiguousarray(apart[:, : rows * cols].T).astype(np.float32)
    found = functional.embedding_bag(
        places, torch.from_numpy(pixels), mode="sum", per_sample_weights=weights
    )
    rounded = found.add_(0.5).numpy().astype(np.uint8)
    return torch.from_numpy(np.ascontiguousarray(rounded.T))
