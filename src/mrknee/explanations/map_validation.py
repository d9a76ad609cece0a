"""Validation of a model's heat maps on a data set, by localisation and deletion.

Localisation (`mrknee.explanations.localisation`) compares maps with masks of lesions; deletion
(`mrknee.explanations.faithfulness`) needs no masks. Both are measured on the exams that have a
finding.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool

from mrknee.errors import DataError
from mrknee.exams import Dataset
from mrknee.exams.lesions import mask_file, read_mask
from mrknee.explanations.explanation import Explanation
from mrknee.explanations.faithfulness import Deletion, deletion
from mrknee.explanations.localisation import (
    Localisation,
    LocalisationScore,
    localise,
    mean_interval,
    summarise,
)
from mrknee.files import write_text
from mrknee.metrics.json_values import to_json_values
from mrknee.progress import track
from mrknee.tables import table_lines

if TYPE_CHECKING:
    from mrknee.inference.model import Model

VERSION = 1
"""Version of the layout of `maps.json`."""

TOGETHER = "all series"
"""Key, in place of a series' name, of the results for all series taken as one image."""

SHARE, SETS = 0.1, 10
"""Fraction of an exam's slices that deletion removes, and number of random sets per exam."""

Masks = Mapping[str, Bool[np.ndarray, "_ _ _"]]


@dataclass(frozen=True)
class DeletionScore:
    """Decrease of a finding's logit without the hottest slices, compared with random slices.

    Attributes:
        n: number of exams.
        hottest: mean decrease of the logit without the hottest slices; NaN without exams.
        random: mean decrease of the logit without as many random slices.
        difference: hottest - random.
        low: lower end of the difference's 95 % interval, from resampling exams; NaN if n < 2.
        high: upper end of this interval.
        lower: number of exams in which the decrease is larger without the hottest slices.
    """

    n: int
    hottest: float
    random: float
    difference: float
    low: float
    high: float
    lower: int


@dataclass(frozen=True)
class FindingMaps:
    """Validation of the maps of one finding.

    Attributes:
        n_positive: number of exams that have the finding.
        without_masks: number of these exams that lack the mask of a series; they are excluded from
            localisation.
        localisation: series, or `TOGETHER`, -> score over the exams whose lesion is in view.
        out_of_view: series, or `TOGETHER`, -> number of exams with masks whose lesion lies outside
            of what the network sees.
        deletion: result of deletion over all exams that have the finding.
    """

    n_positive: int
    without_masks: int
    localisation: Mapping[str, LocalisationScore]
    out_of_view: Mapping[str, int]
    deletion: DeletionScore


@dataclass(frozen=True, repr=False)
class MapValidation:
    """Validation of a model's heat maps on one split, as written to `maps.json`.

    Attributes:
        data: name of the data set's folder.
        split: the split.
        findings: finding -> validation of its maps.
    """

    data: str
    split: str
    findings: Mapping[str, FindingMaps]

    def __repr__(self) -> str:
        return self.table().rstrip()

    def to_json(self) -> str:
        """Returns the results as JSON text; numbers that can't be computed are null."""
        content = {"version": VERSION, "share": SHARE, "sets": SETS, **to_json_values(self)}
        return json.dumps(content, indent=2, allow_nan=False) + "\n"

    def write(self, path: str | Path) -> None:
        """Writes the JSON file atomically."""
        write_text(Path(path), self.to_json())

    def table(self) -> str:
        """Returns the results as plain text: localisation, if there are masks, and deletion."""
        places = [["finding", "series", "n", "slice hit (95 %)", "chance", "p"]]
        places[0].append("heat inside - even (95 %)")
        falls = [["finding", "n", "hottest", "random", "difference (95 %)"]]
        for finding, one in self.findings.items():
            for where, score in one.localisation.items():
                hit, heat = score.slices.observed, score.heat
                cells = [_range(hit.value, hit.low, hit.high, ".2f"), f"{score.slices.chance:.2f}"]
                cells += [f"{score.slices.p:.2g}"]
                cells += [_range(heat.difference, heat.low, heat.high, "+.4f")]
                places.append([finding, where, str(hit.n), *cells])
            fall = one.deletion
            cells = [f"{fall.hottest:+.2f}", f"{fall.random:+.2f}"]
            cells += [_range(fall.difference, fall.low, fall.high, "+.2f")]
            falls.append([finding, str(fall.n), *cells])
        lines = [f"{self.data}, {self.split}: exams that have the finding", ""]
        if len(places) > 1:
            lines.append(
                "The hottest slice contains the lesion; share of positive heat inside the lesion"
            )
            lines += table_lines(places)
        else:
            lines.append("Localisation: there are no masks of lesions")
        lines += ["", f"Fall of the logit without the hottest {SHARE:.0%} of slices"]
        return "\n".join([*lines, *table_lines(falls)]) + "\n"


def validate_maps(model: Model, exams: Dataset, *, seed: int = 0) -> MapValidation:
    """Validates a model's heat maps by localisation and deletion.

    Args:
        model: the model.
        exams: a split of a data set with labels of some of the model's findings. Masks are read
            from `lesions/SPLIT/FINDING/SERIES/ID.npy` in the data set's folder. A mask has the
            shape and the order of axes of its stack, and is above 0 in the lesion.
        seed: random seed of the random slices and of resampling.

    Returns:
        The results for each finding that both the model and the labels have.

    Raises:
        MrkneeError: no exam is labelled positive for one of the findings; an exam or a mask can't
            be read; or the shape of a mask differs from that of its stack.
    """
    labelled = list(exams.findings or ())
    findings = [name for name in model.findings if name in labelled]
    having = {
        exam_id: [name for name in findings if labels[labelled.index(name)] == 1]
        for exam_id, labels in zip(exams.ids, exams.labels, strict=True)
    }
    positive = {exam_id: names for exam_id, names in having.items() if names}
    if not positive:
        raise DataError(
            "no exam is known to have a finding of the model",
            code="no-labels",
            file=exams.folder,
            expected="labels with 1 for some of " + ", ".join(model.findings),
            found=", ".join(labelled) or "no label file",
        )
    found: dict[str, dict[str, list[Localisation]]] = {name: {} for name in findings}
    out_of_view: dict[str, dict[str, int]] = {name: {} for name in findings}
    falls: dict[str, list[Deletion]] = {name: [] for name in findings}
    without = dict.fromkeys(findings, 0)
    for exam_id in track(positive, len(positive), "explaining"):
        exam = exams[exam_id]
        made = model.explain(exam)
        for name in positive[exam_id]:
            masks = read_masks(exams, name, made)
            number = seed + len(falls[name])
            falls[name].append(
                deletion(model, exam, made, name, share=SHARE, sets=SETS, seed=number)
            )
            if masks is None:
                without[name] += 1
                continue
            places = localise_exam(made, name, masks)
            for where in (*made.native, TOGETHER):
                if where in places:
                    found[name].setdefault(where, []).append(places[where])
                else:
                    out_of_view[name][where] = out_of_view[name].get(where, 0) + 1
    return MapValidation(
        exams.root.resolve().name,
        exams.split or exams.folder.name,
        {
            name: FindingMaps(
                len(falls[name]),
                without[name],
                {where: summarise(each, seed=seed) for where, each in found[name].items()},
                out_of_view[name],
                summarise_deletions(falls[name], seed=seed),
            )
            for name in findings
        },
    )


def read_masks(exams: Dataset, finding: str, made: Explanation) -> Masks | None:
    """Reads an exam's masks of a finding.

    Args:
        exams: the data set.
        finding: the finding.
        made: the explanation of the exam.

    Returns:
        Series -> mask; None if one of the explained series lacks a mask.

    Raises:
        MrkneeError: a mask can't be read, or its shape differs from that of its stack.
    """
    if not all(mask_file(exams, finding, name, made.exam).exists() for name in made.native):
        return None
    return {
        name: read_mask(exams, finding, name, made.exam, made.shapes[name]) for name in made.native
    }


def localise_exam(made: Explanation, finding: str, masks: Masks) -> dict[str, Localisation]:
    """Compares an exam's map of a finding with the lesion.

    Args:
        made: the explanation of the exam.
        finding: the finding.
        masks: series -> mask of the lesion.

    Returns:
        Series, and `TOGETHER`, -> localisation among the slices that the network reads; without
        those in which it sees no pixel of the lesion.
    """
    seen = {name: made.seen(name) for name in masks}
    heats = {name: made.heat(name, finding)[made.slices_read(name)] for name in masks}
    lesions = {name: mask[made.slices_read(name)] for name, mask in masks.items()}
    found = {}
    for where in (*masks, TOGETHER):
        names = list(masks) if where == TOGETHER else [where]
        if any((lesions[name] & seen[name]).any() for name in names):
            parts = [[part[name] for name in names] for part in (heats, lesions, seen)]
            found[where] = localise(*parts)
    return found


def summarise_deletions(falls: Sequence[Deletion], *, seed: int = 0) -> DeletionScore:
    """Computes means, and the interval of their difference, over exams.

    Args:
        falls: one entry per exam.
        seed: random seed of resampling.
    """
    if not falls:
        nan = math.nan
        return DeletionScore(0, nan, nan, nan, nan, nan, 0)
    hottest, random = np.array([(one.hottest, one.random) for one in falls], dtype=np.float64).T
    difference, low, high = mean_interval(hottest - random, seed=seed)
    lower = int((hottest > random).sum())
    return DeletionScore(
        len(falls), float(hottest.mean()), float(random.mean()), difference, low, high, lower
    )


def _range(value: float, low: float, high: float, form: str) -> str:
    if math.isnan(low):
        return "-" if math.isnan(value) else f"{value:{form}}"
    return f"{value:{form}} ({low:{form}} to {high:{form}})"
