from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from mrknee.sources.phantom.anatomy import draw_anatomy
from mrknee.sources.phantom.bones import femur
from mrknee.sources.phantom.exam import paint_knee
from mrknee.sources.phantom.joint import Meniscus, degeneration_cover, tear_cover
from mrknee.sources.phantom.lesions import (
    AclTear,
    BakerCyst,
    CartilageDefect,
    Effusion,
    Lesion,
    MeniscalTear,
    Oedema,
    TearKind,
    Truth,
    draw_lesions,
)
from mrknee.sources.phantom.ligaments import acl_path
from mrknee.sources.phantom.scanner import draw_protocol
from mrknee.sources.phantom.shapes import Canvas, Grid

NORMAL = Truth(abnormal=False, acl=False, meniscus=False)
ABNORMAL = Truth(abnormal=True, acl=False, meniscus=False)
MENISCUS = Truth(abnormal=True, acl=False, meniscus=True)
ACL = Truth(abnormal=True, acl=True, meniscus=False)
KNEE = replace(draw_anatomy(np.random.default_rng(3)), degeneration=(1.0, 1.0), flexion_deg=5.0)
PROTOCOL = draw_protocol(np.random.default_rng(4), 1.0)
TEAR = AclTear(0.9, 0.5, 10.0, 4.0, 1.3, 1.0)


def fine_canvas() -> Canvas:
    """A small grid of 0.5 mm around the joint."""
    return Canvas(Grid(0.5, (60.0, 90.0, 110.0)), PROTOCOL.signals())


def draws(truth: Truth, count: int = 300) -> list[tuple[Lesion, ...]]:
    """Many draws of one truth."""
    return [draw_lesions(np.random.default_rng(seed), truth) for seed in range(count)]


def test_a_tear_makes_an_exam_abnormal() -> None:
    """A truth with a tear that isn't abnormal is refused."""
    with pytest.raises(ValueError, match="abnormal"):
        Truth(abnormal=False, acl=True, meniscus=False)


def test_normal_knees_have_no_lesions() -> None:
    """A normal truth draws nothing."""
    assert all(lesions == () for lesions in draws(NORMAL, 20))


def test_every_abnormal_knee_has_a_lesion_but_no_tear() -> None:
    """Abnormal-only exams hold one lesion or more, of all four kinds over many, and no tear."""
    drawn = draws(ABNORMAL)
    assert all(drawn)
    kinds = {type(lesion) for lesions in drawn for lesion in lesions}
    assert kinds == {Effusion, Oedema, CartilageDefect, BakerCyst}


def test_medial_tears_are_more_common_and_all_kinds_occur() -> None:
    """Of meniscal tears 60 to 76 % are medial; horizontal, vertical and bucket-handle occur."""
    tears = [x for lesions in draws(MENISCUS) for x in lesions if isinstance(x, MeniscalTear)]
    assert len(tears) == 300
    assert 0.60 < np.mean([tear.medial for tear in tears]) < 0.76
    assert {tear.kind for tear in tears} == {"horizontal", "vertical", "bucket-handle"}


def test_tears_range_from_subtle_to_severe() -> None:
    """Severities below 0.25 and above 0.85 both occur among ACL and among meniscal tears."""
    for truth, kind in ((ACL, AclTear), (MENISCUS, MeniscalTear)):
        found = [x.severity for lesions in draws(truth) for x in lesions if isinstance(x, kind)]
        assert min(found) < 0.25
        assert max(found) > 0.85


def test_pivot_shift_bruises_lie_laterally_and_often_accompany_acl_tears() -> None:
    """45 to 75 % of ACL tears have bruises of the lateral femur and the posterolateral tibia."""
    with_bruise = 0
    for lesions in draws(ACL):
        femur, tibia = (
            [x for x in lesions[1:3] if isinstance(x, Oedema) and x.bone == bone]
            for bone in ("femur", "tibia")
        )
        if femur and tibia and femur[0].centre[0] > 15 and tibia[0].centre[1] < -13:
            with_bruise += 1
    assert 135 < with_bruise < 225


def test_fluid_is_as_common_with_tears_as_without() -> None:
    """Effusions are within 15 points as frequent in tears as in abnormal-only exams."""
    shares = [
        np.mean([any(isinstance(x, Effusion) for x in lesions) for lesions in draws(truth)])
        for truth in (ABNORMAL, MENISCUS, ACL)
    ]
    assert max(shares) - min(shares) < 0.2


@pytest.mark.parametrize("kind", ["horizontal", "vertical", "bucket-handle"])
@pytest.mark.parametrize("medial", [True, False])
def test_a_meniscal_tear_reaches_the_surface(kind: TearKind, medial: bool) -> None:
    """The cleft covers voxels within 0.5 mm of the meniscus's surface, above or below."""
    part = Meniscus(fine_canvas(), KNEE, medial=medial)
    cover = tear_cover(part, MeniscalTear(medial, kind, 0.1, -75.0, 45.0, 0.4, 1.2, 0.5), 0.5)
    inner = (part.depth > 2.5) & (part.width - part.depth > 0.5)
    near = (part.distance < 0.25) & (part.distance > -0.5) & inner
    assert cover.max() == 1.0
    assert (cover[near] > 0.5).sum() > 10


@pytest.mark.parametrize("medial", [True, False])
def test_degeneration_never_reaches_the_surface(medial: bool) -> None:
    """Mucoid signal is present, but 0 within 0.9 mm of every surface."""
    part = Meniscus(fine_canvas(), KNEE, medial=medial)
    cover = degeneration_cover(part, 1.0)
    assert cover.max() > 0.3
    assert cover[part.distance > -0.9].max() == 0.0


def test_a_bucket_handle_leaves_the_meniscus_and_lies_in_the_notch() -> None:
    """A bucket handle's mask reaches within 12 mm of the midline, beyond a healthy meniscus."""
    tear = MeniscalTear(True, "bucket-handle", 0.8, -15.0, 150.0, 0.4, 1.5, 1.0)
    canvas = paint_knee(KNEE, (tear,), PROTOCOL, 128)
    box, cover = canvas.marks[tear][1]
    u = box.local(KNEE.tibia)[0]
    assert np.abs(u[cover > 0.5]).min() < 8.0


def brightness_along_acl(lesions: tuple[Lesion, ...]) -> np.ndarray:
    """The sagittal signal at points of the ACL's axis, ends left out."""
    canvas = paint_knee(replace(KNEE, acl_bright_spot=0.0), lesions, PROTOCOL, 160)
    points = acl_path(KNEE)[2:-2]
    lines = [canvas.grid.axis(axis) for axis in (2, 1, 0)]
    index = [np.abs(line[:, None] - points[:, i]).argmin(0) for i, line in enumerate(lines)]
    return np.asarray(canvas.volumes[2][index[2], index[1], index[0]])


def test_a_torn_acl_is_interrupted_by_bright_tissue() -> None:
    """Somewhere along its course a torn ligament is three times as bright as any intact part."""
    intact = brightness_along_acl(())
    torn = brightness_along_acl((replace(TEAR, sag=0.0),))
    assert torn.max() > 3.0 * intact.mean()


def test_a_lax_acl_sags() -> None:
    """Sag moves the middle of the ligament by its amount and doesn't move its ends."""
    moved = np.linalg.norm(acl_path(KNEE, 6.0) - acl_path(KNEE, 0.0), axis=1)
    assert moved[0] == pytest.approx(0.0, abs=1e-9)
    assert moved[-1] == pytest.approx(0.0, abs=1e-9)
    assert 4.5 < moved.max() < 8.0


@cache
def healthy_knee() -> Canvas:
    """The knee without lesions, painted once."""
    return paint_knee(KNEE, (), PROTOCOL, 128)


@pytest.mark.parametrize(
    "lesion",
    [
        TEAR,
        MeniscalTear(True, "horizontal", 0.8, -80.0, 70.0, 0.4, 1.8, 0.5),
        MeniscalTear(False, "vertical", 0.8, -80.0, 70.0, 0.4, 1.8, 0.5),
        Oedema("femur", (22.0, 5.0, 12.0), 9.0, 0.8),
        CartilageDefect("femur", (-22.0, 0.0, 4.0), 6.0, 1.0),
        BakerCyst(9.0),
    ],
)
def test_a_lesion_changes_the_knee_only_within_its_mask(lesion: Lesion) -> None:
    """Without noise, nothing changes more than 4 mm from the lesion's mask."""
    healthy = healthy_knee()
    ill = paint_knee(KNEE, (lesion,), PROTOCOL, 128)
    changed = np.abs(ill.volumes - healthy.volumes).max(axis=0) > 1e-3
    marked = np.zeros(ill.grid.shape, bool)
    for box, cover in ill.marks[lesion]:
        marked[box.slices] |= cover > 0.05
    reach = round(4.0 / ill.grid.spacing)
    near = marked.copy()
    for axis in range(3):
        near = np.maximum.reduce([np.roll(near, shift, axis) for shift in range(-reach, reach + 1)])
    assert changed[marked].any()
    assert not (changed & ~near).any()


def test_a_bruise_is_bright_with_fat_saturation_and_dark_on_t1() -> None:
    """Oedema raises the fat-saturated T2 signal of marrow and lowers its T1 signal."""
    series = PROTOCOL.series
    saturated = replace(
        PROTOCOL,
        series={**series, "sagittal": replace(series["sagittal"], fat_left=0.1)},
    )
    bruise = Oedema("tibia", (22.0, -10.0, -9.0), 9.0, 0.9)
    healthy, ill = (paint_knee(KNEE, x, saturated, 128).volumes for x in ((), (bruise,)))
    centre = KNEE.tibia.to_world(np.array([bruise.centre]))[0]
    grid = Grid(1.5, (176.0, 156.0, 152.0))
    at = tuple(int(np.abs(grid.axis(a) - centre[2 - a]).argmin()) for a in range(3))
    assert ill[2][at] > 1.5 * healthy[2][at]
    assert ill[1][at] < 0.8 * healthy[1][at]


def test_masks_exclude_regions_covered_by_bone() -> None:
    """A large effusion's mask contains nothing more than a voxel inside the femur."""
    effusion = Effusion(1.0)
    canvas = paint_knee(KNEE, (effusion,), PROTOCOL, 128)
    bone = femur(KNEE, canvas.grid)[0]
    inside = np.zeros(canvas.grid.shape, bool)
    inside[bone.box.slices] = bone.distance < -canvas.grid.spacing
    marked = np.zeros(canvas.grid.shape, np.float32)
    for box, cover in canvas.marks[effusion]:
        marked[box.slices] += cover
    assert marked.max() > 0.9
    assert marked[inside].max() < 0.05
