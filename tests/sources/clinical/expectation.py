"""What an import must give, computed another way."""

from __future__ import annotations

import numpy as np
from jaxtyping import Shaped, UInt8


def framed(
    stack: Shaped[np.ndarray, "slices 256 256"], joint: list[int]
) -> UInt8[np.ndarray, "slices 256 256"]:
    """A stack whose pixels keep their size: scaled by percentiles, moved by whole pixels.

    Args:
        stack: upright, 256 x 256.
        joint: row and column that the import says are the middle.
    """
    values = stack.astype(np.float64)
    low, high = np.percentile(values, 0.5), np.percentile(values, 99.5)
    grey = np.rint(np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    top, left = (place - 128 for place in joint)
    room = np.pad(grey, ((0, 0), (256, 256), (256, 256)))
    return room[:, 256 + top : 512 + top, 256 + left : 512 + left]


def near(one: np.ndarray, other: np.ndarray) -> bool:
    """Equal, but for a grey value that rounds the other way."""
    return bool((np.abs(one.astype(int) - other.astype(int)) <= 1).all())
