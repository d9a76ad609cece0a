"""Are a model's heat maps worth anything? Localisation and deletion, measured on a data set.

Localisation (`mrknee.scoring.localisation`) needs masks of the lesions, deletion
(`mrknee.inference.faithfulness`) needs none. Both are measured on the exams that have a finding.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from mrknee.errors import DataError
from mrknee.exams import Dataset, read_stack
from mrknee.files import whole_file
from mrknee.inference.explanation import Explanation
from mrknee.inference.faithfulness import Deletion, deletion
from mrknee.inference.model import Model
from mrknee.progress import track
from mrknee.scoring.localisation import (
    Localisation,
    LocalisationScore,
    localise,
    mean_interval,
    summarise,
)

VERSION = 1
"""Of the layout of `maps.json`."""

TOGETHER = "all series"
"""In place of a series' name: the hottest slice and pixel are those of any series."""

SHARE, SETS = 0.1, 10
"""Of an exam's slices, the share left out by deletion; and sets of random slices per exam."""

Masks = Mapping[str, Bool[np.ndarray, "_ _ _"]]


@dataclass(frozen=True)
class DeletionScore:
    """How far a finding's logit falls without the hottest slices, against random ones.

    Attributes:
        n: exams.
        hottest: mean fall without the hottest slices, in units of the logit; NaN without exams.
        random: mean fall without as many slices drawn at random.
        difference: hottest - random.
        low: lower end of the difference's 95 % interval, from resampling exams; NaN when n < 2.
        high: its upper end.
        lower: in how many exams the hottest slices lower the logit more.
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
    """What a finding's maps are worth.

    Attributes:
        n_positive: exams that have the finding.
        without_masks: those of them that lack a mask in a series, and aren't localised.
        localisation: series, or `TOGETHER`, -> its score, over exams whose lesion is in view.
        out_of_view: series, or `TOGETHER`, -> exams with masks whose lesion the network doesn't
            see there.
        deletion: without the hottest slices, over all exams that have the finding.
    """

    n_positive: int
    without_masks: int
    localisation: Mapping[str, LocalisationScore]
    out_of_view: Mapping[str, int]
    deletion: DeletionScore


@dataclass(frozen=True, repr=False)
class MapValidation:
    """What a model's heat maps are worth on a split: what `maps.json` holds.

    Attributes:
        data: the name of the data set's folder.
        split: the split.
        findings: finding -> what its maps are worth.
    """

    data: str
    split: str
    findings: Mapping[str, FindingMaps]

    def __repr__(self) -> str:
        return self.table().rstrip()

    def to_json(self) -> str:
        """All of it as JSON text; a number that can't be computed is null."""
        content = {"version": VERSION, "share": SHARE, "sets": SETS, **asdict(self)}
        return json.dumps(_plain(content), indent=2, allow_nan=False) + "\n"

    def write(self, path: str | Path) -> None:
        """Writes the JSON file, whole or not at all."""
        with whole_file(Path(path)) as beside:
            beside.write_text(self.to_json(), encoding="utf-8")

    def table(self) -> str:
        """Localisation, where there are masks, and deletion, as plain text."""
        from rich.console import Console
        from rich.table import Table

        console = Console(file=io.StringIO(), width=120, color_system=None)
        places = Table("finding", "series", "n", box=None, title_justify="left")
        for heading in ("slice hit (95 %)", "chance", "p", "heat inside - even (95 %)"):
            places.add_column(heading)
        falls = Table("finding", "n", "hottest", "random", "difference (95 %)", box=None)
        for finding, one in self.findings.items():
            for where, score in one.localisation.items():
                hit, heat = score.slices.observed, score.heat
                cells = [_range(hit.value, hit.low, hit.high, ".2f"), f"{score.slices.chance:.2f}"]
                cells += [f"{score.slices.p:.2g}"]
                cells += [_range(heat.difference, heat.low, heat.high, "+.4f")]
                places.add_row(finding, where, str(hit.n), *cells)
            fall = one.deletion
            cells = [f"{fall.hottest:+.2f}", f"{fall.random:+.2f}"]
            cells += [_range(fall.difference, fall.low, fall.high, "+.2f")]
            falls.add_row(finding, str(fall.n), *cells)
        console.print(f"{self.data}, {self.split}: exams that have the finding\n")
        if any(one.localisation for one in self.findings.values()):
            console.print("The slice with most heat holds the lesion; share of positive heat in it")
            console.print(places)
        else:
            console.print("Localisation: there are no masks of lesions")
        console.print(f"\nFall of the logit without the hottest {SHARE:.0%} of slices")
        console.print(falls)
        file = console.file
        assert isinstance(file, io.StringIO)  # noqa: S101  # made above
        return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def validate_maps(model: Model, exams: Dataset, *, seed: int = 0) -> MapValidation:
    """Measures what a model's heat maps are worth; see the module's docstring.

    Args:
        model: the model.
        exams: a split of a data set with labels of some of the model's findings. Masks are read
            from `lesions/SPLIT/FINDING/SERIES/ID.npy` in the data set's folder: as large as the
            stack and in its order of axes, above 0 where the lesion is.
        seed: of the slices drawn at random and of resampling.

    Raises:
        MrkneeError: no exam is labelled as having one of the findings; an exam or a mask can't be
            read, or a mask has another shape than its stack.
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
    """An exam's masks of a finding, by series; None if one of the explained series has none.

    Raises:
        MrkneeError: a mask can't be read, or has another shape than its stack.
    """
    folder = exams.root / "lesions" / (exams.split or exams.folder.name) / finding
    files = {name: folder / name / f"{made.exam}.npy" for name in made.native}
    if not all(file.exists() for file in files.values()):
        return None
    masks = {}
    for name, file in files.items():
        masks[name] = read_stack(file, made.exam, axes=exams.axes) > 0
        if masks[name].shape != made.shapes[name]:
            raise DataError(
                "a lesion's mask doesn't fit its stack",
                code="shapes",
                file=file,
                exam=made.exam,
                expected=f"{made.shapes[name]} (slices, rows, cols), as the stack",
                found=str(masks[name].shape),
            )
    return masks


def localise_exam(made: Explanation, finding: str, masks: Masks) -> dict[str, Localisation]:
    """Holds an exam's map of a finding against its lesion.

    Args:
        made: the explanation.
        finding: the finding.
        masks: by series, where the lesion is.

    Returns:
        By series, and `TOGETHER`; without those in which the network sees no lesion pixel.
    """
    seen = {name: made.seen(name) for name in masks}
    heats = {name: made.heat(name, finding) for name in masks}
    found = {}
    for where in (*masks, TOGETHER):
        names = list(masks) if where == TOGETHER else [where]
        if any((masks[name] & seen[name]).any() for name in names):
            parts = [[part[name] for name in names] for part in (heats, masks, seen)]
            found[where] = localise(*parts)
    return found


def summarise_deletions(falls: Sequence[Deletion], *, seed: int = 0) -> DeletionScore:
    """Sums up exams.

    Args:
        falls: one entry per exam.
        seed: of the resampling.
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


def _plain(value: Any) -> Any:  # noqa: ANN401
    """The same with None in place of NaN."""
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
