"""One network for twelve findings, or a network for each, on synthetic RSNA studies.

    python benchmarks/rsna_one_or_twelve.py OUT [--kept experiments/results/rsna-one-or-twelve]

OUT is a folder of `rsna_phantom.py`; its data are written if they are missing. The plan, with its
hypothesis and rule, is in experiments/LOG.md. Arms, each with every seed:

- one: a network for all twelve findings;
- alone: a network for each of six findings, the three rarest and the three most frequent ones;
- sham: a network for each of the three rare findings and eleven permuted others; the predictions of
  frequent findings, and so half of its mean, are those of `alone`.

Tuning is equal: the joint network and each single one are trained with both learning rates and
another seed, and use the rate with the higher AUC on the inner exams of that training; sham
networks use the rate of `alone`. 64 trainings of two to four minutes. Every step is kept in OUT,
and the same command continues after an interruption; with `--kept FOLDER`, predictions and chosen
rates are kept there too, and what is there is not trained again.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from permuted_labels import PREFIX, copy_with_permuted_labels
from rsna_phantom import Arm, add_data_options, make_data, predicted, run_folder, train

from mrknee.exams import RSNA_2026_FINDINGS, Findings
from mrknee.files import write_text
from mrknee.metrics.arms import ArmComparison, compare_arms
from mrknee.metrics.folds import read_fold
from mrknee.metrics.predictions import Predictions, reorder

RARE = ("mcl", "lateral_oa", "bakers")
FREQUENT = ("effusion", "synovitis", "medial_meniscus")
"""By prevalence of the painted labels: the rarest and the most frequent findings."""

DATA = "data-permuted"
"""Folder of the data set with permuted labels beside the true ones. All networks are trained on it,
because the inner exams depend on all label files."""

RATES = ("1e-2", "3e-3")
TUNING_SEED = 9
MARGIN = 0.01
"""A difference in AUC that would not change which system someone uses; set before the results."""


def arm(name: str, findings: Sequence[str], rate: str) -> Arm:
    """Returns the arm of a network."""
    options = ("--findings", ",".join(findings), "--optimizer.learning_rate", rate)
    return Arm(f"{name} {rate}", DATA, options)


def chosen_rate(
    out: Path, name: str, findings: Sequence[str], extra: Sequence[str], kept: Path | None
) -> str:
    """Returns the learning rate with the higher inner AUC, and trains with both if necessary."""
    store = None if kept is None else kept / "rates.json"
    known: dict[str, dict[str, float]] = {}
    if store is not None and store.exists():
        known = json.loads(store.read_text())
    if name not in known:
        known[name] = {}
        for rate in RATES:
            one = arm(name, findings, rate)
            train(out, one, TUNING_SEED, extra)
            epochs = run_folder(out, one, TUNING_SEED).read_metrics()
            known[name][rate] = max(epoch["val/auc_mean"] for epoch in epochs)
        if store is not None:
            write_text(store, json.dumps(known, indent=1) + "\n")
    return max(RATES, key=known[name].__getitem__)


def of_findings(table: Predictions, findings: Sequence[str]) -> Predictions:
    """Returns the predictions of some findings."""
    kept = [name for name in table.findings if name in findings]
    return reorder(table, table.ids, Findings(kept))


def compare(
    out: Path, seeds: Sequence[int], extra: Sequence[str], kept: Path | None
) -> ArmComparison:
    """Trains what is missing, and compares the arms."""
    every, chosen = tuple(RSNA_2026_FINDINGS), (*RARE, *FREQUENT)
    networks = {"one": every, **{f"alone {name}": (name,) for name in chosen}}
    rates = {name: chosen_rate(out, name, own, extra, kept) for name, own in networks.items()}
    arms = {name: arm(name, own, rates[name]) for name, own in networks.items()}
    for name in RARE:
        others = [PREFIX + other for other in every if other != name]
        arms[f"sham {name}"] = arm(f"sham {name}", (name, *others), rates[f"alone {name}"])
    tables: dict[str, list[Predictions]] = {}
    for seed in seeds:
        found = {}
        for name, one in arms.items():
            train(out, one, seed, extra, kept)
            found[name] = predicted(out, one, seed, kept)
        alone = [found[f"alone {name}"] for name in chosen]
        sham = [of_findings(found[f"sham {name}"], (name,)) for name in RARE]
        for name, table in {
            "alone": Predictions.joined(alone),
            "one": of_findings(found["one"], chosen),
            "sham": Predictions.joined([*sham, *alone[len(RARE) :]]),
        }.items():
            tables.setdefault(name, []).append(table)
    fold = read_fold(out / "data", "test", tables)
    return compare_arms(
        [fold], baseline="alone", seeds=seeds, split="test", primary="one", margin=MARGIN
    )


def main() -> None:
    """Reads the command line and runs what is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--kept", type=Path, help="predictions and rates of earlier runs")
    add_data_options(parser)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    given, extra = parser.parse_known_args()
    given.out.mkdir(parents=True, exist_ok=True)
    make_data(given.out, given)
    if not (given.out / DATA).exists():
        part = given.out / f"{DATA}.part"
        shutil.rmtree(part, ignore_errors=True)
        copy_with_permuted_labels(given.out / "data", part)
        (part / "findings.csv").unlink()  # it doesn't declare the permuted ones
        part.rename(given.out / DATA)
    found = compare(given.out, given.seeds, extra, given.kept)
    folder = given.kept or given.out
    write_text(folder / "comparison.txt", found.table())
    write_text(folder / "comparison.json", found.to_json())
    print(found.table())


if __name__ == "__main__":
    main()
