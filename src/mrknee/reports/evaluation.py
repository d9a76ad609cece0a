"""Evaluation of predictions against labels: scorecard.json and report.html."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from math import isnan
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float

from mrknee.errors import DataError, MrkneeError
from mrknee.exams import Dataset, label_files, read_findings, split_of
from mrknee.exams.plausibility import notes_on, remarks_on, sizes_from
from mrknee.files import owned_folder, write_text
from mrknee.inference.model import ModelPaths, load_model, name_of, paths_of
from mrknee.metrics.comparison import compare_tables
from mrknee.metrics.operating_point import OperatingPoint
from mrknee.metrics.plot import plot_rocs
from mrknee.metrics.predictions import Predictions, prediction_files
from mrknee.metrics.scorecard import Scorecard, score
from mrknee.outputs import check_output_file, check_output_folder
from mrknee.reports.cards import CARDS, make_cards
from mrknee.reports.cohort import count_slices, count_splits, open_if_there
from mrknee.reports.contents import Contents, Failure, ModelFacts, SliceCounts
from mrknee.reports.page import render
from mrknee.run_folder import RunFolder

WORST = 3
"""Maximum number of false positives, and of false negatives, shown per finding."""

TRAINED = "the network was trained on"
SELECTED = "the epoch was selected on"


@dataclass(frozen=True, repr=False, eq=False)
class Evaluation(Scorecard):
    """A scorecard that can also write its report and plot its ROC curves.

    Attributes:
        contents: contents of the report, including labels and probabilities.

    Example:
        >>> import mrknee
        >>> data = mrknee.open_dataset("knees", split="valid")
        >>> card = mrknee.evaluate(mrknee.load_model("runs/first").predict(data), data)
        >>> card.plot().shape
        (3,)
    """

    contents: Contents = field(kw_only=True)

    def report(self, path: str | Path) -> None:
        """Writes the report as one HTML file without external resources.

        Args:
            path: the file to write, atomically; its folder is created if it does not exist.

        Raises:
            OutputError: the file can't be written.
        """
        path = Path(path)
        check_output_file(path)
        write_text(path, render(self.contents))

    def plot(self) -> np.ndarray:
        """Draws each finding's ROC curve with its 95 % band, and the AUC with its interval.

        Returns:
            matplotlib axes (findings,).

        Raises:
            PlatformError: matplotlib is not installed.
        """
        areas = [(name, one.auc) for name, one in self.findings.items()]
        labels, probabilities = self.contents.labels, self.contents.probabilities
        return plot_rocs(areas, labels, probabilities, seed=self.seed)


def evaluate(
    predictions: Predictions | str | Path,
    data: Dataset | str | Path,
    out: str | Path | None = None,
    *,
    split: str = "valid",
    model: ModelPaths | None = None,
    against: Predictions | str | Path | None = None,
    prevalences: Mapping[str, float] = {},
    notes: Sequence[str] = (),
    axes: str | None = None,
) -> Evaluation:
    """Compares predictions with labels: AUCs, calibration and operating points, with intervals.

    Args:
        predictions: predictions or their file. Several files, separated by commas, are scored as
            one model: for each finding, the mean over the files that contain it.
        data: the data set or its folder. Its label files, of 0 and 1, are needed; its exams are
            needed only for a model's heat maps.
        out: a folder to write `scorecard.json`, the page `report.html`, `model_card.md` and
            `data_card.md` to; None writes nothing. Sections of the cards that were written by
            hand are kept.
        split: the predicted split, if `data` is a folder; an opened data set has its own.
        model: the model that made the predictions: a run folder, an exported model, or the members
            of an ensemble. Adds operating points, calibration, provenance, and heat maps of the
            worst errors.
        against: predictions of a second model, compared in the report.
        prevalences: finding -> additional prevalence, 0 to 1, for PPV, NPV and calibration.
        notes: notes for the readers of the scorecard.
        axes: order of the axes in the files, as for `Dataset`; None: that of an opened data set.

    Returns:
        The scorecard, which can write its report: `card.report("report.html")`.

    Raises:
        MrkneeError: predictions, labels or model can't be used or don't belong together; or
            `out` can't be written.

    Example:
        >>> import mrknee
        >>> data = mrknee.open_dataset("knees", split="valid")
        >>> table = mrknee.load_model("runs/first").predict(data)
        >>> card = mrknee.evaluate(table, data)
        >>> card.n_exams, list(card.to_frame().index)
        (6, ['abnormal', 'acl', 'meniscus', 'mean'])
        >>> card.report("report.html")
    """

    def made() -> Evaluation:
        contents = gather(
            predictions,
            data,
            split=split,
            model=model,
            against=against,
            prevalences=prevalences,
            notes=notes,
            axes=axes,
        )
        scores = {one.name: getattr(contents.card, one.name) for one in fields(Scorecard)}
        return Evaluation(**scores, contents=contents)

    if out is None:
        return made()
    out = Path(out)
    reads = [*_files_of(predictions), *_files_of(against), split_of(data, split)[0]]
    reads += [] if model is None else map(str, paths_of(model))
    check_output_folder(out, ["scorecard.json", "report.html", *CARDS], reads)
    with owned_folder(out):
        card = made()
        pages = {"report.html": render(card.contents), **make_cards(card.contents, out)}
        card.write(out / "scorecard.json")
        for name, text in pages.items():
            write_text(out / name, text)
    return card


def _files_of(predictions: Predictions | str | Path | None) -> list[str | Path]:
    if predictions is None or isinstance(predictions, Predictions):
        return []
    return list(prediction_files(predictions))


def gather(
    predictions: Predictions | str | Path,
    data: Dataset | str | Path,
    *,
    split: str = "valid",
    model: ModelPaths | None = None,
    against: Predictions | str | Path | None = None,
    prevalences: Mapping[str, float] = {},
    notes: Sequence[str] = (),
    axes: str | None = None,
) -> Contents:
    """Computes the contents of the report; arguments and errors as of `evaluate`."""
    if isinstance(data, Dataset) and axes is None:
        axes = data.opened_with.get("axes")
    data, split = split_of(data, split)
    table = predictions
    if not isinstance(table, Predictions):
        table = Predictions.read_joined(table)
    labels = table.labels(data, split)
    facts, failures = None, _failures(table, labels, {})
    odd: list[str] = []
    if model is None:
        slices = _slices_if_readable(data / split, axes)
    else:
        exams = _exams_for_model(data / split, axes)
        slices = count_slices(exams)
        facts, failures = _model_facts(model, table, labels, exams)
        trained = sizes_from(facts.provenance.get("stack_sizes"))
        odd = notes_on(remarks_on(exams, _positions(exams, table.ids), trained), len(table.ids))
    card = score(
        table.findings,
        labels,
        table.probabilities,
        split=split,
        notes=[
            *notes,
            *_unmatched(table.findings, data, split),
            *_optimism(facts, data, len(table.ids)),
            *odd,
        ],
        operating_points={} if facts is None else facts.operating_points,
        calibration=None if facts is None else facts.calibration,
        prevalences={name.strip().lower(): share for name, share in prevalences.items()},
    )
    return Contents(
        card=card,
        sources=_sources(predictions),
        data=data.resolve().name,
        synthetic=(data / "phantom.json").exists(),
        labels=labels,
        probabilities=table.probabilities,
        splits=count_splits(data, split),
        slices=slices,
        model=facts,
        failures=failures,
        titles=read_findings(data) or ({} if facts is None else facts.provenance.get("titles", {})),
        comparison=None
        if against is None
        else compare_tables([predictions, against], data, split=split),
    )


def _unmatched(findings: Sequence[str], data: Path, split: str) -> list[str]:
    """Returns a note if both predictions and labels have findings that the other one lacks."""
    files = label_files(data / split)
    columns = [name for name in findings if name not in files]
    labels = [file.name for name, file in files.items() if name not in findings]
    if not columns or not labels:
        return []
    return [
        f"no label file for {', '.join(columns)}, and no prediction for {', '.join(labels)}: "
        "if these are the same finding, use the same name"
    ]


def _slices_if_readable(folder: Path, axes: str | None) -> Mapping[str, SliceCounts]:
    """Returns slice counts, or none if the exams can't be read: without a model they may be."""
    exams = open_if_there(folder, axes)
    try:
        return {} if exams is None else count_slices(exams)
    except (MrkneeError, OSError):
        return {}


def _exams_for_model(folder: Path, axes: str | None) -> Dataset:
    if not folder.is_dir():
        raise DataError(
            "the exams that the model needs are missing",
            code="no-exams",
            file=folder,
            expected="a folder with axial/, coronal/, sagittal/",
            advice="omit the model to compare predictions with labels only",
        )
    exams = Dataset(folder, allow_missing_plane=True, axes=axes)
    exams.refuse_other_axes()
    return exams


def _positions(exams: Dataset, ids: Sequence[str]) -> list[int]:
    """Returns the indices of the predicted exams; not empty after `refuse_other_model`."""
    wanted = frozenset(ids)
    return [index for index, exam_id in enumerate(exams.ids) if exam_id in wanted]


def _sources(predictions: Predictions | str | Path) -> Mapping[str, tuple[str, ...]]:
    """Returns the tables joined by `Predictions.read_joined`, as folder/file -> findings."""
    if isinstance(predictions, Predictions):
        return {predictions.source or "predictions": tuple(predictions.findings)}
    paths = [Path(name) for name in prediction_files(predictions)]
    short = ["/".join(path.resolve().parts[-2:]) for path in paths]
    names = short if len(set(short)) == len(short) else [str(path) for path in paths]
    tables = [Predictions.read(path).findings for path in paths]
    return {name: tuple(findings) for name, findings in zip(names, tables, strict=True)}


def _model_facts(
    model: ModelPaths,
    table: Predictions,
    labels: Float[np.ndarray, "exams findings"],
    exams: Dataset,
) -> tuple[ModelFacts, Mapping[str, tuple[Failure, ...]]]:
    """Returns the properties of the model, and images of its worst errors."""
    from mrknee.reports.gallery import add_pictures, refuse_other_model

    predictor = load_model(model)
    refuse_other_model(predictor, table, exams)
    facts = ModelFacts(
        name_of(model),
        predictor.provenance,
        predictor.decisions.calibration,
        predictor.decisions.operating_points,
        _shared(paths_of(model), table.ids),
        predictor.explainable,
    )
    failures = _failures(table, labels, facts.operating_points)
    if predictor.explainable:
        failures = add_pictures(failures, predictor, table, exams)
    return facts, failures


def _shared(models: Sequence[Path], ids: Sequence[str]) -> Mapping[str, int] | None:
    """Returns part of the training -> number of these exams in that part of any of the models.

    None if no exam is known to be, and that is not known of all models.
    """
    splits = [RunFolder.containing(model).read_split() for model in models]
    known = [parts for parts in splits if parts is not None]
    names = dict.fromkeys(part for parts in known for part in parts)
    nothing: frozenset[str] = frozenset()
    counts = {
        part: len(nothing.union(*(parts.get(part, ()) for parts in known)).intersection(ids))
        for part in names
    }
    return counts if len(known) == len(splits) or any(counts.values()) else None


def _failures(
    table: Predictions,
    labels: Float[np.ndarray, "exams findings"],
    points: Mapping[str, Sequence[OperatingPoint]],
) -> Mapping[str, tuple[Failure, ...]]:
    """Returns finding -> worst errors at its first operating point, or at none."""
    failures = {}
    for column, finding in enumerate(table.findings):
        first = [one.threshold for one in points.get(finding, ())][:1]
        threshold = first[0] if first and not isnan(first[0]) else None
        failures[finding] = worst_failures(
            table.ids, labels[:, column], table.probabilities[:, column], threshold
        )
    return failures


def worst_failures(
    ids: Sequence[str],
    labels: Float[np.ndarray, " exams"],
    probabilities: Float[np.ndarray, " exams"],
    threshold: float | None,
) -> tuple[Failure, ...]:
    """Returns the negative exams that scored highest, and the positive ones that scored lowest.

    Args:
        ids: ids of the exams.
        labels: 1, 0 or NaN (unknown; never an error).
        probabilities: predicted probabilities, 0 to 1.
        threshold: only exams on the wrong side of the threshold are errors; None: all exams are
            eligible.

    Returns:
        At most `WORST` false positives, the worst first, then at most `WORST` false negatives.
    """

    def pick(
        kind: Literal["false positive", "false negative"], label: int, sign: int
    ) -> list[Failure]:
        order = np.argsort(-sign * probabilities, kind="stable")
        wrong = [
            i
            for i in order
            if labels[i] == label
            and (threshold is None or (probabilities[i] >= threshold) == (label == 0))
        ]
        return [Failure(ids[i], kind, float(probabilities[i])) for i in wrong[:WORST]]

    return (*pick("false positive", 0, 1), *pick("false negative", 1, -1))


def _optimism(facts: ModelFacts | None, data: Path, n_exams: int) -> list[str]:
    """Returns notes about reasons for optimistic scores, as far as the run records them.

    Exams are identified by their ids in the run's `split.csv`. Because two data sets can use the
    same ids, the note is qualified if the name of the data set differs.
    """
    if facts is None or facts.shared is None:
        return []
    trained_on = facts.provenance.get("data")
    members = facts.provenance.get("members", [facts.provenance])
    selected = dict.fromkeys(one.get("selected_on", {}).get("part") for one in members)
    notes = []
    for what, part in ((TRAINED, "train"), *((SELECTED, part) for part in selected)):
        count = facts.shared.get(part, 0)
        if not count:
            continue
        these = "these exams" if count == n_exams else f"{count} of these {n_exams} exams"
        if trained_on == data.resolve().name:
            notes.append(f"optimistic: by their ids, {what} {these}")
        else:
            notes.append(
                f"possibly optimistic: by their ids, {what} {these}, but the name of its data set "
                f"is {trained_on or 'unknown'}: it is not known whether the exams are the same"
            )
    return notes
