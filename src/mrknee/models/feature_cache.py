"""A cache on disk of the feature maps of frozen encoders.

If no layer of an encoder is trained and slices are not augmented, its feature maps are the same in
each epoch. They are computed once and stored, so that an epoch trains only what comes after them.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from mrknee.errors import SettingsError
from mrknee.files import atomic_write, remove_incomplete
from mrknee.models.network import Network, slices_per_call
from mrknee.transforms.batches import Batch
from mrknee.transforms.preparation import Preparation

SECONDS_TO_WRITE = 3600
"""Age of temporary files that no living process can be writing any more."""

KEPT_BYTES = 1_000_000_000
"""Memory for feature maps that have been read, all caches of a folder together."""


class _Kept:
    """Feature maps in memory.

    Attributes:
        maps: name of a file, and whether its maps are standardised -> the maps.
        bytes_left: memory for further ones.
    """

    def __init__(self) -> None:
        self.maps: dict[tuple[str, bool], list[Tensor]] = {}
        self.bytes_left = KEPT_BYTES

    def add(self, key: tuple[str, bool], maps: list[Tensor]) -> None:
        """Keeps the maps of a file if there is memory left."""
        size = sum(one.nbytes for one in maps)
        if size <= self.bytes_left:
            self.bytes_left -= size
            self.maps[key] = maps


_KEPT: WeakValueDictionary[Path, _Kept] = WeakValueDictionary()
"""Folder -> what its caches keep, as long as there is one. A training has several: for the exams
that it trains on, for averaged weights, for the predictions at its end."""


class FeatureCache:
    """Feature maps of the slices of exams, computed or read from files.

    A file holds the maps of one series of one exam as float16, (slices, channels, rows, cols). Its
    name is the SHA-256 of the framed slices, of the preparation, and of the encoder's architecture
    and weights, so runs with equal encoders share a folder, and changed data are computed anew.
    float16 halves the size, and rounds values by up to 0.05 %. Files can be deleted at any time; a
    damaged one is computed again.

    Args:
        folder: folder of the files; created if it does not exist.
        network: a network whose encoders are frozen, except for their necks.
        preparation: the preparation of its slices.

    Raises:
        SettingsError: an encoder isn't completely frozen.
    """

    def __init__(self, folder: str | Path, network: Network, preparation: Preparation) -> None:
        self.folder, self.network, self.preparation = Path(folder), network, preparation
        self._prefixes: dict[str, bytes] = {}
        if self.folder.resolve() not in _KEPT:
            remove_incomplete(self.folder, below=True, older_than=SECONDS_TO_WRITE)
        self._kept = _KEPT.setdefault(self.folder.resolve(), _Kept())
        refuse_trained_encoders(network)

    def maps(self, batch: Batch) -> dict[str, list[Float[Tensor, "_ _ _ _"]]]:
        """Returns the standardised feature maps of a batch, for `Network.read_standardised`.

        Args:
            batch: exams without augmentation.

        Returns:
            Series -> maps of the slices of all exams, from the finest to the coarsest.
        """
        found = {}
        for name, slices in batch.slices.items():
            if len(slices):
                exams = slices.split(batch.lengths[name].tolist())
                stored = [self._exam(name, exam) for exam in exams if len(exam)]
                found[name] = [
                    torch.cat(each).to(slices.device).float() for each in zip(*stored, strict=True)
                ]
        return found

    def logits(self, batch: Batch) -> Float[Tensor, "exams findings"]:
        """Returns the network's logits of a batch of exams without augmentation."""
        lengths = {name: own.tolist() for name, own in batch.lengths.items()}
        return self.network.read_standardised(self.maps(batch), lengths).logits

    def _exam(self, series: str, slices: UInt8[Tensor, "slices crop crop"]) -> list[Tensor]:
        """Returns the encoder's maps of one exam's series, standardised, as float16."""
        content = slices.cpu().numpy()
        digest = hashlib.sha256(self._prefix(series))
        digest.update(repr(content.shape).encode())
        digest.update(content.tobytes())
        name = digest.hexdigest()
        encoder = self.network.encoder(series)
        key = name, encoder.neck is not None  # a neck's maps are standardised, others are not
        if key in self._kept.maps:
            return self._kept.maps[key]
        stored = self._stored_or_computed(name, series, slices)
        maps = [one.half() for one in encoder.standardise([one.float() for one in stored])]
        self._kept.add(key, maps)
        return maps

    def _stored_or_computed(
        self, name: str, series: str, slices: UInt8[Tensor, "slices crop crop"]
    ) -> list[Tensor]:
        file = self.folder / name[:2] / f"{name}.npz"
        if file.is_file():
            try:
                with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
                    return [torch.from_numpy(arrays[key]) for key in arrays.files]
            except (OSError, ValueError, EOFError, zipfile.BadZipFile):  # damaged
                pass
        maps = self._compute(series, slices)
        with atomic_write(file, durable=False) as beside, beside.open("wb") as written:
            np.savez(written, *(one.numpy() for one in maps))
        return maps

    def _prefix(self, series: str) -> bytes:
        """Returns the digest of preparation and encoder; weights may be restored before the first.

        A resumed run has random weights until its state is read.
        """
        if series not in self._prefixes:
            settings, encoder = self.network.settings, self.network.encoder(series)
            digest = hashlib.sha256()
            for part in (settings.encoder, settings.feature_maps, self.preparation.to_dict()):
                digest.update(json.dumps(part).encode())
            for key, tensor in sorted(encoder.body.state_dict().items()):
                digest.update(key.encode())
                digest.update(tensor.cpu().contiguous().numpy().tobytes())
            self._prefixes[series] = digest.digest()
        return self._prefixes[series]

    @torch.no_grad()
    def _compute(self, series: str, slices: UInt8[Tensor, "slices crop crop"]) -> list[Tensor]:
        encoder = self.network.encoder(series)
        device = slices.device.type
        prepared = self.preparation.normalise(slices, torch.tensor([len(slices)]))
        with torch.autocast(device, enabled=False):
            few = slices_per_call(encoder, device, len(prepared))
            parts = [encoder.maps(part) for part in prepared.split(few)]
        return [torch.cat(one).half().cpu() for one in zip(*parts, strict=True)]


def refuse_trained_encoders(network: Network) -> None:
    """Refuses a network of which a stage of an encoder is trained.

    Raises:
        SettingsError: an encoder isn't completely frozen.
    """
    for name in network.series.names:
        encoder = network.encoder(name)
        if not encoder.frozen:
            raise SettingsError(
                "feature maps can be stored only if no stage of the encoder is trained",
                code="setting",
                expected=f"network.frozen_stages {encoder.stages}",
                found=str(network.settings.frozen_stages),
                advice="freeze all stages, or train without feature_cache",
            )
