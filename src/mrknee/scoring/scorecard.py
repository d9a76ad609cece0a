"""The scorecard: how good a model's predictions are on one split, as one object and one file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Float

from mrknee.errors import MrkneeError
from mrknee.files import whole_file
from mrknee.scoring.discrimination import DELONG, Auc, auc
from mrknee.scoring.resampling import BOOTSTRAP, MeanAuc, mean_auc

VERSION = 1
"""Of the file's layout; a file of another version is refused."""


@dataclass(frozen=True)
class Scorecard:
    """What `scorecard.json` holds.

    Attributes:
        split: the name of the split that was scored.
        n_exams: exams scored, those with unknown labels too.
        findings: finding -> its AUC, in the order of the predictions.
        mean: the mean AUC over the findings that have one.
        seed: of the mean's resampling.
        notes: what a reader must know, for example that the epoch was selected on this split.
    """

    split: str
    n_exams: int
    findings: Mapping[str, Auc]
    mean: MeanAuc
    seed: int = 0
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "findings", MappingProxyType(dict(self.findings)))
        object.__setattr__(self, "notes", tuple(self.notes))

    def to_json(self) -> str:
        """The scorecard as JSON text; a number that can't be computed is null, with its reason."""
        content = {
            "version": VERSION,
            "split": self.split,
            "n_exams": self.n_exams,
            "findings": {
                name: {
                    "auc": _number(one.value),
                    "auc_ci": [_number(one.low), _number(one.high)],
                    "n_positive": one.n_positive,
                    "n_negative": one.n_negative,
                    "method": one.method,
                    "reason": one.reason,
                }
                for name, one in self.findings.items()
            },
            "mean_auc": _number(self.mean.value),
            "mean_auc_ci": [_number(self.mean.low), _number(self.mean.high)],
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
        """Makes a scorecard from what `to_json` wrote.

        Args:
            text: the JSON text.
            file: where it came from, for the error's message.

        Raises:
            MrkneeError: it isn't JSON, is of another version, or lacks something.
        """
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            raise MrkneeError("a scorecard is not JSON", file=file, found=str(error)) from None
        version = content.get("version") if isinstance(content, dict) else None
        if version != VERSION:
            raise MrkneeError(
                "a scorecard is of another version",
                file=file,
                expected=f"version {VERSION}",
                found=f"version {version}",
                advice="evaluate the predictions again",
            )
        try:
            return cls(
                split=content["split"],
                n_exams=content["n_exams"],
                findings={name: _read_auc(one) for name, one in content["findings"].items()},
                mean=_read_mean(content),
                seed=content["seed"],
                notes=tuple(content["notes"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise MrkneeError(
                "a scorecard can't be read",
                file=file,
                expected="a file that mrknee wrote",
                found=f"{type(error).__name__}: {error}",
            ) from None

    def write(self, path: Path) -> None:
        """Writes the JSON file, whole or not at all; its folder is made if it isn't there."""
        with whole_file(path) as beside:
            beside.write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Scorecard:
        """Reads what `write` wrote.

        Raises:
            MrkneeError: there is no such file, or it isn't a scorecard of this version.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise MrkneeError("there is no scorecard here", file=path) from None
        return cls.from_json(text, file=path)

    def table(self) -> str:
        """The AUCs with 95 % intervals and counts, as plain text: a line a finding and the mean.

        What is out of the ordinary (no AUC, another interval than DeLong's, notes) is told in
        lines below the table.
        """
        rows = [("finding", "AUC", "95 % interval", "positive", "negative")]
        for name, one in self.findings.items():
            shown = _shown(one.value), _interval(one.low, one.high)
            rows.append((name, *shown, str(one.n_positive), str(one.n_negative)))
        mean = self.mean
        rows.append(("mean", _shown(mean.value), _interval(mean.low, mean.high), "", ""))
        widths = [max(len(row[i]) for row in rows) for i in range(5)]
        lines = [
            "  ".join(
                # Names to the left, numbers to the right.
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        rule = "-" * max(len(line) for line in lines)
        body = [lines[0], rule, *lines[1:-1], rule, lines[-1]]
        title = f"{self.split}: {self.n_exams} exam" + ("" if self.n_exams == 1 else "s")
        return "\n".join([title, *body, *self._remarks()]) + "\n"

    def _remarks(self) -> list[str]:
        remarks = []
        for name, one in self.findings.items():
            if one.reason is not None:
                remarks.append(f"{name}: no AUC: {one.reason}")
            elif one.method != DELONG:
                remarks.append(f"{name}: interval by {one.method}")
        if self.mean.reason is not None:
            remarks.append(f"mean: {self.mean.reason}")
        elif self.mean.left_out:
            remarks.append(f"mean: without {', '.join(self.mean.left_out)}")
        if self.mean.reason is None and self.mean.method != BOOTSTRAP:
            remarks.append(f"mean: interval by {self.mean.method}")
        return remarks + [f"note: {note}" for note in self.notes]


def score(
    findings: Sequence[str],
    labels: Float[np.ndarray, "exams findings"],
    probabilities: Float[np.ndarray, "exams findings"],
    *,
    split: str,
    seed: int = 0,
    notes: Sequence[str] = (),
) -> Scorecard:
    """Scores predictions against labels.

    Args:
        findings: the findings' names, one a column.
        labels: 1 present, 0 absent, NaN not known: left out of that finding's AUC.
        probabilities: 0 to 1.
        split: the name of the split that was scored.
        seed: of the mean's resampling.
        notes: what a reader of the scorecard must know.

    Raises:
        MrkneeError: a probability is NaN or outside 0 to 1, or a label is not 0, 1 or NaN.
    """
    outside = ~((probabilities >= 0) & (probabilities <= 1))
    if outside.any():
        exam, finding = np.argwhere(outside)[0]
        raise MrkneeError(
            "a probability is not between 0 and 1",
            expected="0 to 1",
            found=f"{probabilities[exam, finding]} for {findings[finding]}, row {exam} "
            f"({int(outside.sum())} of {outside.size} are so)",
        )
    return Scorecard(
        split=split,
        n_exams=len(labels),
        findings={name: auc(labels[:, i], probabilities[:, i]) for i, name in enumerate(findings)},
        mean=mean_auc(findings, labels, probabilities, seed=seed),
        seed=seed,
        notes=tuple(notes),
    )


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _nan_or(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _read_auc(one: Mapping[str, Any]) -> Auc:
    low, high = one["auc_ci"]
    return Auc(
        _nan_or(one["auc"]),
        _nan_or(low),
        _nan_or(high),
        one["n_positive"],
        one["n_negative"],
        one["method"],
        one["reason"],
    )


def _read_mean(content: Mapping[str, Any]) -> MeanAuc:
    low, high = content["mean_auc_ci"]
    return MeanAuc(
        _nan_or(content["mean_auc"]),
        _nan_or(low),
        _nan_or(high),
        tuple(content["mean_auc_findings"]),
        tuple(content["mean_auc_left_out"]),
        content["mean_auc_method"],
        content["mean_auc_reason"],
    )


def _shown(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _interval(low: float, high: float) -> str:
    return "-" if math.isnan(low) else f"{low:.3f} to {high:.3f}"
