"""From a volume to bytes: the joint in the middle, 256 x 256 square pixels, 0 to 255.

The rule is written out in docs/reference/import-rules.md; the two must say the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from PIL import Image
from scipy import ndimage

from mrknee.errors import DataError
from mrknee.exams import Plane
from mrknee.exams.exam import Stack
from mrknee.sources.clinical.geometry import Volume

SIZE = 256
"""Rows and columns of MRNet's slices."""
LARGEST_MM = 180.0
"""The widest window. Knees are imaged with fields of 140 to 180 mm; what is wider, for a large
coil or both legs, is cut."""
EDGE_MM, LAYERS_MM, PRIOR_MM, NEAR_MM = 1.0, 8.0, 40.0, 15.0
"""Of the search for the joint: smoothing of slices, of the profile along the leg, the prior's
standard deviation, and how far above and below the joint the limb's middle is taken from."""
LEGS_FIELD_MM, LEGS_APART_MM, SECOND_LEG = 200.0, 70.0, 0.7
"""A field that shows both legs is wider than 200 mm: each is some 100 mm wide at the knee. The
middles of its two largest parts that are no air are more than 70 mm apart, and the second one is at
least this share of the first, as legs are of one size: less is the edge of the other leg."""
WIDEST_LEG_MM = 230.0
"""What is no air and reaches further across than this is two legs that touch."""
BLACK, WHITE = 0.5, 99.5
"""The percentiles of all pixels of a series, without padding, that become 0 and 255."""


@dataclass(frozen=True)
class Framed:
    """A stack as MRNet has it, and how it was framed.

    Attributes:
        stack: uint8 (slices, 256, 256).
        pixel_mm: the edge of its pixels.
        joint: row and column of the upright image that are the frame's middle.
        warnings: what is odd about it, one sentence each.
    """

    stack: Stack
    pixel_mm: float
    joint: tuple[int, int]
    warnings: tuple[str, ...]


def frame(volume: Volume, plane: Plane) -> Framed:
    """Frames an upright volume.

    Args:
        volume: already turned the way its plane is shown.
        plane: which.

    Raises:
        MrkneeError: all its pixels are equal, or padding; it shows both legs.
    """
    _, rows, cols = volume.values.shape
    padding = np.isnan(volume.values)
    tissue = volume.values[~padding] if padding.any() else volume.values
    if not tissue.size:
        raise DataError("a series shows nothing: all its pixels are padding", code="constant")
    black, white = np.percentile(tissue, (BLACK, WHITE))
    if not white > black:
        black, white = float(tissue.min()), float(tissue.max())
    if not white > black:
        raise DataError("a series shows nothing: all its pixels are equal", code="constant")
    if padding.any():
        volume = replace(volume, values=np.where(padding, np.float32(black), volume.values))
    values = volume.values
    if plane is not Plane.SAGITTAL and shows_both_legs(volume):
        raise DataError(
            "it shows both legs in one field: which of the two is meant isn't known",
            code="both-legs",
        )
    # headers and NIfTI's 32-bit numbers give the same size with other last digits
    row_mm, col_mm = (round(size, 4) for size in volume.pixel_mm)
    window_mm = min(max(rows * row_mm, cols * col_mm), LARGEST_MM)
    row, col = (round(place) for place in joint_centre(volume, plane))
    step = window_mm / SIZE
    window = _Window(row, col, step / row_mm, step / col_mm)
    stack = np.empty((len(values), SIZE, SIZE), np.uint8)
    for index, image in enumerate(values):
        grey = np.clip((image - black) / (white - black), 0.0, 1.0) * 255.0
        stack[index] = np.rint(window.cut(grey))
    warnings = []
    if max(rows * row_mm, cols * col_mm) > 1.4 * LARGEST_MM:
        warnings.append("the field is very wide; if it shows both legs, the frame may be wrong")
    return Framed(stack, step, (row, col), tuple(warnings))


@dataclass(frozen=True)
class _Window:
    """Which part of an image becomes `SIZE` x `SIZE` pixels.

    Attributes:
        row, col: the source pixel in the middle: with steps of 1, values are copied.
        down, across: how many source pixels one pixel spans.
    """

    row: int
    col: int
    down: float
    across: float

    def cut(self, image: Float[np.ndarray, "rows cols"]) -> Float32[np.ndarray, "256 256"]:
        """The window of one slice; black beyond its edges.

        Linear where pixels get smaller, an average over as many more where they get larger.
        """
        half = SIZE / 2 + 0.5  # the middle pixel, right and below the middle, has its centre here
        left, top = self.col + 0.5 - half * self.across, self.row + 0.5 - half * self.down
        right, bottom = left + SIZE * self.across, top + SIZE * self.down
        rows, cols = image.shape
        margin = int(np.ceil(max(0.0, -left, -top, right - cols, bottom - rows)))
        room = Image.fromarray(np.pad(image, margin).astype(np.float32))
        box = (left + margin, top + margin, right + margin, bottom + margin)
        cut: Float32[np.ndarray, "256 256"] = np.asarray(
            room.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=box)
        )
        return cut


def joint_centre(volume: Volume, plane: Plane) -> tuple[float, float]:
    """Where the middle of the knee joint lies in an upright volume: row and column.

    Across the leg it is the middle of the limb. Along the leg (rows of coronal and sagittal
    images) it is the row around which brightness changes most from row to row, in the limb's
    middle half: bone is uniform in every contrast, and the joint between the bones is the one
    place where cartilage, menisci and fluid lie in layers across. A Gaussian prior around the
    image's own middle keeps out kneecap and growth plates.

    Args:
        volume: upright.
        plane: which.
    """
    slices, rows, _ = volume.values.shape
    row_mm, col_mm = volume.pixel_mm
    middle = volume.values[slices // 4 : max(slices // 4 + 1, slices - slices // 4)]
    limb = _limb(middle.mean(axis=0), volume.pixel_mm)
    if plane is Plane.AXIAL:
        return _middle(limb, 1), _middle(limb, 0)
    left, right = np.flatnonzero(limb.any(axis=0))[[0, -1]]
    inner = slice(left + (right - left) // 4, right - (right - left) // 4 + 1)
    change = np.zeros(rows)
    for image in middle:
        smooth = ndimage.gaussian_filter(image, (EDGE_MM / row_mm, EDGE_MM / col_mm))
        change += np.abs(np.diff(smooth[:, inner], axis=0, append=smooth[-1:, inner])).mean(axis=1)
    layered = ndimage.gaussian_filter1d(change, LAYERS_MM / row_mm, mode="nearest")
    off_mm = (np.arange(rows) - (rows - 1) / 2) * row_mm
    row = int(np.argmax(layered * np.exp(-0.5 * (off_mm / PRIOR_MM) ** 2)))
    reach = round(NEAR_MM / row_mm)
    near = limb[max(0, row - reach) : row + reach + 1]
    return float(row), _middle(near if near.any() else limb, 0)


def shows_both_legs(volume: Volume) -> bool:
    """Whether an upright axial or coronal volume shows the knees of both legs.

    Args:
        volume: upright, so that its columns run from the patient's right to left.
    """
    slices, _, cols = volume.values.shape
    col_mm = volume.pixel_mm[1]
    if cols * col_mm < LEGS_FIELD_MM:
        return False
    middle = volume.values[slices // 4 : max(slices // 4 + 1, slices - slices // 4)]
    # legs may be less than a twentieth of a wide field, so their brightness is looked for higher
    parts, sizes = _no_air(middle.mean(axis=0), volume.pixel_mm, bright=99.0)
    largest = np.argsort(sizes)[::-1][:2]
    ends = [np.flatnonzero((parts == part).any(axis=0))[[0, -1]] for part in largest if sizes[part]]
    if any((last - first) * col_mm > WIDEST_LEG_MM for first, last in ends):
        return True
    if len(ends) < 2 or sizes[largest[1]] < SECOND_LEG * sizes[largest[0]]:
        return False
    (one, other) = ((first + last) / 2 for first, last in ends)
    return bool(abs(one - other) * col_mm > LEGS_APART_MM)


def _no_air(
    image: Float[np.ndarray, "rows cols"],
    pixel_mm: tuple[float, float],
    *,
    bright: float = 95.0,
) -> tuple[Int[np.ndarray, "rows cols"], Int[np.ndarray, " count"]]:
    """The connected parts of an image that are no air, numbered from 1; and each part's size.

    Air is darker than a fifth of a high percentile, `bright`.
    """
    smooth = ndimage.gaussian_filter(image - image.min(), [3.0 / size for size in pixel_mm])
    parts, _ = ndimage.label(smooth > 0.2 * np.percentile(smooth, bright))
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return parts, sizes


def _limb(
    image: Float[np.ndarray, "rows cols"], pixel_mm: tuple[float, float]
) -> Bool[np.ndarray, "rows cols"]:
    """Where the limb is: the largest connected part that is no air; everything, if none is."""
    parts, sizes = _no_air(image, pixel_mm)
    if not sizes.any():
        return np.ones_like(image, dtype=bool)
    return np.asarray(parts == int(np.argmax(sizes)))


def _middle(there: Bool[np.ndarray, "rows cols"], along: int) -> float:
    """The middle between the ends of what is there, seen along an axis."""
    places = np.flatnonzero(there.any(axis=along))
    return float(places[0] + places[-1]) / 2
