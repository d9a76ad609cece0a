"""What a series is taken for, which is chosen, and which is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mrknee.exams import PLANES, Plane
from mrknee.sources.clinical.anatomy import described_side, names_knee
from mrknee.sources.clinical.protocol import Candidate, candidates, ranked, why_not
from tests.sources.clinical.hospital import Scan, datasets, knee
from tests.sources.clinical.test_pixels import series_of

TINY = np.arange(4 * 4, dtype=np.uint8).reshape(1, 4, 4)


def candidate(folder: Path, scan: Scan, slices: int = 20) -> Candidate:
    """One scan as a candidate."""
    stack = np.repeat(TINY, slices, axis=0)
    (found,) = candidates(series_of(datasets(stack, scan), folder))
    return found


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
    ],
)
def test_weighting(
    tmp_path: Path,
    name: str,
    te: float | None,
    tr: float | None,
    technique: str | None,
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
        ({"BodyPartExamined": "LEG", "StudyDescription": "Knee, hip pain"}, None),
        ({"BodyPartExamined": None, "StudyDescription": "MR"}, None),
        ({"ImageOrientationPatient": None}, "doesn't say how it lies"),
        ({"ImageOrientationPatient": ["0", "0", "0", "0", "0", "0"]}, "doesn't say how it lies"),
        ({"PixelSpacing": None}, "how large a pixel is"),
        ({"PixelSpacing": ["0", "0"]}, "how large a pixel is"),
    ],
)
def test_refusals(tmp_path: Path, change: dict[str, object], reason: str | None) -> None:
    """What can't stand for a plane is refused with its reason; what merely says little is not."""
    found = candidate(tmp_path, Scan(Plane.SAGITTAL, 1, "SAG", elements=change))
    if reason is None:
        assert found.refusal is None
    else:
        assert found.refusal is not None
        assert reason in found.refusal


@pytest.mark.parametrize(("tilt", "refused"), [(34.0, False), (36.0, True), (-40.0, True)])
def test_too_oblique_is_refused(tmp_path: Path, tilt: float, refused: bool) -> None:
    """35 degrees off its plane is the limit."""
    found = candidate(tmp_path, Scan(Plane.CORONAL, tilt=tilt))
    assert found.angle_deg == pytest.approx(abs(tilt), abs=0.01)
    assert (found.refusal is not None) is refused


def test_a_few_slices_in_several_orientations_are_a_localiser(tmp_path: Path) -> None:
    """What every scan begins with is recognised without any word for it."""
    found = []
    for plane in PLANES:
        found += datasets(knee()[plane][:3], Scan(plane, name="first"), "a", "same")
    refusals = {one.refusal for one in candidates(series_of(found, tmp_path))}
    assert refusals == {"a localiser: a few slices in several orientations"}


@pytest.mark.parametrize(
    ("plane", "better", "worse", "why"),
    [
        (Plane.SAGITTAL, {"name": "T2 FS", "te": 70.0}, {"name": "PD FS"}, "weighting"),
        (Plane.SAGITTAL, {"name": "T2 FS"}, {"name": "T2"}, "fat saturation"),
        (Plane.CORONAL, {"name": "T1", "te": 12.0, "tr": 500.0}, {"name": "PD"}, "weighting"),
        (Plane.CORONAL, {"name": "PD"}, {"name": "PD FS"}, "fat saturation"),
        (Plane.AXIAL, {"name": "PD FS"}, {"name": "T2 FS", "te": 70.0}, "weighting"),
        (Plane.AXIAL, {"name": "PD FS"}, {"name": "PD FS", "tilt": 20.0}, "angle"),
        (Plane.AXIAL, {"name": "PD FS"}, {"name": "PD FS", "pixel": 0.9}, "pixels"),
        (Plane.AXIAL, {"name": "PD FS", "number": 9}, {"name": "PD FS"}, "last one made"),
    ],
)
def test_the_closest_to_mrnets_protocol_is_first(
    tmp_path: Path,
    plane: Plane,
    better: dict[str, object],
    worse: dict[str, object],
    why: str,
) -> None:
    """The rule of docs/importing.md, a difference at a time."""
    stack = np.repeat(TINY, 20, axis=0)
    scans = [replace(Scan(plane, 1), **worse), replace(Scan(plane, 2), **better)]  # type: ignore[arg-type]
    written = [one for scan in scans for one in datasets(stack, scan)]
    found = candidates(series_of(written, tmp_path))
    first, second = ranked(found, plane)
    assert first.series.first.names[0] == str(better["name"])
    assert first.series.first.pixel_mm[0] == scans[1].pixel
    assert why in why_not(second, first)


def test_few_slices_come_last(tmp_path: Path) -> None:
    """A stack of 3 of the right weighting doesn't beat one of 20 of the next best."""
    scans = (Scan(Plane.SAGITTAL, 1, "T2 FS"), Scan(Plane.SAGITTAL, 2, "PD FS"))
    written = datasets(np.repeat(TINY, 3, axis=0), scans[0])
    written += datasets(np.repeat(TINY, 20, axis=0), scans[1])
    first, second = ranked(candidates(series_of(written, tmp_path)), Plane.SAGITTAL)
    assert first.weighting == "PD"
    assert "number of slices" in why_not(second, first)


@pytest.mark.parametrize(
    ("text", "side"),
    [
        ("MRI RIGHT KNEE W/O", "right"),
        ("L KNEE", "left"),
        ("RM GINOCCHIO D", "right"),
        ("Knie links", "left"),
        ("Genou droit", "right"),
        ("KNEE_RT", "right"),
        ("T2 3D KNEE", None),
        ("2D L", None),
        ("left and right knee", None),
    ],
)
def test_sides_in_words(text: str, side: str | None) -> None:
    """A side is taken from words in several languages, a letter only beside the knee."""
    assert described_side([text]) == side


def test_a_coil_names_the_knee(tmp_path: Path) -> None:
    """Without any description, a knee coil says what was imaged."""
    change = {"BodyPartExamined": None, "StudyDescription": None, "ReceiveCoilName": "HD TRknee PA"}
    found = candidate(tmp_path, Scan(Plane.SAGITTAL, 1, "SAG", elements=change))
    assert names_knee(found.series.first)
