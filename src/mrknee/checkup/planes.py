"""Stacks that look like another plane than their folder says.

Nothing is known beforehand of how a plane looks: it is learned from the data set itself, and each
stack is judged by what was learned from other exams.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Float32, Int64
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from mrknee.checkup.likeness import Seen, pictures, seen
from mrknee.checkup.problem import Problem
from mrknee.checkup.stacks import Look
from mrknee.exams import MRNET_SERIES, PLANES, SeriesList

FOLDS = 5
"""Exams are dealt to so many parts; each part is judged by what the others teach."""

FEWEST = 10
"""So many stacks of each plane are needed."""

ACCURACY = 0.8
"""Where fewer stacks than this share are told right, the planes are too alike (or too many stacks
are in the wrong folder) for anything to be said of single ones."""

MARGIN = 0.25
"""The other plane must lead by this share of the lead that the right one usually has."""

USUAL = 0.05
"""The stack must be more like the other plane than this share of its stacks of other exams, so that
a stack unlike any (another scanner, another anatomy) is not given to either."""


def check_planes(
    looks: Sequence[Look], series: SeriesList = MRNET_SERIES
) -> tuple[bool, list[Problem]]:
    """Says which stacks look like another plane; docs/reference/checks.md has the rule in words.

    Args:
        looks: the stacks; those of one value are left out.
        series: the series there may be; a stack's plane is its series'.

    Returns:
        Whether the planes could be told apart at all, and the problems.
    """
    mine = [look for look in looks if not look.blank]
    plane_of = {one.name: PLANES.index(one.plane) for one in series}
    planes = np.array([plane_of[look.place.series] for look in mine], dtype=np.int64)
    if min(np.bincount(planes, minlength=len(PLANES))) < FEWEST:
        return False, []
    images = np.stack([pictures(look.cells) for look in mine])
    plain, mirrored = seen(images), seen(images[..., ::-1])
    exams = {(look.place.split, look.place.exam): None for look in mine}
    part = dict(zip(exams, np.arange(len(exams)) % FOLDS, strict=True))
    parts = np.array([part[look.place.split, look.place.exam] for look in mine], dtype=np.int64)
    scores = _judge(plain, mirrored, planes, parts)
    correlations = _correlate(plain, mirrored, planes)
    lead, other = _lead(scores, planes)
    if np.mean(lead > 0) < ACCURACY:
        return False, []
    return True, list(_strangers(mine, planes, other, lead, correlations))


def _judge(
    plain: Seen,
    mirrored: Seen,
    planes: Int64[np.ndarray, " stacks"],
    parts: Int64[np.ndarray, " stacks"],
) -> Float[np.ndarray, "stacks planes"]:
    """Log-likelihoods of a linear discriminant that was fitted on the other parts' exams.

    Its covariance is shrunk by Ledoit and Wolf's rule. Each stack is there as it is and mirrored,
    for fitting and for judging, as left and right knees are.
    """
    scores = np.zeros((len(plain), len(PLANES)))
    for part in range(FOLDS):
        out = parts == part
        model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(
            np.concatenate([plain[~out], mirrored[~out]]), np.tile(planes[~out], 2)
        )
        scores[out] = model.decision_function(plain[out]) + model.decision_function(mirrored[out])
    return scores


def _correlate(
    plain: Seen, mirrored: Seen, planes: Int64[np.ndarray, " stacks"]
) -> Float32[np.ndarray, "stacks planes"]:
    """Each stack's correlation with the planes' mean pictures, from which it is left out itself."""
    correlations = np.zeros((len(plain), len(PLANES)), dtype=np.float32)
    for plane in range(len(PLANES)):
        inside = (planes == plane)[:, None]
        means = plain[planes == plane].sum(axis=0) - np.where(inside, plain, np.float32(0))
        means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-6)
        both = [(stacks * means).sum(axis=1) for stacks in (plain, mirrored)]
        correlations[:, plane] = np.maximum(*both)
    return correlations


def _lead(
    scores: Float[np.ndarray, "stacks planes"], planes: Int64[np.ndarray, " stacks"]
) -> tuple[Float[np.ndarray, " stacks"], Int64[np.ndarray, " stacks"]]:
    """By how much the folder's plane leads before the best other one, and which that is."""
    rows = np.arange(len(scores))
    own = scores[rows, planes]
    others = scores.copy()
    others[rows, planes] = -np.inf
    other = others.argmax(axis=1)
    return own - others[rows, other], other


def _strangers(
    looks: Sequence[Look],
    planes: Int64[np.ndarray, " stacks"],
    other: Int64[np.ndarray, " stacks"],
    lead: Float[np.ndarray, " stacks"],
    correlations: Float32[np.ndarray, "stacks planes"],
) -> Iterator[Problem]:
    usual = float(np.median(lead))
    for row in np.flatnonzero(lead <= -MARGIN * usual).tolist():
        own_plane, other_plane = planes[row], other[row]
        with_own, with_other = correlations[row, own_plane], correlations[row, other_plane]
        exam = looks[row].place.split, looks[row].place.exam
        others = [(look.place.split, look.place.exam) != exam for look in looks]
        members = correlations[(planes == other_plane) & others, other_plane]
        if with_other > with_own and np.mean(members < with_other) >= USUAL:
            place, name = looks[row].place, PLANES[other_plane]
            text = (
                f"looks {name}: correlates at {with_other:.2f} with the other exams' mean {name} "
                f"picture, at {with_own:.2f} with their {PLANES[own_plane]} one"
            )
            yield Problem("other-plane", text, place.file, place.exam)
