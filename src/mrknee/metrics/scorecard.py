"""Scorecard: all scores of a model's predictions on one split, as an object and a JSON file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float

from mrknee.errors import DataError, SettingsError
from mrknee.extras import data_frame
from mrknee.files import write_text
from mrknee.metrics.calibration import Calibration, shift_prevalence
from mrknee.metrics.curves import AveragePrecision, average_precision
from mrknee.metrics.discrimination import DELONG, Auc, auc, no_auc_reason
from mrknee.metrics.formatting import format_exams, format_interval, format_number, unlabelled_note
from mrknee.metrics.json_values import from_json_values, nan_if_none, to_json_values
from mrknee.metrics.operating_point import OperatingPoint, OperatingScore, score_operating_point
from mrknee.metrics.proportions import check_prevalence
from mrknee.metrics.reliability import Brier, Reliability, brier, reliability
from mrknee.metrics.resampling import BOOTSTRAP, MeanAuc, mean_auc
from mrknee.tables import table_lines
from mrknee.untrusted import DESCRIPTION_BYTES, parse_json, read_text

if TYPE_CHECKING:
    from pandas import DataFrame

VERSION = 2
"""Version of the file format; files of other versions are rejected."""

Column = Float[np.ndarray, " exams"]


class ShiftedCalibration(NamedTuple):
    """Calibration at a stated prevalence of the finding, to which the probabilities are shifted.

    Attributes:
        prevalence: the stated share of exams with the finding.
        brier: Brier score of the shifted probabilities, with exams weighted to the prevalence.
        reliability: reliability diagram and ECE of the shifted probabilities, weighted likewise.
        reason: why `brier` and `reliability` hold NaN, or None.
    """

    prevalence: float
    brier: Brier
    reliability: Reliability
    reason: str | None = None


@dataclass(frozen=True)
class FindingScore:
    """The scores of one finding.

    Attributes:
        auc: the area under the ROC curve.
        average_precision: the area under the precision-recall curve.
        brier: the Brier score of the probabilities as predicted.
        reliability: reliability diagram and ECE of the probabilities as predicted.
        operating: one score per operating point, in the order given; may be empty.
        corrected: Brier score and reliability at a stated prevalence; None if none was stated.
    """

    auc: Auc
    average_precision: AveragePrecision
    brier: Brier
    reliability: Reliability
    operating: tuple[OperatingScore, ...] = ()
    corrected: ShiftedCalibration | None = None


@dataclass(frozen=True, repr=False)
class Scorecard:
    """The scores of predictions on one split, with 95 % intervals: the content of `scorecard.json`.

    Attributes:
        split: the name of the split that was scored.
        n_exams: number of exams, including those with unknown labels.
        findings: finding -> scores, in the order of the predictions.
        mean: the mean AUC over the findings that have an AUC.
        seed: seed of the resampling.
        notes: notes for readers, for example that the epoch was selected on this split.

    Example:
        >>> import mrknee
        >>> card = mrknee.Scorecard.read("runs/first/scorecard.json")
        >>> card.n_exams, sorted(card.findings)
        (6, ['abnormal', 'acl', 'meniscus'])
        >>> axes = card.plot()
    """

    split: str
    n_exams: int
    findings: Mapping[str, FindingScore]
    mean: MeanAuc
    seed: int = 0
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return self.table().rstrip()

    def to_frame(self) -> DataFrame:
        """Returns the scores as a pandas DataFrame: one row per finding, one for the mean.

        Columns: `auc`, `auc_low`, `auc_high` (95 % interval), `n_positive`, `n_negative`,
        `average_precision`, `brier`, `ece`. What can't be computed is NaN.

        Raises:
            PlatformError: pandas is not installed.
        """
        scores, mean, nan = list(self.findings.values()), self.mean, math.nan
        columns = {
            "auc": [*(one.auc.value for one in scores), mean.value],
            "auc_low": [*(one.auc.low for one in scores), mean.low],
            "auc_high": [*(one.auc.high for one in scores), mean.high],
            "n_positive": [*(one.auc.n_positive for one in scores), nan],
            "n_negative": [*(one.auc.n_negative for one in scores), nan],
            "average_precision": [*(one.average_precision.value for one in scores), nan],
            "brier": [*(one.brier.value for one in scores), nan],
            "ece": [*(one.reliability.ece for one in scores), nan],
        }
        return data_frame(columns, [*self.findings, "mean"], "finding")

    def plot(self) -> Any:  # noqa: ANN401  # matplotlib axes; an evaluation's are several
        """Draws the AUC of each finding and the mean AUC with their 95 % intervals.

        Returns:
            matplotlib axes.

        Raises:
            PlatformError: matplotlib is not installed.
        """
        from mrknee.metrics.plot import plot_intervals  # imported here, because it needs matplotlib

        rows = [
            (name, one.auc.value, one.auc.low, one.auc.high) for name, one in self.findings.items()
        ]
        mean = ("mean", self.mean.value, self.mean.low, self.mean.high)
        return plot_intervals([*rows, mean], "AUC", reference=0.5)

    def __post_init__(self) -> None:
        object.__setattr__(self, "findings", MappingProxyType(dict(self.findings)))
        object.__setattr__(self, "notes", tuple(self.notes))

    def __eq__(self, other: object) -> bool:
        # compared by JSON text, in which two NaN are equal
        return isinstance(other, Scorecard) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(self.to_json())

    def to_json(self) -> str:
        """Returns the scorecard as JSON; a number that can't be computed is null, with a reason."""
        content = {
            "version": VERSION,
            "split": self.split,
            "n_exams": self.n_exams,
            "findings": {
                name: {
                    "auc": to_json_values(one.auc.value),
                    "auc_ci": [to_json_values(one.auc.low), to_json_values(one.auc.high)],
                    "n_positive": one.auc.n_positive,
                    "n_negative": one.auc.n_negative,
                    "method": one.auc.method,
                    "reason": one.auc.reason,
                    "average_precision": to_json_values(one.average_precision),
                    "brier": to_json_values(one.brier),
                    "reliability": to_json_values(one.reliability),
                    "operating": to_json_values(one.operating),
                    "corrected": to_json_values(one.corrected and one.corrected._asdict()),
                }
                for name, one in self.findings.items()
            },
            "mean_auc": to_json_values(self.mean.value),
            "mean_auc_ci": [to_json_values(self.mean.low), to_json_values(self.mean.high)],
            "mean_auc_findings": list(self.mean.findings),
            "mean_auc_left_out": list(self.mean.left_out),
            "mean_auc_method": self.mean.method,
            "mean_auc_reason": self.mean.reason,
            "seed": self.seed,
            "notes": list(self.notes),
        }
        return json.dumps(content, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, *, file: Path | None = None) -> Scorecard:
        """Creates a scorecard from the output of `to_json`.

        Args:
            text: the JSON text.
            file: the file that the text was read from, for error messages.

        Raises:
            MrkneeError: the text is not JSON, has another version, or lacks a field.
        """
        content = parse_json(text, file, "scorecard")
        version = content.get("version") if isinstance(content, dict) else None
        if version != VERSION:
            raise DataError(
                "the scorecard has another version",
                code="scorecard",
                file=file,
                expected=f"version {VERSION}",
                found=f"version {version}",
                advice="evaluate the predictions again",
            )
        try:
            return Scorecard(
                split=content["split"],
                n_exams=content["n_exams"],
                findings={name: _read_finding(one) for name, one in content["findings"].items()},
                mean=_read_mean(content),
                seed=content["seed"],
                notes=tuple(_read_note(note) for note in content["notes"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                "the scorecard can't be read",
                code="scorecard",
                file=file,
                expected="a file written by mrknee",
                found=f"{type(error).__name__}: {error}",
            ) from None

    def write(self, path: str | Path) -> None:
        """Writes the JSON file atomically; creates its folder if needed."""
        write_text(Path(path), self.to_json())

    @classmethod
    def read(cls, path: str | Path) -> Scorecard:
        """Reads a scorecard file.

        Raises:
            MrkneeError: the file doesn't exist or is not a scorecard of this version.
        """
        path = Path(path)
        text = read_text(path, "scorecard", at_most=DESCRIPTION_BYTES)
        return cls.from_json(text, file=path)

    def table(self) -> str:
        """Returns the scores with 95 % intervals and counts, as plain text.

        First the AUCs (one line per finding, and the mean), then Brier score and ECE, then the
        operating points, if any. Exceptions (no AUC, an interval other than DeLong's) are listed
        below the AUCs; notes come last.
        """
        title = f"{self.split}: {format_exams(self.n_exams)}"
        lines = [title, *self._auc_lines(), *self._exceptions(), "", *self._calibration_lines()]
        for name, one in self.findings.items():
            for operating in one.operating:
                lines += ["", *_operating_lines(name, operating)]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)]) + "\n"

    def _auc_lines(self) -> list[str]:
        rows = [("finding", "AUC", "95 % interval", "positive", "negative")]
        for name, one in self.findings.items():
            cells = format_number(one.auc.value), format_interval(one.auc.low, one.auc.high)
            rows.append((name, *cells, str(one.auc.n_positive), str(one.auc.n_negative)))
        mean = self.mean
        rows.append(
            ("mean", format_number(mean.value), format_interval(mean.low, mean.high), "", "")
        )
        lines = table_lines(rows, left=1)
        return [*lines[:-1], lines[1], lines[-1]]

    def _exceptions(self) -> list[str]:
        lines = []
        for name, one in self.findings.items():
            if one.auc.reason is not None:
                lines.append(f"{name}: no AUC: {one.auc.reason}")
            elif one.auc.method != DELONG:
                lines.append(f"{name}: interval by {one.auc.method}")
        if self.mean.reason is not None:
            lines.append(f"mean: {self.mean.reason}")
        elif self.mean.left_out:
            lines.append(f"mean: without {', '.join(self.mean.left_out)}")
        if self.mean.reason is None and self.mean.method != BOOTSTRAP:
            lines.append(f"mean: interval by {self.mean.method}")
        return lines

    def _calibration_lines(self) -> list[str]:
        titles = "finding", "Brier", "95 % interval", "reference", "ECE", "95 % interval", "chance"
        rows: list[tuple[str, ...]] = [titles]
        for name, one in self.findings.items():
            rows.append((name, *_calibration_cells(one.brier, one.reliability)))
            if one.corrected is not None:
                cells = _calibration_cells(one.corrected.brier, one.corrected.reliability)
                rows.append((f" at {one.corrected.prevalence:.2f}", *cells))
        lines = table_lines(rows, left=1)
        legend = [
            "reference: Brier score of always predicting the prevalence",
            "chance: expected ECE of perfectly calibrated probabilities in these exams",
        ]
        if any(one.corrected is not None for one in self.findings.values()):
            legend.append("at: probabilities shifted, and exams weighted, to the stated prevalence")
        for name, one in self.findings.items():
            if one.corrected is not None and one.corrected.reason is not None:
                at = f"{one.corrected.prevalence:.2f}"
                legend.append(f"{name}: not shifted to {at}: {one.corrected.reason}")
        return [*lines, *legend]


def score(
    findings: Sequence[str],
    labels: Float[np.ndarray, "exams findings"],
    probabilities: Float[np.ndarray, "exams findings"],
    *,
    split: str,
    seed: int = 0,
    notes: Sequence[str] = (),
    operating_points: Mapping[str, Sequence[OperatingPoint]] = {},
    calibration: Calibration | None = None,
    prevalences: Mapping[str, float] = {},
) -> Scorecard:
    """Scores predictions against labels.

    Args:
        findings: names of the findings, one per column.
        labels: 1 present, 0 absent, NaN unknown: excluded from the scores of that finding.
        probabilities: 0 to 1; already calibrated, if calibrated ones are to be scored.
        split: name of the split.
        seed: seed of the resampling.
        notes: notes for readers of the scorecard.
        operating_points: finding -> points fixed on other exams; points of findings that are not
            scored are ignored.
        calibration: the calibration that was applied to the probabilities; it states the
            prevalence they were calibrated at.
        prevalences: finding -> a stated share of exams with the finding, above 0 and below 1, for
            PPV and NPV and, if `calibration` was fitted for the finding, for shifted probabilities.

    Returns:
        The scorecard.

    Raises:
        MrkneeError: a probability is NaN or outside 0 to 1, a label is not 0, 1 or NaN, or a
            prevalence is out of range or belongs to a finding that is not scored.
    """
    outside = ~((probabilities >= 0) & (probabilities <= 1))
    if outside.any():
        exam, finding = np.argwhere(outside)[0]
        raise DataError(
            "a probability is not between 0 and 1",
            code="probability",
            expected="0 to 1",
            found=f"{probabilities[exam, finding]} for {findings[finding]}, row {exam} "
            f"({int(outside.sum())} of {outside.size} values)",
        )
    for name, prevalence in prevalences.items():
        check_prevalence(prevalence)
        if name not in findings:
            raise SettingsError(
                "a prevalence is stated for a finding that isn't scored",
                code="prevalence",
                expected=f"one of {', '.join(findings)}",
                found=name,
            )

    def score_finding(name: str, y: Column, p: Column) -> FindingScore:
        stated = prevalences.get(name)
        return FindingScore(
            auc=auc(y, p),
            average_precision=average_precision(y, p, seed=seed),
            brier=brier(y, p, seed=seed),
            reliability=reliability(y, p, seed=seed),
            operating=tuple(
                score_operating_point(point, y, p, prevalence=stated)
                for point in operating_points.get(name, ())
            ),
            corrected=None
            if stated is None
            else _shifted_calibration(name, y, p, calibration, stated, seed),
        )

    return Scorecard(
        split=split,
        n_exams=len(labels),
        findings={
            name: score_finding(name, labels[:, i], probabilities[:, i])
            for i, name in enumerate(findings)
        },
        mean=mean_auc(findings, labels, probabilities, seed=seed),
        seed=seed,
        notes=(*notes, *unlabelled_note(labels)),
    )


def _shifted_calibration(
    name: str, y: Column, p: Column, calibration: Calibration | None, after: float, seed: int
) -> ShiftedCalibration:
    reason = _why_not_shifted(name, y, calibration)
    if calibration is None or reason is not None:
        nan = math.nan
        return ShiftedCalibration(
            after,
            Brier(nan, nan, nan, nan, 0, "none"),
            Reliability((), nan, nan, nan, nan, 0, "none", "none"),
            reason,
        )
    shifted = shift_prevalence(p, calibration.prevalences[name], after)
    return ShiftedCalibration(
        after,
        brier(y, shifted, prevalence=after, seed=seed),
        reliability(y, shifted, prevalence=after, seed=seed),
    )


def _why_not_shifted(name: str, y: Column, calibration: Calibration | None) -> str | None:
    if calibration is None:
        return "the calibration of the probabilities is unknown"
    before = calibration.prevalences.get(name, math.nan)
    if math.isnan(before):
        return calibration.reasons.get(name, "the calibration lacks this finding")
    positives, negatives = int((y == 1).sum()), int((y == 0).sum())
    return no_auc_reason(positives, negatives) if 0 in (positives, negatives) else None


def _read_finding(one: Mapping[str, Any]) -> FindingScore:
    low, high = (nan_if_none(end) for end in one["auc_ci"])
    sizes = one["n_positive"], one["n_negative"]
    corrected = one["corrected"]
    return FindingScore(
        auc=Auc(nan_if_none(one["auc"]), low, high, *sizes, one["method"], one["reason"]),
        average_precision=from_json_values(AveragePrecision, one["average_precision"]),
        brier=from_json_values(Brier, one["brier"]),
        reliability=from_json_values(Reliability, one["reliability"]),
        operating=tuple(from_json_values(OperatingScore, point) for point in one["operating"]),
        corrected=None
        if corrected is None
        else ShiftedCalibration(
            float(corrected["prevalence"]),
            from_json_values(Brier, corrected["brier"]),
            from_json_values(Reliability, corrected["reliability"]),
            corrected["reason"],
        ),
    )


def _read_note(note: object) -> str:
    if not isinstance(note, str):
        raise TypeError(f"expected a text as note, found {note!r}")
    return note


def _read_mean(content: Mapping[str, Any]) -> MeanAuc:
    low, high = content["mean_auc_ci"]
    return MeanAuc(
        nan_if_none(content["mean_auc"]),
        nan_if_none(low),
        nan_if_none(high),
        tuple(content["mean_auc_findings"]),
        tuple(content["mean_auc_left_out"]),
        content["mean_auc_method"],
        content["mean_auc_reason"],
    )


def _calibration_cells(score: Brier, diagram: Reliability) -> tuple[str, ...]:
    return (
        format_number(score.value),
        format_interval(score.low, score.high),
        format_number(score.reference),
        format_number(diagram.ece),
        format_interval(diagram.ece_low, diagram.ece_high),
        format_number(diagram.ece_if_calibrated),
    )


def _operating_lines(name: str, one: OperatingScore) -> list[str]:
    point = one.point
    if point.reason is not None:
        return [f"{name}, {point.rule}: no threshold: {point.reason}"]
    origin = f"fixed on {point.n_positive} positive, {point.n_negative} negative"
    lines = [f"{name}, {point.rule}: p >= {point.threshold:.4g}, {origin}"]
    proportions = {
        "sensitivity": one.sensitivity,
        "specificity": one.specificity,
        "PPV": one.ppv,
        "NPV": one.npv,
    }
    for title, share in proportions.items():
        numbers = _with_interval(share.value, share.low, share.high)
        lines.append(f"  {title:<11}  {numbers}, {share.count}/{share.n}")
    at = one.at_prevalence
    if at is not None:
        ppv = _with_interval(at.ppv, at.ppv_low, at.ppv_high)
        npv = _with_interval(at.npv, at.npv_low, at.npv_high)
        lines.append(f"  at a prevalence of {at.prevalence:.2f}: PPV {ppv}, NPV {npv}")
    return lines


def _with_interval(value: float, low: float, high: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f} ({low:.2f} to {high:.2f})"
