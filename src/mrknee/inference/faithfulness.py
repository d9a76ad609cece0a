"""Are maps true to their network? Two tests that need no lesion: deletion, and random weights.

Deletion: without the slices that a map says raise the logit most, the logit should fall further
than without as many others. Random weights: J. Adebayo et al., "Sanity checks for saliency maps",
NeurIPS 2018: a map that outlives its weights shows the picture, not the network.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import spearmanr

from mrknee.exams import Plane
from mrknee.inference.explanation import Explanation
from mrknee.inference.predictor import Predictor
from mrknee.networks.network import Network
from mrknee.tensors.batches import Sample, join


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
    predictor: Predictor,
    sample: Sample,
    explanation: Explanation,
    finding: str,
    *,
    share: float,
    sets: int,
    seed: int,
) -> Deletion:
    """Leaves slices out and lets the network read what remains.

    The slice of each plane with the smallest score is always kept, also from the random sets:
    without any slice the plane would count as missing, and the others for more.

    Args:
        predictor: the model.
        sample: the exam, framed by the model's preparation.
        explanation: the explanation of it.
        finding: one of the explanation's findings.
        share: of all slices of the exam, how many to leave out, above 0 to 1; rounded up.
        sets: how many random sets.
        seed: of the random sets.
    """
    row = explanation.findings.index(finding)
    scores = {plane: explanation.slice_scores(plane)[row] for plane in explanation.native}
    free = [
        (plane, index)
        for plane, own in scores.items()
        for index in range(len(own))
        if index != int(own.argmin())
    ]
    free.sort(key=lambda one: -float(scores[one[0]][one[1]]))
    count = min(int(np.ceil(share * sum(map(len, scores.values())))), len(free))
    rng = np.random.default_rng(seed)
    left_out = [set(free[:count])]
    left_out += [{free[i] for i in rng.permutation(len(free))[:count]} for _ in range(sets)]
    values = _logits(predictor, [sample, *(without(sample, one) for one in left_out)])[:, row]
    falls = values[0] - values[1:]
    return Deletion(float(falls[0]), float(falls[1:].mean()))


def without(sample: Sample, left_out: set[tuple[Plane, int]]) -> Sample:
    """The exam without some of its slices, named by plane and index."""
    kept = {
        plane: stack[[i for i in range(len(stack)) if (plane, i) not in left_out]]
        for plane, stack in sample.slices.items()
    }
    return replace(sample, slices=kept)


def with_random_weights(predictor: Predictor, seed: int, *, encoders: bool) -> Predictor:
    """The model with its head drawn anew, and its encoders where asked for.

    Args:
        predictor: the model, which stays as it is.
        seed: of the new weights.
        encoders: draw the encoders anew too.
    """
    other = copy.copy(predictor)
    other.reader = copy.deepcopy(predictor.reader)
    network = other.reader.network
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network.head.reset_parameters()
        if encoders:
            fresh = Network(network.settings, network.findings)
            network.encoders.load_state_dict(fresh.encoders.state_dict())
    return other


def likeness(before: Explanation, after: Explanation, finding: str) -> tuple[float, float]:
    """Spearman's correlation of one finding's two maps, over all cells of all planes.

    Returns:
        Of the signed maps, and of their absolute values; NaN where a map is the same everywhere.
    """
    row = before.findings.index(finding)
    old, new = (
        np.concatenate([made.native[plane][row].ravel() for plane in made.native])
        for made in (before, after)
    )
    signed, absolute = spearmanr(old, new).statistic, spearmanr(abs(old), abs(new)).statistic
    return float(signed), float(absolute)


def _logits(predictor: Predictor, samples: Sequence[Sample]) -> Float[np.ndarray, "exams findings"]:
    device = next(predictor.reader.parameters()).device
    with torch.inference_mode():
        found = predictor.reader(join(samples).to(device))
    return np.asarray(found.double().cpu().numpy())
