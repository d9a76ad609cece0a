"""Choice of slices: at random in training, evenly spaced otherwise. No torch is imported."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64

from mrknee.transforms.random_streams import stream


def draw_slices(
    slices: int, most: int, seed: int, epoch: int, exam_id: str, series: int
) -> Int64[np.ndarray, " chosen"]:
    """Draws one slice from each of `most` equal segments of a series.

    The segments differ by at most one slice. A series with at most `most` slices is used whole. The
    same arguments always give the same slices.

    Args:
        slices: number of slices of the series.
        most: maximum number of slices.
        seed: seed of the run.
        epoch: number of finished epochs.
        exam_id: the exam's id.
        series: index of the series.

    Returns:
        Indices of the slices, ascending.
    """
    if slices <= most:
        return np.arange(slices)
    ends = np.arange(most + 1) * slices // most
    rng = np.random.default_rng(stream("slices", seed, epoch, exam_id, series))
    return rng.integers(ends[:-1], ends[1:])
