"""How a stack becomes input, as plain settings; importing this file imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from mrknee.settings import Settings, cannot_be_used

MAX_SIZE = 4096
"""Pixels of a side, at most; knee slices have 256 to 1024."""

LARGEST = 1e4
"""Of mean and SD, which are on the scale 0..255; the SD's inverse has the same limit. Far beyond
these, 32-bit numbers overflow."""


@dataclass(frozen=True)
class Axis:
    """Where one in-plane side of a stack comes to lie, in pixels after scaling.

    Attributes:
        scaled: its length.
        before: black pixels added in front of it.
        after: black pixels added behind it.
        start: where the crop begins, counted from the side's first own pixel; negative where the
            crop begins in the added black.
    """

    scaled: int
    before: int
    after: int
    start: int


class PreparationSettings(Settings):
    """How a stack becomes input.

    The defaults are the reference system's: the centre 224 of 256 pixels, minimum to maximum of
    the cropped stack to 0..255, then (x - 58.09) / 49.73 (mean and SD over MRNet's training
    set, from the published code), grey repeated to three channels.

    Raises:
        SettingsError: crop larger than size, or a value of another type or out of its range.
    """

    section: ClassVar[str] = "preparation"

    size: Annotated[int, Field(ge=1, le=MAX_SIZE)] = 256
    """In-plane size the knee is brought to before the crop, in pixels. A stack whose longer side is
    already between `crop` and `size` stays as it is; a larger one is scaled down to `size`, a
    smaller one up to `crop`, keeping its proportions."""

    crop: Annotated[int, Field(ge=1, le=MAX_SIZE)] = 224
    """Side of the square cut from the centre, in pixels, at most `size`; where a shorter side falls
    short of it, black is added on both ends."""

    mean: Annotated[float, Field(ge=-LARGEST, le=LARGEST)] = 58.09
    """Subtracted, on the scale 0..255. A recipe that doesn't state it has the encoder's."""

    sd: Annotated[float, Field(ge=1 / LARGEST, le=LARGEST)] = 49.73
    """Divided by, on the scale 0..255. A recipe that doesn't state it has the encoder's."""

    @model_validator(mode="after")
    def _refuse_large_crop(self) -> Any:  # noqa: ANN401  # itself
        if self.crop > self.size:
            raise cannot_be_used(
                "preparation.crop",
                expected="at most preparation.size",
                found=f"crop {self.crop}, size {self.size}",
            )
        return self

    def only_cuts(self, rows: int, cols: int) -> bool:
        """Whether a stack of that in-plane size is neither scaled nor filled up."""
        return self.crop <= min(rows, cols) and max(rows, cols) <= self.size

    def axes(self, rows: int, cols: int) -> tuple[Axis, Axis]:
        """How a stack of that in-plane size is scaled, filled up and cut: rows, then columns.

        A scaled side is never 1 pixel: torch 2's antialiased interpolation to 1 gives black.
        """
        longer = max(rows, cols)
        target = min(max(longer, self.crop), self.size)
        found = []
        for side in (rows, cols):
            scaled = side if target == longer else max(round(side * target / longer), 2)
            short = max(self.crop - scaled, 0)
            start = (max(scaled, self.crop) - self.crop) // 2 - short // 2
            found.append(Axis(scaled, short // 2, short - short // 2, start))
        return found[0], found[1]


class AugmentationSettings(Settings):
    """What may be drawn for training; the defaults are the reference system's ranges.

    All zero trains on the exams as they are.
    """

    section: ClassVar[str] = "augmentation"

    rotation: Annotated[float, Field(ge=0, le=180)] = 25.0
    """Largest angle, in degrees, either way."""

    translation: Annotated[float, Field(ge=0, lt=1)] = 0.11
    """Largest shift along each axis, as a share of the crop's side (the published code crops
    first)."""

    mirror: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Probability of a mirror image."""

    draw: Literal["exam", "plane"] = "exam"
    """`exam`: one draw per exam, the same for all series of a plane. A mirrored knee is a mirrored
    knee: axial and coronal slices are flipped left to right and the order of the sagittal slices is
    reversed; the shift is one shift in space, seen by each plane along its own two axes; each plane
    turns about its own axis. `plane`: each plane draws for itself, and the sagittal plane is
    flipped front to back, as the published code does (left and right then disagree between
    planes)."""

    @property
    def any(self) -> bool:
        """Whether anything is drawn at all."""
        return self.rotation > 0 or self.translation > 0 or self.mirror > 0
