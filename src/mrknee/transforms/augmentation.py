"""Augmentation of training exams: random rotation, shift and mirroring.

The random numbers depend only on (seed, epoch, exam id), so that any worker of any process can
reproduce them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from mrknee.exams import PLANES, Plane
from mrknee.transforms.preparation import Preparation
from mrknee.transforms.settings import AugmentationSettings

_AXES = {Plane.AXIAL: (1, 0), Plane.CORONAL: (2, 0), Plane.SAGITTAL: (2, 1)}
"""Plane -> the anatomical axes (0 left-right, 1 front-back, 2 up-down) of its row index and of its
column index."""


_CACHE_LINE = 64  # bytes, on every processor that torch runs on


@dataclass(frozen=True)
class View:
    """The transformation of all series of one plane.

    Attributes:
        angle: rotation in degrees.
        shift: of the row index and of the column index, as fractions of the crop's side.
        flip: whether the columns of every slice are mirrored.
        reverse: whether the order of the slices is reversed.
    """

    angle: float
    shift: tuple[float, float]
    flip: bool
    reverse: bool


def draw_views(
    augmentation: AugmentationSettings, seed: int, epoch: int, exam_id: str
) -> dict[Plane, View]:
    """Draws one view per plane; the same arguments always give the same views."""
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
    """Rotates, shifts, mirrors and crops a stack, in one interpolation.

    All slices are transformed equally. The stack is cropped after the transformation, so that the
    corners show the surroundings in the image; edge pixels are repeated only beyond its border.
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
    """Interpolates all slices bilinearly at the same positions, repeating edge pixels.

    The stack is transposed so that all slices' values of one pixel are adjacent. Each position is
    then a weighted sum of four rows, which is twice as fast as `grid_sample`.

    Args:
        stack: the slices.
        y: row indices of the positions.
        x: column indices of the positions.
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
    # slices at distances of a power of two would evict each other from the cache when transposed
    apart = np.empty((slices, rows * cols + _CACHE_LINE), dtype=np.uint8)
    apart[:, : rows * cols] = stack.reshape(slices, -1)
    # numpy transposes bytes, and converts them to floats and back, several times faster than torch
    pixels = np.ascontiguousarray(apart[:, : rows * cols].T).astype(np.float32)
    found = functional.embedding_bag(
        places, torch.from_numpy(pixels), mode="sum", per_sample_weights=weights
    )
    rounded = found.add_(0.5).numpy().astype(np.uint8)
    return torch.from_numpy(np.ascontiguousarray(rounded.T))
