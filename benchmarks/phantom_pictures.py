"""Figures of docs/background/phantom.md: the phantom next to a real knee, and its lesions.

    python benchmarks/phantom_pictures.py [--data ../shared/data] [--out docs/images]

The real knee (test data of gattia/pymskt, MIT) is not part of the project; without it, only the
figures of the lesions and of a study are written.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
from scipy.interpolate import make_interp_spline

from mrknee.exams import RSNA_2026_FINDINGS
from mrknee.sources.phantom import PhantomExam, Truth, render_exam
from mrknee.sources.phantom.anatomy import draw_anatomy
from mrknee.sources.phantom.exam import paint_knee
from mrknee.sources.phantom.rsna.cohort import sites_of
from mrknee.sources.phantom.rsna.findings import FINDINGS
from mrknee.sources.phantom.rsna.lesions import draw_study_lesions
from mrknee.sources.phantom.rsna.study import Study, draw_study, render_study
from mrknee.sources.phantom.scanner import PLANES, Acquisition, Protocol, acquire, draw_protocol

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

SPACING = 1.5
T2_NAME = "knee_sag_t2_pymskt_MIT.nii.gz"
PIXEL, GAP = 0.625, 4.0
"""Pixel spacing and slice distance of the real series, in mm."""
# The real series (3 T, no fat saturation) has TR 2450 and TE 31.6 ms. The phantom's T2 contrast
# is similar at twice this echo time; at the same echo time, its muscle is too bright.
REPETITION, ECHO = 2450.0, 60.0
# Centre of the real knee's joint: rows from the top, columns from the front, slices from the left.
JOINT = (146.0, 131.0, 11.0)
# Positions of the slices shown, in mm from the centre of the joint: lateral, up, back.
SAGITTAL = (-28.0, -20.0, -12.0, 4.0, 16.0, 36.0)
CORONAL = (-16.0, 0.0, 10.0, 20.0)
AXIAL = (42.0, 24.0, 10.0, -14.0, -32.0)
EDGE, SHOWN_MM, STUDY_LESIONS = 224, 140.0, 148
"""Of the figure of a study: median edge of its images, side of what is shown, and seed of its
lesions."""
SIDE, NARROW = 132.0, 88.0
"""Side of the square that is shown, and width of coronal and axial slices, in mm."""


def phantom_knee() -> dict[str, np.ndarray]:
    """Generates a normal right knee of about the size of the real one, T2 in all planes."""
    knee = replace(
        draw_anatomy(np.random.default_rng(21)),
        right=True,
        scale=1.04,
        offset=(0.0, 0.0, 0.0),
        rotation_deg=(2.0, 0.0, 0.0),
        flexion_deg=6.0,
        fat=8.0,
        degeneration=(0.0, 0.0),
        muscle=1.15,
    )
    drawn = draw_protocol(np.random.default_rng(21), 1.0)
    series: dict[str, Acquisition] = {
        plane: replace(
            drawn.series[plane],
            slices=81,
            spacing=SPACING,
            thickness=GAP,
            field_of_view=256 * PIXEL,
            centre=(0.0, 0.0, 0.0),
            matrix=(352, 256),
            repetition_ms=REPETITION,
            echo_ms=ECHO,
            fat_left=1.0,
            noise=0.008,
        )
        for plane in PLANES
    }
    canvas = paint_knee(knee, (), Protocol(3.0, series), 256)
    rng = np.random.default_rng(0)
    return {
        plane: acquire(
            canvas.volumes[index],
            canvas.grid,
            series[plane],
            256,
            max(signal[index] for signal in canvas.signals.values()),
            rng,
        )
        for index, plane in enumerate(PLANES)
    }


def phantom_slice(stack: np.ndarray, plane: str, place: float) -> np.ndarray:
    """Returns the cropped slice of the phantom at a position in mm."""
    sign = 1.0 if plane == "coronal" else -1.0
    image = stack[round(len(stack) // 2 + sign * place / SPACING)]
    return cut(image, 127.5, 127.5, SIDE if plane == "sagittal" else NARROW)


def real_knee(data: Path) -> np.ndarray:
    """Reads the real sagittal series: (rows from top, columns from front, slices from left)."""
    from nibabel.nifti1 import Nifti1Image

    volume = Nifti1Image.from_filename(str(data / T2_NAME)).get_fdata().transpose(1, 0, 2)
    return np.asarray(np.clip(volume / np.percentile(volume, 99.0), 0, 1) * 255)


def real_slice(volume: np.ndarray, plane: str, place: float) -> np.ndarray:
    """Returns the real knee's slice at a position in mm; coronal and axial ones are reformatted."""
    row, column, middle = JOINT
    if plane == "sagittal":
        return cut(volume[:, :, round(middle + place / GAP)], row, column, SIDE)
    # A cubic spline interpolates from 4 mm between slices to 0.625 mm; right is displayed on the
    # left. The slices are as thick as those of the phantom.
    axis, first = (0, row - place / PIXEL) if plane == "axial" else (1, column + place / PIXEL)
    slab = np.arange(round(GAP / PIXEL)) + round(first - GAP / PIXEL / 2)
    image = volume.take(slab, axis=axis).mean(axis=axis)
    steps = np.arange(0.0, image.shape[1] - 1 + 1e-6, PIXEL / GAP)
    fine = make_interp_spline(np.arange(image.shape[1]), image, axis=1)(steps)[:, ::-1]
    across = len(steps) - 1 - middle * GAP / PIXEL
    return cut(np.clip(fine, 0, 255), column if plane == "axial" else row, across, NARROW)


def cut(image: np.ndarray, row: float, column: float, width: float) -> np.ndarray:
    """Crops a window of SIDE by ``width`` mm around a position; black outside of the image."""
    rows, columns = round(SIDE / PIXEL), round(width / PIXEL)
    room = np.pad(image, rows)
    top, left = round(row + rows - rows / 2), round(column + rows - columns / 2)
    return np.asarray(room[top : top + rows, left : left + columns])


def compare(data: Path, out: Path) -> None:
    """Writes phantom_vs_real.png: pairs of rows, the real knee above the phantom."""
    real, ours = real_knee(data), phantom_knee()
    shown = [[("sagittal", place) for place in SAGITTAL]]
    shown.append([("coronal", place) for place in CORONAL] + [("axial", place) for place in AXIAL])
    rows: list[list[np.ndarray]] = []
    for places in shown:
        rows.append([real_slice(real, *place) for place in places])
        rows.append([phantom_slice(ours[place[0]], *place) for place in places])
    names = ["real", "phantom", "real (reformatted)", "phantom"]
    show(rows, names, out / "phantom_vs_real.png")


def show(rows: Sequence[Sequence[np.ndarray]], names: Sequence[str], file: Path) -> None:
    """Writes a figure of rows of images, with the name of each row at its left."""
    figure = plt.figure(figsize=(14.7, 2.385 * len(rows)))
    margin, gap = 0.018, 0.003
    for line, (images, name) in enumerate(zip(rows, names, strict=True)):
        height, width = 1.0 / len(rows), (1.0 - margin) / len(images)
        for place, image in enumerate(images):
            corner = (margin + place * width, 1.0 - (line + 1) * height)
            axis = figure.add_axes((*corner, width - gap, height - 2 * gap))
            axis.imshow(image, cmap="gray", vmin=0, vmax=255)
            axis.set_xticks([])
            axis.set_yticks([])
            if place == 0:
                axis.set_ylabel(name, fontsize=10)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def lesion_panel(axis: Axes, exam: PhantomExam, finding: str, plane: str, name: str) -> None:
    """Shows the slice with the largest part of a lesion, and the lesion's outline in colour."""
    mask = exam.masks[finding][plane]
    index = int(mask.sum(axis=(1, 2)).argmax())
    axis.imshow(exam.stacks[plane][index], cmap="gray", vmin=0, vmax=255)
    axis.contour(mask[index], [0.5], colors="#ff9500", linewidths=0.9)
    axis.set_title(name, fontsize=9)
    axis.axis("off")


def first_seed(truth: Truth, wanted: str) -> tuple[int, PhantomExam]:
    """Finds the first seed for which all lesions are of the wanted kind, the first not mild."""
    from mrknee.sources.phantom.exam import draw_exam_lesions

    for seed in range(2000):
        lesions = draw_exam_lesions(seed, truth)
        first = lesions[0]
        kinds = {getattr(lesion, "kind", type(lesion).__name__) for lesion in lesions}
        if kinds == {wanted} and getattr(first, "severity", getattr(first, "amount", 1.0)) > 0.5:
            return seed, render_exam(seed, truth)
    raise LookupError(wanted)


def lesions(out: Path) -> None:
    """Writes phantom_lesions.png: every kind of lesion, outlined, in two planes."""
    tear = Truth(abnormal=True, acl=False, meniscus=True)
    cases = [("AclTear", Truth(abnormal=True, acl=True, meniscus=False), "acl", "ACL tear")]
    kinds = ("horizontal", "vertical", "bucket-handle")
    cases += [(kind, tear, "meniscus", f"meniscus: {kind}") for kind in kinds]
    alone = Truth(abnormal=True, acl=False, meniscus=False)
    for kind, name in (
        ("Effusion", "effusion"),
        ("Oedema", "marrow oedema"),
        ("CartilageDefect", "cartilage defect"),
        ("BakerCyst", "Baker's cyst"),
    ):
        cases.append((kind, alone, "abnormal", name))
    figure, axes = plt.subplots(4, 4, figsize=(11.5, 12.2))
    for index, (kind, truth, finding, name) in enumerate(cases):
        seed, exam = first_seed(truth, kind)
        row, column = 2 * (index // 4), index % 4
        other = "axial" if kind in ("Effusion", "BakerCyst") else "coronal"
        lesion_panel(axes[row, column], exam, finding, "sagittal", f"{name} (seed {seed})")
        lesion_panel(axes[row + 1, column], exam, finding, other, f"{name}, {other}")
    figure.tight_layout(pad=0.4)
    figure.savefig(out / "phantom_lesions.png", dpi=95)
    plt.close(figure)


def study(out: Path) -> None:
    """Writes phantom_rsna2026.png: a study's series, with a lesion of each finding outlined."""
    sites = sites_of(0)
    drawn = (
        draw_study(0, "train", index, sites, enriched=False, size=EDGE, slice_factor=1.0)
        for index in range(1000)
    )
    chosen = next(one for one in drawn if complete(one))
    # No drawn study has all findings, so that this one gets them.
    all_lesions, _ = draw_study_lesions(np.random.default_rng(STUDY_LESIONS), FINDINGS)
    chosen = replace(
        chosen,
        present=frozenset(FINDINGS),
        lesions=all_lesions,
        knee=replace(chosen.knee, fat=7.0),
        series=tuple(
            sorted(
                chosen.series,
                key=lambda one: (PLANES.index(one.planned.plane), not one.planned.fat_suppressed),
            )
        ),
    )
    figure, axes = plt.subplots(len(chosen.series), len(FINDINGS), figsize=(18.0, 9.2))
    for line, (series, pixels, masks) in zip(axes, render_study(chosen, EDGE), strict=True):
        planned = series.planned
        white = np.percentile(pixels, 99.7)
        margin = round((1 - SHOWN_MM / planned.acquisition.field_of_view) / 2 * planned.edge)
        cut = slice(margin, planned.edge - margin)
        for axis, (name, title) in zip(line, RSNA_2026_FINDINGS.items(), strict=True):
            mask = masks[name]
            index = int(mask.sum(axis=(1, 2)).argmax())
            axis.imshow(pixels[index, cut, cut], cmap="gray", vmin=0, vmax=white)
            if mask[index, cut, cut].any():
                axis.contour(mask[index, cut, cut], [0.5], colors="#ff9500", linewidths=0.7)
            axis.set_xticks([])
            axis.set_yticks([])
            if axis in axes[0]:
                axis.set_title(title, fontsize=9)
        fat = "FS" if planned.fat_suppressed else ""
        line[0].set_ylabel(f"{planned.plane} {planned.weighting} {fat}", fontsize=9)
    figure.subplots_adjust(0.015, 0.002, 0.999, 0.972, 0.02, 0.02)
    figure.savefig(out / "phantom_rsna2026.png", dpi=90)
    plt.close(figure)


def complete(one: Study) -> bool:
    """Returns whether a study has six usual series: each plane with and without suppression."""
    planned = [series.planned for series in one.series]
    kinds = {(series.plane, series.fat_suppressed) for series in planned}
    coronal = {series.weighting for series in planned if series.plane == "coronal"}
    usual = not any(series.three_d for series in planned) and "T1" in coronal
    quiet = all(series.acquisition.noise < 0.022 for series in planned)
    return len(planned) == len(kinds) == 6 and usual and quiet


def main() -> None:
    """Reads the command line and writes both figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    here = Path(__file__).resolve().parents[1]
    data = os.environ.get("MRKNEE_DATA", str(here.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(data))
    parser.add_argument("--out", type=Path, default=here / "docs" / "images")
    arguments = parser.parse_args()
    lesions(arguments.out)
    study(arguments.out)
    if (arguments.data / T2_NAME).exists():
        compare(arguments.data, arguments.out)
    else:
        print(f"no real knee in {arguments.data}: phantom_vs_real.png is left as it is")


if __name__ == "__main__":
    main()
