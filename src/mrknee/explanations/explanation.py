"""Exact additive decomposition of a logit into contributions of series, slices and pixels.

With mean pooling over pixels, a pooling over slices and a linear head, a logit is a sum:

    logit = bias + sum over (series, slice, cell) of
            series / series present
            * sum over channels of head weight * slice weight * feature / cells

The slice weight depends on the pooling: 1 for the strongest slice of a channel and 0 for the others
(`max`), 1 / slices (`mean`), or the attention weight (`attention`; held fixed: the sum is exact,
but the dependence of the attention on the features is not part of any map). If scores of cells are
pooled (`mrknee.models.evidence`), each cell has a weight, held fixed in the same way. Nothing is
estimated, no gradients are used, and nothing is rescaled: heat maps of different slices are
comparable. If the network sees a slice with its neighbours as channels (`preparation.neighbours`),
the contributions belong to the slice in the middle, although its neighbours affect them.

This module contains the result and does not import torch. It is computed by a network
(`Network.contributions`) or an exported graph.
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
from mrknee.files import atomic_write, write_text
from mrknee.transforms.settings import Axis, PreparationSettings

TOLERANCE = 1e-4
"""Largest difference between the logit and the sum of bias and contributions that counts as
rounding, relative to the larger of 1 and the sum of their absolute values. Products and sums of
32-bit numbers (7 digits) over some thousands of features have errors of about 1e-6; bfloat16 has
larger errors."""

ADDS_UP = "bias + the sum over series, slices and cells = logit, up to float32 rounding"
OFF = "bias + the sum over series, slices and cells differs from the logit by more than rounding"


@dataclass(frozen=True, repr=False)
class Explanation:
    """Decomposition of the logits of one exam.

    Contributions have a sign and are in units of the logit before calibration: positive
    contributions support the finding. Values of different exams, series, slices and findings are
    comparable, because nothing is rescaled.

    Attributes:
        exam: id of the exam.
        findings: the findings, in the order of the first axis of every array.
        logits: logits of the network, before calibration.
        bias: part of each logit that does not depend on the images.
        probabilities: probabilities, 0 to 1, calibrated unless listed in `uncalibrated`.
        native: series -> contribution of each cell of the encoder's feature map.
        shapes: series -> (slices, rows, cols) of the exam's stack.
        preparation: preprocessing of the stacks, used to map cells to pixels.
        attention_fixed: whether the weights of slices or cells depend on the images and are held
            fixed: the sum is exact, but that dependence is not part of any map.
        stacks: series -> the exam's stack, used as background of plots; may be empty.
        remarks: unusual properties of the exam; may be empty.
        uncalibrated: uncalibrated finding -> reason.
        series: the series that an exam of the model can have.
        titles: finding -> title, if declared by the data set of the model.

    Raises:
        MrkneeError: a part does not have the shape that exam and findings require, or contains
            values that are not finite.
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
                found = f"{native.dtype}, not all finite"
                raise self._unusable(f"the {name} heat maps", "finite float32 numbers", found)

    def _unusable(self, part: str, expected: str, found: str) -> MrkneeError:
        return ModelError(
            f"{part} computed by the model can't be used",
            code="explanation",
            exam=self.exam,
            expected=expected,
            found=found,
            advice="the model is damaged, or was not trained or exported by mrknee",
        )

    @cached_property
    def residuals(self) -> Float64[np.ndarray, " findings"]:
        """Absolute difference between each logit and the sum of bias and contributions."""
        return np.asarray(np.abs(self.logits - self.bias - sum(self.series_sums.values())))

    @cached_property
    def allowed(self) -> Float64[np.ndarray, " findings"]:
        """Largest residual of each logit that counts as rounding; see `TOLERANCE`."""
        sizes = [np.abs(one).sum(axis=(1, 2, 3), dtype=np.float64) for one in self.native.values()]
        return np.asarray(TOLERANCE * np.maximum(1, np.abs(self.bias) + sum(sizes)))

    @cached_property
    def adds_up(self) -> bool:
        """Whether the computed bias and contributions add up to every logit."""
        return bool((self.residuals <= self.allowed).all())

    def slice_scores(self, series: str) -> Float64[np.ndarray, "findings slices"]:
        """Returns the contribution of each slice of a series to each logit."""
        return np.asarray(self.native[series].sum(axis=(2, 3), dtype=np.float64))

    @property
    def series_sums(self) -> Mapping[str, Float64[np.ndarray, " findings"]]:
        """Series -> contribution to each logit."""
        return {name: self.slice_scores(name).sum(axis=1) for name in self.native}

    def heat(self, series: str, finding: str) -> Float32[np.ndarray, "slices rows cols"]:
        """Returns the contribution of each pixel of a series to the logit of a finding.

        The contribution of each cell is distributed bilinearly over pixels and preserved: sums
        equal those of `native`. Pixels outside the crop are 0. See `spread`. The array has the
        size of the stack in float32; `slice_heat` returns a single slice.

        Args:
            series: name of the series, such as `axial`.
            finding: name of the finding.

        Raises:
            DataError: the exam does not have the series, or the model not the finding.
        """
        known, row = self.known(series), self._row(finding)
        rows, cols = self._spreads[known]
        return np.asarray(rows @ self.native[known][row] @ cols.T, dtype=np.float32)

    def slices(self, finding: str) -> dict[str, Float64[np.ndarray, " slices"]]:
        """Returns the contribution of each slice of each series to the logit of a finding.

        Args:
            finding: name of the finding.

        Raises:
            DataError: the model does not have the finding.
        """
        row = self._row(finding)
        return {name: self.slice_scores(name)[row] for name in self.native}

    def plot(self, finding: str, series: str | None = None) -> np.ndarray:
        """Draws the slice that raises the logit most, with its heat map, for each series.

        The scores of all slices are shown below it. Orange raises the logit and blue lowers it, on
        one colour scale for the exam. Slices are counted from 0, as in the arrays.

        Args:
            finding: name of the finding.
            series: name of a single series; None: all series.

        Returns:
            matplotlib axes (2, series): the slices, and the scores below.

        Raises:
            DataError: the model does not have the finding, or the exam not the series.
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
        from mrknee.explanations.plot import plot_explanation  # circular import

        return plot_explanation(self, finding, series)

    def _row(self, finding: str) -> int:
        if finding not in self.findings:
            raise DataError(
                "the explanation does not contain the finding",
                code="unknown-finding",
                exam=self.exam,
                expected=", ".join(self.findings),
                found=repr(finding),
            )
        return self.findings.index(finding)

    def known(self, name: str) -> str:
        """Returns the name of the series that a name or synonym refers to.

        Raises:
            DataError: the explanation does not contain the series.
        """
        what = "the explanation does not contain the series"
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
        """Returns `heat(series, findings[row])[index]` without computing the other slices.

        Args:
            series: name of the series.
            row: index of the finding.
            index: index of the slice.
        """
        rows, cols = self._spreads[series]
        return np.asarray(rows @ self.native[series][row, index] @ cols.T, dtype=np.float32)

    def sized_heat(
        self, series: str, row: int, rows: int, cols: int
    ) -> Float32[np.ndarray, "slices {rows} {cols}"]:
        """Returns the heat of all slices of a series, resized.

        Each pixel has the mean of `heat` over the area of the slice that it covers.

        Args:
            series: name of the series.
            row: index of the finding.
            rows: height in pixels.
            cols: width in pixels.
        """
        up, over = self._spreads[series]
        up, over = _means(rows, len(up)) @ up, _means(cols, len(over)) @ over
        return np.asarray(up @ self.native[series][row] @ over.T, dtype=np.float32)

    def seen(self, series: str) -> Bool[np.ndarray, "rows cols"]:
        """Returns which pixels of a series' slices are inside the crop, the network's input."""
        rows, cols = self._spreads[series]
        return np.outer(rows.any(axis=1), cols.any(axis=1))

    @cached_property
    def scale(self) -> float:
        """Largest absolute heat of any pixel, slice, series and finding of the exam.

        The colour scale of all heat maps of the exam; 0 if all maps are 0.
        """
        return max(
            float(np.abs(self.slice_heat(name, row, index)).max())
            for name, native in self.native.items()
            for row, index in np.ndindex(native.shape[:2])
        )

    @cached_property
    def largest_score(self) -> float:
        """Largest absolute score of any slice, series and finding of the exam."""
        return max(float(np.abs(self.slice_scores(name)).max()) for name in self.native)

    def most_raising(self, finding: str) -> tuple[str, int]:
        """Finds the slice with the largest signed score for a finding.

        If no slice raises the logit, this is the slice that lowers it least.

        Returns:
            Series and index of the slice; the first of equal slices.
        """
        return self._extreme(self.findings.index(finding), 1)

    def most_lowering(self, finding: str) -> tuple[str, int]:
        """Finds the slice with the smallest signed score for a finding; see `most_raising`."""
        return self._extreme(self.findings.index(finding), -1)

    def _extreme(self, row: int, sign: int) -> tuple[str, int]:
        indices = {name: self.strongest(name, row, sign) for name in self.native}
        name = max(
            indices,
            key=lambda one: sign * float(self.slice_scores(one)[row, indices[one]]),
        )
        return name, indices[name]

    def strongest(self, series: str, row: int, sign: int) -> int:
        """Finds the slice of a series with the largest, or smallest, signed score for a finding.

        Slices that the network doesn't read (`preparation.read_slices`) are passed over.

        Args:
            series: name of the series.
            row: index of the finding.
            sign: 1 for the largest score, -1 for the smallest.

        Returns:
            Index of the slice; the first of equal slices.
        """
        read = self.slices_read(series)
        return read[int((sign * self.slice_scores(series)[row, read]).argmax())]

    def slices_read(self, series: str) -> list[int]:
        """Returns the indices of the slices of a series that the network reads."""
        return self.preparation.slices_read(self.shapes[series][0])

    def write_numbers(self, folder: str | Path) -> None:
        """Writes `explanation.npz` (all arrays) and `explanation.json` (see `description`).

        The NPZ contains, for each series, `native_<series>`, `heat_<series>` (in the shape of the
        stack) and `slices_<series>` (slice scores), and `exam`, `findings`, `logits`, `bias`,
        `probabilities`.

        Args:
            folder: output folder; created if it does not exist.
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
        with atomic_write(folder / "explanation.npz") as beside, beside.open("wb") as file:
            np.savez_compressed(file, **arrays)
        text = json.dumps(self.description(), indent=2, allow_nan=False) + "\n"
        write_text(folder / "explanation.json", text)

    def description(self) -> dict[str, Any]:
        """Returns the content of `explanation.json`: everything except the maps.

        Slices are counted from 0.
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
        """Series -> distribution of the cells' rows and columns over pixels; see `spread`."""
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
    """Computes how each cell of a feature map's axis is distributed over the stack's pixels.

    The feature map is stretched over the crop and interpolated linearly between the centres of the
    cells (constant outside the outermost ones); crop, padding and scale of the preparation are
    inverted. Each column is divided by its sum, so that the contribution of a cell is preserved:

    - a cell that is partly in the padding is distributed over its part inside the stack;
    - a cell that is completely in the padding is drawn at the nearest cell inside the stack.

    Args:
        side: length of the axis in the stack, in pixels.
        axis: position of the axis after the preparation.
        cells: length of the axis in the feature map.
        preparation: preprocessing of the stack.

    Returns:
        Share of each cell per pixel; columns sum to 1, rows outside the crop are 0.
    """
    crop = preparation.crop
    # centres of the pixels in the crop
    at = (np.arange(side) + 0.5) * axis.scaled / side - axis.start
    inside = (at >= 0) & (at <= crop)
    position = np.clip(at * cells / crop - 0.5, 0, cells - 1)
    weights = np.maximum(1 - np.abs(position[:, None] - np.arange(cells)), 0) * inside[:, None]
    total = weights.sum(axis=0)
    reached = np.flatnonzero(total > 0)
    nearest = reached[np.abs(np.arange(cells)[:, None] - reached).argmin(axis=1)]
    return np.asarray(weights[:, nearest] / total[nearest], dtype=np.float32)


def _means(side: int, of: int) -> Float32[np.ndarray, "{side} {of}"]:
    """Returns the matrix that resizes an axis from `of` to `side` pixels by area means."""
    edges = np.arange(side + 1) * of / side
    starts, ends = edges[:-1, None], edges[1:, None]
    pixels = np.arange(of)
    covered = np.minimum(ends, pixels + 1) - np.maximum(starts, pixels)
    return np.asarray(np.maximum(covered, 0.0) / (ends - starts), dtype=np.float32)
