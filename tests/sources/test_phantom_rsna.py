from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache
from typing import get_args

import numpy as np
import pytest

from mrknee.sources.phantom.anatomy import draw_anatomy
from mrknee.sources.phantom.exam import paint
from mrknee.sources.phantom.lesions import (
    AclTear,
    BakerCyst,
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
)
from mrknee.sources.phantom.rsna.cohort import sites_of
from mrknee.sources.phantom.rsna.findings import EXPERTS, FINDINGS, REPORTED, draw_findings
from mrknee.sources.phantom.rsna.lesions import draw_study_lesions, finding_of
from mrknee.sources.phantom.rsna.phrases import PHRASES
from mrknee.sources.phantom.rsna.reports import rule_labels, soft_labels, write_report
from mrknee.sources.phantom.rsna.sites import LANGUAGES
from mrknee.sources.phantom.rsna.study import Split, Study, draw_study, render_study
from mrknee.sources.phantom.scanner import PLANES
from mrknee.sources.phantom.shapes import Canvas, Grid
from mrknee.sources.phantom.tissues import TISSUES, spin_echo

COUNT = 800
SITES = sites_of(0)
KNEE = replace(
    draw_anatomy(np.random.default_rng(3)), degeneration=(0.0, 0.0), acl_bright_spot=0.0, fluid=0.2
)
T1, PD_FS = 0, 1
"""Contrasts of the knees that are painted here."""


@cache
def studies(split: Split, *, enriched: bool) -> tuple[Study, ...]:
    """Studies that are drawn, not rendered."""
    return tuple(
        draw_study(0, split, index, SITES, enriched=enriched, size=512, slice_factor=1.0)
        for index in range(COUNT)
    )


def training() -> tuple[Study, ...]:
    """Training studies without experts' labels."""
    return studies("train", enriched=False)


def expert() -> tuple[Study, ...]:
    """Studies with the experts' frequencies."""
    return studies("test", enriched=True)


@cache
def painted(*lesions: Lesion) -> Canvas:
    """The knee with lesions, in T1 without and in PD with fat suppression at 1.5 T."""
    signals: dict[str, tuple[float, ...]] = {
        name: (
            spin_echo(tissue, tesla=1.5, repetition_ms=600, echo_ms=14),
            spin_echo(tissue, tesla=1.5, repetition_ms=3000, echo_ms=30, fat_left=0.08),
        )
        for name, tissue in TISSUES.items()
    }
    canvas = Canvas(Grid(1.0, (150.0, 150.0, 140.0)), signals)
    paint(canvas, KNEE, lesions)
    return canvas


def change(contrast: int, lesion: Lesion, *companions: Lesion) -> float:
    """Mean change of the signal within a lesion's mask, as a share of the healthy signal there."""
    ill, healthy = painted(lesion, *companions), painted(*companions)
    before, after = [], []
    for box, cover in ill.marks[lesion]:
        inside = cover > 0.6
        before.append(healthy.volumes[contrast][box.slices][inside])
        after.append(ill.volumes[contrast][box.slices][inside])
    old, new = np.concatenate(before), np.concatenate(after)
    return float((new.mean() - old.mean()) / old.mean())


# --- lesions


BRIGHT: list[Lesion] = [
    AclTear(0.6, 0.5, 8.0, 2.0, 1.3, 0.8),
    MclTear(0.7, 0.4, 8.0, 4.0),
    MeniscalTear(True, "horizontal", 0.5, -80.0, 60.0, 0.4, 1.6, 0.5),
    MeniscalTear(False, "vertical", 0.5, -80.0, 60.0, 0.4, 1.6, 0.5),
    CartilageDefect("femur", (-22.0, -2.0, 4.0), 7.0, 0.8),
    CartilageDefect("tibia", (21.0, 0.0, 1.5), 7.0, 0.8),
    CartilageDefect("patella", (8.0, 0.0, 0.0), 7.0, 0.8),
    CartilageDefect("femur", (8.0, 29.0, 31.0), 7.0, 0.8),
    Effusion(0.6),
    BakerCyst(9.0),
    Contusion("femur", (22.0, 5.0, 14.0), 9.0, 0.9),
    Contusion("tibia", (-20.0, 0.0, -10.0), 9.0, 0.9),
    Contusion("patella", (5.0, 0.0, 0.0), 8.0, 0.9),
    Fracture("tibia", (18.0, 0.0, -10.0), (0.1, 0.1, 1.0), 16.0, 2.0, 1.0, 8.0, 0.9),
]


@pytest.mark.parametrize("lesion", BRIGHT)
def test_fat_suppression_shows_every_lesion(lesion: Lesion) -> None:
    """Within its mask, a lesion above the threshold is at least 20 % brighter than no lesion."""
    assert finding_of(lesion) is not None
    assert change(PD_FS, lesion) > 0.2


def test_synovitis_is_darker_than_the_fluid_that_it_replaces() -> None:
    """Thick synovium within an effusion is at least 20 % darker than the effusion."""
    synovitis = Synovitis(3.0, 0.8, (0.3, 1.0, 2.0))
    assert finding_of(synovitis) == "synovitis"
    assert change(PD_FS, synovitis, Effusion(0.7)) < -0.2


@pytest.mark.parametrize("place", get_args(CollectionPlace))
def test_fluid_outside_the_joint_is_no_finding(place: CollectionPlace) -> None:
    """A bursitis or ganglion is brighter than what it replaces, and has no label."""
    collection = FluidCollection(place, 8.0, (0.0, 0.0, 0.0))
    assert finding_of(collection) is None
    assert change(PD_FS, collection) > 0.5


@pytest.mark.parametrize(
    "bruise",
    [
        Contusion("femur", (22.0, 5.0, 14.0), 9.0, 0.9),
        Contusion("tibia", (-20.0, 0.0, -10.0), 9.0, 0.9),
        Contusion("patella", (5.0, 0.0, 0.0), 8.0, 0.9),
    ],
)
def test_t1_is_blind_to_a_contusion(bruise: Contusion) -> None:
    """A bruise changes marrow by less than 8 % on T1, and at least doubles it with suppression."""
    assert abs(change(T1, bruise)) < 0.08
    assert change(PD_FS, bruise) > 1.0


def test_t1_shows_the_line_of_a_fracture() -> None:
    """On T1 a fracture has a line that is less than half as bright as the same marrow."""
    fracture = Fracture("tibia", (18.0, 0.0, -10.0), (0.1, 0.1, 1.0), 16.0, 2.2, 1.0, 8.0, 0.9)
    ill, healthy = painted(fracture), painted()
    ((box, cover),) = ill.marks[fracture]
    marrow = healthy.volumes[T1][box.slices] > 0.5
    ratio = (ill.volumes[T1] / np.maximum(healthy.volumes[T1], 1e-6))[box.slices]
    assert ((ratio < 0.5) & marrow & (cover > 0.6)).sum() > 100


@pytest.mark.parametrize("present", [(), ("acl", "effusion"), FINDINGS])
def test_lesions_are_those_of_the_findings(present: tuple[str, ...]) -> None:
    """The lesions above the thresholds are those of the present findings, of no other."""
    for seed in range(100):
        lesions, lesser = draw_study_lesions(np.random.default_rng(seed), present)
        assert {finding_of(lesion) for lesion in lesions} - {None} == set(present)
        assert not lesser & set(present)


def test_knees_without_a_finding_often_have_a_lesser_lesion() -> None:
    """Of negatives 45 to 65 % have a small effusion, 15 to 35 % low-grade cartilage loss."""
    absent = {
        name: [name in study.lesser for study in training() if name not in study.present]
        for name in ("effusion", "medial_oa", "medial_meniscus")
    }
    assert 0.45 < np.mean(absent["effusion"]) < 0.65
    assert 0.15 < np.mean(absent["medial_oa"]) < 0.35
    assert 0.3 < np.mean(absent["medial_meniscus"]) < 0.5


@pytest.mark.parametrize("plane", PLANES)
def test_series_show_the_lesions_where_their_masks_are(plane: str) -> None:
    """Rendered with noise, a contusion's mask is brighter than the marrow in its series."""
    study = next(
        study
        for study in training()
        if study.present == {"contusion"}
        and all(s.planned.edge < 600 and not s.planned.three_d for s in study.series)
    )
    shown = [s for s in study.series if s.planned.plane == plane and s.planned.fat_suppressed][:1]
    small = tuple(replace(s, planned=replace(s.planned, edge=96)) for s in shown)
    for _, pixels, masks in render_study(replace(study, series=small), 96):
        mask = masks["contusion"].astype(bool)
        assert pixels.shape == mask.shape
        inside = pixels[mask].mean()
        around = np.median(pixels[mask.any(axis=(1, 2))])
        assert inside > 1.5 * around


# --- frequencies


@pytest.mark.parametrize(("enriched", "wanted"), [(True, EXPERTS), (False, REPORTED)])
def test_findings_are_as_frequent_as_stated(enriched: bool, wanted: dict[str, float]) -> None:
    """Shares of 3,000 draws are within 3 points of the stated ones; synovitis needs an effusion."""
    rng = np.random.default_rng(5)
    drawn = [draw_findings(rng, enriched=enriched, odds={})[1] for _ in range(3000)]
    for name in FINDINGS:
        share = 100 * np.mean([name in present for present in drawn])
        assert share == pytest.approx(wanted[name], abs=3.0)
    assert all("effusion" in present for present in drawn if "synovitis" in present)


def test_findings_occur_together_as_in_injuries() -> None:
    """Contusions, lateral meniscal tears and effusions are more frequent with a torn ACL."""
    with_acl = [study.present for study in training() if "acl" in study.present]
    without = [study.present for study in training() if "acl" not in study.present]
    for name in ("contusion", "lateral_meniscus", "effusion"):
        share, other = (np.mean([name in one for one in part]) for part in (with_acl, without))
        assert share > 1.5 * other


def test_series_have_the_stated_coverage() -> None:
    """Coverage per plane and contrast is within 4 points; 5.5 series per study; all planes."""
    wanted = {
        ("axial", True): 1.0,
        ("sagittal", True): 0.942,
        ("coronal", True): 0.964,
        ("sagittal", False): 0.968,
        ("coronal", False): 0.773,
        ("axial", False): 0.194,
    }
    kinds = [
        {(s.planned.plane, s.planned.fat_suppressed) for s in study.series} for study in training()
    ]
    for kind, share in wanted.items():
        assert np.mean([kind in one for one in kinds]) == pytest.approx(share, abs=0.04)
    assert all({plane for plane, _ in one} == set(PLANES) for one in kinds)
    counts = [len(study.series) for study in training()]
    assert np.mean(counts) == pytest.approx(5.5, abs=0.25)
    assert min(counts) >= 3
    assert max(counts) <= 14


def test_series_are_acquired_as_stated() -> None:
    """Slices, fields of view, pixels and grey values have the stated medians and ranges."""
    planned = [series.planned for study in training() for series in study.series]
    slices = [one.acquisition.slices for one in planned]
    assert 28 <= np.median(slices) <= 32
    assert 31 <= np.mean(slices) <= 36
    assert min(slices) >= 11
    assert max(slices) <= 320
    assert any(one.three_d for one in planned)
    fields = np.array([one.acquisition.field_of_view for one in planned])
    assert 124 < np.percentile(fields, 1) < 136
    assert 190 < np.percentile(fields, 99) < 211
    assert np.median([one.edge for one in planned]) == 512
    pixels = fields / [one.edge for one in planned]
    assert 0.135 < pixels.min() < pixels.max() < 0.71
    peaks = [one.peak for one in planned]
    assert 690 <= min(peaks) < max(peaks) <= 8736
    t1 = [one.weighting == "T1" for one in planned if not one.fat_suppressed]
    assert 0.45 < np.mean(t1) < 0.62


def test_headers_have_the_stated_faults() -> None:
    """Sides, body parts, descriptions and flags are missing or wrong as often as stated."""
    headers = [study.header for study in training()]
    series = [series for study in training() for series in study.series]
    assert 0.4 < np.mean([bool(header.laterality) for header in headers]) < 0.6
    assert 0.03 < np.mean([header.body_part != "KNEE" for header in headers]) < 0.08
    assert 0.09 < np.mean([one.description == "Dummy" for one in series]) < 0.14
    wrong = [one.fat_suppression != one.planned.fat_suppressed for one in series]
    assert 0.01 < np.mean(wrong) < 0.045
    assert all(one.fluid_sensitive == one.fat_suppression for one in series)
    test = [series for study in expert() for series in study.series]
    assert any(one.fluid_sensitive != one.fat_suppression for one in test)
    assert 0 < sum(one.corrupt for one in series) < 0.02 * COUNT
    assert 0 < sum(study.other_knee is not None for study in training()) < 0.02 * COUNT
    assert len({header.patient for header in headers}) == COUNT


def test_the_position_on_the_table_tells_the_side_of_most_knees() -> None:
    """More than 20 mm from the middle, the position agrees with the side in 96 to 99.5 %."""
    single = [study for study in training() if study.other_knee is None]
    x = np.array([study.header.origin[0] for study in single])
    right = np.array([study.knee.right for study in single])
    far = np.abs(x) >= 20
    assert 0.75 < far.mean() < 0.95
    assert 0.96 < np.mean((x < 0)[far] == right[far]) < 0.995


def test_scanners_are_of_many_vendors() -> None:
    """About half of the studies are of Siemens and 60 % at 1.5 T; fingerprints are many."""
    scanners = [study.header.scanner for study in training()]
    siemens = [one.manufacturer.upper().startswith("SIEMENS") for one in scanners]
    assert 0.3 < np.mean(siemens) < 0.6
    assert 0.5 < np.mean([one.tesla == 1.5 for one in scanners]) < 0.75
    assert len(set(scanners)) > 80
    assert len({one.manufacturer for one in scanners}) >= 7


def test_nothing_but_patients_depends_on_the_site_in_training_only() -> None:
    """The same study has the same series, whether findings are enriched or not."""
    usual, enriched = (
        draw_study(0, "train", 3, SITES, enriched=flag, size=64, slice_factor=0.5)
        for flag in (False, True)
    )
    assert usual.series == enriched.series
    assert usual.knee == enriched.knee
    assert usual.site == enriched.site


# --- reports


def test_reports_agree_with_the_truth_as_stated() -> None:
    """With the experts' frequencies 82 to 86 % of statements are right, most errors over-calls."""
    truth = np.array([[name in study.present for name in FINDINGS] for study in expert()])
    called = np.array(
        [[study.statements.get(name) == "present" for name in FINDINGS] for study in expert()]
    )
    assert 0.82 <= (truth == called).mean() <= 0.86
    assert (called & ~truth).sum() > (truth & ~called).sum()


def test_reports_are_silent_about_synovitis() -> None:
    """84 to 88 % of the reports don't mention synovitis."""
    silent = np.mean(["synovitis" not in study.statements for study in training()])
    assert 0.83 < silent < 0.89


def test_reports_are_in_nine_languages() -> None:
    """Languages are as frequent as stated, within 5 points."""
    found = Counter(SITES[study.site].language for study in training())
    total = sum(LANGUAGES.values())
    for language, share in LANGUAGES.items():
        assert found[language] / COUNT == pytest.approx(share / total, abs=0.05)


def test_some_reports_have_the_same_text() -> None:
    """Between 1 and 8 % of the studies share their report with another one."""
    counts = Counter(study.report for study in training())
    shared = sum(count for count in counts.values() if count > 1)
    assert 0.01 < shared / COUNT < 0.08


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_report_states_its_findings_and_its_side(language: str) -> None:
    """Present, lesser and absent findings have their own sentences; the side is in the title."""
    words = PHRASES[language]
    text = write_report(
        np.random.default_rng(0),
        language,
        {"acl": "present", "effusion": "lesser", "bakers": "absent"},
        right=False,
    )
    for name, place in (("acl", 0), ("effusion", 1), ("bakers", 2)):
        assert words.statements[name][place] in text
    assert words.left in text.splitlines()[0]
    assert words.statements["fracture"][2] not in text
    sentences = [sentence for three in words.statements.values() for sentence in three]
    assert len(set(sentences)) == 36


def test_label_tables_follow_the_reports() -> None:
    """Probabilities are high if stated and low if not; rules leave out what isn't mentioned."""
    statements = training()[0].statements
    rng = np.random.default_rng(0)
    soft, ruled = soft_labels(rng, statements), rule_labels(rng, statements)
    for name in FINDINGS:
        assert 0.0 <= soft[name] <= 1.0
        assert (soft[name] > 0.5) == (statements.get(name) == "present")
        assert (ruled[name] is None) == (name not in statements)
