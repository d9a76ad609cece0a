"""How a stack becomes input, as plain settings; importing this file imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import UInt8

from mrknee.errors import ModelError, SettingsError

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


@dataclass(frozen=True)
class PreparationSettings:
    """How a stack becomes input, as plain numbers.

    The defaults are the reference system's: the centre 224 of 256 pixels, minimum to maximum of
    the cropped stack to 0..255, then (x - 58.09) / 49.73 (mean and SD over MRNet's training
    set, from the published code), grey repeated to three channels.

    Args:
        size: in-plane size the knee is brought to before the crop, in pixels. A stack whose
            longer side is already between `crop` and `size` stays as it is; a larger one is
            scaled down to `size`, a smaller one up to `crop`, keeping its proportions.
        crop: side of the square cut from the centre, in pixels; where a shorter side falls
            short of it, black is added on both ends.
        mean: subtracted, on the scale 0..255; at most `LARGEST` on either side of 0.
        sd: divided by, on the scale 0..255; from 1 / `LARGEST` to `LARGEST`.

    Raises:
        MrkneeError: crop larger than size, or a value of another kind or out of its range.
    """

    size: int = 256
    crop: int = 224
    mean: float = 58.09
    sd: float = 49.73

    def __post_init__(self) -> None:
        """Checks every value, because settings also come from files."""
        for name in ("size", "crop"):
            value = getattr(self, name)
            if type(value) is not int or value > MAX_SIZE:
                raise SettingsError(
                    f"the preparation's {name} can't be used",
                    code="preparation",
                    expected=f"a whole number of pixels, {MAX_SIZE} at most",
                    found=repr(value),
                )
        for name, least in (("mean", -LARGEST), ("sd", 1 / LARGEST)):
            value = getattr(self, name)
            if type(value) not in (int, float) or not least <= value <= LARGEST:
                raise SettingsError(
                    f"the preparation's {name} can't be used",
                    code="preparation",
                    expected=f"a number from {least:g} to {LARGEST:g}",
                    found=repr(value),
                )
        if not 0 < self.crop <= self.size:
            raise SettingsError(
                "the preparation contradicts itself",
                code="preparation",
                expected="0 < crop <= size",
                found=f"crop {self.crop}, size {self.size}",
            )

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain numbers, for JSON."""
        return asdict(self)

    def trim(self, stack: UInt8[np.ndarray, "slices rows cols"]) -> UInt8[np.ndarray, "slices r c"]:
        """The stack without what framing would cut off unseen, so that it needn't be read.

        A stack that is to be scaled or filled up is left as it is.
        """
        if not self.only_cuts(stack.shape[1], stack.shape[2]):
            return stack
        up, over = self.axes(stack.shape[1], stack.shape[2])
        return stack[:, up.start : up.start + self.crop, over.start : over.start + self.crop]

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


def known_settings(content: Mapping[str, Any]) -> dict[str, Any]:
    """What `PreparationSettings.to_dict` gave, if it is that.

    Raises:
        MrkneeError: a setting is missing, or there is another.
    """
    known = [field.name for field in fields(PreparationSettings)]
    if content.keys() != set(known):
        raise ModelError(
            "the model's preparation can't be read",
            code="description",
            expected=", ".join(known),
            found=", ".join(map(str, content)) or "nothing",
        )
    return dict(content)
