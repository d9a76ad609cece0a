"""Splitting exams without looking at anything but their labels."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int64

from mrknee.errors import DataError


def inner_split(
    labels: Float[np.ndarray, "exams findings"], fraction: float, seed: int
) -> tuple[Int64[np.ndarray, " fit"], Int64[np.ndarray, " inner"]]:
    """Sets a share of the training exams aside, stratified by the joint pattern of labels.

    Each pattern of labels (none, abnormal only, abnormal + meniscus, ...; not-known counts as a
    value of its own) gives its share; leftovers go to the patterns with the largest remainders,
    so the inner split's size is as asked for and its prevalences are the training set's.

    MRNet ships no patient ids and some of its exams are repeat patients, so the split is by
    exam.

    Args:
        labels: 1 present, 0 absent, NaN not known.
        fraction: the share set aside, above 0 and below 1.
        seed: the same seed gives the same split.

    Returns:
        Positions of the exams to fit on and of those set aside, each sorted.

    Raises:
        MrkneeError: fewer than two exams, or a fraction outside 0..1.
    """
    count = len(labels)
    if count < 2 or not 0 < fraction < 1:
        raise DataError(
            "the training exams can't be split",
            code="split",
            expected="at least 2 exams and a fraction between 0 and 1",
            found=f"{count} exams, fraction {fraction}",
        )
    patterns, members = np.unique(np.nan_to_num(labels, nan=2.0), axis=0, return_inverse=True)
    rng = np.random.default_rng(seed)
    wanted = min(max(round(count * fraction), 1), count - 1)
    sizes = np.bincount(members, minlength=len(patterns))
    shares = sizes * wanted / count
    take = np.floor(shares).astype(int)
    # a stable order of the remainders makes the split independent of the platform's sort
    for pattern in np.argsort(take - shares, kind="stable")[: wanted - int(take.sum())]:
        take[pattern] += 1
    inner = np.concatenate(
        [
            rng.permutation(np.flatnonzero(members == pattern))[:taken]
            for pattern, taken in enumerate(take)
        ]
    )
    inner.sort()
    fit = np.setdiff1d(np.arange(count), inner)
    return fit, inner
