"""Time of a training step with stored feature maps, against steps that compute them.

    python benchmarks/stored_features.py [--slices 10 --size 128 --exams 8 --repetitions 5]

Networks are those of the recipes `reference`, `default` (the last two stages are trained) and
`frozen`; weights are random, because they don't change the time. A step is a forward and a backward
pass. Rows are measured in turns on one thread; each is the median of the processor time per exam.
Stored maps are in memory, so reading files is not included.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor

from mrknee.exams import MRNET_SERIES
from mrknee.models.feature_cache import FeatureCache
from mrknee.models.network import Network
from mrknee.training.recipe import load_recipe
from mrknee.transforms.batches import Batch
from mrknee.transforms.preparation import Preparation

FINDINGS = ("abnormal", "acl", "meniscus")


def random_batch(exams: int, slices: int, size: int) -> Batch:
    """Returns a batch of noise."""
    shape = (exams * slices, size, size)
    return Batch(
        ids=tuple(map(str, range(exams))),
        slices={n: torch.randint(0, 256, shape, dtype=torch.uint8) for n in MRNET_SERIES.names},
        lengths={n: torch.tensor([slices] * exams) for n in MRNET_SERIES.names},
        labels=torch.zeros(exams, len(FINDINGS)),
    )


def steps(batch: Batch, size: int, folder: str) -> dict[str, Callable[[], Tensor]]:
    """Returns label -> function that computes the sum of a batch's logits."""
    torch.manual_seed(0)
    preparation = Preparation(size=size, crop=size, mean=127.5, sd=127.5)
    reference, tuned, frozen = (
        Network(load_recipe(name).network, FINDINGS).train()
        for name in ("reference", "default", "frozen")
    )
    cache = FeatureCache(folder, frozen, preparation)

    def encoded(network: Network) -> Callable[[], Tensor]:
        return lambda: network(batch.prepared(preparation), batch.lengths).sum()

    return {
        "`reference`": encoded(reference),
        "`default`, last two stages trained": encoded(tuned),
        "`frozen`, maps computed": encoded(frozen),
        "`frozen`, maps stored": lambda: cache.logits(batch).sum(),
    }


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--slices", type=int, default=10, help="per series")
    parser.add_argument("--size", type=int, default=128, help="pixels")
    parser.add_argument("--exams", type=int, default=8, help="per batch")
    parser.add_argument("--repetitions", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    batch = random_batch(given.exams, given.slices, given.size)
    with tempfile.TemporaryDirectory() as folder:
        measured = steps(batch, given.size, folder)
        seconds: dict[str, list[float]] = {label: [] for label in measured}
        for repetition in range(given.repetitions + 1):
            for label, step in measured.items():
                begin = time.process_time()
                step().backward()
                if repetition:  # the first one computes the stored maps
                    seconds[label].append((time.process_time() - begin) / given.exams)
    medians = {label: statistics.median(own) for label, own in seconds.items()}
    first = next(iter(medians.values()))
    print("| step | ms per exam | lowest to highest | of `reference` |\n| --- | --- | --- | --- |")
    for label, own in seconds.items():
        low, high = 1e3 * min(own), 1e3 * max(own)
        middle = medians[label]
        print(f"| {label} | {1e3 * middle:.1f} | {low:.1f} to {high:.1f} | {middle / first:.3f} |")


if __name__ == "__main__":
    main()
