"""One synthetic exam from one seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from jaxtyping import UInt8
from threadpoolctl import threadpool_limits

from mrknee.errors import SettingsError
from mrknee.exams import Exam, by_series
from mrknee.sources.phantom import bones, joint, ligaments, limb
from mrknee.sources.phantom.anatomy import Anatomy, draw_anatomy
from mrknee.sources.phantom.lesions import AclTear, BakerCyst, Lesion, Truth, draw_lesions
from mrknee.sources.phantom.scanner import PLANES, Protocol, acquire, draw_protocol, sample
from mrknee.sources.phantom.shapes import Canvas, Grid, texture_tile

FINDINGS = ("abnormal", "acl", "meniscus")
EXTENT = (176.0, 156.0, 152.0)
"""The grid's extent (z, y, x) in mm: a large field of view and its shift fit inside."""
FINEST, COARSEST = 0.75, 1.75
"""Voxel edges (mm) for images of 256 px and more, and of 109 px and less."""


@dataclass(frozen=True)
class PhantomExam:
    """One synthetic exam.

    Attributes:
        truth: what it shows.
        stacks: plane -> uint8 (slices, size, size).
        masks: finding -> plane -> uint8 0/1 of the stack's shape, for positive findings only.
        anatomy, lesions, protocol: the drawn parameters.
    """

    truth: Truth
    stacks: dict[str, UInt8[np.ndarray, "slices rows cols"]]
    masks: dict[str, dict[str, UInt8[np.ndarray, "slices rows cols"]]]
    anatomy: Anatomy
    lesions: tuple[Lesion, ...]
    protocol: Protocol


def render_exam(
    seed: int | Sequence[int], truth: Truth, *, size: int = 256, slice_factor: float = 1.0
) -> PhantomExam:
    """Draw a knee, its lesions and its protocol from a seed, then acquire the three planes.

    The four things drawn (anatomy, lesions, protocol, noise) have streams of their own: the same
    seed with another truth is the same knee in the same scanner, with other lesions.

    Args:
        seed: an integer or a sequence of integers; the same seed gives the same bytes.
        truth: what the exam shall show.
        size: edge of the images in pixels.
        slice_factor: factor on MRNet's slice counts (slices get thicker by as much).
    """
    streams = _streams(seed)
    knee = draw_anatomy(streams[0])
    lesions = draw_lesions(streams[1], truth)
    protocol = draw_protocol(streams[2], slice_factor)
    canvas = paint_knee(knee, lesions, protocol, size)
    stacks: dict[str, UInt8[np.ndarray, "slices rows cols"]] = {}
    for index, plane in enumerate(PLANES):
        series = protocol.series[plane]
        brightest = max(signal[index] for signal in canvas.signals.values())
        volume = canvas.volumes[index]
        stacks[plane] = acquire(volume, canvas.grid, series, size, brightest, streams[3])
    shown = [finding for finding in FINDINGS if getattr(truth, finding)]
    masks = {finding: _masks(canvas, finding, protocol, size) for finding in shown}
    for finding in shown:
        for plane in PLANES:
            # Whatever shows a tear shows something abnormal.
            masks["abnormal"][plane] |= masks[finding][plane]
    return PhantomExam(truth, stacks, masks, knee, lesions, protocol)


@dataclass(frozen=True, init=False, repr=False)
class Phantom(Exam):
    """An exam of a synthetic knee, and where its lesions are.

    Attributes:
        lesions: finding -> series -> uint8 (slices, rows, cols) of the stack's shape, 1 where the
            lesion is; only findings that the knee has.
    """

    lesions: Mapping[str, Mapping[str, UInt8[np.ndarray, "slices rows cols"]]]


def make_phantom(
    seed: int,
    findings: Iterable[str] = (),
    *,
    size: int = 256,
    slice_factor: float = 1.0,
    id: str = "phantom",  # noqa: A002  # the exam's field
) -> Phantom:
    """Makes a synthetic knee with the findings that are named.

    The same arguments give the same bytes. The same seed with other findings is the same knee in
    the same scanner, with other lesions.

    Args:
        seed: draws the anatomy, the lesions, the scanner's settings and the noise.
        findings: of `abnormal`, `acl` and `meniscus`; with a tear, `abnormal` is added.
        size: edge of the images in pixels.
        slice_factor: factor on MRNet's slice counts (17 to 61 per plane).
        id: the exam's id.

    Returns:
        The exam, labelled, with the masks of its lesions.

    Raises:
        SettingsError: there is no such finding.

    Example:
        >>> from mrknee import make_phantom
        >>> knee = make_phantom(seed=7, findings=["acl"], size=64, slice_factor=0.2)
        >>> dict(knee.labels)
        {'abnormal': 1.0, 'acl': 1.0, 'meniscus': 0.0}
        >>> sorted(knee.lesions)
        ['abnormal', 'acl']
    """
    wanted = set(findings)
    if not wanted <= set(FINDINGS):
        raise SettingsError(
            "a finding can't be drawn",
            code="finding",
            expected=", ".join(FINDINGS),
            found=", ".join(sorted(wanted - set(FINDINGS))),
        )
    truth = Truth(abnormal=bool(wanted), acl="acl" in wanted, meniscus="meniscus" in wanted)
    with threadpool_limits(1):  # sums of another number of threads round otherwise
        knee = render_exam(seed, truth, size=size, slice_factor=slice_factor)
    made = Phantom(id, knee.stacks, {name: float(getattr(truth, name)) for name in FINDINGS})
    masks = {name: by_series(planes) for name, planes in knee.masks.items()}
    object.__setattr__(made, "lesions", MappingProxyType(masks))
    return made


def draw_exam_lesions(seed: int | Sequence[int], truth: Truth) -> tuple[Lesion, ...]:
    """The lesions that `render_exam` paints for this seed and truth, without painting them."""
    return draw_lesions(_streams(seed)[1], truth)


def _streams(seed: int | Sequence[int]) -> list[np.random.Generator]:
    """The streams of anatomy, lesions, protocol and noise."""
    return [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(4)]


def paint_knee(knee: Anatomy, lesions: tuple[Lesion, ...], protocol: Protocol, size: int) -> Canvas:
    """Paint one knee with its lesions, from the outside in and back to front."""
    grid = Grid(float(np.clip(FINEST * 256 / size, FINEST, COARSEST)), EXTENT)
    canvas = Canvas(grid, protocol.signals())
    rng = np.random.default_rng(knee.texture_seed)
    tile = texture_tile(rng)
    limb.paint_limb(canvas, knee, rng)
    limb.paint_vessels(canvas, knee, rng)
    femur, femur_cartilage = bones.femur(knee, grid)
    tibia, tibia_cartilage = bones.tibia(knee, grid)
    patella, patella_cartilage = bones.patella(knee, grid)
    joint.paint_capsule(canvas, femur, knee)
    joint.paint_fluid(canvas, knee, lesions)
    for lesion in lesions:
        if isinstance(lesion, BakerCyst):
            joint.paint_cyst(canvas, knee, lesion)
    for medial in (True, False):
        joint.paint_meniscus(canvas, knee, lesions, medial=medial)
    here = bones.patella_centre(knee)
    for layer in (tibia_cartilage, femur_cartilage, patella_cartilage):
        centre = here if layer.name == "patella" else (0.0, 0.0, 0.0)
        joint.paint_cartilage(canvas, layer, lesions, centre)
    ligaments.paint_pcl(canvas, knee)
    ligaments.paint_acl(canvas, knee, next((x for x in lesions if isinstance(x, AclTear)), None))
    for bone in (femur, tibia, bones.fibula(knee, grid), patella):
        joint.paint_bone(canvas, bone, knee, lesions, tile)
    ligaments.paint_bands(canvas, knee)
    return canvas


def _masks(
    canvas: Canvas, finding: str, protocol: Protocol, size: int
) -> dict[str, UInt8[np.ndarray, "slices rows cols"]]:
    """A finding's lesions in each plane's own grid, 1 where a third of the voxel is lesion."""
    masks: dict[str, UInt8[np.ndarray, "slices rows cols"]] = {}
    for plane in PLANES:
        series = protocol.series[plane]
        total = np.zeros((series.slices, size, size), np.float32)
        for box, cover in canvas.marks[finding]:
            np.maximum(total, sample(cover, box, series, size), out=total)
        # A lesion too thin for any voxel to be a third full still gets its fullest voxels.
        level = min(0.33, 0.6 * float(total.max()))
        masks[plane] = (total > level).astype(np.uint8)
    return masks
