"""Painting of cruciate and collateral ligaments and tendons, with tears of ACL and MCL."""

from __future__ import annotations

from dataclasses import dataclass
from math import radians, tan
from typing import Literal

import numpy as np
from jaxtyping import Float

from mrknee.sources.phantom.anatomy import Anatomy
from mrknee.sources.phantom.bones import patella_centre
from mrknee.sources.phantom.lesions import AclTear, MclTear
from mrknee.sources.phantom.shapes import Canvas, Point, ramp, smooth_path, tube


def acl_path(knee: Anatomy, sag: float = 0.0) -> Float[np.ndarray, "n 3"]:
    """Returns world points of the ACL's axis, from the lateral condyle to the tibia."""
    start = np.array(_on_femur(knee, (knee.notch - 1.5, -12.0, 30.0)))
    end = np.array([-1.0, 8.5, 3.0])
    # Lax fibres sag backwards and downwards.
    hang = np.array([0.0, -0.55, -0.85]) * sag
    share = np.linspace(0.0, 1.0, 8)[:, None]
    path = start + (end - start) * share + hang * np.sin(np.pi * share)
    return knee.tibia.to_world(path)


def paint_acl(canvas: Canvas, knee: Anatomy, tear: AclTear | None) -> None:
    """Paints the ACL: dark fibre bundles in a looser sheath, fanning out to the tibia."""
    path = acl_path(knee, 0.0 if tear is None else tear.sag)
    count = len(path)
    thick = knee.acl_radius * np.linspace(0.9, 1.15, count)
    swollen = (
        thick if tear is None else thick * (1 + (tear.swelling - 1) * np.hanning(count + 2)[1:-1])
    )
    flat = (knee.tibia.axes[0] / np.linalg.norm(knee.tibia.axes[0]), 1.5)
    box = canvas.grid.box(path, float(swollen.max()) + 2.0)
    distance, along = tube(box, path, swollen, flat)
    sheath = canvas.coverage(distance)
    canvas.paint(box, sheath, "loose ligament")
    break_ = np.zeros(1, np.float32)
    if tear is not None:
        length = float(np.linalg.norm(path[-1] - path[0]))
        half = 0.5 * tear.gap / length
        break_ = ramp(np.abs(along - tear.position), half * 1.8 + 0.05, half)
        strength = (0.35 + 0.65 * tear.severity) * (0.25 + 0.75 * tear.brightness)
        oedema = sheath * (0.35 + 0.65 * break_) * strength
        canvas.paint(box, oedema.astype(np.float32), "torn ligament")
        canvas.mark(tear, box, sheath * np.clip(0.3 + break_, 0.0, 1.0))
    _paint_fibres(canvas, knee, path, tear)
    if tear is None and knee.acl_bright_spot:
        spot = sheath * ramp(np.abs(along - 0.82), 0.16, 0.04) * (0.55 * knee.acl_bright_spot)
        canvas.paint(box, spot.astype(np.float32), "mucoid")


def _paint_fibres(
    canvas: Canvas, knee: Anatomy, path: Float[np.ndarray, "n 3"], tear: AclTear | None
) -> None:
    """Paints the ligament's dark bundles; torn bundles are interrupted and frayed."""
    count = len(path)
    spread = np.linspace(0.75, 1.25, count)[:, None]
    axes = knee.tibia.axes / np.linalg.norm(knee.tibia.axes, axis=1, keepdims=True)
    for index, (side, fore) in enumerate(((-0.25, 0.62), (0.3, 0.2), (-0.3, -0.22), (0.2, -0.62))):
        shift = (side * axes[0] + fore * axes[1]) * knee.acl_radius * spread
        radius = 0.27 * knee.acl_radius
        fibre = path + shift
        box = canvas.grid.box(fibre, radius + 1.5)
        distance, along = tube(box, fibre, np.full(count, radius))
        cover = canvas.coverage(distance)
        if tear is not None:
            length = float(np.linalg.norm(path[-1] - path[0]))
            half = 0.5 * tear.gap / length
            centre = tear.position + 0.05 * (index - 1.5)
            lost = ramp(np.abs(along - centre), half + 0.06, half) * min(1.0, 0.45 + tear.severity)
            cover = cover * (1.0 - lost) * (1.0 - 0.55 * tear.severity)
        canvas.paint(box, cover.astype(np.float32), "ligament")


def paint_pcl(canvas: Canvas, knee: Anatomy) -> None:
    """Paints the PCL, a thick, uniformly dark arch from the medial condyle to the tibia's back."""
    points = [
        _on_femur(knee, (1.5 - knee.notch, 5.0, 14.0)),
        _on_femur(knee, (-4.0, -9.0, 21.0)),
        (-2.5, -21.0, 13.0),
        (-1.0, -25.5, 1.0),
        (-1.0, -26.5, -9.0),
    ]
    path = knee.tibia.to_world(smooth_path(points, 10))
    radii = knee.pcl_radius * np.linspace(1.05, 0.85, 10)
    box = canvas.grid.box(path, float(radii.max()) + 1.5)
    distance, _ = tube(box, path, radii)
    canvas.paint(box, canvas.coverage(distance - 0.8) * 0.5, "synovium")
    canvas.paint(box, canvas.coverage(distance), "ligament")


@dataclass(frozen=True)
class Band:
    """A collateral ligament or tendon.

    Attributes:
        points: course in the tibia's frame, mm.
        widths: half widths at even steps along the course, mm.
        thin: local axis along which the band is thin: 0 medial-lateral, 1 anterior-posterior.
        flatness: width / thickness.
    """

    points: tuple[Point, ...]
    widths: tuple[float, ...]
    thin: Literal[0, 1]
    flatness: float


def extensor_bands(knee: Anatomy) -> list[Band]:
    """Returns the quadriceps tendon and the patellar tendon."""
    u, v, w = patella_centre(knee)
    lean = float(tan(radians(knee.flexion_deg)))
    quadriceps = (
        (u, v + 3.0 - lean * 9.0, w + 17.0),
        (1.0, v - 2.0 - lean * 28.0, w + 36.0),
        (0.0, v - 8.0 - lean * 75.0, w + 80.0),
    )
    patellar = (
        (u, v + 4.0, w - 15.0),
        (2.0, 0.45 * v + 15.5, 0.4 * w - 18.0),
        (2.0, 23.0, -34.0),
        (2.0, 20.5, -45.0),
    )
    return [
        Band(quadriceps, (17.0, 15.0, 15.0), 1, 4.6),
        Band(patellar, (14.0, 12.5, 12.0, 10.0), 1, 5.0),
    ]


def side_bands(knee: Anatomy) -> list[Band]:
    """Returns collaterals, iliotibial band, and tendons of popliteus and semimembranosus."""
    lean = float(tan(radians(knee.flexion_deg)))
    medial = _on_femur(knee, (-40.5, -2.0, 29.0))
    lateral = _on_femur(knee, (40.5, -4.0, 29.0))
    sulcus = _on_femur(knee, (38.5, -2.0, 15.0))
    iliotibial = (
        (47.0, 2.0 - lean * 45.0, 75.0),
        (46.5, 10.0, 32.0),
        (43.0, 16.0, 8.0),
        (31.0, 19.0, -13.0),
    )
    return [
        Band(
            (medial, (-41.0, 1.0, 3.0), (-37.5, 3.0, -14.0), (-26.0, 5.0, -44.0)),
            (6.5, 6.5, 6.5, 6.0),
            0,
            4.5,
        ),
        Band((lateral, (43.0, -11.0, 8.0), (41.0, -19.0, -13.0)), (2.6, 2.4, 2.6), 0, 1.2),
        Band(iliotibial, (9.0, 8.0, 7.0, 6.0), 0, 6.0),
        Band(
            (sulcus, (36.5, -16.0, 6.0), (28.0, -26.0, 0.0), (17.0, -28.0, -8.0)),
            (3.0, 2.8, 2.6, 2.4),
            1,
            1.2,
        ),
        Band(((-33.0, -32.0, 10.0), (-31.0, -24.0, -6.0)), (4.0, 3.5), 1, 1.3),
    ]


def paint_bands(canvas: Canvas, knee: Anatomy, tear: MclTear | None = None) -> None:
    """Paints collateral ligaments, the medial one with its tear, and tendons."""
    medial_collateral, *others = side_bands(knee)
    for band in [*extensor_bands(knee), medial_collateral, *others]:
        count = 4 * len(band.points) - 3
        path = knee.tibia.to_world(smooth_path(band.points, count))
        even = np.linspace(0, 1, len(band.widths))
        radii = np.interp(np.linspace(0, 1, count), even, band.widths)
        direction = knee.tibia.axes[band.thin]
        direction = direction / np.linalg.norm(direction)
        if tear is not None and band is medial_collateral:
            _paint_mcl_tear(canvas, tear, path, radii, (direction, band.flatness))
            continue
        box = canvas.grid.box(path, float(radii.max()) + 1.5)
        distance, _ = tube(box, path, radii, (direction, band.flatness))
        canvas.paint(box, canvas.coverage(distance), "tendon")


def _paint_mcl_tear(
    canvas: Canvas,
    tear: MclTear,
    path: Float[np.ndarray, "n 3"],
    radii: Float[np.ndarray, " n"],
    flatten: tuple[Float[np.ndarray, " 3"], float],
) -> None:
    """Paints an injured band: oedema around its fibres, which a tear interrupts."""
    direction, flatness = flatten
    swollen = radii + tear.swelling
    thickness = float(radii.max()) / flatness + tear.swelling
    box = canvas.grid.box(path, float(swollen.max()) + 3.0)
    around, along = tube(box, path, swollen, (direction, float(swollen.max()) / thickness))
    distance, _ = tube(box, path, radii, flatten)
    away = np.abs(along - tear.position)
    near = ramp(away, 0.42, 0.12)
    # The oedema fades into the fat.
    oedema = ramp(around, 1.0, -0.7 * tear.swelling) * near * (0.45 + 0.55 * tear.severity)
    canvas.paint(box, oedema.astype(np.float32), "soft-tissue oedema")
    half = 0.5 * tear.gap / float(np.linalg.norm(np.diff(path, axis=0), axis=1).sum())
    lost = ramp(away, 1.5 * half + 0.02, half) * min(1.0, 1.4 * tear.severity)
    if not tear.gap:
        lost = np.zeros(1, np.float32)
    fibres = canvas.coverage(distance - 0.6 * tear.severity) * (1.0 - lost)
    fibres = fibres * (1.0 - 0.45 * tear.severity * near)
    canvas.paint(box, fibres.astype(np.float32), "tendon")
    canvas.mark(tear, box, np.clip(1.4 * oedema, 0.0, 1.0))


def _on_femur(knee: Anatomy, point: Point) -> Point:
    """Converts a point from the femur's frame to the tibia's."""
    u, v, w = knee.tibia.to_local(knee.femur.to_world(np.array([point])))[0]
    return float(u), float(v), float(w)
