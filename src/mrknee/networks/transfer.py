"""Starting a network with the weights of a trained one that may have other findings or series."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from mrknee.errors import SettingsError
from mrknee.exams import Series
from mrknee.networks.checkpoint import load_checkpoint
from mrknee.networks.network import SHARED, Network
from mrknee.run_folder import RunFolder

RUN = "run:"
"""Prefix of the setting `weights` where they come from a run: `run:runs/first`."""


@dataclass(frozen=True)
class Transfer:
    """What a network took over from a trained one.

    Attributes:
        taken: parts that have the trained network's weights, in words.
        drawn: parts that were drawn anew, in words.
    """

    taken: tuple[str, ...]
    drawn: tuple[str, ...]

    def text(self) -> str:
        """Both, one line each."""
        drawn = "; ".join(self.drawn) or "nothing"
        return f"taken over: {'; '.join(self.taken)}\ndrawn anew: {drawn}"


def run_weights(weights: str) -> Path | None:
    """The folder that a setting `run:PATH` names: its best epoch where it is a run's."""
    if not weights.startswith(RUN):
        return None
    return RunFolder.model_in(weights.removeprefix(RUN))


def take_over(network: Network, folder: Path) -> Transfer:
    """Gives a network the weights of a trained one, where they have the same meaning.

    - The encoder of a series has the weights of the trained network's encoder of that series; where
      it had none of that name, of its first series of the same plane; else of its first series.
    - The pooling of a series (attention has weights) likewise.
    - The head has the trained weights for findings of the same name, from series of the same name.

    Args:
        network: the new network, drawn at random; changed in place.
        folder: holds the trained one's `model.json` and weights.

    Raises:
        ModelError: there is no model there, or it is damaged.
        SettingsError: its encoder is of another kind.
    """
    source = load_checkpoint(folder).network
    if source.settings.encoder != network.settings.encoder:
        raise SettingsError(
            "the weights are another encoder's",
            code="weights",
            file=folder,
            expected=f"a run with network.encoder {network.settings.encoder}",
            found=source.settings.encoder,
            advice=f"train with --network.encoder {source.settings.encoder}",
        )
    taken: list[str] = []
    for name in network.encoders:
        origin = SHARED
        if not source.settings.shared_encoder:
            wanted = network.series[0] if name == SHARED else _series(network, name)
            origin = _nearest(source, wanted)
        network.encoders[name].load_state_dict(source.encoders[origin].state_dict())
        taken.append(f"encoder {name}" + (f" from {origin}" if origin != name else ""))
    drawn: list[str] = []
    if any(True for _ in network.poolings.parameters()):
        same = source.settings.slice_pooling == network.settings.slice_pooling
        for name in network.poolings:
            if same:
                origin = _nearest(source, _series(network, name))
                network.poolings[name].load_state_dict(source.poolings[origin].state_dict())
            (taken if same else drawn).append(f"pooling {name}")
    for finding in network.findings:
        series = [name for name in network.series.names if name in source.series.names]
        known = finding in source.findings and bool(series)
        if known:
            _copy_head(network, source, finding, series)
            taken.append(f"head of {finding}")
        others = [name for name in network.series.names if name not in series] if known else []
        if others:
            drawn.append(f"head of {finding} for {', '.join(others)}")
        elif not known:
            drawn.append(f"head of {finding}")
    return Transfer(tuple(taken), tuple(drawn))


def _series(network: Network, name: str) -> Series:
    return next(one for one in network.series if one.name == name)


def _nearest(source: Network, wanted: Series) -> str:
    """The source's series to take weights of: the same, else of the same plane, else the first."""
    names = source.series.names
    if wanted.name in names:
        return wanted.name
    return next((one.name for one in source.series if one.plane == wanted.plane), names[0])


@torch.no_grad()
def _copy_head(network: Network, source: Network, finding: str, series: list[str]) -> None:
    row, old = network.findings.index(finding), source.findings.index(finding)
    network.head.bias[row] = source.head.bias[old]
    parts = network.head.weight.split(network.width, dim=1)
    sources = source.head.weight.split(source.width, dim=1)
    for name in series:
        here, there = network.series.names.index(name), source.series.names.index(name)
        parts[here][row] = sources[there][old]
