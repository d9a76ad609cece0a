"""Figure of docs/reference/import-rules.md: orientation of imported exams in each plane.

    python benchmarks/import_pictures.py [--data ../shared/data] [--out docs/images]

The upper row shows a phantom whose slices were rotated and reordered before they were written as
DICOM; the lower row, if the data are available, a real sagittal series (test data of
gattia/pymskt, MIT), which is not part of the project.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from mrknee.exams import PLANES, Dataset, Plane
from mrknee.sources.clinical.importing import Imported, import_exams
from mrknee.sources.phantom import Truth, render_exam

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # for tests.sources.clinical.hospital, which writes DICOM
from tests.sources.clinical.hospital import PROTOCOL, export_series  # noqa: E402  # after the path

REAL = "knee_sag_t2_1echo_dicom_pymskt_MIT.zip"
# what the four edges of a picture, and the first and last slice, are (docs/background/phantom.md)
EDGES = {
    Plane.AXIAL: ("front", "back", "right", "left", "head", "foot"),
    Plane.CORONAL: ("head", "foot", "right", "left", "front", "back"),
    Plane.SAGITTAL: ("head", "foot", "front", "back", "right", "left"),
}
OFF = 24
"""Number of rows by which the phantom is shifted from the middle before import."""
TURNED = ((True, False, True), (False, True, True), (True, True, False))


def phantom(folder: Path) -> Path:
    """Writes a right knee as DICOM, with reversed or transposed axes and off-centre."""
    exam = render_exam(4, Truth(abnormal=True, acl=False, meniscus=False), size=256)
    for scan, turned in zip(PROTOCOL, TURNED, strict=True):
        series = exam.protocol.series[str(scan.plane)]
        odd = replace(
            scan,
            turned=turned,
            transposed=scan.plane is Plane.AXIAL,
            pixel=series.field_of_view / 256,
            spacing=series.spacing,
        )
        pixels = np.zeros(exam.stacks[scan.plane].shape, np.uint16)
        pixels[:, OFF:] = exam.stacks[scan.plane][:, :-OFF].astype(np.uint16) * 16
        export_series(folder, odd, pixels)
    return folder


def show(axis: Axes, plane: Plane, stack: np.ndarray, index: int, name: str) -> None:
    """Shows a slice with the names of its edges and its middle marked."""
    axis.imshow(stack[index], cmap="gray", vmin=0, vmax=255)
    axis.axhline(128, color="#ff9500", linewidth=0.5, linestyle=":")
    axis.axvline(128, color="#ff9500", linewidth=0.5, linestyle=":")
    top, bottom, left, right, first, last = EDGES[plane]
    style: dict[str, Any] = {"color": "#ff9500", "fontsize": 9, "ha": "center", "va": "center"}
    style["path_effects"] = [withStroke(linewidth=2, foreground="black")]
    axis.text(128, 9, top, **style)
    axis.text(128, 247, bottom, **style)
    axis.text(9, 128, left, rotation=90, **style)
    axis.text(247, 128, right, rotation=270, **style)
    axis.set_title(f"{name}: slice {index + 1} of {len(stack)}, {first} to {last}", fontsize=9)
    axis.axis("off")


def stacks_of(source: Path, folder: Path) -> tuple[Imported, Dataset]:
    """Imports a source as `mrknee import` does."""
    imported = import_exams(source, folder, allow_missing_plane=True)
    return imported, Dataset(folder, allow_missing_plane=True)


def draw(data: Path, file: Path) -> None:
    """Writes the figure."""
    real = data / REAL
    rows = 1 + real.exists()
    figure, axes = plt.subplots(rows, 3, figsize=(10.5, 3.7 * rows), squeeze=False)
    with tempfile.TemporaryDirectory() as folder:
        imported, (exam,) = stacks_of(phantom(Path(folder, "in")), Path(folder, "out"))
        assert imported.exams["0000"]["side"] == "right"
        for axis, plane in zip(axes[0], PLANES, strict=True):
            stack = exam.stacks[plane]
            show(axis, plane, stack, len(stack) // 2, f"phantom, {plane}")
        if real.exists():
            _, (exam,) = stacks_of(real, Path(folder, "real"))
            stack = exam.stacks[Plane.SAGITTAL]
            for axis, index in zip(axes[1], (6, 12, 18), strict=True):
                show(axis, Plane.SAGITTAL, stack, index, "real, sagittal")
    figure.tight_layout(pad=0.5)
    figure.savefig(file, dpi=80)
    plt.close(figure)


def main() -> None:
    """Reads the command line and writes the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    data = os.environ.get("MRKNEE_DATA", str(ROOT.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(data))
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    arguments = parser.parse_args()
    draw(arguments.data, arguments.out / "import_planes.png")


if __name__ == "__main__":
    main()
