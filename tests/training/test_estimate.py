from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mrknee.cli import main
from mrknee.exams import PLANES, write_labels, write_stack
from mrknee.models.network import Network
from mrknee.models.settings import NetworkSettings
from mrknee.training.estimate import Estimate, estimate
from mrknee.training.parts import split_exams
from mrknee.training.recipe import Recipe, load_recipe, recipe_names
from mrknee.transforms.batches import EpochBatches
from mrknee.transforms.settings import AugmentationSettings
from tests.processes import run
from tests.training.test_run import QUICK

pytestmark = pytest.mark.slow

LARGEST = 61
"""Number of slices per plane in MRNet's largest exam."""

LIMIT = 6e9
"""Maximum bytes of training by a shipped recipe on a processor."""


def train_and_print_peak(*words: str) -> None:
    """Runs `mrknee ...` and prints the largest memory of this process, in bytes."""
    status = main(words)
    peak = next(n for n in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in n)
    print("peak", int(peak.split()[1]) * 1024)
    sys.exit(status)


def write_largest(root: Path, order: Sequence[int]) -> Path:
    """Creates noise exams: one of MRNet's largest size, 3 x 61 slices of 256 pixels, three small.

    Two are in `train`, two in `valid`; labels alternate.

    Args:
        root: folder of the data set.
        order: order in which the two training exams are read; the last is the large one.
    """
    rng = np.random.default_rng(0)
    for split in ("train", "valid"):
        for number in range(2):
            slices = LARGEST if split == "train" and number == order[-1] else 2
            for plane in PLANES:
                stack = rng.integers(0, 256, (slices, 256, 256), dtype=np.uint8)
                write_stack(root / split, plane, f"{split}{number}", stack)
        write_labels(root, split, "acl", {f"{split}{n}": n % 2.0 for n in range(2)})
    return root


@pytest.mark.timeout(1500)  # some 50 s of processor time for the largest, on a machine of its own
@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipe_trains_largest_exam_in_6_gb(name: str, tmp_path: Path) -> None:
    """Two steps run in a separate process; the estimate is within 30 % of its peak.

    The first step, with a small exam, creates the optimizer's averages, so that everything uses
    memory when the largest exam comes. Steps have one exam, to save time:
    `test_few_slices_at_once_keep_nothing_of_the_others` tests that memory does not grow with the
    exams per step, and benchmarks/memory.py measures the recipe's own batches.
    """
    recipe = load_recipe(name)
    order = [position for (position,) in EpochBatches([0, 1], 1, recipe.seed).all_batches(0)]
    data = write_largest(tmp_path / "data", order)
    weights = "lite0" if "lite0" in recipe.network.encoder else "none"
    arguments = ["train", str(data), "--out", str(tmp_path / "run"), "--recipe", name]
    arguments += ["--weights", weights, "--epochs", "1", "--loggers", "[]", "--batch_exams", "1"]
    arguments += ["--selection.part", "valid"]  # its exams are small: training determines the peak
    finished = run(train_and_print_peak, *arguments)
    assert finished.returncode == 0, finished.stderr
    peak = int(finished.stdout.split()[-1])
    assert peak < LIMIT
    estimated = re.search(r"estimate: at most ([0-9.]+) GB of memory", finished.stdout)
    assert estimated is not None
    assert 0.7 < float(estimated[1]) * 1e9 / peak < 1.3


def test_estimate_has_no_side_effects(toy: Path) -> None:
    """Weights, statistics, gradients and random numbers of the run don't change."""
    settings = NetworkSettings(encoder="test_resnet", batchnorm="trained")
    recipe = QUICK.replace(network=settings)
    torch.manual_seed(3)
    network = Network(settings, ("abnormal", "acl", "meniscus"))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    drawn = torch.get_rng_state()
    estimate(network, split_exams(toy, recipe), recipe, "32-true", workers=0, processes=1)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def largest_batch(data: Path, recipe: Recipe, processes: int = 1) -> int:
    """Returns the slices of the largest batch in the estimate."""
    network = Network(recipe.network, ("abnormal", "acl", "meniscus"))
    parts = split_exams(data, recipe)
    found = estimate(network, parts, recipe, "32-true", workers=0, processes=processes)
    return found.largest


def test_largest_batch_is_computed_from_headers(toy: Path) -> None:
    """It has the exams with most slices, within the limit of slices, divided among processes."""
    parts = split_exams(toy, QUICK)
    counts = sorted(sum(map(len, parts.train[i].stacks.values())) for i in parts.train_positions)
    inner = sorted(sum(map(len, parts.train[i].stacks.values())) for i in parts.selection_positions)
    assert largest_batch(toy, QUICK) == max(sum(counts[-3:]), sum(inner[-3:]))
    largest = max(counts[-1], inner[-1])
    assert largest_batch(toy, QUICK.replace(batch_slices=1)) == largest
    assert largest_batch(toy, QUICK, processes=3) == largest


def test_estimate_contains_kept_feature_maps_and_exams(
    toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With stored feature maps: those of all exams that are read per epoch, and their slices."""
    # the process's own memory changes between two estimates
    monkeypatch.setattr("mrknee.training.estimate.resident_memory", lambda: 0)
    network = QUICK.network.replace(frozen_stages=4)
    still = AugmentationSettings(rotation=0, translation=0, mirror=0)
    large = QUICK.preparation.replace(size=224, crop=224)
    recipe = QUICK.replace(network=network, augmentation=still, preparation=large)

    def memory(recipe: Recipe) -> int:
        built = Network(network, ("abnormal", "acl", "meniscus"))
        parts = split_exams(toy, recipe)
        return estimate(built, parts, recipe, "32-true", workers=0, processes=1).memory

    without, kept = memory(recipe), memory(recipe.replace(feature_cache="maps"))
    parts = split_exams(toy, recipe)
    used = [parts.train[i] for i in (*parts.train_positions, *parts.selection_positions)]
    slices = sum(len(stack) for exam in used for stack in exam.stacks.values())
    side = recipe.preparation.crop
    one = Network(network, ("acl",)).encoder("axial").maps(torch.zeros(1, 1, side, side))
    bytes_per_slice = sum(2 * maps.numel() for maps in one) + side**2
    assert slices * bytes_per_slice > 5e6
    assert kept - without == pytest.approx(slices * bytes_per_slice)


def test_insufficient_memory_is_warned_about() -> None:
    """The warning names settings to change; it is absent if memory suffices or is unknown."""
    too_large = Estimate(
        memory=9_000_000_000,
        free=4_000_000_000,
        seconds=7200,
        exams=(960, 170),
        largest=732,
        device="cpu",
        advice="--batch_exams 1",
    )
    assert "at most 9.0 GB of memory (4.0 GB available)" in too_large.text()
    assert "2.0 h per epoch of 960 training exams" in too_large.text()
    assert "WARNING" in too_large.text()
    assert "--batch_exams 1" in too_large.text()
    for free in (10_000_000_000, None):
        assert "WARNING" not in replace(too_large, free=free).text()
