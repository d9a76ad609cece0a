"""Tests of whether heat maps are faithful to the network, without knowledge of lesions.

Deletion: removing the slices that raise the logit most, according to the map, should decrease the
logit more than removing as many random slices. Random weights (J. Adebayo et al., "Sanity checks
for saliency maps", NeurIPS 2018): a map that stays similar when weights are replaced by random
ones shows the image, not the network.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.stats import spearmanr

from mrknee.exams import Exam
from mrknee.explanations.explanation import Explanation
from mrknee.models.network import Network

if TYPE_CHECKING:
    from mrknee.inference.model import Model
    from mrknee.inference.torch_model import TorchModel


@dataclass(frozen=True)
class Deletion:
    """Decrease of one finding's logit when slices of an exam are removed.

    Attributes:
        hottest: decrease without the slices with the largest scores; negative if the logit rises.
        random: mean decrease without as many random slices.
    """

    hottest: float
    random: float


def deletion(
    model: Model,
    exam: Exam,
    explanation: Explanation,
    finding: str,
    *,
    share: float,
    sets: int,
    seed: int,
) -> Deletion:
    """Measures the decrease of a finding's logit when slices are removed from an exam.

    The slice with the smallest score of each series is always kept, in the random sets too: a
    series without slices would count as missing, which changes the weight of the others.

    Args:
        model: the model.
        exam: the exam.
        explanation: the model's explanation of the exam.
        finding: one of the explanation's findings.
        share: fraction of the exam's slices to remove, above 0 and at most 1; their number is
            rounded up.
        sets: number of random sets of slices.
        seed: random seed of these sets.

    Returns:
        The decreases without the slices with the largest scores and without random ones.
    """
    row = explanation.findings.index(finding)
    scores = explanation.slices(finding)
    free = [
        (name, index)
        for name, own in scores.items()
        for index in range(len(own))
        if index != int(own.argmin())
    ]
    free.sort(key=lambda one: -float(scores[one[0]][one[1]]))
    count = min(int(np.ceil(share * sum(map(len, scores.values())))), len(free))
    rng = np.random.default_rng(seed)
    left_out = [set(free[:count])]
    left_out += [{free[i] for i in rng.permutation(len(free))[:count]} for _ in range(sets)]
    logit = float(explanation.logits[row])
    falls = [logit - float(model.explain(without(exam, one)).logits[row]) for one in left_out]
    return Deletion(falls[0], float(np.mean(falls[1:])))


def without(exam: Exam, left_out: set[tuple[str, int]]) -> Exam:
    """Returns the exam without the given slices, each identified by series and index."""
    kept = {
        name: stack[[i for i in range(len(stack)) if (name, i) not in left_out]]
        for name, stack in exam.stacks.items()
    }
    return Exam(exam.id, kept, exam.labels, series=exam.series)


def with_random_weights(model: TorchModel, seed: int, *, encoders: bool) -> TorchModel:
    """Returns a copy of the model with a randomly initialised head.

    Args:
        model: the model; it isn't changed.
        seed: random seed of the new weights.
        encoders: whether encoders and poolings are initialised randomly too.
    """
    other = copy.copy(model)
    other.network = copy.deepcopy(model.network)
    network = other.network
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network.head.reset_parameters()
        if encoders:
            fresh = Network(network.settings, network.findings, series=network.series)
            network.encoders.load_state_dict(fresh.encoders.state_dict())
            network.poolings.load_state_dict(fresh.poolings.state_dict())
            if network.evidence is not None and fresh.evidence is not None:
                network.evidence.load_state_dict(fresh.evidence.state_dict())
    return other


def likeness(before: Explanation, after: Explanation, finding: str) -> tuple[float, float]:
    """Computes Spearman's correlation of two maps of one finding, over all cells of all series.

    Args:
        before: explanation with one of the maps.
        after: explanation of the same exam with the other map.
        finding: the finding.

    Returns:
        The correlations of the signed maps and of their absolute values; NaN if a map is constant.
    """
    row = before.findings.index(finding)
    old, new = (
        np.concatenate([made.native[name][row].ravel() for name in made.native])
        for made in (before, after)
    )
    signed, absolute = spearmanr(old, new).statistic, spearmanr(abs(old), abs(new)).statistic
    return float(signed), float(absolute)
