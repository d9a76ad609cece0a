"""Which series, which slice, which pixels, and how much: a logit taken apart.

With the mean over pixels, a pooling over slices and a linear head, a logit *is* a sum:

    logit = bias + sum over (series, slice, cell) of
            series / series present
            * sum over channels of head weight * slice weight * feature / cells

The slice weight is the pooling's: 1 for a channel's strongest slice and 0 for the others (`max`),
1 / slices (`mean`), or attention's (`attention`, held at its value: the sum is exact, but the
attention depends on the features itself, and that dependence is in no map). Nothing is estimated,
no gradient is taken, and nothing is rescaled: heat maps of two slices are comparable.

This file holds the result and needs no torch; a network computes it (`Network.contributions`), and
so does an exported graph.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64

from mrknee.errors import DataError, ModelError, MrkneeError
from mrknee.exams import MRNET_SERIES, Remark, SeriesList, Stack
from mrknee.files import whole_file
from mrknee.tensors.settings import Axis, PreparationSettings

TOLERANCE = 1e-4
"""How far bias and contributions may be from the logit and still be said to add up to it, as a
share of the larger of 1 and the sum of their absolute values. Products and sums of 32-bit numbers
(7 digits) over some thousands of features lose about 1e-6 of that; computing in bfloat16 loses
more."""

ADDS_UP = "bias + the sum over series, slices and cells = logit, up to float32 rounding"
OFF = "bias + the sum over series, slices and cells differs from the logit by more than rounding"


@dataclass(frozen=True, repr=False)
class Explanation:
    """One exam's logits, taken apart.

    All contributions are signed and in units of the logit before calibration: positive ones speak
    for the finding. Exams, series, slices and findings are comparable, because nothing is rescaled.

    Attributes:
        exam: the exam's id.
        findings: the findings, in the network's order; the first axis of every array.
        logits: the network's logits, before calibration.
        bias: what each logit is without any picture.
        probabilities: calibrated where the model is, 0 to 1.
        native: by series, the contribution of each cell of the encoder's feature map.
        shapes: by series, (slices, rows, cols) of the exam's stack.
        preparation: how the stacks became input, from which cells find their pixels again.
        attention_fixed: the slices' weights are attention's, held at their value: the sum is exact,
            and what the attention itself depends on is in no map.
        stacks: by plane, the exam's stack, to be drawn below the heat; without it plots show the
            heat alone.
        remarks: what is odd about the exam; empty where nothing is.
        uncalibrated: finding -> why its probability is the network's own; calibrated ones are not
            in it.
        series: the series that the exam may have.
        titles: finding -> its title, for those that the model's data set gave one.

    Raises:
        MrkneeError: a part has another shape than the exam and the findings ask for, or holds
            something that is no finite number.
    """

    exam: str
    findings: tuple[str, ...]
    logits: Float64[np.ndarray, " findings"]
    bias: Float64[np.ndarray, " findings"]
    probabilities: Float64[np.ndarray, " findings"]
    native: Mapping[str, Float32[np.ndarray, "findings _ _ _"]]
    shapes: Mapping[str, tuple[int, int, int]]
    preparation: PreparationSettings
    attention_fixed: bool = False
    remarks: tuple[Remark, ...] = ()
    uncalibrated: Mapping[str, str] = field(default_factory=dict)
    series: SeriesList = MRNET_SERIES
    stacks: Mapping[str, Stack] = field(default_factory=dict, compare=False)
    titles: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.findings)
        vectors = {"logits": self.logits, "bias": self.bias, "probabilities": self.probabilities}
        for name, vector in vectors.items():
            if vector.shape != (count,) or not np.isfinite(vector).all():
                raise self._unusable(f"the {name}", f"{count} finite numbers", str(vector))
        for name, native in self.native.items():
            slices = self.shapes[name][0]
            if native.ndim != 4 or native.shape[:2] != (count, slices) or 0 in native.shape:
                expected = f"{count} findings x {slices} slices x rows x columns of cells"
                raise self._unusable(f"the {name} heat maps", expected, f"shape {native.shape}")
            if native.dtype != np.float32 or not np.isfinite(native).all():
                found = f"{native.dtype}, not all of them finite"
                raise self._unusable(f"the {name} heat maps", "finite float32 numbers", found)

    def _unusable(self, part: str, expected: str, found: str) -> MrkneeError:
        return ModelError(
            f"{part} that the model computed can't be used",
            code="explanation",
            exam=self.exam,
            expected=expected,
            found=found,
            advice="the model is damaged, or not one that mrknee trained or exported",
        )

    @cached_property
    def residuals(self) -> Float64[np.ndarray, " findings"]:
        """How far bias and contributions are from each logit."""
        return np.asarray(np.abs(self.logits - self.bias - sum(self.series_sums.values())))

    @cached_property
    def allowed(self) -> Float64[np.ndarray, " findings"]:
        """How far they may be and still add up to it; see `TOLERANCE`."""
        sizes = [np.abs(one).sum(axis=(1, 2, 3), dtype=np.float64) for one in self.native.values()]
        return np.asarray(TOLERANCE * np.maximum(1, np.abs(self.bias) + sum(sizes)))

    @cached_property
    def adds_up(self) -> bool:
        """Whether bias and contributions of this exam add up to every logit, as computed."""
        return bool((self.residuals <= self.allowed).all())

    def slice_scores(self, series: str) -> Float64[np.ndarray, "findings slices"]:
        """What each slice of the series adds to each logit."""
        return np.asarray(self.native[series].sum(axis=(2, 3), dtype=np.float64))

    @property
    def series_sums(self) -> Mapping[str, Float64[np.ndarray, " findings"]]:
        """What each series adds to each logit; with the bias they add up to it."""
        return {name: self.slice_scores(name).sum(axis=1) for name in self.native}

    def heat(self, series: str, finding: str) -> Float32[np.ndarray, "slices rows cols"]:
        """The contributions to one finding's logit, spread over the stack's own pixels.

        Each cell's contribution is spread bilinearly, the whole of it: sums are those of `native`.
        Pixels the network doesn't see (outside the crop) are 0. See `spread`. It is as large as
        the stack in float32; `slice_heat` gives one slice's.

        Args:
            series: the series' name, such as `axial`.
            finding: the finding.

        Raises:
            DataError: the exam has no such series, or the model no such finding.
        """
        known, row = self.known(series), self._row(finding)
        rows, cols = self._spreads[known]
        return np.asarray(rows @ self.native[known][row] @ cols.T, dtype=np.float32)

    def slices(self, finding: str) -> dict[str, Float64[np.ndarray, " slices"]]:
        """What each slice of each series adds to one finding's logit.

        Args:
            finding: the finding.

        Raises:
            DataError: the model has no such finding.
        """
        row = self._row(finding)
        return {name: self.slice_scores(name)[row] for name in self.native}

    def plot(self, finding: str, series: str | None = None) -> np.ndarray:
        """Draws the slice that raises the finding most, per series, with its heat map.

        Below it are the scores of all slices. Orange raises the logit and blue lowers it; colours
        have one scale for the whole exam. Slices count from 0, as in the arrays.

        Args:
            finding: the finding.
            series: this series only; None draws all.

        Returns:
            matplotlib axes (2, series): the slices, and their scores below.

        Raises:
            DataError: the model has no such finding, or the exam no such series.
            PlatformError: matplotlib is not installed.

        Example:
            >>> import mrknee
            >>> exam = mrknee.open_dataset("knees", split="valid")[0]
            >>> why = mrknee.load_model("runs/first").explain(exam)
            >>> axes = why.plot("acl")
            >>> axes.shape
            (2, 3)
            >>> axes[0, 0].figure.savefig("acl.png")
        """
        from mrknee.inference.plot import plot_explanation  # it imports this file

        return plot_explanation(self, finding, series)

    def _row(self, finding: str) -> int:
        if finding not in self.findings:
            raise DataError(
                "no such finding was explained",
                code="unknown-finding",
                exam=self.exam,
                expected=", ".join(self.findings),
                found=repr(finding),
            )
        return self.findings.index(finding)

    def known(self, name: str) -> str:
        """The name of the series that a name means.

        Raises:
            DataError: it was not explained.
        """
        what = "no such series was explained"
        return self.series.find(name, self.native, what=what, exam=self.exam)

    def __repr__(self) -> str:
        lines = [f"Explanation of exam {self.exam!r}"]
        for row, finding in enumerate(self.findings):
            name, index = self._extreme(row, 1)
            lines.append(
                f"  {finding}: probability {self.probabilities[row]:.3f}, most raised by "
                f"{name} slice {index}"
            )
        return "\n".join(lines)

    def slice_heat(self, series: str, row: int, index: int) -> Float32[np.ndarray, "rows cols"]:
        """`heat(series, findings[row])[index]`, without computing the other slices.

        Args:
            series: the series.
            row: which finding, by its position.
            index: which slice, from 0.
        """
        rows, cols = self._spreads[series]
        return np.asarray(rows @ self.native[series][row, index] @ cols.T, dtype=np.float32)

    def sized_heat(
        self, series: str, row: int, rows: int, cols: int
    ) -> Float32[np.ndarray, "slices {rows} {cols}"]:
        """The heat of all of a series' slices, for pictures of another size.

        Each pixel has the mean of `heat` over the part of the slice that it shows.

        Args:
            series: the series.
            row: which finding, by its position.
            rows: height of the pictures in pixels.
            cols: their width.
        """
        up, over = self._spreads[series]
        up, over = _means(rows, len(up)) @ up, _means(cols, len(over)) @ over
        return np.asarray(up @ self.native[series][row] @ over.T, dtype=np.float32)

    def seen(self, series: str) -> Bool[np.ndarray, "rows cols"]:
        """Which pixels of the series' slices the network sees: those inside the crop."""
        rows, cols = self._spreads[series]
        return np.outer(rows.any(axis=1), cols.any(axis=1))

    @cached_property
    def scale(self) -> float:
        """The largest absolute heat of any pixel, slice, series and finding of the exam.

        The one scale for all of the exam's pictures; 0 where every map is empty.
        """
        return max(
            float(np.abs(self.slice_heat(name, row, index)).max())
            for name, native in self.native.items()
            for row, index in np.ndindex(native.shape[:2])
        )

    @cached_property
    def largest_score(self) -> float:
        """The largest absolute score of any slice, series and finding of the exam."""
        return max(float(np.abs(self.slice_scores(name)).max()) for name in self.native)

    def most_raising(self, finding: str) -> tuple[str, int]:
        """The slice with the largest signed score for the finding.

        Where no slice raises the logit, it is the one that lowers it least.

        Returns:
            Its series and its index in that series' stack; of equal slices the first.
        """
        return self._extreme(self.findings.index(finding), 1)

    def most_lowering(self, finding: str) -> tuple[str, int]:
        """The slice with the smallest signed score for the finding; see `most_raising`."""
        return self._extreme(self.findings.index(finding), -1)

    def _extreme(self, row: int, sign: int) -> tuple[str, int]:
        scores = {name: sign * self.slice_scores(name)[row] for name in self.native}
        name = max(scores, key=lambda one: float(scores[one].max()))
        return name, int(scores[name].argmax())

    def write_numbers(self, folder: str | Path) -> None:
        """Writes `explanation.npz` (every array) and `explanation.json` (what a person reads).

        The NPZ holds, for each series, `native_<series>`, `heat_<series>` (in the stack's own
        shape) and `slices_<series>` (slice scores), and `exam`, `findings`, `logits`, `bias`,
        `probabilities`.

        Args:
            folder: where to write; made where it isn't there.
        """
        folder = Path(folder)
        arrays: dict[str, Any] = {
            "exam": np.array(self.exam),
            "findings": np.array(self.findings),
            "logits": self.logits,
            "bias": self.bias,
            "probabilities": self.probabilities,
        }
        for name, native in self.native.items():
            arrays[f"native_{name}"] = native
            arrays[f"heat_{name}"] = np.stack([self.heat(name, f) for f in self.findings])
            arrays[f"slices_{name}"] = self.slice_scores(name)
        with whole_file(folder / "explanation.npz") as beside, beside.open("wb") as file:
            np.savez_compressed(file, **arrays)
        text = json.dumps(self.description(), indent=2, allow_nan=False) + "\n"
        with whole_file(folder / "explanation.json") as beside:
            beside.write_text(text, encoding="utf-8")

    def description(self) -> dict[str, Any]:
        """What `explanation.json` holds: all of it but the maps, in plain form for JSON.

        Slices count from 0.
        """
        sums, residuals, allowed = self.series_sums, self.residuals, self.allowed
        findings: dict[str, Any] = {}
        for row, finding in enumerate(self.findings):
            findings[finding] = {
                "probability": float(self.probabilities[row]),
                "calibrated": finding not in self.uncalibrated,
                "uncalibrated": self.uncalibrated.get(finding),
                "logit": float(self.logits[row]),
                "bias": float(self.bias[row]),
                "residual": float(residuals[row]),
                "allowed_residual": float(allowed[row]),
                "series": {name: float(total[row]) for name, total in sums.items()},
                "slices": {name: self.slice_scores(name)[row].tolist() for name in self.native},
                "most_raising_slice": self._place(row, 1),
                "most_lowering_slice": self._place(row, -1),
            }
        return {
            "exam": self.exam,
            "adds_up": self.adds_up,
            "note": ADDS_UP if self.adds_up else OFF,
            "attention_held_fixed": self.attention_fixed,
            "unit": "logit before calibration",
            "scale": self.scale,
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "preparation": self.preparation.to_dict(),
            "remarks": [remark.to_dict() for remark in self.remarks],
            "findings": findings,
        }

    @cached_property
    def _spreads(
        self,
    ) -> Mapping[str, tuple[Float32[np.ndarray, "_ _"], Float32[np.ndarray, "_ _"]]]:
        """By series, where the cells' rows and columns go; see `spread`."""
        found = {}
        for name, (_, rows, cols) in self.shapes.items():
            cells = self.native[name].shape[2:]
            up, over = self.preparation.axes(rows, cols)
            found[name] = (
                spread(rows, up, cells[0], self.preparation),
                spread(cols, over, cells[1], self.preparation),
            )
        return found

    def _place(self, row: int, sign: int) -> dict[str, Any]:
        name, index = self._extreme(row, sign)
        return {
            "series": name,
            "slice": index,
            "score": self.slice_scores(name)[row, index].item(),
        }


def spread(
    side: int, axis: Axis, cells: int, preparation: PreparationSettings
) -> Float32[np.ndarray, "side cells"]:
    """How each cell of a feature map's axis is spread over the stack's own pixels.

    The feature map is stretched evenly over the crop and interpolated linearly between the cells'
    centres (flat outside the outermost ones); the preparation's crop, padding and scale are undone.
    Each column is divided by its sum, so that a cell keeps all it contributes:

    - a cell that lies partly in the padding is spread over its part inside the stack;
    - a cell that lies wholly in the padding is drawn where the nearest cell inside is.

    Args:
        side: the axis's length in the stack, in pixels.
        axis: where the preparation puts it.
        cells: the axis's length in the feature map.
        preparation: how the stack became input.

    Returns:
        The share of each cell that each pixel gets; columns sum to 1, rows outside the crop are 0.
    """
    crop = preparation.crop
    # the pixels' centres in the crop
    at = (np.arange(side) + 0.5) * axis.scaled / side - axis.start
    inside = (at >= 0) & (at <= crop)
    position = np.clip(at * cells / crop - 0.5, 0, cells - 1)
    weights = np.maximum(1 - np.abs(position[:, None] - np.arange(cells)), 0) * inside[:, None]
    total = weights.sum(axis=0)
    reached = np.flatnonzero(total > 0)
    nearest = reached[np.abs(np.arange(cells)[:, None] - reached).argmin(axis=1)]
    return np.asarray(weights[:, nearest] / total[nearest], dtype=np.float32)


def _means(side: int, of: int) -> Float32[np.ndarray, "{side} {of}"]:
    """Brings an axis of `of` pixels to `side` pixels: each is the mean of what it covers."""
    edges = np.arange(side + 1) * of / side
    starts, ends = edges[:-1, None], edges[1:, None]
    pixels = np.arange(of)
    covered = np.minimum(ends, pixels + 1) - np.maximum(starts, pixels)
    return np.asarray(np.maximum(covered, 0.0) / (ends - starts), dtype=np.float32)
