"""Stratified splitting of exams by labels and groups: the inner split, and folds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int64

from mrknee.errors import DataError
from mrknee.exams.labels import cut_labels


def inner_split(
    labels: Float[np.ndarray, "exams findings"],
    fraction: float,
    seed: int,
    groups: Sequence[int] | None = None,
) -> tuple[Int64[np.ndarray, " fit"], Int64[np.ndarray, " inner"]]:
    """Draws a share of the training exams, stratified by the joint pattern of labels.

    Each pattern of labels (none, abnormal only, abnormal + meniscus, ...; unknown counts as a
    separate value, soft labels of at least 0.5 count as 1) contributes its share; the remaining
    exams come from the patterns with the largest remainders. If there are more patterns than exams
    to draw, as with many findings, most patterns can't be represented. Then exams are assigned one
    after another, as by `assign_folds`, so that each finding keeps its share. The inner split thus
    has the requested size and the prevalences of the training set.

    With groups, complete groups are drawn, as close to these shares as possible: in random order, a
    group is drawn if no pattern and no finding then exceeds its share (rounded up) and the total
    doesn't exceed the requested size. Afterwards, groups that minimise the sum of squared
    differences from the shares are added, as long as the size comes closer to the requested one.
    The final size differs from it by less than the number of exams of one group.

    MRNet contains repeat exams of some patients but no patient ids, so its split is by exam.

    Args:
        labels: 1 present, 0 absent, in between for soft labels, NaN unknown.
        fraction: share of the inner split, above 0 and below 1.
        seed: seed of the random draw; the same seed gives the same split.
        groups: one number per exam, equal for exams that must stay together; None draws exams
            individually.

    Returns:
        Positions of the exams to fit on and of the inner split, each sorted.

    Raises:
        DataError: there are fewer than two exams or groups, or the fraction is outside 0..1.
    """
    count = len(labels)
    apart = count if groups is None else len(set(groups))
    if apart < 2 or not 0 < fraction < 1:
        raise DataError(
            "the training exams can't be split",
            code="split",
            expected="at least 2 exams, in at least 2 groups if groups are declared, and a "
            "fraction between 0 and 1",
            found=f"{count} exams"
            + (f" in {apart} group{'' if apart == 1 else 's'}" if groups is not None else "")
            + f", fraction {fraction}",
        )
    known = np.nan_to_num(cut_labels(labels), nan=2.0)
    patterns, members = np.unique(known, axis=0, return_inverse=True)
    rng = np.random.default_rng(seed)
    wanted = min(max(round(count * fraction), 1), count - 1)
    sizes = np.bincount(members, minlength=len(patterns))
    shares = sizes * wanted / count
    positive: Float[np.ndarray, "patterns findings"] = (patterns == 1).astype(np.float64)
    if groups is None and len(patterns) <= wanted:
        inner = _draw_exams(members, shares, wanted, rng)
    elif groups is None:
        counted = np.column_stack([np.ones(count), positive[members]])
        parts = _assign(counted, np.array([count - wanted, wanted]), rng, exact=True)
        inner = np.flatnonzero(parts == 1)
    else:
        counted = np.column_stack([np.eye(len(patterns)), positive])  # patterns, then findings
        group_numbers = np.asarray(groups, dtype=np.int64)
        inner = _draw_groups(counted[members], shares @ counted, wanted, group_numbers, rng)
    fit = np.setdiff1d(np.arange(count), inner)
    return fit, inner


def assign_folds(
    labels: Float[np.ndarray, "exams findings"],
    folds: int,
    groups: Sequence[int] | None = None,
    seed: int = 0,
) -> Int64[np.ndarray, " exams"]:
    """Divides exams into the folds of a cross-validation, with complete groups in each fold.

    Groups are assigned one after another, those with most exams and rarest findings first, each to
    the fold in which the numbers of exams and of positive exams of each finding then come closest
    to an equal share: the sum over these numbers of squared differences, relative to the total, is
    smallest. Scikit-learn's StratifiedGroupKFold does similarly for one finding.

    Args:
        labels: 1 present, 0 absent, in between for soft labels (0.5 or more count as 1), NaN
            unknown.
        folds: number of folds, at least 2.
        groups: one number per exam, equal for exams that must stay together; None: each exam is a
            group.
        seed: seed of the order of groups that are equal in this respect.

    Returns:
        Number of each exam's fold, from 0; each fold has at least one exam.

    Raises:
        DataError: there are fewer groups than folds.

    Example:
        >>> import numpy as np
        >>> from mrknee.exams import assign_folds
        >>> labels = np.array([[1.0], [0.0], [1.0], [0.0]])
        >>> folds = assign_folds(labels, 2, groups=[0, 0, 1, 1])
        >>> bool(folds[0] == folds[1] and folds[2] == folds[3] and folds[0] != folds[2])
        True
    """
    exams = len(labels)
    _, members = np.unique(np.arange(exams) if groups is None else groups, return_inverse=True)
    count = int(members.max(initial=-1)) + 1
    if not 2 <= folds <= count:
        raise DataError(
            "the exams can't be divided into folds",
            code="split",
            expected=f"at least {folds} exams, in at least {folds} groups if groups are declared; "
            "2 folds or more",
            found=f"{folds} folds, {exams} exams"
            + ("" if groups is None else f" in {count} group{'' if count == 1 else 's'}"),
            advice="use fewer folds",
        )
    counted = np.column_stack([np.ones(exams), cut_labels(labels) == 1])
    of_groups = np.zeros((count, counted.shape[1]))
    np.add.at(of_groups, members, counted)
    rng = np.random.default_rng(seed)
    return _assign(of_groups, np.full(folds, exams / folds), rng)[members]


def largest_remainder(
    shares: Float[np.ndarray, " parts"], total: int
) -> Int64[np.ndarray, " parts"]:
    """Whole numbers near the shares that add up to `total`, by the largest remainder.

    Args:
        shares: 0 or more; they add up to `total`.
        total: what the whole numbers add up to.
    """
    numbers: Int64[np.ndarray, " parts"] = np.floor(shares).astype(np.int64)
    # a stable order of the remainders makes the result independent of the platform's sort
    numbers[np.argsort(numbers - shares, kind="stable")[: total - int(numbers.sum())]] += 1
    return numbers


def _draw_exams(
    members: Int64[np.ndarray, " exams"],
    shares: Float[np.ndarray, " patterns"],
    wanted: int,
    rng: np.random.Generator,
) -> Int64[np.ndarray, " inner"]:
    """Returns the positions of the drawn exams; exams are drawn individually."""
    take = largest_remainder(shares, wanted)
    inner = np.concatenate(
        [
            rng.permutation(np.flatnonzero(members == pattern))[:taken]
            for pattern, taken in enumerate(take)
        ]
    )
    inner.sort()
    return inner


def _draw_groups(
    counted: Float[np.ndarray, "exams counts"],
    shares: Float[np.ndarray, " counts"],
    wanted: int,
    groups: Int64[np.ndarray, " exams"],
    rng: np.random.Generator,
) -> Int64[np.ndarray, " inner"]:
    """Returns the positions of the exams in the drawn groups; see `inner_split`.

    Args:
        counted: what is counted of each exam: 1 for its pattern of labels and each finding that is
            present, otherwise 0.
        shares: the share of each of these numbers.
        wanted: the number of exams to draw.
        groups: number of each exam's group.
        rng: random numbers.
    """
    _, first, groups, sizes = np.unique(
        groups, return_index=True, return_inverse=True, return_counts=True
    )
    # ordered by first exam, so that the group numbers themselves don't matter
    left = rng.permutation(np.argsort(first, kind="stable")).tolist()
    counts_of = np.zeros((len(sizes), len(shares)))
    np.add.at(counts_of, groups, counted)
    taken: list[int] = []
    missing, total = shares.copy(), 0

    def gain(group: int) -> float:
        """Returns the decrease of the sum of squared differences from the shares."""
        counts = counts_of[group]
        return float((counts * (2 * missing - counts)).sum())

    def take(group: int) -> None:
        nonlocal missing, total
        missing, total = missing - counts_of[group], total + int(sizes[group])
        left.remove(group)
        taken.append(group)

    for group in tuple(left):
        room = (counts_of[group] <= np.ceil(missing)).all()
        if len(left) > 1 and total + sizes[group] <= wanted and room:
            take(group)
    while len(left) > 1:
        nearer = [g for g in left if abs(total + sizes[g] - wanted) < abs(total - wanted)]
        if not nearer:
            break
        take(max(nearer, key=gain))
    if not taken:  # every group is larger than twice the requested size
        take(min(left, key=lambda group: int(sizes[group])))
    return np.flatnonzero(np.isin(groups, taken))


def _assign(
    counted: Float[np.ndarray, "groups counts"],
    sizes: Float[np.ndarray, " parts"] | Int64[np.ndarray, " parts"],
    rng: np.random.Generator,
    *,
    exact: bool = False,
) -> Int64[np.ndarray, " groups"]:
    """Assigns groups to parts, so that all counts are divided in proportion to the parts' sizes.

    Groups are assigned one after another, those with the largest counts relative to all exams
    first, in random order if they are equal. Each is added to the part where the sum of squared
    differences from the proportional counts, divided by these, increases least.

    Args:
        counted: per group the number of exams, then other numbers such as positive exams.
        sizes: number of exams that each part should have.
        rng: random numbers.
        exact: let no part have more exams than this number; only for groups of one exam.

    Returns:
        The part of each group; each part has at least one if there are enough.
    """
    totals = counted.sum(axis=0)
    counted = counted[:, totals > 0] / totals[totals > 0]  # findings that nobody has don't matter
    shares = sizes / sizes.sum()
    order = rng.permutation(len(counted))
    order = order[np.argsort(-counted[order].sum(axis=1), kind="stable")]
    filled = np.zeros((len(sizes), counted.shape[1]))
    part_of = np.zeros(len(counted), dtype=np.int64)
    used = np.zeros(len(sizes), dtype=np.int64)
    for position, group in enumerate(order.tolist()):
        added = counted[group]
        increase = (added * (added + 2 * (filled - shares[:, None]))).sum(axis=1) / shares
        if exact:
            increase[used >= sizes] = np.inf
        elif (used == 0).sum() == len(order) - position:  # the rest is needed for empty parts
            increase[used > 0] = np.inf
        part = int(np.argmin(increase))
        part_of[group] = part
        filled[part] += added
        used[part] += 1
    return part_of
