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
    ├── results.csv  costs.csv    one row per run; one per compared arm
    ├── calibration.csv           one row per compared arm and finding
    ├── comparison.json  comparison.txt  arms.svg  differences.svg
    └── predictions/              only if the run folders don't contain these predictions
```
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from mrknee.errors import MrkneeError, SettingsError
from mrknee.experiment_plan import SEED_OFFSET, Plan, arm_recipes, read_plan
from mrknee.experiment_results import TIMES, Epoch, Predicted, Results, Trained, read_times
from mrknee.files import list_folder, owned_folder, remove_incomplete, write_text
from mrknee.metrics.arms import ArmComparison
from mrknee.outputs import check_output_folder
from mrknee.run_folder import RunFolder
from mrknee.several_runs import (
    changed_settings,
    check_folder_contents,
    data_json,
    log,
    read_description,
    share,
    train_or_resume,
)
from mrknee.training.data_record import record_data
from mrknee.training.parts import split_exams
from mrknee.training.recipe import Recipe

PLAN_FILE = "plan.json"
"""Name of the file that identifies the experiment of an output folder."""

VERSION = 1
"""Version of the file format."""


def run_experiment(
    plan: str | Path,
    data: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    split: str = "valid",
    test_data: str | Path | Sequence[str | Path] | None = None,
    epoch: Epoch = "best",
) -> ArmComparison:
    """Trains all arms of a plan with all seeds, predicts a split, and compares the arms.

    The function can be interrupted at any time and called again with the same arguments: finished
    runs are kept, and an interrupted one continues from its last saved state. Arms and seeds may be
    added to the plan; runs of arms and seeds that are no longer in it are kept and not used. If a
    training fails, the others are still done; the error is raised at the end, after the comparison
    of the complete arms. Several processes can call it with the same arguments at the same time:
    each trains runs that no other one is training, and each compares when all runs are finished.

    Args:
        plan: the plan, a YAML file.
        data: the data set's folder; or several, the folds of a cross-validation, of which each run
            uses one.
        out: the output folder: new, empty, or of an earlier call.
        split: the split that is predicted and scored.
        test_data: data sets to predict in place of `data`, as many.
        epoch: the epoch whose weights predict: `best` (selected by each run) or `last`.

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
    recipes = arm_recipes(chosen, plan_file, folds[0])
    predicted = Predicted(tuple(scored), split, test_data is None, epoch)
    predicted.refuse_unlabelled(chosen, recipes)
    with owned_folder(out, wait=True):
        remove_incomplete(out)
        remove_incomplete(out / predicted.name, below=True)
        _prepare_folder(out, chosen, recipes, folds)
    runs = list(_runs(out, chosen, folds))
    results = Results(out, chosen, recipes, runs, predicted)
    fault = _train_all(out, runs, folds, results)
    try:
        with owned_folder(out, wait=True):
            found = results.compare(fault)
    except MrkneeError as error:
        raise (fault or error) from None
    if fault is not None:
        raise fault
    return found


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


# --- what the folder belongs to


def _prepare_folder(
    out: Path, plan: Plan, recipes: Mapping[str, Recipe], folds: Sequence[Path]
) -> None:
    """Compares the plan and the data with those of earlier calls, and writes `plan.json`."""
    file = out / PLAN_FILE
    check_folder_contents(out, file, "experiment")
    before: dict[str, Any] = {}
    if file.exists():
        required = {"arms": dict, "folds": list, "seeds": list}
        before = read_description(file, "description of the experiment", **required)
    known: dict[str, Any] = before.get("arms", {})
    offsets: dict[str, int] = before.get("seed_offsets", {})
    for arm, recipe in recipes.items():
        changed = changed_settings(known[arm], recipe) if arm in known else {}
        if arm in offsets and offsets[arm] != plan.seed_offsets[arm]:
            changed[SEED_OFFSET] = offsets[arm], plan.seed_offsets[arm]
        if changed:
            raise SettingsError(
                f"the arm {arm} has been trained with other settings",
                code="other-settings",
                file=file,
                expected=", ".join(f"{name}={old}" for name, (old, _) in changed.items()),
                found=", ".join(f"{name}={new}" for name, (_, new) in changed.items()),
                advice="give the changed arm a new name, or use another folder",
            )
    names = [] if len(folds) == 1 else [folder.resolve().name for folder in folds]
    if before.get("folds", names) != names:
        raise SettingsError(
            "the experiment was started with other folds",
            code="other-settings",
            file=file,
            expected=", ".join(before["folds"]) or "one data set",
            found=", ".join(names) or "one data set",
            advice="use another folder",
        )
    texts = {}
    # all labels, series and exams, because later plans may have arms for others
    recipe = recipes[plan.first_arm].replace(
        findings=None, series=None, max_exams=None, allow_missing_plane=True
    )
    for folder in folds:
        record = record_data(split_exams(folder, recipe))
        place = out if len(folds) == 1 else out / "folds" / folder.resolve().name
        texts[RunFolder(place).data] = data_json(place, record)
    described = {arm: recipe.to_dict() for arm, recipe in recipes.items()}
    content = {
        "version": VERSION,
        "folds": names,
        "seeds": list(dict.fromkeys([*before.get("seeds", []), *plan.seeds])),
        "arms": {**known, **described},
        "seed_offsets": {**offsets, **plan.seed_offsets},
    }
    texts[file] = json.dumps(content, indent=2) + "\n"
    for path, text in texts.items():
        write_text(path, text)


# --- training


def _runs(out: Path, plan: Plan, folds: Sequence[Path]) -> Iterator[Trained]:
    """Yields the runs in the order of training: all arms with the first seed first."""
    for seed in plan.seeds:
        for number, folder in enumerate(folds):
            for arm in plan.arms:
                fold = [] if len(folds) == 1 else [folder.resolve().name]
                name = "/".join([arm, *fold, f"seed{seed}"])
                yield Trained(arm, seed, number, out / "runs" / name, name)


def _train_all(
    out: Path,
    runs: Sequence[Trained],
    folds: Sequence[Path],
    results: Results,
) -> MrkneeError | None:
    """Trains what is not finished; returns the first error, after all other runs."""
    first: MrkneeError | None = None
    started = time.monotonic()
    missing = {run.folder: run for run in runs if not run.finished}
    log(
        out,
        f"{datetime.now():%Y-%m-%d %H:%M:%S}, {len(runs)} runs, of which "
        f"{len(runs) - len(missing)} are finished",
    )

    def work(folder: Path) -> None:
        nonlocal first
        run = missing[folder]
        if run.finished:  # by another process
            return
        taken = timedelta(seconds=int(time.monotonic() - started))
        finished = sum(run.finished for run in runs)
        log(out, f"{finished} of {len(runs)} runs are finished, after {taken}: {run.name}")
        recipe = results.recipes[run.arm].replace(seed=results.plan.seed(run.arm, run.seed))
        try:
            with _timed(out, run):
                result = train_or_resume(folds[run.fold], run.folder, recipe)
        except MrkneeError as error:
            log(out, f"{run.name} failed: {error}")
            first = first or error.about(run.name)
            return
        log(out, result)
        if results.predicted.with_runs:
            try:
                with owned_folder(out, wait=True):
                    results.write_table()
            except MrkneeError as error:  # the other runs are still trained
                log(out, f"results.csv can't be written yet: {error}")

    share(list(missing), work)
    return first


@contextmanager
def _timed(out: Path, run: Trained) -> Iterator[None]:
    """Adds the seconds of a training to `times.json`.

    Of a start that was killed, the time until its last saved state counts, since what came after is
    trained again. A run whose folder has been deleted starts at 0.
    """
    with _times(out) as times:
        if not list_folder(run.folder):
            times[run.name] = {"seconds": 0.0}
        one = times.setdefault(run.name, {"seconds": 0.0})
        state = RunFolder(run.folder).state
        if "started" in one and state.exists():
            one["seconds"] += max(0.0, state.stat().st_mtime - one["started"])
        one["started"] = time.time()
    began = time.monotonic()
    yield
    with _times(out) as times:
        one = times[run.name]
        one["seconds"] += time.monotonic() - began
        del one["started"]


@contextmanager
def _times(out: Path) -> Iterator[dict[str, dict[str, float]]]:
    """Yields the content of `times.json`, which may be changed, and writes it."""
    with owned_folder(out, wait=True):
        times = read_times(out)
        yield times
        write_text(out / TIMES, json.dumps(times, indent=2) + "\n")
