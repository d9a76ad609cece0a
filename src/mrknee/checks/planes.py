"""Finds stacks that look like a plane other than that of their folder.

A classifier of planes is trained on the data set itself; each stack is classified by a classifier
that was trained on other exams.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Float32, Int64
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from mrknee.checks.problem import Problem
from mrknee.checks.similarity import Features, features, thumbnails
from mrknee.checks.stacks import StackSummary
from mrknee.exams import MRNET_SERIES, PLANES, SeriesList

FOLDS = 5
"""Folds of the cross-validation over exams."""

FEWEST = 10
"""Minimum number of stacks per plane."""

ACCURACY = 0.8
"""Minimum accuracy of the classifier. Below it, the planes are too similar (or too many stacks are
in the wrong folder) for a statement on single stacks."""

MARGIN = 0.25
"""The other plane must lead by at least this share of the median lead of the folder's plane."""

TYPICAL_SHARE = 0.05
"""The stack must be more similar to the other plane than this share of that plane's stacks of other
exams, so that a stack unlike any plane (another scanner, another anatomy) is not reported."""


def check_planes(
    stacks: Sequence[StackSummary], series: SeriesList = MRNET_SERIES
) -> tuple[bool, list[Problem]]:
    """Finds stacks that look like another plane; docs/reference/checks.md states the rule.

    Args:
        stacks: the stacks; blank ones are skipped.
        series: the declared series, which give the plane of each stack.

    Returns:
        Whether the check could run (enough stacks, classifier accurate enough), and the problems.
    """
    mine = [stack for stack in stacks if not stack.blank]
    plane_of = {one.name: PLANES.index(one.plane) for one in series}
    planes = np.array([plane_of[stack.place.series] for stack in mine], dtype=np.int64)
    if min(np.bincount(planes, minlength=len(PLANES))) < FEWEST:
        return False, []
    images = np.stack([thumbnails(stack.cells) for stack in mine])
    plain, mirrored = features(images), features(images[..., ::-1])
    exams = {(stack.place.split, stack.place.exam): None for stack in mine}
    part = dict(zip(exams, np.arange(len(exams)) % FOLDS, strict=True))
    parts = np.array([part[stack.place.split, stack.place.exam] for stack in mine], dtype=np.int64)
    scores = _classify(plain, mirrored, planes, parts)
    correlations = _correlate(plain, mirrored, planes)
    lead, other = _lead(scores, planes)
    if np.mean(lead > 0) < ACCURACY:
        return False, []
    return True, list(_misplaced(mine, planes, other, lead, correlations))


def _classify(
    plain: Features,
    mirrored: Features,
    planes: Int64[np.ndarray, " stacks"],
    parts: Int64[np.ndarray, " stacks"],
) -> Float[np.ndarray, "stacks planes"]:
    """Computes log-likelihoods of a linear discriminant that was fitted on the other folds.

    The covariance is shrunk by the Ledoit-Wolf formula. Each stack is used unchanged and mirrored,
    for fitting and classification, because knees are left or right.
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
    plain: Features, mirrored: Features, planes: Int64[np.ndarray, " stacks"]
) -> Float32[np.ndarray, "stacks planes"]:
    """Computes each stack's correlation with the mean of each plane's other stacks."""
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
    """Returns the lead of the folder's plane over the best other plane, and that other plane."""
    rows = np.arange(len(scores))
    own = scores[rows, planes]
    others = scores.copy()
    others[rows, planes] = -np.inf
    other = others.argmax(axis=1)
    return own - others[rows, other], other


def _misplaced(
    stacks: Sequence[StackSummary],
    planes: Int64[np.ndarray, " stacks"],
    other: Int64[np.ndarray, " stacks"],
    lead: Float[np.ndarray, " stacks"],
    correlations: Float32[np.ndarray, "stacks planes"],
) -> Iterator[Problem]:
    usual = float(np.median(lead))
    for row in np.flatnonzero(lead <= -MARGIN * usual).tolist():
        own_plane, other_plane = planes[row], other[row]
        with_own, with_other = correlations[row, own_plane], correlations[row, other_plane]
        exam = stacks[row].place.split, stacks[row].place.exam
        others = [(stack.place.split, stack.place.exam) != exam for stack in stacks]
        members = correlations[(planes == other_plane) & others, other_plane]
        if with_other > with_own and np.mean(members < with_other) >= TYPICAL_SHARE:
            place, name = stacks[row].place, PLANES[other_plane]
            text = (
                f"looks {name}: the correlation with the mean of the other exams' stacks is "
                f"{with_other:.2f} for {name} and {with_own:.2f} for {PLANES[own_plane]}"
            )
            yield Problem("other-plane", text, place.file, place.exam)
