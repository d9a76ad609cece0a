"""The expected result of an import, computed independently."""

from __future__ import annotations

import numpy as np
from jaxtyping import Shaped, UInt8


def framed(
    stack: Shaped[np.ndarray, "slices 256 256"], joint: list[int]
) -> UInt8[np.ndarray, "slices 256 256"]:
    """Frames a stack whose pixels keep their size: scaled by percentiles, shifted by pixels.

    Args:
        stack: upright, 256 x 256.
        joint: row and column of the centre, as recorded by the import.
    """
    values = stack.astype(np.float64)
    low, high = np.percentile(values, 0.5), np.percentile(values, 99.5)
    grey = np.rint(np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    top, left = (place - 128 for place in joint)
    padded = np.pad(grey, ((0, 0), (256, 256), (256, 256)))
    return padded[:, 256 + top : 512 + top, 256 + left : 512 + left]


def near(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two stacks are equal to within one grey value of rounding."""
    return bool((np.abs(one.astype(int) - other.astype(int)) <= 1).all())
