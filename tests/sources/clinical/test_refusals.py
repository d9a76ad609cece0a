"""Refusal of localisers, maps, phase images and reformats, and acceptance of ordinary series."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mrknee.exams import PLANES, Plane
from mrknee.sources.clinical.protocol import candidates
from mrknee.sources.clinical.series import sort_into_series
from tests.sources.clinical.headers import candidate, images
from tests.sources.clinical.hospital import Scan, datasets, item, knee
from tests.sources.clinical.test_pixels import series_of
from tests.sources.clinical.test_protocol import candidate as written

LOCALISERS = (
    *("LOCATOR", "3PLANELOC", "REPERAGE", "Localizers", "Localizer", "3-plane loc", "3-pl T2* Loc"),
    *("LOC_1", "tfi loc multi", "Tri-planar", "Scout", "AAKnee_Scout", "Survey", "SmartSurvey"),
    *("plan scan", "lokalizer", "Lokalisation", "localizzatore", "localizador", "localisateur"),
    *("Repérage", "Pilote", "topogram", "02 Scano SE CS", "FastView", "Übersicht", "3 Ebenen"),
    *("ASSET calibration", "Calibration Scan", "SENSE ref", "Ref Scan", "Coil survey", "SHIM2D"),
    *("3 EKSEN", "kilavuz", "piloto", "centratura", "posicionamiento", "SmartKnee", "Локалайзер"),
)
COMPUTED = (
    *("MPR SAG", "SAG_MPR", "MIP", "SAG MIP thin", "minIP", "subtraction", "SUB", "Soustraction"),
    *("T2 Map", "T2MAP", "FIELD_MAP", "B0 map", "PHASE", "SAG PHASE", "Pha_Images", "ADC"),
    *("Reformatted", "SAG Reformat", "Screen Save", "PosDisp: [2] SAG", "Processed Images"),
    *("FAT: SAG PD IDEAL", "OutPhase: SAG", "t2_tse_dixon_sag_F", "t2_tse_dixon_sag_opp"),
    *("T2 Karte", "Mapa T2", "CartiGram", "Ricostruzione COR", "Volume Rendering", "mappe T2"),
)
ACQUIRED = (
    *("SAG PD FS", "pd_tse_fs_sag", "SAG T2 SENSE", "SAG T2 ASSET", "FAT SAT SAG PD", "PD FAT SAT"),
    *("IN PHASE SAG", "SAG T2 PHASE AP", "SAG NO PHASE WRAP", "t2_tse_dixon_sag_W", "WATER: SAG"),
    *("SAG ACL RECON", "SAG BLOC", "SAG LOCAL", "3D PD SPACE", "PDW_TSE_SPAIR", "DP SAG", ""),
)
DIFFUSION = (
    *(
        "DWI b800",
        "ep2d_diff_tra",
        "Difusion",
        "DIFFUSION TRA",
        "diffusione",
        "DTI 30 dir",
        "Perfusion",
    ),
)


@pytest.mark.parametrize("name", LOCALISERS)
def test_localisers_by_name(name: str) -> None:
    """A localiser, calibration or planning scan is refused by vendors' and languages' names."""
    refusal = candidate(names=(name.upper(), "")).refusal
    assert refusal == "a localiser"


@pytest.mark.parametrize("name", COMPUTED)
def test_computed_series_by_name(name: str) -> None:
    """A series that only its name marks as computed is refused."""
    refusal = candidate(names=(name.upper(), "")).refusal
    assert refusal is not None
    assert refusal.startswith("derived from other images")


@pytest.mark.parametrize(
    "header",
    [
        *({"names": (name.upper(), "")} for name in DIFFUSION),
        {"technique": ("EP", "SE")},
        {"kind": ("ORIGINAL", "PRIMARY", "DIFFUSION", "NONE")},
    ],
)
def test_diffusion_is_refused(header: dict[str, Any]) -> None:
    """Diffusion and perfusion are refused by name, ImageType, or echo-planar technique."""
    assert candidate(**header).refusal == "diffusion, perfusion or another echo-planar image"


@pytest.mark.parametrize("name", ACQUIRED)
def test_names_of_ordinary_sequences_are_accepted(name: str) -> None:
    """Names of ordinary sequences are not refused."""
    assert candidate(names=(name.upper(), "")).refusal is None


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"spacing": 10.0}, "more than 8 mm apart"),
        ({"pixel": 1.7}, "wider than 1.5 mm"),
        ({"technique": ("GR",), "te_ms": 5.0, "tr_ms": 8.0, "count": 12}, "fast gradient echo"),
        ({"technique": ("GRADIENT",), "te_ms": 2.0, "tr_ms": 4.0, "count": 16}, "fast gradient"),
        ({"technique": ("GR",), "te_ms": 5.0, "tr_ms": 16.0, "count": 80, "spacing": 0.7}, None),
        ({"technique": ("GR",), "te_ms": 14.0, "tr_ms": 550.0, "count": 16}, None),
        ({"spacing": 6.0, "pixel": 1.0}, None),
        ({"pixel": 2.5, "rows": 64, "cols": 64}, None),  # a small image of a small field
        ({"count": 1}, None),
    ],
)
def test_localisers_by_geometry(header: dict[str, Any], reason: str | None) -> None:
    """A localiser is recognised by spacing, pixels, or timing and number of slices."""
    refusal = candidate(names=("A1", ""), **header).refusal
    if reason is None:
        assert refusal is None
    else:
        assert refusal is not None
        assert reason in refusal


@pytest.mark.parametrize("count", [3, 15, 25])
def test_several_planes_in_one_series_are_a_localiser(count: int) -> None:
    """A series with several planes is a localiser, however many slices it has."""
    found = [one for plane in PLANES for one in images(plane, count, names=("A1", ""))]
    refusals = {one.refusal for one in candidates(sort_into_series(found))}
    assert len(refusals) == 1
    assert str(refusals.pop()).startswith("a localiser")


def test_one_series_uid_for_a_study_is_not_a_localiser() -> None:
    """Series under one SeriesInstanceUID are separated by name and repetition time."""
    named = [one for plane in PLANES for one in images(plane, names=(f"{plane}", ""))]
    timed = [
        one
        for plane, tr in zip(PLANES, (3000.0, 600.0, 3500.0), strict=True)
        for one in images(plane, tr_ms=tr, names=("", ""))
    ]
    for found in (named, timed):
        assert [one.refusal for one in candidates(sort_into_series(found))] == [None] * 3


@pytest.mark.parametrize(
    ("kind", "refused"),
    [
        (("ORIGINAL", "PRIMARY", "P", "ND"), True),
        (("ORIGINAL", "PRIMARY", "SW_P_FFE", "SW", "P_FFE"), True),
        (("ORIGINAL", "PRIMARY", "PHASE MAP", "P", "SE"), True),
        (("ORIGINAL", "PRIMARY", "B0 MAP", "UNSPECIFIED"), True),
        (("ORIGINAL", "PRIMARY", "FIELD_MAP"), True),
        (("ORIGINAL", "PRIMARY", "R_FFE", "R"), True),
        (("ORIGINAL", "PRIMARY", "T1 MAP"), True),
        (("DERIVED", "PRIMARY", "DIXON", "FAT"), True),
        (("DERIVED", "PRIMARY", "DIXON", "OPP_PHASE"), True),
        (("DERIVED", "SECONDARY", "CSA MPR"), True),
        (("ORIGINAL", "PRIMARY", "PROJECTION IMAGE"), True),
        (("DERIVED", "PRIMARY", "DIXON", "WATER"), False),
        (("ORIGINAL", "PRIMARY", "DIXON", "IN_PHASE"), False),
        (("ORIGINAL", "PRIMARY", "M_SE", "M", "SE"), False),
        (("ORIGINAL", "PRIMARY", "M", "ND", "NORM", "FM2_1", "FIL"), False),
        (("ORIGINAL", "PRIMARY", "OTHER"), False),
        ((), False),
    ],
)
def test_image_types(kind: tuple[str, ...], refused: bool) -> None:
    """Phase, field, fat, maps and reformats are refused by ImageType; magnitude is accepted."""
    assert (candidate(kind=kind).refusal is not None) is refused


@pytest.mark.parametrize("component", ["PHASE", "REAL", "IMAGINARY"])
def test_other_components_than_the_magnitude(component: str) -> None:
    """Components other than the magnitude are refused."""
    assert "phase image" in str(candidate(component=component).refusal)


DERIVED = ("DERIVED", "PRIMARY", "M", "ND")


@pytest.mark.parametrize(
    ("header", "refused"),
    [
        ({"lossy": True}, False),
        ({"lossy": True, "derivation": "JPEG 2000 IRREVERSIBLE, RATIO 10:1"}, False),
        ({"derivation": "LOSSLESS J2K RECOMPRESSION"}, False),
        ({"derivation": "DE-IDENTIFIED"}, False),
        ({"deidentified": True}, False),
        ({"lossy": True, "derivation": "AVERAGE OF 3 IMAGES"}, True),
        ({"lossy": True, "derivation": "MPR"}, True),
        ({"lossy": True, "sources": 30}, True),
        ({"lossy": True, "kind": ("DERIVED", "SECONDARY", "M")}, True),
        ({"lossy": True, "kind": ("DERIVED", "PRIMARY", "MPR")}, True),
        ({"lossy": True, "names": ("SAG MPR", "")}, True),
        ({}, True),
    ],
)
def test_images_stored_again_are_not_derived(header: dict[str, Any], refused: bool) -> None:
    """DERIVED is accepted for compression and de-identification, refused for anything else."""
    refusal = candidate(**{"kind": DERIVED, **header}).refusal
    assert (refusal is not None) is refused


@pytest.mark.parametrize("plane", PLANES)
def test_a_map_is_refused_but_not_its_source_echoes(plane: Plane) -> None:
    """A T2 map is refused, but not a series of five echoes of the same name."""
    names = ("T2 MAP", "")
    echoes = [one for k in range(5) for one in images(plane, te_ms=10.0 + 12 * k, names=names)]
    assert {one.refusal for one in candidates(sort_into_series(echoes))} == {None}
    assert "a map" in str(candidate(plane, names=names).refusal)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"Modality": "CT"}, "not MR"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "screenshot"),
        ({"BurnedInAnnotation": "YES"}, "burned into"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localiser"),
        ({"SeriesDescription": "3-plane loc"}, "localiser"),
        ({"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, "derived"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}, "derived"),
        ({"BodyPartExamined": "BRAIN"}, "another body part"),
        ({"BodyPartExamined": "ANKLE", "StudyDescription": "MRI"}, "another body part"),
        ({"BodyPartExamined": "", "StudyDescription": "MR Kopf"}, "description names another"),
        ({"BodyPartExamined": "", "StudyDescription": "IRM cérébral"}, "description names"),
        ({"BodyPartExamined": "", "StudyDescription": "IRM cerveau"}, "description names another"),
        ({"ImageType": ["DERIVED", "PRIMARY", "M"], "LossyImageCompression": "01"}, None),
        ({"ImageType": ["DERIVED", "PRIMARY", "M"], "LossyImageCompressionRatio": "8"}, None),
        ({"ImageType": ["DERIVED", "PRIMARY", "M"], "PatientIdentityRemoved": "YES"}, None),
        ({"ImageType": ["DERIVED", "PRIMARY"], "DerivationDescription": "lossless JPEG"}, None),
        ({"ImageType": ["DERIVED", "PRIMARY"], "DerivationDescription": "mean of 2"}, "derived"),
        ({"ComplexImageComponent": "PHASE"}, "phase image"),
        ({"BodyPartExamined": "LEG", "StudyDescription": "Knee, hip pain"}, None),
        ({"BodyPartExamined": None, "StudyDescription": "MR"}, None),
        ({"ImageOrientationPatient": None}, "its orientation"),
        ({"ImageOrientationPatient": ["0", "0", "0", "0", "0", "0"]}, "its orientation"),
        ({"PixelSpacing": None}, "its pixel size"),
        ({"PixelSpacing": ["0", "0"]}, "its pixel size"),
    ],
)
def test_refusals_by_elements(
    tmp_path: Path, change: dict[str, object], reason: str | None
) -> None:
    """Unsuitable series are refused with their reasons; sparse headers are accepted."""
    found = written(tmp_path, Scan(Plane.SAGITTAL, 1, "SAG", elements=change))
    if reason is None:
        assert found.refusal is None
    else:
        assert found.refusal is not None
        assert reason in found.refusal


@pytest.mark.parametrize(("tilt", "refused"), [(34.0, False), (36.0, True), (-40.0, True)])
def test_too_oblique_is_refused(tmp_path: Path, tilt: float, refused: bool) -> None:
    """A stack more than 35 degrees from every plane is refused."""
    found = written(tmp_path, Scan(Plane.CORONAL, tilt=tilt))
    assert found.angle_deg == pytest.approx(abs(tilt), abs=0.01)
    assert (found.refusal is not None) is refused


def test_a_few_slices_in_several_orientations_are_a_localiser(tmp_path: Path) -> None:
    """A localiser is recognised by its geometry without any description."""
    found = []
    for plane in PLANES:
        found += datasets(knee()[plane][:3], Scan(plane, name="first"), "a", "same")
    refusals = {one.refusal for one in candidates(series_of(found, tmp_path))}
    assert refusals == {"a localiser: a few slices in several orientations"}


def test_a_ge_phase_image_is_refused(tmp_path: Path) -> None:
    """A GE phase image is recognised by its private element alone."""
    for component, refused in ((0, False), (1, True), (3, True)):
        found = datasets(knee()[Plane.SAGITTAL][:10], Scan(Plane.SAGITTAL))
        for dataset in found:
            dataset.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(
                0x2F, "SS", component
            )
        (one,) = candidates(series_of(found, tmp_path))
        assert (one.refusal is not None) is refused


def test_a_coded_derivation(tmp_path: Path) -> None:
    """DerivationCodeSequence is used like DerivationDescription."""
    for meaning, refused in (("Lossy Compression", False), ("Multiplanar reformatting", True)):
        elements = {
            "ImageType": ["DERIVED", "PRIMARY"],
            "LossyImageCompression": "01",
            "DerivationCodeSequence": [item(CodeMeaning=meaning)],
        }
        found = written(tmp_path, Scan(Plane.SAGITTAL, 1, "SAG", elements=elements))
        assert (found.refusal is not None) is refused


@pytest.mark.parametrize(("count", "spacing", "refused"), [(50, 4.0, True), (160, 0.8, False)])
def test_a_sagittal_stack_over_both_legs_is_refused(
    count: int, spacing: float, refused: bool
) -> None:
    """A sagittal stack wider than any knee is refused."""
    refusal = candidate(Plane.SAGITTAL, count, spacing=spacing).refusal
    assert (refusal is not None and "both legs" in refusal) == refused
