"""Rendering of one synthetic exam from a seed."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from jaxtyping import UInt8
from threadpoolctl import threadpool_limits

from mrknee.errors import SettingsError
from mrknee.exams import MRNET_SERIES, Exam, SeriesList
from mrknee.sources.phantom import bones, joint, ligaments, limb
from mrknee.sources.phantom.anatomy import Anatomy, draw_anatomy
from mrknee.sources.phantom.lesions import (
    AclTear,
    BakerCyst,
    FluidCollection,
    Lesion,
    MclTear,
    MeniscalTear,
    Truth,
    draw_lesions,
)
from mrknee.sources.phantom.scanner import (
    FIELD_OF_VIEW,
    PLANES,
    Acquisition,
    Protocol,
    acquire,
    draw_acquisition,
    draw_protocol,
    sample,
)
from mrknee.sources.phantom.shapes import Canvas, Grid, texture_tile

FINDINGS = ("abnormal", "acl", "meniscus")
EXTENT = (176.0, 156.0, 152.0)
"""Extent of the grid (z, y, x) in mm, for the largest field of view with its shift."""
COVERED = (145.0, 130.0, 125.0)
"""Extent (z, y, x) that the slices need, mm, whatever the field of view."""
FINEST, COARSEST = 0.75, 1.75
"""Voxel edges (mm) for images of 256 px and more, and of 109 px and less, with the usual field of
view."""


@dataclass(frozen=True)
class PhantomExam:
    """One synthetic exam.

    Attributes:
        truth: findings of the exam.
        stacks: series -> uint8 (slices, size, size).
        masks: finding -> series -> uint8 0/1 of the stack's shape, for positive findings only.
        anatomy, lesions, protocol: the drawn parameters.
    """

    truth: Truth
    stacks: dict[str, UInt8[np.ndarray, "slices rows cols"]]
    masks: dict[str, dict[str, UInt8[np.ndarray, "slices rows cols"]]]
    anatomy: Anatomy
    lesions: tuple[Lesion, ...]
    protocol: Protocol


def render_exam(
    seed: int | Sequence[int],
    truth: Truth,
    *,
    size: int = 256,
    slice_factor: float = 1.0,
    fov_factor: float = 1.0,
    series: SeriesList = MRNET_SERIES,
) -> PhantomExam:
    """Draws a knee, its lesions and its protocol from a seed, then acquires the series.

    Anatomy, lesions, protocol and noise have separate random streams: the same seed with another
    truth gives the same knee in the same scanner with other lesions. Series other than MRNet's
    have separate streams too, so that their bytes don't depend on the other series.

    Args:
        seed: an integer or a sequence of integers; the same seed gives the same bytes.
        truth: findings of the exam.
        size: edge of the images in pixels.
        slice_factor: factor on MRNet's slice counts; slices get thicker accordingly.
        fov_factor: factor on the field of view.
        series: series to acquire.
    """
    streams = _streams(seed)
    knee = draw_anatomy(streams[0])
    lesions = draw_lesions(streams[1], truth)
    usual = draw_protocol(streams[2], slice_factor, fov_factor)
    own = {one.name: _streams_of_series(seed, one.name) for one in series}
    protocol = Protocol(
        usual.tesla,
        {
            one.name: usual.series[one.name]
            if one in MRNET_SERIES
            else draw_acquisition(own[one.name][0], one, usual.tesla, slice_factor, fov_factor)
            for one in series
        },
    )
    canvas = paint_knee(knee, lesions, protocol, size)
    stacks: dict[str, UInt8[np.ndarray, "slices rows cols"]] = {}
    # MRNet's series share one stream of noise, in their order.
    mrnets = [one.name for one in MRNET_SERIES if one in series]
    for plane in PLANES[: PLANES.index(mrnets[-1]) + 1] if mrnets else ():
        if plane in mrnets:
            stacks[plane] = _acquire(canvas, protocol, plane, size, streams[3])
        else:  # skip the noise of this series
            streams[3].standard_normal((2, usual.series[plane].slices, size, size), np.float32)
    for name in series.names:
        if name not in mrnets:
            stacks[name] = _acquire(canvas, protocol, name, size, own[name][1])
    stacks = {name: stacks[name] for name in series.names}
    shown = [finding for finding in FINDINGS if getattr(truth, finding)]
    masks = {
        finding: {
            name: lesion_mask(canvas, _of_finding(lesions, finding), acquisition, size)
            for name, acquisition in protocol.series.items()
        }
        for finding in shown
    }
    for finding in shown:
        for name in series.names:
            # A tear is also abnormal.
            masks["abnormal"][name] |= masks[finding][name]
    return PhantomExam(truth, stacks, masks, knee, lesions, protocol)


def _acquire(
    canvas: Canvas, protocol: Protocol, name: str, size: int, noise: np.random.Generator
) -> UInt8[np.ndarray, "slices rows cols"]:
    """Acquires one series of the painted knee."""
    index = list(protocol.series).index(name)
    brightest = max(signal[index] for signal in canvas.signals.values())
    volume = canvas.volumes[index]
    return acquire(volume, canvas.grid, protocol.series[name], size, brightest, noise)


@dataclass(frozen=True, init=False, repr=False)
class Phantom(Exam):
    """An exam of a synthetic knee with masks of its lesions.

    Attributes:
        lesions: finding -> series -> uint8 0/1 mask (slices, rows, cols) of the stack's shape, for
            positive findings only.
    """

    lesions: Mapping[str, Mapping[str, UInt8[np.ndarray, "slices rows cols"]]]


def make_phantom(
    seed: int,
    findings: Iterable[str] = (),
    *,
    size: int = 256,
    slice_factor: float = 1.0,
    fov_factor: float = 1.0,
    series: SeriesList = MRNET_SERIES,
    id: str = "phantom",  # noqa: A002  # the exam's field
) -> Phantom:
    """Creates a synthetic knee with the given findings.

    The same arguments give the same bytes. The same seed with other findings gives the same knee
    in the same scanner, with other lesions.

    Args:
        seed: seed of the anatomy, the lesions, the scanner's settings and the noise.
        findings: any of `abnormal`, `acl` and `meniscus`; with a tear, `abnormal` is added.
        size: edge of the images in pixels.
        slice_factor: factor on MRNet's slice counts (17 to 61 per plane).
        fov_factor: factor on MRNet's field of view of 140 to 165 mm, which shows more than the
            joint; 0.65 to 1.
        series: series to acquire; an undeclared weighting or fat suppression is that of MRNet's
            series of the plane.
        id: id of the exam.

    Returns:
        The exam with labels and lesion masks.

    Raises:
        SettingsError: an unknown finding.

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
            "an unknown finding",
            code="finding",
            expected=", ".join(FINDINGS),
            found=", ".join(sorted(wanted - set(FINDINGS))),
        )
    truth = Truth(abnormal=bool(wanted), acl="acl" in wanted, meniscus="meniscus" in wanted)
    with threadpool_limits(1):  # sums round differently with another number of threads
        knee = render_exam(
            seed,
            truth,
            size=size,
            slice_factor=slice_factor,
            fov_factor=fov_factor,
            series=series,
        )
    labels = {name: float(getattr(truth, name)) for name in FINDINGS}
    phantom = Phantom(id, knee.stacks, labels, series=series)
    object.__setattr__(phantom, "lesions", MappingProxyType(knee.masks))
    return phantom


def draw_exam_lesions(seed: int | Sequence[int], truth: Truth) -> tuple[Lesion, ...]:
    """Draws the lesions that `render_exam` paints for a seed and truth, without rendering."""
    return draw_lesions(_streams(seed)[1], truth)


def _streams(seed: int | Sequence[int]) -> list[np.random.Generator]:
    """Returns the random streams of anatomy, lesions, MRNet's protocol and noise."""
    return [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(4)]


def _streams_of_series(seed: int | Sequence[int], name: str) -> list[np.random.Generator]:
    """Returns the random streams of protocol and noise of a series that is not MRNet's."""
    key = (4, zlib.crc32(name.encode()))  # keys 0 to 3 are the streams of the exam
    return [np.random.default_rng(s) for s in np.random.SeedSequence(seed, spawn_key=key).spawn(2)]


def _of_finding(lesions: Sequence[Lesion], finding: str) -> list[Lesion]:
    """Returns the lesions that a finding of MRNet names; every lesion is abnormal."""
    kind = {"acl": AclTear, "meniscus": MeniscalTear}.get(finding, object)
    return [lesion for lesion in lesions if isinstance(lesion, kind)]


def paint_knee(knee: Anatomy, lesions: tuple[Lesion, ...], protocol: Protocol, size: int) -> Canvas:
    """Paints one knee with its lesions for images of ``size`` pixels."""
    factor = max(series.fov_factor for series in protocol.series.values())
    smaller = (1 - factor) * FIELD_OF_VIEW[1]
    depth, rows, cols = (
        max(whole - smaller, min(whole, slices))
        for whole, slices in zip(EXTENT, COVERED, strict=True)
    )
    spacing = float(np.clip(FINEST * 256 / size * factor, FINEST, COARSEST))
    canvas = Canvas(Grid(spacing, (depth, rows, cols)), protocol.signals())
    paint(canvas, knee, lesions)
    return canvas


def paint(canvas: Canvas, knee: Anatomy, lesions: Sequence[Lesion]) -> None:
    """Paints one knee with its lesions; later tissues cover earlier ones."""
    grid = canvas.grid
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
        elif isinstance(lesion, FluidCollection):
            joint.paint_collection(canvas, knee, lesion)
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
    ligaments.paint_bands(canvas, knee, next((x for x in lesions if isinstance(x, MclTear)), None))


def lesion_mask(
    canvas: Canvas, lesions: Iterable[Lesion], acquisition: Acquisition, size: int
) -> UInt8[np.ndarray, "slices rows cols"]:
    """Returns the mask of lesions in a series' grid, 1 where a third of a voxel is lesion.

    It is empty if the series doesn't reach the lesions.
    """
    total = np.zeros((acquisition.slices, size, size), np.float32)
    for lesion in lesions:
        for box, cover in canvas.marks.get(lesion, ()):
            np.maximum(total, sample(cover, box, acquisition, size), out=total)
    # A lesion too thin to fill a third of any voxel is marked in its fullest voxels.
    level = min(0.33, 0.6 * float(total.max()))
    return (total > level).astype(np.uint8)
