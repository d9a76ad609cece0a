"""Painting of the limb around the joint: skin, fat, muscles and vessels."""

from __future__ import annotations

from math import radians, tan

import numpy as np

from mrknee.sources.phantom.anatomy import Anatomy
from mrknee.sources.phantom.shapes import (
    Box,
    Canvas,
    Field,
    Grid,
    expand,
    ramp,
    smooth_noise,
    smooth_path,
    tube,
)

Keys = tuple[tuple[float, float, float, float, float], ...]
"""A column along the leg: rows of height w, centre u, centre v, half width, half depth (mm)."""

# Deep fascia: height, half width medially and laterally, extent to the front and to the back (mm).
FASCIA = (
    (100.0, 61.0, 59.0, 44.0, 61.0),
    (75.0, 58.0, 56.0, 46.0, 58.0),
    (55.0, 54.0, 53.0, 53.0, 55.0),
    (38.0, 51.0, 51.5, 58.0, 52.0),
    (20.0, 49.5, 51.0, 54.0, 50.0),
    (0.0, 48.0, 52.0, 42.0, 50.0),
    (-20.0, 46.0, 53.0, 33.0, 55.0),
    (-45.0, 45.0, 53.0, 26.0, 60.0),
    (-100.0, 46.0, 52.0, 22.0, 62.0),
)
MUSCLES: dict[str, Keys] = {
    "vastus medialis": (
        (110, -30, 18, 26, 26),
        (85, -33, 17, 22, 26),
        (55, -38, 15, 14, 23),
        (36, -40, 14, 8, 15),
        (24, -41, 12, 2, 6),
    ),
    "vastus lateralis": (
        (110, 32, 18, 24, 26),
        (85, 36, 16, 19, 24),
        (62, 40, 16, 11, 17),
        (42, 42, 16, 2, 6),
    ),
    "rectus": ((110, 0, 34, 24, 12), (85, 1, 34, 18, 8), (66, 2, 36, 6, 2)),
    "biceps femoris": (
        (110, 30, -36, 20, 20),
        (80, 34, -35, 17, 17),
        (40, 39, -33, 12, 15),
        (8, 42, -28, 6, 10),
        (-6, 41, -24, 2, 3),
    ),
    "semimembranosus": (
        (110, -20, -36, 20, 17),
        (80, -22, -38, 19, 15),
        (42, -27, -38, 15, 13),
        (12, -31, -34, 8, 8),
        (0, -33, -29, 2.5, 3),
    ),
    "semitendinosus": ((110, -2, -52, 14, 10), (70, -14, -53, 9, 6), (35, -26, -50, 4, 4)),
    "sartorius": (
        (110, -50, -14, 8, 14),
        (50, -46, -26, 5, 13),
        (0, -43, -26, 3, 11),
        (-30, -39, -8, 2, 6),
    ),
    "gracilis": ((110, -42, -38, 8, 9), (60, -42, -40, 5, 5), (30, -41, -39, 2.5, 2.5)),
    "gastrocnemius medial": (
        (36, -24, -36, 3, 3),
        (20, -24, -41, 13, 9),
        (0, -22, -42, 18, 14),
        (-40, -21, -45, 21, 15),
        (-110, -20, -44, 22, 17),
    ),
    "gastrocnemius lateral": (
        (36, 23, -36, 3, 3),
        (20, 23, -40, 12, 9),
        (0, 23, -42, 17, 14),
        (-40, 22, -45, 20, 14),
        (-110, 22, -45, 22, 16),
    ),
    "popliteus": (
        (2, 8, -25, 6, 2),
        (-12, 3, -27, 18, 5),
        (-32, -2, -25, 21, 7),
        (-60, -12, -22, 12, 6),
    ),
    "soleus": (
        (-20, 22, -30, 6, 3),
        (-40, 10, -33, 22, 7),
        (-65, 4, -32, 30, 11),
        (-110, 2, -32, 34, 14),
    ),
    "tibialis posterior": ((-32, 14, -16, 4, 4), (-60, 12, -15, 13, 8), (-110, 10, -15, 15, 10)),
    "tibialis anterior": (
        (-16, 29, 9, 4, 5),
        (-35, 31, 5, 11, 14),
        (-65, 27, 3, 16, 19),
        (-110, 24, 2, 17, 20),
    ),
    "peroneus": ((-26, 45, -10, 4, 8), (-60, 43, -9, 11, 16), (-110, 41, -9, 11, 16)),
}
ARTERY: Keys = (
    (110, -6, -24, 3.4, 3.4),
    (60, 0, -30, 3.3, 3.3),
    (20, 2, -38, 3.2, 3.2),
    (-20, 3, -37, 3, 3),
    (-110, 4, -26, 2.6, 2.6),
)
VEIN: Keys = (
    (110, -2, -30, 1, 1),
    (60, 5, -35, 1, 1),
    (20, 5, -44, 1, 1),
    (-20, 2, -43, 1, 1),
    (-110, 0, -30, 0.8, 0.8),
)
NERVE: Keys = (
    (110, 10, -38, 3, 3),
    (40, 9, -46, 3.2, 2.6),
    (0, 6, -51, 3, 2.4),
    (-40, 3, -40, 2.4, 2.4),
    (-110, 3, -34, 2, 2),
)
SAPHENOUS: Keys = ((110, -52, -24, 2, 2), (0, -37, -33, 2, 2), (-110, -42, -8, 1.8, 1.8))

BRANCHES = (
    ((-14.0, -46.0, 8.0), (16.0, -34.0, 50.0)),
    ((-20.0, 30.0, 0.0), (20.0, 40.0, 22.0)),
    ((-46.0, -10.0, 30.0), (-36.0, 20.0, 55.0)),
    ((36.0, -10.0, 35.0), (46.0, 20.0, 60.0)),
)
"""Corners (u, v, w in mm) of fat with small vessels: popliteal, Hoffa's, medial, lateral."""


def leg_coordinates(knee: Anatomy, box: Box, step: int) -> tuple[Field, Field, Field]:
    """Returns coordinates u, v, w that follow the bend of the leg; w has one value per slice."""
    u, v, w = box.local(knee.tibia, step)
    height = w[:, w.shape[1] // 2, w.shape[2] // 2]
    above = np.logaddexp(0.0, (height - 25.0) / 8.0) * 8.0
    bend = tan(radians(knee.flexion_deg)) * above
    return u, (v + bend.astype(np.float32)[:, None, None]), height


def column(u: Field, v: Field, height: Field, keys: Keys, grow: float = 1.0) -> Field:
    """Returns the signed distance (mm) to a column along the leg and its ends."""
    rows = np.array(sorted(keys), float)
    cu, cv, a, b = (
        np.interp(height, rows[:, 0], rows[:, i]).astype(np.float32)[:, None, None]
        for i in (1, 2, 3, 4)
    )
    a, b = a * grow, b * grow
    beyond = np.maximum(np.maximum(rows[0, 0] - height, height - rows[-1, 0]), 0.0)
    norm = np.sqrt(((u - cu) / a) ** 2 + ((v - cv) / b) ** 2)
    return np.asarray((norm - 1.0) * np.minimum(a, b) + beyond.astype(np.float32)[:, None, None])


def _fascia_distance(knee: Anatomy, u: Field, v: Field, height: Field) -> Field:
    """Returns the signed distance (mm) to the deep fascia, the limb's outline without fat."""
    rows = np.array(sorted(FASCIA))
    medial, lateral, front, back = (
        np.interp(height, rows[:, 0], rows[:, i]).astype(np.float32)[:, None, None]
        for i in (1, 2, 3, 4)
    )
    du = np.where(u < 0, u / medial, u / lateral)
    dv = np.where(v > 0, v / front, v / back)
    norm = (np.abs(du) ** 2.3 + np.abs(dv) ** 2.3) ** (1 / 2.3) + 1e-3
    a, b, c, d = knee.outline
    wobble = a * du + b * dv + c * (du * du - dv * dv) + d * 2 * du * dv
    return np.asarray(np.hypot(u, v) * (1.0 - 1.0 / norm) - wobble / norm)


def paint_limb(canvas: Canvas, knee: Anatomy, rng: np.random.Generator) -> None:
    """Paints skin, fat, fasciae and muscles."""
    grid = canvas.grid
    u, v, height = leg_coordinates(knee, grid.everything(), 2)
    deep = _fascia_distance(knee, u, v, height)
    # Fat is thin over the patella and the shin, thick at the back and the medial side.
    layer = 0.85 - 0.45 * ramp(v, 0.0, 40.0) + 0.35 * ramp(-u, 0.0, 40.0) * ramp(v, 40.0, 0.0)
    skin = deep - knee.fat * layer - 1.2
    first, second = _two_nearest(knee, u, v, height)
    box, cut = _limb_box(grid, skin)
    shape = tuple(part.stop - part.start for part in box.slices)
    deep, skin, first, second = (expand(part[cut], shape) for part in (deep, skin, first, second))
    h = grid.spacing
    wisps = smooth_noise(rng, shape, (6 / h, 3.5 / h, 3.5 / h))
    density = smooth_noise(rng, shape, (24 / h, 14 / h, 14 / h))
    canvas.paint(box, canvas.coverage(skin), "skin")
    canvas.paint(box, canvas.coverage(skin + 1.2), "subcutaneous fat", _septa(wisps, density))
    canvas.paint(box, canvas.coverage(deep) * 0.6, "fascia")
    canvas.paint(box, canvas.coverage(deep + 1.1), "deep fat", _septa(wisps, -density))
    _paint_muscles(canvas, box, deep, first, second, rng)


def _limb_box(grid: Grid, skin: Field) -> tuple[Box, tuple[slice, slice, slice]]:
    """Returns the box that holds the limb, and the same box on every second voxel."""
    inside = skin < 2.0 * grid.spacing
    cuts, full = [], []
    for axis, size in enumerate(grid.shape):
        found = np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {axis})))
        first, last = max(int(found[0]) - 1, 0), min(int(found[-1]) + 1, skin.shape[axis] - 1)
        cuts.append(slice(first, last + 1))
        full.append(slice(2 * first, min(2 * last + 1, size)))
    z, y, x = (grid.axis(axis)[cut] for axis, cut in enumerate(full))
    return Box((full[0], full[1], full[2]), x, y, z), (cuts[0], cuts[1], cuts[2])


def _septa(wisps: Field, density: Field) -> Field:
    """Returns the brightness of fat: thin broken sheets of connective tissue, slow variation."""
    sheets = np.exp(-np.square(wisps * 7.0)) * np.clip(density + 0.6, 0.0, 1.0)
    return np.asarray(1.0 + 0.05 * density - 0.42 * sheets)


def _two_nearest(knee: Anatomy, u: Field, v: Field, height: Field) -> tuple[Field, Field]:
    """Returns distances to the two nearest muscles; septa run where they are equal."""
    first = np.full(u.shape, 50.0, np.float32)
    second = first.copy()
    for keys in MUSCLES.values():
        low, high = min(row[0] for row in keys), max(row[0] for row in keys)
        rows = np.flatnonzero((height > low - 6) & (height < high + 6))
        if not len(rows):
            continue
        part = slice(int(rows[0]), int(rows[-1]) + 1)
        distance = column(u[part], v[part], height[part], keys, knee.muscle)
        np.minimum(second[part], np.maximum(first[part], distance), out=second[part])
        np.minimum(first[part], distance, out=first[part])
    return first, second


def _paint_muscles(
    canvas: Canvas, box: Box, deep: Field, first: Field, second: Field, rng: np.random.Generator
) -> None:
    grid = canvas.grid
    h = grid.spacing
    septum = (second - first) * 0.5
    body = np.maximum(np.maximum(first, 0.9 - septum), deep + 1.8)
    streaks = smooth_noise(rng, body.shape, (14 / h, 1.5 / h, 1.5 / h))
    canvas.paint(box, canvas.coverage(body - 0.8) * 0.4, "fascia")
    # Fatty streaks along the fibres are the upper tail of the noise.
    lean = canvas.coverage(body)
    lean *= 1.0 - np.clip(0.7 * (streaks - 1.7), 0.0, 0.75)
    canvas.paint(box, lean, "muscle", 1.0 + 0.04 * streaks)


def paint_vessels(canvas: Canvas, knee: Anatomy, rng: np.random.Generator) -> None:
    """Paints popliteal artery and vein, tibial nerve, saphenous vein, and small branches."""
    grid, frame = canvas.grid, knee.tibia
    bend = tan(radians(knee.flexion_deg))
    for keys, grow, outward, rim, core in (
        (NERVE, 1.0, 0.0, "fascia", "nerve"),
        (VEIN, knee.vein, 0.0, "fascia", "slow blood"),
        (ARTERY, 1.0, 0.0, "tendon", "flowing blood"),
        (SAPHENOUS, 1.0, 0.5 * knee.fat, "fascia", "slow blood"),
    ):
        rows = np.array(keys, float)
        points = rows[:, [1, 2, 0]].copy()
        points[:, 1] -= bend * np.maximum(points[:, 2] - 25.0, 0)
        box = grid.box(frame.to_world(points), 10.0 + outward)
        u, v, height = leg_coordinates(knee, box, 1)
        distance = column(u + np.float32(outward), v, height, keys, grow)
        canvas.paint(box, canvas.coverage(distance - 0.6), rim)
        canvas.paint(box, canvas.coverage(distance), core)
    for low, high in BRANCHES:
        for _ in range(3):
            ends = rng.uniform(low, high, (3, 3))
            path = frame.to_world(smooth_path([(p[0], p[1], p[2]) for p in ends], 7))
            radius = float(rng.uniform(0.5, 1.0))
            box = grid.box(path, radius + 1.5)
            distance, _ = tube(box, path, np.full(7, radius))
            kind = "flowing blood" if rng.random() < 0.5 else "slow blood"
            canvas.paint(box, canvas.coverage(distance) * 0.8, kind)
