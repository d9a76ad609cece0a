"""Experiments: arms (changes to a recipe) x seeds, trained, predicted, and compared.

docs/how-to/experiments.md explains plans, outputs and the statistics.

```
OUT/
├── plan.json                     the recipe of each arm, and the seeds
├── data.json                     exams and labels that the folder belongs to
├── runs/ARM/seedN/               a run folder each (runs/ARM/FOLD/seedN with several folds)
├── times.json                    seconds of training per run
├── log.txt
└── valid/                        what was predicted: a split, or FOLDER-SPLIT of --test-data
    ├── results.csv               one row per run
    ├── comparison.json  comparison.txt  arms.svg
    └── predictions/              only if the run folders don't contain these predictions
```
"""

from __future__ import annotations

import csv
import io
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from mrknee.errors import DataError, MrkneeError, PlatformError, SettingsError
from mrknee.exams import Dataset, open_dataset
from mrknee.experiment_plan import Plan, arm_recipe, arm_recipes, read_plan
from mrknee.files import clear_half_written, owned_folder, whole_file
from mrknee.inference.model import load_model
from mrknee.metrics.arms import ArmComparison, compare_arms, read_fold
from mrknee.metrics.discrimination import auc
from mrknee.metrics.predictions import Predictions
from mrknee.outputs import check_output_folder
from mrknee.progress import report
from mrknee.run_folder import MODEL_FILE, RunFolder
from mrknee.several_runs import (
    is_current,
    refuse_other_contents,
    same_data,
    say,
    train_or_resume,
)
from mrknee.training.data_record import record_data
from mrknee.training.parts import Parts, divide
from mrknee.training.recipe import Recipe, flat_settings
from mrknee.training.recovery import MAY_CHANGE
from mrknee.untrusted import read_json

CLAIM = "plan.json"
"""Name of the file that identifies the experiment of an output folder."""

VERSION = 1
"""Version of the file format."""


@dataclass(frozen=True)
class _Trained:
    """One training of an experiment.

    Attributes:
        arm: name of the arm.
        seed: the seed.
        fold: number of the fold, from 0.
        folder: the run folder.
        name: the run folder relative to `runs`.
    """

    arm: str
    seed: int
    fold: int
    folder: Path
    name: str

    @property
    def finished(self) -> bool:
        return RunFolder(self.folder).scorecard.is_file()


def run_experiment(
    plan: str | Path,
    data: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    split: str = "valid",
    test_data: str | Path | Sequence[str | Path] | None = None,
) -> ArmComparison:
    """Trains all arms of a plan with all seeds, predicts a split, and compares the arms.

    The function can be interrupted at any time and called again with the same arguments: finished
    runs are kept, and an interrupted one continues from its last saved state. Arms and seeds may be
    added to the plan; runs of arms and seeds that are no longer in it are kept and not used. If a
    training fails, the others are still done; the error is raised at the end, after the comparison
    of the complete arms.

    Args:
        plan: the plan, a YAML file.
        data: the data set's folder; or several, the folds of a cross-validation, of which each run
            uses one.
        out: the output folder: new, empty, or of an earlier call.
        split: the split that is predicted and scored.
        test_data: data sets to predict in place of `data`, as many.

    Returns:
        The comparison, which is also written and printed.

    Raises:
        MrkneeError: the plan, a recipe or the data can't be used; an arm has other settings than
            its finished runs; the folder contains something else; or a training failed.
    """
    plan_file, out = Path(plan), Path(out)
    folds = _folders(data)
    scored = folds if test_data is None else _folders(test_data)
    if len(scored) != len(folds):
        raise SettingsError(
            "the numbers of data sets differ",
            code="options-together",
            expected=f"{len(folds)}, one to predict for each to train on",
            found=f"{len(scored)}",
        )
    check_output_folder(out)
    chosen = read_plan(plan_file)
    recipes = arm_recipes(chosen, plan_file)
    for folder in scored:
        _refuse_unlabelled(_opened(folder, split, recipes[chosen.baseline]), split)
    with owned_folder(out):
        clear_half_written(out)
        _claim(out, chosen, recipes, folds)
        runs = list(_runs(out, chosen, folds))
        fault = _train_all(out, plan_file, chosen, runs, folds)
        own = test_data is None
        target = out / (split if own else f"{scored[0].name}-{split}")
        return _evaluate(out, target, chosen, recipes, runs, (scored, split, own), fault)


def _folders(data: str | Path | Sequence[str | Path]) -> list[Path]:
    folders = [Path(data)] if isinstance(data, str | Path) else [Path(one) for one in data]
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        raise SettingsError(
            "the folds have the same name",
            code="path",
            expected="folders with different names, which become names of folders",
            found=", ".join(map(str, folders)),
        )
    return folders


def _opened(root: Path, split: str, recipe: Recipe) -> Dataset:
    return open_dataset(
        root,
        split,
        allow_missing_plane=recipe.allow_missing_plane,
        axes=recipe.axes,
        soft_labels=recipe.soft_labels,
    )


def _refuse_unlabelled(exams: Dataset, split: str) -> None:
    """Refuses data without labels to score, before any training."""
    if exams.findings is None:
        raise DataError(
            f"the split {split} has no labels",
            code="no-labels",
            file=exams.root,
            expected=f"label files {split}-<finding>.csv",
        )


# --- what the folder belongs to


def _claim(out: Path, plan: Plan, recipes: Mapping[str, Recipe], folds: Sequence[Path]) -> None:
    """Compares the plan and the data with those of earlier calls, and writes `plan.json`."""
    file = out / CLAIM
    refuse_other_contents(out, file, "experiment")
    before = read_json(file, "description of the experiment") if file.exists() else {}
    known: dict[str, Any] = before.get("arms", {})
    for arm, recipe in recipes.items():
        changed = _changed(known[arm], recipe) if arm in known else {}
        if changed:
            raise SettingsError(
                f"the arm {arm} has been trained with other settings",
                code="other-settings",
                file=file,
                expected=", ".join(f"{name}={old}" for name, (old, _) in changed.items()),
                found=", ".join(f"{name}={new}" for name, (_, new) in changed.items()),
                advice="give the changed arm a new name, or name another folder",
            )
    names = [] if len(folds) == 1 else [folder.resolve().name for folder in folds]
    if before.get("folds", names) != names:
        raise SettingsError(
            "the experiment was begun with other folds",
            code="other-settings",
            file=file,
            expected=", ".join(before["folds"]) or "one data set",
            found=", ".join(names) or "one data set",
            advice="name another folder",
        )
    texts = {}
    for folder in folds:
        record = record_data(divide(folder, recipes[plan.baseline]))
        place = out if len(folds) == 1 else out / "folds" / folder.resolve().name
        texts[RunFolder(place).data] = same_data(place, record)
    described = {arm: recipe.to_dict() for arm, recipe in recipes.items()}
    content = {
        "version": VERSION,
        "folds": names,
        "seeds": list(dict.fromkeys([*before.get("seeds", []), *plan.seeds])),
        "arms": {**known, **described},
    }
    texts[file] = json.dumps(content, indent=2) + "\n"
    for path, text in texts.items():
        with whole_file(path) as beside:
            beside.write_text(text, encoding="utf-8")


def _changed(before: Mapping[str, Any], recipe: Recipe) -> dict[str, tuple[Any, Any]]:
    """Returns the settings of an arm that differ from before and change its result.

    Settings that an earlier version of mrknee didn't have count as the recipe's defaults.
    """
    defaults, now = (dict(flat_settings(one.to_dict())) for one in (Recipe(), recipe))
    old = {**defaults, **dict(flat_settings(before))}
    passed_over = {*MAY_CHANGE, "seed", "log_train", "log_valid"} - {"epochs"}
    return {
        name: (old.get(name), now.get(name))
        for name in {**old, **now}
        if name not in passed_over and old.get(name) != now.get(name)
    }


# --- training


def _runs(out: Path, plan: Plan, folds: Sequence[Path]) -> Iterator[_Trained]:
    """Yields the runs in the order of training: all arms with the first seed first."""
    for seed in plan.seeds:
        for number, folder in enumerate(folds):
            for arm in plan.arms:
                fold = [] if len(folds) == 1 else [folder.resolve().name]
                name = "/".join([arm, *fold, f"seed{seed}"])
                yield _Trained(arm, seed, number, out / "runs" / name, name)


def _train_all(
    out: Path, file: Path, plan: Plan, runs: Sequence[_Trained], folds: Sequence[Path]
) -> MrkneeError | None:
    """Trains what is not finished; returns the first error, after all other runs."""
    first: MrkneeError | None = None
    started = time.monotonic()
    missing = [run for run in runs if not run.finished]
    say(
        out,
        f"{datetime.now():%Y-%m-%d %H:%M:%S}, {len(runs)} runs, of which "
        f"{len(runs) - len(missing)} are finished",
    )
    for number, run in enumerate(missing, start=1):
        taken = timedelta(seconds=int(time.monotonic() - started))
        say(out, f"run {number} of {len(missing)}, after {taken}: {run.name}")
        recipe, changes = arm_recipe(plan, file, run.arm)
        try:
            with _timed(out, run):
                result = train_or_resume(
                    folds[run.fold], run.folder, recipe, {**changes, "seed": run.seed}
                )
            say(out, result)
        except MrkneeError as error:
            say(out, f"{run.name} failed: {error}")
            first = first or error.about(run.name)
    return first


@contextmanager
def _timed(out: Path, run: _Trained) -> Iterator[None]:
    """Adds the seconds of a training to `times.json`.

    Of a start that was killed, the time until its last saved state counts, since what came after is
    trained again.
    """
    file = out / "times.json"
    times = read_json(file, "record of times") if file.exists() else {}
    one = times.setdefault(run.name, {"seconds": 0.0})
    state = RunFolder(run.folder).state
    if "started" in one and state.exists():
        one["seconds"] += max(0.0, state.stat().st_mtime - one["started"])
    one["started"] = time.time()
    _write_json(file, times)
    began = time.monotonic()
    yield
    one["seconds"] += time.monotonic() - began
    del one["started"]
    _write_json(file, times)


# --- results


def _evaluate(
    out: Path,
    target: Path,
    plan: Plan,
    recipes: Mapping[str, Recipe],
    runs: Sequence[_Trained],
    scored: tuple[Sequence[Path], str, bool],
    fault: MrkneeError | None,
) -> ArmComparison:
    """Predicts with all finished runs, and writes results, comparison and plot into `target`.

    Args:
        out: the experiment's folder.
        target: the folder to write into.
        plan: the plan.
        recipes: the arms' recipes.
        runs: all runs of the plan.
        scored: folders and split that are predicted; whether they are the folders trained on.
        fault: the error of a training, raised after the complete arms have been compared.
    """
    roots, split, own = scored
    if not own:
        for number, root in enumerate(roots):
            exams = _opened(root, split, recipes[plan.baseline])
            record = record_data(Parts(exams, range(len(exams)), exams, (), None))
            place = target if len(roots) == 1 else target / "folds" / str(number)
            text = same_data(place, record)
            with whole_file(RunFolder(place).data) as beside:
                beside.write_text(text, encoding="utf-8")
    tables = {}
    for run in runs:
        if run.finished:
            within = None if own and split == "valid" else target / "predictions"
            tables[run] = _predictions(run, recipes[run.arm], roots[run.fold], split, within)
    results = target / "results.csv"
    with whole_file(results) as beside:
        beside.write_text(_results(out, tables, roots, split), encoding="utf-8")
    complete = [arm for arm in plan.arms if all(one.finished for one in runs if one.arm == arm)]
    if fault is not None and plan.baseline not in complete:
        raise fault
    folds = []
    for number, root in enumerate(roots):
        of_fold = {
            arm: [tables[run] for run in runs if (run.arm, run.fold) == (arm, number)]
            for arm in sorted(complete, key=lambda arm: arm != plan.baseline)
        }
        folds.append(read_fold(root, split, of_fold))
    found = compare_arms(
        folds,
        baseline=plan.baseline,
        seeds=plan.seeds,
        split=target.name,
        notes=_notes(plan, recipes, complete, own and split == "valid", len(roots)),
    )
    _write_comparison(out, target, found)
    if fault is not None:
        raise fault
    return found


def _predictions(
    run: _Trained, recipe: Recipe, root: Path, split: str, within: Path | None
) -> Predictions:
    """Returns a run's predictions: its own of `valid`, or predicted now and kept in `within`."""
    folder = RunFolder(run.folder)
    if within is None:
        return Predictions.read(folder.predictions("valid"))
    file = within / f"{run.name}.csv"
    if not is_current(file, [folder.scorecard]):
        report(f"predicting with {run.name}")
        load_model(run.folder).predict(_opened(root, split, recipe)).write(file)
    return Predictions.read(file)


def _results(
    out: Path, tables: Mapping[_Trained, Predictions], roots: Sequence[Path], split: str
) -> str:
    """Returns `results.csv`: one row per finished run; empty where a number is not known."""
    findings = list(dict.fromkeys(name for table in tables.values() for name in table.findings))
    times_file = out / "times.json"
    times = read_json(times_file, "record of times") if times_file.exists() else {}
    fold = ["fold"] if len(roots) > 1 else []
    columns = ["arm", "seed", *fold, "mean_auc", *(f"auc_{name}" for name in findings)]
    columns += ["epochs", "best_epoch", "train_exams", "seconds", "exams_per_second"]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for run, table in tables.items():
        labels = table.labels(roots[run.fold], split)
        aucs = {
            name: auc(labels[:, i], table.probabilities[:, i]).value
            for i, name in enumerate(table.findings)
        }
        known = [value for value in aucs.values() if not math.isnan(value)]
        row: dict[str, Any] = {"arm": run.arm, "seed": run.seed, "fold": run.fold}
        row |= {f"auc_{name}": _digits(value) for name, value in aucs.items()}
        row["mean_auc"] = _digits(float(np.mean(known)) if known else math.nan)
        writer.writerow(row | _effort(run, times.get(run.name, {})))
    return text.getvalue()


def _effort(run: _Trained, time_taken: Mapping[str, Any]) -> dict[str, Any]:
    """Returns epochs, exams and seconds of a run."""
    folder = RunFolder(run.folder)
    described = read_json(folder.best / MODEL_FILE, "description of the model")["provenance"]
    epochs, exams = len(folder.read_metrics()), described["trained_on"]
    row = {"epochs": epochs, "best_epoch": described["epoch"], "train_exams": exams}
    if "seconds" in time_taken and "started" not in time_taken:
        seconds = time_taken["seconds"]
        row |= {
            "seconds": f"{seconds:.1f}",
            "exams_per_second": f"{epochs * exams / max(seconds, 1e-9):.2f}",
        }
    return row


def _digits(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6f}"


def _notes(
    plan: Plan, recipes: Mapping[str, Recipe], complete: Sequence[str], on_valid: bool, folds: int
) -> list[str]:
    notes = []
    if missing := [arm for arm in plan.arms if arm not in complete]:
        notes.append(f"left out, because a training failed: {', '.join(missing)}")
    selected = [arm for arm in complete if recipes[arm].selection.part == "valid"]
    if on_valid and selected:
        notes.append(f"optimistic, because these exams selected the epoch: {', '.join(selected)}")
    if folds > 1:
        notes.append(f"AUCs are means over {folds} folds, whose networks share training exams")
    return notes


def _write_comparison(out: Path, target: Path, found: ArmComparison) -> None:
    for name, text in (("comparison.json", found.to_json()), ("comparison.txt", found.table())):
        with whole_file(target / name) as beside:
            beside.write_text(text, encoding="utf-8")
    wrote = ["results.csv", "comparison.json", "comparison.txt"]
    try:
        write_svg(found, target / "arms.svg")
        wrote.append("arms.svg")
    except PlatformError as error:
        report(f"note: no plot, because {error.what}: {error.advice}")
    say(out, found.table())
    report(f"wrote {', '.join(wrote)} to {target}")


def write_svg(found: ArmComparison, file: Path) -> None:
    """Writes the plot of a comparison as SVG; the same comparison writes the same bytes.

    Raises:
        PlatformError: matplotlib is not installed.
    """
    figure = found.plot()
    from matplotlib import pyplot, rc_context

    with whole_file(file) as beside, rc_context({"svg.hashsalt": "mrknee", "svg.fonttype": "none"}):
        figure.savefig(beside, format="svg", metadata={"Date": None})
    pyplot.close(figure)


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    with whole_file(file) as beside:
        beside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
