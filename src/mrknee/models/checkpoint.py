"""Saving and loading trained networks: a folder with `weights.safetensors` and `model.json`.

Nothing is pickled and files are not trusted: all parts are validated on loading. `model.json`
contains the sha256 of the weights and a digest of its own contents, so that files that don't belong
together are refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from mrknee.errors import ModelError, MrkneeError
from mrknee.exams import SeriesList
from mrknee.files import atomic_writes
from mrknee.models.description import (
    ANY,
    SERIES,
    TEXT,
    Row,
    Shape,
    Table,
    check_model,
    digest_of,
    series_of,
    whole,
)
from mrknee.models.network import SHARED, Network
from mrknee.models.settings import NetworkSettings
from mrknee.run_folder import MODEL_FILE, WEIGHTS_FILE
from mrknee.settings import settings_from_model
from mrknee.untrusted import DESCRIPTION_BYTES, parse_json, read_bytes

FORMAT = 3
"""Version of the written format. Version 1 had no digest, and is read with a note; versions 1 and 2
had no series, and use MRNet's."""

_PARTS: dict[str, Shape] = {
    "settings": Table(ANY),
    "parameters": whole(),
    "weights_sha256": TEXT,
}
"""Entries of `model.json` that exported files don't have."""

_NO_DIGEST = (
    "{} was written by an earlier version of mrknee, without a digest: whether it was changed "
    "afterwards, and on which series the model was trained, is unknown"
)

_MAX_HEADER_BYTES = 10_000_000  # of a safetensors file: names and shapes


@dataclass(frozen=True)
class Checkpoint:
    """A trained network with its preparation, provenance and decisions.

    Attributes:
        network: the network with its weights, in evaluation mode, in CPU memory.
        preparation: settings of the preparation of its input.
        provenance: origin of the network: data, recipe, seed, versions.
        decisions: calibration and operating points, fitted on exams that were not used for
            training; empty if nothing was fitted.
        notes: notes for users, one sentence each.
    """

    network: Network
    preparation: dict[str, Any]
    provenance: dict[str, Any]
    decisions: dict[str, Any]
    notes: tuple[str, ...] = ()


def save_checkpoint(
    folder: str | Path,
    network: Network,
    preparation: Mapping[str, Any],
    provenance: Mapping[str, Any],
    decisions: Mapping[str, Any] | None = None,
) -> None:
    """Writes a network into a folder, which is created if necessary.

    Both files are written to temporary names and then renamed, so that readers never see a partial
    file. After a crash between the two renames, loading fails, because the sha256 in `model.json`
    doesn't match the weights.

    Args:
        folder: the folder; an earlier checkpoint in it is replaced.
        network: the network, on any device.
        preparation: settings of the preparation, as returned by `PreparationSettings.to_dict`.
        provenance: origin of the network: strings, numbers, lists and dictionaries; entries named
            in `description.PROVENANCE` must have the types defined there.
        decisions: calibration and operating points as dictionaries; None if nothing was fitted.

    Raises:
        MrkneeError: `load_checkpoint` would refuse an entry.
        TypeError: `provenance` can't be represented in JSON.
    """
    folder = Path(folder)
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    weights = safetensors.torch.save(state)
    description: dict[str, Any] = {
        "format": FORMAT,
        "findings": list(network.findings),
        "series": network.series.to_dicts(),
        "settings": network.settings.to_dict(),
        "parameters": _parameters(network),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "preparation": dict(preparation),
        "provenance": dict(provenance),
        "decisions": dict(decisions or {}),
    }
    # as it will be read: the digest must not depend on types that JSON lacks, such as tuples
    description = parse_json(
        json.dumps(description, allow_nan=False), None, "description", kind=ModelError
    )
    check_model(description, _PARTS, folder / MODEL_FILE)
    description["digest"] = digest_of(description)
    text = json.dumps(description, indent=2, allow_nan=False) + "\n"
    with atomic_writes(folder / WEIGHTS_FILE, folder / MODEL_FILE) as (beside, model):
        beside.write_bytes(weights)
        model.write_text(text, encoding="utf-8")


def finish_replacing(folder: Path) -> None:
    """Completes `save_checkpoint` after a crash between its two renames.

    In this state the weights are new, and the new description still has its temporary name.
    """
    for beside in folder.glob(f".{MODEL_FILE}.*"):
        try:
            description = parse_json(
                _read(beside, DESCRIPTION_BYTES), beside, "description", kind=ModelError
            )
            digest = hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest()
        except (MrkneeError, OSError):
            continue
        if isinstance(description, dict) and description.get("weights_sha256") == digest:
            beside.replace(folder / MODEL_FILE)


def load_checkpoint(folder: str | Path) -> Checkpoint:
    """Loads a network, bit for bit as it was saved; torch's random state is not changed.

    Raises:
        ModelError: a file is missing, broken, of another format version, or doesn't match the
            other.
    """
    folder = Path(folder)
    file = folder / MODEL_FILE
    description = _read_description(file)
    weights = folder / WEIGHTS_FILE
    size = _state_bytes(description, file)
    content = _read(weights, size + _MAX_HEADER_BYTES)
    if len(content) < size:  # checked before memory is allocated for the network
        raise ModelError(
            "the weights don't fit the model's description",
            code="weights",
            file=weights,
            expected=f"at least {size} bytes for the network described in {file}",
            found=f"{len(content)} bytes",
            advice="copy or train the model again",
        )
    network = _build(description)
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != description["weights_sha256"]:
        raise ModelError(
            "the weights differ from those that were saved with the model",
            code="digest",
            file=weights,
            expected=f"sha256 {description['weights_sha256']}",
            found=f"sha256 {sha256} of {len(content)} bytes",
            advice="copy or train the model again",
        )
    try:
        network.load_state_dict(safetensors.torch.load(content))
    except Exception as fault:  # a broken file can raise any exception
        raise ModelError(
            "the weights don't fit the model's description",
            code="weights",
            file=weights,
            expected=f"the weights of the network described in {file}",
            found=str(fault),
        ) from fault
    for name, tensor in network.state_dict().items():
        if not tensor.isfinite().all():
            raise ModelError(
                "the weights contain NaN or infinite values",
                code="weights",
                file=weights,
                expected="finite weights",
                found=f"NaN or infinite values in {name}",
                advice="copy or train the model again",
            )
    return Checkpoint(
        network=network.eval(),
        preparation=description["preparation"],
        provenance=description["provenance"],
        decisions=description["decisions"],
        notes=() if description["format"] > 1 else (_NO_DIGEST.format(file),),
    )


def _read_description(file: Path) -> dict[str, Any]:
    """Reads and validates model.json."""
    description = parse_json(
        _read(file, DESCRIPTION_BYTES), file, "model's description", kind=ModelError
    )
    version = description.get("format") if isinstance(description, dict) else None
    if type(version) is not int or not 1 <= version <= FORMAT:
        raise ModelError(
            "the model's description has an unknown format",
            code="format",
            file=file,
            expected=f"format {FORMAT}",
            found=f"format {version}",
            advice="use the version of mrknee that saved the model",
        )
    if version > 1 and description.get("digest") != digest_of(description):
        raise ModelError(
            "the model's description is damaged, or was changed after training",
            code="digest",
            file=file,
            expected=f"the digest of its contents, {digest_of(description)}",
            found=str(description.get("digest", "none")),
            advice="copy or train the model again",
        )
    parts = _PARTS if version < FORMAT else {**_PARTS, "series": Row(SERIES)}
    check_model(description, parts, file)
    return dict(description)


def _state_bytes(description: Mapping[str, Any], file: Path) -> int:
    """Computes the size in bytes of the described network's weights without allocating them.

    An untrusted description may specify a network of any size.
    """
    parameters, size = _sizes(
        settings_from_model(NetworkSettings, description["settings"], file),
        tuple(description["findings"]),
        series_of(description),
    )
    if parameters != description["parameters"]:
        raise ModelError(
            "the network differs from the one that was saved",
            code="description",
            file=file,
            expected=f"{description['parameters']} parameters",
            found=f"{parameters} parameters",
            advice="use the versions of torchvision and timm that were used for training",
        )
    return size


@lru_cache(maxsize=16)  # one takes as long as reading a small model
def _sizes(
    settings: NetworkSettings, findings: tuple[str, ...], series: SeriesList
) -> tuple[int, int]:
    """Counts the parameters of a network and the bytes of its state without allocating them."""
    with torch.device("meta"):
        network = Network(settings.replace(shared_encoder=True), findings, series=series)
    encoder = network.encoders[SHARED]
    more = (
        0 if settings.shared_encoder else len(series) - 1
    )  # encoders in addition to the built one
    parameters = _parameters(network) + more * _parameters(encoder)
    return parameters, _bytes(network) + more * _bytes(encoder)


def _build(description: Mapping[str, Any]) -> Network:
    """Builds the described network with random weights."""
    with torch.random.fork_rng():
        return Network(
            NetworkSettings(**description["settings"]),
            description["findings"],
            series=series_of(description),
        )


def _bytes(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in module.state_dict().values())


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _read(file: Path, at_most: int) -> bytes:
    try:
        return read_bytes(file, "model", at_most=at_most, kind=ModelError)
    except MrkneeError as fault:
        raise ModelError(
            fault.what,
            code="description",
            file=file,
            expected=fault.expected or f"a folder with {MODEL_FILE} and {WEIGHTS_FILE}",
            found=fault.found,
        ) from None
