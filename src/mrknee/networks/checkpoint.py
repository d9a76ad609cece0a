"""A trained network on disk: a folder with `weights.safetensors` and `model.json`.

Nothing is pickled and nothing is trusted: on loading, everything is checked against the rest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from mrknee.errors import MrkneeError
from mrknee.files import whole_file
from mrknee.networks.network import Network
from mrknee.networks.settings import NetworkSettings

FORMAT = 1
"""Version of the layout that this file writes and reads."""

WEIGHTS_FILE = "weights.safetensors"
MODEL_FILE = "model.json"


@dataclass(frozen=True)
class Checkpoint:
    """A trained network and what belongs to it.

    Attributes:
        network: the network with its weights, in evaluation mode, in the CPU's memory.
        preparation: the settings of the preparation its input needs.
        provenance: where it comes from: data, recipe, seed, versions, as its maker noted them.
        decisions: what turns its probabilities into decisions, fitted on exams that it was not
            trained on: the calibration and the operating points; empty where nothing was fitted.
    """

    network: Network
    preparation: dict[str, Any]
    provenance: dict[str, Any]
    decisions: dict[str, Any]


def save_checkpoint(
    folder: Path,
    network: Network,
    preparation: Mapping[str, Any],
    provenance: Mapping[str, Any],
    decisions: Mapping[str, Any] | None = None,
) -> None:
    """Writes a network into a folder, which is made where it isn't there.

    Both files are written in full beside their places and then renamed onto them, so a reader
    never sees half a file; should a crash fall between the two renames, loading says so, because
    `model.json` carries the sha256 of its weights.

    Args:
        folder: where to write; an earlier checkpoint there is replaced.
        network: on any device.
        preparation: settings of the preparation: plain strings, numbers, lists and dictionaries.
        provenance: where the network comes from, of the same plain kinds.
        decisions: calibration and operating points, of the same plain kinds; None where nothing
            was fitted.

    Raises:
        TypeError: `preparation`, `provenance` or `decisions` hold something JSON has no form for.
    """
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    weights = safetensors.torch.save(state)
    description = {
        "format": FORMAT,
        "findings": list(network.findings),
        "settings": asdict(network.settings),
        "parameters": _parameters(network),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "preparation": dict(preparation),
        "provenance": dict(provenance),
        "decisions": dict(decisions or {}),
    }
    text = json.dumps(description, indent=2, allow_nan=False) + "\n"
    with whole_file(folder / MODEL_FILE) as model, whole_file(folder / WEIGHTS_FILE) as beside:
        beside.write_bytes(weights)
        model.write_text(text, encoding="utf-8")


def load_checkpoint(folder: Path) -> Checkpoint:
    """Reads a network back, its weights bit for bit; torch's random state stays as it was.

    Raises:
        MrkneeError: a file is missing, broken, of another format version, or doesn't fit the other.
    """
    file = folder / MODEL_FILE
    description = _read_description(file)
    network = _build(description, file)
    weights = folder / WEIGHTS_FILE
    content = _read(weights)
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != description["weights_sha256"]:
        raise MrkneeError(
            "the weights aren't those the model was saved with",
            file=weights,
            expected=f"sha256 {description['weights_sha256']}",
            found=f"sha256 {sha256} of {len(content)} bytes",
            advice="copy or train the model anew",
        )
    try:
        network.load_state_dict(safetensors.torch.load(content))
    except (safetensors.SafetensorError, RuntimeError) as fault:
        raise MrkneeError(
            "the weights don't fit the model's description",
            file=weights,
            expected=f"the weights of the network described in {file}",
            found=str(fault),
        ) from fault
    parts = (dict(description[name]) for name in ("preparation", "provenance", "decisions"))
    return Checkpoint(network.eval(), *parts)


def _read_description(file: Path) -> dict[str, Any]:
    """What model.json says, its parts of the right types."""
    try:
        description = json.loads(_read(file))
    except ValueError as fault:
        raise MrkneeError(
            "the model's description can't be read", file=file, expected="JSON", found=str(fault)
        ) from fault
    version = description.get("format") if isinstance(description, dict) else None
    if version != FORMAT:
        raise MrkneeError(
            "the model's description has an unknown format",
            file=file,
            expected=f"format {FORMAT}",
            found=f"format {version}",
            advice="use the version of mrknee that saved it",
        )
    kinds = {
        "findings": list,
        "settings": dict,
        "parameters": int,
        "weights_sha256": str,
        "preparation": dict,
        "provenance": dict,
        "decisions": dict,
    }
    for name, kind in kinds.items():
        if not isinstance(description.get(name), kind):
            raise MrkneeError(
                "the model's description lacks a part",
                file=file,
                expected=f"{name!r} as a {kind.__name__}",
                found=repr(description.get(name, "nothing")),
            )
    return dict(description)


def _build(description: Mapping[str, Any], file: Path) -> Network:
    """The network as described, its weights still random."""
    known = {field.name for field in fields(NetworkSettings)}
    given = set(description["settings"])
    if given != known:
        raise MrkneeError(
            "the model's settings aren't a network's",
            file=file,
            expected=", ".join(sorted(known)),
            found=", ".join(sorted(given)),
        )
    with torch.random.fork_rng():
        network = Network(NetworkSettings(**description["settings"]), description["findings"])
    if _parameters(network) != description["parameters"]:
        raise MrkneeError(
            "the network built isn't the one that was saved",
            file=file,
            expected=f"{description['parameters']} parameters",
            found=f"{_parameters(network)} parameters",
            advice="use the versions of torchvision and timm it was trained with",
        )
    return network


def _parameters(network: Network) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as fault:
        raise MrkneeError(
            "the model can't be read",
            file=file,
            expected=f"a folder with {MODEL_FILE} and {WEIGHTS_FILE}",
            found=fault.strerror or str(fault),
        ) from fault
