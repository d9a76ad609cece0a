"""Results of an experiment: predictions, tables of runs, costs and calibration, a comparison."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float

from mrknee.errors import DataError, MrkneeError, PlatformError
from mrknee.exams import Dataset, label_files
from mrknee.experiment_costs import COLUMNS, arm_cost, epoch_nearly_final
from mrknee.experiment_plan import Plan
from mrknee.files import atomic_write, write_csv, write_text
from mrknee.inference.torch_model import TorchModel
from mrknee.metrics.arm_calibration import COLUMNS as CALIBRATION_COLUMNS
from mrknee.metrics.arm_calibration import calibration_rows
from mrknee.metrics.arms import ArmComparison, compare_arms
from mrknee.metrics.discrimination import auc
from mrknee.metrics.folds import read_fold, refuse_unlabelled_within
from mrknee.metrics.predictions import Predictions
from mrknee.progress import report
from mrknee.run_folder import MODEL_FILE, RunFolder
from mrknee.several_runs import data_json, is_current, log
from mrknee.tables import table_lines
from mrknee.training.data_record import record_data
from mrknee.training.parts import Parts
from mrknee.training.recipe import Recipe
from mrknee.untrusted import read_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Epoch = Literal["best", "last"]
"""Whose weights predict: the epoch that each run selected, or the last one."""

TIMES = "times.json"
"""Name of the file with the seconds of training per run."""


@dataclass(frozen=True)
class Trained:
    """One training of an experiment.

    Attributes:
        arm: name of the arm.
        seed: the seed of the plan; an arm with `seed_offset` is trained with another one.
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
        epoch: the epoch whose weights are used.
    """

    roots: tuple[Path, ...]
    split: str
    own: bool
    epoch: Epoch = "best"

    @property
    def with_runs(self) -> bool:
        """Whether training writes these predictions into the run folders."""
        return self.own and self.split == "valid" and self.epoch == "best"

    @property
    def name(self) -> str:
        """Name for tables, and of the folder of results."""
        exams = self.split if self.own else f"{self.roots[0].resolve().name}-{self.split}"
        return exams if self.epoch == "best" else f"{exams}-last"

    def opened(self, fold: int, recipe: Recipe) -> Dataset:
        """Opens the exams of a fold as a recipe does."""
        exams = Dataset.of_split(
            self.roots[fold],
            self.split,
            allow_missing_plane=recipe.allow_missing_plane,
            axes=recipe.axes,
            soft_labels=recipe.soft_labels,
            series=recipe.series,
        )
        exams.refuse_other_axes()
        return exams

    def refuse_unlabelled(self, plan: Plan, recipes: Mapping[str, Recipe]) -> None:
        """Raises DataError if the exams are missing, or labels that the comparison needs."""
        for fold, root in enumerate(self.roots):
            exams = self.opened(fold, recipes[plan.first_arm])
            labelled = [
                finding
                for column, finding in enumerate(exams.findings or ())
                if not np.isnan(exams.labels[:, column]).all()
            ]
            scored: set[str] = set()
            for arm in plan.compared_arms:
                own = recipes[arm].findings or labelled
                if not set(own) & set(labelled):
                    raise DataError(
                        f"the split {self.split} has no labels"
                        + (f" for the arm {arm}" if labelled else ""),
                        code="no-labels",
                        file=root,
                        expected=f"a label file {self.split}-<finding>.csv with a label"
                        + (f", for one of {', '.join(own)}" if own else ""),
                        found=f"labels for {', '.join(labelled)}" if labelled else "none",
                    )
                scored |= set(own) & set(labelled)
            if plan.within is not None:
                refuse_unlabelled_within(plan.within, sorted(scored), root)


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
    def _soft_labels(self) -> bool:
        return any(recipe.soft_labels for recipe in self.recipes.values())

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
            name
            for name in self.plan.compared
            if all(run.finished for run in self.runs if run.arm in self.plan.members(name))
        ]
        if fault is not None and self.plan.baseline not in complete:
            raise fault
        folds = [
            read_fold(
                root,
                self.predicted.split,
                {name: self._of_seeds(name, fold, tables) for name in complete},
                self.plan.within,
                soft=self._soft_labels,
            )
            for fold, root in enumerate(self.predicted.roots)
        ]
        found = compare_arms(
            folds,
            baseline=self.plan.baseline,
            seeds=self.plan.seeds,
            split=self.predicted.name,
            notes=self._notes(complete),
            other_baselines=self.plan.other_baselines,
            primary=self.plan.primary,
            margin=self.plan.margin,
        )
        calibration = calibration_rows(folds, complete)
        self._write(found, self._costs(complete), [CALIBRATION_COLUMNS, *calibration])
        return found

    def _of_seeds(
        self, name: str, fold: int, tables: Mapping[Trained, Predictions]
    ) -> list[Predictions]:
        """Returns the predictions of an arm or combined arm with each seed."""
        found = []
        for seed in self.plan.seeds:
            each = {r.arm: tables[r] for r in tables if (r.seed, r.fold) == (seed, fold)}
            found.append(Predictions.joined([each[arm] for arm in self.plan.members(name)]))
        return found

    def _costs(self, names: Sequence[str]) -> list[tuple[str, ...]]:
        """Returns the rows of `costs.csv`, with the header."""
        times = read_times(self.out)
        rows = [("arm", *COLUMNS)]
        for name in names:
            networks = [
                [
                    (run.folder, _seconds(times.get(run.name, {})))
                    for run in self.runs
                    if run.arm == arm
                ]
                for arm in self.plan.members(name)
            ]
            rows.append((name, *arm_cost(networks).cells()))
        return rows

    def write_table(self) -> dict[Trained, Predictions]:
        """Writes `results.csv`, one row per finished run; returns the runs' predictions."""
        tables = {run: self._predictions(run) for run in self.runs if run.finished}
        write_text(self.folder / "results.csv", self._csv(tables))
        return tables

    def _refuse_other_exams(self) -> None:
        """Refuses exams that differ from those that were predicted in an earlier call."""
        for fold in range(len(self.predicted.roots)):
            exams = self.predicted.opened(fold, self.recipes[self.plan.first_arm])
            record = record_data(Parts(exams, range(len(exams)), exams, (), None))
            place = self.folder / "data" / str(fold)
            text = data_json(place, record)
            write_text(RunFolder(place).data, text)

    def _predictions(self, run: Trained) -> Predictions:
        """Returns a run's predictions: its own of `valid`, or those kept in `predictions`."""
        folder = RunFolder(run.folder)
        own = folder.predictions("valid")  # missing if no finding of the run has labels there
        if self.predicted.with_runs and own.is_file():
            return Predictions.read(own)
        file = self.folder / "predictions" / f"{run.name}.csv"
        if not is_current(file, [folder.scorecard]):
            report(f"predicting with {run.name}")
            exams = self.predicted.opened(run.fold, self.recipes[run.arm])
            model = TorchModel(folder.best if self.predicted.epoch == "best" else folder.last)
            cache = self.recipes[run.arm].feature_cache
            if cache is not None:
                model.use_feature_cache(cache)
            model.predict(exams).write(file)
        return Predictions.read(file)

    def _csv(self, tables: Mapping[Trained, Predictions]) -> str:
        """Returns `results.csv`; a field is empty where a number is not known."""
        findings = list(dict.fromkeys(name for table in tables.values() for name in table.findings))
        times = read_times(self.out)
        fold = ["fold"] if len(self.predicted.roots) > 1 else []
        columns = ["arm", "seed", *fold, "mean_auc", *(f"auc_{name}" for name in findings)]
        columns += ["epochs", "best_epoch", "epoch_95", "train_exams", "seconds"]
        columns.append("exams_per_second")
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        for run, table in tables.items():
            labels = self._labels(run, table)
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

    def _labels(self, run: Trained, table: Predictions) -> Float[np.ndarray, "exams findings"]:
        """Returns the labels of a run's predictions; NaN if none of its findings has any."""
        root, split = self.predicted.roots[run.fold], self.predicted.split
        if not set(table.findings) & set(label_files(root / split)):  # of an arm not compared
            return np.full(table.probabilities.shape, np.nan)
        return table.labels(root, split, soft=self._soft_labels)

    def _notes(self, complete: Sequence[str]) -> list[str]:
        notes = []
        if missing := [name for name in self.plan.compared if name not in complete]:
            notes.append(f"left out, because a training failed: {', '.join(missing)}")
        selected = [
            name
            for name in complete
            if any(self.recipes[a].selection.part == "valid" for a in self.plan.members(name))
        ]
        if self.predicted.with_runs and selected:
            notes.append(
                f"optimistic, because these exams selected the epoch: {', '.join(selected)}"
            )
        if (folds := len(self.predicted.roots)) > 1:
            notes.append(f"AUCs are means over {folds} folds, whose networks share training exams")
        return notes

    def _write(
        self,
        found: ArmComparison,
        costs: Sequence[tuple[str, ...]],
        calibration: Sequence[tuple[str, ...]],
    ) -> None:
        wrote = ["results.csv", "costs.csv", "calibration.csv"]
        write_csv(self.folder / "costs.csv", costs)
        write_csv(self.folder / "calibration.csv", calibration)
        for name, text in (
            ("comparison.json", found.to_json()),
            ("comparison.txt", found.table()),
        ):
            write_text(self.folder / name, text)
            wrote.append(name)
        try:
            write_svg(found.plot(), self.folder / "arms.svg")
            wrote.append("arms.svg")
            if found.differences:
                write_svg(found.plot_differences(), self.folder / "differences.svg")
                wrote.append("differences.svg")
        except PlatformError as error:
            report(f"note: no plot, because {error.what}: {error.advice}")
        log(self.out, found.table())
        log(self.out, "\n".join(table_lines(list(calibration), left=2)) + "\n")
        log(self.out, "\n".join(table_lines(list(costs), left=1)) + "\n")
        report(f"wrote {', '.join(wrote)} to {self.folder}")


def read_times(out: Path) -> dict[str, dict[str, float]]:
    """Reads `times.json`: name of a run -> `seconds` trained, and `started` unless it has ended."""
    file = out / TIMES
    times: dict[str, dict[str, float]] = {}
    return read_json(file, "record of times") if file.exists() else times


def write_svg(figure: Figure, file: Path) -> None:
    """Writes a figure as SVG and closes it; the same figure writes the same bytes."""
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
    row["epoch_95"] = epoch_nearly_final(folder)
    if not math.isnan(seconds := _seconds(time_taken)):
        row |= {
            "seconds": f"{seconds:.1f}",
            "exams_per_second": f"{epochs * exams / max(seconds, 1e-9):.2f}",
        }
    return row


def _seconds(time_taken: Mapping[str, float]) -> float:
    """Returns the seconds of a run; NaN if they are not known or the run has not ended."""
    ended = "seconds" in time_taken and "started" not in time_taken
    return time_taken["seconds"] if ended else math.nan


def _digits(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6f}"
