"""Anatomy of one knee: all random parameters, drawn before anything is painted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mrknee.sources.phantom.shapes import Frame, Point


@dataclass(frozen=True)
class Anatomy:
    """Parameters of one knee. Lengths are in mm for an average adult before ``scale``.

    Attributes:
        right: whether it is a right knee (the fibula lies to the patient's right).
        scale: size of bones and limb relative to the average adult.
        width: additional scale of the bones from medial to lateral.
        rotation_deg: pose of the leg in the scanner: flexion-like tilt, abduction, rotation.
        offset: position of the joint in the scanner (x, y, z).
        flexion_deg: angle between femur and tibia.
        notch: half width of the intercondylar notch.
        groove: depth of the trochlea.
        slope: posterior slope of the tibial plateau, rise per mm.
        patella_height: centre of the patella above the joint line.
        cartilage: thickness of the femoral cartilage.
        meniscus_height: height of the menisci at their periphery.
        meniscus_width: factor on the menisci's radial width.
        acl_radius, pcl_radius: radii of the cruciate ligaments.
        fat: thickness of the subcutaneous fat.
        muscle: factor on the thickness of the muscles.
        outline: four random harmonics of the limb's outline (mm).
        fluid: physiological joint fluid, 0..1.
        degeneration: mucoid signal inside each meniscus (medial, lateral), 0 (none) to 1; it
            never reaches a surface.
        acl_bright_spot: a partial-volume or magic-angle bright spot in the ACL, 0..1.
        red_marrow: amount of haematopoietic marrow in the metaphyses, 0..1.
        closed_physis: visibility of the physeal scar, 0..1.
        vein: radius of the popliteal vein.
        texture_seed: seed of the textures of fat, marrow and muscle.
    """

    right: bool
    scale: float
    width: float
    rotation_deg: Point
    offset: Point
    flexion_deg: float
    notch: float
    groove: float
    slope: float
    patella_height: float
    cartilage: float
    meniscus_height: float
    meniscus_width: float
    acl_radius: float
    pcl_radius: float
    fat: float
    muscle: float
    outline: tuple[float, float, float, float]
    fluid: float
    degeneration: tuple[float, float]
    acl_bright_spot: float
    red_marrow: float
    closed_physis: float
    vein: float
    texture_seed: int

    @property
    def tibia(self) -> Frame:
        """The tibia's frame: origin at the centre of the joint line, w up along the shaft."""
        side = -1.0 if self.right else 1.0
        # Local directions in an unrotated knee: u lateral, v anterior, w superior.
        rest = np.array([[side, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, 1.0]])
        tilt, abduction, turn = np.deg2rad(self.rotation_deg)
        axes = rest @ (_about(0, tilt) @ _about(1, abduction) @ _about(2, turn)).T
        size = self.scale * np.array([[self.width], [1.0], [1.0]])
        return Frame(axes / size, np.array(self.offset))

    @property
    def femur(self) -> Frame:
        """The femur's frame: the tibia's, flexed about the axis through the condyles."""
        angle = np.deg2rad(self.flexion_deg)
        cos, sin = np.cos(angle), np.sin(angle)
        flex = np.array([[1.0, 0.0, 0.0], [0.0, cos, sin], [0.0, -sin, cos]])
        hinge = np.array([[0.0, -8.0, 25.0]])
        tibia = self.tibia
        # local_femur = flex @ (local_tibia - hinge) + hinge
        axes = flex @ tibia.axes
        world_hinge = tibia.to_world(hinge)[0]
        origin = world_hinge - np.linalg.inv(axes) @ hinge[0]
        return Frame(axes, origin)


def _about(axis: int, angle: float) -> np.ndarray:
    """Returns the rotation matrix about a world axis (0 x, 1 y, 2 z)."""
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.eye(3)
    a, b = [(1, 2), (2, 0), (0, 1)][axis]
    matrix[a, a], matrix[a, b], matrix[b, a], matrix[b, b] = cos, -sin, sin, cos
    return matrix


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draws one knee: proportions vary by 5-10 % as in adults, the pose as in a knee coil.

    Nothing depends on the labels: the distractors of normal knees (fluid, degeneration, bright
    spots) are drawn for every knee.
    """

    def around(mean: float, sd: float, reach: float = 2.0) -> float:
        return float(mean + sd * np.clip(rng.standard_normal(), -reach, reach))

    degeneration = [float(rng.uniform(0.4, 1.0)) if rng.random() < p else 0.0 for p in (0.4, 0.25)]
    return Anatomy(
        right=bool(rng.random() < 0.5),
        scale=around(1.0, 0.055),
        width=around(1.0, 0.035),
        rotation_deg=(around(0, 2.5), around(0, 2.5), around(0, 5.0)),
        offset=(around(0, 4.0), around(0, 4.0), around(-4, 4.0)),
        flexion_deg=float(rng.uniform(0.0, 16.0)),
        notch=around(9.5, 0.8),
        groove=around(5.5, 0.9),
        slope=around(0.11, 0.035),
        patella_height=around(37.0, 3.0),
        cartilage=around(2.4, 0.3),
        meniscus_height=around(8.2, 0.6),
        meniscus_width=around(1.0, 0.07),
        acl_radius=around(5.0, 0.45),
        pcl_radius=around(5.0, 0.4),
        fat=float(np.clip(rng.lognormal(np.log(7.0), 0.4), 3.0, 16.0)),
        muscle=around(1.1, 0.06),
        outline=(around(0, 1.5), around(0, 1.5), around(0, 1.0), around(0, 1.0)),
        fluid=float(rng.beta(1.3, 2.0)),
        degeneration=(degeneration[0], degeneration[1]),
        acl_bright_spot=float(rng.uniform(0.3, 1.0)) if rng.random() < 0.4 else 0.0,
        red_marrow=float(rng.beta(1.2, 3.0)),
        closed_physis=float(rng.uniform(0.2, 1.0)),
        vein=around(4.6, 0.6),
        texture_seed=int(rng.integers(2**31)),
    )
