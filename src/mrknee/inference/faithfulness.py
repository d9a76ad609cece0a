"""Are maps true to their network? Two tests that need no lesion: deletion, and random weights.

Deletion: without the slices that a map says raise the logit most, the logit should fall further
than without as many others. Random weights: J. Adebayo et al., "Sanity checks for saliency maps",
NeurIPS 2018: a map that outlives its weights shows the picture, not the network.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import spearmanr

from mrknee.exams import Exam
from mrknee.inference.explanation import Explanation
from mrknee.inference.model import Model
from mrknee.inference.torch_model import TorchModel
from mrknee.networks.network import Network


@dataclass(frozen=True)
class Deletion:
    """How far one finding's logit falls when slices are left out.

    Attributes:
        hottest: the fall without the slices that raise it most; below 0 where it rose.
        random: the mean fall without as many slices drawn at random.
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
    """Leaves slices out and lets the model read what remains.

    The slice of each series with the smallest score is always kept, also from the random sets:
    without any slice the series would count as missing, and the others for more.

    Args:
        model: the model.
        exam: the exam.
        explanation: the model's explanation of it.
        finding: one of the explanation's findings.
        share: of all slices of the exam, how many to leave out, above 0 to 1; rounded up.
        sets: how many random sets.
        seed: of the random sets.
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
    """The exam without some of its slices, named by series and index."""
    kept = {
        name: stack[[i for i in range(len(stack)) if (name, i) not in left_out]]
        for name, stack in exam.stacks.items()
    }
    return Exam(exam.id, kept, exam.labels, series=exam.series)


def with_random_weights(model: TorchModel, seed: int, *, encoders: bool) -> TorchModel:
    """The model with its head drawn anew, and its encoders where asked for.

    Args:
        model: the model, which stays as it is.
        seed: of the new weights.
        encoders: draw the encoders anew too.
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
    return other


def likeness(before: Explanation, after: Explanation, finding: str) -> tuple[float, float]:
    """Spearman's correlation of one finding's two maps, over all cells of all series.

    Returns:
        Of the signed maps, and of their absolute values; NaN where a map is the same everywhere.
    """
    row = before.findings.index(finding)
    old, new = (
        np.concatenate([made.native[name][row].ravel() for name in made.native])
        for made in (before, after)
    )
    signed, absolute = spearmanr(old, new).statistic, spearmanr(abs(old), abs(new)).statistic
    return float(signed), float(absolute)
