"""Lesions of a knee: their parameters are drawn here; other modules paint them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from mrknee.sources.phantom.shapes import Point

TearKind = Literal["horizontal", "vertical", "bucket-handle"]
BoneName = Literal["femur", "tibia", "patella"]
CollectionPlace = Literal[
    "prepatellar", "pes anserinus", "calf", "popliteal", "iliotibial", "infrapatellar"
]


@dataclass(frozen=True)
class Truth:
    """Findings of an exam. A tear implies ``abnormal``.

    Attributes:
        abnormal: any abnormality.
        acl: tear of the anterior cruciate ligament.
        meniscus: tear of a meniscus.
    """

    abnormal: bool
    acl: bool
    meniscus: bool

    def __post_init__(self) -> None:
        if (self.acl or self.meniscus) and not self.abnormal:
            raise ValueError("an exam with a tear must be abnormal")


@dataclass(frozen=True)
class AclTear:
    """A tear of the ACL.

    Attributes:
        severity: 0 (a partial tear that is hard to see) to 1 (fibres absent).
        position: position along the ligament, 0 (femur) to 1 (tibia).
        gap: length of the discontinuity, mm.
        sag: sag of the fibres, mm.
        swelling: factor on the ligament's radius.
        brightness: 0 (an old tear without oedema) to 1 (a fresh tear full of oedema).
    """

    severity: float
    position: float
    gap: float
    sag: float
    swelling: float
    brightness: float


@dataclass(frozen=True)
class MeniscalTear:
    """A tear of one meniscus that reaches its surface.

    Attributes:
        medial: whether it is the medial meniscus.
        kind: type of the tear.
        severity: 0 (subtle) to 1.
        angle_deg: position around the meniscus: 0 body, -90 posterior, 90 anterior.
        span_deg: extent around the meniscus, degrees.
        position: radial position of a vertical tear, 0 (periphery) to 1 (free edge).
        thickness: width of the cleft, mm.
        displaced: displacement of a bucket handle into the notch, 0..1.
    """

    medial: bool
    kind: TearKind
    severity: float
    angle_deg: float
    span_deg: float
    position: float
    thickness: float
    displaced: float


@dataclass(frozen=True)
class Effusion:
    """More fluid than in a healthy joint; ``amount`` from 0 (slightly more) to 1 (tense)."""

    amount: float


@dataclass(frozen=True)
class Oedema:
    """Bright marrow (a bruise or stress): centre in the bone's frame, radius in mm."""

    bone: BoneName
    centre: Point
    radius: float
    strength: float


@dataclass(frozen=True)
class CartilageDefect:
    """A hole in the cartilage: centre in the bone's frame, radius in mm, depth 0..1."""

    bone: BoneName
    centre: Point
    radius: float
    depth: float


@dataclass(frozen=True)
class BakerCyst:
    """A popliteal cyst between the medial gastrocnemius and semimembranosus; radius in mm."""

    radius: float


@dataclass(frozen=True)
class MclTear:
    """An injury of the medial collateral ligament.

    Attributes:
        severity: 0 (a sprain: oedema around continuous fibres) to 1 (fibres absent).
        position: position along the ligament, 0 (femur) to 1 (tibia).
        gap: length of the discontinuity, mm; 0 if the fibres are continuous.
        swelling: thickness of the oedema on both sides of the ligament, mm.
    """

    severity: float
    position: float
    gap: float
    swelling: float


@dataclass(frozen=True)
class Synovitis:
    """Thickened synovium along the walls of a joint that holds fluid.

    Attributes:
        thickness: mean thickness of the lining, mm.
        roughness: variation of the thickness as a share of it, 0 (smooth) to 1 (fronds).
        phases: phases of the variation along the three axes, radians.
    """

    thickness: float
    roughness: float
    phases: Point


@dataclass(frozen=True)
class Contusion:
    """A bruise of the marrow in which fat remains, so that T1 doesn't show it.

    Attributes:
        bone: bone.
        centre: centre in the bone's frame, mm; of the patella: relative to its centre.
        radius: radius, mm.
        strength: share of the marrow that is changed at the centre, 0..1.
    """

    bone: BoneName
    centre: Point
    radius: float
    strength: float


@dataclass(frozen=True)
class Fracture:
    """A fracture without displacement: a dark line in a bone, within a bruise.

    Attributes:
        bone: bone.
        centre: centre of the line in the bone's frame, mm; of the patella: relative to its centre.
        normal: direction across the line in the bone's frame.
        radius: extent of the line, mm.
        width: width of the line, mm.
        wave: amplitude of the line's waves, mm.
        oedema: reach of the bruise around the line, mm.
        strength: share of the marrow that is changed at the line, 0..1.
    """

    bone: BoneName
    centre: Point
    normal: Point
    radius: float
    width: float
    wave: float
    oedema: float
    strength: float


@dataclass(frozen=True)
class FluidCollection:
    """Fluid outside the joint, as of a bursitis or a ganglion.

    Attributes:
        place: where it lies.
        size: scale of its radii, mm.
        shift: offset from its usual centre in the tibia's frame, mm.
    """

    place: CollectionPlace
    size: float
    shift: Point


Lesion = (
    AclTear
    | MeniscalTear
    | Effusion
    | Oedema
    | CartilageDefect
    | BakerCyst
    | MclTear
    | Synovitis
    | Contusion
    | Fracture
    | FluidCollection
)


def draw_lesions(rng: np.random.Generator, truth: Truth) -> tuple[Lesion, ...]:
    """Draws the lesions of an exam's truth, from subtle to severe.

    Companions (effusion, bruises, cysts) are about as frequent with tears as without them, so that
    the amount of fluid doesn't distinguish a tear from another abnormality.
    """
    lesions: list[Lesion] = []
    if truth.acl:
        lesions.append(_draw_acl_tear(rng))
        if rng.random() < 0.6:
            lesions.extend(_draw_pivot_shift(rng))
    if truth.meniscus:
        lesions.append(draw_meniscal_tear(rng))
    if truth.abnormal:
        lesions.extend(_draw_companions(rng, alone=not (truth.acl or truth.meniscus)))
    return tuple(lesions)


def _draw_acl_tear(rng: np.random.Generator) -> AclTear:
    severity = float(rng.beta(2.2, 1.3))
    return AclTear(
        severity=severity,
        position=float(rng.uniform(0.3, 0.65)),
        gap=float(3.0 + 9.0 * severity * rng.uniform(0.6, 1.0)),
        sag=float(rng.uniform(0.0, 8.0) * severity),
        swelling=float(rng.uniform(1.1, 1.5)),
        brightness=float(rng.beta(2.0, 1.2)),
    )


def _draw_pivot_shift(rng: np.random.Generator) -> list[Lesion]:
    """Draws bruises where the lateral condyle's sulcus hit the posterolateral plateau."""
    strength = float(rng.uniform(0.35, 0.9))
    femur = Oedema(
        "femur",
        (float(rng.uniform(19, 27)), float(rng.uniform(4, 16)), float(rng.uniform(8, 12))),
        float(rng.uniform(6, 12)),
        strength,
    )
    tibia = Oedema(
        "tibia",
        (float(rng.uniform(17, 26)), float(rng.uniform(-20, -14)), float(rng.uniform(-10, -5))),
        float(rng.uniform(6, 12)),
        strength * float(rng.uniform(0.7, 1.0)),
    )
    return [femur, tibia]


def draw_meniscal_tear(rng: np.random.Generator) -> MeniscalTear:
    """Draws a tear of either meniscus, from subtle to severe."""
    medial = bool(rng.random() < 0.68)
    kinds: tuple[TearKind, ...] = ("horizontal", "vertical", "bucket-handle")
    kind = kinds[int(rng.choice(3, p=(0.42, 0.38, 0.20)))]
    severity = float(rng.beta(2.0, 1.6))
    posterior = rng.random() < 0.8
    angle = rng.uniform(-105, -60) if posterior else rng.uniform(-40, 60)
    span = 35.0 + 55.0 * severity
    if kind == "bucket-handle":
        angle, span = rng.uniform(-35, 0), rng.uniform(130, 170)
    return MeniscalTear(
        medial=medial,
        kind=kind,
        severity=severity,
        angle_deg=float(angle),
        span_deg=float(span),
        position=float(rng.uniform(0.25, 0.5)),
        thickness=float(1.1 + 1.1 * severity),
        displaced=float(rng.uniform(0.35, 1.0)),
    )


def _draw_companions(rng: np.random.Generator, *, alone: bool) -> list[Lesion]:
    """Draws effusion, oedema, cartilage defect and cyst; at least one without a tear."""
    share = 1.0 if alone else 0.85
    while True:
        lesions: list[Lesion] = []
        if rng.random() < 0.5 * share:
            lesions.append(Effusion(float(rng.beta(1.3, 2.0))))
        if rng.random() < 0.4 * share:
            lesions.append(_draw_oedema(rng))
        if rng.random() < 0.35 * share:
            lesions.extend(_draw_cartilage_defect(rng))
        if rng.random() < 0.2 * share:
            lesions.append(BakerCyst(float(rng.uniform(5, 13))))
        if lesions or not alone:
            return lesions


def _draw_oedema(rng: np.random.Generator) -> Oedema:
    side = 1.0 if rng.random() < 0.5 else -1.0
    radius, strength = float(rng.uniform(7, 15)), float(rng.uniform(0.35, 0.9))
    if rng.random() < 0.5:
        centre = (side * rng.uniform(16, 28), rng.uniform(-20, 16), rng.uniform(9, 18))
        return Oedema("femur", _point(centre), radius, strength)
    centre = (side * rng.uniform(14, 26), rng.uniform(-16, 16), rng.uniform(-14, -5))
    return Oedema("tibia", _point(centre), radius, strength)


def _draw_cartilage_defect(rng: np.random.Generator) -> list[Lesion]:
    side = 1.0 if rng.random() < 0.4 else -1.0
    radius, depth = float(rng.uniform(4.0, 8.5)), float(rng.uniform(0.55, 1.0))
    where = int(rng.choice(3, p=(0.5, 0.2, 0.3)))
    bone: BoneName = ("femur", "tibia", "patella")[where]
    centre = (
        (side * rng.uniform(17, 28), rng.uniform(-12, 8), 4.0),
        (side * rng.uniform(16, 26), rng.uniform(-9, 9), 1.5),
        (2.0 + side * rng.uniform(3, 12), 0.0, rng.uniform(-7, 9)),
    )[where]
    lesions: list[Lesion] = [CartilageDefect(bone, _point(centre), radius, depth)]
    if bone != "patella" and rng.random() < 0.5:
        below = 6.0 if bone == "femur" else -5.0
        under = (centre[0], centre[1], centre[2] + below)
        lesions.append(Oedema(bone, _point(under), radius * 1.2, float(rng.uniform(0.3, 0.7))))
    return lesions


def _point(values: tuple[float, float, float]) -> Point:
    u, v, w = values
    return float(u), float(v), float(w)
