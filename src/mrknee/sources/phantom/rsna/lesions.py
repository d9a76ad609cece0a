"""Lesions of the twelve findings: above the hosts' thresholds, and below them as distractors.

The hosts' experts called a finding present from a threshold on: a high-grade tear of ACL or MCL, a
meniscal signal that reaches the surface, cartilage loss of 1 cm and more than half the thickness,
an effusion or cyst of moderate size. Knees without a finding often have a lesser lesion of its
kind, so that its absence is not the absence of any change.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import get_args

import numpy as np

from mrknee.sources.phantom.lesions import (
    AclTear,
    BakerCyst,
    BoneName,
    CartilageDefect,
    CollectionPlace,
    Contusion,
    Effusion,
    FluidCollection,
    Fracture,
    Lesion,
    MclTear,
    MeniscalTear,
    Synovitis,
    draw_meniscal_tear,
)
from mrknee.sources.phantom.rsna.findings import FINDINGS
from mrknee.sources.phantom.shapes import Point

ACL_SEVERITY = MCL_SEVERITY = 0.4
"""Smallest severity of a high-grade tear."""
EFFUSION_AMOUNT = 0.4
"""Smallest amount of a moderate effusion."""
LINING_MM = 1.5
"""Smallest thickness of synovitis; a normal lining is thinner than a millimetre."""
CYST_MM = 6.5
"""Smallest radius of a moderate Baker's cyst, mm; its length is 3.8 times the radius."""
DEFECT_MM, DEFECT_DEPTH = 5.0, 0.5
"""Smallest radius and depth of cartilage loss: 1 cm wide, half of the thickness."""
CONTUSION_MM = 6.0
"""Smallest radius of a contusion, mm; smaller oedema below cartilage is of the cartilage."""

LESSER = {
    "acl": 0.12,
    "mcl": 0.12,
    "medial_oa": 0.25,
    "lateral_oa": 0.20,
    "pf_oa": 0.30,
    "effusion": 0.55,
    "synovitis": 0.30,
    "bakers": 0.15,
    "contusion": 0.12,
}
"""Share of knees without a finding that have a lesser lesion of its kind; chosen by us. Menisci
have degeneration instead, which is part of every knee's anatomy."""


COLLECTIONS = 2.2
"""Mean number of fluid collections outside the joint (bursitis, ganglia), whatever the findings.
They are no finding; without them, the amount of bright fluid would tell effusions and cysts."""
COLLECTION_MM = (6.0, 15.0)
"""Range of their size."""


def finding_of(lesion: Lesion) -> str | None:
    """Returns the finding that a lesion makes present, or None if it is below the threshold."""
    match lesion:
        case AclTear():
            return "acl" if lesion.severity >= ACL_SEVERITY else None
        case MclTear():
            return "mcl" if lesion.severity >= MCL_SEVERITY else None
        case MeniscalTear():
            return "medial_meniscus" if lesion.medial else "lateral_meniscus"
        case CartilageDefect():
            if lesion.radius < DEFECT_MM or lesion.depth <= DEFECT_DEPTH:
                return None
            return compartment(lesion)
        case Effusion():
            return "effusion" if lesion.amount >= EFFUSION_AMOUNT else None
        case Synovitis():
            return "synovitis" if lesion.thickness >= LINING_MM else None
        case BakerCyst():
            return "bakers" if lesion.radius >= CYST_MM else None
        case Contusion():
            return "contusion" if lesion.radius >= CONTUSION_MM else None
        case Fracture():
            return "fracture"
        case _:
            return None


def compartment(defect: CartilageDefect) -> str:
    """Returns the finding of a defect's compartment, whatever its size."""
    u, v, _ = defect.centre
    if defect.bone == "patella" or (defect.bone == "femur" and v > 20):
        return "pf_oa"
    return "lateral_oa" if u > 0 else "medial_oa"


def draw_study_lesions(
    rng: np.random.Generator, present: Collection[str]
) -> tuple[tuple[Lesion, ...], frozenset[str]]:
    """Draws the lesions of a study.

    Args:
        rng: random stream.
        present: the findings that are present.

    Returns:
        The lesions, and the absent findings of which there is a lesser lesion.
    """
    lesser = [
        name for name, share in LESSER.items() if rng.random() < share and name not in present
    ]
    if "synovitis" in lesser and "effusion" not in {*present, *lesser}:
        lesser.remove("synovitis")
    lesions: list[Lesion] = []
    for name in FINDINGS:
        if name in present:
            lesions += _present(rng, name, present)
        elif name in lesser:
            lesions += _lesser(rng, name)
    for _ in range(int(rng.poisson(COLLECTIONS))):
        places = get_args(CollectionPlace)
        place: CollectionPlace = places[int(rng.integers(len(places)))]
        size, shift = float(rng.uniform(*COLLECTION_MM)), _point(rng.normal(0.0, 2.0, 3))
        lesions.append(FluidCollection(place, size, shift))
    return tuple(lesions), frozenset(lesser)


def _present(rng: np.random.Generator, name: str, present: Collection[str]) -> list[Lesion]:
    """Draws the lesions of one finding that is present."""
    match name:
        case "acl":
            severity = float(rng.uniform(ACL_SEVERITY, 1.0))
            return [
                AclTear(
                    severity=severity,
                    position=float(rng.uniform(0.3, 0.65)),
                    gap=float(4.0 + 9.0 * severity * rng.uniform(0.6, 1.0)),
                    sag=float(rng.uniform(0.0, 8.0) * severity),
                    swelling=float(rng.uniform(1.1, 1.6)),
                    brightness=float(rng.beta(2.2, 1.2)),
                )
            ]
        case "mcl":
            severity = float(rng.uniform(max(0.55, MCL_SEVERITY), 1.0))
            return [
                MclTear(
                    severity=severity,
                    position=float(rng.uniform(0.12, 0.6)),
                    gap=float(4.0 + 10.0 * severity * rng.uniform(0.5, 1.0)),
                    swelling=float(rng.uniform(2.5, 6.0)),
                )
            ]
        case "medial_meniscus" | "lateral_meniscus":
            return [replace(draw_meniscal_tear(rng), medial=name == "medial_meniscus")]
        case "medial_oa" | "lateral_oa" | "pf_oa":
            return _cartilage_loss(rng, name)
        case "effusion":
            return [Effusion(float(rng.uniform(EFFUSION_AMOUNT, 1.0)))]
        case "synovitis":
            return [_lining(rng, float(rng.uniform(1.8, 4.0)), float(rng.uniform(0.5, 1.0)))]
        case "bakers":
            return [BakerCyst(float(rng.uniform(CYST_MM, 13.0)))]
        case "contusion":
            return _contusions(rng, pivot_shift="acl" in present and rng.random() < 0.7)
        case _:
            return [_fracture(rng)]


def _lesser(rng: np.random.Generator, name: str) -> list[Lesion]:
    """Draws a lesion of a finding's kind that is too small for the finding."""
    match name:
        case "acl":  # a sprain
            severity, gap = float(rng.uniform(0.0, 0.1)), float(rng.uniform(0.0, 1.0))
            place, bright = float(rng.uniform(0.3, 0.7)), float(rng.uniform(0.2, 0.6))
            return [AclTear(severity, place, gap, 0.0, float(rng.uniform(1.0, 1.2)), bright)]
        case "mcl":  # a sprain
            place, thick = float(rng.uniform(0.15, 0.6)), float(rng.uniform(1.5, 3.5))
            return [MclTear(float(rng.uniform(0.05, 0.3)), place, 0.0, thick)]
        case "medial_oa" | "lateral_oa" | "pf_oa":  # low-grade, or a small deep defect
            defect = _defect(rng, name)
            if rng.random() < 0.6:
                return [replace(defect, depth=float(rng.uniform(0.15, 0.4)))]
            return [replace(defect, radius=float(rng.uniform(2.0, 3.5)))]
        case "effusion":
            return [Effusion(float(rng.uniform(0.0, 0.3)))]
        case "synovitis":
            return [_lining(rng, float(rng.uniform(0.5, 0.9)), float(rng.uniform(0.0, 0.5)))]
        case "bakers":
            return [BakerCyst(float(rng.uniform(3.0, 4.8)))]
        case _:
            return [replace(_contusion(rng), radius=float(rng.uniform(3.0, 4.5)))]


def _lining(rng: np.random.Generator, thickness: float, roughness: float) -> Synovitis:
    phases = rng.uniform(0.0, 2.0 * np.pi, 3)
    return Synovitis(thickness, roughness, _point(phases))


def _cartilage_loss(rng: np.random.Generator, name: str) -> list[Lesion]:
    """Draws one to three defects of a compartment, with oedema below some of them."""
    lesions: list[Lesion] = []
    for _ in range(1 + int(rng.integers(3))):
        defect = _defect(rng, name)
        lesions.append(defect)
        if name != "pf_oa" and rng.random() < 0.3:
            u, v, w = defect.centre
            under = (u, v, w + (5.0 if defect.bone == "femur" else -5.0))
            small = float(rng.uniform(3.0, 5.0))
            lesions.append(Contusion(defect.bone, under, small, float(rng.uniform(0.4, 0.8))))
    return lesions


def _defect(rng: np.random.Generator, name: str) -> CartilageDefect:
    """Draws one defect of a compartment."""
    side = -1.0 if name == "medial_oa" else 1.0
    bone: BoneName
    if name != "pf_oa":
        if rng.random() < 0.6:
            bone, centre = "femur", (side * rng.uniform(17, 28), rng.uniform(-12, 8), 4.0)
        else:
            bone, centre = "tibia", (side * rng.uniform(16, 26), rng.uniform(-9, 9), 1.5)
    else:
        facet = 1.0 if rng.random() < 0.6 else -1.0
        if rng.random() < 0.7:
            bone, centre = "patella", (2.0 + facet * rng.uniform(2, 12), 0.0, rng.uniform(-7, 9))
        else:  # the trochlea
            centre = (facet * rng.uniform(3, 16), rng.uniform(28, 31), rng.uniform(26, 36))
            bone = "femur"
    radius, depth = float(rng.uniform(DEFECT_MM + 0.5, 11.0)), float(rng.uniform(0.6, 1.0))
    return CartilageDefect(bone, _point(centre), radius, depth)


def _contusions(rng: np.random.Generator, *, pivot_shift: bool) -> list[Lesion]:
    """Draws bruises: where the bones meet in a pivot shift, or one or two anywhere."""
    if not pivot_shift:
        return [_contusion(rng) for _ in range(1 + int(rng.random() < 0.4))]
    strength = float(rng.uniform(0.6, 1.0))
    femur = (rng.uniform(19, 27), rng.uniform(4, 16), rng.uniform(9, 13))
    tibia = (rng.uniform(17, 26), rng.uniform(-20, -14), rng.uniform(-11, -6))
    return [
        Contusion("femur", _point(femur), float(rng.uniform(7, 13)), strength),
        Contusion("tibia", _point(tibia), float(rng.uniform(7, 13)), strength),
    ]


def _contusion(rng: np.random.Generator) -> Contusion:
    """Draws one bruise of a condyle, the plateau or the patella."""
    side = 1.0 if rng.random() < 0.5 else -1.0
    where = rng.random()
    radius, strength = float(rng.uniform(7.0, 15.0)), float(rng.uniform(0.6, 1.0))
    bone: BoneName
    if where < 0.45:
        bone = "femur"
        centre = (side * rng.uniform(16, 28), rng.uniform(-20, 16), rng.uniform(10, 20))
    elif where < 0.9:
        bone = "tibia"
        centre = (side * rng.uniform(14, 26), rng.uniform(-16, 16), rng.uniform(-15, -6))
    else:
        bone, radius = "patella", 0.7 * radius + 1.5
        centre = (side * rng.uniform(3, 9), rng.uniform(-3, 3), rng.uniform(-6, 6))
    return Contusion(bone, _point(centre), radius, strength)


def _fracture(rng: np.random.Generator) -> Fracture:
    """Draws a fracture of plateau, condyle or patella, across the joint surface or below it."""
    side = 1.0 if rng.random() < 0.7 else -1.0
    where = rng.random()
    bone: BoneName
    if where < 0.55:
        bone = "tibia"
        if rng.random() < 0.5:  # a split of the plateau
            centre = (side * rng.uniform(12, 22), rng.uniform(-8, 8), rng.uniform(-14, -8))
            normal = (1.0, rng.uniform(-0.5, 0.5), side * rng.uniform(0.2, 0.7))
        else:  # below the plateau
            centre = (side * rng.uniform(14, 24), rng.uniform(-8, 8), rng.uniform(-12, -7))
            normal = (rng.uniform(-0.25, 0.25), rng.uniform(-0.25, 0.25), 1.0)
    elif where < 0.85:
        bone = "femur"
        centre = (side * rng.uniform(17, 26), rng.uniform(-12, 12), rng.uniform(13, 22))
        normal = (rng.uniform(-0.5, 0.5), rng.uniform(-0.6, 0.6), 1.0)
    else:
        bone = "patella"
        centre = (0.0, 0.0, rng.uniform(-6, 6))
        normal = (rng.uniform(-0.2, 0.2), rng.uniform(-0.3, 0.3), 1.0)
    return Fracture(
        bone=bone,
        centre=_point(centre),
        normal=_point(normal),
        radius=float(rng.uniform(12.0, 20.0)),
        width=float(rng.uniform(1.6, 2.8)),
        wave=float(rng.uniform(0.4, 1.6)),
        oedema=float(rng.uniform(6.0, 12.0)),
        strength=float(rng.uniform(0.7, 1.0)),
    )


def _point(values: tuple[float, float, float] | np.ndarray) -> Point:
    u, v, w = (float(value) for value in values)
    return u, v, w
