"""Comparison of several models on the same exams of one split: `comparison.json` and its table.

Every other model is compared with the first, for each finding and for the mean over findings. The
comparison never reports that models are equal: if no difference is shown, it reports the smallest
difference that could have been detected.
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
from mrknee.metrics.differences import Difference, MeanDifference, difference, mean_difference
from mrknee.metrics.discrimination import DELONG, Auc, auc
from mrknee.metrics.paired import MOVER, SAME_RANKING, holm
from mrknee.metrics.plain import plain
from mrknee.metrics.predictions import Predictions, aligned, named_files
from mrknee.metrics.resampling import BOOTSTRAP, MeanAuc, mean_auc
from mrknee.metrics.text import (
    exams,
    interval,
    p_value,
    shown,
    signed,
    signed_interval,
    without_labels,
)
from mrknee.tables import table_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

__all__ = ["VERSION", "Comparison", "Difference", "MeanDifference", "compare", "compare_tables"]

NAMED = 3
"""A model of at most this many tables is named by all of them, else by the first and the last."""

VERSION = 2
"""Version of the file format."""


@dataclass(frozen=True, repr=False)
class Comparison:
    """Comparison of several models' predictions of the same exams: content of `comparison.json`.

    Attributes:
        names: names of the models; the others are compared with the first.
        split: the name of the split that was scored.
        n_exams: number of exams, including those with unknown labels.
        aucs: model -> finding -> AUC with its interval.
        means: model -> mean AUC.
        differences: one per model (except the first) and finding, ordered by model.
        mean_differences: one per model except the first.
        seed: seed of the resampling.
        notes: notes for readers, for example which findings were excluded.

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
        """Returns the differences as a pandas DataFrame: a row per model and finding, and per mean.

        Columns: `first` and `second` (the models), `finding` (or `mean`), `first_auc`,
        `second_auc`, `difference` (second - first), `low`, `high` (95 % interval), and the p
        values `p_delong`, `p_holm`. What can't be computed is NaN.

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
        from mrknee.metrics.plot import plot_intervals

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
        """Returns the comparison as JSON; what can't be computed is null, with a reason."""
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
        """Writes the JSON file atomically; creates its folder if needed."""
        with whole_file(Path(path)) as beside:
            beside.write_text(self.to_json(), encoding="utf-8")

    def table(self) -> str:
        """Returns the AUCs, the differences and a sentence on each difference, as plain text.

        Models are abbreviated by letters, explained at the top. Exceptions (no AUC, unusual
        intervals or tests) and notes are listed at the end.
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
        """Returns the interpretation of one difference, as one sentence.

        The difference of a finding is reported only if Holm's p is below 0.05 and the interval
        excludes 0; the difference of the means, one per model, if its interval excludes 0. The
        sentence never states that models are equal.

        Args:
            one: an element of `differences` or `mean_differences`.
            second: how the sentence refers to the second model ("B", "the second").
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
            shown_p = f"p {'' if p < 0.001 else '= '}{p_value(p)}{after}"
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
        """Returns the number of tests that Holm's correction includes."""
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
            cells = _pair(one, letters), signed(one.difference), signed_interval(one.low, one.high)
            if isinstance(one, Difference):
                rows.append((one.finding, *cells, p_value(one.p_delong), p_value(one.p_holm)))
            else:
                rows.append(("mean", *cells, "", ""))
        return rows

    def _explained(self) -> list[str]:
        """Returns the legend of the table of differences."""
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
    probabilities: Sequence[Float[np.ndarray, "_ _"]],  # shapes are checked below
    *,
    split: str,
    seed: int = 0,
    notes: Sequence[str] = (),
) -> Comparison:
    """Compares models on the same exams.

    Args:
        names: names of the models, at least two, all different.
        findings: names of the findings, one per column.
        labels: 1 present, 0 absent, NaN unknown: excluded for that finding.
        probabilities: one array per model, of the same shape and order as the labels
            (`mrknee.metrics.predictions.aligned` aligns tables).
        split: name of the split.
        seed: seed of the resampling; the same seed gives the same numbers.
        notes: notes for readers of the comparison.

    Returns:
        The comparison of all other models with the first.

    Raises:
        MrkneeError: fewer than two models, a repeated name, arrays of different shapes, a
            probability that is NaN, or a label that is not 0, 1 or NaN.
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
    """Compares models by the tables that `predict` wrote.

    Args:
        tables: one per model: predictions, a file, or several files separated by commas
            (`Predictions.read_joined`).
        data: the data set's folder, with the label files of the split.
        split: the split that was predicted.
        names: names of the models; None: the parts in which the files' paths differ, or `table 1`,
            `table 2`, ... for predictions that were not read from a file.
        seed: seed of the resampling.

    Returns:
        The comparison of all other models with the first.

    Raises:
        MrkneeError: a table can't be read or has no labels, the tables contain different exams or
            have no finding in common, a model occurs twice, or there are fewer than two models.
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
    """Rejects a model that occurs twice, regardless of the order of its files."""
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
    """Returns short names: `reference`, `default` for `a/reference/p.csv`, `a/default/p.csv`.

    If two short names would be equal, the complete specifications are used.
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


def _pair(one: Difference | MeanDifference, letters: Mapping[str, str]) -> str:
    return f"{letters[one.second]} - {letters[one.first]}"
