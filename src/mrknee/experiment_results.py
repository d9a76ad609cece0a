"""Results of an experiment: predictions, `results.csv`, `comparison.json`, a table and a plot."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mrknee.errors import DataError, MrkneeError, PlatformError
from mrknee.exams import Dataset, open_dataset
from mrknee.experiment_plan import Plan
from mrknee.files import atomic_write, write_text
from mrknee.inference.model import load_model
from mrknee.metrics.arms import ArmComparison, compare_arms, read_fold
from mrknee.metrics.discrimination import auc
from mrknee.metrics.predictions import Predictions
from mrknee.progress import report
from mrknee.run_folder import MODEL_FILE, RunFolder
from mrknee.several_runs import data_json, is_current, log
from mrknee.training.data_record import record_data
from mrknee.training.parts import Parts
from mrknee.training.recipe import Recipe
from mrknee.untrusted import read_json

TIMES = "times.json"
"""Name of the file with the seconds of training per run."""


@dataclass(frozen=True)
class Trained:
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
        """Whether the run folder is complete."""
        return RunFolder(self.folder).scorecard.is_file()


@dataclass(frozen=True)
class Predicted:
    """What is predicted and scored.

    Attributes:
        roots: a data set per fold.
        split: the split.
        own: whether these are the data sets that the networks are trained on.
    """

    roots: tuple[Path, ...]
    split: str
    own: bool

    @property
    def with_runs(self) -> bool:
        """Whether training writes these predictions into the run folders."""
        return self.own and self.split == "valid"

    @property
    def name(self) -> str:
        """Name for tables, and of the folder of results."""
        return self.split if self.own else f"{self.roots[0].resolve().name}-{self.split}"

    def opened(self, fold: int, recipe: Recipe) -> Dataset:
        """Opens the exams of a fold as a recipe does."""
        return open_dataset(
            self.roots[fold],
            self.split,
            allow_missing_plane=recipe.allow_missing_plane,
            axes=recipe.axes,
            soft_labels=recipe.soft_labels,
        )

    def refuse_unlabelled(self, recipe: Recipe) -> None:
        """Raises DataError if the exams or their labels are missing."""
        for fold, root in enumerate(self.roots):
            if self.opened(fold, recipe).findings is None:
                raise DataError(
                    f"the split {self.split} has no labels",
                    code="no-labels",
                    file=root,
                    expected=f"label files {self.split}-<finding>.csv",
                )


@dataclass(frozen=True)
class Results:
    """The results of an experiment's finished runs.

    Attributes:
        out: the experiment's folder.
        plan: the plan.
        recipes: the recipe of each arm.
        runs: all runs of the plan.
        predicted: what is predicted and scored.
    """

    out: Path
    plan: Plan
    recipes: Mapping[str, Recipe]
    runs: Sequence[Trained]
    predicted: Predicted

    @property
    def folder(self) -> Path:
        """The folder that results are written into."""
        return self.out / self.predicted.name

    def compare(self, fault: MrkneeError | None) -> ArmComparison:
        """Predicts with all finished runs, compares the complete arms, and writes everything.

        Args:
            fault: the first error of a training. It is raised if the baseline is not complete.

        Raises:
            MrkneeError: `fault`; or the exams are others than in an earlier call, or can't be read.
        """
        if not self.predicted.with_runs:
            self._refuse_other_exams()
        tables = self.write_table()
        complete = [
            arm for arm in self.plan.arms if all(r.finished for r in self.runs if r.arm == arm)
        ]
        if fault is not None and self.plan.baseline not in complete:
            raise fault
        complete.sort(key=lambda arm: arm != self.plan.baseline)
        folds = [
            read_fold(
                root,
                self.predicted.split,
                {
                    arm: [tables[run] for run in self.runs if (run.arm, run.fold) == (arm, fold)]
                    for arm in complete
                },
            )
            for fold, root in enumerate(self.predicted.roots)
        ]
        found = compare_arms(
            folds,
            baseline=self.plan.baseline,
            seeds=self.plan.seeds,
            split=self.predicted.name,
            notes=self._notes(complete),
        )
        self._write(found)
        return found

    def write_table(self) -> dict[Trained, Predictions]:
        """Writes `results.csv`, one row per finished run; returns the runs' predictions."""
        tables = {run: self._predictions(run) for run in self.runs if run.finished}
        write_text(self.folder / "results.csv", self._csv(tables))
        return tables

    def _refuse_other_exams(self) -> None:
        """Refuses exams that differ from those that were predicted in an earlier call."""
        for fold in range(len(self.predicted.roots)):
            exams = self.predicted.opened(fold, self.recipes[self.plan.baseline])
            record = record_data(Parts(exams, range(len(exams)), exams, (), None))
            place = self.folder / "data" / str(fold)
            text = data_json(place, record)
            write_text(RunFolder(place).data, text)

    def _predictions(self, run: Trained) -> Predictions:
        """Returns a run's predictions: its own of `valid`, or those kept in `predictions`."""
        folder = RunFolder(run.folder)
        if self.predicted.with_runs:
            return Predictions.read(folder.predictions("valid"))
        file = self.folder / "predictions" / f"{run.name}.csv"
        if not is_current(file, [folder.scorecard]):
            report(f"predicting with {run.name}")
            exams = self.predicted.opened(run.fold, self.recipes[run.arm])
            load_model(run.folder).predict(exams).write(file)
        return Predictions.read(file)

    def _csv(self, tables: Mapping[Trained, Predictions]) -> str:
        """Returns `results.csv`; a field is empty where a number is not known."""
        findings = list(dict.fromkeys(name for table in tables.values() for name in table.findings))
        times = read_times(self.out)
        fold = ["fold"] if len(self.predicted.roots) > 1 else []
        columns = ["arm", "seed", *fold, "mean_auc", *(f"auc_{name}" for name in findings)]
        columns += ["epochs", "best_epoch", "train_exams", "seconds", "exams_per_second"]
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        for run, table in tables.items():
            labels = table.labels(self.predicted.roots[run.fold], self.predicted.split)
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

    def _notes(self, complete: Sequence[str]) -> list[str]:
        notes = []
        if missing := [arm for arm in self.plan.arms if arm not in complete]:
            notes.append(f"left out, because a training failed: {', '.join(missing)}")
        selected = [arm for arm in complete if self.recipes[arm].selection.part == "valid"]
        if self.predicted.with_runs and selected:
            notes.append(
                f"optimistic, because these exams selected the epoch: {', '.join(selected)}"
            )
        if (folds := len(self.predicted.roots)) > 1:
            notes.append(f"AUCs are means over {folds} folds, whose networks share training exams")
        return notes

    def _write(self, found: ArmComparison) -> None:
        wrote = ["results.csv"]
        for name, text in (
            ("comparison.json", found.to_json()),
            ("comparison.txt", found.table()),
        ):
            write_text(self.folder / name, text)
            wrote.append(name)
        try:
            write_svg(found, self.folder / "arms.svg")
            wrote.append("arms.svg")
        except PlatformError as error:
            report(f"note: no plot, because {error.what}: {error.advice}")
        log(self.out, found.table())
        report(f"wrote {', '.join(wrote)} to {self.folder}")


def read_times(out: Path) -> dict[str, dict[str, float]]:
    """Reads `times.json`: name of a run -> `seconds` trained, and `started` unless it has ended."""
    file = out / TIMES
    times: dict[str, dict[str, float]] = {}
    return read_json(file, "record of times") if file.exists() else times


def write_svg(found: ArmComparison, file: Path) -> None:
    """Writes the plot of a comparison as SVG; the same comparison writes the same bytes.

    Raises:
        PlatformError: matplotlib is not installed.
    """
    figure = found.plot()
    from matplotlib import pyplot, rc_context

    with atomic_write(file) as beside, rc_context({"svg.hashsalt": "mrknee"}):
        figure.savefig(beside, format="svg", metadata={"Date": None})
    pyplot.close(figure)


def _effort(run: Trained, time_taken: Mapping[str, float]) -> dict[str, Any]:
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
