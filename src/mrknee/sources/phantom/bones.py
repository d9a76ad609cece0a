"""Bones and their cartilage as signed distances in mm: femur, tibia, fibula and patella."""

from __future__ import annotations

from dataclasses import dataclass
from math import radians, tan

import numpy as np

from mrknee.sources.phantom.anatomy import Anatomy
from mrknee.sources.phantom.shapes import (
    Box,
    Field,
    Frame,
    Grid,
    Point,
    ellipsoid,
    intersection,
    ramp,
    rounded_slab,
    union,
)

# Outlines of the shafts: height w, half width, half depth, centre u, centre v (mm).
FEMUR_SHAFT = (
    (18.0, 34.0, 24.0, 0.0, 0.0),
    (35.0, 35.0, 24.5, 0.0, 1.5),
    (48.0, 31.0, 22.0, 0.0, 5.5),
    (62.0, 24.5, 18.5, 0.0, 8.0),
    (80.0, 18.5, 16.0, 0.0, 9.5),
    (140.0, 15.0, 14.5, 0.0, 12.0),
)
TIBIA_SHAFT = (
    (6.0, 37.0, 24.5, 0.0, -1.0),
    (-7.0, 37.5, 24.5, 0.0, -1.5),
    (-16.0, 34.5, 24.0, 0.0, -2.0),
    (-28.0, 28.0, 22.5, -1.0, -2.0),
    (-45.0, 21.5, 19.0, -2.5, -2.0),
    (-65.0, 17.0, 16.5, -4.0, -3.0),
    (-140.0, 13.5, 14.0, -6.0, -6.0),
)
FIBULA = (
    (-10.0, 4.0, 5.0, 39.0, -22.0),
    (-14.0, 9.0, 9.5, 38.5, -21.0),
    (-22.0, 11.5, 11.5, 38.0, -20.0),
    (-32.0, 9.5, 9.5, 37.0, -19.0),
    (-45.0, 6.5, 7.0, 36.0, -19.0),
    (-140.0, 6.0, 6.5, 33.0, -18.0),
)


@dataclass(frozen=True)
class Bone:
    """One bone: its box, signed distance, cortical thickness and local coordinates."""

    name: str
    box: Box
    distance: Field
    cortex: Field | float
    frame: Frame


@dataclass(frozen=True)
class Cartilage:
    """One cartilage layer; ``distance`` includes the bone, which is painted over it."""

    name: str
    box: Box
    distance: Field
    frame: Frame


def shaft(u: Field, v: Field, w: Field, outline: tuple[tuple[float, ...], ...]) -> Field:
    """Returns a shaft with elliptical cross-sections interpolated between rows of an outline."""
    # The height hardly changes within a slice of the box, so one outline per slice is enough.
    height = w[:, w.shape[1] // 2, w.shape[2] // 2]
    rows = np.array(sorted(outline))
    half_u, half_v, centre_u, centre_v = (
        np.interp(height, rows[:, 0], rows[:, column]).astype(np.float32)[:, None, None]
        for column in (1, 2, 3, 4)
    )
    du, dv = u - centre_u, v - centre_v
    norm = np.sqrt((du / half_u) ** 2 + (dv / half_v) ** 2) + 1e-3
    return np.asarray(np.hypot(du, dv) * (1.0 - 1.0 / norm))


def _condyles(knee: Anatomy, u: Field, v: Field, w: Field, grow: float) -> Field:
    """Returns the joint surfaces of condyles and trochlea, ``grow`` mm thicker."""
    posterior = np.hypot(v + 9.0, w - 26.0) - (19.5 + grow)
    groove = knee.groove * np.exp(-(((u - 2.0) / 9.5) ** 2)) + 0.0022 * np.clip(-u, 0, 40) ** 2
    anterior = np.hypot(v - 6.0, w - 31.0) - (26.0 + grow) + groove * ramp(v, 4.0, 16.0)
    rolling = union(posterior, anterior, 8.0)
    medial = rounded_slab(rolling, u + 23.0, 15.5, 12.5)
    lateral = rounded_slab(rolling, u - 22.5, 16.0, 12.5)
    front = (13.0 - v) * 0.75 + (12.0 - w) * 0.66
    trochlea = intersection(rounded_slab(anterior, u - 0.5, 35.0, 9.0), front, 8.0)
    return union(union(medial, lateral, 6.0), trochlea, 3.0)


def _notch(knee: Anatomy, u: Field, v: Field, w: Field) -> Field:
    """Returns the space between the condyles below its oblique roof (Blumensaat's line)."""
    roof = (v - 14.0) * 0.73 + (w - 8.0) * 0.68
    return intersection(roof, np.abs(u) - knee.notch, 9.0)


def femur(knee: Anatomy, grid: Grid) -> tuple[Bone, Cartilage]:
    """Returns the distal femur and its cartilage, in the femur's frame (condyles end at w = 5)."""
    frame = knee.femur
    box = grid.box(frame.to_world(_corners((-42, -40, -8), (42, 36, 150))), 1.0)

    def bone(u: Field, v: Field, w: Field) -> Field:
        upper = intersection(shaft(u, v, w, FEMUR_SHAFT), 17.0 - w, 10.0)
        epicondyles = ellipsoid((np.abs(u), v, w), (30.0, 0.0, 27.0), (10.5, 15.0, 13.0))
        whole = union(union(_condyles(knee, u, v, w, 0.0), upper, 9.0), epicondyles, 8.0)
        return intersection(whole, -_notch(knee, u, v, w), 3.0)

    def layer(u: Field, v: Field, w: Field) -> Field:
        thickness = knee.cartilage * ramp(w - 0.2 * v, 52.0, 38.0)
        grown = _condyles(knee, u, v, w, 0.0) - thickness + 1.4 * ramp(np.abs(u), 31.0, 36.5)
        return intersection(grown, 0.5 - _notch(knee, u, v, w), 2.0)

    def cortex(u: Field, v: Field, w: Field) -> Field:
        del u, v
        return np.asarray(1.1 + 3.2 * ramp(w, 40.0, 80.0))

    distance = box.evaluate(frame, bone)
    cartilage = Cartilage("femur", box, box.evaluate(frame, layer), frame)
    return Bone("femur", box, distance, box.evaluate(frame, cortex), frame), cartilage


def plateau_height(knee: Anatomy, u: Field, v: Field) -> Field:
    """Returns the height (mm) of the plateau: sloped, with two hollows and the eminence."""
    inner = np.exp(-(((np.abs(u) - 7.0) / 3.6) ** 2)) * np.exp(-(((v + 2.0) / 9.0) ** 2))
    hollow = np.exp(-(((np.abs(u) - 21.0) / 10.0) ** 2) - (v / 16.0) ** 2)
    return np.asarray(knee.slope * v + 7.5 * inner - 1.2 * hollow)


def tibia(knee: Anatomy, grid: Grid) -> tuple[Bone, Cartilage]:
    """Returns the proximal tibia and its cartilage, in the tibia's frame (plateau at w = 0)."""
    frame = knee.tibia
    box = grid.box(frame.to_world(_corners((-40, -30, -150), (40, 32, 14))), 1.0)

    def side(u: Field, v: Field, w: Field) -> Field:
        wall = shaft(u, v, w, TIBIA_SHAFT)
        tuberosity = ellipsoid((u, v, w), (1.0, 9.5, -42.0), (12.0, 13.0, 27.0))
        wall = union(wall, tuberosity, 9.0)
        hollow = np.hypot(u - 1.0, v + 32.0) - 12.0 * ramp(w, -34.0, -8.0)
        return intersection(wall, -hollow, 4.0)

    def bone(u: Field, v: Field, w: Field) -> Field:
        top = (w - plateau_height(knee, u, v)) * 0.93
        return intersection(side(u, v, w), top, 4.0)

    def layer(u: Field, v: Field, w: Field) -> Field:
        centre = 1.0 - (((np.abs(u) - 21.0) / 15.0) ** 2 + (v / 21.0) ** 2)
        thickness = (knee.cartilage + 0.3) * np.sqrt(np.clip(centre, 0.0, 1.0))
        top = w - plateau_height(knee, u, v) - thickness
        return intersection(side(u, v, w) + 1.0, top, 1.0)

    def cortex(u: Field, v: Field, w: Field) -> Field:
        del u, v
        return np.asarray(1.1 + 2.6 * ramp(w, -35.0, -90.0))

    distance = box.evaluate(frame, bone)
    cartilage = Cartilage("tibia", box, box.evaluate(frame, layer), frame)
    return Bone("tibia", box, distance, box.evaluate(frame, cortex), frame), cartilage


def fibula(knee: Anatomy, grid: Grid) -> Bone:
    """Returns the fibula, posterolateral with its head just below the joint line."""
    frame = knee.tibia
    box = grid.box(frame.to_world(_corners((22, -34, -150), (52, -4, -6))), 1.0)

    def bone(u: Field, v: Field, w: Field) -> Field:
        return intersection(shaft(u, v, w, FIBULA), w + 10.5, 5.0)

    return Bone("fibula", box, box.evaluate(frame, bone), 1.4, frame)


def patella_centre(knee: Anatomy) -> Point:
    """Returns the patella's centre in the tibia's frame, mm; it descends with flexion."""
    # The tendon holds it at a fixed distance from the tuberosity; it rests on the trochlea.
    height = knee.patella_height - 0.12 * knee.flexion_deg
    front = 30.0 + 2 * knee.cartilage + 1.0 - 0.35 * max(height - 31.0, 0.0)
    radius_up = height - 31.0
    forward = front - tan(radians(knee.flexion_deg)) * radius_up * 0.5 + 10.0 - 0.55 * knee.groove
    return (2.0, float(forward), float(height))


def patella(knee: Anatomy, grid: Grid) -> tuple[Bone, Cartilage]:
    """Returns the patella with its two facets, and its cartilage, the thickest of the knee."""
    frame = knee.tibia
    cu, cv, cw = patella_centre(knee)
    box = grid.box(
        frame.to_world(_corners((cu - 26, cv - 18, cw - 28), (cu + 26, cv + 14, cw + 26))), 0
    )
    lean = 0.5 * tan(radians(knee.flexion_deg))

    def shell(u: Field, v: Field, w: Field, back: float, side: float) -> Field:
        v = v + lean * (w - cw)
        taper = 1.0 - 0.42 * ramp(w, cw, cw - 24.0)
        body = ellipsoid(
            ((u - cu) / taper, v - cv, w - cw), (0.0, 0.0, 0.0), (23.0 - side, 12.5, 21.5)
        )
        facets = (cv - 10.0 - back + 0.40 * np.abs(u - cu) - v) * 0.93
        return intersection(body, facets, 2.5)

    def layer(u: Field, v: Field, w: Field) -> Field:
        grown = shell(u, v - 0.0, w, knee.cartilage + 0.9, -1.0)
        behind = (v + lean * (w - cw)) - (cv - 3.0)
        return np.asarray(np.maximum(np.maximum(grown, behind), np.abs(w - cw - 2.0) - 15.0))

    distance = box.evaluate(frame, lambda u, v, w: shell(u, v, w, 0.0, 0.0))
    cartilage = Cartilage("patella", box, box.evaluate(frame, layer), frame)
    return Bone("patella", box, distance, 1.3, frame), cartilage


def _corners(low: Point, high: Point) -> np.ndarray:
    """Returns the eight corners of a box given by two opposite corners."""
    both = np.array([low, high], float)
    return np.array(
        [[both[i, 0], both[j, 1], both[k, 2]] for i in (0, 1) for j in (0, 1) for k in (0, 1)]
    )
