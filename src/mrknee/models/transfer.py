"""Transfer of weights from a trained network, which may have other findings or series."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from mrknee.errors import SettingsError
from mrknee.exams import Series
from mrknee.models.checkpoint import load_checkpoint
from mrknee.models.network import SHARED, Network
from mrknee.run_folder import RunFolder

RUN = "run:"
"""Prefix of the setting `weights` for weights of a run: `run:runs/first`."""


@dataclass(frozen=True)
class Transfer:
    """The parts of a network with transferred and with random weights.

    Attributes:
        transferred: descriptions of the parts with weights of the trained network.
        random: descriptions of the parts with random weights.
    """

    transferred: tuple[str, ...]
    random: tuple[str, ...]

    def text(self) -> str:
        """Formats both lists, one line each."""
        random = "; ".join(self.random) or "nothing"
        return f"transferred: {'; '.join(self.transferred)}\nrandomly initialised: {random}"


def run_weights(weights: str) -> Path | None:
    """Returns the model folder of a setting `run:PATH` (of a run, its best epoch), else None."""
    if not weights.startswith(RUN):
        return None
    return RunFolder.model_in(weights.removeprefix(RUN))


def transfer_weights(network: Network, folder: Path) -> Transfer:
    """Copies the weights of a trained network to the corresponding parts of a new one.

    - The encoder of a series gets the weights of the encoder of the same series; if there is none,
      of the first series in the same plane, else of the first series.
    - The same holds for the pooling of a series (attention has weights).
    - The head gets the weights for findings of the same name, from series of the same name.

    Args:
        network: the new network with random weights; changed in place.
        folder: the folder with `model.json` and weights of the trained network.

    Raises:
        ModelError: the folder contains no model, or a damaged one.
        SettingsError: the trained network has another type of encoder.
    """
    source = load_checkpoint(folder).network
    if source.settings.encoder != network.settings.encoder:
        raise SettingsError(
            "the weights belong to another encoder",
            code="weights",
            file=folder,
            expected=f"a run with network.encoder {network.settings.encoder}",
            found=source.settings.encoder,
            advice=f"train with --network.encoder {source.settings.encoder}",
        )
    transferred: list[str] = []
    for name in network.encoders:
        origin = SHARED
        if not source.settings.shared_encoder:
            wanted = network.series[0] if name == SHARED else _series(network, name)
            origin = _nearest(source, wanted)
        network.encoders[name].load_state_dict(source.encoders[origin].state_dict())
        transferred.append(f"encoder {name}" + (f" from {origin}" if origin != name else ""))
    random: list[str] = []
    if any(True for _ in network.poolings.parameters()):
        same = source.settings.slice_pooling == network.settings.slice_pooling
        for name in network.poolings:
            if same:
                origin = _nearest(source, _series(network, name))
                network.poolings[name].load_state_dict(source.poolings[origin].state_dict())
            (transferred if same else random).append(f"pooling {name}")
    for finding in network.findings:
        series = [name for name in network.series.names if name in source.series.names]
        known = finding in source.findings and bool(series)
        if known:
            _copy_head(network, source, finding, series)
            transferred.append(f"head of {finding}")
        others = [name for name in network.series.names if name not in series] if known else []
        if others:
            random.append(f"head of {finding} for {', '.join(others)}")
        elif not known:
            random.append(f"head of {finding}")
    return Transfer(tuple(transferred), tuple(random))


def _series(network: Network, name: str) -> Series:
    return next(one for one in network.series if one.name == name)


def _nearest(source: Network, wanted: Series) -> str:
    """Returns the series of the source with the same name, else the same plane, else the first."""
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
        new_index, old_index = network.series.names.index(name), source.series.names.index(name)
        parts[new_index][row] = sources[old_index][old]
