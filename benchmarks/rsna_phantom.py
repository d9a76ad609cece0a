"""`rsna2026-small` on synthetic studies in the form of RSNA's data set, from DICOM to AUCs.

    python benchmarks/rsna_phantom.py OUT [--kept FOLDER] [--page docs/results/rsna-phantom.md]

writes studies (`mrknee phantom --layout rsna2026`), imports them (`mrknee rsna`, with both label
tables), trains, predicts the test studies and scores them against the labels that were painted,
which training doesn't see. Five variants, each with every seed:

- small: the recipe;
- three series: MRNet's series only (sagittal and axial with fat suppression, coronal T1);
- hard labels: labels of training below 0.5 are 0, others 1;
- post's pooling: features averaged over each slice, the maximum over slices;
- random selection: the inner exams that select the epoch are drawn without regard to groups.

Two ensembles of the recipe beside them: of its seeds, and of five folds (`--folds 5`).

Every step is kept in OUT, and the same command continues after an interruption. About 30 minutes of
processor time for the data, and two to seven per training. With `--kept FOLDER`, predictions are
kept there too, and what is there is not trained again (experiments/results/rsna-phantom).
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmread

from mrknee import load_model
from mrknee.exams import (
    RSNA_2026_FINDINGS,
    Dataset,
    open_dataset,
    read_labels,
    write_labels,
)
from mrknee.explanations.localisation import HitRate, hit_rate
from mrknee.files import write_text
from mrknee.inference.ensemble import Ensemble
from mrknee.inference.torch_model import TorchModel
from mrknee.metrics.arms import ArmComparison, compare_arms
from mrknee.metrics.folds import read_fold
from mrknee.metrics.hierarchical import Estimate
from mrknee.metrics.predictions import Predictions
from mrknee.run_folder import RunFolder

RECIPE = "rsna2026-small"
BASELINE = "small"
TARGET_MACRO, TARGET_LOWEST = 0.85, 0.6
"""Set before the first result: macro AUC, and the lower end of each finding's interval."""

Record = dict[str, Any]
"""A study's entry in `import.json`."""


@dataclass(frozen=True)
class Arm:
    """A variant.

    Attributes:
        name: its name in tables.
        data: the folder of the data set it is trained on, in OUT.
        options: options of `mrknee train`.
    """

    name: str
    data: str
    options: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """Name of the folder of its runs."""
        return self.name.replace(" ", "-").replace("'", "")


ARMS = (
    Arm(BASELINE, "data"),
    Arm("three series", "data", ("--series", "sagittal_fs,coronal_t1,axial_fs")),
    Arm("hard labels", "data-hard"),
    Arm("post's pooling", "data", ("--network.slice_pooling", "max")),
    Arm("random selection", "data-ungrouped"),
)

FOLDS = Arm("five folds", "data", ("--folds", "5"))
"""Five networks, each trained on four of five folds, with the first seed."""


def run(*arguments: object) -> None:
    """Runs a command of mrknee; ends this program if it fails."""
    words = [str(word) for word in arguments]
    print("mrknee " + " ".join(words), flush=True)
    result = subprocess.run([sys.executable, "-m", "mrknee", *words], check=False)  # noqa: S603
    if result.returncode:
        sys.exit(f"mrknee {words[0]} ended with status {result.returncode}")


# --- the data


def make_data(out: Path, given: argparse.Namespace) -> None:
    """Writes the studies, imports them, and adds the variants of the labels."""
    source = out / "source"
    if not (source / "test.csv").exists():
        run(
            *("phantom", source, "--layout", "rsna2026", "--train", given.train),
            *("--test", given.test, "--size", given.size),
            *("--slice-factor", given.slice_factor, "--seed", given.data_seed),
        )
    if not (out / "data").exists():
        tables = sorted((source / "label_tables").glob("*.csv"))
        run("rsna", source, out / "imported", "--size", given.size, "--labels", *tables)
        shutil.copytree(out / "imported" / "data", out / "data.part", copy_function=os.link)
        write_true_labels(source / "truth" / "labels.csv", out / "data.part")
        (out / "data.part").rename(out / "data")
    for name in ("data-hard", "data-ungrouped"):
        if (out / name).exists():
            continue
        part = out / f"{name}.part"
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(out / "data", part, copy_function=os.link)
        if name == "data-hard":
            write_hard_labels(part)
        else:
            (part / "groups.csv").unlink()
        part.rename(out / name)


def write_true_labels(table: Path, data: Path) -> None:
    """Writes the painted labels of the test studies beside the imported ones."""
    with table.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    imported = set(open_dataset(data, "test", allow_missing_plane=True).ids)
    for finding, title in RSNA_2026_FINDINGS.items():
        labels = {
            row["StudyInstanceUID"]: float(row[title])
            for row in rows
            if row["StudyInstanceUID"] in imported
        }
        write_labels(data, "test", finding, labels)


def write_hard_labels(data: Path) -> None:
    """Replaces the soft labels of `train` by 0 (below 0.5) and 1."""
    for file in sorted(data.glob("train-*.csv")):
        soft = read_labels(file, soft=True)
        hard = {exam: x if math.isnan(x) else float(x >= 0.5) for exam, x in soft.items()}
        file.unlink()  # a hard link, whose other names must keep the soft labels
        write_labels(data, "train", file.stem.removeprefix("train-"), hard)


# --- the networks


def run_folder(out: Path, arm: Arm, seed: int) -> RunFolder:
    """Returns the run folder of one training."""
    return RunFolder(out / "runs" / arm.folder / f"seed{seed}")


def train(out: Path, arm: Arm, seed: int, extra: Sequence[str], kept: Path | None = None) -> None:
    """Trains one network, or continues an interrupted training."""
    folder = run_folder(out, arm, seed)
    if folder.scorecard.exists() or (kept is not None and kept_file(kept, arm, seed).exists()):
        return
    options = ["--seed", seed, "--feature_cache", out / "features", *arm.options, *extra]
    resume = ["--resume"] if folder.path.exists() else []
    run("train", out / arm.data, "--recipe", RECIPE, "--out", folder.path, *options, *resume)


def kept_file(kept: Path, arm: Arm, seed: int) -> Path:
    """Returns the file of kept predictions of one training."""
    return kept / arm.folder / f"seed{seed}.csv"


def predicted(out: Path, arm: Arm, seed: int, kept: Path | None = None) -> Predictions:
    """Returns the probabilities of the test studies."""
    if kept is not None:
        file = kept_file(kept, arm, seed)
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            predicted(out, arm, seed).write(file)
        return Predictions.read(file)
    folder = run_folder(out, arm, seed)
    file = folder.path / "predictions-test.csv"
    if not file.exists():
        model = load_model(folder.path)
        for member in model.members if isinstance(model, Ensemble) else (model,):
            assert isinstance(member, TorchModel)
            member.use_feature_cache(str(out / "features"))
        model.predict(test_studies(out)).write(file)
    return Predictions.read(file)


def test_studies(out: Path) -> Dataset:
    """Opens the test studies."""
    return open_dataset(out / "data", "test", allow_missing_plane=True)


def compare(out: Path, seeds: Sequence[int], kept: Path | None) -> ArmComparison:
    """Compares the variants."""
    tables = {arm.name: [predicted(out, arm, seed, kept) for seed in seeds] for arm in ARMS}
    fold = read_fold(out / "data", "test", tables)
    return compare_arms([fold], baseline=BASELINE, seeds=seeds, split="test")


def compare_ensembles(out: Path, seeds: Sequence[int], kept: Path | None) -> ArmComparison:
    """Compares the ensemble of the recipe's seeds with that of five folds."""
    tables = [predicted(out, ARMS[0], seed, kept) for seed in seeds]
    mean = replace(tables[0], probabilities=np.mean([one.probabilities for one in tables], axis=0))
    own = {f"{len(seeds)} seeds": [mean], FOLDS.name: [predicted(out, FOLDS, seeds[0], kept)]}
    fold = read_fold(out / "data", "test", own)
    return compare_arms([fold], baseline=f"{len(seeds)} seeds", seeds=seeds[:1], split="test")


# --- the slice with the highest score


def hottest_slices(out: Path, seed: int) -> dict[str, HitRate]:
    """Returns finding -> how often the slice that raises the logit most shows the lesion.

    Of studies that have the finding and a mask that isn't empty in the series that were read. By
    chance: the share of slices, of all series that were read, that show the lesion.
    """
    model = TorchModel(run_folder(out, ARMS[0], seed).best)
    model.use_feature_cache(str(out / "features"))
    exams = test_studies(out)
    record = json.loads((out / "imported" / "import.json").read_text())["exams"]
    hits: dict[str, list[bool]] = {finding: [] for finding in model.findings}
    chances: dict[str, list[float]] = {finding: [] for finding in model.findings}
    for exam in exams:
        positive = [f for f in model.findings if exam.labels.get(f) == 1]
        if not positive:
            continue
        why = model.explain(exam)
        shown = slices_with_lesion(out / "source", exam.id, record[exam.id], why.shapes)
        for finding in positive:
            slices = shown[finding]
            every = np.concatenate([slices[name] for name in why.native])
            if every.any():
                series, index = why.most_raising(finding)
                hits[finding].append(bool(slices[series][index]))
                chances[finding].append(float(every.mean()))
    without = [finding for finding, found in hits.items() if not found]
    if without:
        sys.exit(f"no test study has a mask of {', '.join(without)}")
    return {finding: hit_rate(hits[finding], chances[finding]) for finding in model.findings}


def slices_with_lesion(
    source: Path, study: str, record: Record, shapes: Mapping[str, tuple[int, int, int]]
) -> dict[str, dict[str, np.ndarray]]:
    """Returns finding -> series -> whether each slice of the imported stack shows the lesion.

    The record of the import doesn't contain the identifiers of series, so series are recognised by
    their times, as the record states them.
    """
    uids = dict(series_uids(source / "test_series" / study, record))
    masks = np.load(source / "truth" / "masks" / f"{study}.npz")
    found: dict[str, dict[str, np.ndarray]] = {}
    for finding in RSNA_2026_FINDINGS:
        found[finding] = {}
        for name, shape in shapes.items():
            key = f"{uids[name]}/{finding}"
            shown = masks[key].any(axis=(1, 2)) if key in masks else np.zeros(shape[0], bool)
            if len(shown) != shape[0]:
                sys.exit(f"{study}, {name}: {len(shown)} slices with masks, {shape[0]} imported")
            mirrored = record["mirrored"] and name.startswith("sagittal")
            found[finding][name] = shown[::-1] if mirrored else shown
    return found


def series_uids(folder: Path, record: Record) -> Iterator[tuple[str, str]]:
    """Yields the imported series of a study with their identifiers."""
    times: dict[tuple[float, float, int], list[str]] = {}
    for series in folder.iterdir():
        files = sorted(series.iterdir())
        header = dcmread(files[0], stop_before_pixels=True)
        key = (float(header.EchoTime), float(header.RepetitionTime), len(files))
        times.setdefault(key, []).append(series.name)
    candidates = {one["name"]: one for one in record["candidates"]}
    for name, plane in record["planes"].items():
        one = candidates[plane["series"]]
        uids = times[one["te_ms"], one["tr_ms"], one["slices"]]
        if len(uids) != 1:
            sys.exit(f"{folder.name}: {len(uids)} series have the times of {name}")
        yield name, uids[0]


# --- the page


def page(
    found: ArmComparison,
    ensembles: ArmComparison,
    slices: dict[str, HitRate],
    given: argparse.Namespace,
    part: Dataset,
) -> str:
    """Returns the page of results, in Markdown."""
    macro = found.aucs[BASELINE]["mean"]
    met = "met" if macro.value >= TARGET_MACRO else "not met"
    seeds = ", ".join(map(str, given.seeds))
    lines = [
        "# Twelve findings on synthetic studies",
        "",
        f"`python benchmarks/rsna_phantom.py OUT --kept experiments/results/rsna-phantom "
        f"--page docs/results/rsna-phantom.md`: "
        f"{given.train} training and {len(part)} test studies of `mrknee phantom --layout "
        f"rsna2026` (seed {given.data_seed}, {given.size} pixels, {given.slice_factor:g} of the "
        "slices), imported by `mrknee rsna` with both label tables, recipe `rsna2026-small`, seeds "
        f"{seeds}. AUCs against the painted labels of the test studies, which training doesn't "
        "see. Intervals (95 %) are over studies and seeds. These are synthetic knees: the numbers "
        "compare variants, and say nothing about patients.",
        "",
        f"Targets, set before the first result: macro AUC {TARGET_MACRO}: {met} "
        f"({_interval(macro)}); the lower end of each finding's interval above {TARGET_LOWEST}: "
        f"{_lowest(found)}.",
        "",
        "| finding | positive | AUC | slice with the highest score shows the lesion | by chance |",
        "| --- | --- | --- | --- | --- |",
    ]
    for finding, title in RSNA_2026_FINDINGS.items():
        rate = slices[finding]
        share = rate.observed
        lines.append(
            f"| {title} | {found.counts[finding][0]} "
            f"| {_interval(found.aucs[BASELINE][finding])} | {share.value:.2f} "
            f"({share.low:.2f} to {share.high:.2f}) of {share.n} "
            f"| {rate.chance:.2f} |"
        )
    lines += [
        f"| mean | | {_interval(macro)} | | |",
        "",
        f"The slice is that of seed {given.seeds[0]}, over all series that were read; studies that "
        "have the finding and show it in a slice are counted.",
        "",
        "## Ensembles",
        "",
        f"The mean of the probabilities of the {len(given.seeds)} networks above "
        f"(`--seeds {seeds.replace(' ', '')}`), and that of five networks, each trained on four of "
        f"five grouped folds (`--folds 5`, seed {given.seeds[0]}). Intervals are over studies.",
        "",
        "| finding | " + " | ".join(ensembles.aucs) + " |",
        "| --- " * (1 + len(ensembles.aucs)) + "|",
        *(
            f"| {title} | "
            + " | ".join(_interval(one[finding]) for one in ensembles.aucs.values())
            + " |"
            for finding, title in {**RSNA_2026_FINDINGS, "mean": "mean"}.items()
        ),
        "",
        "## Four variants",
        "",
        (__doc__ or "")
        .partition("Five variants, each with every seed:")[2]
        .partition("Two ensembles")[0]
        .strip(),
        "",
        "```text",
        found.table().rstrip(),
        "```",
        "",
    ]
    return "\n".join(lines)


def _interval(one: Estimate) -> str:
    return f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})"


def _lowest(found: ArmComparison) -> str:
    missed = [
        RSNA_2026_FINDINGS[finding]
        for finding, one in found.aucs[BASELINE].items()
        if finding != "mean" and not one.low > TARGET_LOWEST
    ]
    return f"not met by {', '.join(missed)}" if missed else "met"


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `make_data`."""
    parser.add_argument("--train", type=int, default=600)
    parser.add_argument("--test", type=int, default=200)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--slice-factor", type=float, default=0.34)
    parser.add_argument("--data-seed", type=int, default=41)


def main() -> None:
    """Reads the command line and runs what is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--page", type=Path, help="a page of docs/results to write")
    parser.add_argument("--kept", type=Path, help="predictions of earlier runs")
    add_data_options(parser)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given, extra = parser.parse_known_args()
    given.out.mkdir(parents=True, exist_ok=True)
    make_data(given.out, given)
    for seed in given.seeds:
        for arm in ARMS:
            train(given.out, arm, seed, extra, given.kept)
    train(given.out, FOLDS, given.seeds[0], extra, given.kept)
    train(given.out, ARMS[0], given.seeds[0], extra)  # its maps are needed, whatever was kept
    found = compare(given.out, given.seeds, given.kept)
    ensembles = compare_ensembles(given.out, given.seeds, given.kept)
    slices = hottest_slices(given.out, given.seeds[0])
    write_text(given.out / "comparison.txt", found.table())
    write_text(given.out / "comparison.json", found.to_json())
    text = page(found, ensembles, slices, given, test_studies(given.out))
    write_text(given.page or given.out / "page.md", text)
    print(text)


if __name__ == "__main__":
    main()
