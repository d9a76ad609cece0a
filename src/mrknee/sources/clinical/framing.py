"""Framing of a volume: crop around the joint, resize to square pixels, scale to 0..255.

docs/reference/import-rules.md states the rule; change both together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from PIL import Image
from scipy import ndimage

from mrknee.errors import DataError, SettingsError
from mrknee.exams import Plane
from mrknee.exams.exam import Stack
from mrknee.ranges import Range
from mrknee.sources.clinical.geometry import Axes, Direction, Volume

SIZE = 256
"""Rows and columns of MRNet's slices."""
SIZES = Range(64, 1024)
"""Allowed rows and columns; images of knees have 256 to 1024."""
LARGEST_MM = 180.0
"""Maximum width of the window unless one is given. Knees are imaged with fields of 140 to 180 mm;
wider fields, for a large coil or both legs, are cropped."""
SMALLEST_CROP_MM, LARGEST_CROP_MM = 60.0, 300.0
"""Allowed widths of a given window. A knee is some 100 mm wide."""
EDGE_MM, LAYERS_MM, PRIOR_MM, NEAR_MM = 1.0, 8.0, 40.0, 15.0
"""Parameters of the search for the joint: smoothing of slices, smoothing of the profile along the
leg, standard deviation of the prior, and distance above and below the joint within which the
middle of the limb is measured."""
LEGS_FIELD_MM, LEGS_APART_MM, SECOND_LEG = 200.0, 70.0, 0.7
"""A field that shows both legs is wider than 200 mm, as each is some 100 mm wide at the knee. The
centres of its two largest parts that aren't air are more than 70 mm apart, and the smaller one has
at least 0.7 of the larger one's area; a smaller part is the edge of the other leg."""
WIDEST_LEG_MM = 230.0
"""A part that isn't air and is wider than this is two touching legs."""
BLACK, WHITE = 0.5, 99.5
"""Percentiles of the pixels of a series, without padding, that are mapped to 0 and 255."""
MANY_PIXELS = 1_000_000
"""Of larger series, every second, third, ... row and column is used for the percentiles, so that
about this many pixels are left: the percentiles change by less than a grey value of 255."""
COARSE_MM = 1.0
"""The joint is searched for in blocks of pixels of up to this size."""


@dataclass(frozen=True)
class Framing:
    """How volumes are framed.

    Attributes:
        size: rows and columns of a slice.
        crop_mm: width of the window, mm, so that all exams have one scale; None uses the width of
            the field, at most `LARGEST_MM`, so that nothing of a usual field is lost.

    Raises:
        SettingsError: a number is out of range.
    """

    size: int = SIZE
    crop_mm: float | None = None

    def __post_init__(self) -> None:
        """Checks the ranges."""
        SIZES.check("the size of slices", self.size)
        if self.crop_mm is not None and not SMALLEST_CROP_MM <= self.crop_mm <= LARGEST_CROP_MM:
            raise SettingsError(
                "the width of the crop can't be used",
                code="range",
                expected=f"{SMALLEST_CROP_MM:g} to {LARGEST_CROP_MM:g} mm",
                found=f"{self.crop_mm:g} mm",
            )


MRNET_FRAMING = Framing()


@dataclass(frozen=True)
class Framed:
    """A framed stack, and the parameters of its framing.

    Attributes:
        stack: uint8 (slices, size, size).
        pixel_mm: edge of a pixel, mm.
        joint: row and column of the upright image at the centre of the window.
        axes: directions of the stack's axes.
        centre: centre of the stack in patient coordinates (x, y, z), mm.
        warnings: irregularities, one sentence each.
    """

    stack: Stack
    pixel_mm: float
    joint: tuple[int, int]
    axes: Axes
    centre: Direction
    warnings: tuple[str, ...]


def frame(volume: Volume, plane: Plane, framing: Framing = MRNET_FRAMING) -> Framed:
    """Frames an upright volume.

    Args:
        volume: volume in the orientation of `SHOWN`.
        plane: its plane.
        framing: size and width of the window.

    Raises:
        MrkneeError: all pixels are equal, or padding; or the volume shows both legs.
    """
    _, rows, cols = volume.values.shape
    values = volume.values
    every = max(1, math.ceil(math.sqrt(values.size / MANY_PIXELS)))
    sample = values[:, ::every, ::every]
    padded = bool(np.isnan(values.min()))
    if padded:
        sample = sample[~np.isnan(sample)]
    if not sample.size:
        sample = values[~np.isnan(values)]
    if not sample.size:
        raise DataError("a series is empty: all its pixels are padding", code="constant")
    black, white = np.percentile(sample, (BLACK, WHITE))
    if not white > black:
        black, white = float(np.nanmin(values)), float(np.nanmax(values))
    if not white > black:
        raise DataError("a series is empty: all its pixels are equal", code="constant")
    if padded:
        values = np.where(np.isnan(values), np.float32(black), values)
        volume = replace(volume, values=values)
    if plane is not Plane.SAGITTAL and shows_both_legs(volume):
        raise DataError(
            "it shows both legs in one field, so the side is unknown",
            code="both-legs",
        )
    # DICOM headers and NIfTI's 32-bit numbers differ in the last digits of the same size
    row_mm, col_mm = (round(size, 4) for size in volume.pixel_mm)
    window_mm = framing.crop_mm or min(max(rows * row_mm, cols * col_mm), LARGEST_MM)
    row, col = (round(place) for place in joint_centre(volume, plane))
    step = window_mm / framing.size
    window = _Window(row, col, step / row_mm, step / col_mm, framing.size)
    cut = window.cut(values, float(black), float(white))
    stack = np.rint((cut - np.float32(black)) * np.float32(255.0 / (white - black)))
    warnings = []
    if max(rows * row_mm, cols * col_mm) > 1.4 * LARGEST_MM:
        warnings.append("the field is very wide; if it shows both legs, the frame may be wrong")
    down, across = window.centre
    centre = volume.centre + (
        (down - (rows - 1) / 2) * row_mm * volume.axes[1]
        + (across - (cols - 1) / 2) * col_mm * volume.axes[2]
    )
    return Framed(stack.astype(np.uint8), step, (row, col), volume.axes, centre, tuple(warnings))


@dataclass(frozen=True)
class _Window:
    """The part of an image that is resized to `size` x `size` pixels.

    Attributes:
        row, col: source pixel at the centre; with steps of 1, values are copied.
        down, across: number of source pixels per output pixel.
        size: rows and columns of the output.
    """

    row: int
    col: int
    down: float
    across: float
    size: int

    @property
    def centre(self) -> tuple[float, float]:
        """Row and column of the source at the centre of the output, where 0 is a pixel's centre."""
        return self.row - self.down / 2, self.col - self.across / 2

    def cut(
        self, values: Float32[np.ndarray, "slices rows cols"], black: float, white: float
    ) -> Float32[np.ndarray, "slices size size"]:
        """Returns the window of each slice, limited to black and white; black beyond the edges.

        Upsampling interpolates linearly; downsampling averages over more pixels accordingly.
        """
        half = self.size / 2 + 0.5  # the centre is the pixel right of and below the middle
        left, top = self.col + 0.5 - half * self.across, self.row + 0.5 - half * self.down
        right, bottom = left + self.size * self.across, top + self.size * self.down
        slices, rows, cols = values.shape
        margin = math.ceil(max(0.0, -left, -top, right - cols, bottom - rows))
        canvas = np.full((rows + 2 * margin, cols + 2 * margin), black, np.float32)
        inner = canvas[margin : margin + rows, margin : margin + cols]
        box = (left + margin, top + margin, right + margin, bottom + margin)
        cut = np.empty((slices, self.size, self.size), np.float32)
        for index, image in enumerate(values):
            np.clip(image, np.float32(black), np.float32(white), out=inner)
            picture = Image.fromarray(canvas)
            small = picture.resize((self.size, self.size), Image.Resampling.BILINEAR, box=box)
            cut[index] = np.asarray(small)
        return cut


def joint_centre(volume: Volume, plane: Plane) -> tuple[float, float]:
    """Returns row and column of the centre of the knee joint in an upright volume.

    Across the leg, it is the middle of the limb. Along the leg (rows of coronal and sagittal
    images), it is the row around which brightness changes most from row to row within the limb's
    middle half: bone is uniform in every contrast, and only in the joint do cartilage, menisci and
    fluid lie in transverse layers. A Gaussian prior around the centre of the image suppresses the
    kneecap and growth plates.

    Args:
        volume: upright volume.
        plane: its plane.
    """
    slices = len(volume.values)
    middle = volume.values[slices // 4 : max(slices // 4 + 1, slices - slices // 4)]
    by = max(1, int(COARSE_MM / max(volume.pixel_mm)))
    if plane is Plane.AXIAL:
        middle = middle.mean(axis=0, keepdims=True)
    middle = np.stack([_coarse(image, by) for image in middle])
    row, col = _coarse_centre(middle, (volume.pixel_mm[0] * by, volume.pixel_mm[1] * by), plane)
    return (row + 0.5) * by - 0.5, (col + 0.5) * by - 0.5


def _coarse(
    image: Float[np.ndarray, "rows cols"], by: int
) -> Float32[np.ndarray, "fewer_rows fewer_cols"]:
    """Returns the means of blocks of pixels; the last ones may be smaller."""
    picture = Image.fromarray(np.ascontiguousarray(image, dtype=np.float32))
    return np.asarray(picture.reduce(by))


def _coarse_centre(
    middle: Float[np.ndarray, "slices rows cols"], pixel_mm: tuple[float, float], plane: Plane
) -> tuple[float, float]:
    """Returns row and column of the centre of the knee joint in the middle slices."""
    _, rows, _ = middle.shape
    row_mm, col_mm = pixel_mm
    limb = _limb(middle.mean(axis=0), pixel_mm)
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
    """Returns whether an upright axial or coronal volume shows the knees of both legs.

    Args:
        volume: upright volume, whose columns run from the patient's right to left.
    """
    slices, _, cols = volume.values.shape
    col_mm = volume.pixel_mm[1]
    if cols * col_mm < LEGS_FIELD_MM:
        return False
    middle = volume.values[slices // 4 : max(slices // 4 + 1, slices - slices // 4)]
    # legs may fill less than a twentieth of a wide field, so a higher percentile is used
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
    """Labels the connected parts of an image that aren't air.

    Args:
        image: grey values.
        pixel_mm: distance between rows and between columns, mm.
        bright: percentile; air is darker than a fifth of it.

    Returns:
        Labels from 1 (0 is air), and the number of pixels per label.
    """
    smooth = ndimage.gaussian_filter(image - image.min(), [3.0 / size for size in pixel_mm])
    parts, _ = ndimage.label(smooth > 0.2 * np.percentile(smooth, bright))
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return parts, sizes


def _limb(
    image: Float[np.ndarray, "rows cols"], pixel_mm: tuple[float, float]
) -> Bool[np.ndarray, "rows cols"]:
    """Returns a mask of the limb: the largest part that isn't air, or of everything."""
    parts, sizes = _no_air(image, pixel_mm)
    if not sizes.any():
        return np.ones_like(image, dtype=bool)
    return np.asarray(parts == int(np.argmax(sizes)))


def _middle(mask: Bool[np.ndarray, "rows cols"], along: int) -> float:
    """Returns the middle between the ends of a mask, projected along an axis."""
    places = np.flatnonzero(mask.any(axis=along))
    return float(places[0] + places[-1]) / 2
