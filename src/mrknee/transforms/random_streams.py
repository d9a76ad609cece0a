"""Independent streams of random numbers for one exam in one epoch.

Each kind of draw has a stream of its own, so that turning one on changes none of the others.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

Purpose = Literal["intensity", "bias_field", "noise", "slices"]

_KEYS: dict[Purpose, int] = {"intensity": 0, "bias_field": 1, "noise": 2, "slices": 3}


def stream(
    purpose: Purpose, seed: int, epoch: int, exam_id: str, series: int = 0
) -> np.random.SeedSequence:
    """Returns the seed of a stream; the same arguments always give the same stream.

    The streams are children of the exam's seed, from which the views are drawn
    (`augmentation.draw_views`), and are independent of it and of each other.

    Args:
        purpose: what is drawn.
        seed: seed of the run.
        epoch: number of finished epochs.
        exam_id: the exam's id.
        series: index of the series, for draws per series.
    """
    key = (_KEYS[purpose], series)
    return np.random.SeedSequence([seed, epoch, *exam_id.encode()], spawn_key=key)
