"""Simulated scanner: protocols, and acquisition of uint8 stacks from signal volumes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Float32, UInt8

from mrknee.exams import MRNET_SERIES, Series
from mrknee.sources.phantom.shapes import Box, Field, Grid
from mrknee.sources.phantom.tissues import TISSUES, Tissue, gradient_echo, spin_echo

PlaneName = Literal["axial", "coronal", "sagittal"]
PLANES: tuple[PlaneName, ...] = ("axial", "coronal", "sagittal")
AXIS = {"axial": 0, "coronal": 1, "sagittal": 2}
"""Axis of the volume (z, y, x) along which the slices of a plane are stacked."""

# Slices per exam in MRNet's training set: mean, SD, minimum, quartiles, maximum
# (Bien et al., PLoS Med 2018, data as counted by Ogura and Azcona; see docs/background/phantom.md).
SLICE_QUANTILES = {
    "axial": (19, 28, 35, 40, 61),
    "coronal": (17, 21, 30, 36, 58),
    "sagittal": (17, 24, 30, 36, 51),
}
# Share of exams with fat saturation: MRNet's axial series nearly always has it, its sagittal T2
# mostly, its coronal T1 never.
FAT_SATURATED = {"axial": 0.85, "coronal": 0.0, "sagittal": 0.7}
MRNET_WEIGHTING = {"axial": "PD", "coronal": "T1", "sagittal": "T2"}
"""Weighting of a plane's series if none is declared."""
TIMING = {
    "T1": ((450, 800), (10, 20)),
    "PD": ((2200, 3800), (22, 38)),
    "T2": ((3000, 5000), (52, 75)),
    "GRE": ((400, 700), (12, 18)),
}
"""Ranges of TR and TE in ms. GRE is T2*-weighted, like MEDIC and MERGE."""
FIELD_OF_VIEW = (140, 165)
"""Range of the edge of a square image, mm."""
GRE_FLIP_DEGREES = (20, 30)
"""Range of a gradient echo's flip angle."""


@dataclass(frozen=True)
class Acquisition:
    """Parameters of the acquisition of one series.

    Attributes:
        plane: plane of the slices.
        slices: number of slices.
        spacing: distance between slice centres, mm.
        thickness: full width of the slice profile at half height, mm.
        field_of_view: edge of the square image, mm.
        fov_factor: factor on the usual field of view that `field_of_view` contains.
        centre: offset (x, y, z) of the stack's centre in the scanner, mm.
        matrix: acquired frequency and phase samples across the field of view.
        repetition_ms, echo_ms: TR and effective TE.
        fat_left: share of the fat signal that is left (1 without fat saturation).
        noise: SD of each noise channel as a share of the brightest tissue's signal.
        shading: nine coefficients of the coil's logarithmic sensitivity.
        window: percentile shown as white, and gamma of the display curve.
        flip_degrees: flip angle of a gradient echo; None for a spin echo.
    """

    plane: PlaneName
    slices: int
    spacing: float
    thickness: float
    field_of_view: float
    centre: tuple[float, float, float]
    matrix: tuple[int, int]
    repetition_ms: float
    echo_ms: float
    fat_left: float
    noise: float
    shading: tuple[float, ...]
    window: tuple[float, float]
    flip_degrees: float | None = None
    fov_factor: float = 1.0

    def signal(self, tissue: Tissue, tesla: float) -> float:
        """Returns a tissue's signal at a field strength, arbitrary units."""
        if self.flip_degrees is None:
            return spin_echo(
                tissue,
                tesla=tesla,
                repetition_ms=self.repetition_ms,
                echo_ms=self.echo_ms,
                fat_left=self.fat_left,
            )
        return gradient_echo(
            tissue,
            tesla=tesla,
            repetition_ms=self.repetition_ms,
            echo_ms=self.echo_ms,
            flip_degrees=self.flip_degrees,
            fat_left=self.fat_left,
        )


@dataclass(frozen=True)
class Protocol:
    """Acquisition of one exam: field strength (T), and acquisitions by series name."""

    tesla: float
    series: dict[str, Acquisition]

    def signals(self) -> dict[str, tuple[float, ...]]:
        """Returns each tissue's signal in each series, in the order of the series."""
        return {
            name: tuple(one.signal(tissue, self.tesla) for one in self.series.values())
            for name, tissue in TISSUES.items()
        }


def draw_slice_count(rng: np.random.Generator, plane: PlaneName) -> int:
    """Draws a slice count with MRNet's quartiles and range, linear between quantiles."""
    low, q1, median, q3, high = SLICE_QUANTILES[plane]
    # The tails are thinner than uniform: most counts lie within 10 of the quartiles.
    levels = (0.0, 0.005, 0.25, 0.5, 0.75, 0.97, 1.0)
    counts = (low, max(low, q1 - 7), q1, median, q3, q3 + 9, high)
    return round(float(np.interp(rng.random(), levels, counts)))


def draw_protocol(
    rng: np.random.Generator, slice_factor: float, fov_factor: float = 1.0
) -> Protocol:
    """Draws one exam's acquisition of MRNet's series; nothing depends on the labels."""
    tesla = 3.0 if rng.random() < 0.5 else 1.5
    return Protocol(
        tesla,
        {
            str(one.name): draw_acquisition(rng, one, tesla, slice_factor, fov_factor)
            for one in MRNET_SERIES
        },
    )


def draw_acquisition(
    rng: np.random.Generator,
    series: Series,
    tesla: float,
    slice_factor: float,
    fov_factor: float = 1.0,
) -> Acquisition:
    """Draws the acquisition of a series.

    Args:
        rng: random stream.
        series: plane, weighting and fat suppression; if the last two aren't declared, they are
            those of MRNet's series of the plane.
        tesla: field strength, T.
        slice_factor: factor on MRNet's slice counts.
        fov_factor: factor on the field of view.
    """
    plane: PlaneName = series.plane.value
    weighting = series.weighting or MRNET_WEIGHTING[plane]
    count = max(3, round(draw_slice_count(rng, plane) * slice_factor))
    # The slices cover the joint, so that many slices are thin and few are thick.
    covered = {"axial": 118.0, "coronal": 104.0, "sagittal": 100.0}[plane] * rng.uniform(0.9, 1.1)
    reach = {"axial": (2.6, 4.6), "coronal": (2.6, 4.6), "sagittal": (2.6, 4.4)}[plane]
    low, high = (limit / slice_factor for limit in reach)
    spacing = float(np.clip(covered / count, low, high))
    timing = TIMING[weighting]
    saturated = rng.random() < FAT_SATURATED[plane]
    if series.fat_suppressed is not None:
        saturated = series.fat_suppressed
    acquisition = Acquisition(
        plane=plane,
        slices=count,
        spacing=spacing,
        thickness=spacing * float(rng.uniform(0.85, 0.98)),
        field_of_view=float(rng.uniform(*FIELD_OF_VIEW)) * fov_factor,
        centre=tuple(float(value) for value in rng.normal(0.0, 3.0, 3)),  # type: ignore[arg-type]
        matrix=(int(rng.choice((288, 320, 352, 384))), int(rng.choice((192, 224, 256)))),
        repetition_ms=float(rng.uniform(*timing[0])),
        echo_ms=float(rng.uniform(*timing[1])),
        fat_left=float(rng.uniform(0.06, 0.2)) if saturated else 1.0,
        noise=float(rng.uniform(0.010, 0.028)) / (tesla / 2.0),
        shading=tuple(float(value) for value in rng.normal(0.0, 1.0, 9)),
        window=(float(rng.uniform(99.3, 99.9)), float(rng.uniform(0.85, 1.1))),
        fov_factor=fov_factor,
    )
    if weighting != "GRE":
        return acquisition
    return replace(acquisition, flip_degrees=float(rng.uniform(*GRE_FLIP_DEGREES)))


def _resampler(line: Field, positions: np.ndarray, width: float) -> Float32[np.ndarray, "out grid"]:
    """Returns weights that average a grid line around each position over ``width`` mm (soft box).

    Positions outside the grid are air.
    """
    step = abs(float(line[1] - line[0]))
    gap = np.abs(positions[:, None] - line[None, :].astype(float))
    edge = step
    weights = np.clip((width / 2 + edge / 2 - gap) / edge, 0.0, 1.0)
    narrow = np.clip(1.0 - gap / step, 0.0, 1.0)
    weights = weights if width > 1.5 * step else narrow
    total = np.maximum(weights.sum(axis=1, keepdims=True), max(width, step) / step)
    return np.asarray(weights / total, np.float32)


@lru_cache(maxsize=32)
def _low_pass(size: int, kept: int) -> Float32[np.ndarray, "size size"]:
    """Returns the matrix that keeps the central ``kept`` of ``size`` k-space samples.

    Truncation causes Gibbs ringing, which scanners reduce with a Fermi filter as here.
    """
    frequency = np.abs(np.fft.fftfreq(size) * size)
    edge = min(kept, size) / 2
    keep = 1.0 / (1.0 + np.exp((frequency - edge * 0.97) / (0.02 * size)))
    return np.asarray(
        np.fft.ifft(keep[:, None] * np.fft.fft(np.eye(size), axis=0), axis=0).real, np.float32
    )


def slice_grid(
    series: Acquisition, size: int
) -> tuple[dict[int, np.ndarray], tuple[int, int, int]]:
    """Returns positions (mm) per grid axis, and the axes in the order slices, rows, columns."""
    through = AXIS[series.plane]
    rows, columns = (axis for axis in (0, 1, 2) if axis != through)
    centre = dict(zip((2, 1, 0), series.centre, strict=True))
    pixel = series.field_of_view / size
    positions = {}
    for axis in (through, rows, columns):
        count, step = (series.slices, series.spacing) if axis == through else (size, pixel)
        line = (np.arange(count) - (count - 1) / 2) * step
        positions[axis] = (-line if axis == 0 else line) + centre[axis]
    return positions, (through, rows, columns)


def sample(
    volume: Float32[np.ndarray, "z y x"], box: Box, series: Acquisition, size: int
) -> Float32[np.ndarray, "slices rows cols"]:
    """Averages a volume over each slice's profile and samples it on the image grid, noise-free."""
    positions, order = slice_grid(series, size)
    lines = {0: box.z, 1: box.y, 2: box.x}
    part, windows = np.transpose(volume, order), []
    for place, axis in enumerate(order):
        width = series.thickness if place == 0 else series.field_of_view / size
        weights = _resampler(lines[axis], positions[axis], width)
        seen = np.flatnonzero(weights.any(axis=1))
        window = slice(int(seen[0]), int(seen[-1]) + 1) if len(seen) else slice(0, 0)
        windows.append(window)
        part = np.moveaxis(np.tensordot(weights[window], part, axes=(1, place)), 0, place)
    stack = np.zeros([len(positions[axis]) for axis in order], np.float32)
    stack[tuple(windows)] = part
    return stack


def acquire(
    volume: Float32[np.ndarray, "z y x"],
    grid: Grid,
    series: Acquisition,
    size: int,
    brightest: float,
    rng: np.random.Generator,
) -> UInt8[np.ndarray, "slices rows cols"]:
    """Acquires a series as shown: the magnitude of its signal within a display window."""
    magnitude = measure(volume, grid, series, size, brightest, rng)
    percentile, gamma = series.window
    # White is the brightest tissue, with a lower limit so that a dry joint doesn't look like fluid.
    white = max(float(np.percentile(magnitude[:, ::3, ::3], percentile)), 0.45 * brightest)
    shown = np.clip(magnitude / max(white, 1e-6), 0.0, 1.0) ** gamma
    return np.asarray(np.rint(shown * 255.0), np.uint8)


def measure(
    volume: Float32[np.ndarray, "z y x"],
    grid: Grid,
    series: Acquisition,
    size: int,
    brightest: float,
    rng: np.random.Generator,
) -> Float32[np.ndarray, "slices rows cols"]:
    """Measures a series' magnitude: slice profile, coil shading, noise, k-space truncation."""
    stack = sample(volume, grid.everything(), series, size)
    stack *= _shading(series, size)
    # Matrix and noise are for 256 px of the usual field of view: with larger pixels, images keep
    # the same share of k-space, and average the noise.
    share = size / 256 / series.fov_factor
    rows, columns = (_low_pass(size, round(kept * share)) for kept in series.matrix)
    scale = series.noise * brightest * min(share, 1.0)
    imaginary = rng.standard_normal(stack.shape, np.float32) * scale
    stack += rng.standard_normal(stack.shape, np.float32) * scale
    stack, imaginary = (rows @ part @ columns for part in (stack, imaginary))
    return np.asarray(np.hypot(stack, imaginary))


def _shading(series: Acquisition, size: int) -> Float32[np.ndarray, "slices rows cols"]:
    """Returns the coil's sensitivity: an exponential of a quadratic in the stack's coordinates."""
    s = np.linspace(-1, 1, series.slices, dtype=np.float32)[:, None, None]
    r = np.linspace(-1, 1, size, dtype=np.float32)[None, :, None]
    c = np.linspace(-1, 1, size, dtype=np.float32)[None, None, :]
    a = series.shading
    slow = 0.08 * (a[0] * s + a[1] * s * s)
    plane = 0.12 * (a[2] * r + a[3] * c) + 0.10 * (a[4] * r * r + a[5] * c * c + a[6] * r * c)
    plane = plane - 0.18 * (r * r + c * c)
    return np.asarray(np.exp(slow + plane + 0.05 * s * (a[7] * r + a[8] * c)), np.float32)
