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
from mrknee.files import write_text
from mrknee.metrics.auc_differences import (
    Difference,
    MeanDifference,
    auc_difference,
    mean_auc_difference,
)
from mrknee.metrics.discrimination import DELONG, Auc, auc
from mrknee.metrics.formatting import (
    format_exams,
    format_interval,
    format_number,
    format_p,
    format_signed,
    format_signed_interval,
    unlabelled_note,
)
from mrknee.metrics.json_values import to_json_values
from mrknee.metrics.paired_tests import MOVER, SAME_RANKING, holm
from mrknee.metrics.predictions import Predictions, align, prediction_files
from mrknee.metrics.resampling import BOOTSTRAP, MeanAuc, mean_auc
from mrknee.tables import table_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

__all__ = ["VERSION", "Comparison", "Difference", "MeanDifference", "compare", "compare_tables"]

MAX_NAMED_TABLES = 3
"""A model of more tables than this is named by its first and last table."""

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
        aucs = {name: MappingProxyType(dict(one)) for name, one in self.aucs.items()}
        object.__setattr__(self, "aucs", MappingProxyType(aucs))
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
        for one in self._all_differences():
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
            for one in self._all_differences()
        ]
        return plot_intervals(rows, f"AUC minus that of {self.names[0]}", reference=0)

    def to_json(self) -> str:
        """Returns the comparison as JSON; what can't be computed is null, with a reason."""
        content = {
            "version": VERSION,
            "split": self.split,
            "n_exams": self.n_exams,
            "models": [
                {
                    "name": name,
                    "findings": to_json_values(self.aucs[name]),
                    "mean": to_json_values(self.means[name]),
                }
                for name in self.names
            ],
            "differences": to_json_values(self.differences),
            "mean_differences": to_json_values(self.mean_differences),
            "seed": self.seed,
            "notes": list(self.notes),
        }
        return json.dumps(content, indent=2, allow_nan=False) + "\n"

    def write(self, path: str | Path) -> None:
        """Writes the JSON file atomically; creates its folder if needed."""
        write_text(Path(path), self.to_json())

    def table(self) -> str:
        """Returns the AUCs, the differences and a sentence on each difference, as plain text.

        Models are abbreviated by letters, explained at the top. Exceptions (no AUC, unusual
        intervals or tests) and notes are listed at the end.
        """
        letters = {name: _letter(i) for i, name in enumerate(self.names)}
        title = f"{self.split}: {format_exams(self.n_exams)}"
        parts = [
            [title, *(f"{letter}: {name}" for name, letter in letters.items())],
            table_lines(self._auc_rows(letters), left=2),
            [
                "Differences of AUC (B - A: AUC of B minus AUC of A), with 95 % intervals:",
                *table_lines(self._difference_rows(letters), left=2),
                *self._legend(),
            ],
            self._sentences(letters),
            self._exceptions(letters),
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
        direction = "higher" if one.difference > 0 else "lower"
        stated = f"{second}'s AUC is {direction} by {abs(one.difference):.3f}"
        contains_0 = one.low <= 0 <= one.high
        if isinstance(one, MeanDifference):
            n, p, p_text = self.n_exams, math.nan, ""
            if not contains_0:
                return f"{stated}, the interval excludes 0"
        else:
            n, p = one.n_positive + one.n_negative, one.p_holm
            after = " after Holm's correction" if self._tests() > 1 else ""
            p_text = f"p {'' if p < 0.001 else '= '}{format_p(p)}{after}"
            if math.isnan(p):
                p_text = "no valid test"
            if p < 0.05 and not contains_0:
                return f"{stated}, {p_text}"
        limit = one.detection_limit
        smallest = f"{limit:.2f}" if limit >= 0.01 else f"{limit:.1g}"
        undetected = f"with {n} exams, differences below about {smallest} can't be detected"
        if p < 0.05:
            return f"unclear: {p_text}, but the interval contains 0; {undetected}"
        if contains_0:
            return f"no difference shown: the interval contains 0; {undetected}"
        return f"no difference shown: {p_text}, although the interval excludes 0"

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
                cells = format_number(one.value), format_interval(one.low, one.high)
                rows.append((finding, letter, *cells, str(one.n_positive), str(one.n_negative)))
        for name, letter in letters.items():
            mean = self.means[name]
            cells = format_number(mean.value), format_interval(mean.low, mean.high)
            rows.append(("mean", letter, *cells, "", ""))
        return rows

    def _all_differences(self) -> list[Difference | MeanDifference]:
        return [*self.differences, *self.mean_differences]

    def _difference_rows(self, letters: Mapping[str, str]) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = [
            ("finding", "models", "difference", "95 % interval", "DeLong", "Holm")
        ]
        for one in self._all_differences():
            cells = (
                _pair(one, letters),
                format_signed(one.difference),
                format_signed_interval(one.low, one.high),
            )
            if isinstance(one, Difference):
                rows.append((one.finding, *cells, format_p(one.p_delong), format_p(one.p_holm)))
            else:
                rows.append(("mean", *cells, "", ""))
        return rows

    def _legend(self) -> list[str]:
        """Returns the legend of the table of differences."""
        tests = "1 test" if self._tests() == 1 else f"{self._tests()} tests"
        return [
            f"Intervals: {MOVER}, from those of the AUCs; of the mean: {BOOTSTRAP}.",
            f"DeLong: p of DeLong's test; Holm: p after correction for {tests}.",
        ]

    def _sentences(self, letters: Mapping[str, str]) -> list[str]:
        lines = []
        for one in self._all_differences():
            first, second = letters[one.first], letters[one.second]
            finding = one.finding if isinstance(one, Difference) else "mean"
            verdict = self.verdict(one, second=second)
            lines.append(f"{finding}, {second} against {first}: {verdict}")
        return lines

    def _exceptions(self, letters: Mapping[str, str]) -> list[str]:
        lines = []
        for name, letter in letters.items():
            for finding, one in self.aucs[name].items():
                if one.reason is None and one.method != DELONG:
                    lines.append(f"{finding}, {letter}: interval by {one.method}")
            mean = self.means[name]
            if mean.reason is None and mean.left_out:
                lines.append(f"mean, {letter}: without {', '.join(mean.left_out)}")
            if mean.reason is None and mean.method != BOOTSTRAP:
                lines.append(f"mean, {letter}: interval by {mean.method}")
        for other in self._all_differences():
            finding = other.finding if isinstance(other, Difference) else "mean"
            row = f"{finding}, {_pair(other, letters)}"
            usual = other.method == BOOTSTRAP or (
                isinstance(other, Difference) and other.reason is None
            )
            if not math.isnan(other.difference):
                if not usual:
                    lines.append(f"{row}: interval: {other.method}")
                if other.reason is not None:
                    lines.append(f"{row}: {other.reason}")
        return lines + [f"note: {note}" for note in self.notes]


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
            (`mrknee.metrics.predictions.align` aligns tables).
        split: name of the split.
        seed: seed of the resampling; the same seed gives the same numbers.
        notes: notes for readers of the comparison.

    Returns:
        The comparison of all other models with the first.

    Raises:
        MrkneeError: fewer than two models, a repeated name, arrays of different shapes, a
            probability that is NaN, or a label that is not 0, 1 or NaN.
    """
    _check_input(names, labels, probabilities)
    models = dict(zip(names, probabilities, strict=True))
    aucs = {
        name: {f: auc(labels[:, i], one[:, i]) for i, f in enumerate(findings)}
        for name, one in models.items()
    }
    reference = names[0]
    differences = [
        auc_difference(
            (reference, other),
            finding,
            labels[:, i],
            (models[reference][:, i], models[other][:, i]),
            (aucs[reference][finding], aucs[other][finding]),
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
            mean_auc_difference(
                [one for one in differences if one.second == other],
                labels,
                models[reference],
                models[other],
                seed=seed,
            )
            for other in names[1:]
        ),
        seed=seed,
        notes=(*notes, *unlabelled_note(labels)),
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
            "only one table of predictions was given",
            code="compare",
            expected="a list of tables, one per model",
            found=str(tables),
        )
    specs = [
        str(one) if not isinstance(one, Predictions) else one.source or f"table {number}"
        for number, one in enumerate(tables, start=1)
    ]
    _check_distinct(specs)
    if len(specs) < 2:
        raise DataError(
            "fewer than two models can't be compared",
            code="compare",
            expected="at least two tables of predictions",
            found=", ".join(specs) or "none",
        )
    chosen = list(names) if names is not None else _names(specs)
    if len(chosen) != len(specs):
        raise DataError(
            "the number of names is not the number of tables",
            code="compare",
            expected=f"{len(specs)} names, one per table",
            found=", ".join(chosen) or "none",
        )
    read = [one if isinstance(one, Predictions) else Predictions.read_joined(one) for one in tables]
    aligned, notes = align(chosen, read)
    return compare(
        chosen,
        aligned[0].findings,
        aligned[0].labels(data, split),
        [table.probabilities for table in aligned],
        split=split,
        seed=seed,
        notes=notes,
    )


def _check_distinct(specs: Sequence[str]) -> None:
    """Rejects a model that occurs twice, regardless of the order of its files."""
    seen: dict[frozenset[Path], str] = {}
    for spec in specs:
        files = frozenset(Path(name).resolve() for name in prediction_files(spec))
        if files in seen:
            raise DataError(
                "a model can't be compared with itself",
                code="compare",
                file=spec,
                expected="files of different models",
                found=f"the same as {seen[files]}",
                advice="give the predictions of each model once",
            )
        seen[files] = spec


def _names(specs: Sequence[str]) -> list[str]:
    """Returns short names: `reference`, `default` for `a/reference/p.csv`, `a/default/p.csv`.

    If two short names would be equal, the complete specifications are used.
    """
    paths = {
        spec: [list(Path(name.removesuffix(".csv")).parts) for name in prediction_files(spec)]
        for spec in specs
    }
    all_paths = [path for model in paths.values() for path in model]
    for end in (0, -1):
        while min(map(len, all_paths)) > 1 and len({path[end] for path in all_paths}) == 1:
            for path in all_paths:
                path.pop(end)
    tables = [["/".join(path) for path in paths[spec]] for spec in specs]
    short = [
        " + ".join(each)
        if len(each) <= MAX_NAMED_TABLES
        else f"{each[0]} to {each[-1]} ({len(each)} tables)"
        for each in tables
    ]
    return short if len(set(short)) == len(short) else list(specs)


def _with_holm(differences: Sequence[Difference]) -> list[Difference]:
    corrected = holm(np.array([one.p_delong for one in differences], dtype=np.float64))
    return [replace(one, p_holm=float(q)) for one, q in zip(differences, corrected, strict=True)]


def _check_input(
    names: Sequence[str],
    labels: Float[np.ndarray, "exams findings"],
    probabilities: Sequence[np.ndarray],
) -> None:
    if len(names) < 2 or len(set(names)) < len(names):
        raise DataError(
            "the models can't be compared",
            code="compare",
            expected="at least two models with different names",
            found=", ".join(names) or "none",
        )
    for name, one in zip(names, probabilities, strict=True):
        if one.shape != labels.shape:
            raise DataError(
                f"the predictions of {name} and the labels have different shapes",
                code="predictions-exams",
                expected=f"(exams, findings) {labels.shape}",
                found=str(one.shape),
            )


def _letter(model: int) -> str:
    return chr(ord("A") + model) if model < 26 else f"M{model + 1}"


def _pair(one: Difference | MeanDifference, letters: Mapping[str, str]) -> str:
    return f"{letters[one.second]} - {letters[one.first]}"
