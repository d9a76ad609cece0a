"""Training with several folds or seeds: one run folder each, which form an ensemble.

```
OUT/
├── cross_validation.json        the recipe, the number of folds, and the seeds
├── data.json                    exams and labels that the folder belongs to
├── fold1/seed0/  fold2/seed0/   a run folder each; seed0/, seed1/, ... without folds
├── log.txt
├── results.csv                  one row per run: AUCs on the exams that it held out
├── predictions-out-of-fold.csv  each exam of train, predicted by the networks that held it out
├── scorecard.json               scores of these predictions
└── ensemble.json                the runs; written last
```

Without folds, all networks are trained on the same exams of `train` or, for another seed, with
another inner split, and `predictions-valid.csv` has the ensemble's predictions of `valid`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np

from mrknee.errors import OutputError, SettingsError
from mrknee.exams import Dataset, cut_labels, has_soft
from mrknee.exams.groups import GROUPS_FILE
from mrknee.files import list_folder, owned_folder, remove_incomplete, write_csv, write_text
from mrknee.library import Run, data_and_changes
from mrknee.metrics.predictions import Predictions, reorder
from mrknee.metrics.scorecard import Scorecard, score
from mrknee.outputs import check_output_folder
from mrknee.ranges import SEED
from mrknee.run_folder import CROSS_VALIDATION_FILE, RESULTS_FILE, RunFolder
from mrknee.training.recipe import Recipe, load_recipe_for

VERSION = 1
"""Version of the formats of `cross_validation.json` and `ensemble.json`."""


@dataclass(frozen=True)
class Member:
    """One run of the folder.

    Attributes:
        fold: the fold that it holds out, from 1; None without folds.
        seed: its seed.
        name: its run folder, relative to the folder of all runs.
    """

    fold: int | None
    seed: int
    name: str


def cross_validate(
    data: Dataset | str | PathLike[str],
    recipe: str | PathLike[str] = "default",
    *,
    out: str | PathLike[str],
    folds: int | None = 5,
    seeds: Sequence[int] = (0,),
    resume: bool = False,
    **settings: object,
) -> Run:
    """Trains one network per fold and seed, and writes a folder that is used as an ensemble.

    The exams of `train` are divided into folds of about equal size and prevalences; exams of one
    group (`groups.csv`) are in one fold. Each network is trained on all folds but one, and predicts
    the exams of that fold, which it has not seen: these are the out-of-fold predictions. The epoch
    is selected as the recipe says, normally on an inner part of the other folds. The split `valid`
    is not read, so it can score the ensemble afterwards.

    Args:
        data: as for `mrknee.train`.
        recipe: as for `mrknee.train`.
        out: the folder to write; must be empty or missing, unless `resume` is true.
        folds: the number of folds. None: no folds; all networks are trained on `train`, and differ
            in their seeds.
        seeds: seeds of the networks; each fold is trained once with each. The folds are the same
            for all seeds.
        resume: continue an interrupted call with the same settings, or start it if there is none.
            Finished runs are kept; `seeds` may be others than before. Several processes can share
            the work if they make the same call with `resume`.
        settings: changes to the recipe, as for `mrknee.train`.

    Returns:
        The folder: `run.scorecard` has the scores of the out-of-fold predictions (without folds,
        those of the ensemble on `valid`), `run.load_model()` is the ensemble.

    Raises:
        MrkneeError: as `mrknee.train`; or there are fewer exams or groups than folds, a seed is out
            of range or given twice, or the folder belongs to other settings or data.

    Example:
        >>> import mrknee
        >>> mrknee.show_progress(False)
        >>> small = {"preparation.size": 64, "selection.fraction": 0.34, "epochs": 1}
        >>> run = mrknee.cross_validate("knees", "small", out="runs/folds", folds=2, **small)
        >>> run.scorecard.n_exams
        12
        >>> len(run.load_model().members)
        2
    """
    root, changes = data_and_changes(data, settings)
    changes["folds"] = folds
    train_folds(root, Path(out), fspath(recipe), changes, seeds=seeds, resume=resume)
    return Run(out)


def train_folds(
    data: Path,
    out: Path,
    recipe: str,
    changes: Mapping[str, Any],
    *,
    seeds: Sequence[int] | None = None,
    resume: bool = False,
) -> None:
    """Trains all folds of a recipe with all seeds; see `cross_validate`.

    Args:
        data: the data set's folder.
        out: the folder to write.
        recipe: name of a recipe, or a YAML file.
        changes: changes to the recipe; they, or the recipe, contain `folds`.
        seeds: the seeds; None: the recipe's.
        resume: continue an interrupted call.

    Raises:
        MrkneeError: as `cross_validate`.
    """
    from mrknee.several_runs import log, share, train_or_resume  # they import torch

    chosen = load_recipe_for(data, recipe, changes)
    seeds = _seeds(chosen, changes, seeds)
    check_output_folder(out)
    with owned_folder(out, wait=resume):
        if list_folder(out) and not resume:
            raise OutputError(
                "the folder is not empty",
                code="not-empty",
                file=out,
                expected="an empty or new folder, or an interrupted training with --resume",
                advice="choose another folder with --out, or continue with --resume",
            )
        remove_incomplete(out)
        _prepare_folder(data, out, chosen, seeds)
    members = _members(chosen, seeds)
    numbered = {out / member.name: (i, member) for i, member in enumerate(members, start=1)}
    started = time.monotonic()

    def work(folder: Path) -> None:
        number, member = numbered[folder]
        taken = timedelta(seconds=int(time.monotonic() - started))
        log(out, f"run {number} of {len(members)}, after {taken}: {member.name}")
        one = chosen.replace(fold=member.fold, seed=member.seed)
        log(out, train_or_resume(data, folder, one))

    share(list(numbered), work)
    with owned_folder(out, wait=True):
        _write_results(out, members)
        card = _score_folds(data, out, chosen, members)
        if card is not None:
            card.write(RunFolder(out).scorecard)
            log(out, card.table())
        content = {"version": VERSION, "members": [member.name for member in members]}
        write_text(RunFolder(out).ensemble, json.dumps(content, indent=2) + "\n")


def _seeds(recipe: Recipe, changes: Mapping[str, Any], seeds: Sequence[int] | None) -> list[int]:
    """Returns the seeds; refuses invalid ones, and settings that contradict several runs."""
    if seeds is None:
        return [recipe.seed]
    for seed in seeds:
        SEED.check("a seed", seed)
    contradicting = [name for name in ("seed", "fold") if changes.get(name) is not None]
    if contradicting or len(set(seeds)) < len(seeds) or not seeds:
        raise SettingsError(
            "these seeds can't be used",
            code="options-together",
            expected="one or more seeds, each once, without the settings seed and fold",
            found=", ".join(
                [*map(str, seeds), *(f"{name} {changes[name]}" for name in contradicting)]
            )
            or "none",
        )
    return list(seeds)


def _members(recipe: Recipe, seeds: Sequence[int]) -> list[Member]:
    """Returns the runs in the order of training: all folds with the first seed first."""
    folds: Sequence[int | None] = [None]
    if recipe.folds is not None:
        folds = range(1, recipe.folds + 1)
    return [
        Member(fold, seed, "/".join([*([] if fold is None else [f"fold{fold}"]), f"seed{seed}"]))
        for seed in seeds
        for fold in folds
    ]


def _prepare_folder(data: Path, out: Path, recipe: Recipe, seeds: Sequence[int]) -> None:
    """Compares settings and data with those of an earlier start, and records them."""
    from mrknee.several_runs import (
        changed_settings,
        check_folder_contents,
        data_json,
        read_description,
    )
    from mrknee.training.data_record import record_data
    from mrknee.training.parts import split_exams

    file = out / CROSS_VALIDATION_FILE
    check_folder_contents(out, file, "train")
    changed = {}
    if file.exists():
        before = read_description(file, "description of the training", recipe=dict)
        changed = changed_settings(before["recipe"], recipe)
    if changed:
        raise SettingsError(
            "the folder belongs to a training with other settings",
            code="other-settings",
            file=file,
            expected=", ".join(f"{name}={old}" for name, (old, _) in changed.items()),
            found=", ".join(f"{name}={new}" for name, (_, new) in changed.items()),
            advice="use the original settings, or another folder",
        )
    first = recipe if recipe.folds is None else recipe.replace(fold=1)  # its parts are all exams
    content = {"version": VERSION, "seeds": list(seeds), "recipe": recipe.to_dict()}
    texts = {
        RunFolder(out).data: data_json(out, record_data(split_exams(data, first))),
        file: json.dumps(content, indent=2) + "\n",
    }
    for path, text in texts.items():
        write_text(path, text)


def _write_results(out: Path, members: Sequence[Member]) -> None:
    """Writes one row per run, with its AUCs on the exams that it held out."""
    cards = [Scorecard.read(RunFolder(out / member.name).scorecard) for member in members]
    findings = list(cards[0].findings)
    rows: list[list[object]] = [
        ["fold", "seed", "exams", "mean_auc", *(f"auc_{name}" for name in findings)]
    ]
    for member, card in zip(members, cards, strict=True):
        aucs = [card.mean.value, *(card.findings[name].auc.value for name in findings)]
        texts = ["" if np.isnan(value) else f"{value:.6f}" for value in aucs]
        rows.append([member.fold or "", member.seed, card.n_exams, *texts])
    write_csv(out / RESULTS_FILE, rows)


def _score_folds(
    data: Path, out: Path, recipe: Recipe, members: Sequence[Member]
) -> Scorecard | None:
    """Writes and scores the predictions of exams that the networks were not trained on.

    Returns:
        The scores of the out-of-fold predictions or, without folds, of the ensemble on `valid`;
        None if the runs have no predictions of `valid`.
    """
    from mrknee.training.evaluation import SOFT
    from mrknee.training.parts import open_training_exams, split_exams

    seeds = dict.fromkeys(member.seed for member in members)
    tables = [
        [
            RunFolder(out / member.name).predictions("valid")
            for member in members
            if member.seed == s
        ]
        for s in seeds
    ]
    if recipe.folds is None and not all(file.is_file() for files in tables for file in files):
        return None
    exams = split_exams(data, recipe).valid if recipe.folds is None else None
    if exams is None:
        exams = open_training_exams(data, recipe)
    by_seed = [_concatenated([Predictions.read(file) for file in files]) for files in tables]
    mean = Predictions.joined([reorder(one, exams.ids, one.findings) for one in by_seed])
    file = RunFolder(out).predictions("valid")
    notes = [f"mean of the networks of {len(seeds)} seeds"]
    if recipe.folds is not None:
        file = RunFolder(out).out_of_fold
        notes = [
            f"out-of-fold predictions: each exam is predicted by the networks of {len(seeds)} "
            f"{'seed' if len(seeds) == 1 else 'seeds'} that held it out, in one of "
            f"{recipe.folds} folds; each network is calibrated by itself",
        ]
        if exams.groups is not None:
            notes.append(f"exams of one group of {GROUPS_FILE} are in the same fold")
    mean.write(file)
    if has_soft(exams.labels):
        notes.append(SOFT)
    return score(
        mean.findings,
        cut_labels(exams.labels),
        Predictions.read(file).probabilities,  # score the predictions as written
        split="valid" if recipe.folds is None else "train",
        notes=notes,
    )


def _concatenated(tables: Sequence[Predictions]) -> Predictions:
    """Returns the predictions of the exams of several tables."""
    return Predictions(
        tuple(exam_id for table in tables for exam_id in table.ids),
        tables[0].findings,
        np.concatenate([table.probabilities for table in tables]),
    )
