"""Weighting and fat suppression of a series."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydicom.sequence import Sequence as Items

from mrknee.exams import Plane
from mrknee.sources.clinical.contrast import fat_saturation_of, stated_fat_saturation
from mrknee.sources.clinical.header import read_header
from mrknee.sources.clinical.locate import Location
from mrknee.sources.clinical.protocol import candidates
from mrknee.sources.clinical.series import sort_into_series
from tests.sources.clinical import headers
from tests.sources.clinical.hospital import Scan, enhanced, item, knee, write
from tests.sources.clinical.test_protocol import candidate


@pytest.mark.parametrize(
    ("name", "te", "tr", "technique", "weighting"),
    [
        ("COR", 12.0, 600.0, "SE", "T1"),
        ("SAG", 31.6, 2450.0, "SE", "PD"),
        ("SAG", 70.0, 4000.0, "SE", "T2"),
        ("SAG T2 TSE", 40.0, 4000.0, "SE", "T2"),  # between PD and T2 its name decides
        ("PD_TSE_FS", 50.0, 3000.0, "SE", "PD"),
        ("DP SAG", 50.0, 3000.0, "SE", "PD"),
        ("T1 TSE", 90.0, 4000.0, "SE", "T2"),  # the times decide between T1 and others
        ("T2 COR", 10.0, 500.0, "SE", "T1"),
        ("T2*", 15.0, 600.0, "GR", "gradient echo"),
        ("DESS", 5.0, 16.0, None, "gradient echo"),
        ("T1", None, None, "SE", "T1"),
        ("PD T2 DUAL", None, None, "SE", "unknown"),
        ("SAG", None, None, None, "unknown"),
        # times outrank names if they are decisive
        ("SAG T2 MAP FS", 10.0, 2000.0, "SE", "PD"),
        ("PD FS", 80.0, 4000.0, "SE", "T2"),
        ("T1 TSE 3T", 11.0, 1200.0, "SE", "T1"),
        ("PD TSE", 11.0, 1200.0, "SE", "PD"),
        # vendors' names and techniques
        ("T2WI", 40.0, 4000.0, "SE", "T2"),
        ("PDWI", 50.0, 4000.0, "SE", "PD"),
        ("T2*_MERGE", 15.0, 600.0, ["GR", "RM"], "gradient echo"),
        ("SAG FIESTA", 5.0, 16.0, "RM", "gradient echo"),
        ("GRASE T2", 60.0, 3000.0, ["SE", "GR"], "T2"),
    ],
)
def test_weighting(
    tmp_path: Path,
    name: str,
    te: float | None,
    tr: float | None,
    technique: str | list[str] | None,
    weighting: str,
) -> None:
    """A weighting comes from technique, times and name, in this order."""
    elements = {"ScanningSequence": technique}
    found = candidate(tmp_path, Scan(Plane.SAGITTAL, 1, name, te, tr, elements))
    assert found.weighting == weighting


@pytest.mark.parametrize(
    ("name", "elements", "saturated"),
    [
        ("PD", {"ScanOptions": "FS"}, True),
        ("PD", {"ScanOptions": ["FAST_GEMS", "FATSAT_GEMS"]}, True),
        ("PD_FS_SAG", {}, True),
        ("PDFS", {}, True),
        ("T2 FatSat", {}, True),
        ("T2 Fat Sat", {}, True),
        ("STIR", {}, True),
        ("PD SPAIR", {}, True),
        ("SAG", {"ScanningSequence": ["SE", "IR"], "InversionTime": "150"}, True),
        ("SAG", {"ImageType": ["DERIVED", "PRIMARY", "DIXON", "WATER"]}, True),
        ("t2_de3d_we_sag", {}, True),
        ("SAG WATS", {}, True),
        ("3D_WATSc", {}, True),
        ("PROSET SAG", {}, True),
        ("SAG PD water excitation", {}, True),
        ("PD TIRM", {}, True),
        ("PDSPAIR SAG", {}, True),
        ("PD F/S", {}, True),
        ("PD SAT. GRASA", {}, True),
        ("DP supressão de gordura", {}, True),
        ("PD YAG BASKILI", {}, True),
        ("PD vetsuppressie", {}, True),
        ("PD fettsat", {}, True),
        *(
            (f"PD {no} FS", {}, False)
            for no in ("NO", "NON", "ohne", "sans", "SIN", "w/o", "senza")
        ),
        ("PD non-fatsat", {}, False),
        ("PD no fat sat", {}, False),
        ("PD nonFS", {}, False),
        ("PD no FS", {"ScanOptions": "FS"}, True),
        ("PDW_SPIR", {}, True),
        ("PD ASPIR", {}, True),
        ("DP SAT GRAISSE", {}, True),
        ("t2_tse_dixon_sag_W", {}, True),
        ("WATER: SAG PD", {}, True),
        ("PD", {"ScanOptions": "WE"}, True),
        ("PD", {"ScanOptions": ["PFP", "SPIR"]}, True),
        ("PD", {"ImageType": ["ORIGINAL", "PRIMARY", "W", "W", "SE"]}, True),
        ("t2_tse_dixon_sag_in", {}, False),
        ("PD", {"ScanOptions": "PFP"}, False),
        ("T1", {}, False),
        ("FSE T2", {}, False),
    ],
)
def test_fat_saturation(
    tmp_path: Path,
    name: str,
    elements: dict[str, object],
    saturated: bool,
) -> None:
    """Fat saturation comes from ScanOptions, the kind of image, the inversion time or the name."""
    found = candidate(tmp_path, Scan(Plane.SAGITTAL, 1, name, elements=elements))
    assert found.fat_saturated is saturated
    assert found.refusal is None


@pytest.mark.parametrize(("ti_ms", "saturated"), [(160.0, True), (2500.0, False)])
def test_stir_in_an_enhanced_file(tmp_path: Path, ti_ms: float, saturated: bool) -> None:
    """Inversion and its time are in MRModifierSequence there."""
    scan = Scan(Plane.SAGITTAL, 1, "Dummy", tr=4000.0)
    dataset = enhanced(knee()[Plane.SAGITTAL], scan)
    modifier = item(InversionRecovery="YES", InversionTimes=[ti_ms])
    dataset.SharedFunctionalGroupsSequence[0].MRModifierSequence = Items([modifier])
    path = write(dataset, tmp_path / "enhanced.dcm")
    with path.open("rb") as file:
        images = read_header(file, Location(path))
    (found,) = candidates(sort_into_series(images))
    assert found.fat_saturated is saturated


def test_descriptions_of_the_study_do_not_apply_to_a_series(tmp_path: Path) -> None:
    """Fat saturation in the study's description is ignored for each series."""
    scan = Scan(Plane.CORONAL, 1, "COR T1", 12.0, 600.0, {"StudyDescription": "KNEE FS PROTOCOL"})
    assert candidate(tmp_path, scan).fat_saturated is False


@pytest.mark.parametrize(
    ("header", "stated", "used"),
    [
        ({"options": ("FS",), "names": ("Dummy", "")}, True, True),
        ({"options": ("PFP",), "names": ("Dummy", "")}, None, False),
        ({"names": ("SAG PD w/o FS", "")}, False, False),
        ({"names": ("SAG PD", "")}, None, False),
        ({"names": ("Dummy", "")}, None, False),
        ({"names": ("", ""), "study_words": ()}, None, None),
    ],
)
def test_a_silent_name_states_nothing_about_fat(
    header: dict[str, Any], stated: bool | None, used: bool | None
) -> None:
    """Options and words state it; a name without such words counts as a no, but isn't stated."""
    series = headers.candidate(**header).series
    assert (stated_fat_saturation(series), fat_saturation_of(series)) == (stated, used)
