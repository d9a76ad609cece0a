"""The pictures of docs/phantom.md: the phantom beside real knees, and its lesions.

    python benchmarks/phantom_pictures.py [--data ../shared/data] [--out docs]

The real knees are not part of the project; without them only the lesions are drawn.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np

from mrknee.sources.phantom import PhantomExam, Truth, render_exam
from mrknee.sources.phantom.anatomy import draw_anatomy
from mrknee.sources.phantom.exam import paint_knee
from mrknee.sources.phantom.scanner import PLANES, Protocol, Series, acquire, draw_protocol

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

SLICES, SPACING = 41, 3.0
T2_NAME = "knee_sag_t2_pymskt_MIT.nii.gz"
# Columns of the comparison: plane, the real slice, and the same place in the phantom in mm from
# the middle of its joint (up for axial, back for coronal, lateral for sagittal).
DESS = (
    ("axial", 22, 36.0),
    ("axial", 17, 18.0),
    ("coronal", 22, -4.0),
    ("coronal", 15, 16.0),
    ("sagittal", 9, 22.0),
    ("sagittal", 18, -7.0),
)
T2 = ((4, -31.0), (6, -22.0), (8, -14.0), (12, 0.0), (14, 9.0), (19, 24.0))


def phantom_stacks(
    *, fat_left: float, right: bool, echo_ms: float, seed: int = 21
) -> dict[str, np.ndarray]:
    """One normal knee, straight in the scanner, all planes with the same contrast."""
    knee = replace(
        draw_anatomy(np.random.default_rng(seed)),
        right=right,
        scale=1.0,
        offset=(0.0, 0.0, 0.0),
        rotation_deg=(2.0, 0.0, 0.0),
        flexion_deg=6.0,
        fat=8.0,
        degeneration=(0.0, 0.0),
        muscle=1.15,
    )
    drawn = draw_protocol(np.random.default_rng(seed), 1.0)
    series: dict[str, Series] = {
        plane: replace(
            drawn.series[plane],
            slices=SLICES,
            spacing=SPACING,
            thickness=SPACING,
            field_of_view=155.0,
            centre=(0.0, 0.0, 0.0),
            matrix=(352, 256),
            repetition_ms=3500.0,
            echo_ms=echo_ms,
            fat_left=fat_left,
            noise=0.008,
        )
        for plane in PLANES
    }
    protocol = Protocol(3.0, series)
    canvas = paint_knee(knee, (), protocol, 256)
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


def at(stack: np.ndarray, plane: str, place: float, *, right: bool) -> np.ndarray:
    """The phantom's slice at a place in mm."""
    sign = {"axial": -1.0, "coronal": 1.0, "sagittal": -1.0 if right else 1.0}[plane]
    return np.asarray(stack[round(len(stack) // 2 + sign * place / SPACING)])


def real_t2(data: Path) -> np.ndarray:
    """The real sagittal T2 series, head up and front left: (slices, 256, 256)."""
    from nibabel.nifti1 import Nifti1Image

    volume = Nifti1Image.from_filename(str(data / T2_NAME)).get_fdata()
    stack = np.stack([np.rot90(volume[:, :, i])[::-1] for i in range(volume.shape[2])])
    return np.asarray(np.clip(stack / np.percentile(stack, 99.6), 0, 1) * 255)


def compare(data: Path, out: Path) -> None:
    """Write phantom_vs_real.png: rows in pairs, the real knee over the phantom."""
    layout = data / "knee_exam_mrnet_layout"
    dess: dict[str, np.ndarray] = {plane: np.load(layout / plane / "0000.npy") for plane in PLANES}
    ours = phantom_stacks(fat_left=0.06, right=True, echo_ms=28.0)
    rows: list[list[np.ndarray]] = [
        [np.clip(dess[plane][i] * 1.35, 0, 255) for plane, i, _ in DESS],
        [at(ours[plane], plane, place, right=True) for plane, _, place in DESS],
    ]
    names = ["real: DESS, fat dark", "phantom: PD, fat-saturated"]
    t2 = real_t2(data)
    ours = phantom_stacks(fat_left=1.0, right=False, echo_ms=60.0)
    rows.append([t2[i] for i, _ in T2])
    rows.append([at(ours["sagittal"], "sagittal", place, right=False) for _, place in T2])
    names += ["real: T2", "phantom: T2"]
    show(rows, names, out / "phantom_vs_real.png")


def show(rows: Sequence[Sequence[np.ndarray]], names: Sequence[str], file: Path) -> None:
    """Images in rows, each row named at its left."""
    figure, axes = plt.subplots(
        len(rows), len(rows[0]), figsize=(2.45 * len(rows[0]), 2.5 * len(rows)), squeeze=False
    )
    for line, images, name in zip(axes, rows, names, strict=True):
        for axis, image in zip(line, images, strict=True):
            axis.imshow(image, cmap="gray", vmin=0, vmax=255)
            axis.set_xticks([])
            axis.set_yticks([])
        line[0].set_ylabel(name, fontsize=10)
    figure.tight_layout(pad=0.3)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def lesion_panel(axis: Axes, exam: PhantomExam, finding: str, plane: str, name: str) -> None:
    """The slice with the most of a lesion, its outline in colour."""
    mask = exam.masks[finding][plane]
    index = int(mask.sum(axis=(1, 2)).argmax())
    axis.imshow(exam.stacks[plane][index], cmap="gray", vmin=0, vmax=255)
    axis.contour(mask[index], [0.5], colors="#ff9500", linewidths=0.9)
    axis.set_title(name, fontsize=9)
    axis.axis("off")


def first_seed(truth: Truth, wanted: str, start: int = 0) -> tuple[int, PhantomExam]:
    """The first seed whose lesions are of the wanted kind only."""
    from mrknee.sources.phantom.exam import draw_exam_lesions

    for seed in range(start, start + 2000):
        lesions = draw_exam_lesions(seed, truth)
        first = lesions[0]
        kinds = {getattr(lesion, "kind", type(lesion).__name__) for lesion in lesions}
        if kinds == {wanted} and getattr(first, "severity", getattr(first, "amount", 1.0)) > 0.5:
            return seed, render_exam(seed, truth)
    raise LookupError(wanted)


def lesions(out: Path) -> None:
    """Write phantom_lesions.png: every kind of lesion, outlined, in two planes."""
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


def main() -> None:
    """Write both pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    here = Path(__file__).resolve().parents[1]
    data = os.environ.get("MRKNEE_DATA", str(here.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(data))
    parser.add_argument("--out", type=Path, default=here / "docs")
    arguments = parser.parse_args()
    lesions(arguments.out)
    if (arguments.data / T2_NAME).exists():
        compare(arguments.data, arguments.out)
    else:
        print(f"no real knees in {arguments.data}: phantom_vs_real.png is left as it is")


if __name__ == "__main__":
    main()
