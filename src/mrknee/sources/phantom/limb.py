"""The limb around the joint: skin, fat, muscles, vessels, drawn over the whole grid."""

from __future__ import annotations

import numpy as np

from mrknee.sources.phantom.anatomy import Anatomy
from mrknee.sources.phantom.shapes import (
    Box,
    Canvas,
    Field,
    Grid,
    ramp,
    smooth_noise,
)

Keys = tuple[tuple[float, float, float, float, float], ...]
"""Rows of height w, centre u, centre v, half width, half depth (mm): a column along the leg."""

# Deep fascia: height, half width medially, laterally, reach to the front, to the back (mm).
FASCIA = (
    (100.0, 58.0, 56.0, 44.0, 58.0),
    (75.0, 55.0, 53.0, 46.0, 55.0),
    (55.0, 51.0, 50.0, 53.0, 52.0),
    (38.0, 48.0, 48.0, 59.0, 48.0),
    (20.0, 46.5, 47.0, 55.0, 46.0),
    (0.0, 45.0, 47.0, 42.0, 47.0),
    (-20.0, 43.0, 47.0, 33.0, 53.0),
    (-45.0, 42.0, 46.0, 26.0, 58.0),
    (-100.0, 44.0, 46.0, 22.0, 60.0),
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
        (40, 39, -33, 9, 14),
        (8, 42, -27, 4, 8),
        (-6, 41, -24, 2, 3),
    ),
    "semimembranosus": (
        (110, -20, -36, 20, 17),
        (80, -22, -38, 19, 15),
        (42, -27, -38, 13, 11),
        (12, -31, -33, 6, 6),
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
        (34, -24, -37, 3, 3),
        (20, -24, -41, 11, 6),
        (0, -22, -43, 16, 10),
        (-40, -21, -45, 21, 14),
        (-110, -20, -44, 22, 16),
    ),
    "gastrocnemius lateral": (
        (34, 23, -37, 3, 3),
        (20, 23, -40, 10, 6),
        (0, 23, -43, 15, 10),
        (-40, 22, -45, 20, 13),
        (-110, 22, -45, 22, 15),
    ),
    "popliteus": ((2, 8, -25, 6, 2), (-12, 3, -27, 18, 5), (-32, -2, -25, 21, 7), (-60, -12, -22, 12, 6)),
    "soleus": ((-20, 22, -30, 6, 3), (-40, 10, -33, 22, 7), (-65, 4, -32, 30, 11), (-110, 2, -32, 34, 14)),
    "tibialis posterior": ((-32, 14, -16, 4, 4), (-60, 12, -15, 13, 8), (-110, 10, -15, 15, 10)),
    "tibialis anterior": ((-18, 28, 8, 3, 4), (-35, 30, 4, 8, 11), (-65, 27, 2, 14, 17), (-110, 24, 2, 16, 19)),
    "peroneus": ((-30, 44, -10, 3, 6), (-60, 42, -9, 9, 13), (-110, 41, -9, 10, 14)),
}
ARTERY: Keys = ((110, -6, -24, 3.4, 3.4), (60, 0, -30, 3.3, 3.3), (20, 2, -38, 3.2, 3.2), (-20, 3, -37, 3, 3), (-110, 4, -26, 2.6, 2.6))
VEIN: Keys = ((110, -2, -30, 1, 1), (60, 5, -35, 1, 1), (20, 5, -44, 1, 1), (-20, 2, -43, 1, 1), (-110, 0, -30, 0.8, 0.8))
NERVE: Keys = ((110, 10, -38, 3, 3), (40, 9, -46, 3.2, 2.6), (0, 6, -51, 3, 2.4), (-40, 3, -40, 2.4, 2.4), (-110, 3, -34, 2, 2))
SAPHENOUS: Keys = ((110, -55, -25, 2, 2), (0, -49, -33, 2, 2), (-110, -48, -8, 1.8, 1.8))


def leg_coordinates(knee: Anatomy, box: Box, step: int) -> tuple[Field, Field, Field]:
    """Coordinates that follow the bend of the leg; the height is one value a slice."""
    u, v, w = box.local(knee.tibia, step)
    height = w[:, w.shape[1] // 2, w.shape[2] // 2]
    above = np.logaddexp(0.0, (height - 25.0) / 8.0) * 8.0
    bend = np.tan(np.deg2rad(knee.flexion_deg)) * above
    return u, (v + bend.astype(np.float32)[:, None, None]), height


def column(u: Field, v: Field, height: Field, keys: Keys, grow: float = 1.0) -> Field:
    """Signed distance to a column along the leg; far outside its heights it is distant."""
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
    """Signed distance to the deep fascia, the limb's outline without its fat."""
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
    """Paint skin, fat, fasciae and muscles over the whole grid."""
    grid, everywhere = canvas.grid, canvas.grid.everything()
    u, v, height = leg_coordinates(knee, everywhere, 2)
    deep = _fascia_distance(knee, u, v, height)
    # Fat is thin over the patella and the shin, thick at the back and the medial side.
    angle_fat = 0.85 - 0.45 * ramp(v, 0.0, 40.0) + 0.35 * ramp(-u, 0.0, 40.0) * ramp(v, 40.0, 0.0)
    skin = deep - knee.fat * angle_fat - 1.5
    first, second = _two_nearest(knee, u, v, height)
    full = [_expand(values, grid) for values in (deep, skin, first, second)]
    deep, skin, first, second = full
    noise = smooth_noise(rng, grid.shape, (7 / grid.spacing, 5 / grid.spacing, 5 / grid.spacing))
    canvas.paint(everywhere, canvas.coverage(skin), "skin")
    lobules = 1.0 - 0.30 * np.exp(-((noise * 6.0) ** 2))
    canvas.paint(everywhere, canvas.coverage(skin + 1.6), "subcutaneous fat", lobules)
    inside = canvas.coverage(deep)
    canvas.paint(everywhere, inside * 0.75, "fascia")
    strands = 1.0 - 0.22 * np.exp(-((noise[::-1] * 5.0) ** 2))
    canvas.paint(everywhere, canvas.coverage(deep + 1.3), "deep fat", strands)
    _paint_muscles(canvas, everywhere, deep, first, second, rng)


def _expand(values: Field, grid: Grid) -> Field:
    from mrknee.sources.phantom.shapes import _double

    for axis, size in enumerate(grid.shape):
        values = _double(values, axis, size)
    return values


def _two_nearest(knee: Anatomy, u: Field, v: Field, height: Field) -> tuple[Field, Field]:
    """Distances to the nearest and the second nearest muscle: septa run where they are equal."""
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
    streaks = smooth_noise(rng, grid.shape, (14 / h, 1.6 / h, 1.6 / h))
    # Fatty streaks run along the fibres: the tails of the noise, not its bulk.
    lean = canvas.coverage(body)
    lean *= 1.0 - 0.55 * ramp(streaks, 1.9, 3.0)
    canvas.paint(box, canvas.coverage(body - 0.9) * 0.5, "fascia")
    canvas.paint(box, lean, "muscle")


def paint_vessels(canvas: Canvas, knee: Anatomy) -> None:
    """Popliteal artery and vein, tibial nerve, great saphenous vein."""
    grid = canvas.grid
    for keys, grow, rim, core in (
        (NERVE, 1.0, "fascia", "nerve"),
        (VEIN, knee.vein, "fascia", "slow blood"),
        (ARTERY, 1.0, "tendon", "flowing blood"),
        (SAPHENOUS, 1.0, "fascia", "slow blood"),
    ):
        rows = np.array(keys, float)
        points = rows[:, [1, 2, 0]].copy()
        points[:, 1] -= np.tan(np.deg2rad(knee.flexion_deg)) * np.maximum(points[:, 2] - 25.0, 0)
        box = grid.box(knee.tibia.to_world(points), 10.0)
        u, v, height = leg_coordinates(knee, box, 1)
        distance = column(u, v, height, keys, grow)
        canvas.paint(box, canvas.coverage(distance - 0.6), rim)
        canvas.paint(box, canvas.coverage(distance), core)
