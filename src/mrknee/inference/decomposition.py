"""How a network's logits are taken apart, into the Explanation that `explanation` describes.

Where the logit is a sum, the sum is read off (`decompose`). Any other network gets Grad-CAM:
Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", ICCV 2017, as Captum computes it, signed. It is an approximation and doesn't add up
to the logit.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import expit
from torch import Tensor, nn

from mrknee.errors import ModelError
from mrknee.exams import PLANES, Exam, Plane, remarks_of
from mrknee.exams.exam import refuse_no_exam
from mrknee.exams.plausibility import sizes_from
from mrknee.inference.explanation import EXACT, GRAD_CAM, Explanation, Method
from mrknee.inference.model import uncalibrated
from mrknee.inference.predictor import Predictor
from mrknee.networks.network import Network
from mrknee.networks.pooling import AttentionPooling, MaxPooling, MeanPooling
from mrknee.tensors.batches import frame_exam, join


def explain(predictor: Predictor, exam: Exam, *, method: Method | None = None) -> Explanation:
    """Takes the logits of one exam apart.

    The exam is encoded once: logits and maps come from the same feature maps.

    Args:
        predictor: the model.
        exam: the exam; planes it lacks are missing from the result.
        method: `exact`, `grad-cam`, or None: exact where the network allows it, else Grad-CAM.

    Raises:
        MrkneeError: exact is asked for and the network doesn't allow it.
    """
    refuse_no_exam(exam)
    reader = predictor.reader
    network = reader.network
    obstacle = why_not_exact(network)
    if method == "exact" and obstacle is not None:
        raise ModelError(
            "the network's logits can't be taken apart exactly",
            code="no-exact-explanation",
            expected="a Network with max, mean or attention pooling and a linear head",
            found=obstacle,
            advice="use Grad-CAM, an approximation",
        )
    exact = method == "exact" or (method is None and obstacle is None)
    reader.eval()
    slices, lengths = _prepared(predictor, exam)
    with torch.no_grad():
        maps = {plane: network.encode(plane, slices[plane]) for plane in exam.stacks}
    if exact:
        with torch.no_grad():
            logits, parts = decompose(network, maps)
        bias = _numpy(network.head.bias).astype(np.float64)
    else:
        logits, parts = _grad_cam(network, maps, slices, lengths)
        bias = np.full(len(network.findings), np.nan)
    raw = _numpy(logits).astype(np.float64)
    return Explanation(
        exam=exam.id,
        findings=tuple(network.findings),
        method=EXACT if exact else GRAD_CAM,
        logits=raw,
        bias=bias,
        probabilities=predictor.calibrate(expit(raw)[None])[0],
        native=MappingProxyType({p: _numpy(parts[p]).astype(np.float32) for p in exam.stacks}),
        shapes=MappingProxyType({p: cast(Any, s.shape) for p, s in exam.stacks.items()}),
        preparation=reader.preparation,
        attention_fixed=exact and attends(network),
        remarks=remarks_of(exam, sizes_from(predictor.provenance.get("stack_sizes"))),
        uncalibrated=uncalibrated(predictor.decisions, predictor.findings),
        stacks=exam.stacks,
    )


def why_not_exact(network: Network) -> str | None:
    """What keeps a network's logits from being a sum over slices and cells; None if nothing does.

    Subclasses are refused too: what they changed can't be known.
    """
    if type(network) is not Network:
        return f"a network of its own kind, {type(network).__name__}"
    if type(network.head) is not nn.Linear:
        return f"a head that is not one linear layer: {type(network.head).__name__}"
    for pooling in network.poolings.values():
        if type(pooling) not in (MaxPooling, MeanPooling, AttentionPooling):
            return f"a pooling of its own kind, {type(pooling).__name__}"
    return None


def attends(network: Network) -> bool:
    """Whether any plane's slices are weighted by attention, which an exact map holds fixed."""
    return any(isinstance(pooling, AttentionPooling) for pooling in network.poolings.values())


def decompose(
    network: Network, maps: Mapping[Plane, Float[Tensor, "_ width _ _"]]
) -> tuple[Float[Tensor, " findings"], dict[Plane, Float[Tensor, "findings _ _ _"]]]:
    """One exam's logits and their contributions, both from the same feature maps.

    Tensors in, tensors out, no gradient, no branch on a value: it can be part of an exported graph.

    Args:
        network: one that `why_not_exact` has nothing against.
        maps: feature maps of the planes that are there, at least one slice each.

    Returns:
        The logits, by the network's own pooling and head; and for each plane (findings, slices,
        map_rows, map_cols) contributions, which add up to them with the head's bias.
    """
    factor = len(PLANES) / len(maps)
    heads = network.head.weight.split(network.width, dim=1)
    pooled, parts = [], {}
    for plane, head in zip(PLANES, heads, strict=True):
        if plane in maps:
            pooling = network.poolings[plane]
            pooled.append(pooling(maps[plane].mean(dim=(2, 3))))
            weights = slice_weights(pooling, maps[plane])
            parts[plane] = contributions(maps[plane], weights, head) * factor
        else:
            pooled.append(head.new_zeros(network.width))
    logits: Tensor = network.head(torch.cat(pooled) * factor)
    return logits, parts


def slice_weights(
    pooling: nn.Module, maps: Float[Tensor, "slices width rows cols"]
) -> Float[Tensor, "slices width"]:
    """How much of each slice's channel the pooling passes on.

    Args:
        pooling: max (1 for a channel's first strongest slice), mean, or attention.
        maps: one plane of one exam.
    """
    features = maps.mean(dim=(2, 3))
    if isinstance(pooling, MaxPooling):
        first = torch.max(features, dim=0).indices
        order = torch.arange(features.shape[0], device=features.device)
        return (order[:, None] == first).to(features.dtype)
    if isinstance(pooling, AttentionPooling):
        return pooling.attention(features)[:, None].expand_as(features)
    return torch.ones_like(features) / features.shape[0]


def contributions(
    maps: Float[Tensor, "slices width rows cols"],
    weights: Float[Tensor, "slices width"],
    head: Float[Tensor, "findings width"],
) -> Float[Tensor, "findings slices rows cols"]:
    """What each cell of one plane adds to each logit, for a complete exam.

    Args:
        maps: the plane's feature maps.
        weights: each slice's share in the pooled channel.
        head: the head's weights for this plane.
    """
    cells = maps.shape[2] * maps.shape[3]
    each = head[:, None] * weights / cells  # findings, slices, width
    return torch.einsum("fsw,swrc->fsrc", each, maps)


class _FromMaps(nn.Module):
    """A network from its feature maps on, for Captum.

    Captum attributes to layers, by hooks. The encoder itself won't do: where planes share it, it
    runs once for each, and hooks see the last run only. Here each plane has a layer of its own,
    and nothing is encoded twice.

    Args:
        network: any network.
        slices: its input, one exam.
        lengths: its input, one exam.
    """

    def __init__(
        self, network: Network, slices: Mapping[str, Tensor], lengths: Mapping[Plane, Tensor]
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({p: nn.Identity() for p in PLANES if len(slices[p])})
        self._maps: dict[str, Tensor] = {}
        self._slices, self._lengths = slices, lengths
        self._network = copy.copy(network)  # the weights are shared; only `encode` is another
        self._network.__dict__["encode"] = lambda plane, _: self.layers[plane](self._maps[plane])

    def forward(self, *maps: Tensor) -> Float[Tensor, "1 findings"]:
        """The exam's logits from its feature maps, one a plane that is there."""
        self._maps = dict(zip(self.layers, maps, strict=True))
        logits: Tensor = self._network(self._slices, self._lengths)
        return logits


def _grad_cam(
    network: Network,
    maps: Mapping[Plane, Float[Tensor, "_ width _ _"]],
    slices: Mapping[str, Tensor],
    lengths: Mapping[Plane, Tensor],
) -> tuple[Float[Tensor, " findings"], dict[Plane, Float[Tensor, "findings _ _ _"]]]:
    """Logits and signed Grad-CAM maps, by Captum; no parameter's gradient is kept."""
    # imported here because it brings matplotlib along
    from captum.attr import LayerGradCam  # type: ignore[import-untyped]

    rest = _FromMaps(network, slices, lengths)
    inputs = tuple(maps[plane].detach().requires_grad_() for plane in maps)
    parts = {}
    for plane in maps:
        grad_cam = LayerGradCam(rest, rest.layers[plane])
        found = [
            grad_cam.attribute(inputs, target=row, relu_attributions=False)
            for row in range(len(network.findings))
        ]
        parts[plane] = torch.stack(found)[:, :, 0].detach()
    with torch.no_grad():
        return rest(*inputs)[0], parts


def _prepared(predictor: Predictor, exam: Exam) -> tuple[dict[str, Tensor], Mapping[Plane, Tensor]]:
    """One exam as the network's input: slices and lengths by plane."""
    reader = predictor.reader
    device = next(reader.parameters()).device
    batch = join([frame_exam(exam, reader.preparation)]).to(device)
    return reader.prepare(batch), batch.lengths


def _numpy(tensor: Tensor) -> Float[np.ndarray, ...]:
    return np.asarray(tensor.detach().cpu().numpy())
