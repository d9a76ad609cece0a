"""Painting of the joint: fluid, menisci, cartilage and marrow, with their lesions."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from mrknee.sources.phantom.anatomy import Anatomy
from mrknee.sources.phantom.bones import Bone, Cartilage, patella_centre, plateau_height
from mrknee.sources.phantom.lesions import (
    BakerCyst,
    CartilageDefect,
    CollectionPlace,
    Contusion,
    Effusion,
    FluidCollection,
    Fracture,
    Lesion,
    MeniscalTear,
    Oedema,
    Synovitis,
)
from mrknee.sources.phantom.shapes import (
    Canvas,
    Coordinates,
    Field,
    Point,
    ellipsoid,
    ramp,
    smooth_path,
    tiled,
    tube,
    union,
)


def paint_fluid(canvas: Canvas, knee: Anatomy, lesions: Iterable[Lesion]) -> None:
    """Paints fluid in the recess, the gutters and behind the condyles; more with an effusion."""
    lesions = tuple(lesions)
    amounts = [lesion.amount for lesion in lesions if isinstance(lesion, Effusion)]
    amount = max([0.28 * knee.fluid, *(0.3 + 0.7 * amount for amount in amounts)])
    frame = knee.femur
    box = canvas.grid.box(
        frame.to_world(np.array([[-48.0, -40, 0], [48, 60, 110], [-48, 60, 0], [48, -40, 110]])),
        2.0,
    )

    def pouch(u: Field, v: Field, w: Field) -> Field:
        thick = 1.0 + 8.5 * amount
        recess = ellipsoid(
            (u, v, w), (2.0, 28.0 + 0.75 * thick, 66.0), (19 + 6 * amount, thick, 14 + 12 * amount)
        )
        gutter = 0.6 + 5.5 * amount
        side = ellipsoid(
            (np.abs(u), v, w), (36.5, 10.0, 38.0), (gutter, 7 + 8 * amount, 10 + 10 * amount)
        )
        behind = ellipsoid(
            (np.abs(u), v, w), (20.0, -33.5, 30.0), (5 + 5 * amount, 0.6 + 3.4 * amount, 8.0)
        )
        return union(union(recess, side, 4.0), behind, 2.0)

    distance = box.evaluate(frame, pouch)
    canvas.paint(box, canvas.coverage(distance - 1.0) * 0.8, "synovium")
    cover = canvas.coverage(distance)
    canvas.paint(box, cover, "fluid")
    for lesion in lesions:
        if isinstance(lesion, Effusion):
            canvas.mark(lesion, box, cover)
        elif isinstance(lesion, Synovitis):
            lining = lining_cover(canvas, lesion, distance, box.local(frame))
            canvas.paint(box, lining, "thick synovium")
            canvas.mark(lesion, box, lining)


def lining_cover(
    canvas: Canvas, synovitis: Synovitis, distance: Field, coordinates: Coordinates
) -> Field:
    """Returns the coverage of thickened synovium, 0..1, from the distance to the fluid's edge."""
    waves = np.ones(1, np.float32)
    for axis, phase, per_mm in zip(coordinates, synovitis.phases, (0.50, 0.55, 0.45), strict=True):
        waves = waves * np.sin(axis * per_mm + phase)
    # Where all three waves peak, fronds reach into the fluid.
    thickness = synovitis.thickness * (1.0 + synovitis.roughness * 1.5 * waves)
    return np.asarray(canvas.coverage(distance) * canvas.coverage(-distance - thickness))


def paint_cyst(canvas: Canvas, knee: Anatomy, cyst: BakerCyst) -> None:
    """Paints a popliteal cyst with its neck to the joint."""
    frame = knee.tibia
    r = cyst.radius
    box = canvas.grid.box(frame.to_world(np.array([[-27.0, -42, 10], [-20, -30, 10]])), 2.6 * r + 3)

    def shape(u: Field, v: Field, w: Field) -> Field:
        body = ellipsoid((u, v, w), (-27.0, -41.0 - 0.35 * r, 8.0), (r, 0.75 * r, 1.9 * r))
        neck = ellipsoid((u, v, w), (-21.0, -36.0, 14.0), (3.0, 7.0, 3.0))
        return union(body, neck, 4.0)

    distance = box.evaluate(frame, shape)
    canvas.paint(box, canvas.coverage(distance - 0.9), "fascia")
    cover = canvas.coverage(distance)
    canvas.paint(box, cover, "fluid")
    canvas.mark(cyst, box, cover)


COLLECTIONS: dict[CollectionPlace, tuple[Point, Point]] = {
    "prepatellar": ((0.0, 18.0, -4.0), (1.5, 0.5, 1.8)),
    "pes anserinus": ((-37.0, 6.0, -36.0), (0.5, 1.2, 1.7)),
    "calf": ((22.0, -46.0, -30.0), (0.9, 0.7, 2.0)),
    "popliteal": ((6.0, -52.0, 32.0), (0.9, 0.7, 1.8)),
    "iliotibial": ((45.0, 6.0, 28.0), (0.45, 1.2, 1.7)),
    "infrapatellar": ((2.0, 36.0, -14.0), (1.2, 0.5, 1.4)),
}
"""Centres of fluid outside the joint in the tibia's frame, mm (prepatellar: relative to the
patella's centre), and radii as multiples of its size."""


def paint_collection(canvas: Canvas, knee: Anatomy, collection: FluidCollection) -> None:
    """Paints fluid outside the joint."""
    usual, shape = COLLECTIONS[collection.place]
    centre = np.add(usual, collection.shift)
    if collection.place == "prepatellar":
        centre = centre + patella_centre(knee)
    radii = np.multiply(shape, collection.size)
    u, v, w = (float(value) for value in centre)
    a, b, c = (float(value) for value in radii)
    frame = knee.tibia
    box = canvas.grid.box(frame.to_world(np.array([centre - radii, centre + radii])), 3.0)
    distance = box.evaluate(frame, lambda x, y, z: ellipsoid((x, y, z), (u, v, w), (a, b, c)))
    canvas.paint(box, canvas.coverage(distance - 0.8), "fascia")
    cover = canvas.coverage(distance)
    canvas.paint(box, cover, "fluid")
    canvas.mark(collection, box, cover)


def paint_capsule(canvas: Canvas, femur: Bone, knee: Anatomy) -> None:
    """Paints the capsule, a thin dark sheet behind and at the sides of the condyles."""
    box = femur.box
    u, v, w = box.local(femur.frame)
    sheet = np.abs(femur.distance - 6.0) - 0.5
    here = ramp(v, -4.0, -16.0) * ramp(w, 44.0, 34.0) * ramp(w, -6.0, 2.0)
    inside = canvas.coverage(femur.distance - 5.5) * here
    canvas.paint(box, inside * (0.15 + 0.25 * knee.fluid), "synovium")
    canvas.paint(box, canvas.coverage(sheet) * here * 0.8, "fascia")
    del u


class Meniscus:
    """One meniscus in its own coordinates, each a field over its box.

    Attributes:
        box: box that holds the meniscus.
        depth: distance from the periphery inwards, mm.
        width: radial width at the voxel's angle, mm.
        angle: degrees around the meniscus; 0 at the body, 90 anterior, -90 posterior.
        level: height above the lower surface, mm.
        height: local height of the wedge, mm.
        distance: signed distance to the meniscus, mm.
    """

    def __init__(self, canvas: Canvas, knee: Anatomy, *, medial: bool) -> None:
        centre = (-22.5, -0.5) if medial else (22.5, -1.5)
        reach = (15.5, 22.0) if medial else (14.5, 18.0)
        frame = knee.tibia
        corners = [[centre[0] - reach[0], -24.0, -5], [centre[0] + reach[0], 23.0, 11]]
        self.box = canvas.grid.box(frame.to_world(np.array(corners)), 2.5)
        u, v, w = self.box.local(frame)
        outward = (centre[0] - u) if medial else (u - centre[0])
        forward = v - centre[1]
        ratio = np.sqrt((outward / reach[0]) ** 2 + (forward / reach[1]) ** 2) + 1e-3
        self.depth = np.hypot(outward, forward) * (1.0 / ratio - 1.0)
        self.angle = np.degrees(np.arctan2(forward, outward))
        posterior = ramp(-self.angle, 20.0, 80.0)
        self.width = (
            9.0 + 4.0 * posterior if medial else 10.0 + 0.5 * posterior
        ) * knee.meniscus_width
        floor = plateau_height(knee, u, v) + 0.4 + 0.5 * knee.cartilage * ramp(self.depth, 0.0, 6.0)
        self.level = w - floor
        opening = 128.0 if medial else 150.0
        ends = ramp(np.abs(self.angle), opening + 14.0, opening - 10.0)
        profile = np.clip(1.0 - self.depth / self.width, 0.0, 1.0)
        self.height = (0.5 + (knee.meniscus_height - 0.5) * profile**0.85) * (0.55 + 0.45 * ends)
        gap = (np.abs(self.angle) - opening) * np.float32(0.2)
        self.distance = np.maximum.reduce(
            [
                -self.depth,
                self.depth - self.width,
                -self.level,
                (self.level - self.height) * 0.82,
                gap,
            ]
        ).astype(np.float32)


def paint_meniscus(canvas: Canvas, knee: Anatomy, tears: Iterable[Lesion], *, medial: bool) -> None:
    """Paints one meniscus with its degeneration and its tear."""
    part = Meniscus(canvas, knee, medial=medial)
    tear = next((t for t in tears if isinstance(t, MeniscalTear) and t.medial == medial), None)
    body = canvas.coverage(part.distance)
    canvas.paint(part.box, canvas.coverage(part.distance - 1.2) * 0.5, "synovium")
    canvas.paint(part.box, body, "meniscus")
    degeneration = knee.degeneration[0 if medial else 1]
    if degeneration:
        canvas.paint(part.box, degeneration_cover(part, degeneration), "mucoid")
    if tear is not None:
        cleft = tear_cover(part, tear, canvas.grid.spacing)
        canvas.paint(part.box, cleft * (0.55 + 0.45 * tear.severity), "tear fluid")
        canvas.mark(tear, part.box, np.clip(cleft * 1.5, 0.0, 1.0))
        if tear.kind == "bucket-handle":
            _paint_bucket_handle(canvas, knee, tear)


def degeneration_cover(part: Meniscus, amount: float) -> Field:
    """Returns mucoid signal, 0..1, in the posterior horn, about 1 mm below every surface."""
    radial = np.abs(part.depth / part.width - 0.3) * 5.0
    level = np.abs(part.level / np.maximum(part.height, 1.0) - 0.5) * 4.0
    around = np.abs(part.angle + 75.0) / 45.0
    blob = np.exp(-(radial**2) - level**2 - around**4)
    buried = ramp(part.distance, -0.9, -1.7)
    return np.asarray(blob * buried * amount, np.float32)


def tear_cover(part: Meniscus, tear: MeniscalTear, spacing: float) -> Field:
    """Returns the coverage of a tear's cleft, 0..1; it always reaches a surface."""
    turn = np.abs((part.angle - tear.angle_deg + 180.0) % 360.0 - 180.0) - tear.span_deg / 2
    ends = np.clip(1.0 - turn / 6.0, 0.0, 1.0)
    inside = np.clip(0.5 - (part.distance - 0.3) / spacing, 0.0, 1.0)
    radial = part.depth / part.width
    if tear.kind == "horizontal":
        # Oblique from the middle of the periphery to the lower surface near the free edge.
        middle = part.height * (0.5 - 0.35 * radial)
        across = np.abs(part.level - middle)
        inside = inside * np.clip((radial - 0.12) * 8.0, 0.0, 1.0)
    else:
        across = np.abs((radial - tear.position) * part.width + 0.25 * (part.level - 3.0))
    line = np.clip(0.5 - (across - tear.thickness / 2) / spacing, 0.0, 1.0)
    if tear.kind == "bucket-handle":
        # The inner part is displaced and replaced by fluid.
        gone = np.clip((radial - tear.position) * 6.0, 0.0, 1.0) * tear.displaced
        line = np.maximum(line, gone)
    return np.asarray(line * ends * inside, np.float32)


def _paint_bucket_handle(canvas: Canvas, knee: Anatomy, tear: MeniscalTear) -> None:
    """Paints the displaced inner fragment, a dark band along the notch."""
    side = -1.0 if tear.medial else 1.0
    u = side * (13.0 - 7.0 * tear.displaced)
    points = smooth_path(
        [(u + side * 5, -18, 3.0), (u, -8, 6.5), (u, 4, 6.5), (u + side * 5, 15, 4.0)], 7
    )
    frame = knee.tibia
    path = frame.to_world(points)
    box = canvas.grid.box(path, 4.0)
    distance, _ = tube(box, path, np.full(7, 2.3))
    cover = canvas.coverage(distance)
    canvas.paint(box, cover, "meniscus")
    canvas.mark(tear, box, cover)


def paint_cartilage(
    canvas: Canvas, layer: Cartilage, lesions: Iterable[Lesion], centre: tuple[float, float, float]
) -> None:
    """Paints a cartilage layer; fluid fills its defects.

    ``centre`` is added to the centre of a defect, so that the patella's defects follow it.
    """
    cover = canvas.coverage(layer.distance)
    film = canvas.coverage(layer.distance - 0.4) * 0.2
    canvas.paint(layer.box, film, "fluid")
    canvas.paint(layer.box, cover, "cartilage")
    canvas.hide(layer.box, cover)
    for defect in lesions:
        if not isinstance(defect, CartilageDefect) or defect.bone != layer.name:
            continue
        u, v, w = layer.box.local(layer.frame)
        a, b, c = (float(x + y) for x, y in zip(defect.centre, centre, strict=True))
        square = (
            (u - a) ** 2 + (w - c) ** 2
            if layer.name == "patella"
            else (u - a) ** 2 + (v - b) ** 2 + 0.5 * (w - c) ** 2
        )
        hole = canvas.coverage((np.sqrt(square) - defect.radius).astype(np.float32)) * defect.depth
        hole = hole * canvas.coverage(layer.distance - 0.3)
        canvas.paint(layer.box, hole, "fluid")
        canvas.mark(defect, layer.box, hole)


def paint_bone(
    canvas: Canvas, bone: Bone, knee: Anatomy, lesions: Iterable[Lesion], tile: Field
) -> None:
    """Paints cortex, marrow with its trabeculae and physeal scar, and marrow oedema."""
    box = bone.box
    outside = canvas.coverage(bone.distance)
    canvas.paint(box, outside, "cortex")
    canvas.hide(box, outside)
    inside = canvas.coverage(bone.distance + bone.cortex)
    grain = 1.0 + 0.05 * tiled(tile, box)
    u, v, w = box.local(bone.frame)
    scar = _physeal_scar(knee, bone.name, u, v, w)
    grain -= 0.38 * knee.closed_physis * np.exp(-((scar / 0.9) ** 2))
    canvas.paint(box, inside, "marrow", grain)
    if bone.name in ("femur", "tibia") and knee.red_marrow > 0.1:
        beyond = ramp(w, 30.0, 55.0) if bone.name == "femur" else ramp(w, -25.0, -45.0)
        canvas.paint(box, inside * beyond * (0.5 * knee.red_marrow), "red marrow", grain)
    if bone.name == "patella":  # its lesions are relative to its centre
        cu, cv, cw = patella_centre(knee)
        u, v, w = u - cu, v - cv, w - cw
    for oedema in lesions:
        if not isinstance(oedema, (Oedema, Contusion)) or oedema.bone != bone.name:
            continue
        a, b, c = oedema.centre
        far = np.sqrt((u - a) ** 2 + (v - b) ** 2 + (w - c) ** 2) / oedema.radius
        far = far + 0.10 * tiled(tile, box)
        cloud = inside * ramp(far, 1.25, 0.35) * oedema.strength
        tissue = "oedema" if isinstance(oedema, Oedema) else "contused marrow"
        canvas.paint(box, cloud.astype(np.float32), tissue)
        canvas.mark(oedema, box, np.clip(cloud * 1.6, 0.0, 1.0).astype(np.float32))
    for fracture in lesions:
        if isinstance(fracture, Fracture) and fracture.bone == bone.name:
            _paint_fracture(canvas, bone, fracture, (u, v, w), inside, tile)


def _paint_fracture(
    canvas: Canvas,
    bone: Bone,
    fracture: Fracture,
    coordinates: Coordinates,
    marrow: Field,
    tile: Field,
) -> None:
    """Paints a fracture: a wavy dark sheet of limited extent through a bone, within a bruise."""
    offsets = [x - c for x, c in zip(coordinates, fracture.centre, strict=True)]
    normal = np.array(fracture.normal) / np.linalg.norm(fracture.normal)
    across = sum(float(n) * offset for n, offset in zip(normal, offsets, strict=True))
    across = across + fracture.wave * np.sin(0.55 * (offsets[0] + offsets[2]) + offsets[1] * 0.4)
    far = np.sqrt(sum(offset**2 for offset in offsets))
    within = ramp(far, fracture.radius * 1.1, fracture.radius * 0.9)
    reach = np.abs(across) / fracture.oedema + 0.10 * tiled(tile, bone.box)
    cloud = marrow * ramp(reach, 1.25, 0.35) * ramp(far, fracture.radius * 1.5, fracture.radius)
    cloud = (cloud * fracture.strength).astype(np.float32)
    canvas.paint(bone.box, cloud, "contused marrow")
    line = canvas.coverage(np.abs(across) - fracture.width / 2) * within
    line = (line * canvas.coverage(bone.distance)).astype(np.float32)
    canvas.paint(bone.box, line, "fracture line")
    canvas.mark(fracture, bone.box, np.clip(np.maximum(line, cloud * 1.6), 0.0, 1.0))


def _physeal_scar(knee: Anatomy, name: str, u: Field, v: Field, w: Field) -> Field:
    """Returns the distance (mm) to the wavy scar of the closed growth plate."""
    if name not in ("femur", "tibia"):
        return np.asarray(np.abs(w) + 99.0)
    a, b, c, d = knee.outline  # any four random numbers of the knee shape the waves
    wave = (1.6 + 0.4 * a) * np.cos(u * 0.15 + b) + 0.9 * np.sin(v * 0.24 + c)
    wave = wave + 0.5 * np.sin((u + v) * 0.45 + d)
    if name == "femur":
        return np.asarray(w - 33.0 - 0.10 * v - wave)
    return np.asarray(w + 15.0 - 0.6 * wave)
