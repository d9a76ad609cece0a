"""Several models on the same exams of one split, compared: `comparison.json` and its table.

Every other model is held against the first, finding by finding, and in the mean over findings.
"Not different" is never said: where no difference is shown, the smallest that could have been is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from mrknee.errors import DataError
from mrknee.extras import data_frame
from mrknee.files import whole_file
from mrknee.scoring.differences import Difference, MeanDifference, difference, mean_difference
from mrknee.scoring.discrimination import DELONG, Auc, auc
from mrknee.scoring.paired import MOVER, SAME_RANKING, holm
from mrknee.scoring.plain import plain
from mrknee.scoring.predictions import Predictions, aligned, named_files
from mrknee.scoring.resampling import BOOTSTRAP, MeanAuc, mean_auc
from mrknee.scoring.text import exams, interval, shown, without_labels
from mrknee.tables import table_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

__all__ = ["VERSION", "Comparison", "Difference", "MeanDifference", "compare", "compare_tables"]

NAMED = 3
"""A model of so many tables is named by all of them, one of more by the first and the last."""

VERSION = 2
"""Of the file's layout."""


@dataclass(frozen=True, repr=False)
class Comparison:
    """How several models' predictions of the same exams differ: what `comparison.json` holds.

    Attributes:
        names: the models' names; the others are held against the first.
        split: the name of the split that was scored.
        n_exams: exams scored, those with unknown labels too.
        aucs: model -> finding -> its AUC with its interval.
        means: model -> its mean AUC.
        differences: model after model, finding after finding.
        mean_differences: one a model but the first.
        seed: of the resampling.
        notes: what a reader must know, for example which findings were left out.

    Example:
        >>> import mrknee
        >>> table = mrknee.Predictions.read("runs/first/predictions-valid.csv")
        >>> other = mrknee.load_model("runs/second").predict(mrknee.open_dataset("knees"))
        >>> found = mrknee.compare(table, other, "knees", names=["first", "second"])
        >>> axes = found.plot()
    """

    names: tuple[str, ...]
    split: str
    n_exams: int
    aucs: Mapping[str, Mapping[str, Auc]]
    means: Mapping[str, MeanAuc]
    differences: tuple[Difference, ...]
    mean_differences: tuple[MeanDifference, ...]
    seed: int = 0
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        each = {name: MappingProxyType(dict(one)) for name, one in self.aucs.items()}
        object.__setattr__(self, "aucs", MappingProxyType(each))
        object.__setattr__(self, "means", MappingProxyType(dict(self.means)))

    def __repr__(self) -> str:
        return self.table().rstrip()

    def to_frame(self) -> DataFrame:
        """The differences as a pandas DataFrame: one row per model and finding, and per mean.

        Columns: `first` and `second` (the models), `finding` (or `mean`), `first_auc`,
        `second_auc`, `difference` (second - first), `low`, `high` (95 % interval), and the tests'
        `p_delong`, `p_holm`. What can't be computed is NaN.

        Raises:
            PlatformError: pandas is not installed.
        """
        names = ["first", "second", "finding", "first_auc", "second_auc", "difference", "low"]
        names += ["high", "p_delong", "p_holm"]
        rows = []
        for one in self._all():
            row = {name: getattr(one, name, math.nan) for name in names}
            if isinstance(one, MeanDifference):
                means = self.means[one.first].value, self.means[one.second].value
                row |= {"finding": "mean", "first_auc": means[0], "second_auc": means[1]}
            rows.append(row)
        return data_frame({name: [row[name] for row in rows] for name in names})

    def plot(self) -> Axes:
        """Draws the differences of AUC with their 95 % intervals, findings and means.

        Returns:
            matplotlib axes.

        Raises:
            PlatformError: matplotlib is not installed.
        """
        from mrknee.scoring.plot import plot_intervals

        rows = [
            (
                f"{one.second}, {one.finding if isinstance(one, Difference) else 'mean'}",
                one.difference,
                one.low,
                one.high,
            )
            for one in self._all()
        ]
        return plot_intervals(rows, f"AUC less that of {self.names[0]}", reference=0)

    def to_json(self) -> str:
        """The comparison as JSON text; a number that can't be computed is null, with its reason."""
        content = {
            "version": VERSION,
            "split": self.split,
            "n_exams": self.n_exams,
            "models": [
                {
                    "name": name,
                    "findings": plain(self.aucs[name]),
                    "mean": plain(self.means[name]),
                }
                for name in self.names
            ],
            "differences": plain(self.differences),
            "mean_differences": plain(self.mean_differences),
            "seed": self.seed,
            "notes": list(self.notes),
        }
        return json.dumps(content, indent=2, allow_nan=False) + "\n"

    def write(self, path: str | Path) -> None:
        """Writes the JSON file, whole or not at all; its folder is made if it isn't there."""
        with whole_file(Path(path)) as beside:
            beside.write_text(self.to_json(), encoding="utf-8")

    def table(self) -> str:
        """Models, AUCs, differences and a sentence on each difference, as plain text.

        Models go by letters, whose names stand above. What is out of the ordinary (no AUC, other
        intervals and tests than usual, notes) is told in lines below.
        """
        letters = {name: _letter(i) for i, name in enumerate(self.names)}
        title = f"{self.split}: {exams(self.n_exams)}"
        parts = [
            [title, *(f"{letter}: {name}" for name, letter in letters.items())],
            table_lines(self._auc_rows(letters), left=2),
            [
                "Differences (B - A is B's AUC less A's), with 95 % intervals:",
                *table_lines(self._difference_rows(letters), left=2),
                *self._explained(),
            ],
            self._sentences(letters),
            self._remarks(letters),
        ]
        return "\n\n".join("\n".join(part) for part in parts if part) + "\n"

    def verdict(self, one: Difference | MeanDifference, *, second: str) -> str:
        """What one of the comparison's differences says, in one sentence for a person.

        A finding's difference is named only where Holm's p is below 0.05 and the interval leaves
        out 0; the mean's, one per model, where its interval leaves out 0. That models are equal is
        never said.

        Args:
            one: of `differences` or `mean_differences`.
            second: what the sentence calls the model that is compared with the first ("B", "the
                second").
        """
        if math.isnan(one.difference):
            return f"can't be compared: {one.reason}"
        if one.low == one.high:
            return SAME_RANKING
        named = f"{second}'s AUC is {'higher' if one.difference > 0 else 'lower'} by "
        named += f"{abs(one.difference):.3f}"
        holds_0 = one.low <= 0 <= one.high
        if isinstance(one, MeanDifference):
            n, p, shown_p = self.n_exams, math.nan, ""
            if not holds_0:
                return f"{named}, the interval leaves out 0"
        else:
            n, p = one.n_positive + one.n_negative, one.p_holm
            after = " after Holm's correction" if self._tests() > 1 else ""
            shown_p = f"p {'' if p < 0.001 else '= '}{_p(p)}{after}"
            if math.isnan(p):
                shown_p = "no test holds here"
            if p < 0.05 and not holds_0:
                return f"{named}, {shown_p}"
        least = f"{one.unseen:.2f}" if one.unseen >= 0.01 else f"{one.unseen:.1g}"
        limit = f"at n = {n} differences below about {least} can't be seen"
        if p < 0.05:
            return f"not settled: {shown_p}, but the interval holds 0; {limit}"
        if holds_0:
            return f"no difference shown: the interval holds 0; {limit}"
        return f"no difference shown: {shown_p}, though the interval by itself leaves out 0"

    def _tests(self) -> int:
        """How many tests Holm's correction is over."""
        return sum(not math.isnan(one.p_holm) for one in self.differences)

    def _auc_rows(self, letters: Mapping[str, str]) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = [
            ("finding", "model", "AUC", "95 % interval", "positive", "negative")
        ]
        for finding in self.aucs[self.names[0]]:
            for name, letter in letters.items():
                one = self.aucs[name][finding]
                cells = shown(one.value), interval(one.low, one.high)
                rows.append((finding, letter, *cells, str(one.n_positive), str(one.n_negative)))
        for name, letter in letters.items():
            mean = self.means[name]
            cells = shown(mean.value), interval(mean.low, mean.high)
            rows.append(("mean", letter, *cells, "", ""))
        return rows

    def _all(self) -> list[Difference | MeanDifference]:
        return [*self.differences, *self.mean_differences]

    def _difference_rows(self, letters: Mapping[str, str]) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = [
            ("finding", "models", "difference", "95 % interval", "DeLong", "Holm")
        ]
        for one in self._all():
            cells = _pair(one, letters), _signed(one.difference), _signed_interval(one)
            if isinstance(one, Difference):
                rows.append((one.finding, *cells, _p(one.p_delong), _p(one.p_holm)))
            else:
                rows.append(("mean", *cells, "", ""))
        return rows

    def _explained(self) -> list[str]:
        """What the columns of the differences are."""
        tests = "1 test" if self._tests() == 1 else f"{self._tests()} tests"
        return [
            f"Intervals by {MOVER} from the AUCs' own; the mean's by {BOOTSTRAP}.",
            f"The last columns are p. Holm: of DeLong's p, over {tests} of a finding.",
        ]

    def _sentences(self, letters: Mapping[str, str]) -> list[str]:
        lines = []
        for one in self._all():
            first, second = letters[one.first], letters[one.second]
            finding = one.finding if isinstance(one, Difference) else "mean"
            verdict = self.verdict(one, second=second)
            lines.append(f"{finding}, {second} against {first}: {verdict}")
        return lines

    def _remarks(self, letters: Mapping[str, str]) -> list[str]:
        remarks = []
        for name, letter in letters.items():
            for finding, one in self.aucs[name].items():
                if one.reason is None and one.method != DELONG:
                    remarks.append(f"{finding}, {letter}: interval by {one.method}")
            mean = self.means[name]
            if mean.reason is None and mean.left_out:
                remarks.append(f"mean, {letter}: without {', '.join(mean.left_out)}")
            if mean.reason is None and mean.method != BOOTSTRAP:
                remarks.append(f"mean, {letter}: interval by {mean.method}")
        for other in self._all():
            finding = other.finding if isinstance(other, Difference) else "mean"
            who = f"{finding}, {_pair(other, letters)}"
            usual = other.method == BOOTSTRAP or (
                isinstance(other, Difference) and other.reason is None
            )
            if not math.isnan(other.difference):
                if not usual:
                    remarks.append(f"{who}: interval by {other.method}")
                if other.reason is not None:
                    remarks.append(f"{who}: {other.reason}")
        return remarks + [f"note: {note}" for note in self.notes]


def compare(
    names: Sequence[str],
    findings: Sequence[str],
    labels: Float[np.ndarray, "exams findings"],
    probabilities: Sequence[Float[np.ndarray, "_ _"]],  # their shape is checked here
    *,
    split: str,
    seed: int = 0,
    notes: Sequence[str] = (),
) -> Comparison:
    """Compares models on the same exams.

    Args:
        names: the models' names, each once, two or more.
        findings: the findings' names, one a column.
        labels: 1 present, 0 absent, NaN not known: left out for that finding.
        probabilities: one array a model, rows and columns as the labels'
            (`scoring.predictions.aligned` brings tables there).
        split: the name of the split.
        seed: of the resampling; the same seed gives the same numbers.
        notes: what a reader must know.

    Raises:
        MrkneeError: a name twice, fewer than two models, arrays of other shapes, a probability
            that is NaN, or a label that is not 0, 1 or NaN.
    """
    _refuse_impossible(names, labels, probabilities)
    models = dict(zip(names, probabilities, strict=True))
    aucs = {
        name: {f: auc(labels[:, i], one[:, i]) for i, f in enumerate(findings)}
        for name, one in models.items()
    }
    base = names[0]
    differences = [
        difference(
            (base, other),
            finding,
            labels[:, i],
            (models[base][:, i], models[other][:, i]),
            (aucs[base][finding], aucs[other][finding]),
        )
        for other in names[1:]
        for i, finding in enumerate(findings)
    ]
    differences = _with_holm(differences)
    return Comparison(
        names=tuple(names),
        split=split,
        n_exams=len(labels),
        aucs=aucs,
        means={name: mean_auc(findings, labels, one, seed=seed) for name, one in models.items()},
        differences=tuple(differences),
        mean_differences=tuple(
            mean_difference(
                [one for one in differences if one.second == other],
                labels,
                models[base],
                models[other],
                seed=seed,
            )
            for other in names[1:]
        ),
        seed=seed,
        notes=(*notes, *without_labels(labels)),
    )


def compare_tables(
    tables: Sequence[str | Path | Predictions],
    data: str | Path,
    *,
    split: str,
    names: Sequence[str] | None = None,
    seed: int = 0,
) -> Comparison:
    """Compares models by the tables that `predict` gave.

    Args:
        tables: one per model: predictions, their file, or files with commas between
            (`Predictions.read_joined`).
        data: the data set's folder, with the split's label files.
        split: the split that was predicted.
        names: what the models are called; None takes what their files' paths don't have in common,
            and `table 1`, `table 2` for predictions that were not read from a file.
        seed: as `compare`.

    Raises:
        MrkneeError: a table can't be read or has no labels, the tables are of different exams or
            have no finding in common, a model is there twice, or there are fewer than two.
    """
    if isinstance(tables, str | Path | Predictions):
        raise DataError(
            "one table can't be compared",
            code="compare",
            expected="a list of tables, one per model",
            found=str(tables),
        )
    specs = [
        str(one) if not isinstance(one, Predictions) else one.source or f"table {number}"
        for number, one in enumerate(tables, start=1)
    ]
    _refuse_twice(specs)
    chosen = list(names) if names is not None else _names(specs)
    if len(chosen) != len(specs):
        raise DataError(
            "the models' names don't fit their tables",
            code="compare",
            expected=f"{len(specs)} names, one per table",
            found=", ".join(chosen) or "none",
        )
    read = [one if isinstance(one, Predictions) else Predictions.read_joined(one) for one in tables]
    same, notes = aligned(chosen, read)
    return compare(
        chosen,
        same[0].findings,
        same[0].labels(data, split),
        [table.probabilities for table in same],
        split=split,
        seed=seed,
        notes=notes,
    )


def _refuse_twice(specs: Sequence[str]) -> None:
    """A model against itself; the order of its files makes no other model."""
    seen: dict[frozenset[Path], str] = {}
    for spec in specs:
        files = frozenset(Path(name).resolve() for name in named_files(spec))
        if files in seen:
            raise DataError(
                "a model can't be compared with itself",
                code="compare",
                file=spec,
                expected="files of different models",
                found=f"the same as {seen[files]}",
                advice="name each model's predictions once",
            )
        seen[files] = spec


def _names(specs: Sequence[str]) -> list[str]:
    """Short names: `a/reference/p.csv` and `a/default/p.csv` are `reference` and `default`.

    Where two models' would be the same they go by all that was given.
    """
    paths = {
        spec: [list(Path(name.removesuffix(".csv")).parts) for name in named_files(spec)]
        for spec in specs
    }
    every = [path for each in paths.values() for path in each]
    for end in (0, -1):
        while min(map(len, every)) > 1 and len({path[end] for path in every}) == 1:
            for path in every:
                path.pop(end)
    named = [["/".join(path) for path in paths[spec]] for spec in specs]
    short = [
        " + ".join(each) if len(each) <= NAMED else f"{each[0]} to {each[-1]} ({len(each)} tables)"
        for each in named
    ]
    return short if len(set(short)) == len(short) else list(specs)


def _with_holm(differences: Sequence[Difference]) -> list[Difference]:
    corrected = holm(np.array([one.p_delong for one in differences], dtype=np.float64))
    return [replace(one, p_holm=float(q)) for one, q in zip(differences, corrected, strict=True)]


def _refuse_impossible(
    names: Sequence[str],
    labels: Float[np.ndarray, "exams findings"],
    probabilities: Sequence[np.ndarray],
) -> None:
    if len(names) < 2 or len(set(names)) < len(names):
        raise DataError(
            "these models can't be compared",
            code="compare",
            expected="two models or more, each named once",
            found=", ".join(names) or "none",
        )
    for name, one in zip(names, probabilities, strict=True):
        if one.shape != labels.shape:
            raise DataError(
                f"the predictions of {name} don't fit the labels",
                code="predictions-exams",
                expected=f"(exams, findings) {labels.shape}",
                found=str(one.shape),
            )


def _letter(model: int) -> str:
    return chr(ord("A") + model) if model < 26 else f"M{model + 1}"


def _signed(value: float) -> str:
    # Adding 0 makes a rounded -0.000 a +0.000.
    return "-" if math.isnan(value) else f"{round(value, 3) + 0.0:+.3f}"


def _pair(one: Difference | MeanDifference, letters: Mapping[str, str]) -> str:
    return f"{letters[one.second]} - {letters[one.first]}"


def _signed_interval(one: Difference | MeanDifference) -> str:
    if math.isnan(one.low):
        return "-"
    return "no width" if one.low == one.high else f"{_signed(one.low)} to {_signed(one.high)}"


def _p(value: float) -> str:
    if math.isnan(value):
        return "-"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
