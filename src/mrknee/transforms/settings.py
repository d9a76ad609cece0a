"""Settings of preparation and augmentation. Importing this module doesn't import torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from mrknee.settings import Settings, invalid_setting

MAX_SIZE = 4096
"""Maximum side length in pixels; knee slices have 256 to 1024."""

LARGEST = 1e4
"""Limit of the absolute mean, of the SD and of 1 / SD, on the scale 0..255. Far beyond it, 32-bit
numbers overflow."""


@dataclass(frozen=True)
class Axis:
    """Scaling, padding and crop along one in-plane axis of a stack, in pixels after scaling.

    Attributes:
        scaled: length after scaling, without padding.
        before: padding pixels at the beginning.
        after: padding pixels at the end.
        start: start of the crop relative to the first image pixel; negative if the crop begins in
            the padding.
    """

    scaled: int
    before: int
    after: int
    start: int


class PreparationSettings(Settings):
    """Preparation of a stack for the network.

    The defaults are those of the reference system: crop the central 224 of 256 pixels, scale the
    minimum and maximum of the cropped stack to 0..255, then compute (x - 58.09) / 49.73 (mean and
    SD of MRNet's training set, from the published code) and repeat the grey values in three
    channels.

    Raises:
        SettingsError: the crop is larger than the size, or a value has the wrong type or is out of
            range.
    """

    section: ClassVar[str] = "preparation"

    added: ClassVar[frozenset[str]] = frozenset({"read_slices", "min_size", "neighbours"})

    size: Annotated[int, Field(ge=1, le=MAX_SIZE)] = 256
    """Maximum in-plane size before the crop, in pixels. A stack whose longer side is between
    `min_size` and `size` is not resized; a larger one is scaled down to `size`, a smaller one up to
    `min_size`, keeping its proportions."""

    crop: Annotated[int, Field(ge=1, le=MAX_SIZE)] = 224
    """Side of the central square that is kept, in pixels; at most `size`. A shorter side is padded
    with the stack's minimum on both ends."""

    mean: Annotated[float, Field(ge=-LARGEST, le=LARGEST)] = 58.09
    """Mean subtracted from the grey values, on the scale 0..255. If a recipe doesn't set it, it is
    the mean that the encoder expects."""

    sd: Annotated[float, Field(ge=1 / LARGEST, le=LARGEST)] = 49.73
    """Standard deviation that the grey values are divided by, on the scale 0..255. If a recipe
    doesn't set it, it is the SD that the encoder expects."""

    min_size: Annotated[int, Field(ge=1, le=MAX_SIZE)] | None = None
    """Minimum in-plane size before the crop, from `crop` to `size`; `crop` if not given. With
    `size`, all stacks are scaled to the same size, so that a small one has its centre enlarged."""

    read_slices: Annotated[int, Field(ge=1, le=MAX_SIZE)] | None = None
    """Maximum number of slices of each series that are read in validation and prediction, evenly
    spaced; the others contribute nothing. Training exams are not affected (`slices_per_series`).
    All if not given."""

    neighbours: bool = False
    """Give the network each slice with the one before and the one after it, as the three channels
    of an image (2.5D). At the ends of a series the slice itself is repeated. Neighbours are those
    among the slices that are read (`read_slices`) or drawn (`slices_per_series`), so fewer slices
    lie further apart. If false, the slice is all three channels."""

    @model_validator(mode="after")
    def _refuse_large_crop(self) -> Any:  # noqa: ANN401  # itself
        if self.crop > self.size:
            raise invalid_setting(
                "preparation.crop",
                expected="at most preparation.size",
                found=f"crop {self.crop}, size {self.size}",
            )
        if self.min_size is not None and not self.crop <= self.min_size <= self.size:
            raise invalid_setting(
                "preparation.min_size",
                expected=f"from preparation.crop to preparation.size: {self.crop} to {self.size}",
                found=f"{self.min_size}",
            )
        return self

    @property
    def channels(self) -> int:
        """Number of channels of the network's input; 1 stands for three equal ones."""
        return 3 if self.neighbours else 1

    def slices_read(self, slices: int) -> list[int]:
        """Returns the indices of the slices that are read of a series.

        These are the middles of `read_slices` equal segments; all if there are no more.
        """
        count = slices if self.read_slices is None else min(slices, self.read_slices)
        return [(2 * index + 1) * slices // (2 * count) for index in range(count)]

    def only_cuts(self, rows: int, cols: int) -> bool:
        """Returns whether a stack of this in-plane size is neither scaled nor padded."""
        longer = max(rows, cols)
        return self.crop <= min(rows, cols) and self._scaled(longer) == longer

    def axes(self, rows: int, cols: int) -> tuple[Axis, Axis]:
        """Returns how a stack of this in-plane size is scaled, padded and cropped: rows, columns.

        A side is never scaled to 1 pixel: torch 2's antialiased interpolation to 1 gives black.
        """
        longer = max(rows, cols)
        target = self._scaled(longer)
        found = []
        for side in (rows, cols):
            scaled = side if target == longer else max(round(side * target / longer), 2)
            short = max(self.crop - scaled, 0)
            start = (max(scaled, self.crop) - self.crop) // 2 - short // 2
            found.append(Axis(scaled, short // 2, short - short // 2, start))
        return found[0], found[1]

    def _scaled(self, longer: int) -> int:
        """Returns the size to which the longer side is scaled."""
        return min(max(longer, self.min_size or self.crop), self.size)


class AugmentationSettings(Settings):
    """Random augmentation of training exams; the defaults are those of the reference system.

    If all settings except `draw` are 0, exams are not augmented.
    """

    section: ClassVar[str] = "augmentation"

    rotation: Annotated[float, Field(ge=0, le=180)] = 25.0
    """Maximum in-plane rotation, in degrees, in either direction."""

    translation: Annotated[float, Field(ge=0, lt=1)] = 0.11
    """Maximum shift along each axis, as a fraction of the crop's side (the published code crops
    before it shifts)."""

    mirror: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Probability of mirroring an exam, or each of its planes if `draw` is plane."""

    draw: Literal["exam", "plane"] = "exam"
    """Whether shift and mirroring are drawn per exam or per plane; rotation is drawn per plane, and
    all series of a plane share one draw. `exam` mirrors and shifts the knee in space: axial and
    coronal slices are flipped left to right and the order of the sagittal slices is reversed; each
    plane is shifted by the components along its two axes. `plane` draws independently for each
    plane and flips sagittal slices front to back, as the published code does (left and right then
    disagree between planes)."""

    gamma: Annotated[float, Field(ge=0, le=9)] = 0.0
    """Range of the exponent of the grey values, drawn log-uniformly from 1 / (1 + gamma) to 1 +
    gamma, once per exam."""

    bias_field: Annotated[float, Field(ge=0, le=2)] = 0.0
    """Maximum coefficient of a smooth field that multiplies the grey values, drawn per series: the
    exponential of a polynomial of order 3, as in TorchIO's RandomBiasField, whose default is
    0.5."""

    noise: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Maximum standard deviation of Gaussian noise, as a fraction of the range of grey values. The
    standard deviation is drawn uniformly, once per exam; each series has noise of its own. Grey
    values outside 0..255 are clipped."""

    @property
    def moves(self) -> bool:
        """Whether slices are rotated, shifted or mirrored."""
        return self.rotation > 0 or self.translation > 0 or self.mirror > 0

    @property
    def changes_grey(self) -> bool:
        """Whether grey values are changed."""
        return self.gamma > 0 or self.bias_field > 0 or self.noise > 0

    @property
    def any(self) -> bool:
        """Whether exams are augmented at all."""
        return self.moves or self.changes_grey
