"""Transfer of weights from a trained network, which may have other findings or series."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch

from mrknee.errors import SettingsError
from mrknee.exams import Series
from mrknee.models.checkpoint import load_checkpoint
from mrknee.models.encoders import Encoder
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
    - The 1x1 convolutions behind the feature maps are copied if both networks have the same.
    - The head gets the weights for findings of the same name, from series of the same name, if the
      networks agree in feature maps, channels, activation, crops, and whether features or scores
      are pooled; so does the pooling of scores.
    - The transformer over slices is copied if both networks have one and agree in feature maps and
      channels; the embedding of a series only from that of the same series.

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
    same_maps = _maps(source) == _maps(network)
    same = source.settings.slice_pooling == network.settings.slice_pooling
    same_head = (
        same_maps
        and (source.evidence is None) == (network.evidence is None)
        and (source.transformer is None) == (network.transformer is None)
    )
    transferred: list[str] = []
    random: list[str] = []
    for name in network.encoders:
        origin = SHARED
        if not source.settings.shared_encoder:
            wanted = network.series[0] if name == SHARED else _series(network, name)
            origin = _nearest(source, wanted)
        where = f"{name} from {origin}" if origin != name else name
        new = cast(Encoder, network.encoders[name])
        old = cast(Encoder, source.encoders[origin])
        _copy_body(new, old, folder)
        transferred.append(f"encoder {where}")
        if new.neck is not None and old.neck is not None and same_maps:
            new.neck.load_state_dict(old.neck.state_dict())
            transferred.append(f"neck {where}")
        elif new.neck is not None:
            random.append(f"neck {name}")
    if any(True for _ in network.poolings.parameters()):
        for name in network.poolings:
            if same and same_maps:
                origin = _nearest(source, _series(network, name))
                network.poolings[name].load_state_dict(source.poolings[origin].state_dict())
            (transferred if same and same_maps else random).append(f"pooling {name}")
    if network.transformer is not None:
        if same_head:
            _copy_transformer(network, source)
        (transferred if same_head else random).append("transformer over slices")
        lacking = [name for name in network.series.names if name not in source.series.names]
        random += [f"embedding of {name}" for name in lacking if same_head]
    for finding in network.findings:
        series = [name for name in network.series.names if name in source.series.names]
        known = same_head and finding in source.findings and bool(series)
        if known:
            _copy_head(network, source, finding, series)
            transferred.append(f"head of {finding}")
            if network.evidence is not None:
                (transferred if same else random).append(f"pooling of {finding}")
        others = [name for name in network.series.names if name not in series] if known else []
        if others and network.transformer is None:
            random.append(f"head of {finding} for {', '.join(others)}")
        elif not known:
            random.append(f"head of {finding}")
            if network.evidence is not None:
                random.append(f"pooling of {finding}")
    return Transfer(tuple(transferred), tuple(random))


def _maps(network: Network) -> tuple[object, ...]:
    """Returns the settings that the features of a slice depend on, besides the encoder's body."""
    settings = network.settings
    return (
        settings.feature_maps,
        settings.channels,
        settings.activation,
        settings.detail_crops,
    )


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
    if network.transformer is not None:
        network.head.weight[row] = source.head.weight[old]
        return
    parts = network.head.weight.split(network.features, dim=1)
    sources = source.head.weight.split(source.features, dim=1)
    indices = {network.series.names.index(name): source.series.names.index(name) for name in series}
    for new_index, old_index in indices.items():
        parts[new_index][row] = sources[old_index][old]
    if network.evidence is not None and type(network.evidence) is type(source.evidence):
        network.evidence.copy_finding(row, source.evidence, old, indices)


@torch.no_grad()
def _copy_transformer(network: Network, source: Network) -> None:
    """Copies the transformer over slices, without embeddings of series that the source lacks."""
    new, old = network.transformer, source.transformer
    assert new is not None  # noqa: S101 - for the type checker
    assert old is not None  # noqa: S101 - for the type checker
    embeddings = new.series.weight.clone()
    names = source.series.names
    for index, name in enumerate(network.series.names):
        if name in names:
            embeddings[index] = old.series.weight[names.index(name)]
    new.load_state_dict({**old.state_dict(), "series.weight": embeddings})


def _copy_body(new: Encoder, old: Encoder, folder: Path) -> None:
    """Copies the weights of an encoder's body, of which the new one may have fewer layers."""
    weights = old.body.state_dict()
    wanted = new.body.state_dict()
    missing = [name for name in wanted if name not in weights]
    if missing:
        raise SettingsError(
            "the weights belong to an encoder with fewer layers",
            code="weights",
            file=folder,
            expected=f"weights of {missing[0]}",
            found="a network without them",
            advice="use the network.feature_maps of that run",
        )
    new.body.load_state_dict({name: weights[name] for name in wanted})
