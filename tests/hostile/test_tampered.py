"""A changed value in a model's description is refused, or the results are valid."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mrknee.errors import MrkneeError, MrkneeWarning
from mrknee.exams import PLANES, Exam
from mrknee.models.checkpoint import load_checkpoint, save_checkpoint
from mrknee.models.settings import NetworkSettings
from tests.export.test_onnx import make_run
from tests.hostile.exported import FACTS, graph
from tests.hostile.tampered import read_with, tampered, write_description, write_metadata

pytestmark = pytest.mark.slow

EVERY = 5
"""Only every `EVERY`-th changed description is tested here; benchmarks/tamper.py tests all."""

RARELY = 27
"""The same if a network is built for each description that is not refused."""

PROVENANCE: dict[str, Any] = {
    "run": "a" * 64,
    "data": "toy",
    "trained_on": 12,
    "series": {"axial": 12, "coronal": 12, "sagittal": 12},
    "selected_on": {"part": "inner", "exams": 4},
    "seed": 3,
    "recipe": {"network": {"encoder": "test_resnet"}, "epochs": 2, "weights": "none"},
    "environment": {"python": "3.11", "packages": {"torch": "2.14"}},
    "epoch": 1,
    "metrics": {"val/loss": 0.5, "val/auc_acl": None},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder whose description has all optional parts."""
    folder = tmp_path_factory.mktemp("tampered") / "run"
    make_run(folder, NetworkSettings(encoder="test_resnet", shared_encoder=True))
    made = load_checkpoint(folder / "best")
    save_checkpoint(folder / "best", made.network, made.preparation, PROVENANCE, made.decisions)
    return folder


def an_exam() -> Exam:
    """Returns an exam of small stacks of noise."""
    rng = np.random.default_rng(0)
    return Exam("0001", {p: rng.integers(0, 256, (2, 40, 40)).astype(np.uint8) for p in PLANES})


def try_all(
    whole: dict[str, Any], write: Callable[[dict[str, Any]], None], path: Path, every: int
) -> tuple[int, int]:
    """Returns how many of the changed descriptions are refused, and how many are read."""
    exam, refused, read = an_exam(), 0, 0
    for number, (name, said) in enumerate(tampered(whole)):
        if number % every:
            continue
        write(said)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", MrkneeWarning)  # of series left out
                read_with(path, exam)
            read += 1
        except MrkneeError:
            refused += 1
        except BaseException as error:
            raise AssertionError(name) from error
    return refused, read


@pytest.mark.usefixtures("unchecked")
def test_a_changed_run_folder_is_refused_or_gives_valid_results(run: Path) -> None:
    """With a corrected digest: valid predictions, explanation and description, or a MrkneeError."""
    file = run / "best" / "model.json"
    before = file.read_text()
    refused, read = try_all(
        json.loads(before), lambda said: write_description(run / "best", said), run, RARELY
    )
    file.write_text(before)
    assert refused > 2 * read > 0


@pytest.mark.usefixtures("unchecked")
def test_changed_metadata_are_refused_or_give_valid_results(tmp_path: Path) -> None:
    """Changed metadata with a corrected checksum, on a small graph of constants."""
    file = tmp_path / "model.onnx"
    whole = {**FACTS, "provenance": PROVENANCE}
    body = graph(heat=(1, 2, 1, 1))
    write_metadata(file, body, whole)
    read_with(file, an_exam())
    refused, read = try_all(whole, lambda said: write_metadata(file, body, said), file, EVERY)
    assert refused > 2 * read > 0


@pytest.mark.usefixtures("unchecked")
def test_a_changed_description_without_a_new_digest_is_refused(run: Path) -> None:
    """Without a corrected digest every change is refused, even one to a valid value."""
    file = run / "best" / "model.json"
    before = file.read_text()
    changed = [said for _, said in tampered(json.loads(before)) if said != json.loads(before)]
    for said in changed[::EVERY]:
        file.write_text(json.dumps(said))
        with pytest.raises(MrkneeError):
            load_checkpoint(file.parent)
    file.write_text(before)
