"""Groups of parameters with their own learning rate and weight decay."""

from __future__ import annotations

from typing import Any

from mrknee.models.encoders import Encoder
from mrknee.models.network import Network
from mrknee.training.recipe import OptimizerSettings

ParameterGroup = dict[str, Any]
"""A parameter group of a torch optimizer: `params`, the parameters; `lr`, their initial learning
rate; `weight_decay`."""


def parameter_groups(network: Network, settings: OptimizerSettings) -> list[ParameterGroup]:
    """Groups the trained parameters of a network by learning rate and weight decay.

    The rate of encoder stage i of n (from 0) is `learning_rate` x `stage_decay` ** (n - i), as in
    timm's `param_groups_layer_decay`, which follows BEiT (https://arxiv.org/abs/2106.08254):
    everything outside the encoders counts as one more stage. The parameters without weight decay
    are those that timm excludes: all of one dimension, and those that a model lists in its method
    `no_weight_decay`.

    Returns:
        Groups in the order in which their first parameters come in the network; with the default
        settings, one group of all trained parameters.
    """
    exponents, excluded = _exponents(network), _excluded(network)
    head = settings.learning_rate
    if settings.head_learning_rate is not None:
        head = settings.head_learning_rate
    groups: dict[tuple[float, float], ParameterGroup] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        rate, decay = head, settings.weight_decay
        if name in exponents:
            rate = settings.learning_rate * settings.stage_decay ** exponents[name]
        if not settings.decay_norms and (parameter.ndim <= 1 or name in excluded):
            decay = 0.0
        new = {"params": [], "lr": rate, "weight_decay": decay}
        groups.setdefault((rate, decay), new)["params"].append(parameter)
    return list(groups.values())


def _exponents(network: Network) -> dict[str, int]:
    """Returns the exponent of the stage decay for each parameter of an encoder, 1 or more."""
    return {
        f"{prefix}.{name}": encoder.stages - stage
        for prefix, encoder in _encoders(network)
        for name, stage in encoder.stage_of.items()
    }


def _excluded(network: Network) -> set[str]:
    """Returns the parameters that timm's models exclude from weight decay."""
    names = set()
    for prefix, encoder in _encoders(network):
        body: Any = encoder.body
        if hasattr(body, "no_weight_decay"):
            names |= {f"{prefix}.{name}" for name in body.no_weight_decay()}
    return names


def _encoders(network: Network) -> list[tuple[str, Encoder]]:
    """Returns the name of each encoder's body among the network's modules, and the encoder."""
    return [
        (f"encoders.{key}.body", encoder)
        for key, encoder in network.encoders.items()
        if isinstance(encoder, Encoder)
    ]
