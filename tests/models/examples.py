"""Batches and changed descriptions for the tests in this folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mrknee.exams import PLANES
from mrknee.models.description import digest_of
from mrknee.models.encoders import Encoder, build_encoders

FINDINGS = ("abnormal", "acl", "meniscus")

ByPlane = dict[str, Tensor]


def build_encoder(name: str, weights: str = "none") -> Encoder:
    """One encoder."""
    [encoder] = build_encoders(name, weights, 1)
    return encoder


def random_batch(
    counts: Sequence[tuple[int, int, int]], seed: int = 0, rows: int = 64, cols: int = 64
) -> tuple[ByPlane, ByPlane]:
    """Returns noise: one exam per triple of slice counts (axial, coronal, sagittal)."""
    generator = torch.Generator().manual_seed(seed)
    slices: ByPlane = {}
    lengths: ByPlane = {}
    for place, plane in enumerate(PLANES):
        here = [exam[place] for exam in counts]
        slices[plane] = torch.randn(sum(here), 1, rows, cols, generator=generator)
        lengths[plane] = torch.tensor(here)
    return slices, lengths


def one_exam(
    slices: Mapping[str, Tensor], lengths: Mapping[str, Tensor], index: int
) -> tuple[ByPlane, ByPlane]:
    """Extracts one exam of a batch as a batch."""
    own: ByPlane = {p: torch.split(slices[p], lengths[p].tolist())[index] for p in PLANES}
    return own, {p: lengths[p][index : index + 1] for p in PLANES}


def describe(
    folder: Path, change: Callable[[dict[str, Any]], object], *, seal: bool = True
) -> None:
    """Changes a checkpoint's description, and by default updates its digest."""
    file = folder / "model.json"
    description = json.loads(file.read_text())
    change(description)
    if seal:
        description["digest"] = digest_of(description)
    file.write_text(json.dumps(description))


def read_alone_and_together(model: nn.Module) -> Tensor:
    """Asserts that each of three exams has the same logits alone and in a batch; returns them."""
    slices, lengths = random_batch([(2, 0, 3), (9, 3, 1), (0, 0, 4)])
    with torch.no_grad():
        together: Tensor = model(slices, lengths)
        for index in range(3):
            alone = model(*one_exam(slices, lengths, index))
            torch.testing.assert_close(together[index], alone[0], rtol=0, atol=1e-5)
    return together
